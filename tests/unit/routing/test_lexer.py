"""The lexer against PostgreSQL's own scanner, on tables of real SQL and on random token soup."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pglast import parser

from node.routing.lexed import BACKSLASH, ORACLE
from node.routing.lexer import lex, trace

SHAPES = [
    ("SELECT a FROM t WHERE id = 5", b"select a from t where id = \1", [b"5"]),
    ("select  A\n from T -- why\n where id=5;", b"select a from t where id=\1", [b"5"]),
    ("/* x */ SELECT 1 /* y /* z */ */ ;", b"select \1", [b"1"]),
    ("SELECT 'it''s', E'a\\'b\\n', $$x$$, $a$ $$ $a$", b"select \3, \3, \3, \3", [b"it's", b"a'b\n", b"x", b" $$ "]),
    ("SELECT 'a'\n  'b', 'c' -- d\n 'e'", b"select \3, \3", [b"ab", b"ce"]),
    ("SELECT 1.5, .5, 1., 1e10, 1_000, 0x1F, 0b1, 0o7", b"select \2, \2, \2, \2, \1, \1, \1, \1", None),
    ('SELECT "A""b", "select"', b'select "A""b", "select"', []),
    ("SELECT a FROM t ORDER BY 1, 2 DESC LIMIT 5", b"select a from t order by 1, 2 desc limit \1", [b"5"]),
    ("SELECT a FROM t GROUP BY (1) HAVING count(*) > 5", b"select a from t group by (1) having count(*) > \1", [b"5"]),
    (
        "SELECT 1 GROUP BY (SELECT 3 ORDER BY 4 LIMIT 5), 2",
        b"select \1 group by (select 3 order by 4 limit 5), 2",
        [b"1"],
    ),
    ("SELECT DISTINCT ON (1) a, 5 FROM t", b"select distinct on (1) a, \1 from t", [b"5"]),
    ("SELECT (SELECT 1 ORDER BY 1), 2", b"select (select \1 order by 1), \1", [b"1", b"2"]),
    ("SELECT $1, $22::int", b"select $1, $22::int", []),
    ("SET search_path = 'a', 'b'", b"set search_path = 'a', 'b'", []),
    ("CREATE TABLE t (a varchar(10) DEFAULT 'x')", b"create table t (a varchar(10) default 'x')", []),
    ("SELECT 5, set_config('a', 'b', false), 6", b"select \1, set_config('a', 'b', false), 6", [b"5"]),
    ("SELECT B'101', X'1F', 7", b"select B'101', X'1F', \1", [b"7"]),
    ("SELECT 1-1, a-1, a--1\n+2", b"select \1-\1, a-\1, a +\1", [b"1", b"1", b"1", b"2"]),
    ("SELECT a$b$ FROM t", b"select a$b$ from t", []),
    ("SELECT interval '1 day'", b"select interval \3", [b"1 day"]),
    ("WITH x AS (SELECT 1) SELECT * FROM x", b"with x as (select \1) select * from x", [b"1"]),
    ("(SELECT 1) UNION SELECT 2", b"(select \1) union select \1", [b"1", b"2"]),
    ("INSERT INTO t VALUES (1, 'a'), (2, 'b')", b"insert into t values (\1, \3), (\1, \3)", [b"1", b"a", b"2", b"b"]),
    ("SELECT id FROM t WHERE n = N'x'", b"select id from t where n = n\3", [b"x"]),
    ("SELECT 1; SET a = 1; SELECT 2;;", b"select \1;set a = 1;select \1", [b"1", b"2"]),
    ("SELECT 'grün' FROM größe", "select \3 from größe".encode(), ["grün".encode()]),
    ("SELECT E'\\x41\\101\\u0041'", b"select \3", [b"AAA"]),
    ("SELECT E'it''s \\'' ", b"select \3", [b"it's '"]),
    ("", b"", []),
    (" ; ; ", b"", []),
]


@pytest.mark.parametrize(("sql", "shape", "values"), SHAPES)
def test_shape_and_values(sql: str, shape: bytes, values: list[bytes] | None) -> None:
    found = lex(sql.encode())
    assert found.shape == shape
    if values is not None:
        assert [found.literal_value(i) for i in range(found.literal_count())] == values


@pytest.mark.parametrize(
    ("sql", "statements", "first"),
    [
        ("SELECT 1", 1, b"SELECT"),
        (";", 0, b""),
        ("", 0, b""),
        ("-- nothing", 0, b""),
        ("begin; select 1; commit", 3, b"BEGIN"),
        ("(select 1)", 1, b"SELECT"),
        ("select ';'; select $$;$$; select \";\" /* ; */ -- ;", 3, b"SELECT"),
        ("create rule r as on insert to t do also (insert into a values (1); insert into b values (2))", 1, b"CREATE"),
        (
            "create function f() returns int begin atomic select case when 1=1 then 2 end; select 2; end; select 1",
            2,
            b"CREATE",
        ),
        ("create or replace procedure p() language sql begin atomic insert into t values (1); end", 1, b"CREATE"),
        ("create table begin_atomic (a int); select 1", 2, b"CREATE"),
        ("begin atomic; select 1", 2, b"BEGIN"),
    ],
)
def test_top_level_statements(sql: str, statements: int, first: bytes) -> None:
    found = lex(sql.encode())
    assert (found.statements, found.first) == (statements, first)
    assert len(found.spans()) == statements


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'x",
        "SELECT $$x",
        'SELECT "x',
        "SELECT /* x",
        "SELECT \x01",
        "SELECT 5abc",
        "SELECT 1_",
        "SELECT $a",
        "SELECT \\d",
        "SELECT E'x\\'",
        "SELECT $1a",
    ],
)
def test_what_the_scanner_rejects_is_its_own_shape(sql: str) -> None:
    found = lex(sql.encode())
    assert found.broken
    assert found.shape == b"\0" + sql.encode()
    assert found.literal_count() == 0


def test_backslash_strings_when_not_standard_conforming() -> None:
    sql = rb"SELECT 'a\'; DROP TABLE t; --', 5"
    assert lex(sql).statements == 2
    found = lex(sql, BACKSLASH)
    assert (found.statements, found.shape) == (1, b"select \3, \1")
    assert found.literal_value(0) == b"a'; DROP TABLE t; --"


@pytest.mark.parametrize(
    ("sql", "statements", "first"),
    [
        ("SELECT q'[it's; fine]' FROM dual", 1, b"SELECT"),
        ("BEGIN NULL; END;", 1, b"BLOCK"),
        ("BEGIN; SELECT 1; COMMIT;", 3, b"BEGIN"),
        ("DECLARE x int; BEGIN x := 1; END;", 1, b"BLOCK"),
        ("DECLARE c CURSOR FOR SELECT 1; FETCH c", 2, b"DECLARE"),
    ],
)
def test_oracle_dialect(sql: str, statements: int, first: bytes) -> None:
    found = lex(sql.encode(), ORACLE)
    assert (found.statements, found.first) == (statements, first)


def test_comments_are_kept_apart() -> None:
    found = lex(b"/* pgdog_shard: 1 */ SELECT 1 -- bye\n")
    assert found.comment_texts() == [b"/* pgdog_shard: 1 */", b"-- bye"]


# --- PostgreSQL's scanner as the judge ------------------------------------------------------------------------------

CLASSES = {
    "SCONST": "s", "USCONST": "s", "ICONST": "n", "FCONST": "n", "BCONST": "b", "XCONST": "b", "PARAM": "p",
    "IDENT": "w", "UIDENT": "i", "C_COMMENT": "c", "SQL_COMMENT": "c",
}  # fmt: skip


def scanned(sql: str) -> list[tuple[str, int, int]] | None:
    """PostgreSQL's tokens, as `trace` reports them; None where PostgreSQL's scanner gives up."""
    try:
        tokens = parser.scan(sql)
    except Exception:
        return None
    found = []
    for token in tokens:
        kind = CLASSES.get(token.name)
        if kind is None and token.kind != "NO_KEYWORD":
            kind = "w"
        if kind is None:
            continue
        text = sql[token.start : token.end + 1]
        if kind == "w" and text.startswith('"'):
            kind = "i"
        found.append((kind, token.start, token.end + 1))
    return found


PIECES = st.sampled_from(
    [
        "select",
        "FROM",
        "e",
        "E'",
        "'",
        "''",
        "$$",
        "$a$",
        "$1",
        '"',
        '""',
        "--",
        "/*",
        "*/",
        "\n",
        " ",
        "\t",
        ";",
        "(",
        ")",
    ]
    + [
        "1",
        "1_0",
        "0x1f",
        ".",
        "..",
        "1.5",
        "e5",
        "1e-3",
        "_",
        "a",
        "b",
        "B'01'",
        "x'1f'",
        "u&'",
        'U&"',
        "n'x'",
        "\\",
        "<",
    ]
    + [
        "->",
        "::",
        ":=",
        "=",
        "-",
        "+",
        "*",
        "/",
        "@",
        "?",
        "!",
        "#",
        "ORDER BY",
        "abc$d",
        "'x'\n'y'",
        "0",
        "7",
        "%",
        "^",
        "[",
    ]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=14))
def test_tokens_end_where_postgresql_says(pieces: list[str]) -> None:
    sql = "".join(pieces)
    theirs = scanned(sql)
    ours = lex(sql.encode())
    if ours.broken:
        return
    assert theirs is not None, f"PostgreSQL rejects {sql!r}, we took it"
    # nchar is a word and a string for us, as for PostgreSQL's grammar; its scanner reports the bare letter likewise.
    assert trace(sql.encode()) == theirs


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_survived(raw: bytes) -> None:
    for flags in (0, BACKSLASH, ORACLE):
        found = lex(raw, flags)
        assert len(found.shape) <= len(raw) + 2
        for kind, start, end in found.literals:
            assert kind in (1, 2, 3)
            assert 0 <= start < end <= len(raw)


LITERALS = st.one_of(
    st.integers(0, 10**12).map(str),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6).map(
        lambda s: "'" + s.replace("'", "''") + "'"
    ),
)


@settings(max_examples=300, deadline=None)
@given(LITERALS, LITERALS)
def test_shape_ignores_values(one: str, two: str) -> None:
    def shape(a: str, b: str) -> bytes:
        return lex(f"SELECT x FROM t WHERE a = {a} AND b = {b}".encode()).shape

    same = (one[0] == "'", two[0] == "'")
    assert shape(one, two) == shape("'q'" if same[0] else "7", "'q'" if same[1] else "8")
