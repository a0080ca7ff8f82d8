"""A point that answers says what the planners say when they have none."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.routing.worlds import BPCHAR, CATALOG, INT8, LISTS, RANGES, TEXT, UUID, VARCHAR, WITH_DEFAULT

from node.errors import ClientFault
from node.routing.catalog import Catalog, CatalogColumn, CatalogTable
from node.routing.hints import NONE, Hints
from node.routing.lexed import BACKSLASH
from node.routing.lexer import lex
from node.routing.outcome import Combine, Outcome, Plan, Road, Role, Values
from node.routing.placement import point_of, template
from node.routing.plan import plan
from node.routing.point import NOWHERE
from node.routing.shard_map import Mapping
from node.routing.statement import Statement, parse_lexed
from node.routing.topology import DataType, Hasher, ShardedTable, Topology

T = DataType


def world(data_type: DataType, mapping: Mapping | None = None, hasher: Hasher = Hasher.POSTGRES) -> Topology:
    tables = ("t", "u")
    return Topology("d", 5, tuple(ShardedTable(None, name, "k", data_type, hasher, mapping) for name in tables))


class World(NamedTuple):
    topology: Topology
    catalog: Catalog


def catalog(oid: int, modifier: int = -1) -> Catalog:
    columns = (CatalogColumn("k", oid, type_mod=modifier), CatalogColumn("v", TEXT))
    return Catalog({("public", name): CatalogTable("public", name, columns=columns) for name in ("t", "u")})


WORLDS = {
    "bigint": World(world(T.BIGINT), catalog(INT8)),
    "bigint, no catalog": World(world(T.BIGINT), Catalog.EMPTY),
    "bigint, sha1": World(world(T.BIGINT, hasher=Hasher.SHA1), catalog(INT8)),
    "bigint, ranges": World(world(T.BIGINT, RANGES), catalog(INT8)),
    "bigint, mixed": World(world(T.BIGINT, WITH_DEFAULT), catalog(INT8)),
    "varchar": World(world(T.VARCHAR), catalog(TEXT)),
    "varchar, sha1": World(world(T.VARCHAR, hasher=Hasher.SHA1), catalog(TEXT)),
    "varchar, lists": World(world(T.VARCHAR, LISTS), catalog(TEXT)),
    "varchar(3)": World(world(T.VARCHAR), catalog(VARCHAR, 7)),
    "char(3)": World(world(T.VARCHAR), catalog(BPCHAR, 7)),
    "uuid": World(world(T.UUID), catalog(UUID)),
    "uuid, no catalog": World(world(T.UUID), Catalog.EMPTY),
}
STATEMENTS = (
    "SELECT * FROM t WHERE k = {}",
    "SELECT v FROM t a WHERE v = 'x' AND {} = a.k ORDER BY 1",
    "SELECT * FROM t WHERE k = {} AND v = $2",
    "SELECT * FROM t WHERE k = {} AND k = 5",
    "SELECT * FROM t WHERE k = {} OR v = 'x'",
    "SELECT * FROM t WHERE k IN ({})",
    "SELECT * FROM t WHERE k IS NOT DISTINCT FROM {}",
    "SELECT * FROM t WHERE k <= {}",
    "SELECT * FROM t JOIN u ON t.k = u.k WHERE t.k = {}",
    "SELECT * FROM t JOIN u USING (k) WHERE u.k = {}",
    "SELECT * FROM t LEFT JOIN u ON u.k = t.k WHERE t.k = {}",
    "SELECT * FROM t LEFT JOIN u ON u.k = t.k WHERE u.k = {}",
    "SELECT * FROM t, u WHERE t.k = {}",
    "SELECT * FROM t, u WHERE t.k = {} AND u.k = 'x'",
    "SELECT * FROM t WHERE k = {} AND EXISTS (SELECT 1 FROM u WHERE u.k = t.k)",
    "SELECT * FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.k = {})",
    "SELECT * FROM t WHERE k = {} FOR UPDATE",
    "SELECT * FROM t WHERE k = -({})",
    "UPDATE t SET v = 'x' WHERE k = {}",
    "UPDATE t SET k = {} WHERE k = {}",
    "UPDATE t SET k = 1 WHERE k = {}",
    "DELETE FROM t USING u WHERE t.k = u.k AND u.k = {}",
    "INSERT INTO t (k, v) VALUES ({}, 'x')",
    "INSERT INTO t (v, k) VALUES ($2, {}) ON CONFLICT (k) DO UPDATE SET v = 'y' WHERE t.k = 5",
    "INSERT INTO t (k) VALUES ({}), (1)",
    "INSERT INTO t VALUES ({}) RETURNING *",
    "WITH w AS (DELETE FROM t WHERE k = {} RETURNING *) SELECT * FROM w",
)
NUMBERS = st.integers(-(2**64), 2**64) | st.integers(-300, 300)
WORDS = st.text(alphabet="ab -'\\é{}0x", max_size=5) | st.sampled_from(("de", "us", "at"))
UUIDS = st.uuids()


@st.composite
def spelled(draw: st.DrawFn) -> bytes:
    """A value as somebody might write it, of one type or another, or no value at all."""
    number = draw(NUMBERS)
    identity = str(draw(UUIDS))
    text = draw(
        st.one_of(
            st.sampled_from(
                (
                    str(number),
                    f"+{number}",
                    f" {number}\t",
                    f"0{number}",
                    f"-0{number}",
                    hex(abs(number)),
                    oct(abs(number)),
                    f"{number:_}",
                    f"{number}.0",
                    f"{number}e0",
                    f"-{number}",
                    "-0",
                    "00",
                    "",
                    "-",
                    "null",
                )
            ),
            st.sampled_from(
                (
                    identity,
                    identity.upper(),
                    identity.replace("-", ""),
                    "{" + identity + "}",
                    identity[:-1],
                    identity + "a",
                    identity.replace("-", "", 1),
                    "-".join(identity.replace("-", "")[i : i + 4] for i in range(0, 32, 4)),
                    identity.replace("-", "--", 1),
                    identity + "-",
                    identity[:-1] + "g",
                    f" {identity}",
                )
            ),
            WORDS,
            st.just(str(number)),
            st.just(str(number)),
            st.just(identity),
        )
    )
    return text.encode()


@st.composite
def literals(draw: st.DrawFn) -> bytes:
    text = draw(spelled())
    quoted = b"'" + text.replace(b"'", b"''") + b"'"
    return draw(st.sampled_from((text, quoted, quoted, b"E" + quoted, b"$$" + text + b"$$", b"'" + text + b"'")))


@st.composite
def parameters(draw: st.DrawFn) -> tuple[bytes | None, int]:
    """(value, format)."""
    number = draw(NUMBERS)
    size = draw(st.sampled_from((1, 2, 4, 8, 16)))
    binary = (number % 2 ** (8 * size)).to_bytes(size, "big")
    value = draw(st.one_of(spelled(), st.just(binary), UUIDS.map(lambda u: u.bytes), st.binary(max_size=6), st.none()))
    return value, draw(st.sampled_from((0, 1, 2) if value is None else (0, 0, 0, 1, 1, 2)))


def prepared(sql: bytes, world: World, flags: int = 0) -> tuple[Statement, Values]:
    lexed = lex(sql, flags)
    (statement,), _ = parse_lexed(lexed)
    return statement, Values(lexed, ())


def without_point(sql: bytes, values: Values, world: World, flags: int = 0) -> Outcome:
    statement, _ = prepared(sql, world, flags)
    template(statement, *world).point = None
    return plan(statement, values, NONE, *world)


def common(topology: Topology) -> list[bytes]:
    """Keys that nobody would find odd, on every shard."""
    data_type = topology.tables[0].data_type
    if data_type is T.BIGINT:
        return [b"%d" % number for number in (*range(12), 150, 250)]
    if data_type is T.UUID:
        return [str(uuid.UUID(int=number)).encode() for number in range(12)]
    return [b"de", b"us", *(b"%c" % letter for letter in range(97, 109))]


def agrees(sql: bytes, values: Values, world: World, flags: int = 0, others: Sequence[Values] = ()) -> int:
    """The point's shard, once it has been compared with the planners' answer. `others` are planned before."""
    statement, _ = prepared(sql, world, flags)
    for other in others:
        plan(statement, other, NONE, *world)
    first = plan(statement, values, NONE, *world)  # at the latest here an INSERT gets its point
    general = without_point(sql, values, world, flags)
    if isinstance(general, Plan):
        assert first == general
    else:
        assert str(getattr(first, "fault", first)) == str(getattr(general, "fault", general))
    point = point_of(statement, *world)
    if point is None:
        return NOWHERE
    shard = point.shard(values)
    if shard == NOWHERE:
        return NOWHERE
    if isinstance(general, Plan) and general.anywhere:
        assert not point.known[shard]
        return NOWHERE
    if point.known[shard]:
        assert isinstance(general, Plan), (general, shard)
        assert (general.shards, general.road, general.combine, general.program) == (
            (shard,), Road.DIRECT, Combine.ONE, None,
        )  # fmt: skip
        assert (general.role is Role.ANY, general.writes) == (point.any_role, point.writes)
    return shard


@given(data=st.data())
@settings(max_examples=500)
def test_any_literal(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(WORLDS)))
    form = data.draw(st.sampled_from(STATEMENTS))
    literal = data.draw(literals())
    sql = form.encode().replace(b"{}", literal)
    flags = data.draw(st.sampled_from((0, 0, 0, BACKSLASH)))
    try:
        prepared(sql, WORLDS[name], flags)
    except (ClientFault, ValueError):  # no SQL, or not one statement: nothing to plan
        return
    others = []
    for key in common(WORLDS[name].topology):
        other = lex(form.encode().replace(b"{}", b"'" + key + b"'" if b"'" in literal else key), flags)
        if other.shape == lex(sql, flags).shape:
            others.append(Values(other, (b"1", b"2")))
    agrees(sql, Values(lex(sql, flags), (b"1", b"2")), WORLDS[name], flags, others)


@given(data=st.data())
@settings(max_examples=500)
def test_any_parameter(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(WORLDS)))
    form = data.draw(st.sampled_from(STATEMENTS))
    sql = form.replace("{}", "$1").encode()
    value, code = data.draw(parameters())
    formats = data.draw(st.sampled_from(((code,), (code, 0), (code, 1)) + (((),) if code == 0 else ())))
    types = data.draw(st.sampled_from(((), (0,), (20,), (21,), (23,), (25,), (1043,), (1042,), (19,), (705,), (2950,),
                                       (1700,), (16,), (0, 23))))  # fmt: skip
    others = [Values(lex(sql), (key, b"2"), (), types) for key in common(WORLDS[name].topology)]
    agrees(sql, Values(lex(sql), (value, b"2"), formats, types), WORLDS[name], 0, others)


KEY = uuid.UUID("0123abcd-4567-89ab-cdef-0123456789ab")
NAMES = ("SELECT * FROM t WHERE k = {}", "UPDATE t SET v = 'x' WHERE k = {}", "INSERT INTO t (k) VALUES ({})",
         "SELECT * FROM t LEFT JOIN u USING (k) WHERE t.k = {}", "DELETE FROM t WHERE k = {}",
         "SELECT * FROM t JOIN u ON t.k = u.k WHERE u.k = {} AND v = 'x'")  # fmt: skip


@pytest.mark.parametrize(
    ("name", "literal", "value", "code", "types"),
    [
        ("bigint", "12345", b"12345", 0, ()),
        ("bigint", "-7", b"-7", 0, (20,)),
        ("bigint", "'-7'", (-7).to_bytes(8, "big", signed=True), 1, ()),
        ("bigint", "999999999999999999", (2**31 - 1).to_bytes(4, "big"), 1, (23,)),
        ("bigint, ranges", "150", b"150", 0, (23,)),
        ("bigint, sha1", "150", b"\1\2", 1, (21,)),
        ("varchar", "'ada'", b"ada", 0, (25,)),
        ("varchar, lists", "'us'", b"us", 1, ()),
        ("uuid", f"'{KEY}'", str(KEY).upper().encode(), 0, ()),
        ("uuid", f"'{KEY.hex}'", KEY.bytes, 1, (2950,)),
    ],
)
@pytest.mark.parametrize("form", NAMES)
def test_what_everybody_writes_is_read(
    name: str, literal: str, value: bytes, code: int, types: Sequence[int], form: str
) -> None:
    """A point that never answered would agree with everything."""
    sql = form.format(literal).encode()
    assert agrees(sql, Values(lex(sql)), WORLDS[name]) != NOWHERE
    sql = form.format("$1").encode()
    assert agrees(sql, Values(lex(sql), (value,), (code,), types), WORLDS[name]) != NOWHERE


H32 = KEY.hex


@pytest.mark.parametrize(
    "text",
    [
        H32, str(KEY), H32.upper(), "{" + H32 + "}", "-".join(H32[at : at + 4] for at in range(0, 32, 4)),
        H32[:2] + "-" + H32[2:], H32[:6] + "-" + H32[6:], H32[:31], H32 + "0", H32 + "-", "-" + H32, str(KEY) + " ",
        H32[:4] + "--" + H32[4:], H32[:8] + "g" + H32[9:], H32[:9] + "g" + H32[10:], "",
    ],
)  # fmt: skip
def test_every_spelling_of_a_uuid(text: str) -> None:
    world = WORLDS["uuid"]
    others = [Values(lex(b"SELECT * FROM t WHERE k = '%s'" % key)) for key in common(world.topology)]
    sql = f"SELECT * FROM t WHERE k = '{text}'".encode()
    agrees(sql, Values(lex(sql)), world, 0, others)
    sql = b"SELECT * FROM t WHERE k = $1"
    others = [Values(lex(sql), (key,)) for key in common(world.topology)]
    agrees(sql, Values(lex(sql), (text.encode(),)), world, 0, others)


@pytest.mark.parametrize(
    ("name", "form", "text"),
    [
        *(("char(3)", form, text) for form in NAMES for text in ("ab ", "b  ", "c ")),
        *(("varchar(3)", form, text) for form in NAMES for text in ("abc ", "abcd", "c  d ")),
        *(("bigint", form, "5") for form in STATEMENTS),
        *(("varchar", form, "x") for form in STATEMENTS),
    ],
)
def test_where_there_is_more_to_it(name: str, form: str, text: str) -> None:
    """Padding, lengths, other conditions, rows and tables: the planners' business."""
    world = WORLDS[name]
    texts = [
        form.format(*[f"'{key}'"] * 2).encode() for key in (text, *(key.decode() for key in common(world.topology)))
    ]
    sql, *others = [Values(lex(sql), (b"1", b"2")) for sql in texts]
    agrees(texts[0], sql, world, 0, others)
    for other in texts[1:]:
        agrees(other, Values(lex(other), (b"1", b"2")), world, 0, others)


@pytest.mark.parametrize("hints", [Hints(role="primary"), Hints(role="replica"), Hints(shard=1)])
@pytest.mark.parametrize("sql", [b"SELECT * FROM t WHERE k = 5", b"INSERT INTO t (k) VALUES (5)"])
def test_nothing_is_learned_under_a_hint(hints: Hints, sql: bytes) -> None:
    statement, values = prepared(sql, WORLDS["bigint"])
    plan(statement, values, hints, *WORLDS["bigint"])
    point = point_of(statement, *WORLDS["bigint"])
    assert point is None or not any(point.known)


def test_nothing_is_learned_of_a_key_that_moves() -> None:
    """Whether the row stays where it is depends on the other value, too."""
    statement, values = prepared(b"UPDATE t SET k = 5 WHERE k = 5", WORLDS["bigint"])
    assert isinstance(plan(statement, values, NONE, *WORLDS["bigint"]), Plan)
    point = point_of(statement, *WORLDS["bigint"])
    assert point is not None
    assert not any(point.known)


def test_an_unbound_text_is_only_described() -> None:
    statement, values = prepared(b"SELECT * FROM t WHERE k = 5 AND v = $1", WORLDS["bigint"])
    plan(statement, values, NONE, *WORLDS["bigint"])
    point = point_of(statement, *WORLDS["bigint"])
    assert point is not None
    assert point.bound


def test_a_new_catalog_has_a_new_point() -> None:
    statement, values = prepared(b"SELECT * FROM orders WHERE id = 5", WORLDS["bigint"])
    topology = Topology("d", 5, (ShardedTable(None, "orders", "id"),))
    plan(statement, values, NONE, topology, CATALOG)
    before = point_of(statement, topology, CATALOG)
    assert before is not None
    assert before.catalog is CATALOG
    plan(statement, values, NONE, topology, Catalog.EMPTY)
    after = point_of(statement, topology, Catalog.EMPTY)
    assert after is not None
    assert (after.catalog is Catalog.EMPTY, after.topology is topology) == (True, True)
