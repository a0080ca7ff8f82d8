"""The scanner agrees with tomllib about what is in a text, and knows the line of each key."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.config.positions import Path, scan


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    """Every path that leads to something in a parsed document."""
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, inner in value.items():
            found |= paths_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found |= paths_of(inner, (*path, index))
    return found


def check(text: str) -> None:
    assert scan(text).paths() == paths_of(tomllib.loads(text))


TEXTS = {
    "plain": "a = 1\n[general]\nport = 6432\n",
    "comments": "# [no]\n# x = 1\n[general] # [[also]] no\nport = 1 # host = 2\n#",
    "hash in strings": "a = \"# not a comment\"\nb = '# [x]'\nc = 1\n",
    "multi-line strings": 'a = """\n[fake]\nb = 1\n\\"""\n"""\nc = \'\'\'\n[[fake]]\n\'\'\'\nd = 4\n',
    "quotes before the end of a long string": 'a = """x"""""\nb = \'\'\'y\'\'\'\'\'\nc = """"""\nd = 1\n',
    "quoted keys": '"a.b" = 1\n\'c = d\' = 2\n[ "x]y" . z ]\n"\\u0041" = 1\n"\\"" = 2\n',
    "dotted keys": "a.b.c = 1\na . b . d = 2\n[t]\nx.y = 3\nx.z = 4\n",
    "inline tables": "a = {b = 1, c = {d = 2, e.f = 3}, g = []}\nh = 1\n",
    "arrays": "a = [\n  1, # one\n  2,\n  [3, 4], # ]\n  {b = 1},\n  {b = '}', c = \"]\"},\n]\nb = 2\n",
    "arrays of tables": "[[d]]\nname = 'x'\n[[d.m]]\nv = 1\n[[d.m]]\nv = 2\n[[d]]\n[d.s]\nx = 1\n[[d.m]]\nv = 3\n",
    "dates": "a = 1979-05-27 07:32:00\nb = 1979-05-27\n"
    "c = 1979-05-27T07:32:00Z\nd = 07:32:00\ne = [1979-05-27 07:32:00]\n",
    "numbers": "a = 1_000\nb = 0xff\nc = 1e5\nd = -inf\ne = nan\nf = +1.5\ng = true\n",
    "empty": "",
    "only blanks": " \t\n\n",
    "no newline at the end": "[a]\nb = 1",
    "headers without blanks": "[a]#c\n[b.c]#d\n[[e]]#f\n",
    "super table later": "[a.b]\nx = 1\n[a]\ny = 2\n",
    "bare keys that look like numbers": "1234 = 1\n1.2 = 3\n",
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_it_finds_exactly_what_tomllib_finds(name: str, newline: str) -> None:
    check(TEXTS[name].replace("\n", newline))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_lines_count_through_everything_that_spans_lines(newline: str) -> None:
    text = newline.join(
        [
            "# comment",  # 1
            "[general]",  # 2
            'host = """a',  # 3
            "port = 1",  # 4
            '"""',  # 5
            "port = [",  # 6
            "  1,",  # 7
            "",  # 8
            "  {x = 2},",  # 9
            "]",  # 10
            "[[databases]]",  # 11
            "name = 'a'",  # 12
            "",  # 13
            "[[databases]]",  # 14
            "name.first = 'b'",  # 15
        ]
    )
    found = scan(text)
    assert found.line(("general",)) == 2
    assert found.line(("general", "host")) == 3
    assert found.line(("general", "port")) == 6
    assert found.line(("general", "port", 0)) == 7
    assert found.line(("general", "port", 1, "x")) == 9
    assert found.line(("databases",)) == 11
    assert found.line(("databases", 0, "name")) == 12
    assert found.line(("databases", 1)) == 14
    assert found.line(("databases", 1, "name", "first")) == 15


def test_an_unwritten_key_has_the_line_of_what_surrounds_it() -> None:
    found = scan("\n[[databases]]\nname = 'a'\n")
    assert found.line(("databases", 0, "host")) == 2
    assert found.line(("databases", 7)) == 2
    assert found.line(("admin",)) == 1


# -- random documents -------------------------------------------------------------------------------------------------

SCALARS = st.sampled_from(
    ["1", "-2.5", "true", "''", '"#"', "'[x]'", '"\\"="', '"""\nk = 1\n[t]\n"""', "'''\n\\'''", "1979-05-27 07:32:00"]
)
KEYS = st.sampled_from(["a", "b", "c-d", '"e.f"', "'g h'", '"\\u00e9"', '"]"', "'#'"])
GAPS = st.sampled_from(["", " ", "\n", "\n# ] } , '\n", " \t"])


def values(depth: int = 2) -> st.SearchStrategy[str]:
    if depth == 0:
        return SCALARS
    inner = values(depth - 1)
    arrays = st.builds(
        lambda items, gap: "[" + gap + ("," + gap).join(items) + gap + "]", st.lists(inner, max_size=3), GAPS
    )
    flat = st.dictionaries(KEYS, inner, max_size=3)
    tables = flat.map(lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs.items()) + "}")
    return st.one_of(SCALARS, arrays, tables)


SECTIONS = st.lists(
    st.tuples(
        st.sampled_from(["[t{n}]", "[[arr]]", "[[arr.inner]]", "[[ x . y ]]", "[t{n}.u.'v w']"]),
        st.dictionaries(KEYS, values(), max_size=4),
    ),
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(SECTIONS, st.sampled_from(["\n", "\r\n"]))
def test_random_documents_scan_like_they_parse(sections: list[tuple[str, dict[str, str]]], newline: str) -> None:
    text = ""
    expected: list[tuple[str, str, int]] = []
    for number, (header, pairs) in enumerate(sections):
        text += header.format(n=number) + "\n"
        for key, value in pairs.items():
            expected.append((key, value, text.count("\n") + 1))
            text += f"{key} = {value}\n"
    text = text.replace("\n", newline)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # [[arr.inner]] before [[arr]] and the like
    found = scan(text)
    assert found.paths() == paths_of(data)
    top = [path for path in found.paths() if isinstance(path[-1], str)]
    lines = {found.line(path) for path in top}
    assert {line for _, _, line in expected} <= lines


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab[]{}=.,\"'\\#\n\r\t 1-:u", max_size=60))
def test_any_text_ends_and_valid_text_agrees(text: str) -> None:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert scan(text).paths() == paths_of(data)
