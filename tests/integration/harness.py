"""What integration tests stand on: real servers, nodes as processes, databases of their own, a tidy house at the end.

`conftest.py` makes fixtures of it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from fakes.fake_client import FakeClient

from node.embedded.nodes import NodeProcess, Place
from node.embedded.server import Server
from node.embedded.workspace import Workspace

USER = "starling"
PASSWORD = "feathers"
ADMIN_PASSWORD = "pgdog"

_numbers = itertools.count()


def wait_until(condition: Callable[[], Any], what: str, timeout_s: float = 10, every_s: float = 0.02) -> Any:
    """Asks until the answer is true and returns it; an assertion that says what was awaited when it never is."""
    until = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < until, f"after {timeout_s} s still not: {what}"
        time.sleep(every_s)


def start_server(workspace: Workspace, name: str, **options: Any) -> Server:
    """A running server on which USER may log in and own databases."""
    server = Server(workspace, name, **options).start()
    server.create_role(USER, PASSWORD)
    return server


@dataclass(frozen=True)
class Database:
    """One database: a shard, or the plain PostgreSQL that knows the right answer."""

    server: Server
    name: str

    def sql(self, text: str) -> list[tuple[str, ...]]:
        return self.server.sql(text, self.name)

    @property
    def conninfo(self) -> str:
        return self.server.conninfo(self.name, USER, PASSWORD)

    def connect(self) -> psycopg.Connection:
        """A driver's connection, direct, in autocommit."""
        return psycopg.connect(self.conninfo, autocommit=True, connect_timeout=10)


@contextmanager
def databases(servers: Sequence[Server]) -> Iterator[list[Database]]:
    """A new, empty database on each of the servers; dropped at the end, whoever is still in it."""
    name = f"db_{next(_numbers)}"
    for server in servers:
        server.create_database(name, USER)
    try:
        yield [Database(server, name) for server in servers]
    finally:
        for server in servers:
            if server.running:
                server.sql(f'DROP DATABASE "{name}" WITH (FORCE)')


def config_toml(
    shards: Sequence[Database],
    *,
    database: str = "flock",
    tables: str = "",
    general: str = "",
    lines: str = "",
    own_user: bool = True,
) -> str:
    """A pgdog.toml: `tables` and `lines` are TOML to append, `general` lines for [general].

    With `own_user` the first shard's entry carries user and password, and the others take the user's (interface).
    """
    parts = ['[general]\nhost = "127.0.0.1"\nport = 0\ndefault_pool_size = 5\n', general, "\n"]
    for number, shard in enumerate(shards):
        parts.append(
            f'\n[[databases]]\nname = "{database}"\nhost = "{shard.server.host}"\nport = {shard.server.port}\n'
            f'database_name = "{shard.name}"\nshard = {number}\n'
        )
        if own_user and number == 0:
            parts.append(f'user = "{USER}"\npassword = "{PASSWORD}"\n')
    return "".join((*parts, "\n", tables, "\n", lines))


def sharded_table(
    name: str, column: str = "id", data_type: str = "bigint", *, database: str = "flock", lines: str = ""
) -> str:
    """One [[sharded_tables]] entry."""
    return (
        f'\n[[sharded_tables]]\ndatabase = "{database}"\nname = "{name}"\ncolumn = "{column}"\n'
        f'data_type = "{data_type}"\n{lines}\n'
    )


def users_toml(*, database: str = "flock", pool_size: int = 5, lines: str = "") -> str:
    """A users.toml with the admin and USER; `lines` go into the user's entry."""
    return (
        f'[admin]\nname = "admin"\nuser = "admin"\npassword = "{ADMIN_PASSWORD}"\n\n'
        f'[[users]]\nname = "{USER}"\npassword = "{PASSWORD}"\ndatabase = "{database}"\n'
        f"pool_size = {pool_size}\n{lines}\n"
    )


@dataclass
class Nodes:
    """Starts nodes for one test, stops them after it, and looks whether they leave a tidy house."""

    workspace: Workspace
    folder: Path
    started: list[NodeProcess] = field(default_factory=list)

    def __call__(
        self,
        config_text: str,
        users_text: str | None = None,
        *,
        name: str | None = None,
        options: Sequence[str] = (),
        place: Place | None = None,
        environment: dict[str, str] | None = None,
        flock: str | None = None,
        wait: bool = True,
    ) -> NodeProcess:
        """One node, ready; each is a flock of its own unless `flock` names one (then they share a register too)."""
        name = name or f"node-{len(self.started)}"
        folder = self.folder / name
        folder.mkdir()
        config, users = folder / "pgdog.toml", folder / "users.toml"
        config.write_text(config_text)
        users.write_text(users_toml() if users_text is None else users_text)
        alone = flock is None
        together = flock or f"alone-{self.folder.name}-{name}"
        options = [
            *("--flock", together, "--register", f"file:{self.folder / f'register-{together}'}"),
            *(("--no-mdns",) if alone else ()),
            *options,
        ]
        started = NodeProcess(self.workspace, name, config, users, folder, place or Place(), options, environment or {})
        self.started.append(started)
        started.launch()
        return started.wait_ready() if wait else started

    def close(self) -> None:
        running = [started for started in self.started if started.running]
        try:
            for started in running:
                assert_tidy(started)
        finally:
            for started in running:
                started.stop()
        for started in self.started:
            said, traceback, bug = started.log_text().partition("Traceback")
            assert not traceback, f"{started.name} logged what nobody expected: {said[-500:]}{traceback}{bug[:5000]}"


def untidy(node: NodeProcess) -> list[str]:
    """What the console of a node without clients should not show: a lent server, a waiting client."""
    return [
        f"{pool['user']}@{pool['database']} shard {pool['shard']}: {column} = {pool[column]}"
        for pool in node.ask("SHOW POOLS")
        for column in ("cl_waiting", "sv_active", "sv_idle_xact", "out_of_sync")
        if int(pool[column] or 0) != 0
    ]


def in_pools(node: NodeProcess, column: str) -> int:
    """The sum of a column of SHOW POOLS: how many clients wait (cl_waiting), how many servers are lent (sv_active) …"""
    return sum(int(pool[column] or 0) for pool in node.ask("SHOW POOLS"))


def assert_tidy(node: NodeProcess) -> None:
    """Connections that a test has just closed need a moment to be noticed."""
    until = time.monotonic() + 5
    while (found := untidy(node)) and time.monotonic() < until:
        time.sleep(0.02)
    assert found == [], f"{node.name} is not tidy at the end of the test: {found}"


def connect(node: NodeProcess, database: str = "flock", **options: Any) -> psycopg.Connection:
    """psycopg through the node, in autocommit unless told otherwise."""
    options.setdefault("autocommit", True)
    return psycopg.connect(node.conninfo(database, USER, PASSWORD), connect_timeout=10, **options)


async def raw(node: NodeProcess, database: str = "flock", **parameters: str) -> FakeClient:
    """A raw connection through the node, logged in."""
    return await FakeClient.connect(node.host, node.port, user=USER, database=database, password=PASSWORD, **parameters)
