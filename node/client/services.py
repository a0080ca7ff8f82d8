"""What every session of a node shares: caches, clock, limits, and the door to the slow gear.

Sessions never see the application; this is all they get.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from node.client.prepared import PreparedStatements
    from node.client.session import Session
    from node.client.shape import Shapes
    from node.database import Database
    from node.gather.two_phase import DecisionLog
    from node.routing.catalog import Catalog
    from node.server.conversation import Conversation


@dataclass(frozen=True, slots=True)
class Limits:
    """Per client; named and chosen in config/limits.py."""

    message_bytes: int = 1 << 30
    prepared_statements: int = 10_000
    portal_bytes: int = 64 << 20  # rows held for a portal that is fetched in parts, over several shards


class Task(Protocol):
    def cancel(self) -> object: ...


class SlowGear(Protocol):
    """The coroutines of client/slow.py."""

    def replay(self, session: Session) -> Coroutine[Any, Any, None]: ...

    def ask(self, session: Session) -> Coroutine[Any, Any, None]: ...

    def unit(self, session: Session) -> Coroutine[Any, Any, None]: ...


class Services:
    def __init__(
        self,
        *,
        clock: Callable[[], float],
        spawn: Callable[[Awaitable[None]], Task],
        shapes: Shapes,
        prepared: PreparedStatements,
        database: Callable[[str, str], Database],
        slow: SlowGear,
        limits: Limits,
        node: str,
    ) -> None:
        self.clock = clock
        self.spawn = spawn
        self.shapes = shapes
        self.prepared = prepared
        self.database = database
        self.slow = slow
        self.limits = limits
        self.node = node
        self.decisions: DecisionLog | None = None  # of two-phase commits
        self.load_layout: Callable[[Database], Awaitable[None]] = _no_layout
        self.read_catalog: Callable[[Sequence[Conversation]], Awaitable[Catalog]] = _no_layout
        # statements of it may share servers: its catalogue is read in the background; returns at once
        self.want_layout: Callable[[Database], None] = lambda database: None
        self.schema_changed: Callable[[Database], None] = lambda database: None
        # parts of a committed transaction (or of one to be rolled back: key None) that did not hear of it yet
        self.resolve_later: Callable[[Database, dict[int, str], tuple[int, int] | None], None] = lambda d, g, k: None
        self.lag_s = 0.0  # how late the event loop was lately: so long an answer may have lain in its socket
        self.epoch = 0  # raised with every new Snapshot
        self.drops_refused_clients = True
        self.closing = False  # the node is shutting down: sessions end when their transaction has
        self.sessions: dict[int, Session] = {}
        self._tasks: dict[int, Task] = {}
        self._fed: dict[int, Callable[[], None]] = {}

    # --- the slow gear ---------------------------------------------------------------------------------------------

    def slow_replay(self, session: Session) -> None:
        self._run(session, self.slow.replay(session))

    def slow_ask(self, session: Session) -> None:
        self._run(session, self.slow.ask(session))

    def slow_unit(self, session: Session) -> None:
        self._run(session, self.slow.unit(session))

    def _run(self, session: Session, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[session.id] = self.spawn(work)

    def slow_finished(self, session: Session) -> None:
        """The coroutine hands the session back."""
        self._tasks.pop(session.id, None)
        self._fed.pop(session.id, None)

    def slow_abandon(self, session: Session) -> None:
        """The client is gone while a coroutine works for it."""
        self._fed.pop(session.id, None)
        task = self._tasks.pop(session.id, None)
        if task is not None:
            task.cancel()

    def slow_waiting(self, session: Session) -> bool:
        return session.id in self._fed

    def slow_feed(self, session: Session) -> None:
        """More bytes for a coroutine that waits for them (COPY data)."""
        call = self._fed.pop(session.id, None)
        if call is not None:
            call()

    def when_fed(self, session: Session, call: Callable[[], None]) -> None:
        self._fed[session.id] = call


async def _no_layout(of: object) -> Any:
    raise NotImplementedError
