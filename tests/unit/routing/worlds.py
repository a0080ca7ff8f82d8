"""Topologies, catalogs and a one-line `route` for the routing tests."""

from __future__ import annotations

from collections.abc import Sequence

from node.errors import ClientFault
from node.routing.cache import StatementCache
from node.routing.catalog import Catalog, CatalogColumn, CatalogTable
from node.routing.hints import Hints, comment_hints
from node.routing.lexer import lex
from node.routing.outcome import Outcome, Plan, Refusal
from node.routing.plan import Values, plan
from node.routing.shard_map import DefaultEntry, ListEntry, Mapping, RangeEntry
from node.routing.topology import DataType, ShardedTable, Topology

RANGES = Mapping((RangeEntry(None, 100, 0), RangeEntry(100, 200, 1), RangeEntry(200, None, 2)))
LISTS = Mapping((ListEntry((b"de", b"at"), 0), ListEntry((b"us", None), 1)))
WITH_DEFAULT = Mapping((ListEntry((1, 2), 0), RangeEntry(10, 20, 1), DefaultEntry(2)))

FOUR = Topology(
    "shop",
    4,
    (
        ShardedTable(None, "orders", "id"),
        ShardedTable(None, "items", "order_id"),
        ShardedTable(None, "users", "name", DataType.VARCHAR),
        ShardedTable(None, "docs", "id", DataType.UUID),
        ShardedTable(None, "events", "at", mapping=RANGES),
        ShardedTable(None, "regions", "code", DataType.VARCHAR, mapping=LISTS),
        ShardedTable(None, "mixed", "id", mapping=WITH_DEFAULT),
        ShardedTable("odd", "Odd Name", "Key Col"),
    ),
    omnisharded=frozenset(("countries",)),
)
ONE = Topology("shop", 1, FOUR.tables)
BY_COLUMN = Topology("shop", 4, (ShardedTable(None, None, "tenant_id"),))

INT8, INT4, TEXT, VARCHAR, BPCHAR, UUID, TIMESTAMPTZ, NUMERIC = 20, 23, 25, 1043, 1042, 2950, 1184, 1700


def _table(name: str, *columns: CatalogColumn, **more: object) -> CatalogTable:
    return CatalogTable("public", name, columns=columns, **more)  # type: ignore[arg-type]


C = CatalogColumn
CATALOG = Catalog(
    {
        (t.schema, t.name): t
        for t in (
            _table("orders", C("id", INT8), C("customer", TEXT), C("total", NUMERIC), C("at", TIMESTAMPTZ)),
            _table("items", C("id", INT8), C("order_id", INT8), C("sku", TEXT)),
            _table("users", C("name", TEXT), C("age", INT4)),
            _table("docs", C("id", UUID), C("body", TEXT)),
            _table("events", C("at", INT8), C("what", TEXT)),
            _table("regions", C("code", TEXT), C("title", TEXT)),
            _table("mixed", C("id", INT8), C("x", INT4, default="nextval('s')")),
            _table("countries", C("code", TEXT), C("name", TEXT)),
            _table("audit", C("id", INT8, default="nextval('audit_id_seq'::regclass)"), C("what", TEXT),
                   C("at", TIMESTAMPTZ, default="now()")),
            _table("tenants", C("tenant_id", INT8), C("name", TEXT)),
            _table("serials", C("tenant_id", INT8, default="nextval('x')"), C("name", TEXT)),
            _table("padded", C("tenant_id", BPCHAR)),
            _table("order_view", C("id", INT8), kind="v", parents=(("public", "orders"),)),
            _table("land_view", C("code", TEXT), kind="v", parents=(("public", "countries"),)),
            _table("orders_2024", C("id", INT8), C("total", NUMERIC), parents=(("public", "orders"),)),
            CatalogTable("odd", "Odd Name", columns=(C("Key Col", INT8), C("v", TEXT))),
        )
    },
    {"now": "s", "random": "v", "lower": "i", "count": "i", "sum": "i", "charge_card": "v", "max": "i", "min": "i",
     "gen_random_uuid": "v", "nextval": "v", "abs": "i"},
    frozenset(("count", "sum", "max", "min")),
)  # fmt: skip

_CACHE = StatementCache()


def outcome(
    sql: str,
    parameters: Sequence[bytes | None] | None = (),
    *,
    topology: Topology = FOUR,
    catalog: Catalog = CATALOG,
    hints: Hints | None = None,
    formats: Sequence[int] = (),
    types: Sequence[int] = (),
) -> Outcome:
    """The outcome for a text with one statement, through a cache that all tests share."""
    raw = sql.encode()
    try:
        (statement,), lexed = _CACHE.lookup(raw)
    except ClientFault as fault:
        return Refusal(fault)
    said = comment_hints(lex(raw)) if hints is None else hints
    return plan(statement, Values(lexed, parameters, formats, types), said, topology, catalog)


def route(sql: str, parameters: Sequence[bytes | None] | None = (), **more: object) -> str:
    """`shards road combine`, or `refused SQLSTATE message`: what a table of cases compares."""
    found = outcome(sql, parameters, **more)  # type: ignore[arg-type]
    if isinstance(found, Refusal):
        return f"refused {found.fault.sqlstate} {found.fault.message}"
    assert isinstance(found, Plan)
    return f"{','.join(map(str, found.shards))} {found.road} {found.combine}"
