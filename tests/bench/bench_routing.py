"""Microbenchmarks of routing: `python tests/bench/bench_routing.py`. Prints nanoseconds per call, best of five."""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable

from node.routing import hashing, lexer
from node.routing.catalog import Catalog
from node.routing.hints import NONE
from node.routing.lexer import lex
from node.routing.plan import Values, plan
from node.routing.statement import StatementCache
from node.routing.topology import ShardedTable, Topology

SELECT = b"SELECT abalance FROM pgbench_accounts WHERE aid = 12345;"
UPDATE = b"UPDATE pgbench_accounts SET abalance = abalance + -123 WHERE aid = 12345;"
PARAMETER = b"SELECT abalance FROM pgbench_accounts WHERE aid = $1"
ONE = Topology("pgbench", 1)
FOUR = Topology("pgbench", 4, (ShardedTable(None, "pgbench_accounts", "aid"),))


def measure(name: str, call: Callable[[], object], number: int) -> None:
    best = min(timeit.repeat(call, number=number, repeat=5)) / number
    print(f"{name:<40} {best * 1e9:>9.0f} ns")


def main() -> None:
    compiled = not lexer.__file__.endswith(".py")
    print(f"lexer: {'compiled' if compiled else 'interpreted'}, Python {sys.version.split()[0]}")
    n = 100_000 if compiled else 10_000
    cache = StatementCache()
    (statement,), lexed = cache.lookup(SELECT)
    (bound,), bound_lexed = cache.lookup(PARAMETER)
    values = Values(lexed, ())
    parameters = Values(bound_lexed, (b"12345",), (), ())
    binary = Values(bound_lexed, ((12345).to_bytes(4, "big"),), (1,), (23,))
    measure("hashing.bigint", lambda: hashing.bigint(12345), n)
    measure("hashing.varchar, 25 bytes", lambda: hashing.varchar(b"hello world, this is long"), n)
    measure("lex pgbench SELECT", lambda: lex(SELECT), n)
    measure("lex pgbench UPDATE", lambda: lex(UPDATE), n)
    measure("StatementCache.lookup, hit", lambda: cache.lookup(SELECT), n)
    measure("plan, one shard", lambda: plan(statement, values, NONE, ONE, Catalog.EMPTY), n)
    measure("plan, four shards, literal", lambda: plan(statement, values, NONE, FOUR, Catalog.EMPTY), n // 2)
    measure("plan, four shards, text parameter", lambda: plan(bound, parameters, NONE, FOUR, Catalog.EMPTY), n // 2)
    measure("plan, four shards, binary parameter", lambda: plan(bound, binary, NONE, FOUR, Catalog.EMPTY), n // 2)


if __name__ == "__main__":
    main()
