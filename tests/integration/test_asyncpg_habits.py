"""What asyncpg says besides SQL: a Flush where others sync, and what its pools say before they lend a connection."""

from __future__ import annotations

import asyncpg
import pytest
from integration.harness import PASSWORD, USER, Database, Nodes, config_toml, sharded_table, users_toml


@pytest.mark.parametrize("count", [1, 2])
async def test_pools_and_copy(shards: list[Database], node_factory: Nodes, count: int) -> None:
    node = node_factory(config_toml(shards[:count], tables=sharded_table("t")), users_toml())
    options = {"host": node.host, "port": node.port, "user": USER, "password": PASSWORD, "database": "flock"}
    async with asyncpg.create_pool(**options, min_size=1, max_size=1) as pool:
        await pool.execute("CREATE TABLE t (id bigint PRIMARY KEY, name text)")
        async with pool.acquire() as client:
            # Parse, Describe, Flush; then a Query without a Sync in between
            assert await client.copy_records_to_table("t", records=[(n, "x") for n in range(50)]) == "COPY 50"
        # UNLISTEN *, CLOSE ALL, RESET ALL, pg_advisory_unlock_all() came between the two
        assert await pool.fetchval("SELECT count(*) FROM t") == 50
