"""How commands are taken apart."""

from __future__ import annotations

import pytest

from node.admin.tokens import TOKENS_LIMIT, Arguments, Kind, statements
from node.errors import ClientFault


def words(text: str) -> list[list[tuple[str, str]]]:
    return [[(token.kind.name, token.text) for token in statement] for statement in statements(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SHOW POOLS", [[("WORD", "SHOW"), ("WORD", "POOLS")]]),
        ("  show\t\n pools ;", [[("WORD", "show"), ("WORD", "pools")]]),
        ("RELOAD; SHOW POOLS;;", [[("WORD", "RELOAD")], [("WORD", "SHOW"), ("WORD", "POOLS")]]),
        ("", []),
        (" ; ;", []),
        ("-- nothing", []),
        ("SHOW /* /* nested */ comment */ POOLS -- and this", [[("WORD", "SHOW"), ("WORD", "POOLS")]]),
        ('PAUSE "My ""Db"""', [[("WORD", "PAUSE"), ("NAME", 'My "Db"')]]),
        ("PAUSE My-Db", [[("WORD", "PAUSE"), ("WORD", "My-Db")]]),
        ("x 'it''s; fine'", [[("WORD", "x"), ("STRING", "it's; fine")]]),
        ("x 'back\\slash'", [[("WORD", "x"), ("STRING", "back\\slash")]]),
        (r"x E'a\n\'b\\\x41\u00e9\101'", [[("WORD", "x"), ("STRING", "a\n'b\\AéA")]]),
        ("x $$a 'b' $c$$", [[("WORD", "x"), ("STRING", "a 'b' $c")]]),
        ("x $tag$ $$ ; $tag$", [[("WORD", "x"), ("STRING", " $$ ; ")]]),
        ("x $1, $23", [[("WORD", "x"), ("PARAMETER", "1"), ("SYMBOL", ","), ("PARAMETER", "23")]]),
        ("SET a='b'", [[("WORD", "SET"), ("WORD", "a"), ("SYMBOL", "="), ("STRING", "b")]]),
        (
            "SHOW CLIENTS id,user",
            [[("WORD", w) for w in ("SHOW", "CLIENTS", "id")] + [("SYMBOL", ","), ("WORD", "user")]],
        ),
    ],
)
def test_a_query_becomes_statements_of_tokens(text: str, expected: object) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    "text", ["'open", '"open', "E'open\\'", "$$open", "$a$open$$", "/* open", "/* /* */", '""', r"E'\0'", r"E'\ud800'"]
)
def test_what_is_not_closed_or_not_text_is_a_syntax_error(text: str) -> None:
    with pytest.raises(ClientFault) as caught:
        statements(f"PAUSE {text}")
    assert caught.value.sqlstate == "08P01"
    assert caught.value.position is not None


def test_a_text_of_nothing_but_commas_has_a_limit() -> None:
    statements("," * TOKENS_LIMIT)
    with pytest.raises(ClientFault, match="syntax error"):
        statements("," * (TOKENS_LIMIT + 1))


def test_a_url_is_read_as_it_was_written() -> None:
    url = "postgres://Some%20User:p=a,s@h-1:5432/Db?host=/tmp"
    (statement,) = statements(f"PROBE {url} rest")
    arguments = Arguments(f"PROBE {url} rest", statement[1:], "PROBE url")
    assert arguments.raw("a URL") == url
    assert arguments.name("rest") == "rest"
    arguments.end()


def test_keywords_are_words_in_any_case_but_never_quoted() -> None:
    text = 'dry RUN "DRY" RUN'
    (statement,) = statements(text)
    arguments = Arguments(text, statement, "")
    assert arguments.keyword("DRY", "RUN")
    assert not arguments.keyword("DRY", "RUN")
    assert arguments.take("a name", Kind.NAME) == "DRY"


def test_an_error_says_what_was_expected_and_where() -> None:
    text = "BAN x"
    (statement,) = statements(text)
    arguments = Arguments(text, statement[1:], "BAN [pool id]")
    with pytest.raises(ClientFault) as caught:
        arguments.integer("the id of a pool")
    assert caught.value.detail == 'Expected the id of a pool, found "x".'
    assert caught.value.hint == "the grammar is: BAN [pool id]"
    assert caught.value.position == 5
