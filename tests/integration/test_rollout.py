"""Rollouts through three real nodes: what the command says, what it changes, what it refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from fakes.certificates import Authority
from integration.flocks import last_rollout, roll_out, start_flock, versions
from integration.harness import (
    Database,
    Nodes,
    config_toml,
    connect,
    databases,
    sharded_table,
    users_toml,
    wait_until,
)

from node.embedded.nodes import NodeProcess
from node.embedded.server import Server
from node.embedded.workspace import Workspace

NAMES = ["bird-0", "bird-1", "bird-2"]
TABLE = "CREATE TABLE seen (region text NOT NULL, n int NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())"
OLD_MAP = 'mapping = [{values = ["north"], shard = 0}, {shard = 1}]'
NEW_MAP = 'mapping = [{values = ["south"], shard = 0}, {shard = 1}]'
SYNC = "\n[sync]\ndrain_timeout = 1500\nfence_timeout = 4000\nvalidate_timeout = 6000\n"


@dataclass
class Flock:
    nodes: list[NodeProcess]
    shards: list[Database]
    size: int = 5

    def config(self, mapping: str = OLD_MAP, **options: str) -> str:
        text = config_toml(
            self.shards, tables=sharded_table("seen", "region", "varchar", lines=mapping), lines=SYNC, **options
        )
        return text.replace("default_pool_size = 5", f"default_pool_size = {self.size}")

    def changed(self) -> str:
        """Another configuration, with the map in force."""
        self.size += 1
        return self.config()


@pytest.fixture(scope="module")
def module_nodes(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(workspace, tmp_path_factory.mktemp("rollout"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def standing(module_nodes: Nodes, shard_servers: tuple[Server, Server]) -> Iterator[Flock]:
    """One flock for the tests that leave it whole."""
    with databases(shard_servers) as shards:
        flock = Flock([], shards)
        # two connections a node and shard: under load somebody waits for one
        flock.nodes = start_flock(module_nodes, "rollout", flock.config(), users_toml(pool_size=2))
        with connect(flock.nodes[0]) as client:
            client.execute(TABLE)
        yield flock


@pytest.fixture
def flock(standing: Flock) -> Flock:
    """Whatever the test before did: every node applies the map in force, and so does the next configuration."""
    done = roll_out(standing.nodes[0], standing.changed(), "--json")
    assert done.status == 0, done.out + done.err
    assert len(versions(standing.nodes)) == 1
    return standing


# --- what the command says --------------------------------------------------------------------------------------------


def test_a_change_without_a_pause(flock: Flock) -> None:
    """A pool's size: every node applies it, nobody pauses, a transaction that is open meanwhile is not disturbed."""
    with connect(flock.nodes[1]) as client, client.transaction():
        client.execute("INSERT INTO seen VALUES ('north', 1)")
        done = roll_out(flock.nodes[0], flock.changed(), "--json")
        assert done.status == 0, done.out + done.err
        client.execute("INSERT INTO seen VALUES ('north', 2)")
    assert done.report["outcome"] == "committed"
    assert sorted(done.nodes) == NAMES
    for one in done.nodes.values():
        assert one["paused_ms"] == 0
        assert one["ack"] is True
        assert one["reason"] is None
        assert one["version"] == done.report["version"]
    assert versions(flock.nodes) == {(str(done.report["version"]), done.report["digest"])}
    for node in flock.nodes:
        sizes = {row["value"] for row in node.ask("SHOW CONFIG") if row["name"] == "default_pool_size"}
        assert sizes == {str(flock.size)}


def test_a_new_map_pauses_and_the_table_says_how_long(flock: Flock) -> None:
    done = roll_out(flock.nodes[2], flock.config(NEW_MAP))
    assert done.status == 0, done.err
    first, head, *rows = done.out.splitlines()
    assert first.startswith("committed: ")
    assert head.split() == ["node", "version", "paused", "ms", "drained", "ms", "reason"]
    assert [row.split()[0] for row in rows] == NAMES
    assert all(float(row.split()[2]) > 0 for row in rows)  # paused
    for node in flock.nodes:
        with connect(node) as client:
            client.execute("INSERT INTO seen VALUES ('south', %s)", (flock.nodes.index(node) + 100,))
    assert flock.shards[0].sql("SELECT n FROM seen WHERE region = 'south' ORDER BY n") == [("100",), ("101",), ("102",)]


def test_a_dry_run_validates_everywhere_and_changes_nothing(flock: Flock) -> None:
    before, shown = versions(flock.nodes), last_rollout(flock.nodes[0])
    done = roll_out(flock.nodes[1], flock.config(NEW_MAP), "--dry-run", "--json")
    assert done.status == 0, done.out + done.err
    assert done.report["outcome"] == "aborted"  # nothing changed; the status says that it would have been taken
    assert sorted(done.nodes) == NAMES
    assert all(one["ack"] for one in done.nodes.values())
    assert all("seen" in one["reason"] for one in done.nodes.values()), done.nodes  # what would change
    assert versions(flock.nodes) == before
    assert last_rollout(flock.nodes[0]) == shown
    said = roll_out(flock.nodes[1], flock.config(NEW_MAP), "--dry-run")
    assert said.status == 0
    assert "dry run" in said.out


def test_watch_tells_the_phases(flock: Flock) -> None:
    done = roll_out(flock.nodes[1], flock.config(NEW_MAP), "--watch", "--json")
    assert done.status == 0
    assert done.report["outcome"] == "committed"  # standard output stays one object
    assert "rollout" in done.err


def test_an_invalid_document_is_refused_before_anything_opens(flock: Flock) -> None:
    before, shown = versions(flock.nodes), last_rollout(flock.nodes[0])
    bad = (
        flock.config()
        .replace("default_pool_size", "default_pool_sise")
        .replace("drain_timeout = 1500", "drain_timeout = true")
        .replace('{values = ["north"], shard = 0}', '{values = ["north", 5], shard = 4}')
    )
    done = roll_out(flock.nodes[0], bad + '\n[[nothing]]\ndatabase = "nowhere"\n', "--json")
    assert done.status == 1
    assert done.report["outcome"] == "aborted"
    assert done.report["nodes"] == []
    # what no key shows by itself is listed beside the keys that are wrong
    for error in ("default_pool_sise", "drain_timeout", "nothing", "mapping key 5 is not a", "has no shard 4"):
        assert error in done.report["reason"]
    assert last_rollout(flock.nodes[0]) == shown  # no new row
    assert versions(flock.nodes) == before
    said = roll_out(flock.nodes[0], bad)
    assert said.status == 1
    assert "default_pool_sise" in said.out + said.err


def test_a_mapping_that_names_a_missing_shard(flock: Flock) -> None:
    shown = last_rollout(flock.nodes[0])
    done = roll_out(flock.nodes[0], flock.config('mapping = [{values = ["north"], shard = 2}, {shard = 1}]'), "--json")
    assert done.status == 1
    assert "shard" in done.report["reason"]
    assert last_rollout(flock.nodes[0]) == shown


def test_a_document_that_one_node_cannot_use_aborts_before_anybody_paused(flock: Flock) -> None:
    """A server that is not there: every node says so; nothing changes, and the servers in force go on."""
    before = versions(flock.nodes)
    port = flock.shards[1].server.port
    text = flock.config().replace(f"port = {port}", "port = 1")
    done = roll_out(flock.nodes[0], text, "--json")
    assert done.status == 1
    assert done.report["outcome"] == "aborted"
    assert ":1," in done.report["reason"]
    assert versions(flock.nodes) == before
    with connect(flock.nodes[2]) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_one_member_that_cannot_use_it_is_enough(flock: Flock) -> None:
    """A file that only one node has: the others refuse by name, nobody pauses, and nothing changes."""
    before = versions(flock.nodes)
    Authority(flock.nodes[0].folder / "tls").issue("here")
    text = flock.config(NEW_MAP, general='tls_certificate = "tls/here.crt"\ntls_private_key = "tls/here.key"\n')
    done = roll_out(flock.nodes[0], text, "--json")
    assert done.status == 1
    assert done.report["outcome"] == "aborted"
    reason = done.report["reason"]
    assert "bird-1" in reason or "bird-2" in reason
    assert "here.crt" in reason
    assert all(not one["paused_ms"] for one in done.report["nodes"])
    assert versions(flock.nodes) == before


def test_no_node_is_no_rollout(flock: Flock) -> None:
    done = roll_out(flock.nodes[0], flock.config(), "--json", "--port", "1")
    assert done.status == 1
    assert done.report == {**done.report, "outcome": "aborted", "version": None, "nodes": []}


# --- transactions that do not end, a second rollout, a time limit -----------------------------------------------------


def test_a_transaction_that_does_not_end_aborts_and_everybody_goes_on(flock: Flock) -> None:
    before = versions(flock.nodes)
    holder = connect(flock.nodes[1], autocommit=False)
    try:
        holder.execute("INSERT INTO seen VALUES ('west', 1)")
        waits = threading.Thread(target=_insert, args=(flock.nodes[0], "west"))
        begun = time.monotonic()
        done: list[object] = []
        rolling = threading.Thread(
            target=lambda: done.append(roll_out(flock.nodes[0], flock.config(NEW_MAP), "--json"))
        )
        rolling.start()
        wait_until(lambda: flock.nodes[0].ask("SHOW ROLLOUT")[0]["phase"] == "fencing", "it is open")

        # another one now is refused at once, and says whose the open one is
        row = flock.nodes[0].ask("SHOW ROLLOUT")[0]
        second = roll_out(flock.nodes[2], flock.config(), "--json")
        assert second.status == 1
        assert f"rollout {row['id']} is open: node bird-0, fencing for " in second.report["reason"]

        waits.start()  # a client of another node meanwhile: a slow statement, no error
        rolling.join(20)
        (first,) = done
        assert first.status == 1  # type: ignore[attr-defined]
        report = first.report  # type: ignore[attr-defined]
        assert report["outcome"] == "aborted"
        assert "bird-1" in report["reason"]
        waits.join(10)
        assert not waits.is_alive()
        assert time.monotonic() - begun < 10
        holder.execute("INSERT INTO seen VALUES ('west', 2)")
        holder.commit()
    finally:
        holder.close()
    assert versions(flock.nodes) == before
    rows = flock.nodes[2].ask("SHOW ROLLOUT")
    assert {row["phase"] for row in rows} == {"aborted"}
    assert any("bird-1" in str(row["reason"]) or row["node"] == "bird-1" for row in rows)


def _insert(node: NodeProcess, region: str) -> None:
    with connect(node) as client:
        client.execute("INSERT INTO seen VALUES (%s, 0)", (region,))


def test_a_time_limit_before_the_commit_aborts(flock: Flock) -> None:
    before = versions(flock.nodes)
    with connect(flock.nodes[1], autocommit=False) as holder:
        holder.execute("INSERT INTO seen VALUES ('west', 1)")
        done = roll_out(flock.nodes[0], flock.config(NEW_MAP), "--json", "--timeout", "0.8")
        assert done.status == 1, done.out
        assert done.report["outcome"] == "aborted"
        holder.rollback()
    assert versions(flock.nodes) == before


# --- console ----------------------------------------------------------------------------------------------------------


def test_history_and_the_way_back(flock: Flock) -> None:
    (old,) = versions(flock.nodes)
    assert roll_out(flock.nodes[0], flock.config(NEW_MAP), "--json").status == 0
    history = flock.nodes[1].ask("SHOW CONFIG HISTORY")
    assert str(old[0]) in {row["version"] for row in history}
    flock.nodes[1].ask(f"ROLLBACK TO {old[0]}")
    (now,) = versions(flock.nodes)
    assert now[1] == old[1]
    assert int(now[0] or 0) == int(old[0] or 0) + 2
    with pytest.raises(psycopg.Error, match="4711"):
        flock.nodes[1].ask("ROLLBACK TO 4711")


def test_show_rollout_has_a_row_per_member(flock: Flock) -> None:
    assert roll_out(flock.nodes[1], flock.config(NEW_MAP), "--json").status == 0
    for node in flock.nodes:
        rows = node.ask("SHOW ROLLOUT")
        wanted = ["id", "version", "phase", "coordinator", "started", "node", "state"]
        assert list(rows[0]) == [*wanted, "paused_ms", "drained_ms", "reason"]
        assert [row["node"] for row in rows] == NAMES
        assert {row["phase"] for row in rows} == {"committed"}
        assert {row["coordinator"] for row in rows} == {"bird-1"}
        assert {row["version"] for row in rows} == {version for version, _ in versions([node])}


def test_a_rollout_of_the_nodes_own_files(flock: Flock) -> None:
    node = flock.nodes[0]
    kept = node.config.read_text()
    node.config.write_text(flock.changed())
    try:
        node.ask("ROLLOUT")
    finally:
        node.config.write_text(kept)
    assert {row["value"] for row in flock.nodes[2].ask("SHOW CONFIG") if row["name"] == "default_pool_size"} == {
        str(flock.size)
    }


def test_reload_keeps_to_its_node_and_never_routes_alone(flock: Flock) -> None:
    node = flock.nodes[2]
    kept = node.config.read_text()
    (before,) = versions(flock.nodes)
    try:
        node.config.write_text(flock.config().replace("default_pool_size = ", "default_pool_size = 1"))
        node.ask("RELOAD")
        size = f"1{flock.size}"
        assert {r["value"] for r in node.ask("SHOW CONFIG") if r["name"] == "default_pool_size"} == {size}
        assert size not in {r["value"] for r in flock.nodes[0].ask("SHOW CONFIG") if r["name"] == "default_pool_size"}
        node.config.write_text(flock.config(NEW_MAP))
        with pytest.raises(psycopg.Error, match="ROLLOUT"):
            node.ask("RELOAD")
        node.config.write_text("not toml at all [")
        with pytest.raises(psycopg.Error):
            node.ask("RELOAD")
    finally:
        node.config.write_text(kept)
    assert versions(flock.nodes) == {before}


# --- under load -------------------------------------------------------------------------------------------------------


def test_a_transaction_begun_before_a_change_finds_its_server_after_it(flock: Flock) -> None:
    """No server has heard of it yet, and the pools that it knows are gone."""
    with connect(flock.nodes[0]) as client:
        client.execute("BEGIN")
        new = flock.config().replace("\nshard = ", "\nlock_timeout = 50000\nshard = ")
        assert roll_out(flock.nodes[1], new, "--json").status == 0
        client.execute("INSERT INTO seen VALUES ('north', 41)")
        client.execute("INSERT INTO seen VALUES ('east', 42)")
        client.execute("COMMIT")
    assert roll_out(flock.nodes[0], flock.config(NEW_MAP), "--json").status == 0  # and nobody is left at the gate


def test_a_rotated_password_costs_no_client_an_error(flock: Flock) -> None:
    """A change without a pause takes a pool away while clients wait for it: they wait for the new one."""
    errors: list[str] = []
    stop = threading.Event()

    def work(node: NodeProcess, region: str) -> None:
        try:
            with connect(node) as client:
                while not stop.is_set():
                    client.execute("INSERT INTO seen VALUES (%s, 3)", (region,))
        except psycopg.Error as error:
            errors.append(f"{node.name}: {error.sqlstate}: {error}")

    threads = [
        threading.Thread(target=work, args=(node, region)) for node in flock.nodes for region in ("north", "east") * 3
    ]
    for thread in threads:
        thread.start()
    try:
        # other connections to the same servers: everything about them is new, the routing is the old one
        done = [
            roll_out(
                flock.nodes[0], flock.config().replace("\nshard = ", f"\nlock_timeout = {limit}\nshard = "), "--json"
            )
            for limit in (60_000, 70_000, 80_000)
        ]
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert errors == []
    assert [one.status for one in done] == [0, 0, 0], done
    assert {one["paused_ms"] for one in done[-1].report["nodes"]} == {0}
