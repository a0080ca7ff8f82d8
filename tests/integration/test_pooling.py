"""What a client may rely on when it shares server connections with others, and what it must never see of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psycopg
import pytest
from fakes.fake_client import FakeClient
from integration.harness import (
    Database,
    Nodes,
    config_toml,
    connect,
    in_pools,
    raw,
    sharded_table,
    users_toml,
    wait_until,
)

from node.embedded.nodes import NodeProcess
from node.wire import messages as m


def one_server(shards: list[Database], node_factory: Nodes, general: str = "", size: int = 1) -> NodeProcess:
    """A node whose clients all use the same `size` server connections."""
    return node_factory(config_toml(shards[:1], general=general), users_toml(pool_size=size))


def value(connection: psycopg.Connection, sql: str) -> Any:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row[0]


def backends(database: Database) -> list[str]:
    sql = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database.name}' AND application_name LIKE 'pgmurmur/%'"
    return [pid for (pid,) in database.server.sql(sql, "postgres")]


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_follow_their_client_and_nobody_else(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)
    with connect(node) as a, connect(node, options="-c work_mem=6MB") as b, connect(node) as c:
        a.execute("SET work_mem = '5MB'")
        seen = [[value(x, "SHOW work_mem") for x in (a, b, c)] for _ in range(2)]
        assert seen == [["5MB", "6MB", "4MB"]] * 2
        with a.transaction():
            a.execute("SET work_mem = '7MB'")
            a.execute("SET LOCAL maintenance_work_mem = '2MB'")
            with a.transaction():  # a savepoint
                a.execute("SET work_mem = '8MB'")
                raise psycopg.Rollback
        assert [value(x, "SHOW work_mem") for x in (a, b, c)] == ["7MB", "6MB", "4MB"]
        assert value(a, "SHOW maintenance_work_mem") == value(c, "SHOW maintenance_work_mem") == "64MB"
        with a.transaction():
            a.execute("SET work_mem = '9MB'")
            raise psycopg.Rollback
        a.execute("SELECT set_config('search_path', 'pg_catalog', false)")
        assert [value(x, "SHOW work_mem") for x in (a, b, c)] == ["7MB", "6MB", "4MB"]
        assert value(a, "SHOW search_path") == "pg_catalog"
        assert value(c, "SHOW search_path") == '"$user", public'
        b.execute("SET work_mem = '1MB'")
        b.execute("RESET ALL")  # to what its startup packet asked for
        a.execute("RESET ALL")
        assert [value(x, "SHOW work_mem") for x in (a, b, c)] == ["4MB", "6MB", "4MB"]


def test_roles_follow_their_client(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)
    shards[0].sql("GRANT pg_monitor TO starling")
    with connect(node) as a, connect(node) as b:
        a.execute("SET ROLE pg_monitor")
        assert [value(x, "SELECT current_user::text") for x in (a, b, a)] == ["pg_monitor", "starling", "pg_monitor"]
        a.execute("RESET ROLE")
        assert value(a, "SELECT current_user::text") == "starling"


def test_client_encoding_follows_its_client(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)
    with connect(node, client_encoding="LATIN1") as a, connect(node) as b:
        for _ in range(2):
            assert value(a, "SELECT 'grün'") == value(b, "SELECT 'grün'") == "grün"
            assert value(b, "SHOW client_encoding") == "UTF8"
            assert value(a, "SHOW client_encoding") == "LATIN1"


def test_a_setting_that_is_refused_is_told_at_once(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)
    with connect(node) as a, connect(node) as b:
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            a.execute("SET lock_timeout TO sdf")
        assert value(b, "SELECT 1") == value(a, "SELECT 1") == 1


# --- what pins --------------------------------------------------------------------------------------------------------


def test_what_lives_in_a_server_session_stays_with_its_client(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, size=2)
    with connect(node) as b:
        with connect(node) as a:
            a.execute("CREATE TEMP TABLE mine AS SELECT 5 AS x")
            a.execute("SELECT pg_advisory_lock(42)")
            with a.transaction():
                a.execute("DECLARE held SCROLL CURSOR WITH HOLD FOR SELECT 8")
            a.execute("PREPARE by_sql AS SELECT 9")
            for _ in range(3):
                assert value(b, "SELECT pg_try_advisory_lock(42)") is False
                assert value(b, "SELECT to_regclass('mine')") is None
                assert [value(a, sql) for sql in ("TABLE mine", "FETCH ALL held", "EXECUTE by_sql")] == [5, 8, 9]
                a.execute("MOVE ABSOLUTE 0 held")
        # everything has gone with it, on every server connection there is
        wait_until(lambda: value(b, "SELECT pg_try_advisory_lock(42)"), "the lock is free")
    shown = (
        "SELECT (SELECT count(*) FROM pg_prepared_statements WHERE name = 'by_sql') + (SELECT count(*) FROM pg_cursors)"
    )
    with connect(node) as c, connect(node) as d, c.transaction(), d.transaction():
        assert value(c, shown) == value(d, shown) == 0
        assert value(c, "SELECT to_regclass('mine')") is None
    wait_until(
        lambda: shards[0].sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [("0",)], "no lock"
    )


def test_transaction_locks_and_tables_on_commit_drop_do_not_pin(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)
    with connect(node) as a, connect(node) as b:
        with a.transaction():
            a.execute("SELECT pg_advisory_xact_lock(1)")
            a.execute("CREATE TEMP TABLE gone (x int) ON COMMIT DROP")
        assert value(b, "SELECT 1") == 1  # the only server is free


def test_notifications_reach_who_listens(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, size=2)
    with connect(node) as a, connect(node) as b:
        a.execute("LISTEN murmurs")
        b.execute("NOTIFY murmurs, 'one'")
        assert [n.payload for n in a.notifies(timeout=5, stop_after=1)] == ["one"]
        a.execute("UNLISTEN *")


# --- prepared statements ----------------------------------------------------------------------------------------------


def test_names_of_statements_are_the_clients_own(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, size=2)

    async def scene() -> None:
        a, b = await raw(node), await raw(node)
        for client, answer in ((a, b"1"), (b, b"2")):
            client.send(m.parse(b"s", b"SELECT " + answer), m.SYNC)
            await client.answer()
        for _ in range(5):
            for client in (a, b):
                client.send(m.bind(b"", b"s"), m.execute(), m.SYNC)
            assert [(await client.answer()).rows for client in (a, b)] == [[(b"1",)], [(b"2",)]]
        a.send(m.close_statement(b"s"), m.SYNC, m.bind(b"", b"s"), m.execute(), m.SYNC)
        assert (await a.answer()).letters == "3Z"
        assert [e["C"] for e in (await a.answer()).errors] == ["26000"]
        await a.close()
        await b.close()

    asyncio.run(scene())


def test_evicted_statements_come_back(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, "prepared_statements_limit = 3\n")

    async def scene() -> None:
        a, b = await raw(node), await raw(node)
        for i in range(8):
            for client in (a, b):
                client.send(m.parse(b"s%d" % i, b"SELECT %d" % i), m.SYNC)
                assert (await client.answer()).letters == "1Z"
        order = [0, 5, 0, 3, 7, 0, 2, 6, 6, 1, 4, 0]
        for i in order:
            for client in (a, b):
                client.send(m.bind(b"", b"s%d" % i), m.execute(), m.bind(b"", b"s0"), m.execute(), m.SYNC)
                assert (await client.answer()).rows == [(b"%d" % i,), (b"0",)]
        # evictions behind an error were skipped by the server, too
        a.send(m.parse(b"", b"SELECT 1/0"), m.bind(b"", b""), m.execute())
        a.send(*(m.bind(b"", b"s%d" % i) + m.execute() for i in range(8)), m.SYNC)
        assert [e["C"] for e in (await a.answer()).errors] == ["22012"]
        for i in range(8):
            b.send(m.bind(b"", b"s%d" % i), m.execute(), m.SYNC)
            assert (await b.answer()).rows == [(b"%d" % i,)]
        (known,) = (await b.query("SELECT count(*) FROM pg_prepared_statements")).rows
        assert int(known[0] or 0) <= 3
        await a.close()
        await b.close()

    asyncio.run(scene())


def test_ddl_of_one_client_does_not_break_statements_of_others(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, size=3)
    with connect(node) as a, connect(node) as b, connect(node) as c:
        a.execute("CREATE TABLE t (x int)")
        for connection in (a, b, c):
            connection.execute("SELECT * FROM t", prepare=True)
        a.execute("ALTER TABLE t ADD y int")
        a.execute("INSERT INTO t VALUES (1, 2)")
        with a.transaction(), b.transaction(), c.transaction():  # on three servers
            assert [x.execute("SELECT * FROM t", prepare=True).fetchall() for x in (a, b, c)] == [[(1, 2)]] * 3


# --- clients that go --------------------------------------------------------------------------------------------------


async def gone_in(client: FakeClient, *parts: bytes) -> None:
    client.send(*parts)
    await client.writer.drain()
    await client.abort()


LEAVE: dict[str, list[bytes]] = {
    "in a transaction": [m.query("BEGIN; INSERT INTO t VALUES (1)")],
    "in a failed transaction": [m.query("BEGIN"), m.query("INSERT INTO t VALUES (1)"), m.query("nonsense")],
    "in a query": [m.query("SELECT pg_sleep(0.2), count(*) FROM t")],
    "in a long result": [m.query("SELECT repeat('x', 100000) FROM generate_series(1, 200)")],
    "before its Sync": [m.parse(b"", b"INSERT INTO t VALUES (1)") + m.bind(b"", b"") + m.execute()],
    "behind a Flush": [m.parse(b"", b"INSERT INTO t VALUES (1)") + m.bind(b"", b"") + m.execute() + m.FLUSH],
    "in a COPY": [m.query("COPY t FROM STDIN"), m.copy_data(b"1\n")],
    "in a COPY it began blindly": [m.query("COPY t FROM STDIN") + m.copy_data(b"1\n")],
    "in an extended COPY": [
        m.parse(b"", b"COPY t FROM STDIN") + m.bind(b"", b"") + m.execute() + m.SYNC,
        m.copy_data(b"1\n"),
    ],
    "in a piece of COPY data": [m.query("COPY t FROM STDIN"), m.copy_data(b"1\n" * 1000)[:-100]],
    "in a message": [m.query("INSERT INTO t VALUES (1)")[:-5]],
    "in a message inside a transaction": [m.query("BEGIN; INSERT INTO t VALUES (1)"), m.query("COMMIT")[:-3]],
    "with settings": [m.query("BEGIN"), m.query("SET work_mem = '5MB'")],
    "with settings behind it": [m.query("SET work_mem = '5MB'")],
}  # fmt: skip


def test_a_client_that_vanishes_leaves_nothing_behind(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)

    async def scene() -> None:
        async with await raw(node) as other:
            await other.query("CREATE TABLE t (x int)")
            for how, parts in LEAVE.items():
                for wait in (False, True):
                    client = await raw(node)
                    for part in parts[:-1]:
                        client.send(part)
                        await client.read()
                    if wait and len(parts) == 1:
                        client.send(parts[0])
                        await asyncio.sleep(0)
                        await client.abort()
                    else:
                        await gone_in(client, parts[-1])
                    answer = await other.query("SELECT count(*), current_setting('work_mem') FROM t")
                    assert (answer.rows, answer.status) == ([(b"0", b"4MB")], "I"), how

    asyncio.run(scene())


def test_the_rest_of_copy_data_reaches_nobody_else(shards: list[Database], node_factory: Nodes) -> None:
    """The server refuses the first line while half of a message is on its way: the other half must follow it."""
    node = one_server(shards, node_factory)

    async def scene() -> None:
        async with await raw(node) as client, await raw(node) as other:
            await client.query("CREATE TABLE t (x int)")
            client.send(m.query("COPY t FROM STDIN"))
            await client.until("G")
            data = m.copy_data(b"not a number\n") + m.copy_data(m.query("SELECT 'smuggled'") * 1000)
            client.send(data[:5000])
            assert [e["C"] for e in (await client.answer()).errors] == ["22P02"]
            asked = asyncio.create_task(other.query("SELECT 1"))
            client.send(data[5000:] + m.COPY_DONE)
            assert (await asked).rows == [(b"1",)]
            assert (await client.query("SELECT 2")).rows == [(b"2",)]
            # and a client that goes in the middle of such a message takes the server connection with it
            client.send(m.query("COPY t FROM STDIN"))
            await client.until("G")
            client.send(data[:5000])
            await client.answer()
            await client.abort()
            assert (await other.query("SELECT 3")).rows == [(b"3",)]

    asyncio.run(scene())


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_first_come_first_served(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)
    with connect(node) as holder:
        holder.execute("CREATE TABLE turns (n serial, who int)")
        clients = [connect(node) for _ in range(6)]
        with holder.transaction():
            holder.execute("SELECT 1")
            threads = []
            for number, client in enumerate(clients):
                threads.append(
                    threading.Thread(target=client.execute, args=(f"INSERT INTO turns (who) VALUES ({number})",))
                )
                threads[-1].start()
                wait_until(lambda n=number: in_pools(node, "cl_waiting") == n + 1, f"{number + 1} clients wait")
        for thread in threads:
            thread.join()
        assert holder.execute("SELECT who FROM turns ORDER BY n").fetchall() == [(n,) for n in range(6)]
        for client in clients:
            client.close()


def test_checkout_timeout_is_an_error_and_the_client_stays(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, 'checkout_timeout = 300\nclient_connection_recovery = "recover"\n')
    with connect(node) as holder, connect(node) as other:
        with holder.transaction():
            holder.execute("SELECT 1")
            with pytest.raises(psycopg.Error) as caught:
                other.execute("SELECT 1")
            assert caught.value.sqlstate == "58000"
            assert "checkout timeout" in str(caught.value)
        assert value(other, "SELECT 1") == 1


def test_pools_keep_to_their_sizes_and_ages(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, "min_pool_size = 2\nidle_timeout = 400\n", size=4)
    wait_until(lambda: len(backends(shards[0])) == 2, "the minimum stands without a client")
    clients = [connect(node) for _ in range(8)]
    threads = [threading.Thread(target=c.execute, args=("SELECT pg_sleep(0.1)",)) for c in clients]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(backends(shards[0])) == 4, "all are in use")
    for thread in threads:
        thread.join()
    assert len(backends(shards[0])) == 4, "never more than the pool's size"
    wait_until(lambda: len(backends(shards[0])) == 2, "idle ones are closed down to the minimum")
    for client in clients:
        client.close()


def test_old_connections_are_replaced_between_transactions(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, "server_lifetime = 1500\nserver_lifetime_jitter = 0\n")
    with connect(node) as client:
        first = value(client, "SELECT pg_backend_pid()")
        with client.transaction():
            same = value(client, "SELECT pg_backend_pid()")
            assert first == same
        wait_until(lambda: value(client, "SELECT pg_backend_pid()") != first, "a younger one")


# --- modes ------------------------------------------------------------------------------------------------------------


def test_statement_mode_refuses_transactions(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, 'pooler_mode = "statement"\n')

    async def scene() -> None:
        async with await raw(node) as client, await raw(node) as other:
            assert [e["C"] for e in (await client.query("BEGIN")).errors] == ["58000"]
            assert (await client.query("SELECT 1")).rows == [(b"1",)]
            client.send(m.parse(b"", b"BEGIN"), m.bind(b"", b""), m.execute(), m.SYNC)
            assert [e["C"] for e in (await client.answer()).errors] == ["58000"]
            assert (await client.extended("SELECT 2")).rows == [(b"2",)]
            client.send(m.query("SELECT 1"), m.query("BEGIN"), m.query("SELECT 3"))
            heard = await client.ended()
            assert b"58000" in heard
            assert (await other.query("SELECT 4")).rows == [(b"4",)]

    asyncio.run(scene())


def test_statement_mode_refuses_transactions_over_two_shards_too(shards: list[Database], node_factory: Nodes) -> None:
    """BEGIN; SELECT 1; COMMIT was taken until the SELECT, and then the session ended."""
    node = node_factory(config_toml(shards, general='pooler_mode = "statement"\n', tables=sharded_table("t")))
    with connect(node) as client:
        client.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
        for begin in ("BEGIN", "START TRANSACTION READ ONLY", "BEGIN; SELECT 1; COMMIT"):
            for prepare in (False, True):
                if prepare and ";" in begin:
                    continue
                with pytest.raises(psycopg.Error) as caught:
                    client.execute(begin.encode(), prepare=prepare)
                assert caught.value.sqlstate == "58000"
                assert caught.value.diag.severity == "ERROR"
                assert value(client, "SELECT count(*) FROM t") == 0
        client.execute("INSERT INTO t VALUES (0), (1), (3), (4)")  # over both shards, in a transaction of its own
        assert value(client, "SELECT count(*) FROM t") == 4
        assert client.execute("SELECT 1; SELECT id FROM t ORDER BY id LIMIT 1").nextset()
        client.execute("DROP TABLE t")


def test_session_mode_keeps_its_server_and_cleans_it(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, 'pooler_mode = "session"\n')
    with connect(node) as a:
        a.execute("SET work_mem = '5MB'")
        a.execute("CREATE TEMP TABLE mine (x int)")
        a.execute("PREPARE mine AS SELECT 1")
        a.execute("SELECT pg_advisory_lock(3)")
        assert value(a, "SHOW work_mem") == "5MB"
    with connect(node) as b:
        assert value(b, "SHOW work_mem") == "4MB"
        assert value(b, "SELECT to_regclass('mine')") is None
        assert value(b, "SELECT count(*) FROM pg_prepared_statements") == 0
        assert value(b, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
