"""The servers everything else stands on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from integration.harness import PASSWORD, USER, Database, wait_until

import node
from node.embedded.server import Server, SqlError, Stop
from node.embedded.workspace import Workspace


def test_a_database_is_owned_by_the_user_and_reached_by_tcp(shards: list[Database]) -> None:
    with shards[0].connect() as connection:
        connection.execute("CREATE TABLE t (a text)")
        connection.execute("INSERT INTO t VALUES ('ä'), (NULL), ('two\nlines')")
    assert shards[0].sql("SELECT a FROM t; SELECT count(*) FROM t") == [("ä",), ("",), ("two\nlines",), ("3",)]
    assert shards[1].sql("SELECT to_regclass('t')") == [("",)]


def test_text_sorts_by_bytes_on_every_machine(plain: Database) -> None:
    assert plain.sql("SELECT string_agg(c, '' ORDER BY c) FROM unnest(ARRAY['a', 'B', 'ä', '_']) c") == [("B_aä",)]


def test_a_wrong_password_is_refused(plain: Database) -> None:
    with pytest.raises(SqlError, match="password authentication failed"):
        plain.server.sql("SELECT 1", plain.name, user=USER, password=PASSWORD + "x")


@pytest.mark.parametrize("how", list(Stop))
def test_rows_survive_a_restart_on_the_same_port(own_server: Server, how: Stop) -> None:
    own_server.sql("CREATE TABLE kept AS SELECT 1 AS a")
    port = own_server.port
    own_server.restart(how)
    assert own_server.port == port
    assert own_server.sql("SELECT a FROM kept") == [("1",)]


def test_rows_survive_a_kill(own_server: Server) -> None:
    own_server.sql("CREATE TABLE kept AS SELECT 1 AS a")
    own_server.kill()
    assert not own_server.accepts()
    own_server.start()
    assert own_server.sql("SELECT a FROM kept") == [("1",)]


def test_a_frozen_server_answers_nothing_until_it_is_thawed(own_server: Server) -> None:
    own_server.freeze()
    assert not own_server.accepts()
    own_server.thaw()
    assert own_server.accepts()


def test_nothing_stays_behind_when_the_owner_is_killed(tmp_path: Path) -> None:
    script = (
        "import time\n"
        "from node.embedded.server import Server\n"
        "from node.embedded.workspace import Workspace\n"
        "workspace = Workspace()\n"
        "server = Server(workspace, 'left').start()\n"
        "print(workspace.path, server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    home = Path(node.__file__).resolve().parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(home)}
    ) as owner:
        assert owner.stdout is not None
        path, pid = owner.stdout.readline().split()
        assert Path(path).exists()
        owner.send_signal(signal.SIGKILL)
    wait_until(lambda: not Path(path).exists(), "the folder is removed")
    wait_until(lambda: not _alive(int(pid)), "the postmaster is gone")


def test_a_closed_workspace_leaves_no_process_and_no_folder() -> None:
    with Workspace() as workspace:
        server = Server(workspace, "short").start()
        pid = server.pid
    assert not workspace.path.exists()
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    """A zombie that its new parent has not reaped yet is dead enough."""
    said = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(said) and not said.startswith("Z")
