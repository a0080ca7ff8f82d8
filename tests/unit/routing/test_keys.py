"""No row that a WHERE clause selects may live on a shard that the plan leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.routing.worlds import FOUR, RANGES, outcome

from node.errors import ClientFault
from node.routing.keys import ALL, KeySet, intersection, union
from node.routing.outcome import Plan, Refusal
from node.routing.shard_map import DefaultEntry, ListEntry, Mapping, RangeEntry, key_value, nearest, shard_of
from node.routing.topology import DataType, Hasher, ShardedTable
from node.routing.typed import read_uuid, split_array

Truth = bool | None
Row = tuple[int | None, int | None]  # key, total


@dataclass(frozen=True)
class Clause:
    """A condition as SQL, and what it says of a row in three-valued logic."""

    sql: str
    holds: tuple[Truth, ...]  # for each of ROWS


ROWS: list[Row] = [(k, t) for k in (None, -3, 0, 1, 2, 3, 5, 8, 99, 100, 150, 199, 200, 500) for t in (None, 1, 5)]


def _compare(a: int | None, operator: str, b: int | None) -> Truth:
    if a is None or b is None:
        return None
    return {"=": a == b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b, "<>": a != b}[operator]


def _clause(sql: str, test) -> Clause:  # type: ignore[no-untyped-def]
    return Clause(sql, tuple(test(row) for row in ROWS))


NUMBERS = st.sampled_from([-3, 0, 1, 2, 3, 5, 8, 99, 100, 150, 199, 200, 500])
WRITTEN = ["{}", "'{}'", "{}::bigint", "{} + 0", "({})", "{}.0", "'{}'::int"]


@st.composite
def leaves(draw: st.DrawFn) -> Clause:
    column = draw(st.sampled_from(["{key}", "total"]))
    at = 0 if column == "{key}" else 1
    number = draw(NUMBERS)
    written = draw(st.sampled_from(WRITTEN)).format(number)
    shape = draw(st.sampled_from(["compare", "swapped", "in", "between", "null", "any", "is"]))
    if shape == "compare":
        operator = draw(st.sampled_from(["=", "<", "<=", ">", ">=", "<>"]))
        return _clause(f"{column} {operator} {written}", lambda r: _compare(r[at], operator, number))
    if shape == "swapped":
        operator = draw(st.sampled_from(["=", "<", ">="]))
        return _clause(f"{written} {operator} {column}", lambda r: _compare(number, operator, r[at]))
    if shape == "in":
        others = draw(st.lists(NUMBERS, min_size=1, max_size=4))
        text = ", ".join(map(str, others))
        return _clause(f"{column} IN ({text})", lambda r: None if r[at] is None else r[at] in others)
    if shape == "between":
        high = draw(NUMBERS)
        return _clause(
            f"{column} BETWEEN {number} AND {high}", lambda r: None if r[at] is None else number <= r[at] <= high
        )
    if shape == "null":
        return _clause(f"{column} IS NULL", lambda r: r[at] is None)
    if shape == "any":
        return _clause(f"{column} = ANY('{{{number},NULL}}')", lambda r: True if r[at] == number else None)
    return _clause(f"{column} IS NOT DISTINCT FROM {number}", lambda r: r[at] == number)


def _and(a: Truth, b: Truth) -> Truth:
    return False if a is False or b is False else None if a is None or b is None else True


def _or(a: Truth, b: Truth) -> Truth:
    return True if a is True or b is True else None if a is None or b is None else False


def _join(operator: str, a: Clause, b: Clause) -> Clause:
    combine = _and if operator == "AND" else _or
    holds = tuple(combine(x, y) for x, y in zip(a.holds, b.holds, strict=True))
    return Clause(f"({a.sql} {operator} {b.sql})", holds)


CLAUSES = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.builds(_join, st.sampled_from(["AND", "OR"]), inner, inner),
        st.builds(lambda c: Clause(f"NOT ({c.sql})", tuple(None if h is None else not h for h in c.holds)), inner),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(CLAUSES, st.sampled_from([("orders", "id"), ("events", "at")]))
def test_selected_rows_are_on_planned_shards(clause: Clause, table: tuple[str, str]) -> None:
    name, key = table
    rule = FOUR.rule(None, name)
    assert rule is not None
    found = outcome(f"UPDATE {name} SET x = 1 WHERE {clause.sql.replace('{key}', key)}")
    assert isinstance(found, Plan), found
    for row, holds in zip(ROWS, clause.holds, strict=True):
        if holds is True:
            shard = shard_of(rule, row[0], 4)
            assert shard is None or shard in found.shards, (row, shard, found)


POINTS = st.frozensets(st.integers(0, 9), max_size=4).map(KeySet)
SPANS = st.builds(lambda a, b: KeySet(intervals=((min(a, b), max(a, b)),)), st.integers(0, 9), st.integers(0, 9))
SETS = st.one_of(POINTS, SPANS, st.just(ALL))


def _contains(keys: KeySet, value: int) -> bool:
    return keys.everything or value in keys.points or any(a <= value <= b for a, b in keys.intervals)  # type: ignore[operator]


@given(SETS, SETS)
def test_set_algebra(a: KeySet, b: KeySet) -> None:
    for value in range(10):
        assert _contains(union(a, b), value) == (_contains(a, value) or _contains(b, value))
        assert _contains(intersection(a, b), value) == (_contains(a, value) and _contains(b, value))


@pytest.mark.parametrize(
    ("value", "shard"),
    [(-(2**63), 0), (99, 0), (100, 1), (199, 1), (200, 2), (None, None)],
)
def test_ranges_include_their_start_and_exclude_their_end(value: int | None, shard: int | None) -> None:
    assert RANGES.shard_of(value) == shard


def test_list_then_range_then_default() -> None:
    mapping = Mapping((DefaultEntry(3), RangeEntry(0, 10, 1), ListEntry((5, None), 2)))
    assert [mapping.shard_of(v) for v in (5, 6, 11, None)] == [2, 1, 3, 2]
    assert mapping.shards == {1, 2, 3}


@pytest.mark.parametrize("count", [3, 20])
def test_many_ranges_are_found_as_few_are(count: int) -> None:
    mapping = Mapping(tuple(RangeEntry(i * 10, i * 10 + 5, i) for i in range(count)))
    for value in range(-5, count * 10 + 10):
        expected = value // 10 if 0 <= value < count * 10 and value % 10 < 5 else None
        assert mapping.shard_of(value) == expected


def test_null_hashes_to_shard_zero() -> None:
    assert shard_of(ShardedTable(None, "t", "id"), None, 7) == 0


def test_sha1() -> None:
    rule = ShardedTable(None, "t", "id", hasher=Hasher.SHA1)
    assert [shard_of(rule, i, 12) for i in range(20)] == [4, 7, 8, 3, 6, 0, 0, 10, 3, 11, 1, 7, 4, 4, 11, 2, 5, 0, 8, 3]


def test_vectors_go_to_the_nearest_centroid() -> None:
    rule = ShardedTable(None, "t", "v", DataType.VECTOR, centroids=((0.0, 0.0), (1.0, 1.0), (5.0, 5.0)))
    assert [shard_of(rule, v, 2) for v in ((0.1, 0.0), (1.2, 1.0), (9.0, 9.0))] == [0, 1, 0]
    assert nearest(rule.centroids, (1.0, 1.0), 0) == [1, 0]


@pytest.mark.parametrize(
    ("raw", "items"),
    [
        (b"{}", []),
        (b"{1,2}", [b"1", b"2"]),
        (b' { 1 , "a,b" , NULL, "NULL", "q\\"x" } ', [b"1", b"a,b", None, b"NULL", b'q"x']),
        (b"{{1}}", None),
        (b"{1,}", None),
        (b"[0:1]={1,2}", None),
        (b'{"a}', None),
        (b"", None),
    ],
)
def test_array_text(raw: bytes, items: list[bytes | None] | None) -> None:
    assert split_array(raw) == items


@settings(max_examples=300)
@given(st.binary(max_size=30))
def test_array_text_survives_anything(raw: bytes) -> None:
    assert split_array(raw) is None or raw.strip().startswith(b"{")


def test_uuid_forms() -> None:
    wanted = bytes.fromhex("f47ac10b58cc4372a5670e02b2c3d479")
    for text in (
        b"f47ac10b-58cc-4372-a567-0e02b2c3d479",
        b"{F47AC10B58CC4372A5670E02B2C3D479}",
        b"f47a-c10b58cc4372a5670e02b2c3d479",
    ):
        assert read_uuid(text) == wanted
    for text in (
        b"f47ac10b58cc4372a5670e02b2c3d47",
        b"f4-7ac10b58cc4372a5670e02b2c3d479",
        b"{f47ac10b58cc4372a5670e02b2c3d479",
    ):
        with pytest.raises(ClientFault):
            read_uuid(text)


def test_configured_values() -> None:
    assert key_value(DataType.BIGINT, "5") == 5
    assert key_value(DataType.VARCHAR, "5") == b"5"
    with pytest.raises(ValueError, match="out of range"):
        key_value(DataType.BIGINT, 2**63)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=12), st.sampled_from([0, 1]), st.sampled_from([0, 20, 23, 25, 2950, 1700, 99999]))
def test_any_parameter_ends_in_a_plan_or_a_clean_refusal(raw: bytes, form: int, oid: int) -> None:
    for sql in (
        "SELECT * FROM orders WHERE id = $1",
        "SELECT * FROM users WHERE name = $1",
        "SELECT * FROM docs WHERE id = ANY($1)",
        "INSERT INTO orders (id) VALUES ($1)",
    ):
        found = outcome(sql, [raw], formats=(form,), types=(oid,))
        assert isinstance(found, (Plan, Refusal))
