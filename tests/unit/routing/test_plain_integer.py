"""The shortcut for `key = 12345` says what the long way says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.routing import placement
from node.routing.catalog import Catalog
from node.routing.hints import NONE
from node.routing.lexer import lex
from node.routing.outcome import Values
from node.routing.plan import plan
from node.routing.statement import parse
from node.routing.topology import ShardedTable, Topology

TOPOLOGY = Topology("d", 5, tables=(ShardedTable(None, "orders", "id"),))
NUMBERS = st.integers(-(2**64), 2**64) | st.integers(-40000, 40000)


def both(monkeypatch: pytest.MonkeyPatch, sql: str, values: Values) -> tuple[object, object]:
    (statement,) = parse(sql)
    short = plan(statement, values, NONE, TOPOLOGY, Catalog.EMPTY)
    monkeypatch.setattr(placement, "plain_integer", lambda *_: None)
    long = plan(statement, replace(values), NONE, TOPOLOGY, Catalog.EMPTY)
    monkeypatch.undo()
    return short, long


def same(short: object, long: object) -> bool:
    fault = getattr(short, "fault", None)
    if fault is not None:
        return str(fault) == str(getattr(long, "fault", None))
    return short == long


@given(number=NUMBERS, quoted=st.booleans())
def test_literals(number: int, quoted: bool) -> None:
    sql = f"SELECT * FROM orders WHERE id = {chr(39) * quoted}{number}{chr(39) * quoted}"
    with pytest.MonkeyPatch.context() as patch:
        assert same(*both(patch, sql, Values(lex(sql.encode()))))


@given(
    number=NUMBERS,
    declared=st.sampled_from([(), (0,), (20,), (21,), (23,), (25,), (1700,)]),
    size=st.sampled_from([0, 1, 2, 4, 8]),
)
def test_parameters(number: int, declared: tuple[int, ...], size: int) -> None:
    sql = "SELECT * FROM orders WHERE id = $1"
    if size:
        value = (number % 2 ** (8 * size)).to_bytes(size, "big")
    else:
        value = str(number).encode()
    values = Values(lex(sql.encode()), (value,), (1,) if size else (), declared)
    with pytest.MonkeyPatch.context() as patch:
        assert same(*both(patch, sql, values))
