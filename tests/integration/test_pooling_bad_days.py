"""Servers that go, clients that hang, brakes that are pulled: only declared errors, and a pool that mends itself."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import psycopg
import pytest
from fakes.fake_client import FakeClient
from integration.harness import (
    PASSWORD,
    USER,
    Database,
    Nodes,
    config_toml,
    connect,
    in_pools,
    raw,
    users_toml,
    wait_until,
)

from node.embedded.nodes import NodeProcess
from node.embedded.server import Server
from node.wire import messages as m
from node.wire.startup import cancel_request

# What a client may hear while its server restarts: the server's own last words, or ours.
CLEAN = {"57P01", "57P02", "57P03", "08006", "58000", "08001"}


def resident_bytes(node: NodeProcess) -> int:
    for line in Path(f"/proc/{node.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def one_server(shards: list[Database], node_factory: Nodes, general: str = "", size: int = 1) -> NodeProcess:
    return node_factory(config_toml(shards[:1], general=general), users_toml(pool_size=size))


async def cancel(node: NodeProcess, client: FakeClient) -> None:
    """As libpq does: a connection of its own, one packet, until the node closes it."""
    other = await FakeClient.open(node.host, node.port)
    other.send(cancel_request(*client.key))
    assert await other.ended() == b""
    await other.abort()


def test_a_server_that_restarts_under_load_is_only_an_interruption(own_server: Server, node_factory: Nodes) -> None:
    own_server.create_database("load", USER)
    node = node_factory(config_toml([Database(own_server, "load")]))
    stop = threading.Event()
    answered, seen = [0] * 4, set()

    def work(number: int) -> None:
        client: psycopg.Connection | None = None
        while not stop.is_set():
            try:
                client = client or connect(node)
                row = client.execute("SELECT %s::int", (number,)).fetchone()
                assert row == (number,)
                answered[number] += 1
            except psycopg.Error as error:
                seen.add(error.sqlstate or str(error))
                client = None
        if client is not None:
            client.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: min(answered) > 20, "the load runs")
    own_server.stop()
    own_server.start()
    before = list(answered)
    wait_until(lambda: all(now > then + 20 for now, then in zip(answered, before, strict=True)), "all run again", 30)
    stop.set()
    for thread in threads:
        thread.join()
    # a client that comes back while there is no server hears it at its login, without a SQLSTATE in psycopg
    assert {s for s in seen if s not in CLEAN and "58000" not in s and "connection pool" not in s} == set()


def test_terminated_backends_are_replaced(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)
    ours = f"FROM pg_stat_activity WHERE datname = '{shards[0].name}'"
    kill = f"SELECT pg_terminate_backend(pid) {ours} AND pid <> pg_backend_pid()"
    with connect(node) as idle:
        idle.execute("SELECT 1")
        ((pids,),) = shards[0].server.sql(f"SELECT string_agg(pid::text, ',') {ours}", "postgres")
        shards[0].server.sql(kill, "postgres")  # between two statements: nobody notices
        gone = f"SELECT count(*) {ours} AND pid IN ({pids})"
        wait_until(lambda: shards[0].server.sql(gone, "postgres") == [("0",)], "they have ended")
        assert idle.execute("SELECT 2").fetchone() == (2,)
        with connect(node) as busy:
            thread = threading.Thread(target=lambda: seen.append(error_of(busy, "SELECT pg_sleep(30)")))
            seen: list[str | None] = []
            thread.start()
            running = f"SELECT count(*) {ours} AND query LIKE '%pg_sleep(30)' AND state = 'active'"
            wait_until(lambda: shards[0].server.sql(running, "postgres") == [("1",)], "it runs")
            shards[0].server.sql(kill, "postgres")
            thread.join()
        assert seen == ["57P01"]
        with connect(node) as open_one:
            open_one.execute("BEGIN")
            shards[0].server.sql(kill, "postgres")
            assert error_of(open_one, "SELECT 1") == "57P01"
        assert idle.execute("SELECT 3").fetchone() == (3,)


def test_whoever_meets_a_dying_server_is_told(shards: list[Database], node_factory: Nodes) -> None:
    """The kill races with the queries: each gets an answer or an error, never a closed connection without a word."""
    node = one_server(shards, node_factory)
    kill = (
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{shards[0].name}' "
        "AND usename = current_user AND pid <> pg_backend_pid()"
    )

    async def scene() -> None:
        server = shards[0].server
        killer = await FakeClient.connect(
            server.host, server.port, user=USER, database=shards[0].name, password=PASSWORD
        )
        client = await raw(node)
        for number in range(60):
            await client.query("SELECT 1")
            killer.send(m.query(kill))
            if number % 2:
                await killer.answer()
            heard = ""
            client.send(m.query("SELECT 2"))
            while heard[-1:] not in ("Z", "E"):
                heard += (await client.read()).letter
            if not number % 2:
                await killer.answer()
            try:  # it came after the answer, to nobody, or this client is told with its next statement
                errors = (await client.query("SELECT 3")).errors if heard[-1] == "Z" else [{"C": "57P01"}]
            except EOFError:
                errors = [{"C": "57P01"}]
            if errors:
                await client.abort()
                client = await raw(node)
        await client.close()
        await killer.close()

    asyncio.run(scene())


def error_of(connection: psycopg.Connection, sql: str) -> str | None:
    try:
        connection.execute(sql)
    except psycopg.Error as error:
        return error.sqlstate
    return "no error"


def test_time_limits(shards: list[Database], node_factory: Nodes) -> None:
    general = "query_timeout = 400\nclient_idle_in_transaction_timeout = 400\nclient_idle_timeout = 1500\n"
    node = one_server(shards, node_factory, general)

    async def scene() -> None:
        slow, idler = await raw(node), await raw(node)
        slow.send(m.query("SELECT pg_sleep(30)"))
        heard = await slow.ended()
        assert b"C58000\0Mcanceling statement due to query_timeout\0" in heard
        assert (await idler.query("BEGIN")).status == "T"
        assert b"C25P03\0" in await idler.ended()
        async with await raw(node) as patient:
            assert (await patient.query("SELECT 1")).rows == [(b"1",)]
            assert b"C57P05\0" in await patient.ended()
        await slow.abort()
        await idler.abort()

    asyncio.run(scene())


def test_cancel_hits_its_own_statement_and_no_other(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)

    async def scene() -> None:
        a, b = await raw(node), await raw(node)
        a.send(m.query("SELECT pg_sleep(30)"))
        await asyncio.to_thread(wait_until, lambda: in_pools(node, "sv_active") == 1, "a has the server")
        b.send(m.query("SELECT 'b'"))
        await asyncio.to_thread(wait_until, lambda: in_pools(node, "cl_waiting") == 1, "b waits for a")
        await cancel(node, b)  # while it waits
        assert [e["C"] for e in (await b.answer()).errors] == ["57014"]
        await cancel(node, a)  # while it runs
        assert [e["C"] for e in (await a.answer()).errors] == ["57014"]
        assert (await b.query("SELECT 1")).rows == [(b"1",)]
        await cancel(node, a)  # too late: there is nothing
        a_key, a.key = a.key, (a.key[0], bytes(4))
        b.send(m.query("SELECT 2 FROM pg_sleep(0.1)"))
        await cancel(node, a)  # a forged one
        a.key = a_key
        assert (await b.answer()).rows == [(b"2",)]

        # stale ones, again and again, while the other uses the same server
        async def disturb() -> None:
            for _ in range(25):
                a.send(m.query("SELECT 1"))
                await cancel(node, a)
                await a.answer()

        async def work() -> list[dict[str, str]]:
            errors = []
            for _ in range(60):
                errors += (await b.query("SELECT count(*) FROM generate_series(1, 5000)")).errors
            return errors

        errors, _ = await asyncio.gather(work(), disturb())
        assert errors == []
        await a.close()
        await b.close()

    asyncio.run(scene())


ROWS, WIDTH = 2000, 100_000  # 200 MB


def test_a_client_that_does_not_read_costs_no_memory(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, size=2)

    async def scene() -> None:
        async with await raw(node) as client, await raw(node) as other:
            before = resident_bytes(node)
            client.send(m.query(f"SELECT repeat('x', {WIDTH}) FROM generate_series(1, {ROWS})"))
            for _ in range(20):  # others are served meanwhile
                assert (await other.query("SELECT 1")).rows == [(b"1",)]
            await client.until("T")
            assert resident_bytes(node) - before < 30 << 20
            count = 0
            while (message := await client.read()).letter == "D":
                count += 1
            assert (count, message.letter) == (ROWS, "C")
            assert resident_bytes(node) - before < 30 << 20
            await client.answer()

    asyncio.run(scene())


def test_a_client_that_sends_much_before_it_reads_is_served(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, size=2)
    sql = b"SELECT 1 -- " + b"x" * 1500
    number = 6_700  # 10 MB each way of asking
    simple = m.query(sql)
    extended = m.parse(b"", sql) + m.bind(b"", b"") + m.execute() + m.SYNC

    async def scene() -> None:
        async with await raw(node) as client, await raw(node) as other:
            before = resident_bytes(node)
            for unit in (simple, extended):
                sending = asyncio.create_task(drained(client, unit * number))
                assert (await other.query("SELECT 1")).rows == [(b"1",)]
                for _ in range(number):
                    assert (await client.answer()).rows == [(b"1",)]
                await sending
            assert resident_bytes(node) - before < 60 << 20

    asyncio.run(scene())


async def drained(client: FakeClient, data: bytes) -> None:
    for at in range(0, len(data), 1 << 16):
        client.send(data[at : at + (1 << 16)])
        await client.writer.drain()


@pytest.mark.parametrize(("close", "open_again"), [("PAUSE", "RESUME"), ("MAINTENANCE ON", "MAINTENANCE OFF")])
def test_a_brake_holds_new_transactions_and_lets_running_ones_end(
    close: str, open_again: str, shards: list[Database], node_factory: Nodes
) -> None:
    node = one_server(shards, node_factory, "checkout_timeout = 1000\n", size=2)

    async def scene() -> None:
        runner, waiter, leaver, cancelled = [await raw(node) for _ in range(4)]
        assert (await runner.query("BEGIN")).status == "T"
        await asyncio.to_thread(node.ask, close)
        for client in (waiter, leaver, cancelled):
            client.send(m.query("SELECT 1"))
        late = await raw(node)  # a new connection while the brake is on
        late.send(m.parse(b"", b"SELECT 2"), m.bind(b"", b""), m.execute(), m.SYNC)
        assert (await runner.query("SELECT 3")).rows == [(b"3",)]
        assert (await runner.query("COMMIT")).status == "I"
        await leaver.abort()
        await cancel(node, cancelled)
        assert [e["C"] for e in (await cancelled.answer()).errors] == ["57014"]
        heard = asyncio.create_task(waiter.answer())
        done, _ = await asyncio.wait([heard], timeout=1.3)  # longer than checkout_timeout
        assert not done
        await asyncio.to_thread(node.ask, open_again)
        assert (await heard).rows == [(b"1",)]
        assert (await late.answer()).rows == [(b"2",)]
        for client in (runner, waiter, cancelled, late):
            await client.close()

    asyncio.run(scene())


def test_reads_go_to_replicas_and_writes_to_the_primary(
    shards: list[Database], node_factory: Nodes, own_server: Server
) -> None:
    """The "replica" is another database here, so that one sees who answered."""
    own_server.create_database("replica", USER)
    replica = Database(own_server, "replica")
    for database, name in ((shards[0], "primary"), (replica, "replica")):
        database.sql(f"CREATE TABLE who AS SELECT '{name}'::text AS name; GRANT ALL ON who TO {USER}")
    lines = (
        f'\n[[databases]]\nname = "flock"\nhost = "{own_server.host}"\nport = {own_server.port}\n'
        'database_name = "replica"\nrole = "replica"\n'
    )
    node = node_factory(
        config_toml(shards[:1], general='read_write_split = "exclude_primary"\nban_timeout = 500\n', lines=lines)
    )

    async def scene() -> None:
        async with await raw(node) as client:
            assert (await client.query("SELECT name FROM who")).rows == [(b"replica",)]
            assert (await client.extended("SELECT name FROM who")).rows == [(b"replica",)]
            assert (await client.query("SELECT name FROM who FOR UPDATE")).rows == [(b"primary",)]
            assert (await client.query("UPDATE who SET name = name RETURNING name")).rows == [(b"primary",)]
            await client.query("BEGIN")
            assert (await client.query("SELECT name FROM who")).rows == [(b"primary",)]
            await client.query("COMMIT")
            await client.query("BEGIN READ ONLY")
            assert (await client.query("SELECT name FROM who")).rows == [(b"replica",)]
            await client.query("COMMIT")
            client.send(m.parse(b"s", b"SELECT name FROM who"), m.SYNC)
            await client.answer()
            for _ in range(3):
                client.send(m.bind(b"", b"s"), m.execute(), m.SYNC)
                assert (await client.answer()).rows == [(b"replica",)]
            client.send(m.message(b"B", b"x"), m.SYNC)  # nothing to be chosen by
            assert b"C08P01\0" in await client.ended()

    asyncio.run(scene())


@pytest.mark.parametrize("min_size", [0, 1])
def test_a_replica_that_goes_is_banned_and_comes_back(
    min_size: int, shards: list[Database], node_factory: Nodes, own_server: Server
) -> None:
    """The primary answers meanwhile. Whoever finds it gone may be told so; nobody after him, and writes never."""
    own_server.create_database("replica", USER)
    for database, name in ((shards[0], "primary"), (Database(own_server, "replica"), "replica")):
        database.sql(f"CREATE TABLE who AS SELECT '{name}'::text AS name; GRANT ALL ON who TO {USER}")
    lines = (
        f'\n[[databases]]\nname = "flock"\nhost = "{own_server.host}"\nport = {own_server.port}\n'
        'database_name = "replica"\nrole = "replica"\n'
    )
    general = (
        f'read_write_split = "include_primary_if_replica_banned"\nmin_pool_size = {min_size}\n'
        'ban_timeout = 300\nidle_healthcheck_interval = 100\nclient_connection_recovery = "recover"\n'
    )
    node = node_factory(config_toml(shards[:1], general=general, lines=lines))

    def banned() -> list[tuple[str | None, str | None]]:
        return [(row["port"], row["ban_reason"]) for row in node.ask("SHOW BANS")]

    with connect(node) as client:

        def asked() -> str:
            row = client.execute("SELECT name FROM who").fetchone()
            assert row is not None
            return str(row[0])

        def asked_of_the_dead() -> str:
            try:
                return asked()
            except psycopg.Error as error:
                return error.sqlstate or str(error)

        assert [asked() for _ in range(5)] == ["replica"] * 5
        assert banned() == []
        own_server.stop()
        heard: list[str] = []
        wait_until(lambda: heard.append(asked_of_the_dead()) or heard[-1] == "primary", "reads go to the primary")
        assert heard in (["primary"], ["58000", "primary"])
        ((port, reason),) = banned()
        assert port == str(own_server.port)
        assert reason is not None
        assert f"127.0.0.1:{port}" in reason
        assert [asked() for _ in range(5)] == ["primary"] * 5
        assert client.execute("UPDATE who SET name = name RETURNING name").fetchone() == ("primary",)
        own_server.start()
        wait_until(lambda: banned() == [], "the ban is lifted")
        assert [asked() for _ in range(5)] == ["replica"] * 5
        client.execute("SELECT 1")


def test_a_ban_by_hand_stays_until_it_is_lifted_by_hand(shards: list[Database], node_factory: Nodes) -> None:
    """With one replica and no primary to fall back to, a banned replica means an error that says what to do."""
    for database, name in zip(shards, ("primary", "replica"), strict=True):
        database.sql(f"CREATE TABLE who AS SELECT '{name}'::text AS name; GRANT ALL ON who TO {USER}")
    server = shards[1].server
    lines = (
        f'\n[[databases]]\nname = "flock"\nhost = "{server.host}"\nport = {server.port}\n'
        f'database_name = "{shards[1].name}"\nrole = "replica"\n'
    )
    general = 'read_write_split = "exclude_primary"\nban_timeout = 100\nidle_healthcheck_interval = 50\n'
    node = node_factory(config_toml(shards[:1], general=general, lines=lines))
    with connect(node) as client:
        assert client.execute("SELECT name FROM who").fetchone() == ("replica",)
        (pool,) = [row for row in node.ask("SHOW POOLS") if row["role"] == "replica"]
        node.ask(f"BAN {pool['id']}")
        assert [row["ban_time_left"] for row in node.ask("SHOW BANS")] == [None]
        with pytest.raises(psycopg.Error, match="all replicas are banned") as caught:
            client.execute("SELECT name FROM who")
        assert caught.value.sqlstate == "58000"
        assert "UNBAN" in str(caught.value.diag.message_hint)
        assert client.execute("UPDATE who SET name = name RETURNING name").fetchone() == ("primary",)
        node.ask(f"UNBAN {pool['id']}")
        assert client.execute("SELECT name FROM who").fetchone() == ("replica",)
