"""Keeps what is known of the shards fresh for databases whose statements may share servers, beside everything else.

Nobody waits for it: until a catalogue is there, statements run alone. A reading borrows one connection per shard,
and not the one a client is about to take. After DDL that this flock has seen the old catalogue counts no more; of other
DDL the next periodic reading learns.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING

from node.database import Database
from node.errors import Fault
from node.layout import catalog_pool, load_layout

if TYPE_CHECKING:
    from node.pool.pool import Pool

log = logging.getLogger("pgmurmur.catalog")

REFRESH_S = 60.0  # DDL that did not come through the flock is learned this late; shorter costs the servers more
STALE_S = 150.0  # what could not be read again for so long is not trusted any more
IDLE_WAIT_S = 2.0  # so long is waited for a connection that nobody uses; then the reading queues for one
RETRY_FIRST_S = 1.0
RETRY_MAX_S = 60.0


class Catalogs:
    """`tick` is called a few times per second; `want` by sessions, at any time."""

    def __init__(
        self,
        databases: Callable[[], Iterable[Database]],
        spawn: Callable[[Awaitable[None]], object],
        load: Callable[..., Awaitable[None]] = load_layout,
    ) -> None:
        self._databases = databases
        self._spawn = spawn
        self._load = load

    def want(self, database: Database) -> None:
        """Statements of this database may share servers as soon as its catalogue is known."""
        database.layout.wanted = True

    def tick(self, now: float) -> None:
        for database in self._databases():
            layout = database.layout
            if layout.sharing and now - layout.read_at > STALE_S:
                layout.sharing = False
            if layout.wanted and layout.loading is None and now >= layout.retry_at:
                self._look_at(database, now)

    def _look_at(self, database: Database, now: float) -> None:
        layout = database.layout
        if layout.sharing and now - layout.read_at < REFRESH_S:
            return
        if not any(_alive(pool) for pool in database.pools):
            layout.sharing = False  # nobody is here; who comes back may find another schema
            return
        try:
            asked = [catalog_pool(balancer) for balancer in database.balancers]
        except Fault:
            return  # a shard without any server
        if any(pool.core.paused for pool in asked):
            return
        if not all(pool.core.idle for pool in asked):
            if layout.waiting_since is None:
                layout.waiting_since = now
            if now - layout.waiting_since < IDLE_WAIT_S:
                return
        layout.waiting_since = None
        layout.retry_at = now + min(RETRY_FIRST_S * 2**layout.failures, RETRY_MAX_S)
        self._spawn(self._read(database))

    async def _read(self, database: Database) -> None:
        layout = database.layout
        layout.failures = min(layout.failures + 1, 10)  # until it has succeeded
        try:
            await self._load(database, again=True)
        except Fault as fault:
            if layout.failures == 1:
                log.warning("catalog_not_read database=%s reason=%s", database.name, fault)
            return
        if layout.failures > 1:
            log.info("catalog_read database=%s attempts=%s", database.name, layout.failures)
        layout.failures = 0


def _alive(pool: Pool) -> bool:
    return bool(pool.core.idle or pool.core.lent)
