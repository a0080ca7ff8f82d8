"""Reads over two real shards on lanes: the same answers, whatever happens to the servers under them."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import psycopg
import pytest
from integration.harness import Database, Nodes, connect, in_pools, sharded_table, untidy, wait_until
from integration.sharded import Talker, difference, shard_database, trusting_config, trusting_users

from node.embedded.nodes import NodeProcess
from node.embedded.server import Server
from node.embedded.workspace import Workspace
from node.wire import messages

ROWS = 2000
TABLE = 'CREATE TABLE t (id bigint PRIMARY KEY, g int, v numeric, name text COLLATE "C", note text)'
FILL = (
    "INSERT INTO t (id, g, v, name, note) SELECT i, i % 7, i * 1.5, 'n' || i % 100, repeat('x', 500) "
    f"FROM generate_series(1, {ROWS}) AS i"
)
READS = [
    ("SELECT count(*) FROM t", True),
    ("SELECT sum(v), avg(v), min(name), max(id) FROM t WHERE id > 10", True),
    ("SELECT id, v FROM t WHERE id < 40 ORDER BY v DESC LIMIT 5", True),
    ("SELECT id FROM t WHERE g = 3 ORDER BY name, id LIMIT 10 OFFSET 2", True),
    ("SELECT g, count(*), avg(v) FROM t GROUP BY g ORDER BY g", True),
    ("SELECT DISTINCT g FROM t ORDER BY g", True),
    ("SELECT id, name FROM t WHERE id IN (1, 2, 3, 4, 5, 6)", False),
    ("SELECT id, name FROM t WHERE id BETWEEN 10 AND 12", False),
    ("SELECT sum(10 / (id - 5)) FROM t", True),  # an error of one shard
]


class Stage:
    """Two shards and the plain database, with the same rows."""

    def __init__(self, server: Server, shards: list[Database], plain: Database, nodes: Nodes) -> None:
        self.server, self.shards, self.plain, self.nodes = server, shards, plain, nodes
        for database in (*shards, plain):
            database.server.sql(TABLE, database.name, user="starling", password="feathers")
        plain.server.sql(FILL, plain.name, user="starling", password="feathers")
        self.filled = False

    def node(self, *, pool_size: int = 5, **options: str) -> NodeProcess:
        config = trusting_config(self.shards, tables=sharded_table("t"), **options)
        name = f"node-{len(self.nodes.started)}"
        node = self.nodes(config, trusting_users(pool_size=pool_size), name=name)
        if not self.filled:
            with connect(node) as client:
                client.execute(FILL.encode())
            self.filled = True
        return node

    def kill_backends(self) -> None:
        names = ", ".join(f"'{shard.name}'" for shard in self.shards)
        self.server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({names})")


@pytest.fixture(scope="module")
def stage(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    nodes = Nodes(workspace, tmp_path_factory.mktemp("rides"))
    with shard_database(workspace, "rides") as (server, shards, plain):
        yield Stage(server, shards, plain, nodes)
        nodes.close()


@pytest.fixture(scope="module")
def node(stage: Stage) -> NodeProcess:
    return stage.node()


def lanes(node: NodeProcess, what: str) -> int:
    """One of the counters of lanes, over all pools."""
    with urllib.request.urlopen(f"http://{node.http}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return sum(int(float(value)) for value in re.findall(rf"total_lane_{what}\{{.*\}} (\S+)", text))


def rides(node: NodeProcess, client: Talker, sql: str, mode: str) -> bool:
    before = lanes(node, "units")
    client.ask(sql, mode=mode)
    return lanes(node, "units") == before + 2


def warm(node: NodeProcess, *reads: str, mode: str = "simple") -> None:
    """Until these are known to be light."""
    client = Talker(node.host, node.port, "flock")
    for sql in reads:
        wait_until(lambda sql=sql: rides(node, client, sql, mode), f"rides: {sql}")  # type: ignore[misc]
    client.close()


@contextmanager
def locked(shard: Database) -> Iterator[None]:
    """Nobody reads the table on this shard meanwhile."""
    with shard.connect() as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE t")
        yield


def waiting_for_locks(stage: Stage) -> int:
    ((count,),) = stage.server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    return int(count)


def tidy_but_for_waiters(node: NodeProcess) -> None:
    wait_until(lambda: in_pools(node, "sv_active") == 0, "no server works")


def tidy(node: NodeProcess) -> None:
    wait_until(lambda: not untidy(node), "no server is lent")


@pytest.mark.parametrize("mode", Talker.MODES)
def test_answers_are_those_of_one_postgres(stage: Stage, node: NodeProcess, mode: str) -> None:
    ours = Talker(node.host, node.port, "flock")
    plain = Talker(stage.server.host, stage.server.port, stage.plain.name)
    for sql, ordered in READS:
        right = plain.ask(sql, mode=mode)
        classic = ours.ask(sql, mode=mode)
        if not right.said[-1].sqlstate:
            warm(node, sql, mode=mode)
        before = lanes(node, "units")
        ridden = ours.ask(sql, mode=mode)
        if not right.said[-1].sqlstate:
            assert lanes(node, "units") == before + 2, sql
        assert difference(classic, right, ordered=ordered) is None, sql
        assert difference(ridden, right, ordered=ordered) is None, sql
    ours.close()
    plain.close()
    tidy(node)


def test_explain_says_that_it_shares(node: NodeProcess) -> None:
    with connect(node) as client:
        lines = [line for (line,) in client.execute("EXPLAIN SELECT count(*) FROM t").fetchall()]
    assert "pgmurmur: shards 0, 1" in lines
    assert "pgmurmur: shared" in lines


def test_what_is_no_plain_read_takes_whole_connections(node: NodeProcess) -> None:
    warm(node, "SELECT count(*) FROM t")
    with connect(node) as client:
        before = lanes(node, "units")
        with client.transaction():
            assert client.execute("SELECT count(*) FROM t").fetchone() == (ROWS,)
        client.execute("SELECT id FROM t WHERE g = 1 FOR UPDATE")
        client.execute("SELECT count(*) FROM t; SELECT count(*) FROM t")
        assert lanes(node, "units") == before
    tidy(node)


def test_a_read_that_has_become_wide_streams(stage: Stage, node: NodeProcess) -> None:
    sql = "SELECT id, note FROM t WHERE id < $1 ORDER BY id"
    ours = Talker(node.host, node.port, "flock")
    wait_until(lambda: _small_ride(node, ours, sql), "rides")
    before = lanes(node, "units")
    wide = ours.ask(sql, [b"1000000"], mode="extended", types=[20])
    assert lanes(node, "units") == before + 2
    assert [messages.parse_data_row(row)[0] for row in wide.said[0].rows] == [b"%d" % n for n in range(1, ROWS + 1)]
    ours.ask(sql, [b"2"], mode="extended", types=[20])
    assert lanes(node, "units") == before + 2, "wide is not light"
    ours.close()
    tidy(node)


def _small_ride(node: NodeProcess, client: Talker, sql: str) -> bool:
    before = lanes(node, "units")
    client.ask(sql, [b"5"], mode="extended", types=[20])
    return lanes(node, "units") == before + 2


def test_columns_that_change_behind_our_back(stage: Stage, node: NodeProcess) -> None:
    """What was remembered of a statement is wrong, and nobody has told us."""
    sql = "SELECT * FROM t WHERE id < 20 ORDER BY v DESC LIMIT 3"
    warm(node, sql)
    ours = Talker(node.host, node.port, "flock")
    plain = Talker(stage.server.host, stage.server.port, stage.plain.name)
    everywhere = [Talker(stage.server.host, stage.server.port, at.name) for at in (*stage.shards, stage.plain)]
    for change in ("ADD COLUMN more int DEFAULT 5", "DROP COLUMN more"):
        for database in everywhere:
            database.run(f"ALTER TABLE t {change}")
        for _ in range(2):
            assert difference(ours.ask(sql), plain.ask(sql), ordered=True) is None
        warm(node, sql)
    for client in (ours, plain, *everywhere):
        client.close()
    tidy(node)


# --- many clients, and bad days ------------------------------------------------------------------------------------


class Crowd:
    """Clients that read all the time and know what must come."""

    def __init__(self, node: NodeProcess, clients: int) -> None:
        self.node = node
        self.clients = clients
        self.read = 0
        self.over = False
        self.wrong: list[str] = []
        self.errors: list[str] = []

    async def one(self, number: int) -> None:
        conninfo = self.node.conninfo("flock", "starling", "feathers")
        client = await psycopg.AsyncConnection.connect(conninfo, autocommit=True, connect_timeout=10)
        async with client:
            low = number * 13 % (ROWS - 100) + 1
            while not self.over:
                low = (low * 7 + 1) % (ROWS - 100) + 1
                await self.ask(client, "SELECT count(*) FROM t WHERE id BETWEEN %s AND %s", low, [(20,)])
                ordered = [(low + 19 - n,) for n in range(3)]
                sql = "SELECT id FROM t WHERE id BETWEEN %s AND %s ORDER BY v DESC LIMIT 3"
                await self.ask(client, sql, low, ordered)
                if client.closed:
                    return

    async def ask(self, client: psycopg.AsyncConnection, sql: str, low: int, right: list[tuple[int, ...]]) -> None:
        try:
            rows = await (await client.execute(sql, (low, low + 19))).fetchall()  # type: ignore[call-overload]
        except psycopg.Error as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        if rows != right:
            self.wrong.append(f"{sql} from {low}: {rows}")
        self.read += 1

    async def more(self, count: int) -> None:
        """So many reads later."""
        until = self.read + count
        async with asyncio.timeout(60):
            while self.read < until and not self.wrong and not self.errors:
                await asyncio.sleep(0.01)

    @contextmanager
    def reading(self, tasks: list[asyncio.Task[None]]) -> Iterator[None]:
        tasks += [asyncio.create_task(self.one(number)) for number in range(self.clients)]
        try:
            yield
        finally:
            self.over = True


async def test_fifty_clients_read_what_is_there(stage: Stage, node: NodeProcess) -> None:
    crowd, tasks = Crowd(node, 50), list[asyncio.Task[None]]()
    before = lanes(node, "shared")
    with crowd.reading(tasks):
        await crowd.more(1000)
        await asyncio.to_thread(node.ask, "RECONNECT")
        await crowd.more(300)
        await asyncio.to_thread(node.ask, "PAUSE")
        try:
            await asyncio.to_thread(tidy_but_for_waiters, node)
            at_rest = crowd.read
        finally:
            await asyncio.to_thread(node.ask, "RESUME")
        await crowd.more(300)
    await asyncio.gather(*tasks)
    assert (crowd.wrong, crowd.errors) == ([], [])
    assert crowd.read > at_rest
    assert lanes(node, "shared") > before
    tidy(node)


async def test_no_client_notices_that_servers_die(stage: Stage, node: NodeProcess) -> None:
    """Those on whole connections would, as ever: so the servers are to die when everybody rides. Without a connection
    left some take whole ones again, and clients that never rest are slow to leave them: each round has its own clients,
    and on a busy machine one may take a whole connection in the very moment of the kill, or nothing may be under way in
    it, so that nothing is sent again. Such a round shows nothing; three are to show it."""
    shown = 0
    for _ in range(10):
        crowd, tasks = Crowd(node, 50), list[asyncio.Task[None]]()
        with crowd.reading(tasks):
            async with asyncio.timeout(60):
                alone = -1
                while alone != (alone := lanes(node, "heavy") + lanes(node, "full")):
                    await crowd.more(200)
            before = lanes(node, "resent_lost")
            await asyncio.to_thread(stage.kill_backends)
            await crowd.more(200)
        await asyncio.gather(*tasks)
        assert crowd.wrong == []
        shown += crowd.errors == [] and lanes(node, "resent_lost") > before
        if shown == 3:
            return
    raise AssertionError(f"only {shown} of 10 rounds in which reads were sent again and no client noticed")


# --- slow shards ---------------------------------------------------------------------------------------------------


def test_a_slow_shard_holds_up_nobody_else(stage: Stage, node: NodeProcess) -> None:
    slow = "SELECT count(*), max(id) FROM t"
    warm(node, slow)
    with ThreadPoolExecutor(3) as pool:
        with locked(stage.shards[1]):
            asked = [pool.submit(_ask_once, node, slow) for _ in range(3)]
            wait_until(lambda: waiting_for_locks(stage) >= 1, "the shard waits")
            with connect(node) as client:  # of the other shard only: not behind those
                assert client.execute("SELECT count(*) FROM t WHERE id = 1").fetchone() is not None
            assert not any(each.done() for each in asked)
        assert [each.result(20) for each in asked] == [(ROWS, ROWS)] * 3
    tidy(node)


def _ask_once(node: NodeProcess, sql: str) -> object:
    with connect(node) as client:
        return client.execute(sql.encode()).fetchone()


@pytest.mark.parametrize("pool_size", [1, 5])
def test_cancel(stage: Stage, pool_size: int) -> None:
    """With one connection the second client stands behind the first, else it has a lane of its own by then."""
    node = stage.node(pool_size=pool_size, general="lanes = 1\n")
    first, second = "SELECT count(*), min(id) FROM t", "SELECT count(*), max(id) FROM t"
    warm(node, first, second)
    with connect(node) as front, connect(node) as behind, ThreadPoolExecutor(2) as pool:
        with locked(stage.shards[1]):
            a = pool.submit(front.execute, first.encode())
            wait_until(lambda: waiting_for_locks(stage) == 1, "the first waits for the lock")
            units = lanes(node, "units")
            b = pool.submit(behind.execute, second.encode())
            wait_until(lambda: lanes(node, "units") >= units + 2, "the second is on its way")
            behind.cancel()
            with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
                b.result(20)
            assert not a.done()
            front.cancel()
            with pytest.raises(psycopg.errors.QueryCanceled, match="user request"):
                a.result(20)
        assert front.execute(first.encode()).fetchone() == (ROWS, 1)
        assert behind.execute(second.encode()).fetchone() == (ROWS, ROWS)
    tidy(node)
    node.stop()


def test_a_client_that_goes_leaves_nothing_behind(stage: Stage, node: NodeProcess) -> None:
    sql = "SELECT sum(id) FROM t"
    warm(node, sql)
    before = lanes(node, "left")
    gone = Talker(node.host, node.port, "flock")
    with locked(stage.shards[0]):
        gone.send(messages.query(sql))
        wait_until(lambda: waiting_for_locks(stage) == 1, "it waits for the lock")
        gone.socket.close()
        wait_until(lambda: lanes(node, "left") > before, "its part is nobody's")
        assert _ask_once(node, "SELECT 1") == (1,)
    tidy(node)
    assert _ask_once(node, sql) == (ROWS * (ROWS + 1) // 2,)


def test_a_node_that_stops_does_not_wait_for_rides_for_ever(stage: Stage) -> None:
    node = stage.node()
    sql = "SELECT count(*), sum(id) FROM t"
    warm(node, sql)
    client = Talker(node.host, node.port, "flock")
    with ThreadPoolExecutor(1) as pool:
        with locked(stage.shards[0]):
            client.send(messages.query(sql))
            wait_until(lambda: waiting_for_locks(stage) == 1, "it waits for the lock")
            stopped = pool.submit(node.stop)
            wait_until(lambda: "stopping clients=" in node.log_text(), "it has begun to stop")
        answer = client.read()
        assert answer.said[0].rows or answer.severity == "FATAL"
        assert stopped.result(30) == 0
    client.close()
