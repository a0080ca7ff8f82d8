"""scripts/cluster and scripts/demo as people use them: what they print, what they leave behind, how they end."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from integration.harness import Database, config_toml, users_toml, wait_until

import node
from node.embedded.demo import free_base

HOME = str(Path(node.__file__).resolve().parents[1])


@contextmanager
def running(module: str, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The module as the script starts it; killed when the test forgets to end it."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A flock of its own: another one on this machine, called default, would be found by multicast.
        env={**os.environ, "PYTHONPATH": HOME, "PGMURMUR_FLOCK": f"scripts-{secrets.token_hex(4)}", **environment},
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def lines_until(process: subprocess.Popen[str], last: str) -> list[str]:
    assert process.stdout is not None
    heard = []
    for line in process.stdout:
        heard.append(line.rstrip("\n"))
        if heard[-1] == last:
            return heard
    raise AssertionError("it ended before it said " + last + ":\n" + "\n".join(heard))


def is_gone(pid: int) -> bool:
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return not said or said.startswith("Z")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_cluster_prints_its_nodes_and_stops_them_all(
    shards: list[Database], tmp_path: Path, how: signal.Signals
) -> None:
    config, users = tmp_path / "pgdog.toml", tmp_path / "users.toml"
    config.write_text(config_toml(shards))
    users.write_text(users_toml())
    base = free_base()
    folder = tmp_path / "flock"
    options = ("--config", str(config), "--users", str(users), "--base-port", str(base), "--dir", str(folder))
    with running("node.embedded.cluster", "3", *options) as cluster:
        *nodes, ready = lines_until(cluster, "ready")
        assert ready == "ready"
        fields = [line.split("\t") for line in nodes]
        assert [name for name, *_ in fields] == ["node-0", "node-1", "node-2"]
        assert [address for _, address, *_ in fields] == [f"127.0.0.1:{base + number}" for number in range(3)]
        pids = [int(pid) for _, _, pid, _, _ in fields]
        for name, address, *_ in fields:
            assert (folder / name / "log").is_file()
            assert (folder / name / "state").is_dir()
            host, port = address.split(":")
            with psycopg.connect(f"host={host} port={port} user=admin password=pgdog dbname=admin") as admin:
                admin.autocommit = True
                cursor = admin.execute("SHOW PEERS")
                assert cursor.description is not None
                at = {column.name: place for place, column in enumerate(cursor.description)}
                peers = {row[at["node"]]: row[at["state"]] for row in cursor.fetchall()}
            assert peers == {"node-0": "alive", "node-1": "alive", "node-2": "alive"}
        cluster.send_signal(how)
        assert cluster.wait(30) == 0
    wait_until(lambda: all(map(is_gone, pids)), "every node is gone")


def test_a_cluster_of_nobody_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with running("node.embedded.cluster", "0", "--config", str(tmp_path / "f"), "--users", str(tmp_path / "f")) as it:
        assert it.wait(30) == 2


@pytest.mark.timeout(240)
def test_the_demo_keeps_every_promise() -> None:
    with running("node.embedded.demo", "--exit") as demo:
        said, _ = demo.communicate(timeout=200)
    assert demo.returncode == 0, said
    assert "✗" not in said
    assert "lie between them" in said


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """The names of UNIX sockets must fit into 100 bytes, and PostgreSQL's account must get there."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="pgm-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize(
    ("moment", "how"),
    [
        ("Two PostgreSQL servers", signal.SIGINT),
        ("pgdog.toml", signal.SIGINT),
        ("three processes start", signal.SIGTERM),
        ("scripts/rollout", signal.SIGINT),
    ],
)
def test_the_demo_interrupted_at_any_time_leaves_nothing(moment: str, how: signal.Signals, short_folder: Path) -> None:
    with running("node.embedded.demo", TMPDIR=str(short_folder)) as demo:
        assert demo.stdout is not None
        assert any(moment in line for line in demo.stdout)
        assert list(short_folder.iterdir()) != []
        demo.send_signal(how)
        said, _ = demo.communicate(timeout=60)
        assert demo.returncode == 130, said
        assert "Traceback" not in said
    assert list(short_folder.iterdir()) == []
    listed = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True).stdout
    assert [line for line in listed.splitlines() if str(short_folder) in line] == []
