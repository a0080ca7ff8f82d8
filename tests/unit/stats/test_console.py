"""The page of the console shows values and nothing but values."""

from __future__ import annotations

from node.http.console import MAX_ROWS, View, page


def test_values_are_escaped() -> None:
    body = page("<t>", [View("<v>", ["<c>"], [["<script>alert(1)</script>"]])])
    assert "<script" not in body
    assert "&lt;script&gt;" in body
    assert all(one in body for one in ("&lt;t&gt;", "&lt;v&gt;", "&lt;c&gt;"))


def test_each_kind_of_value_has_its_form() -> None:
    body = page("t", [View("v", ["a"], [[None, True, 5, 1.5, "x"]])])
    assert '<td></td><td>yes</td><td class="number">5</td><td class="number">1.500</td><td>x</td>' in body


def test_a_long_table_is_cut_and_says_so() -> None:
    body = page("t", [View("v", ["a"], [[n] for n in range(MAX_ROWS + 7)])])
    assert body.count("<tr>") == MAX_ROWS + 1
    assert "and 7 more rows" in body


def test_nothing_to_show() -> None:
    assert "nothing to show yet" in page("t", [])
