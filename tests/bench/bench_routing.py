"""Microbenchmarks of routing: `python tests/bench/bench_routing.py`. Nanoseconds of CPU per call, best of many.

The last part is what a unit of a client costs until its shard is known (`routed.where`), and which share of that the
lexer has.
"""

from __future__ import annotations

import sys
import time
import timeit
from collections.abc import Callable
from typing import Any

from node.client import routed
from node.client.prepared import PreparedStatements
from node.client.shape import Shapes
from node.routing import hashing, lexer
from node.routing.cache import StatementCache
from node.routing.catalog import Catalog
from node.routing.hints import NONE
from node.routing.lexer import lex
from node.routing.outcome import Role
from node.routing.plan import Values, plan
from node.routing.topology import ShardedTable, Topology
from node.wire import messages

SELECT = b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;"
UPDATE = b"UPDATE pgbench_accounts SET abalance = abalance + -123 WHERE aid = 12345;"
PARAMETER = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1"
OTHER = b"SELECT bbalance FROM pgbench_branches WHERE bid = $1"
ONE = Topology("pgbench", 1)
FOUR = Topology(
    "pgbench", 4, (ShardedTable(None, "pgbench_accounts", "aid"), ShardedTable(None, "pgbench_branches", "bid"))
)
ROUNDS = 15


def measure(name: str, call: Callable[[], object], number: int) -> float:
    best = min(timeit.repeat(call, number=number // ROUNDS, repeat=ROUNDS, timer=time.process_time))
    best = best / (number // ROUNDS) * 1e9
    print(f"{name:<48} {best:>9.0f} ns")
    return best


class Layout:
    __slots__ = ("catalog", "loaded")

    def __init__(self) -> None:
        self.catalog, self.loaded = Catalog.EMPTY, True


class Database:
    __slots__ = ("balancers", "layout", "topology")

    def __init__(self) -> None:
        self.balancers, self.layout, self.topology = (1, 2, 3, 4), Layout(), FOUR


class Services:
    __slots__ = ("prepared", "shapes")

    def __init__(self) -> None:
        self.prepared, self.shapes = PreparedStatements(100), Shapes(100)


class Requests:
    __slots__ = ("buffer",)

    def __init__(self) -> None:
        self.buffer = b""


class Client:
    """As much of a session as `where` asks for."""

    __slots__ = (
        "begin_message", "database", "hints", "id", "portals", "prepared", "requests", "server", "services", "shard",
        "tx_failed", "unit_role", "unnamed_parse", "wrote",
    )  # fmt: skip

    def __init__(self) -> None:
        self.database, self.services, self.requests = Database(), Services(), Requests()
        self.hints, self.id, self.server, self.shard = NONE, 1, None, -1
        self.begin_message = self.unnamed_parse = b""
        self.portals: dict[bytes, object] = {}
        self.wrote: set[int] = set()
        self.unit_role = Role.PRIMARY
        self.tx_failed = False
        used = self.services.prepared.use
        self.prepared = {b"s1": used(PARAMETER, b"\0\0", ""), b"s2": used(OTHER, b"\0\0", "")}


def units(number: int) -> None:
    client: Any = Client()
    lexing = {sql: measure(f"lex {len(sql)} bytes", lambda sql=sql: lex(sql), number) for sql in (SELECT, PARAMETER)}  # type: ignore[misc]
    end = messages.describe_statement(b"")[:5] + b"P\0" + messages.execute() + messages.SYNC

    def bind(name: bytes, binary: bool = False) -> bytes:
        value = (12345).to_bytes(4, "big") if binary else b"12345"
        return messages.bind(b"", name, (1,) if binary else (), (value,)) + end

    parse, other = messages.parse(b"", PARAMETER), messages.parse(b"", OTHER)
    for name, turn, lexed in (
        ("simple", (messages.query(SELECT), messages.query(SELECT[:-2] + b"6;")), SELECT),
        ("simple, update", (messages.query(UPDATE), messages.query(UPDATE[:-2] + b"6;")), SELECT),
        ("extended", (parse + bind(b""), parse + bind(b"")), None),
        ("extended, two texts in turn", (parse + bind(b""), other + bind(b"")), None),
        ("prepared", (bind(b"s1"), bind(b"s1")), None),
        ("prepared, binary", (bind(b"s1", True), bind(b"s1", True)), None),
        ("prepared, two texts in turn", (bind(b"s1"), bind(b"s2")), None),
    ):

        def two(turn: tuple[bytes, bytes] = turn) -> None:
            for buffer in turn:
                client.requests.buffer = buffer
                routed.where(client, 0, len(buffer))

        best = min(timeit.repeat(two, number=number // ROUNDS, repeat=ROUNDS, timer=time.process_time))
        best = best / (number // ROUNDS) / 2 * 1e9
        share = f"  lexer {lexing[lexed] / best:.0%}" if lexed is not None else ""
        print(f"{'where, ' + name:<48} {best:>9.0f} ns{share}")


def main() -> None:
    compiled = not lexer.__file__.endswith(".py")
    print(f"lexer: {'compiled' if compiled else 'interpreted'}, Python {sys.version.split()[0]}")
    n = 150_000 if compiled else 15_000
    cache = StatementCache()
    (statement,), lexed = cache.lookup(SELECT)
    (bound,), bound_lexed = cache.lookup(PARAMETER)
    values = Values(lexed, ())
    parameters = Values(bound_lexed, (b"12345",), (), ())
    binary = Values(bound_lexed, ((12345).to_bytes(4, "big"),), (1,), (23,))
    measure("hashing.bigint", lambda: hashing.bigint(12345), n)
    measure("hashing.varchar, 25 bytes", lambda: hashing.varchar(b"hello world, this is long"), n)
    measure("lex pgbench UPDATE", lambda: lex(UPDATE), n)
    measure("StatementCache.lookup, hit", lambda: cache.lookup(SELECT), n)
    measure("plan, one shard", lambda: plan(statement, values, NONE, ONE, Catalog.EMPTY), n)
    measure("plan, four shards, literal", lambda: plan(statement, values, NONE, FOUR, Catalog.EMPTY), n // 2)
    measure("plan, four shards, text parameter", lambda: plan(bound, parameters, NONE, FOUR, Catalog.EMPTY), n // 2)
    measure("plan, four shards, binary parameter", lambda: plan(bound, binary, NONE, FOUR, Catalog.EMPTY), n // 2)
    units(n)


if __name__ == "__main__":
    main()
