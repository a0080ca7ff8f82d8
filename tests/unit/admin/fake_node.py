"""A node without sockets for the console: real databases, pools, gates and services; the flock is a list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random

from fakes.shell import FakeShell

from discovery.member import Address, State
from discovery.service import MemberView
from node.admin.ports import RolloutReport, RolloutRequest, RolloutStatus
from node.auth.verifier import Account
from node.client import parameters
from node.client.prepared import PreparedStatements
from node.client.services import Limits, Services
from node.client.session import Session
from node.client.shape import Shapes
from node.client.slow import Slow
from node.config.document import digest, pack
from node.config.load import parse
from node.config.runtime import shown, with_setting
from node.databases import Databases, Identity
from node.errors import Fault, ServerFault
from node.pool.pool import Pool, Surroundings
from node.server.connect import Target
from node.server.connection import ServerConnection
from node.snapshot import snapshot
from node.stats.counters import Averages
from sync.messages import MemberRow
from sync.version import ConfigVersion

CONFIG = """
[[databases]]
name = "birds"
host = "10.0.0.1"
port = 5432
shard = 0

[[databases]]
name = "birds"
host = "10.0.0.2"
port = 5433
shard = 1

[[databases]]
name = "Nests"
host = "10.0.0.3"
role = "replica"
"""
USERS = """
[admin]
password = "pgdog"

[[users]]
name = "starling"
password = "feathers"
databases = ["birds", "Nests"]

[[users]]
name = "wren"
password = "feathers"
database = "birds"
"""


def member(name: str, *, me: bool = False, state: State = State.ALIVE) -> MemberView:
    return MemberView(
        node=name,
        addr="127.0.0.1:6432",
        gossip=Address("127.0.0.1", 16432),
        client=Address("127.0.0.1", 6432),
        state=state,
        incarnation=3,
        boot=b"b" * 16,
        clients=2,
        version=1,
        digest="ab" * 32,
        protocol=(1, 1),
        last_seen_utc=1_700_000_000.25,
        me=me,
        conflict=False,
    )


@dataclass
class FakeNode:
    """Implements admin.ports.Node. What commands did is in `calls`."""

    name: str = "node-a"
    version: str = "0.1.0"
    now: float = 1000.0
    calls: list[object] = field(default_factory=list)
    others: list[MemberView] = field(default_factory=list)
    peers: dict[str, bytes | Fault] = field(default_factory=dict)
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    drifting: str | None = None
    outcome: RolloutReport | Fault | None = None
    status: RolloutStatus = field(default_factory=lambda: RolloutStatus(0, None, "idle", "", None, ()))
    versions: Sequence[ConfigVersion] = ()
    opened: int = 0

    def __post_init__(self) -> None:
        self.config = parse(CONFIG, USERS, {}).config
        around = Surroundings(
            open=self._open,
            clock=self.clock,
            random=Random(1),
            spawn=self.spawn,
            no_parameters=parameters.NONE,
            soon=lambda call: call(),
            later=lambda after_s, call: None,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self.databases = Databases(around, Identity("pgmurmur/node-a/boot"), Random(1), self.config)
        self.services = Services(
            clock=self.clock,
            spawn=self.spawn,
            shapes=Shapes(100),
            prepared=PreparedStatements(100),
            database=self.databases.find,
            slow=Slow(),
            limits=Limits(1 << 20, 100),
            node=self.name,
        )
        document = pack(CONFIG, USERS)
        self.databases.apply(snapshot(self.config, document, number=1, digest=digest(document)), None)

    # --- a little life -----------------------------------------------------------------------------------------------

    def spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def run() -> None:
            await work

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.append(task)
        return task

    async def _open(self, target: Target, connection: ServerConnection, timeout_s: float) -> None:
        self.opened += 1
        connection.pid = 4000 + self.opened

    def pool(self, database: str = "birds", user: str = "starling", shard: int = 0) -> Pool:
        (found,) = [
            pool for pool in self.databases.pools if (pool.database, pool.user, pool.shard) == (database, user, shard)
        ]
        return found

    def idle_server(self, pool: Pool) -> ServerConnection:
        """A connection in the pool's stack, as if it had been opened."""
        server = ServerConnection(7, pool, parameters.NONE, self.now - 5)
        server.pid = 4711
        pool.core.idle.append(server)
        return server

    def session(self, number: int = 1) -> Session:
        session = Session(
            number,
            self.services,
            Account("starling"),
            self.databases.find("starling", "birds"),
            write=lambda data: None,
            shell=FakeShell(at=("10.9.8.7", 5555)),
            now=self.now,
        )
        session.application_name = "psql"
        self.services.sessions[number] = session
        return session

    # --- admin.ports.Node --------------------------------------------------------------------------------------------

    def clock(self) -> float:
        return self.now

    def utc(self, at: float) -> float:
        return 1_700_000_000.0 + at

    def counters(self, pool: Pool) -> tuple[object, Averages]:
        return pool.counters, Averages()

    def settings(self) -> Iterable[tuple[str, str]]:
        return shown(self.config)

    def members(self) -> Sequence[MemberView]:
        return [member(self.name, me=True), *self.others]

    def drift(self) -> str | None:
        return self.drifting

    def rollout_status(self) -> RolloutStatus:
        return self.status

    def history(self) -> Sequence[ConfigVersion]:
        return self.versions

    async def reload(self) -> Sequence[str]:
        self.calls.append("reload")
        return ["[general] port takes effect when a node restarts"]

    def set_setting(self, name: str, value: str) -> None:
        self.config = with_setting(self.config, name, value)

    async def rollout(self, request: RolloutRequest) -> RolloutReport:
        self.calls.append(request)
        if isinstance(self.outcome, Fault):
            raise self.outcome
        row = MemberRow(self.name, "applied", True, 2, 1.5, 0.25, None)
        return self.outcome or RolloutReport("committed", 4, 2, "cd" * 32, None, (row,), ("a note",))

    async def evict(self, member: str) -> None:
        self.calls.append(("evict", member))

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    async def ask(self, member: str, payload: bytes, timeout_s: float) -> bytes:
        self.asked.append((member, payload))
        answer = self.peers.get(member, ServerFault("no route to host", sqlstate="08001"))
        if isinstance(answer, Fault):
            raise answer
        return answer
