"""What may wait a moment: time-outs of clients, housekeeping of pools, the event loop's own lag.

One timer for all; nothing on the hot path sets one of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from node.client.session import CLOSED, RIDING, SLOW, WAITING, Session
from node.errors import ClientFault, ServerFault
from node.gate import Reason
from node.server.connection import Lost

if TYPE_CHECKING:
    from node.client.services import Services
    from node.databases import Databases

log = logging.getLogger("pgmurmur.janitor")

TICK_S = 0.1
POOLS_EVERY_TICKS = 3  # PgDog's maintenance loop runs every 333 ms


class Janitor:
    """`client_wait_s`: how long clients wait at a gate that a rollout has closed."""

    def __init__(self, services: Services, databases: Databases, on_lag: Callable[[float], None]) -> None:
        self._services = services
        self._databases = databases
        self._on_lag = on_lag
        self.client_wait_s = 10.0
        self.lag_s = 0.0

    async def run(self) -> None:
        clock = self._services.clock
        ticks = 0
        while True:
            before = clock()
            await asyncio.sleep(TICK_S)
            now = clock()
            self.lag_s = max(0.0, now - before - TICK_S)
            self._on_lag(self.lag_s)
            ticks += 1
            for session in list(self._services.sessions.values()):
                self._look_at(session, now)
            if ticks % POOLS_EVERY_TICKS == 0:
                for pool in self._databases.pools:
                    pool.tick(now)

    def _look_at(self, session: Session, now: float) -> None:
        database = session.database
        if session.state == CLOSED:
            return
        if session.state == WAITING and session.waiter is None:
            if Reason.ROLLOUT in session.gate.reasons and now - session.active_since > self.client_wait_s:
                session.stop_waiting()
                session.refused(
                    ServerFault(
                        "cannot begin a transaction now: a configuration rollout is in progress",
                        sqlstate="57P03",
                        detail=f"Waited {self.client_wait_s:g} s.",
                        hint="try again; SHOW ROLLOUT on the admin console tells what it waits for",
                    )
                )
            return
        if session.state == WAITING:
            return  # its pool tells it when it has waited too long
        server = session.server
        if session.state in (SLOW, RIDING) or (server is not None and server.pipeline.done != server.pipeline.sent):
            if session.active_since and now - session.active_since > database.query_timeout_s:
                for link in (server, *session.links.values()):
                    if link is not None:
                        link.close(Lost.UNCLEAN)
                _end(session, "canceling statement due to query_timeout", "58000")
        elif session.entered:
            if now - session.last_request > database.idle_in_transaction_timeout_s:
                _end(session, "terminating connection due to idle-in-transaction timeout", "25P03")
        elif now - session.last_request > database.client_idle_timeout_s:
            _end(session, "terminating connection due to client idle timeout", "57P05")


def _end(session: Session, text: str, sqlstate: str) -> None:
    session.fail(ClientFault(text, sqlstate=sqlstate, severity="FATAL"))
