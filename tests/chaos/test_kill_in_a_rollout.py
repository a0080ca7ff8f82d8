"""kill -9 of a node at every phase of a rollout, under load, the coordinator included.

Each time: the outcome is known within 5 s, the nodes that live go on without an error, the one that died comes back to
what is in force, and the rows prove, by the clocks of the shards that stored them, that no node wrote by the old map
once any wrote by the new one.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import psycopg
import pytest
from integration.flocks import environment, rollout_command, start_flock, versions
from integration.harness import (
    PASSWORD,
    USER,
    Database,
    Nodes,
    config_toml,
    connect,
    databases,
    sharded_table,
    users_toml,
    wait_until,
)

from node.embedded.nodes import NodeProcess, all_alive
from node.embedded.server import Server
from node.embedded.workspace import Workspace

OUTCOME_S = 5.0
TABLE = (
    "CREATE TABLE seen (region text NOT NULL, node text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())"
)
INSERT = b"INSERT INTO seen (region, node) VALUES (%s, %s)"
SYNC = "\n[sync]\ndrain_timeout = 4000\nfence_timeout = 6000\nvalidate_timeout = 10000\n"


@dataclass
class Writer:
    """A client that always writes the region that moves. It may be told that its node is going to die."""

    node: NodeProcess
    errors: list[str] = field(default_factory=list)
    written: int = 0
    doomed: bool = False
    stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.stop.is_set():
            try:
                with psycopg.connect(
                    self.node.conninfo("flock", USER, PASSWORD), autocommit=True, connect_timeout=5
                ) as connection:
                    while not self.stop.wait(0.005):
                        connection.execute(INSERT, ("south", self.node.name))
                        self.written += 1
            except psycopg.Error as error:
                if not self.doomed:
                    self.errors.append(f"{self.node.name}: {error.sqlstate}: {error}")
                    return
                self.stop.wait(0.05)


@dataclass
class Flock:
    nodes: list[NodeProcess]
    shards: list[Database]
    home: int = 1  # the shard of region south by the map in force

    def config(self, home: int, extra: str = "") -> str:
        mapping = f'mapping = [{{values = ["south"], shard = {home}}}, {{shard = 0}}]'
        return config_toml(
            self.shards, tables=sharded_table("seen", "region", "varchar", lines=mapping), lines=extra + SYNC
        )

    @contextmanager
    def load(self, doomed: NodeProcess | None) -> Iterator[list[Writer]]:
        """Clients of every node write while the block runs, and for a moment after it."""
        for shard in self.shards:
            shard.sql("TRUNCATE seen")
        writers = [Writer(node, doomed=node is doomed) for node in self.nodes for _ in range(2)]
        for writer in writers:
            writer.start()
        wait_until(lambda: all(writer.written > 3 for writer in writers), "everybody writes")
        try:
            yield writers
            before = [writer.written for writer in writers]
            wait_until(
                lambda: all(
                    writer.written > count + 3 or writer.errors for writer, count in zip(writers, before, strict=True)
                ),
                "everybody still writes, or again",
            )
        finally:
            for writer in writers:
                writer.stop.set()
            for writer in writers:
                writer.thread.join(20)
        assert [error for writer in writers for error in writer.errors] == []

    def judge(self, home: int) -> None:
        """Rows by the old map are all older than rows by the new one, and every node ended up with one of them."""
        wait_until(lambda: all_alive(self.nodes), "all are back", timeout_s=20)
        assert len(versions(self.nodes)) == 1
        text = "SELECT count(*), extract(epoch FROM min(at)), extract(epoch FROM max(at)) FROM seen"
        by_old, by_new = (shard.sql(text)[0] for shard in (self.shards[self.home], self.shards[1 - self.home]))
        if home == self.home:
            assert by_new[0] == "0", "nothing was committed, and yet somebody wrote by the new map"
        else:
            assert int(by_old[0]) > 0
            assert int(by_new[0]) > 0
            assert float(by_old[2]) < float(by_new[1]), "somebody wrote by the old map after the new one was in force"
        self.home = home


@pytest.fixture(scope="module")
def flock(
    workspace: Workspace, shard_servers: tuple[Server, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flock]:
    nodes = Nodes(workspace, tmp_path_factory.mktemp("kills"))
    with databases(shard_servers) as shards:
        made = Flock([], shards)
        made.nodes = start_flock(nodes, "kills", made.config(made.home), users_toml(pool_size=4))
        with connect(made.nodes[0]) as client:
            client.execute(TABLE)
        yield made
        nodes.close()


@contextmanager
def rolling(flock: Flock, through: NodeProcess, text: str) -> Iterator[subprocess.Popen[str]]:
    config = through.folder / "new.toml"
    config.write_text(text)
    process = subprocess.Popen(
        rollout_command(through, config, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=through.folder,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def opened_since(node: NodeProcess, before: str | None) -> bool:
    return node.ask("SHOW ROLLOUT")[0]["id"] != before


def phase(node: NodeProcess) -> str | None:
    return node.ask("SHOW ROLLOUT")[0]["phase"]


def member_states(node: NodeProcess) -> dict[str | None, str | None]:
    return {row["node"]: row["state"] for row in node.ask("SHOW ROLLOUT")}


def ends(node: NodeProcess, since: float) -> str:
    """The outcome, as the living see it, in time."""
    found: str = wait_until(
        lambda: found if (found := phase(node)) in ("committed", "aborted") else None, "there is an outcome", 15
    )
    assert time.monotonic() - since < OUTCOME_S, f"{found} only after {time.monotonic() - since:.1f} s"
    return found


@contextmanager
def open_transaction(node: NodeProcess) -> Iterator[psycopg.Connection]:
    """What keeps a node from being drained."""
    client = connect(node, autocommit=False)
    pid = node.pid
    try:
        client.execute(INSERT, ("north", node.name))
        yield client
        if node.running and node.pid == pid:
            client.rollback()
    finally:
        client.close()


@pytest.mark.parametrize("victim", [0, 1], ids=["coordinator", "follower"])
def test_while_it_is_validated(flock: Flock, victim: int) -> None:
    """Nobody has paused yet: the rollout ends without a trace."""
    coordinator, doomed = flock.nodes[0], flock.nodes[victim]
    survivor = flock.nodes[2]
    shard = flock.shards[0]
    # the dry run before anything opens must pass: one login to see, one connection to keep
    silent = Silent(shard.server.port, answered=2)
    replica = (
        f'\n[[databases]]\nname = "flock"\nhost = "127.0.0.1"\nport = {silent.port}\nshard = 0\nrole = "replica"\n'
        f'database_name = "{shard.name}"\n'
    )
    with silent, flock.load(doomed), rolling(flock, coordinator, flock.config(1 - flock.home, replica)):
        wait_until(lambda: silent.heard and phase(survivor) == "validating", "it is being validated")
        doomed.kill()
        assert ends(survivor, time.monotonic()) == "aborted"
        doomed.start()
    flock.judge(flock.home)


@pytest.mark.parametrize("victim", [0, 1], ids=["coordinator", "follower"])
def test_while_it_drains(flock: Flock, victim: int) -> None:
    """It has not voted: without its vote nothing can be committed."""
    coordinator, doomed, survivor = flock.nodes[0], flock.nodes[victim], flock.nodes[2]
    with flock.load(doomed), open_transaction(doomed):
        with rolling(flock, coordinator, flock.config(1 - flock.home)):
            wait_until(lambda: phase(survivor) == "fencing", "members pause")
            doomed.kill()
            assert ends(survivor, time.monotonic()) == "aborted"
        doomed.start()
    flock.judge(flock.home)


def test_a_follower_that_has_voted(flock: Flock) -> None:
    """Its vote is on its disk, so the others may turn; when it comes back it turns before it serves."""
    coordinator, doomed, last = flock.nodes
    with flock.load(doomed):
        with open_transaction(last), rolling(flock, coordinator, flock.config(1 - flock.home)) as command:
            wait_until(lambda: member_states(coordinator).get(doomed.name) == "fenced", "it has voted")
            doomed.kill()
            killed = time.monotonic()
        assert ends(last, killed) == "committed"
        doomed.start()
        command.wait(20)
    flock.judge(1 - flock.home)


def test_a_coordinator_whose_followers_have_voted(flock: Flock) -> None:
    """They may not resume by themselves: one of them takes over and asks the register."""
    doomed, *others = flock.nodes
    with flock.load(doomed), open_transaction(doomed):
        with rolling(flock, doomed, flock.config(1 - flock.home)):
            wait_until(
                lambda: all(member_states(doomed).get(node.name) == "fenced" for node in others), "both have voted"
            )
            doomed.kill()
            assert ends(others[0], time.monotonic()) == "aborted"
            row = others[0].ask("SHOW ROLLOUT")[0]
            assert row["coordinator"] in {node.name for node in others}
        doomed.start()
    flock.judge(flock.home)


def test_around_the_commit(flock: Flock) -> None:
    """At any moment, by seed: whatever the outcome is, it is one for all."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    for attempt in itertools.count():
        if attempt == 4:
            break
        coordinator, doomed = flock.nodes[0], dice.choice(flock.nodes)
        survivor = next(node for node in flock.nodes if node is not doomed)
        before = survivor.ask("SHOW ROLLOUT")[0]["id"]
        target = 1 - flock.home
        with flock.load(doomed), rolling(flock, coordinator, flock.config(target)):
            wait_until(partial(opened_since, survivor, before), "it is open", every_s=0.002)
            threading.Event().wait(dice.uniform(0, 0.12))
            doomed.kill()
            outcome = ends(survivor, time.monotonic())
            doomed.start()
        flock.judge(target if outcome == "committed" else flock.home)


class Silent:
    """The way to a server that lets the first connections through and then takes any number and says nothing."""

    def __init__(self, port: int, answered: int) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.heard = 0
        self._target = port
        self._answered = answered
        self._sockets: list[socket.socket] = [self.socket]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken = self.socket.accept()[0]
                self._sockets.append(taken)
                if self._answered:
                    self._answered -= 1
                    onward = socket.create_connection(("127.0.0.1", self._target))
                    self._sockets.append(onward)
                    for pair in ((taken, onward), (onward, taken)):
                        threading.Thread(target=self._carry, args=pair, daemon=True).start()
                else:
                    self.heard += 1

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()
