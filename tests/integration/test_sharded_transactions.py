"""Transactions over two shards on bad days: errors, cancels, clients and servers that go, full pools."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from integration.harness import (
    USER,
    Database,
    Nodes,
    connect,
    sharded_table,
    start_server,
    wait_until,
)
from integration.sharded import Talker, trusting_config, trusting_users

from node.embedded.nodes import NodeProcess
from node.embedded.server import Server, Stop
from node.embedded.workspace import Workspace
from node.wire import messages

TABLES = sharded_table("t")
# bigint 0, 1, 2 are on shard 0, 3 and 4 on shard 1 (reference vectors)
SETTINGS = {"max_prepared_transactions": "20"}


@dataclass
class World:
    servers: list[Server]
    shards: list[Database]
    nodes: Nodes

    def start(self, *, pool_size: int = 5, name: str | None = None, general: str = "", **options: Any) -> NodeProcess:
        config = trusting_config(self.shards, tables=TABLES, general=general)
        return self.nodes(config, trusting_users(pool_size=pool_size), name=name, **options)

    def rows(self) -> list[str]:
        """What the shards hold, each asked by itself."""
        return sorted(row[0] for shard in self.shards for row in shard.sql("SELECT id || '=' || x FROM t"))

    def prepared(self) -> list[str]:
        found = []
        for shard in self.shards:
            found += [
                row[0] for row in shard.sql("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
            ]
        return found

    def in_transaction(self) -> list[tuple[str, ...]]:
        """Connections of nodes that are in a transaction."""
        return [
            row
            for shard in self.shards
            for row in shard.sql(
                "SELECT pid, state, query FROM pg_stat_activity WHERE application_name LIKE 'pgmurmur/%'"
                " AND datname = current_database() AND xact_start IS NOT NULL"
            )
        ]


@pytest.fixture(scope="module")
def pair(workspace: Workspace) -> Iterator[list[Server]]:
    made = [start_server(workspace, f"pair_{n}", auth="trust", settings=SETTINGS) for n in (0, 1)]
    yield made
    for server in made:
        server.stop()


_numbers = iter(range(1000))


@pytest.fixture
def world(workspace: Workspace, pair: list[Server], tmp_path: Path) -> Iterator[World]:
    name = f"tx_{next(_numbers)}"
    for server in pair:
        server.start()
        server.create_database(name, USER)
    nodes = Nodes(workspace, tmp_path)
    made = World(pair, [Database(server, name) for server in pair], nodes)
    for shard in made.shards:
        shard.sql(f"SET ROLE {USER}; CREATE TABLE t (id bigint PRIMARY KEY, x int)")
        shard.sql(f"ALTER TABLE t OWNER TO {USER}")
    yield made
    nodes.close()
    for server in pair:
        if server.running:
            server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')


def _background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _run(node: NodeProcess, statement: bytes, times: int = 1) -> None:
    with connect(node) as connection:
        for _ in range(times):
            connection.execute(statement)


def _refused(call: Callable[[], object]) -> str:
    """The SQLSTATE of the error."""
    with pytest.raises(psycopg.Error) as caught:
        call()
    return caught.value.sqlstate or "08006"


def test_writes_of_both_gears_commit_in_two_phases(world: World) -> None:
    """The first write goes the fast way, the second joins another shard: a commit that fails there undoes both."""
    node = world.start()
    for shard in world.shards:
        shard.sql(
            "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN IF NEW.x = 13 THEN RAISE EXCEPTION ''unlucky''; END IF; RETURN NEW; END';"
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION no()"
        )
    with connect(node) as client:
        client.execute("BEGIN")
        client.execute("INSERT INTO t VALUES (1, 1)")
        client.execute("INSERT INTO t VALUES (3, 13)")
        assert _refused(lambda: client.execute("COMMIT")) == "P0001"
        assert world.rows() == []
        client.execute("BEGIN")
        client.execute("INSERT INTO t VALUES (1, 1)")
        client.execute("INSERT INTO t VALUES (3, 3)")
        client.execute("COMMIT")
    assert world.rows() == ["1=1", "3=3"]
    assert world.prepared() == []


def test_pipelines_and_drivers_transactions(world: World) -> None:
    node = world.start()
    with connect(node, autocommit=False) as client:
        with client.pipeline():
            for n in range(12):
                client.execute("INSERT INTO t VALUES (%s, %s)", (n, n))
        client.commit()
        with client.transaction():
            client.execute("UPDATE t SET x = 100 WHERE id = 1")
            with pytest.raises(psycopg.errors.DivisionByZero), client.transaction():  # noqa: PT012
                client.execute("UPDATE t SET x = 200")
                client.execute("SELECT 1 / 0 FROM t")
            client.execute("UPDATE t SET x = 300 WHERE id = 3")
        cursor = client.execute("SELECT id, x FROM t WHERE x >= 100 ORDER BY id", binary=True)
        assert cursor.fetchall() == [(1, 100), (3, 300)]
    with connect(node) as client, pytest.raises(psycopg.errors.UniqueViolation), client.pipeline():  # noqa: PT012
        # one batch without BEGIN: all or nothing
        client.execute("INSERT INTO t VALUES (100, 0)")
        client.execute("INSERT INTO t VALUES (103, 0)")
        client.execute("INSERT INTO t VALUES (1, 0)")
    assert [row for row in world.rows() if row.startswith("10")] == ["10=10"]


async def test_asyncpg_transactions_and_cursors(world: World) -> None:
    node = world.start()
    client = await asyncpg.connect(host=node.host, port=node.port, user=USER, database="flock")
    try:
        await client.executemany("INSERT INTO t VALUES ($1, $2)", [(n, n) for n in range(50)])
        async with client.transaction():
            seen = [row["id"] async for row in client.cursor("SELECT id FROM t ORDER BY id", prefetch=7)]
            assert seen == list(range(50))
            await client.execute("UPDATE t SET x = 7 WHERE id = $1", 3)
            await client.execute("UPDATE t SET x = 7 WHERE id = $1", 1)
        assert await client.fetchval("SELECT count(*) FROM t WHERE x = $1", 7) == 3
        await client.copy_records_to_table("t", records=[(n, n) for n in range(100, 200)])
        assert await client.fetchval("SELECT count(*) FROM t") == 150
        assert await client.fetch("INSERT INTO t SELECT n, $1 FROM generate_series(300, 302) n RETURNING x", 48) == [
            (48,), (48,), (48,),
        ]  # fmt: skip
        with pytest.raises(asyncpg.UniqueViolationError):  # noqa: PT012
            async with client.transaction():
                await client.execute("INSERT INTO t VALUES (1001, 1), (1003, 1)")
                await client.execute("INSERT INTO t VALUES (1, 1)")
        assert await client.fetchval("SELECT count(*) FROM t WHERE id > 1000") == 0
    finally:
        await client.close()


def test_a_client_that_dies_leaves_nothing(world: World) -> None:
    node = world.start()
    client = Talker(node.host, node.port, "flock")
    client.run("BEGIN")
    client.run("INSERT INTO t VALUES (1, 1), (3, 3)")
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    wait_until(lambda: not world.in_transaction(), "no transaction is open")
    assert world.rows() == []
    # in the middle of a statement over both shards
    client = Talker(node.host, node.port, "flock")
    client.send(messages.query("UPDATE t SET x = pg_sleep(30) IS NULL"), messages.query("SELECT 1"))
    client.close()
    wait_until(lambda: not world.in_transaction(), "no transaction is open")


@pytest.mark.parametrize("after", ["INSERT INTO t VALUES (1, 1), (3, 3)", "COMMIT"])
def test_a_client_that_dies_during_commit(world: World, after: str) -> None:
    """All or nothing, and no prepared transaction stays: the commit goes on without its client."""
    node = world.start()
    for shard in world.shards:
        shard.sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_advisory_xact_lock(NEW.id); RETURN NEW; END';"
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    holder = psycopg.connect(world.shards[1].conninfo, autocommit=True)
    holder.execute("SELECT pg_advisory_lock(3)")
    client = Talker(node.host, node.port, "flock")
    if after == "COMMIT":
        client.run("BEGIN")
        client.run("INSERT INTO t VALUES (1, 1), (3, 3)")
    client.send(messages.query(after))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'PREPARE TRANSACTION%' AND wait_event = 'advisory'"
    wait_until(lambda: world.shards[1].sql(waiting) and world.prepared(), "one shard is prepared, the other waits")
    client.close()
    wait_until(lambda: not [c for c in node.ask("SHOW CLIENTS") if c["database"] == "flock"], "the client is gone")
    holder.execute("SELECT pg_advisory_unlock(3)")
    wait_until(lambda: not world.prepared() and not world.in_transaction(), "nothing is prepared")
    assert world.rows() == ["1=1", "3=3"]
    holder.close()


def test_cancel_reaches_every_shard(world: World) -> None:
    node = world.start()
    with connect(node) as client:
        client.execute("INSERT INTO t VALUES (1, 1), (3, 3)")
        failed: list[str] = []

        def work() -> None:
            failed.append(_refused(lambda: client.execute("UPDATE t SET x = 2 WHERE pg_sleep(60) IS NOT NULL")))

        thread = _background(work)
        wait_until(lambda: len(world.in_transaction()) == 2, "both shards work")
        client.cancel()
        thread.join(20)
        assert failed == ["57014"]
        wait_until(lambda: not world.in_transaction(), "nothing runs any more")
        assert client.execute("SELECT count(*) FROM t WHERE x = 2").fetchall() == [(0,)]
        client.execute("SET statement_timeout = '100ms'")
        assert (
            _refused(lambda: client.execute("SELECT id FROM t WHERE pg_sleep(10) IS NOT NULL ORDER BY id")) == "57014"
        )
        client.execute("RESET statement_timeout")
        assert len(client.execute("SELECT id FROM t ORDER BY id").fetchall()) == 2


@pytest.mark.parametrize(
    ("parameters", "statements"),
    [
        (None, ["SELECT id FROM t WHERE pg_sleep(60) IS NOT NULL ORDER BY id"]),
        ((), ["UPDATE t SET x = 2 WHERE pg_sleep(60) IS NOT NULL"]),
        (None, ["BEGIN", "UPDATE t SET x = 2", "SELECT count(*) FROM t WHERE pg_sleep(60) IS NOT NULL"]),
        ((), ["BEGIN", "UPDATE t SET x = 2 WHERE id = 1", "UPDATE t SET x = 2 WHERE id = 3 AND pg_sleep(60) IS NULL"]),
    ],
    ids=["read", "write", "transaction", "transaction that grows"],
)
def test_query_timeout_ends_it_on_every_shard(
    parameters: tuple[object, ...] | None, statements: list[str], world: World
) -> None:
    """By the simple protocol (no parameters) and by the extended one."""
    node = world.start(general="query_timeout = 400\n")
    with connect(node) as other:
        other.execute("INSERT INTO t VALUES (1, 1), (3, 3)")
        client = connect(node)
        for sql in statements[:-1]:
            client.execute(sql.encode())
        with pytest.raises(psycopg.Error, match="canceling statement due to query_timeout") as caught:
            client.execute(statements[-1].encode(), parameters, prepare=parameters is not None)
        assert (caught.value.sqlstate, caught.value.diag.severity) == ("58000", "FATAL")
        assert client.closed
        wait_until(lambda: not world.in_transaction(), "nothing runs any more on either shard")
        assert world.prepared() == []
        assert other.execute("UPDATE t SET x = x RETURNING x").rowcount == 2  # no lock is left
    assert world.rows() == ["1=1", "3=3"]


def test_a_server_killed_in_the_middle(world: World) -> None:
    node = world.start()
    client = connect(node)
    client.execute("BEGIN")
    client.execute("INSERT INTO t VALUES (1, 1), (3, 3)")
    world.servers[1].stop(Stop.IMMEDIATE)
    with pytest.raises(psycopg.OperationalError):
        client.execute("SELECT count(*) FROM t")
    client.close()
    world.servers[1].start()
    wait_until(lambda: not world.in_transaction(), "the other shard rolled back")
    assert world.rows() == []

    def works() -> bool:
        try:
            with connect(node) as again:
                return again.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
        except psycopg.Error:
            return False

    wait_until(works, "the node works again", 20)


def test_one_connection_per_shard_for_many_clients(world: World) -> None:
    """No two clients wait for each other's connections: a statement over both shards takes them in order."""
    node = world.start(pool_size=1)
    with connect(node) as client:
        client.execute("INSERT INTO t SELECT n, 0 FROM generate_series(0, 19) n")
    errors: list[str] = []

    def work() -> None:
        try:
            with connect(node) as one:
                for _ in range(10):
                    one.execute("UPDATE t SET x = x + 1")
                    one.execute("SELECT sum(x) FROM t")
        except psycopg.Error as error:
            errors.append(str(error))

    threads = [_background(work) for _ in range(6)]
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert world.rows() == sorted(f"{n}=60" for n in range(20))


def test_writes_of_what_every_shard_has_queue_at_the_first_shard(world: World) -> None:
    """pgbench with only pgbench_accounts sharded stood still for good: of two clients that updated one row of
    pgbench_branches at once each had it on one shard and waited for the other's on the other."""
    node = world.start(pool_size=8)
    with connect(node) as client:
        client.execute("CREATE TABLE whole (id int PRIMARY KEY, x int)")
        client.execute("INSERT INTO whole VALUES (1, 0)")
    update = b"UPDATE whole SET x = x + 1 WHERE id = 1"
    first, second = world.shards
    with first.connect() as holder, second.connect() as other:
        with holder.transaction():
            holder.execute("SELECT 1 FROM whole WHERE id = 1 FOR UPDATE")
            waiter = _background(lambda: _run(node, update))
            waiting = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'UPDATE whole%' AND wait_event_type = 'Lock'"
            wait_until(lambda: first.sql(waiting), "the update waits on shard 0")
            assert other.execute("SELECT x FROM whole WHERE id = 1 FOR UPDATE NOWAIT").fetchone() == (0,)
        waiter.join(20)
    threads = [_background(lambda: _run(node, update, 20)) for _ in range(6)]
    for thread in threads:
        thread.join(60)
    assert [shard.sql("SELECT x FROM whole") for shard in world.shards] == [[("121",)], [("121",)]]
    with connect(node) as client:
        client.execute("DROP TABLE whole")


def test_schema_changes_race(world: World) -> None:
    """DDL in one session, use in others at the same moment; nobody plans with an old catalog after the commit."""
    node = world.start()
    with connect(node) as ddl, connect(node) as user:
        for n in range(5):
            ddl.execute(f"ALTER TABLE t ADD COLUMN c{n} int DEFAULT {n}")
            assert all(row == (n,) for row in user.execute(f"SELECT c{n} FROM t ORDER BY id"))
            ddl.execute("BEGIN")
            ddl.execute(f"ALTER TABLE t RENAME COLUMN c{n} TO d{n}")
            ddl.execute("SELECT id FROM t WHERE id IN (1, 3)")  # the catalog is read while the change is not committed
            ddl.execute("COMMIT")
            user.execute(f"INSERT INTO t (id, d{n}) VALUES ({n}, 1), ({n + 3}, 1) ON CONFLICT DO NOTHING")
            assert user.execute(f"SELECT max(d{n}) FROM t").fetchall() == [(max(n, 1),)]
        errors: list[str] = []

        def work(number: int) -> None:
            try:
                with connect(node) as one:
                    one.execute(f"CREATE TABLE race_{number} (id bigint, x int)")
                    one.execute(f"INSERT INTO race_{number} VALUES (1, 1)")
                    one.execute(f"DROP TABLE race_{number}")
            except psycopg.Error as error:
                errors.append(str(error))

        threads = [_background(lambda number=number: work(number)) for number in range(4)]
        for thread in threads:
            thread.join(60)
        assert errors == []


# --- two phases ------------------------------------------------------------------------------------------------------


def _wait_in_commit(world: World, node: NodeProcess, key: int) -> tuple[psycopg.Connection, Talker]:
    """A client whose COMMIT waits: shard 0 is prepared, shard 1 waits for a lock that the returned connection has."""
    for shard in world.shards:
        shard.sql(
            "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_advisory_xact_lock(NEW.id); RETURN NEW; END';"
            "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION slow()"
        )
    holder = psycopg.connect(world.shards[1].conninfo, autocommit=True)
    holder.execute("SELECT pg_advisory_lock(%s)", (key,))
    client = Talker(node.host, node.port, "flock")
    client.run("BEGIN")
    client.run(f"INSERT INTO t VALUES (1, 1), ({key}, 3)")
    client.send(messages.query("COMMIT"))
    waiting = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'PREPARE TRANSACTION%' AND wait_event = 'advisory'"
    wait_until(lambda: world.shards[1].sql(waiting) and world.prepared(), "one shard is prepared, the other waits")
    return holder, client


def test_a_node_killed_before_its_decision(world: World) -> None:
    node = world.start()
    holder, client = _wait_in_commit(world, node, 3)
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    client.close()
    holder.execute("SELECT pg_advisory_unlock(3)")
    holder.close()
    node.launch().wait_ready()
    wait_until(lambda: not world.prepared(), "nothing is prepared", 20)
    assert world.rows() == []
    with connect(node) as again:
        again.execute("INSERT INTO t VALUES (1, 1), (3, 3)")
    assert world.rows() == ["1=1", "3=3"]


def test_a_shard_that_stops_before_it_hears_the_decision(world: World) -> None:
    """The client is told COMMIT, for it is decided; the shard hears it when it is back."""
    node = world.start()
    holder, client = _wait_in_commit(world, node, 3)
    # The node prepares shard 1, then tells both: shard 0's server is stopped before that, so it cannot hear.
    world.servers[0].stop(Stop.IMMEDIATE)
    holder.execute("SELECT pg_advisory_unlock(3)")
    holder.close()
    answers = client.read()
    assert [said.tag for said in answers.said] == ["COMMIT"]
    client.close()
    world.servers[0].start()
    wait_until(lambda: not world.prepared(), "nothing is prepared", 30)
    assert world.rows() == ["1=1", "3=3"]


def test_a_node_killed_after_its_decision(world: World) -> None:
    node = world.start()
    holder, client = _wait_in_commit(world, node, 3)
    world.servers[0].stop(Stop.IMMEDIATE)
    holder.execute("SELECT pg_advisory_unlock(3)")
    holder.close()
    assert [said.tag for said in client.read().said] == ["COMMIT"]
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGKILL)
    node.process.wait()
    client.close()
    world.servers[0].start()
    assert len(world.prepared()) == 1
    node.launch().wait_ready()
    wait_until(lambda: not world.prepared(), "nothing is prepared", 30)
    assert world.rows() == ["1=1", "3=3"]


def test_a_full_disk_rolls_back(world: World) -> None:
    node = world.start()
    with connect(node) as client:
        client.execute("INSERT INTO t VALUES (1, 1), (3, 3)")
        assert node.process is not None
        # As good as a full disk: no file of this process may grow (RLIMIT_FSIZE; Python ignores SIGXFSZ).
        import resource

        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        with pytest.raises(psycopg.Error) as caught:
            client.execute("INSERT INTO t VALUES (11, 1), (2, 2)")
        assert caught.value.sqlstate == "58030"
        assert "could not write the decision" in str(caught.value)
        wait_until(lambda: not world.prepared(), "nothing is prepared")
        assert world.rows() == ["1=1", "3=3"]
        # one shard needs no decision
        client.execute("INSERT INTO t VALUES (2, 2)")
        resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        client.execute("INSERT INTO t VALUES (11, 1), (42, 2)")
    assert world.rows() == ["11=1", "1=1", "2=2", "3=3", "42=2"]


def test_shards_without_prepared_transactions(workspace: Workspace, tmp_path: Path) -> None:
    server = start_server(workspace, "unprepared", auth="trust", settings={"max_prepared_transactions": "0"})
    nodes = Nodes(workspace, tmp_path)
    try:
        shards = []
        for name in ("s0", "s1"):
            server.create_database(name, USER)
            shards.append(Database(server, name))
        node = nodes(trusting_config(shards, tables=TABLES), trusting_users())
        with connect(node) as client:
            client.execute("CREATE TABLE t (id bigint PRIMARY KEY, x int)")
            client.execute("INSERT INTO t VALUES (1, 1), (3, 3)")
            with pytest.raises(psycopg.errors.UniqueViolation):
                client.execute("INSERT INTO t VALUES (0, 1), (3, 3)")
            assert client.execute("SELECT id FROM t ORDER BY id").fetchall() == [(1,), (3,)]
        assert node.log_text().count("no_two_phase_commit") == 1
    finally:
        nodes.close()
        server.stop()


def test_point_selects_stay_in_the_fast_gear(world: World) -> None:
    """Also after a statement of the slow gear: the servers know them by name, which only the fast gear does."""
    node = world.start(pool_size=1)
    with connect(node, prepare_threshold=0) as client:
        client.execute("INSERT INTO t VALUES (1, 1), (3, 3)")
        client.execute("SELECT id FROM t WHERE x > %s ORDER BY id", (0,))
        for key in (1, 3):
            assert client.execute("SELECT x FROM t WHERE id = %s", (key,)).fetchall() == [(key,)]
            found = client.execute(
                f"/* pgmurmur_shard: {int(key == 3)} */ SELECT statement FROM pg_prepared_statements", prepare=False
            ).fetchall()
            assert ("SELECT x FROM t WHERE id = $1",) in found
