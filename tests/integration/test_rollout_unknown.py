"""Exit status 3: the command was sent, and nobody is left to tell how it ended. What it prints leads to the answer."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from integration.flocks import environment, rollout_command
from integration.harness import Database, Nodes, config_toml, connect, sharded_table, wait_until

from node.embedded.nodes import NodeProcess

SYNC = "\n[sync]\ndrain_timeout = 4000\n"


def config(shards: list[Database], home: int) -> str:
    mapping = f'mapping = [{{values = ["south"], shard = {home}}}, {{shard = 0}}]'
    return config_toml(shards, tables=sharded_table("seen", "region", "varchar", lines=mapping), lines=SYNC)


@contextmanager
def draining(node: NodeProcess, text: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command while the node waits for a transaction that does not end; nobody else keeps it waiting."""
    file = node.folder / "new.toml"
    file.write_text(text)
    before = node.ask("SHOW ROLLOUT")[0]["id"]
    holder = connect(node, autocommit=False)
    holder.execute("INSERT INTO seen VALUES ('north')")
    command = subprocess.Popen(
        rollout_command(node, file, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=node.folder,
        # where the tests run in the background of a shell, SIGINT is ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )

    def is_open() -> bool:
        row = node.ask("SHOW ROLLOUT")[0]
        return row["id"] != before and row["phase"] == "fencing"

    try:
        wait_until(is_open, "it drains")
        yield command
    finally:
        if command.poll() is None:
            command.kill()
        command.communicate()
        holder.close()


def outcome(node: NodeProcess) -> str | None:
    """What the command says to look at."""
    found: str | None = wait_until(
        lambda: phase if (phase := node.ask("SHOW ROLLOUT")[0]["phase"]) in ("committed", "aborted") else None,
        "SHOW ROLLOUT tells how it ended",
    )
    return found


@pytest.fixture
def node(shards: list[Database], node_factory: Nodes) -> NodeProcess:
    made = node_factory(config(shards, 1))
    with connect(made) as client:
        client.execute("CREATE TABLE seen (region text)")
    return made


def test_a_node_that_dies_before_it_answers(node: NodeProcess, shards: list[Database]) -> None:
    with draining(node, config(shards, 0), "--json") as command:
        node.kill()
        out, err = command.communicate(timeout=20)
    assert command.returncode == 3, out + err
    report = json.loads(out)
    assert report == {**report, "outcome": "unknown", "version": None, "digest": None, "nodes": []}
    assert f"SHOW ROLLOUT on the console of {node.host}:{node.port}, or of any other node" in report["reason"]
    node.start()
    wait_until(lambda: node.ask("SHOW PEERS")[0]["version"] == "1", "it serves what was in force")
    with connect(node) as client:
        client.execute("INSERT INTO seen VALUES ('south')")
    assert shards[1].sql("SELECT region FROM seen") == [("south",)]


def test_an_operator_who_does_not_wait(node: NodeProcess, shards: list[Database]) -> None:
    """Ctrl-C ends the command and not the rollout, which takes place as soon as it can."""
    with draining(node, config(shards, 0)) as command:
        command.send_signal(signal.SIGINT)
        out, err = command.communicate(timeout=20)
        assert command.returncode == 3, out + err
        assert out.startswith("unknown: whether the new configuration is in force is not known yet\n")
        assert "SHOW ROLLOUT on the console of" in out
        assert "Traceback" not in out + err
    assert outcome(node) == "committed"
    with psycopg.connect(shards[0].conninfo) as direct, connect(node) as client:
        client.execute("INSERT INTO seen VALUES ('south')")
        assert direct.execute("SELECT region FROM seen").fetchall() == [("south",)]
