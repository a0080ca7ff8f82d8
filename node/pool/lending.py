"""What a pool does for every transaction: lends a connection and takes it back. The compiled half of pool.py.

Whatever takes longer than a look (a connection that must be opened, checked or cleaned) is the other half's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node.pool.core import PoolCore
from node.server.connection import ServerConnection
from node.stats.pool_counters import PoolCounters

if TYPE_CHECKING:
    from node.pool.core import Waiter
    from node.pool.lanes import Lanes


class Lending:
    """`check_after_s`: a connection that was not used for longer is asked first whether it still lives; 0: never."""

    def __init__(self, core: PoolCore, counters: PoolCounters, clock: Callable[[], float]) -> None:
        self.core = core
        self.counters = counters
        self.clock = clock
        self.closed = False
        self.check_after_s = 0.0
        self.lanes: Lanes | None = None

    def acquire(self, now: float) -> ServerConnection | None:
        """A connection at once, or None: then `wait`. The caller sets `owner`."""
        server = self.core.acquire()
        if server is None:
            return None
        if self.check_after_s > 0 and self.is_cold(server, now):
            # Long unused: a firewall may have forgotten it. Checked first; the caller is the first to wait for it.
            self.check_first(server)
            return None
        self.counters.assigned += 1
        return server

    def acquire_like(self, parameters: object, now: float) -> ServerConnection | None:
        """As `acquire`, but only a connection with these settings, and none that would have to be asked first."""
        server = self.core.acquire_like(parameters)
        if server is None:
            return None
        if self.check_after_s > 0 and self.is_cold(server, now):
            self.core.put_back(server)
            return None
        self.counters.assigned += 1
        return server

    def is_cold(self, server: ServerConnection, now: float) -> bool:
        return now - server.used_at > self.check_after_s and now - server.checked_at > self.check_after_s

    def take_back(self, server: ServerConnection, now: float) -> None:
        """`release` of a connection that owes nothing and is in no transaction: what happens after every query."""
        server.owner = None
        core = self.core
        if (
            server.dirty
            or server.cancelling
            or server.closed_why is not None
            or self.closed
            or server.lifetime_s <= 0
            or len(core.lent) + len(core.idle) > core.size
        ):
            self.release(server)
            return
        server.used_at = now
        if core.waiters:
            waiter = core.released(server)
            if waiter is not None:
                self.grant(waiter, server, now)
        else:
            del core.lent[server]
            core.idle.append(server)

    # --- the other half --------------------------------------------------------------------------------------------

    def release(self, server: ServerConnection) -> None:
        raise NotImplementedError

    def grant(self, waiter: Waiter, server: ServerConnection, now: float) -> None:
        raise NotImplementedError

    def grow(self, now: float) -> None:
        """One connection more would have work."""
        raise NotImplementedError

    def check_first(self, server: ServerConnection) -> None:
        """Asks a connection whether it lives, for somebody who is going to wait for it."""
        raise NotImplementedError
