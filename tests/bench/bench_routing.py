"""Microbenchmarks of routing: `python tests/bench/bench_routing.py`. Nanoseconds of CPU per call, best of many.

The last part is what a unit of a client costs until its shard is known (`routed.where`), and which share of that the
lexer has.
"""

from __future__ import annotations

import sys
import time
import timeit
from collections.abc import Callable
from random import Random
from typing import Any, cast

from node.auth.verifier import Account, AuthType
from node.client import routed
from node.client.prepared import PreparedStatements
from node.client.services import Limits, Services
from node.client.session import Session
from node.client.shape import Shapes
from node.database import Database, Layout
from node.gate import Gate
from node.pool.balancer import Balancer
from node.routing import hashing, lexer
from node.routing.cache import StatementCache
from node.routing.catalog import Catalog
from node.routing.hints import NONE
from node.routing.lexer import lex
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


def client() -> Session:
    """On a database with four shards; nothing is ever sent."""
    shapes, prepared = Shapes(100), PreparedStatements(100)
    shard = Balancer(None, [], strategy="random", split="include_primary", random=Random(0))
    database = Database(
        name="pgbench", user="me", epoch=0, mode="transaction", balancers=(shard,) * 4, topology=FOUR,
        layout=Layout(Catalog.EMPTY, loaded=True), gate=Gate("pgbench"), prepared_limit=100,
    )  # fmt: skip
    services = Services(
        clock=lambda: 0.0, spawn=_never, shapes=shapes, prepared=prepared, database=_never, slow=cast(Any, None),
        limits=Limits(), node="here",
    )  # fmt: skip
    session = Session(
        1, services, Account("me", AuthType.TRUST, ()), database, write=_never, shell=cast(Any, None), now=0.0
    )
    session.prepared = {b"s1": prepared.use(PARAMETER, b"\0\0", ""), b"s2": prepared.use(OTHER, b"\0\0", "")}
    return session


def _never(*of: object) -> Any:
    raise AssertionError("where() only looks")


def units(number: int) -> None:
    session = client()
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
                session.requests.buffer = buffer
                routed.where(session, 0, len(buffer))

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
