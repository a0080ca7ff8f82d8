"""Three real nodes find each other, know each other, leave, die and return: what SHOW PEERS says on each."""

from __future__ import annotations

import asyncio
import base64
import secrets
import signal
import socket
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest
from integration.flocks import peers, roll_out, start_flock, states, versions
from integration.harness import USER, Database, Nodes, config_toml, connect, raw, sharded_table, wait_until

from node.embedded.nodes import NodeProcess, Place, all_alive
from node.wire import messages
from node.wire.startup import cancel_request, sasl_initial_response, startup_message

ALIVE = {"bird-0": "alive", "bird-1": "alive", "bird-2": "alive"}


@pytest.fixture
def config(shards: list[Database]) -> str:
    return config_toml(shards[:1])


def key_file(folder: Path, name: str = "key") -> str:
    path = folder / name
    path.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    return str(path)


# --- finding each other -----------------------------------------------------------------------------------------------


def test_by_multicast_alone(node_factory: Nodes, config: str) -> None:
    flock = f"mdns-{secrets.token_hex(4)}"
    nodes = [node_factory(config, name=f"bird-{n}", flock=flock, options=("--mdns",), wait=False) for n in range(3)]
    for node in nodes:
        node.wait_ready()
    wait_until(lambda: all_alive(nodes), "every node lists every node", timeout_s=20, every_s=0.1)
    for node in nodes:
        assert states(node) == ALIVE


def test_by_seeds_alone_and_what_peers_shows(node_factory: Nodes, config: str) -> None:
    nodes = start_flock(node_factory, "seeds", config)
    with connect(nodes[0]), connect(nodes[0]):
        wait_until(
            lambda: [peers(node)["bird-0"]["clients"] for node in nodes] == ["2"] * 3,
            "everybody knows how many clients each has",
        )
    for node in nodes:
        rows = node.ask("SHOW PEERS")
        wanted = ["addr", "last_seen", "clients", "node", "state", "incarnation", "version", "digest", "protocol"]
        assert list(rows[0]) == wanted
        assert rows[0]["node"] == node.name  # the node itself is in the list
        assert {(row["node"], row["addr"]) for row in rows} == {(n.name, f"127.0.0.1:{n.port}") for n in nodes}
    wait_until(
        lambda: all(len({(row["version"], row["digest"]) for row in node.ask("SHOW PEERS")}) == 1 for node in nodes),
        "everybody knows which version each applies",
    )
    assert len(versions(nodes)) == 1
    assert {version for version, _ in versions(nodes)} == {"1"}


def test_saved_peers_find_the_flock_without_a_seed(node_factory: Nodes, config: str) -> None:
    nodes = start_flock(node_factory, "saved", config)
    stray = nodes[2]
    place = Place(port=stray.port, gossip=stray.gossip)
    stray.kill()
    stray.options = [o for o in stray.options if o not in ("--seed", nodes[0].gossip)]
    stray.place = place
    stray.start()
    wait_until(lambda: all_alive(nodes), "the node that came back is found by what it saved", timeout_s=20)


# --- leaving and dying ------------------------------------------------------------------------------------------------


def test_sigterm_leaves_and_kill_does_not(node_factory: Nodes, config: str) -> None:
    nodes = start_flock(node_factory, "leave", config)
    assert nodes[1].stop() == 0
    wait_until(lambda: states(nodes[0])["bird-1"] == "left", "a node that left is shown as left")
    changed = config.replace("default_pool_size = 5", "default_pool_size = 6")
    done = roll_out(nodes[0], changed, "--json")
    assert done.status == 0, done.out + done.err
    assert sorted(done.nodes) == ["bird-0", "bird-2"]

    nodes[2].kill()
    wait_until(lambda: states(nodes[0])["bird-2"] in ("suspect", "dead"), "a killed node is missed")
    refused = roll_out(nodes[0], config.replace("default_pool_size = 5", "default_pool_size = 7"), "--json")
    assert refused.status == 1
    assert refused.report["outcome"] == "aborted"
    assert "bird-2" in refused.report["reason"]
    wait_until(lambda: states(nodes[0])["bird-2"] == "dead", "it is dead in the end", timeout_s=20)
    with connect(nodes[0]) as client:  # traffic is nobody's business but the node's
        assert client.execute("SELECT 1").fetchone() == (1,)

    nodes[0].ask("EVICT NODE bird-2")
    assert "bird-2" not in {row["node"] for row in nodes[0].ask("SHOW ROLLOUT") if row["phase"] == "idle"}
    again = roll_out(nodes[0], config.replace("default_pool_size = 5", "default_pool_size = 7"), "--json")
    assert again.status == 0, again.out
    assert sorted(again.nodes) == ["bird-0"]

    # whoever comes back takes what is in force, not what its files say, before it serves anybody
    nodes[2].start()
    wait_until(lambda: len(versions([nodes[0], nodes[2]])) == 1, "the one that was evicted has caught up")
    assert {version for version, _ in versions([nodes[0], nodes[2]])} == {"3"}
    nodes[1].start()
    wait_until(lambda: all_alive(nodes), "all are back", timeout_s=20)
    assert {version for version, _ in versions(nodes)} == {"3"}


def test_a_node_that_was_away_serves_nothing_old(node_factory: Nodes, config: str) -> None:
    """Stopped by kill -9 it keeps its seat: nobody can turn without it, and it returns to the version in force."""
    nodes = start_flock(node_factory, "away", config)
    nodes[2].kill()
    wait_until(lambda: states(nodes[0])["bird-2"] in ("suspect", "dead"), "it is missed")
    refused = roll_out(nodes[0], config.replace("default_pool_size = 5", "default_pool_size = 9"), "--json")
    assert refused.status == 1
    nodes[2].start()
    wait_until(lambda: all_alive(nodes), "it is back", timeout_s=20)
    done = roll_out(nodes[2], config.replace("default_pool_size = 5", "default_pool_size = 9"), "--json")
    assert done.status == 0, done.out
    assert {version for version, _ in versions(nodes)} == {"2"}


def test_what_an_evicted_node_left_running_is_ended(node_factory: Nodes, config: str, shards: list[Database]) -> None:
    """A dead node's statement may outlive it on the server, and take effect after the others have turned."""
    nodes = start_flock(node_factory, "ghost", config, count=2)
    client = connect(nodes[1])
    shards[0].sql("CREATE TABLE late (n int)")
    shards[0].sql(f'GRANT ALL ON late TO "{USER}"')
    client.pgconn.send_query(b"INSERT INTO late SELECT 1 FROM pg_sleep(4)")
    # the process stands still: its connections live on, as those of a host that hangs do
    own = "application_name LIKE 'pgmurmur/bird-1/%'"
    running = f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND {own}"
    wait_until(lambda: shards[0].sql(running) == [("1",)], "its statement runs")
    assert nodes[1].process is not None
    nodes[1].process.send_signal(signal.SIGSTOP)
    nodes[0].ask("EVICT NODE bird-1")
    assert shards[0].sql(running) == [("0",)]
    nodes[1].process.send_signal(signal.SIGCONT)
    # it notices that it has no seat, drains, and asks for one again
    wait_until(lambda: all_alive(nodes) and serving(nodes[1]), "it is back", timeout_s=20)
    assert shards[0].sql("SELECT count(*) FROM late") == [("0",)]
    client.close()


def serving(node: NodeProcess) -> bool:
    try:
        with connect(node, options="-c statement_timeout=2000") as client:
            return client.execute("SELECT 1").fetchone() == (1,)
    except psycopg.Error:
        return False


def test_a_node_with_a_long_name_is_not_its_own_ghost(node_factory: Nodes, shards: list[Database]) -> None:
    """PostgreSQL cuts application_name at 63 bytes; a drain ends backends of earlier boots by it."""
    tables = sharded_table("t")
    name = "a-node-whose-name-is-as-long-as-a-name-of-a-node-may-ever-get"
    node = node_factory(config_toml(shards), name=name)
    with connect(node) as client:
        client.execute("SELECT 1")
        before = {row["remote_pid"] for row in node.ask("SHOW SERVERS")}
        done = roll_out(node, config_toml(shards, tables=tables), "--json")
        assert done.status == 0, done.out
        client.execute("SELECT 1")
    assert before <= {row["remote_pid"] for row in node.ask("SHOW SERVERS")}


# --- documents at the start -------------------------------------------------------------------------------------------


def test_files_that_differ_found_nothing_and_join_only_when_told(node_factory: Nodes, config: str) -> None:
    first = node_factory(config, name="bird-0", flock="files", options=("--no-mdns",))
    other = config.replace("default_pool_size = 5", "default_pool_size = 8")
    seed = ("--no-mdns", "--seed", first.gossip)
    second = node_factory(other, name="bird-1", flock="files", options=seed, wait=False)
    assert second.process is not None
    assert second.process.wait(30) == 1
    said = second.log_text()
    digest = peers(first)["bird-0"]["digest"]
    assert digest is not None
    assert digest[:12] in said
    assert "default_pool_size: 5 -> 8" in said  # what differs
    assert "--adopt" in said  # and the way out

    second.options = [*second.options, "--adopt"]
    second.start()
    wait_until(lambda: all_alive([first, second]), "it was adopted")
    assert versions([second]) == {("1", digest)}
    assert second.config.read_text() == other  # files are never rewritten
    with psycopg.connect(second.conninfo("admin", "admin", "pgdog"), autocommit=True) as admin:
        notices: list[str] = []
        admin.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        admin.execute("SHOW PEERS")
    assert any("differ" in notice for notice in notices)

    # once it has been a member, its files rule nothing any more: no --adopt is needed, whatever they say
    second.stop()
    second.options = [option for option in second.options if option != "--adopt"]
    second.start()
    assert versions([second]) == {("1", digest)}


# --- one command for all ----------------------------------------------------------------------------------------------


def test_cluster_runs_a_command_everywhere(node_factory: Nodes, config: str) -> None:
    nodes = start_flock(node_factory, "cluster", config)
    rows = nodes[1].ask("CLUSTER SHOW POOLS")
    assert next(iter(rows[0])) == "node"
    assert {row["node"] for row in rows} == {"bird-0", "bird-1", "bird-2"}
    assert {row["node"] for row in nodes[2].ask("CLUSTER SHOW VERSION")} == {"bird-0", "bird-1", "bird-2"}
    nodes[1].ask("CLUSTER MAINTENANCE ON")
    assert {row["paused"] for row in nodes[0].ask("CLUSTER SHOW POOLS")} == {"t"} or all(
        "t" in str(row).lower() for row in nodes[0].ask("CLUSTER SHOW POOLS")
    )
    nodes[0].ask("CLUSTER MAINTENANCE OFF")
    for node in nodes:
        with connect(node) as client:
            assert client.execute("SELECT 1").fetchone() == (1,)
    nodes[2].kill()
    with psycopg.connect(nodes[0].conninfo("admin", "admin", "pgdog"), autocommit=True) as admin:
        notices: list[str] = []
        admin.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        answered = {row[0] for row in admin.execute("CLUSTER SHOW VERSION").fetchall()}
    assert answered == {"bird-0", "bird-1", "bird-2"}  # a row with its name
    assert any("bird-2" in notice for notice in notices)  # and its error


def test_a_cancel_finds_its_client_through_another_node(node_factory: Nodes, config: str) -> None:
    nodes = start_flock(node_factory, "cancel", config)
    asyncio.run(_cancelled_elsewhere(nodes[0], [*nodes[1:], nodes[0]] * 5))


async def _cancelled_elsewhere(one: NodeProcess, others: Sequence[NodeProcess]) -> None:
    """A load balancer sends a cancel request anywhere: here to each of `others` in turn."""
    async with await raw(one) as client, await raw(one) as bystander:
        pid, right = client.key
        for other in others:
            bystander.send(messages.query("SELECT pg_sleep(0.3)"))
            client.send(messages.query("SELECT pg_sleep(30)"))
            await asyncio.to_thread(
                wait_until, lambda: one.ask("SHOW POOLS")[0]["sv_active"] == "2", "both statements run"
            )
            await _ask_to_cancel(other, pid, bytes(len(right)))  # nobody's
            await _ask_to_cancel(other, pid, right)
            answer = await client.answer()
            assert [error["C"] for error in answer.errors] == ["57014"]
            await _ask_to_cancel(other, pid, right)  # too late: it hits nobody
            assert (await client.query("SELECT 1")).letters == "TDCZ"
            assert (await bystander.answer()).errors == []


async def _ask_to_cancel(node: NodeProcess, pid: int, secret: bytes) -> None:
    reader, writer = await asyncio.open_connection(node.host, node.port)
    writer.write(cancel_request(pid, secret))
    assert await asyncio.wait_for(reader.read(), 10) == b""  # a cancel request is never answered
    writer.close()


# --- keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_key(node_factory: Nodes, config: str, tmp_path: Path) -> tuple[list[NodeProcess], str]:
    key = key_file(tmp_path)
    return start_flock(node_factory, "sealed", config, options=("--key-file", key)), key


def test_a_flock_with_a_key_turns_and_lets_nobody_else_in(
    with_key: tuple[list[NodeProcess], str], node_factory: Nodes, config: str, tmp_path: Path
) -> None:
    nodes, key = with_key
    done = roll_out(nodes[1], config.replace("default_pool_size = 5", "default_pool_size = 6"), "--json")
    assert done.status == 0, done.out + done.err
    assert {version for version, _ in versions(nodes)} == {"2"}
    salts = {_salt(node) for node in nodes}
    assert len(salts) == 1  # a client cannot tell one member from another by its login
    asyncio.run(_cancelled_elsewhere(nodes[0], nodes[1:]))

    other = key_file(tmp_path, "other")
    for name, options in (("stranger", ("--key-file", other)), ("naked", ())):
        # the same flock name and a seed that answers: only the key is missing
        intruder = node_factory(
            config,
            name=name,
            flock="sealed",
            options=("--no-mdns", "--seed", nodes[0].gossip, "--register", f"file:{tmp_path / name}", *options),
        )
        fourth = node_factory(
            config,
            name=f"kin-of-{name}",
            flock="sealed",
            options=("--no-mdns", "--seed", nodes[0].gossip, "--key-file", key),
        )
        wait_until(lambda node=fourth: node.name in states(nodes[2]), "one with the key is let in meanwhile")  # type: ignore[misc]
        fourth.stop()
        assert set(states(intruder)) == {name}
        assert name not in states(nodes[0])
        intruder.stop()


def _salt(node: NodeProcess) -> bytes:
    with socket.create_connection((node.host, node.port), timeout=5) as connection:
        connection.sendall(startup_message([(b"user", USER.encode()), (b"database", b"flock")]))
        assert connection.recv(1024)[:1] == b"R"
        first = b"n,,n=,r=abcdefghijklmnopqrstuvwx"
        connection.sendall(sasl_initial_response(b"SCRAM-SHA-256", first))
        answer = connection.recv(1024)
        return next(part for part in answer.split(b",") if part.startswith(b"s="))


def test_without_a_key_an_address_for_others_is_refused(node_factory: Nodes, config: str) -> None:
    node = node_factory(config, place=Place(gossip="0.0.0.0:0"), wait=False)
    assert node.process is not None
    assert node.process.wait(30) == 1
    assert "--key-file" in node.log_text()
    # it is only the choice that is refused: a node that listens for clients everywhere starts, and gossips on loopback
    everywhere = node_factory(
        config.replace('host = "127.0.0.1"\nport = 0', 'host = "0.0.0.0"\nport = 0', 1), wait=False
    )
    everywhere.stop()


@pytest.mark.parametrize("text", ["", "not base64!\n", base64.b64encode(b"short").decode() + "\n"])
def test_a_key_file_that_is_none_is_refused(node_factory: Nodes, config: str, tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad"
    path.write_text(text)
    node = node_factory(config, options=("--key-file", str(path)), wait=False)
    assert node.process is not None
    assert node.process.wait(30) == 1
    assert str(path) in node.log_text()
    assert "Traceback" not in node.log_text()
