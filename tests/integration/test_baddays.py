"""Bad days: clients that lie or die, servers that go, signals, disks that are full.

Each ends in a clear error and a node that goes on, or leaves properly.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import statistics
import struct
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from fakes.fake_client import FakeClient, LoginRefused
from integration.flocks import start_flock, states
from integration.harness import (
    PASSWORD,
    USER,
    Database,
    Nodes,
    config_toml,
    connect,
    databases,
    raw,
    sharded_table,
    users_toml,
    wait_until,
)

from node.embedded.nodes import NodeProcess, Place
from node.embedded.server import Server, Stop
from node.wire import messages
from node.wire.startup import startup_message


def serves(node: NodeProcess, database: str = "flock") -> bool:
    with connect(node, database) as client:
        return client.execute("SELECT 1").fetchone() == (1,)


def alone(
    nodes: Nodes, shard: Database, *, general: str = "", users: str | None = None, **options: object
) -> NodeProcess:
    """One node before one server."""
    return nodes(config_toml([shard], general=general), users, **options)  # type: ignore[arg-type]


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_node_does_not_start_and_says_everything_that_is_wrong(node_factory: Nodes, shards: list[Database]) -> None:
    table = sharded_table("t", lines="mapping = [{values = [1], shard = 5}]")
    node = node_factory(
        config_toml(shards, general='pooler_mod = "session"\ntls_private_key = "k"\n', tables=table),
        users_toml(lines='pool_sise = 5\n[[users]]\nname = "u"\npassword = 5\n'),
        wait=False,
    )
    assert node.process is not None
    assert node.process.wait(20) == 1
    for error in (
        "pooler_mod",
        '"tls_private_key" needs "tls_certificate"',
        "has no shard 5",
        "pool_sise",
        '"password" in [[users]]',
    ):
        assert error in node.log_text()


# --- logins -----------------------------------------------------------------------------------------------------------


def test_wrong_password_user_and_database_are_told_alike(node_factory: Nodes, shards: list[Database]) -> None:
    """Neither the text nor the time says which of them was wrong."""
    node = alone(node_factory, shards[0])

    async def refused(user: str, password: str, database: str) -> tuple[dict[str, str], float]:
        begun = time.perf_counter()
        with pytest.raises(LoginRefused) as caught:
            await FakeClient.connect(node.host, node.port, user=user, database=database, password=password)
        return caught.value.fields, time.perf_counter() - begun

    async def all_of_them() -> None:
        cases = {
            "password": (USER, "wrong", "flock"),
            "user": ("nobody", PASSWORD, "flock"),
            "both": ("nobody", "wrong", "nowhere"),
            "database and password": (USER, "wrong", "nowhere"),
        }
        took: dict[str, list[float]] = {name: [] for name in cases}
        texts: dict[str, str] = {}
        for number in range(40):
            for name, case in sorted(cases.items(), key=lambda one: hash((one[0], number))):
                fields, seconds = await refused(*case)
                took[name].append(seconds)
                texts[name] = f"{fields['S']} {fields['C']} {fields['M']}".replace(case[0], "USER")
        assert len(set(texts.values())) == 1, texts
        assert next(iter(texts.values())).startswith("FATAL 28P01 password authentication failed for user")
        # the fastest ones have waited for nobody else; a derivation of SCRAM keys takes 1.5 ms, which must not show
        fastest = {name: statistics.mean(sorted(values)[:10]) for name, values in took.items()}
        assert max(fastest.values()) - min(fastest.values()) < 0.001, fastest
        # who knows the password may know that the database does not exist, as PostgreSQL says it
        fields, _ = await refused(USER, PASSWORD, "nowhere")
        assert (fields["S"], fields["C"]) == ("FATAL", "3D000")

    asyncio.run(all_of_them())
    assert serves(node)


def test_half_a_message_and_silence(node_factory: Nodes, shards: list[Database]) -> None:
    node = alone(node_factory, shards[0], general="client_login_timeout = 700\n")
    begun = time.monotonic()
    started = startup_message([(b"user", USER.encode()), (b"database", b"flock")])
    for sent in (b"", b"\0\0", started[:-3], started, started + b"p\0\0"):
        with socket.create_connection((node.host, node.port), timeout=10) as client:
            client.sendall(sent)
            heard = b""
            while chunk := client.recv(4096):
                heard += chunk
            if sent:
                assert b"timeout" in heard, sent
    assert time.monotonic() - begun < 9
    assert serves(node)


@pytest.mark.parametrize("length", [0x40000000, 0x7FFFFFFF, 0xFFFFFFFF, 3])
def test_a_length_field_that_lies(node_factory: Nodes, shards: list[Database], length: int) -> None:
    node = alone(node_factory, shards[0])

    async def lie() -> None:
        for letter in (b"Q", b"P", b"B", b"d"):
            async with await raw(node) as client:
                client.send(letter + struct.pack("!I", length) + b"x" * 100)
                heard = await client.ended()
                assert b"SFATAL\0" in heard
                assert b"C08P01\0" in heard
        reader, writer = await asyncio.open_connection(node.host, node.port)  # and before the login
        writer.write(struct.pack("!II", length, 3 << 16) + b"x" * 100)
        assert len(await asyncio.wait_for(reader.read(), 10)) < 1000
        writer.close()

    asyncio.run(lie())
    assert serves(node)
    assert resident_bytes(node) < 300 << 20


def test_a_type_byte_that_no_message_has(node_factory: Nodes, shards: list[Database]) -> None:
    """A 1 was once taken for the rest of a COPY, and a 0 for nothing at all."""
    node = alone(node_factory, shards[0])

    async def send() -> None:
        for letter in (0, 1, 2, 3, 0x7F, 0xFF, ord("y")):
            async with await raw(node) as client:
                client.send(bytes([letter]) + struct.pack("!I", 4))
                heard = await client.ended()
                assert b"SFATAL\0" in heard
                assert b"C08P01\0Minvalid frontend message type %d\0" % letter in heard

    asyncio.run(send())
    assert serves(node)


def resident_bytes(node: NodeProcess) -> int:
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(node.pid)], capture_output=True, text=True).stdout
    return int(said) * 1024


def test_a_client_killed_in_a_transaction_leaves_nothing(node_factory: Nodes, shards: list[Database]) -> None:
    node = alone(node_factory, shards[0], users=users_toml(pool_size=1))
    with connect(node) as client:
        client.execute("CREATE TABLE t (id int)")

    async def die() -> None:
        client = await raw(node)
        await client.query("BEGIN")
        await client.query("INSERT INTO t VALUES (1)")
        client.send(messages.query("INSERT INTO t SELECT 2 FROM pg_sleep(0.2)"))
        await client.abort()

    asyncio.run(die())
    with connect(node) as client:  # the only connection there is: rolled back first
        assert client.execute("SELECT count(*) FROM t").fetchone() == (0,)
        assert client.info.transaction_status is psycopg.pq.TransactionStatus.IDLE


# --- servers ----------------------------------------------------------------------------------------------------------


def test_a_server_that_is_down_and_comes_and_goes(node_factory: Nodes, own_server: Server) -> None:
    with databases([own_server]) as made:
        own_server.stop()
        node = alone(node_factory, made[0], general="checkout_timeout = 600\nconnect_timeout = 500\n")
        begun = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="is down|checkout timeout") as caught:
            connect(node)
        assert time.monotonic() - begun < 5
        assert str(own_server.port) in str(caught.value)  # which server, and what it said
        own_server.start()
        wait_until(lambda: tried(node), "it is used as soon as it is there")
        with connect(node) as client:
            client.execute("SELECT 1")
            own_server.stop(Stop.IMMEDIATE)
            wait_until(lambda: own_server.port and not own_server.running, "it is gone")
            with pytest.raises(psycopg.Error) as lost:
                client.execute("SELECT 1")
            assert (lost.value.sqlstate or "")[:2] in ("57", "08", "58")
        own_server.start()
        wait_until(lambda: tried(node), "it is used again")


def tried(node: NodeProcess) -> bool:
    try:
        return serves(node)
    except psycopg.Error:
        return False


def test_a_server_restarted_in_the_middle_of_a_load(node_factory: Nodes, own_server: Server) -> None:
    """Clients in a statement hear that it was lost, everybody else waits; nothing acknowledged is missing."""
    with databases([own_server]) as made:
        node = alone(node_factory, made[0])
        made[0].sql("CREATE TABLE t (id bigint)")
        made[0].sql(f'GRANT ALL ON t TO "{USER}"')
        stop = threading.Event()
        acknowledged: list[int] = []
        codes: set[str | None] = set()

        def work(number: int) -> None:
            n = number * 1_000_000
            while not stop.is_set():
                try:
                    with connect(node) as client:
                        while not stop.is_set():
                            n += 1
                            client.execute("INSERT INTO t VALUES (%s)", (n,))
                            acknowledged.append(n)
                except psycopg.Error as error:
                    codes.add(error.sqlstate)
                    stop.wait(0.02)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) > 50, "they work")
        own_server.restart(Stop.FAST)
        after = len(acknowledged)
        wait_until(lambda: len(acknowledged) > after + 50, "they work again", timeout_s=20)
        stop.set()
        for thread in threads:
            thread.join(10)
        assert codes <= {"57P01", "57P02", "57P03", "08006", "08003", "08000", "58000", None}, codes
        found = {int(row[0]) for row in made[0].sql("SELECT id FROM t")}
        assert set(acknowledged) <= found


def test_a_wrong_server_password_is_the_operators_problem(node_factory: Nodes, shards: list[Database]) -> None:
    node = node_factory(config_toml(shards[:1]).replace(f'password = "{PASSWORD}"', 'password = "old one"'))
    with pytest.raises(psycopg.OperationalError) as caught:
        connect(node)
    said = str(caught.value)
    assert "is down" in said
    assert "old one" not in said + node.log_text()
    assert "password authentication failed" in node.log_text()


# --- signals ----------------------------------------------------------------------------------------------------------


def test_sigterm_under_load(node_factory: Nodes, shards: list[Database]) -> None:
    """What runs is finished, then everybody hears one clean FATAL between transactions, and the node ends with 0."""
    node = node_factory(config_toml(shards, tables=sharded_table("t")), users_toml(pool_size=10))
    with connect(node) as client:
        client.execute("CREATE TABLE t (id bigint, part int)")
    acknowledged: list[int] = []

    async def work(number: int) -> str:
        """Writes until the end; what it heard last, by letters and codes. A reset connection is an exception."""
        n = number * 1_000_000
        async with await raw(node) as client:
            while True:
                n += 1
                if number % 2:
                    both = ("BEGIN", f"INSERT INTO t VALUES ({n}, 1)", f"INSERT INTO t VALUES ({n}, 2)", "COMMIT")
                else:
                    both = (f"INSERT INTO t VALUES ({n}, 1), ({n}, 2)",)
                for sql in both:
                    client.send(messages.query(sql))
                    heard = []
                    try:
                        while not heard or heard[-1].letter != "Z":
                            heard.append(await client.read())
                    except EOFError:
                        assert sql == both[0], "it was sent away in the middle of a transaction"
                        return " ".join(m.fields["S"] + m.fields["C"] if m.letter == "E" else m.letter for m in heard)
                    assert [m.fields for m in heard if m.letter == "E"] == []
                acknowledged.append(n)

    async def load() -> list[str]:
        return await asyncio.gather(*(work(number) for number in range(8)))

    long = connect(node, autocommit=False)
    long.execute("INSERT INTO t VALUES (0, 1)")
    idle = connect(node)
    idle.execute("SELECT 1")
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.extend(asyncio.run(load())))
    thread.start()
    wait_until(lambda: len(acknowledged) > 40, "they work")
    assert node.process is not None
    node.process.send_signal(signal.SIGTERM)
    thread.join(20)
    assert said == ["FATAL57P01"] * 8
    with pytest.raises(psycopg.Error) as gone:
        idle.execute("SELECT 1")
    assert gone.value.sqlstate == "57P01"
    with pytest.raises(psycopg.OperationalError):
        connect(node)
    assert node.running  # one transaction still runs, and may
    long.execute("INSERT INTO t VALUES (0, 2)")
    long.commit()
    assert node.process.wait(20) == 0
    rows = [int(row[0]) for shard in shards for row in shard.sql("SELECT id FROM t")]
    assert len(rows) % 2 == 0
    assert all(rows.count(n) == 2 for n in {*acknowledged, 0})
    long.close()
    idle.close()


def test_a_second_signal_hastens(node_factory: Nodes, shards: list[Database]) -> None:
    node = alone(node_factory, shards[0])
    held = connect(node, autocommit=False)
    held.execute("SELECT 1")
    assert node.process is not None
    node.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping" in node.log_text(), "it has heard")
    assert node.running
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait(10) == 0
    with pytest.raises(psycopg.Error) as lost:
        held.execute("SELECT 1")
    assert lost.value.sqlstate == "57P01"
    held.close()


def test_sighup_reads_the_files(node_factory: Nodes, shards: list[Database]) -> None:
    node = alone(node_factory, shards[0])
    node.config.write_text(config_toml(shards[:1], general="query_cache_limit = 77\n"))
    assert node.process is not None
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: setting(node, "query_cache_limit") == "77", "the new file counts")
    node.config.write_text("port = [")
    node.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload_failed" in node.log_text(), "a bad file is told")
    assert setting(node, "query_cache_limit") == "77"
    assert serves(node)


def setting(node: NodeProcess, name: str) -> str | None:
    return next(row["value"] for row in node.ask("SHOW CONFIG") if row["name"] == name)


# --- starts that must fail --------------------------------------------------------------------------------------------


def refused_start(node: NodeProcess) -> str:
    """It ends with 1 and says why, without a traceback."""
    assert node.process is not None
    assert node.process.wait(30) == 1
    assert "Traceback" not in node.log_text()
    return node.log_text()


def test_a_port_in_use(node_factory: Nodes, shards: list[Database]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = alone(node_factory, shards[0], place=Place(port=port), wait=False)
        assert str(port) in refused_start(node)
        node = alone(node_factory, shards[0], place=Place(gossip=f"127.0.0.1:{port}"), wait=False)
        assert f"could not bind gossip address 127.0.0.1:{port}: Address already in use" in refused_start(node)
        node = alone(node_factory, shards[0], place=Place(http=f"127.0.0.1:{port}"), wait=False)
        assert "in use" in refused_start(node)


def test_a_state_folder_that_cannot_be_used(node_factory: Nodes, shards: list[Database], tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    node = alone(node_factory, shards[0], options=("--state-dir", str(blocked / "state")), wait=False)
    assert str(blocked) in refused_start(node)


def test_two_processes_in_one_state_folder(node_factory: Nodes, shards: list[Database]) -> None:
    first = alone(node_factory, shards[0])
    second = alone(node_factory, shards[0], options=("--state-dir", str(first.state)), wait=False)
    assert "another process" in refused_start(second)
    assert serves(first)


def test_two_nodes_of_one_name(node_factory: Nodes, shards: list[Database]) -> None:
    """The second has another state folder, so it is another node by every sign but its name: one of them must not go
    on, and says so."""
    config = config_toml(shards[:1])
    first = node_factory(config, name="twin", flock="twins", options=("--no-mdns",))
    seed = ("--no-mdns", "--seed", first.gossip, "--node-id", "twin")
    second = node_factory(config, name="other", flock="twins", options=seed, wait=False)
    wait_until(lambda: not (first.running and second.running), "one of them ends", timeout_s=20)
    ended, stays = (second, first) if first.running else (first, second)
    assert ended.process is not None
    assert ended.process.wait(20) == 1
    assert "twin" in ended.log_text()
    stays.wait_ready()
    assert serves(stays)


@pytest.mark.parametrize("broken", ["journal", "register"])
def test_files_that_were_damaged(node_factory: Nodes, shards: list[Database], broken: str, tmp_path: Path) -> None:
    register = tmp_path / "cell-of-one"
    node = alone(node_factory, shards[0], options=("--register", f"file:{register}"))
    node.stop()
    files = [node.state / "promise.a", node.state / "promise.b"] if broken == "journal" else [register / "cell"]
    for path in files:
        damaged = bytearray(path.read_bytes())
        damaged[20 : len(damaged) // 2] = b"\xa5" * len(damaged[20 : len(damaged) // 2])
        path.write_bytes(bytes(damaged))
    node.launch()
    said = refused_start(node)
    assert "damaged" in said or "not a register" in said
    assert str(files[0].parent) in said


# --- disks ------------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 400 KB; for root a tmpfs."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount the small file system that this test fills")
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file:
        for size in (65536, 4096, 512, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def test_a_full_disk_refuses_changes_and_serves_on(node_factory: Nodes, shards: list[Database], tmp_path: Path) -> None:
    """The state folder is full: the votes have their place already, a new document has none. Traffic goes on."""
    with small_disk(tmp_path / "disk") as disk:
        state = disk / "state"
        state.mkdir()
        config = config_toml(shards[:1])
        node = node_factory(config, options=("--state-dir", str(state), "--register", f"file:{disk / 'register'}"))
        fill(disk)
        new = tmp_path / "new.toml"
        new.write_text(config.replace("default_pool_size = 5", "default_pool_size = 6"))
        with pytest.raises(psycopg.Error, match="No space|full|space") as refused:
            node.ask("ROLLOUT CONFIG '" + new.read_text().replace("'", "''") + "'")
        assert refused.value.sqlstate is not None
        assert serves(node)
        (disk / "ballast").unlink()
        node.ask("ROLLOUT CONFIG '" + new.read_text().replace("'", "''") + "'")
        assert setting(node, "default_pool_size") == "6"
        node.stop()
        fill(disk)
        node.launch()  # it cannot take its seat on a full disk: it waits, and says for what
        wait_until(lambda: "No space left" in node.log_text(), "it says what it waits for")
        assert node.running
        (disk / "ballast").unlink()
        node.wait_ready()
        assert serves(node)
        node.kill()


# --- what other programs watch ----------------------------------------------------------------------------------------


def fetch(address: str, path: str = "/") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_http_during_a_pause_and_the_ports_of_the_files(node_factory: Nodes, own_server: Server) -> None:
    from node.embedded.workspace import free_port

    metrics, health = free_port(), free_port()
    with databases([own_server]) as made:
        general = (
            f'openmetrics_port = {metrics}\nopenmetrics_host = "127.0.0.1"\nhealthcheck_port = {health}\n'
            'stats_period = 300\nlog_connections = false\nlog_disconnections = false\nlog_format = "json"\n'
            "idle_healthcheck_interval = 100\nidle_healthcheck_delay = 100\nhealthcheck_timeout = 300\n"
        )
        node = alone(node_factory, made[0], general=general)
        with connect(node) as client:
            for _ in range(50):
                client.execute("SELECT 1")
        assert fetch(node.http, "/ready") == (200, "ready")
        node.ask("MAINTENANCE ON")
        assert fetch(node.http, "/ready") == (200, "ready")  # or a load balancer would drop the whole flock
        assert re.search(r'maintenance\{database="flock"\} 1\b', fetch(node.http, "/metrics")[1])
        node.ask("MAINTENANCE OFF")
        assert "# TYPE clients gauge" in fetch(f"127.0.0.1:{metrics}", "/anything")[1]
        assert fetch(f"127.0.0.1:{health}") == (200, "up")
        wait_until(
            lambda: any(
                float(row[name] or 0) > 0 for row in node.ask("SHOW STATS") for name in row if name.startswith("avg_")
            ),
            "averages are of the last period",
        )
        own_server.stop()
        wait_until(lambda: fetch(f"127.0.0.1:{health}") == (502, "down"), "without a server it is down")
        own_server.start()
        wait_until(lambda: tried(node) and fetch(f"127.0.0.1:{health}") == (200, "up"), "and up again")
        for line in node.log_text().splitlines():
            assert json.loads(line)["message"].split()[0] not in ("client_connected", "client_disconnected")
        node.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert node.process.wait(20) == 0  # type: ignore[union-attr]


def test_a_flock_in_which_one_server_is_gone_stays_a_flock(node_factory: Nodes, own_server: Server) -> None:
    with databases([own_server]) as made:
        nodes = start_flock(node_factory, "lonely", config_toml(made), count=2)
        own_server.stop()
        for node in nodes:
            with pytest.raises(psycopg.Error):
                serves(node)
            assert set(states(node).values()) == {"alive"}
        own_server.start()
        for node in nodes:
            wait_until(lambda node=node: tried(node), "each serves again")  # type: ignore[misc]
