"""`--workers 2`: two members on one client port, as one node to clients and as a flock to operators."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import urllib.request
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from integration.flocks import FAST, peers, roll_out
from integration.harness import PASSWORD, USER, Database, Nodes, config_toml, connect, sharded_table, wait_until

from node.embedded.nodes import NodeProcess, Place
from node.embedded.workspace import free_port
from node.reception import CLIENT_BITS, member_tag

WORKERS = ("flight-1", "flight-2")
CANCELS = 30


@pytest.fixture
def config(shards: list[Database]) -> str:
    return config_toml(shards[:1], lines=FAST)


def start(
    nodes: Nodes, config: str, *options: str, place: Place | None = None, wait: bool = True, name: str = "flight"
) -> NodeProcess:
    return nodes(config, name=name, options=("--workers", "2", *options), place=place, wait=wait)


def pids(node: NodeProcess) -> dict[int, int]:
    """The process of each worker, as the log says."""
    started = re.findall(r"worker_started worker=(\d+) pid=(\d+)", node.log_text())
    return {int(number): int(pid) for number, pid in started}


def worker_of(client: psycopg.Connection) -> str:
    """Whose client this is, by its cancel key."""
    return {member_tag(name): name for name in WORKERS}[client.info.backend_pid >> CLIENT_BITS]


def clients_of_both(node: NodeProcess) -> dict[str, psycopg.Connection]:
    """One connection to each worker; which one it is, the kernel decides."""
    found: dict[str, psycopg.Connection] = {}

    def both() -> bool:
        client = connect(node)
        if worker_of(client) in found:
            client.close()
        else:
            found[worker_of(client)] = client
        return len(found) == 2

    wait_until(both, "both workers get clients")
    return found


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # a zombie whose parent is gone is reaped by init, in its own time
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def versions(node: NodeProcess) -> dict[str, str | None]:
    """As the worker that answers knows them."""
    return {name: row["version"] for name, row in peers(node).items() if row["state"] == "alive"}


def test_one_port_two_members(node_factory: Nodes, config: str) -> None:
    node = start(node_factory, config)
    # both are there from the first client on: nobody gets all those who have waited for the port
    clients = [connect(node) for _ in range(40)]
    shares = Counter(worker_of(client) for client in clients)
    assert set(shares) == set(WORKERS), shares
    for client in clients:
        assert client.execute("SELECT 1").fetchone() == (1,)
    # whichever worker's console it is
    for _ in range(6):
        assert {name for name, row in peers(node).items() if row["state"] == "alive"} == set(WORKERS)
        assert {row["addr"] for row in node.ask("SHOW PEERS")} == {f"127.0.0.1:{node.port}"}
        assert {row["node"] for row in node.ask("CLUSTER SHOW VERSION")} == set(WORKERS)
    wait_until(
        lambda: sum(int(row["clients"] or 0) for row in node.ask("SHOW PEERS")) == len(clients),
        "SHOW PEERS counts the clients of each",
    )
    for client in clients:
        client.close()
    assert sorted(path.name for path in node.state.iterdir()) == ["1", "2"]
    said = node.log_text()
    assert "workers_ready count=2" in said
    assert "server_connections=10 " in said  # five for each
    assert node.stop() == 0


def test_cancel_works_whichever_worker_hears_of_it(node_factory: Nodes, config: str) -> None:
    """The request comes on a connection of its own: half of them reach the worker that does not know the client."""
    node = start(node_factory, config)
    both = clients_of_both(node)
    for number in range(CANCELS):
        for client in both.values():
            assert _cancelled(node, client), f"cancel {number} of {worker_of(client)} did not arrive"
            assert client.execute("SELECT 1").fetchone() == (1,)  # and nothing hits what comes after
    for client in both.values():
        client.close()


def _cancelled(node: NodeProcess, client: psycopg.Connection) -> bool:
    ended: list[str | None] = []

    def run() -> None:
        try:
            client.execute("SELECT pg_sleep(20)")
        except psycopg.errors.QueryCanceled as error:
            ended.append(error.sqlstate)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        # a cancel of a statement that has not begun is lost, as with PostgreSQL: asked again until it hits
        wait_until(lambda: client.cancel() or ended or not thread.is_alive(), "the cancel hits", timeout_s=15)
    finally:
        thread.join(30)
    return ended == ["57014"]


def test_a_rollout_goes_over_all_workers(node_factory: Nodes, shards: list[Database]) -> None:
    def text(column: str) -> str:
        return config_toml(shards, tables=sharded_table("nests", column), lines=FAST)

    for shard in shards:
        shard.sql("CREATE TABLE nests (id bigint, bush bigint)")
        shard.sql(f'ALTER TABLE nests OWNER TO "{USER}"')
    node = start(node_factory, text("id"))
    both = clients_of_both(node)
    stop, errors, done = threading.Event(), [], Counter[str]()

    def load(name: str, client: psycopg.Connection) -> None:
        while not stop.is_set():
            try:
                client.execute("INSERT INTO nests VALUES (%s, %s)", (done[name], done[name] * 7))
            except psycopg.Error as error:
                errors.append(f"{name}: {error}")
                return
            done[name] += 1

    threads = [threading.Thread(target=load, args=item) for item in both.items()]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(done[name] > 10 for name in WORKERS), "both workers are busy")
        rolled = roll_out(node, text("bush"), "--json")  # another map: the flock pauses, votes and turns
        assert rolled.status == 0, rolled.out + rolled.err
        assert set(rolled.nodes) == set(WORKERS)
        assert all(row["paused_ms"] is not None for row in rolled.nodes.values())
        before = done.copy()
        wait_until(lambda: all(done[name] > before[name] + 10 for name in WORKERS), "both go on afterwards")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert errors == []
    for client in both.values():
        assert "bush = 5 → shard" in _plan(client)
        client.close()
    wait_until(lambda: versions(node) == dict.fromkeys(WORKERS, "2"), "both are known to serve version 2")


def _plan(client: psycopg.Connection) -> str:
    return "\n".join(str(row[0]) for row in client.execute("EXPLAIN SELECT * FROM nests WHERE bush = 5").fetchall())


def first_connection(node: NodeProcess) -> psycopg.Connection:
    found: list[psycopg.Connection] = []

    def is_in() -> bool:
        try:
            found.append(connect(node))
        except psycopg.OperationalError:
            return False
        return True

    wait_until(is_in, "a newcomer is let in", timeout_s=2)
    return found[0]


def test_a_worker_that_dies_comes_back_and_the_other_serves_meanwhile(node_factory: Nodes, config: str) -> None:
    node = start(node_factory, config)
    both = clients_of_both(node)
    first = pids(node)
    os.kill(first[1], signal.SIGKILL)
    wait_until(lambda: is_gone(first[1]), "it is dead")
    # the kernel gives the dead one's share to the living; what it had given it before is reset
    with first_connection(node) as newcomer:
        assert worker_of(newcomer) == "flight-2"
        assert newcomer.execute("SELECT 1").fetchone() == (1,)
    assert both["flight-2"].execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError):
        both["flight-1"].execute("SELECT 1")
    wait_until(lambda: "worker_back worker=1" in node.log_text(), "it comes back", timeout_s=20)
    assert pids(node)[1] != first[1]
    assert pids(node)[2] == first[2]
    again = clients_of_both(node)
    wait_until(lambda: set(versions(node)) == set(WORKERS), "they know each other again", timeout_s=20)
    # it is the member it was: nobody must be evicted for a rollout
    changed = config.replace("default_pool_size = 5", "default_pool_size = 6")
    rolled = roll_out(node, changed, "--json")
    assert rolled.status == 0, rolled.out + rolled.err
    assert set(rolled.nodes) == set(WORKERS)
    for client in (*both.values(), *again.values()):
        client.close()
    # what it begins with is what the flock agrees on, not what the parent read at its start
    os.kill(pids(node)[2], signal.SIGKILL)
    wait_until(lambda: "worker_back worker=2" in node.log_text(), "the other comes back", timeout_s=20)
    wait_until(lambda: versions(node) == dict.fromkeys(WORKERS, "2"), "both serve version 2", timeout_s=20)


def test_what_ends_one_on_purpose_ends_all(node_factory: Nodes, config: str) -> None:
    node = start(node_factory, config)
    running = pids(node)
    both = clients_of_both(node)
    for client in both.values():
        client.execute("BEGIN")
        client.execute("SELECT 1")
    node.ask("SHUTDOWN")
    wait_until(lambda: node.log_text().count("stopping clients=1") == 2, "all stop at once, not one after the other")
    for client in both.values():
        client.execute("COMMIT")
        client.close()
    assert node.process is not None
    assert node.process.wait(20) == 0
    assert all(is_gone(pid) for pid in running.values())
    # left in order: a start with the same folders finds no seat of a dead member in its way
    node.start()
    assert set(versions(node)) == set(WORKERS)


def test_a_signal_that_everybody_gets_counts_once(node_factory: Nodes, config: str) -> None:
    """A terminal and systemd send it to the workers, too. A transaction that runs is waited for all the same."""
    node = start(node_factory, config)
    both = clients_of_both(node)
    for client in both.values():
        client.execute("BEGIN")
        client.execute("SELECT 1")
    for pid in (node.pid, *pids(node).values()):
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: node.log_text().count("stopping clients=1") == 2, "both are about to stop")
    for client in both.values():
        assert client.execute("SELECT 1").fetchone() == (1,)
        client.execute("COMMIT")
    assert node.process is not None
    assert node.process.wait(20) == 0
    for client in both.values():
        client.close()


def test_sighup_reloads_each(node_factory: Nodes, config: str) -> None:
    node = start(node_factory, config)
    node.config.write_text(config.replace("default_pool_size = 5", "default_pool_size = 5\nmax_client_conn = 77"))
    os.kill(node.pid, signal.SIGHUP)
    wait_until(lambda: len(re.findall(r"worker=\d reloaded", node.log_text())) == 2, "both have read their files again")
    shown = {row["node"]: row["value"] for row in node.ask("CLUSTER SHOW CONFIG") if row["name"] == "max_client_conn"}
    assert shown == dict.fromkeys(WORKERS, "77")


def test_a_second_signal_hastens_all(node_factory: Nodes, config: str) -> None:
    node = start(node_factory, config)
    both = clients_of_both(node)
    for client in both.values():
        client.execute("BEGIN")
        client.execute("SELECT 1")
    os.kill(node.pid, signal.SIGTERM)
    wait_until(lambda: node.log_text().count("stopping clients=1") == 2, "both wait for their transactions")
    os.kill(node.pid, signal.SIGTERM)
    assert node.process is not None
    assert node.process.wait(20) == 0
    assert node.log_text().count("clients_terminated count=1") == 2
    for client in both.values():
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")


def test_workers_do_not_outlive_their_parent(node_factory: Nodes, config: str) -> None:
    node = start(node_factory, config)
    running = pids(node)
    os.kill(node.pid, signal.SIGKILL)
    assert node.process is not None
    node.process.wait(20)
    wait_until(lambda: all(is_gone(pid) for pid in running.values()), "the workers stop", timeout_s=20)
    assert len(re.findall(r" INFO pgmurmur worker=\d stopped", node.log_text())) == 2  # in order
    node.start()
    assert set(versions(node)) == set(WORKERS)


def test_each_has_ports_of_its_own_that_follow_the_first(node_factory: Nodes, config: str) -> None:
    http, gossip = _two_ports(), _two_ports()
    place = Place(gossip=f"127.0.0.1:{gossip}", http=f"127.0.0.1:{http}")
    node = start(node_factory, config, place=place)
    assert (node.gossip, node.http) == (place.gossip, place.http)
    for number, name in enumerate(WORKERS):
        with urllib.request.urlopen(f"http://127.0.0.1:{http + number}/ready", timeout=10) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"http://127.0.0.1:{http + number}/", timeout=10) as answer:
            assert name in answer.read().decode()


def _two_ports() -> int:
    """The first of two neighbours that nobody listens on."""

    def free(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    port: int = wait_until(lambda: (first := free_port()) and free(first + 1) and first, "two free ports")
    return port


def test_a_port_that_others_have_is_refused_and_said_once(node_factory: Nodes, config: str) -> None:
    first = start(node_factory, config)
    second = start(node_factory, config, place=Place(port=first.port), wait=False, name="rival")
    assert second.process is not None
    assert second.process.wait(30) == 1
    assert second.log_text().count(f"could not listen on 127.0.0.1:{first.port}") == 1
    assert set(versions(first)) == set(WORKERS)


def test_what_keeps_workers_from_starting_is_said_once(node_factory: Nodes, config: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.key"
    bad.write_text("not base64!\n")
    node = start(node_factory, config, "--key-file", str(bad), wait=False)
    assert node.process is not None
    assert node.process.wait(30) == 1
    assert node.log_text().count("bad.key") == 1


def test_workers_agree_on_a_password_that_nobody_chose(node_factory: Nodes, shards: list[Database]) -> None:
    users = f'[[users]]\nname = "{USER}"\npassword = "{PASSWORD}"\ndatabase = "flock"\n'
    config = config_toml(shards[:1], lines=FAST)
    node = node_factory(config, users, name="flight", options=("--workers", "2"))
    found = re.findall(r"admin_password_generated user=admin password=(\S+)", node.log_text())
    assert len(found) == 1
    node.users.write_text(f'[admin]\npassword = "{found[0]}"\n{users}')  # for `ask`, here and at the end of the test
    for _ in range(8):
        assert set(versions(node)) == set(WORKERS)


def test_the_unix_socket_is_the_first_workers(node_factory: Nodes, shards: list[Database]) -> None:
    folder = Path(node_factory.workspace.folder("sockets"))
    node = start(node_factory, config_toml(shards[:1], general=f'unix_socket_dir = "{folder}"', lines=FAST))
    for _ in range(6):
        with psycopg.connect(
            f"host={folder} port={node.port} user={USER} password={PASSWORD} dbname=flock", autocommit=True
        ) as client:
            assert worker_of(client) == "flight-1"
            assert client.execute("SELECT 1").fetchone() == (1,)
    os.kill(pids(node)[1], signal.SIGKILL)
    wait_until(lambda: "worker_back worker=1" in node.log_text(), "it comes back", timeout_s=20)
    with psycopg.connect(f"host={folder} port={node.port} user={USER} password={PASSWORD} dbname=flock") as client:
        assert worker_of(client) == "flight-1"
