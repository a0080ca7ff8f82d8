"""Nodes of ours as processes of their own, the way an operator starts them, and what they say at their consoles."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from node.embedded.workspace import Workspace

if TYPE_CHECKING:
    import psycopg

READY_TIMEOUT_S = 30.0
POLL_S = 0.02

Row = dict[str, str | None]


@dataclass(frozen=True)
class Admin:
    """The login of the admin database."""

    user: str = "admin"
    password: str = "pgdog"
    database: str = "admin"


def admin_of(users_text: str, config_text: str = "") -> Admin:
    """The [admin] table of users.toml, else that of pgdog.toml; what is absent there has its default here."""
    for text in (users_text, config_text):
        table = tomllib.loads(text).get("admin")
        if table is not None:
            return Admin(table.get("user", "admin"), table.get("password", "pgdog"), table.get("name", "admin"))
    return Admin()


@dataclass(frozen=True)
class Place:
    """Where a node listens; port 0 lets it choose."""

    host: str = "127.0.0.1"
    port: int = 0
    gossip: str = "127.0.0.1:0"
    http: str | None = "127.0.0.1:0"


@dataclass
class NodeProcess:
    """One `pgmurmur` process; its addresses are known once it is ready."""

    workspace: Workspace
    name: str
    config: Path
    users: Path
    folder: Path
    """Holds `log` and `state`."""
    place: Place = field(default_factory=Place)
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    host: str = ""
    port: int = 0
    gossip: str = ""
    http: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def launch(self) -> NodeProcess:
        """Starts the process and does not wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state.mkdir(exist_ok=True)
        command = [
            *(sys.executable, "-m", "node"),
            *("--config", str(self.config), "--users", str(self.users), "run"),
            *("--host", self.place.host, "--port", str(self.place.port)),
            *("--gossip", self.place.gossip),
            *(() if self.place.http is None else ("--http", self.place.http)),
            *("--node-id", self.name, "--state-dir", str(self.state)),
            *self.options,
        ]
        self._said = self.folder / "ready"
        with self._said.open("wb") as said, self.log.open("ab") as log:
            self.process = self.workspace.spawn(
                command, output=said, errors=log, environment=_environment(self.environment), cwd=self.folder
            )
        return self

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> NodeProcess:
        """Reads the addresses off the ready line. Raises RuntimeError with the end of the log."""
        until = time.monotonic() + timeout_s
        while True:
            for line in self._said.read_text().splitlines(keepends=True):
                word, *values = line.rstrip("\n").split("\t")
                if word == "ready" and line.endswith("\n"):
                    client, self.gossip, self.http = values
                    self.host, _, port = client.rpartition(":")
                    self.port = int(port)
                    return self
            if not self.running:
                status = None if self.process is None else self.process.returncode
                raise RuntimeError(f"node {self.name} ended with status {status}:\n{self.log_text()[-4000:]}")
            if time.monotonic() > until:
                raise RuntimeError(f"node {self.name} is not ready after {timeout_s} s:\n{self.log_text()[-4000:]}")
            time.sleep(POLL_S)

    def start(self) -> NodeProcess:
        return self.launch().wait_ready()

    def stop(self, patience_s: float = 20) -> int:
        """SIGTERM, as systemd does it; its exit status."""
        if self.process is None:
            return 0
        status = self.workspace.end(self.process, signal.SIGTERM, patience_s=patience_s)
        self.process = None
        return status

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.workspace.end(self.process, signal.SIGKILL)
            self.process = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError(f"node {self.name} is not running")
        return self.process.pid

    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # -- talking to it ---------------------------------------------------------------------------------------------

    @property
    def admin(self) -> Admin:
        return admin_of(self.users.read_text(), self.config.read_text())

    def conninfo(self, database: str, user: str, password: str) -> str:
        return f"host={self.host} port={self.port} dbname={database} user={user} password={password}"

    @contextmanager
    def connect(self, database: str, user: str, password: str) -> Iterator[psycopg.Connection]:
        """A real driver's connection, in autocommit."""
        import psycopg

        with psycopg.connect(
            self.conninfo(database, user, password), autocommit=True, connect_timeout=10
        ) as connection:
            yield connection

    def ask(self, command: str) -> list[Row]:
        """One admin command; its rows by column name, as texts."""
        login = self.admin
        with self.connect(login.database, login.user, login.password) as connection:
            cursor = connection.execute(command.encode())
            if cursor.description is None:
                return []
            names = [column.name for column in cursor.description]
            return [
                {name: None if value is None else str(value) for name, value in zip(names, row, strict=True)}
                for row in cursor.fetchall()
            ]


def all_alive(nodes: Sequence[NodeProcess]) -> bool:
    """Does every node list every node as alive? A node whose console cannot be reached yet does not."""
    import psycopg

    names = {node.name for node in nodes}
    for node in nodes:
        try:
            peers = node.ask("SHOW PEERS")
        except psycopg.OperationalError:
            return False
        if not names <= {peer["node"] for peer in peers if peer["state"] == "alive"}:
            return False
    return True


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Ours without settings meant for other nodes; sources are on the path when we run from sources ourselves."""
    import node

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PGMURMUR_", "PGDOG_", "PG"))}
    home = str(Path(node.__file__).resolve().parents[1])
    if "site-packages" not in home:
        kept["PYTHONPATH"] = home
    kept["PYTHONUNBUFFERED"] = "1"
    return {**kept, **more}
