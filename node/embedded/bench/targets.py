"""The proxies that are compared, as processes in front of the same servers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.embedded.bench import configs, meter
from node.embedded.bench.results import DIRECT, OURS, PGBOUNCER, PGDOG
from node.embedded.nodes import NodeProcess
from node.embedded.workspace import Workspace, free_port

USER, PASSWORD = "bench", "bench"
DATABASE, SHARDED = "bench", "sharded"

LISTEN_TIMEOUT_S = 20.0
POLL_S = 0.02

PGDOG_BIN = "PGDOG_BIN"
"""Environment variable that names PgDog's program; without it there is no PgDog in the table."""


@dataclass(frozen=True)
class Target:
    """What a client connects to, and the process (with all its children) whose CPU time counts."""

    name: str
    port: int
    database: str
    pid: int | None
    """None for PostgreSQL itself: its work is the same behind every proxy."""
    without_prepared: str = ""
    """Why it cannot be asked with prepared statements."""

    def pids(self) -> list[int]:
        return [] if self.pid is None else meter.family_of(self.pid)

    def on(self, database: str, name: str) -> Target:
        return Target(name, self.port, database, self.pid, self.without_prepared)


class NotStarted(RuntimeError):
    """A proxy does not run; the text is what it said."""


class Proxies:
    """Starts proxies with the same settings. `said` are their configurations, for --verbose."""

    def __init__(self, workspace: Workspace, settings: configs.Settings) -> None:
        self.workspace = workspace
        self.settings = settings
        self.versions: dict[str, str] = {}
        self.said: dict[str, str] = {}
        self._count = 0
        self._stops: dict[int, Callable[[], object]] = {}

    def pgbouncer(self, pool_size: int, name: str = PGBOUNCER) -> Target | None:
        """None when it is not installed."""
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None:
            return None
        text, version = version_of(program)
        self.versions[PGBOUNCER] = text
        folder = self._folder(PGBOUNCER)
        port = free_port()
        ini, users = folder / "pgbouncer.ini", folder / "userlist.txt"
        self._write(users, configs.pgbouncer_userlist(self.settings.login))
        self._write(ini, configs.pgbouncer_ini(self.settings, port, pool_size, version, users))
        without = ""
        if version < configs.PREPARED_SINCE:
            without = f"PgBouncer {text} has no prepared statements in transaction mode (1.21 and later do)"
        pid = self._spawn([program, str(ini)], folder, port, as_account=True)
        return Target(name, port, DATABASE, pid, without)

    def pgdog(self) -> Target | None:
        """None when PGDOG_BIN names none."""
        program = os.environ.get(PGDOG_BIN)
        if not program:
            return None
        if not os.access(program, os.X_OK):
            raise NotStarted(f"{PGDOG_BIN} is {program}, which is no program")
        folder = self._folder(PGDOG)
        port = free_port()
        config, users = folder / "pgdog.toml", folder / "users.toml"
        self._write(config, configs.pgdog_toml(self.settings, port))
        self._write(users, configs.users_toml(self.settings))
        self.versions[PGDOG] = version_of(program)[0]
        pid = self._spawn([program, "--config", str(config), "--users", str(users)], folder, port)
        return Target(PGDOG, port, DATABASE, pid)

    def node(self, lanes: str | None, workers: int | None, name: str = OURS) -> Target:
        folder = self._folder(OURS)
        config, users = folder / "pgdog.toml", folder / "users.toml"
        self._write(config, configs.node_toml(self.settings, lanes))
        self._write(users, configs.users_toml(self.settings))
        options = ["--no-mdns", "--flock", f"bench-{os.getpid()}-{self._count}"]
        options += ["--register", f"file:{folder / 'register'}"]
        if workers is not None:
            options += ["--workers", str(workers)]
        process = NodeProcess(self.workspace, f"node-{self._count}", config, users, folder, options=options)
        self.workspace.on_close(lambda: _ignore(process.stop()))
        process.start()
        self._stops[process.pid] = process.stop
        return Target(name, process.port, DATABASE, process.pid)

    def stop(self, target: Target) -> None:
        """Before the workspace closes, to make room for others."""
        stop = self._stops.pop(target.pid or 0, None)
        if stop is not None:
            stop()

    # -- inside ----------------------------------------------------------------------------------------------------

    def _folder(self, name: str) -> Path:
        self._count += 1
        return self.workspace.folder(f"{name}-{self._count}", private_to_account=name == PGBOUNCER)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text)
        self.workspace.give(path)
        self.said[f"{path.parent.name}/{path.name}"] = text

    def _spawn(self, command: Sequence[str], folder: Path, port: int, *, as_account: bool = False) -> int:
        log = folder / "log"
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        with log.open("wb") as out:
            process = self.workspace.spawn(
                command, output=out, as_account=as_account, environment=environment, cwd=folder
            )
        self._stops[process.pid] = lambda: self.workspace.end(process)
        self.workspace.on_close(lambda: _ignore(self.workspace.end(process)))
        until = time.monotonic() + LISTEN_TIMEOUT_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > until:
                said = log.read_text(errors="replace").strip()[-2000:]
                raise NotStarted(f"{Path(command[0]).name} did not start:\n{said}")
            time.sleep(POLL_S)
        return process.pid


def direct(port: int) -> Target:
    return Target(DIRECT, port, DATABASE, None)


def version_of(program: str) -> tuple[str, tuple[int, ...]]:
    """As it says it, and as numbers that compare; ("?", ()) when it says none."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=LISTEN_TIMEOUT_S)
    said = (done.stdout or done.stderr).strip().splitlines() or ["?"]
    number = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", said[0])
    if number is None:
        return said[0], ()
    return number.group(), tuple(int(part) for part in number.groups() if part is not None)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _ignore(_: object) -> None:
    """Closers answer nothing."""
