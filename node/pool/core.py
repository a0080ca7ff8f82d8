"""Who has which server connection: the accounting of one pool, without a socket or a clock.

A connection is in exactly one collection: `idle` (a stack: the warmest is lent first, the rest may go cold and be
closed) or `lent`. Clients that find nothing wait in `waiters`, first come first served. Every number that SHOW POOLS
prints is the length of a collection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol

from node.server.connection import ServerConnection


class Borrower(Protocol):
    """Somebody who waits for a connection."""

    def granted(self, server: ServerConnection) -> None:
        """The connection is yours; called at most once, never after `refused`."""

    def refused(self, fault: Exception) -> None:
        """There is none for you; called at most once."""


class Waiter:
    """One place in the queue. `gone`: the borrower has been answered or gave up."""

    __slots__ = ("borrower", "gone", "queued", "since")

    def __init__(self, borrower: Borrower, since: float) -> None:
        self.borrower = borrower
        self.since = since
        self.gone = False
        self.queued = False


class Waiters:
    """The queue, which knows how many in it still wait. Who is answered is taken out first."""

    __slots__ = ("_queue", "waiting")

    def __init__(self) -> None:
        self._queue: deque[Waiter] = deque()
        self.waiting = 0

    def __len__(self) -> int:
        return len(self._queue)

    def __getitem__(self, at: int) -> Waiter:
        return self._queue[at]

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._queue)

    def append(self, waiter: Waiter) -> None:
        self._queue.append(waiter)
        waiter.queued = True
        self.waiting += 1

    def popleft(self) -> Waiter:
        waiter = self._queue.popleft()
        waiter.queued = False
        if not waiter.gone:
            self.waiting -= 1
        return waiter

    def give_up(self, waiter: Waiter) -> None:
        """The place stays until its turn: no search through the queue."""
        if waiter.queued and not waiter.gone:
            self.waiting -= 1
        waiter.gone = True
        queue = self._queue
        while queue:
            first = queue[0]
            if not first.gone:
                break
            queue.popleft()
            first.queued = False


class PoolCore:
    """Decides; the shell in pool.py connects and closes."""

    __slots__ = ("connecting", "idle", "lent", "paused", "size", "waiters")

    def __init__(self, size: int) -> None:
        self.size = size
        self.idle: list[ServerConnection] = []
        self.lent: dict[ServerConnection, None] = {}
        self.connecting = 0
        self.waiters = Waiters()
        self.paused = False

    @property
    def total(self) -> int:
        return len(self.idle) + len(self.lent) + self.connecting

    def acquire(self) -> ServerConnection | None:
        """The warmest idle connection, unless the pool is paused or somebody came first."""
        if self.idle and not self.waiters and not self.paused:
            server = self.idle.pop()
            self.lent[server] = None
            return server
        return None

    def acquire_like(self, parameters: object) -> ServerConnection | None:
        """The warmest idle connection that has been told these settings."""
        if self.waiters or self.paused:
            return None
        idle = self.idle
        at = len(idle) - 1
        while at >= 0:
            server = idle[at]
            if server.parameters is parameters:
                if at == len(idle) - 1:
                    idle.pop()
                else:
                    del idle[at]
                self.lent[server] = None
                return server
            at -= 1
        return None

    def put_back(self, server: ServerConnection) -> None:
        """Taken and not used: as it was, on top of the stack."""
        del self.lent[server]
        self.idle.append(server)

    def wait(self, borrower: Borrower, now: float) -> Waiter:
        waiter = Waiter(borrower, now)
        self.waiters.append(waiter)
        return waiter

    def first_waiter(self) -> Waiter | None:
        """Takes the first one who still waits out of the queue; none while paused."""
        if self.paused:
            return None
        while self.waiters:
            waiter = self.waiters.popleft()
            if not waiter.gone:
                return waiter
        return None

    def forget(self, waiter: Waiter) -> None:
        """The client gave up, or was answered already."""
        self.waiters.give_up(waiter)

    def waiting(self) -> int:
        return self.waiters.waiting

    def released(self, server: ServerConnection) -> Waiter | None:
        """Gives a clean connection back; the waiter returned gets it at once and it stays lent."""
        waiter = self.first_waiter() if self.waiters else None
        if waiter is None:
            del self.lent[server]
            self.idle.append(server)
        return waiter

    def opened(self, server: ServerConnection) -> Waiter | None:
        """A new connection is ready: for the first waiter, or for the stack."""
        self.connecting -= 1
        waiter = self.first_waiter()
        if waiter is None:
            self.idle.append(server)
        else:
            self.lent[server] = None
        return waiter

    def removed(self, server: ServerConnection) -> None:
        """The connection is gone, wherever it was."""
        if server in self.lent:
            del self.lent[server]
        elif server in self.idle:
            self.idle.remove(server)

    def wanted(self, minimum: int, at_once: int) -> int:
        """How many connections to open now, for those who wait and for the minimum; at most `at_once` in flight."""
        room = min(self.size - self.total, at_once - self.connecting)
        need = max(self.waiting() - self.connecting, minimum - self.total)
        return max(0, min(room, need))
