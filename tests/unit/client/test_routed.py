"""The short way from a unit to its shard says what the long way says, whatever the unit looks like."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any, cast

import pytest
from fakes.shell import FakeShell
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.routing.worlds import CATALOG, FOUR

from node.auth.verifier import Account, AuthType
from node.client import routed
from node.client.parameters import NONE
from node.client.prepared import PreparedStatements
from node.client.services import Limits, Services
from node.client.session import Session
from node.client.shape import Shapes
from node.database import Database, Layout
from node.errors import ClientFault
from node.gate import Gate
from node.pool.balancer import Balancer
from node.routing import hashing
from node.routing.hints import Hints
from node.routing.memory import DATABASES_MAX
from node.routing.topology import ShardedTable, Topology
from node.server.connection import ServerConnection
from node.wire import messages as m

TEXTS = (
    b"SELECT * FROM orders WHERE id = $1",
    b"SELECT * FROM orders WHERE customer = $1 AND id = $2",
    b"SELECT * FROM orders JOIN items ON id = order_id WHERE order_id = $1",
    b"UPDATE orders SET total = 1 WHERE id = $1",
    b"INSERT INTO orders (customer, id) VALUES ($2, $1)",
    b"SELECT * FROM users WHERE name = $1",
    b"SELECT * FROM docs WHERE id = $1",
    b"SELECT * FROM mixed WHERE id = $1",
    b"SELECT * FROM orders WHERE id = 5 AND customer = $1",
    b"SELECT * FROM orders WHERE id = 5",
    b"SELECT * FROM orders",
    b"SELECT 1",
    b"BEGIN",
    b"SET x = 1",
    b"SELEC",
)
FOUR_BALANCERS = tuple(
    Balancer(None, [], strategy="random", split="include_primary", random=Random(0)) for _ in range(4)
)
TYPES = ((), (20,), (23, 20), (25, 21), (0, 0), (1700,))


def client(shapes: Shapes, **more: Any) -> Any:
    """As much of a session as `where` asks for."""
    statements = PreparedStatements(100)
    prepared = {
        b"s%d" % at: statements.use(sql, m.parse(b"", b"", TYPES[at % len(TYPES)])[7:], "")
        for at, sql in enumerate(TEXTS)
    }
    database = Database(
        name="four", user="me", epoch=0, mode="transaction", balancers=FOUR_BALANCERS, topology=FOUR,
        layout=Layout(CATALOG, loaded=True), gate=Gate("four"), prepared_limit=100,
    )  # fmt: skip
    services = Services(
        clock=lambda: 0.0, spawn=_nothing, shapes=shapes, prepared=statements, database=_nothing, slow=cast(Any, None),
        limits=Limits(), node="here",
    )  # fmt: skip
    session = Session(
        1, services, Account("me", AuthType.TRUST, ()), database, write=_nothing, shell=FakeShell(), now=0.0,
    )  # fmt: skip
    session.prepared = prepared
    session.shard = 3
    for name, value in more.items():
        setattr(session, name, value)
    return session


def _nothing(*of: object) -> Any:
    raise AssertionError("where() only looks")


def asked(session: Any, unit: bytes) -> tuple[object, ...]:
    session.requests.buffer = unit
    session.unit_role = None
    session.wrote = frozenset()
    try:
        shard: object = routed.where(session, 0, len(unit))
    except ClientFault as fault:
        shard = (fault.sqlstate, fault.message, fault.detail, fault.severity)
    return shard, session.unit_role, session.wrote


def value(number: int, code: int) -> bytes | None:
    return number.to_bytes(8, "big", signed=True) if code == 1 else b"%d" % number


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    parts: list[bytes] = []
    names = st.sampled_from((b"", b"", b"s1", *(b"s%d" % at for at in range(len(TEXTS)))))
    for letter in draw(st.sampled_from(("PBDES", "BDES", "BES", "PBES", "PDBES", "BS", "PBEBES", "PDS", "PBEH", "DBES",
                                        "PPBES", "BPES", "CPBES", "PBEC", "BE", "PBESS"))):  # fmt: skip
        match letter:
            case "P":
                parts.append(m.parse(draw(names), draw(st.sampled_from(TEXTS)), draw(st.sampled_from(TYPES))))
            case "B":
                count = draw(st.sampled_from((0, 1, 1, 2, 2, 3)))
                codes = draw(st.sampled_from(((), (0,), (1,), (0, 1), (1, 0), (2,))))
                each = [codes[at if len(codes) > 1 else 0] if codes and at < max(len(codes), 1) else 0
                        for at in range(count)]  # fmt: skip
                values = [draw(st.one_of(st.just(value(draw(st.integers(-300, 300)), code)), st.none(),
                                         st.binary(max_size=9))) for code in each]  # fmt: skip
                parts.append(m.bind(draw(st.sampled_from((b"", b"p"))), draw(names), codes, values))
            case "D":
                parts.append(m.describe_statement(draw(names)))
            case "E":
                parts.append(m.execute())
            case "C":
                parts.append(m.close_statement(draw(names)))
            case "H":
                parts.append(m.FLUSH)
            case _:
                parts.append(m.SYNC)
    if draw(st.integers(0, 4)) == 0:  # another body of the same length
        at = draw(st.integers(0, len(parts) - 1))
        body = bytearray(parts[at])
        if len(body) > 5:
            body[draw(st.integers(5, len(body) - 1))] = draw(st.integers(0, 255))
        parts[at] = bytes(body)
    if draw(st.integers(0, 9)) == 0:  # a body cut short, framed as if that were all of it
        at = draw(st.integers(0, len(parts) - 1))
        body = bytearray(parts[at][5 : draw(st.integers(5, len(parts[at])))])
        parts[at] = m.message(parts[at][:1], bytes(body))
    return b"".join(parts)


queries = st.builds(
    lambda form, number: m.query(form.format(number)),
    st.sampled_from(("SELECT * FROM orders WHERE id = {}", "select * from orders where id={} ;",
                     "SELECT * FROM orders WHERE id = '{}'", "INSERT INTO items (order_id) VALUES ({})",
                     "/* pgmurmur_shard: 2 */ SELECT * FROM orders WHERE id = {}", "SELECT {}; SELECT 2",
                     "DELETE FROM orders WHERE id = {} AND customer = 'x'", "SELECT * FROM mixed WHERE id = {}",
                     "SELECT * FROM orders WHERE id = {} AND customer = $1", "SELECT * FROM orders WHERE id = '{}",
                     "SELECT * FROM events WHERE at = {}")),
    st.integers(-300, 300),
)  # fmt: skip
WARM = Shapes(100)  # for all examples: what one has learned must hold for the next


@given(
    unit=st.one_of(batches(), queries),
    more=st.sampled_from(
        (
            {},
            {"begin_message": m.query(b"BEGIN")},
            {"hints": Hints(shard=2)},
            {"hints": Hints(role="primary")},
            {"hints": Hints(search_path=("public",))},
            {"portals": {b"": None}},
            {"unnamed_parse": m.parse(b"", TEXTS[0], (23,))},
            {"server": ServerConnection(0, None, NONE, 0.0)},
        )
    ),
)
@settings(max_examples=400)
def test_any_unit(unit: bytes, more: dict[str, Any]) -> None:
    assert asked(client(WARM, **more), unit) == asked(client(Shapes(0), **more), unit)


@pytest.mark.parametrize(
    "unit",
    [
        m.query(b"SELECT * FROM orders WHERE id = 7"),
        m.query(b"UPDATE orders SET total = 1 WHERE id = 7"),
        m.parse(b"", TEXTS[0]) + m.bind(b"", b"", (), (b"7",)) + m.execute() + m.SYNC,
        m.parse(b"", TEXTS[1], (25, 23)) + m.bind(b"", b"", (0, 1), (None, b"\0\0\0\7")) + m.execute() + m.SYNC,
        m.bind(b"", b"s0", (1,), (b"\0\7",)) + m.execute() + m.SYNC,
        m.bind(b"", b"s4", (), (b"7", b"x")) + m.execute() + m.SYNC,
    ],
)
def test_what_everybody_sends_is_planned_once(unit: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    session = client(Shapes(100))
    first = asked(session, unit)
    assert first[0] == hashing.bigint(7) % 4
    monkeypatch.setattr(routed, "plan", None)
    assert asked(session, unit) == first


def test_databases_that_say_the_same_do_not_forget_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = Shapes(100)
    here, there, new = client(shapes), client(shapes), client(shapes)
    there.database.topology = Topology("other", 3, (ShardedTable(None, "orders", "id"),))
    new.database.topology = replace(FOUR)
    unit = m.query(b"SELECT * FROM orders WHERE id = 7")
    assert asked(here, unit)[0] == hashing.bigint(7) % 4
    assert asked(there, unit)[0] == hashing.bigint(7) % 3
    with monkeypatch.context() as patched:
        patched.setattr(routed, "plan", None)
        for _ in range(3):
            assert asked(here, unit)[0] == hashing.bigint(7) % 4
            assert asked(there, unit)[0] == hashing.bigint(7) % 3
        with pytest.raises(TypeError):
            asked(new, unit)
    assert asked(new, unit)[0] == hashing.bigint(7) % 4
    monkeypatch.setattr(routed, "plan", None)
    assert asked(new, unit)[0] == hashing.bigint(7) % 4
    assert asked(there, unit)[0] == hashing.bigint(7) % 3
    with pytest.raises(TypeError):  # the map before that one
        asked(here, unit)


def test_points_of_many_databases_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = Shapes(100)
    unit = m.query(b"SELECT * FROM orders WHERE id = 7")
    sessions = [client(shapes) for _ in range(DATABASES_MAX + 1)]
    for at, session in enumerate(sessions):
        session.database.topology = Topology(f"d{at}", 4, FOUR.tables)
        asked(session, unit)
    monkeypatch.setattr(routed, "plan", None)
    for session in sessions[1:]:
        assert asked(session, unit)[0] == hashing.bigint(7) % 4
    with pytest.raises(TypeError):
        asked(sessions[0], unit)
