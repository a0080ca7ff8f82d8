"""What may wait a moment: time-outs of clients, housekeeping of pools, the event loop's own lag.

One timer for all; nothing on the hot path sets one of its own, and nothing here walks over all clients: ten thousand
idle ones would stop the busy ones for ten milliseconds at every tick. A client is looked at when one of its time-outs
could be over at the earliest, whatever it does until then, and told then when the next look is due. Without time-outs,
which is the default, nobody is looked at.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from node.client.session import Session
from node.client.states import CLOSED, RIDING, SLOW, WAITING
from node.errors import ClientFault, ServerFault
from node.gate import Reason
from node.server.connection import Lost

if TYPE_CHECKING:
    from node.catalogs import Catalogs
    from node.client.services import Services
    from node.database import Database
    from node.databases import Databases
    from node.pool.pool import Pool
    from node.server.connection import ServerConnection

log = logging.getLogger("pgmurmur.janitor")

TICK_S = 0.1
POOLS_EVERY_TICKS = 3  # PgDog's maintenance loop runs every 333 ms
# The next look is never further away than this: what is remembered of clients that left is gone by then.
LOOK_AGAIN_S = 10.0
# Clients that came in the same moment are looked at in as many different ones.
SPREAD = 64


def shortest_timeout_s(database: Database) -> float:
    return min(database.query_timeout_s, database.idle_in_transaction_timeout_s, database.client_idle_timeout_s)


class Janitor:
    """`client_wait_s`: how long clients wait at a gate that a rollout has closed."""

    def __init__(
        self, services: Services, databases: Databases, catalogs: Catalogs, on_lag: Callable[[float], None]
    ) -> None:
        self._services = services
        self._databases = databases
        self._catalogs = catalogs
        self._on_lag = on_lag
        self.client_wait_s = 10.0
        self.lag_s = 0.0
        self._epoch = -1
        # The shortest time-out that any client can have: none ends earlier after its client was looked at.
        self._shortest_s = math.inf
        self._ticked = int(services.clock() / TICK_S)
        self._due: dict[int, list[int]] = {}  # tick → numbers of the sessions to be looked at then

    async def run(self) -> None:
        clock = self._services.clock
        ticks = 0
        while True:
            before = clock()
            await asyncio.sleep(TICK_S)
            now = clock()
            self.lag_s = max(0.0, now - before - TICK_S)
            self._services.lag_s = self.lag_s
            self._on_lag(self.lag_s)
            ticks += 1
            self.tick(now)
            if ticks % POOLS_EVERY_TICKS == 0:
                for pool in self._databases.pools:
                    pool.tick(now)
                self._catalogs.tick(now)

    def watch(self, session: Session) -> None:
        """A client has come in."""
        if self._shortest_s < math.inf:
            self._look_later(session, self._services.clock(), math.inf)

    def tick(self, now: float) -> None:
        """Everything that has become due since the last tick."""
        if self._epoch != self._services.epoch:
            self._configured(now)
        last, self._ticked = self._ticked, int(now / TICK_S)
        for number in range(last + 1, self._ticked + 1):
            for known in self._due.pop(number, ()):
                session = self._services.sessions.get(known)
                if session is not None:
                    self._look_at(session, now)
        for gate in self._databases.gates.values():
            if gate.waiting and Reason.ROLLOUT in gate.reasons:
                self._tired_of_rollout(now)
                break

    def _configured(self, now: float) -> None:
        """Another configuration: its time-outs, and those of clients that have not noticed it yet."""
        self._epoch = self._services.epoch
        sessions = list(self._services.sessions.values())
        databases = {id(one): one for one in (*self._databases.by_user.values(), *(s.database for s in sessions))}
        self._shortest_s = min(map(shortest_timeout_s, databases.values()), default=math.inf)
        self._due.clear()
        if self._shortest_s < math.inf:
            for session in sessions:
                self._look_at(session, now)

    def _look_later(self, session: Session, now: float, over_at: float) -> None:
        """`over_at`: when the time-out that is running ends; those that are not can only begin after now."""
        number = session.id
        again_s = LOOK_AGAIN_S * (1 + number % SPREAD / SPREAD) / 2
        at = min(over_at, now + self._shortest_s, now + again_s)
        self._due.setdefault(int(max(at, now) / TICK_S) + 1, []).append(number)

    def _look_at(self, session: Session, now: float) -> None:
        if session.state == CLOSED:
            return
        database = session.database
        if session.state == WAITING:  # its pool, or the gate, tells it when it has waited too long
            self._look_later(session, now, math.inf)
            return
        server = session.server
        if session.state in (SLOW, RIDING) or (server is not None and server.pipeline.done != server.pipeline.sent):
            since, limit_s = session.active_since or now, database.query_timeout_s
            if now - since > limit_s:
                for link in (server, *session.links.values()):
                    if link is not None:
                        _stop(link)
                _end(session, "canceling statement due to query_timeout", "58000")
                return
        else:
            since = session.last_request
            limit_s = database.idle_in_transaction_timeout_s if session.entered else database.client_idle_timeout_s
            if now - since > limit_s:
                if session.entered:
                    _end(session, "terminating connection due to idle-in-transaction timeout", "25P03")
                else:
                    _end(session, "terminating connection due to client idle timeout", "57P05")
                return
        self._look_later(session, now, since + limit_s)

    def _tired_of_rollout(self, now: float) -> None:
        """No transaction begins meanwhile, so this walk over everybody keeps nobody waiting who could go on."""
        for session in list(self._services.sessions.values()):
            if (
                session.state == WAITING
                and session.waiter is None
                and Reason.ROLLOUT in session.gate.reasons
                and now - session.active_since > self.client_wait_s
            ):
                session.stop_waiting()
                session.refused(
                    ServerFault(
                        "cannot begin a transaction now: a configuration rollout is in progress",
                        sqlstate="57P03",
                        detail=f"Waited {self.client_wait_s:g} s.",
                        hint="try again; SHOW ROLLOUT on the admin console tells what it waits for",
                    )
                )


def _stop(server: ServerConnection) -> None:
    """Closes it, and cancels what it runs: by itself a backend notices a closed socket only when it writes, and its
    statement would go on until then, with its locks."""
    pool, busy = server.pool, not server.pipeline.idle()
    server.close(Lost.UNCLEAN)
    if pool is not None and busy:
        pool.around.spawn(_cancel(pool, server))


async def _cancel(pool: Pool, server: ServerConnection) -> None:
    try:
        await pool.cancel(server)
    except ServerFault as fault:
        log.info("cancel_failed server=%s reason=%s", server.id, fault)


def _end(session: Session, text: str, sqlstate: str) -> None:
    session.fail(ClientFault(text, sqlstate=sqlstate, severity="FATAL"))
