"""Sessions on a stage without sockets, loop or clock: real sessions, a pool that is a list, model servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, cast

from fakes.model_server import ModelServer
from fakes.shell import FakeShell

from node.auth.verifier import Account, AuthType
from node.client.parameters import NONE
from node.client.prepared import PreparedStatements
from node.client.services import Limits, Services
from node.client.session import Session
from node.client.shape import Shapes
from node.client.states import READY, SLOW
from node.database import Database, Layout
from node.errors import ServerFault
from node.gate import Gate
from node.pool.balancer import Balancer
from node.pool.core import Borrower, PoolCore, Waiter
from node.pool.lane_count import LaneCount
from node.pool.lanes import Lanes
from node.pool.lending import Lending
from node.pool.pool import Pool
from node.routing.catalog import Catalog
from node.routing.topology import Topology
from node.server.connection import Lost, ServerConnection
from node.stats.counters import PoolCounters
from node.wire import messages as m

# Enough of a catalogue for reads of constants to be known as such.
KNOWN = Catalog(operators=dict.fromkeys(("=", "<>", "<", ">", "<=", ">="), "i"))


class Heard(bytearray):
    """What a client has been sent, and whether it was closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


class StagePool(Lending):
    """Lends `size` model servers; one that is not clean when it comes back is replaced by a new one."""

    def __init__(self, stage: Stage, size: int, lanes: int) -> None:
        super().__init__(PoolCore(size), PoolCounters(), lambda: stage.now)
        self.id = 1
        self.stage = stage
        self.core.idle.extend(self.fresh() for _ in range(size))
        self.out_of_sync: list[ServerConnection] = []
        if lanes:
            self.lanes = Lanes(
                self, LaneCount(lanes, size), soon=lambda call: stage.soon.append(call), clock=self.clock,
                later=lambda after_s, call: stage.later.append((stage.now + after_s, call)),
            )  # fmt: skip

    def fresh(self) -> ServerConnection:
        server = ServerConnection(0, cast(Pool, self), NONE, 0.0)
        model = ModelServer(
            lambda data: self.stage.said.append((server, data)), lambda: self.stage.ended.append(server)
        )
        server.write = model.hear
        server.close_transport = lambda: self.stage.ended.append(server)
        return server

    def wait(self, borrower: Borrower) -> Waiter:
        return self.core.wait(borrower, 0.0)

    def forget(self, waiter: Waiter) -> None:
        self.core.forget(waiter)

    def release(self, server: ServerConnection) -> None:
        server.owner = None
        self.core.removed(server)
        if server.pipeline.broken:
            self.out_of_sync.append(server)
        if not server.reusable or server.dirty:
            server.gone, server.closed_why = True, server.closed_why or Lost.UNCLEAN
            server = self.fresh()
        self.add(server)

    def add(self, server: ServerConnection) -> None:
        waiter = self.core.first_waiter()
        if waiter is None:
            self.core.idle.append(server)
        else:
            self.core.lent[server] = None
            self.grant(waiter, server, 0.0)

    def grant(self, waiter: Waiter, server: ServerConnection, now: float) -> None:
        waiter.gone = True
        waiter.borrower.granted(server)

    def grow(self, now: float) -> None:
        """It has all it may have."""

    def check_first(self, server: ServerConnection) -> None:
        raise AssertionError("nothing is cold here")

    def lost(self, server: ServerConnection) -> None:
        if server.pipeline.broken:
            self.out_of_sync.append(server)
        self.core.removed(server)
        self.add(self.fresh())

    def doubt_statements(self) -> None:
        return None


class StageSlow:
    """Settings are not followed here: only the road into the slow gear and back."""

    async def replay(self, session: Session) -> None:
        self._back(session)

    async def ask(self, session: Session) -> None:
        session.must_ask = False
        session.unlink()
        session.leave()
        self._back(session)

    async def unit(self, session: Session) -> None:
        raise AssertionError("one shard needs no exchange")

    def _back(self, session: Session) -> None:
        session.services.slow_finished(session)
        if session.state == SLOW:
            session.state = READY
            session.resume_client()
            session.advance()


class _Task:
    def __init__(self, work: Coroutine[Any, Any, None]) -> None:
        self.work: Coroutine[Any, Any, None] | None = work

    def cancel(self) -> None:
        if self.work is not None:
            self.work.close()
            self.work = None


class Stage:
    """One database of one shard. `settle` lets everything happen that was set going."""

    def __init__(
        self, servers: int = 1, *, limits: Limits | None = None, prepared_limit: int = 1 << 62, lanes: int = 0
    ) -> None:
        self.said: list[tuple[ServerConnection, bytes]] = []
        self.ended: list[ServerConnection] = []
        self.soon: list[Callable[[], None]] = []  # when the turn of the loop ends
        self.later: list[tuple[float, Callable[[], None]]] = []
        self._tasks: list[_Task] = []
        self.now = 0.0
        self.pool = StagePool(self, servers, lanes)
        balancer = Balancer(cast(Pool, self.pool), [], strategy="random", split="include_primary", random=Random(0))
        self.database = Database(
            name="stage", user="me", epoch=0, mode="transaction", balancers=(balancer,), topology=Topology("stage", 1),
            gate=Gate("stage"), layout=Layout(KNOWN if lanes else Catalog.EMPTY, loaded=True, sharing=bool(lanes)),
            prepared_limit=prepared_limit,
        )  # fmt: skip
        self.services = Services(
            clock=lambda: self.now, spawn=self._spawn, shapes=Shapes(1000), prepared=PreparedStatements(100),
            database=lambda user, name: self.database, slow=StageSlow(), limits=limits or Limits(message_bytes=1 << 20),
            node="stage",
        )  # fmt: skip
        self._numbered = 0

    def _spawn(self, work: Awaitable[None]) -> _Task:
        task = _Task(cast("Coroutine[Any, Any, None]", work))
        self._tasks.append(task)
        return task

    def client(self) -> tuple[Session, Heard]:
        self._numbered += 1
        heard = Heard()
        session = Session(
            self._numbered, self.services, Account("me", AuthType.TRUST, ()), self.database, write=heard.extend,
            shell=FakeShell(heard.close), now=0.0,
        )  # fmt: skip
        return session, heard

    def turn(self) -> None:
        """The turn of the loop ends: what boarded lanes is sent, and answered. Nothing of that is heard yet."""
        calls, self.soon = self.soon, []
        for call in calls:
            call()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [call for at, call in self.later if at <= self.now]
        self.later = [(at, call) for at, call in self.later if at > self.now]
        for call in due:
            call()

    def hear(self, size: int) -> None:
        """The first `size` bytes of what the servers have said arrive."""
        server, data = self.said[0]
        if size < len(data):
            self.said[0] = (server, data[size:])
        else:
            del self.said[0]
        self._deliver(server, data[:size])

    def lose(self, server: ServerConnection) -> None:
        """The server ends without a word; what it has said and nobody has heard is lost."""
        self.said = [(other, data) for other, data in self.said if other is not server]
        self.end(server)

    def settle(self) -> None:
        while self.said or self.ended or self._tasks or self.soon:
            if self.soon:
                self.turn()
            elif self.said:
                self._deliver(*self.said.pop(0))
            elif self._tasks:
                task = self._tasks.pop(0)
                if task.work is not None:
                    work, task.work = task.work, None
                    try:
                        work.send(None)
                    except StopIteration:
                        continue
                    raise AssertionError("it was to end at once")
            else:
                self.end(self.ended.pop(0))

    def end(self, server: ServerConnection) -> None:
        server.lost(ServerFault("server closed the connection unexpectedly", sqlstate="08006", severity="FATAL"))

    def _deliver(self, server: ServerConnection, data: bytes) -> None:
        if server.closed_why is None:
            server.receive(data)


def rows_in(messages: list[bytes]) -> list[bytes]:
    """The first column of each row, and the SQLSTATE of each error."""
    found = []
    for message in messages:
        if message[:1] == b"D":
            found.append(m.parse_data_row(message[5:])[0] or b"")
        elif message[:1] == b"E":
            found.append(m.parse_error(message[5:])["C"].encode())
    return found
