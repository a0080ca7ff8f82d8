"""The shell of one pool: opens, checks, cleans and closes the connections that PoolCore accounts for.

One pool per (user, database, shard, target). `acquire` (in lending.py) is a plain call that answers at once when a
connection is idle; otherwise `wait` leaves the borrower in the queue. Nothing here runs per query.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Protocol

from node.errors import ServerFault
from node.pool.core import Borrower, PoolCore, Waiter
from node.pool.drain import Drain
from node.pool.health import HealthTracker
from node.pool.lane_count import LaneCount
from node.pool.lanes import Lanes
from node.pool.lending import Lending
from node.server.cancel import cancel
from node.server.connection import IDLE, Lost, ServerConnection, Traffic
from node.server.conversation import Conversation
from node.stats.counters import PoolCounters

if TYPE_CHECKING:
    from node.server.connect import Target

log = logging.getLogger("pgmurmur.pool")

# Connections of one pool that are being opened at the same time. More would hurry the first seconds after a restart
# and storm the server's authentication.
CONNECTING_AT_ONCE = 4
# After a failed attempt the next one waits this long, unless clients wait and the server is only starting up.
RETRY_S = 0.25
RETRY_LOGIN_S = 1.0
# PostgreSQL closes the connection of a cancel request as soon as it has signalled the backend.
CANCEL_TIMEOUT_S = 10.0
# Errors that trying again at once will not mend: authorization, unknown database, wrong configuration.
_HOPELESS = ("28", "3D", "0A", "22", "42", "F0")


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Times in seconds; `inf` means never."""

    size: int = 10
    min_size: int = 1
    mode: str = "transaction"
    connect_timeout_s: float = 5.0
    connect_attempts: int = 1
    connect_attempt_delay_s: float = 0.0
    checkout_timeout_s: float = 5.0
    rollback_timeout_s: float = 5.0
    idle_timeout_s: float = 60.0
    lifetime_s: float = 86400.0
    lifetime_jitter_s: float = 0.0
    healthcheck_interval_s: float = 30.0
    idle_healthcheck_interval_s: float = 30.0
    idle_healthcheck_delay_s: float = 5.0
    healthcheck_timeout_s: float = 5.0
    ban_timeout_s: float = 300.0
    prepared_limit: int = 1 << 62
    connection_recovery: str = "recover"
    lanes: int | str = "auto"
    coalesce: bool = True


class PoolClosed(ServerFault):
    """A configuration without this pool came into force; the one that waits may ask the new configuration's."""


class PoolDown(ServerFault):
    """Its target cannot be reached. `is_banned`: reads go to others from now on."""

    is_banned = False


class Opener(Protocol):
    """How a pool opens a connection (server/connect.py in a node; a fake in tests)."""

    def __call__(self, target: Target, connection: ServerConnection, timeout_s: float) -> Awaitable[None]: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every pool of a node shares."""

    open: Opener
    clock: Callable[[], float]
    random: Random
    spawn: Callable[[Awaitable[None]], object]
    no_parameters: object
    soon: Callable[[Callable[[], None]], object]  # calls when the turn of the event loop ends
    later: Callable[[float, Callable[[], None]], object]


_ids = itertools.count(1)
_server_ids = itertools.count(1)


class Pool(Lending):
    """Connections of one user to one target."""

    def __init__(
        self,
        target: Target,
        settings: PoolSettings,
        around: Surroundings,
        *,
        user: str,
        database: str,
        shard: int = 0,
        role: str = "primary",
    ) -> None:
        self.id = next(_ids)
        self.target = target
        self.settings = settings
        self.user = user
        self.database = database
        self.shard = shard
        self.role = role
        super().__init__(PoolCore(settings.size), PoolCounters(), around.clock)
        self.check_after_s = settings.healthcheck_interval_s
        self.health = HealthTracker()
        self.server_parameters: dict[str, str] = {}  # ParameterStatus of the last connection opened
        self.around = around
        self._down_since: float | None = None
        self._retry_at = 0.0
        self._fault: ServerFault | None = None
        self._checked_at = around.clock() + settings.idle_healthcheck_delay_s
        self._checking = 0  # connections being checked for somebody who waits
        self._held: dict[ServerConnection, None] = {}  # free as soon as no cancel request can hit them
        self.set_lanes()
        self.gone = Traffic()  # of connections that are closed

    def take_settings(self, settings: PoolSettings) -> None:
        """The configuration has changed."""
        self.settings = settings
        self.core.size = settings.size
        self.check_after_s = settings.healthcheck_interval_s
        self.set_lanes()

    def set_lanes(self) -> None:
        """As the settings in force say."""
        wanted = self.settings.lanes
        if wanted == "off" or wanted == 0 or self.settings.mode == "session":
            if self.lanes is not None:
                self.lanes.close()
            self.lanes = None
            return
        fixed = None if wanted == "auto" else int(wanted)
        if self.lanes is None:
            count = LaneCount(fixed, self.core.size)
            self.lanes = Lanes(self, count, soon=self.around.soon, later=self.around.later, clock=self.around.clock)
        else:
            self.lanes.count.limit(fixed, self.core.size)
        self.lanes.coalesces = self.settings.coalesce
        self.lanes.prepared_limit = self.settings.prepared_limit

    # --- borrowing ---------------------------------------------------------------------------------------------

    def wait(self, borrower: Borrower) -> Waiter | None:
        """Queues up. The borrower hears `granted` or `refused`, perhaps before this returns (then: None)."""
        if self.closed:  # by somebody who has not looked at the new configuration yet: nobody would come to serve him
            borrower.refused(self._gone())
            return None
        now = self.around.clock()
        if self._fault is not None and now < self._retry_at and self.core.total == 0 and not self._is_patient(now):
            borrower.refused(self.down(self._fault))
            return None
        waiter = self.core.wait(borrower, now)
        self.fill(now)
        return waiter

    def check_first(self, server: ServerConnection) -> None:
        self._checking += 1
        self.around.spawn(self._check_for_waiter(server))

    def forget(self, waiter: Waiter) -> None:
        self.core.forget(waiter)

    def release(self, server: ServerConnection) -> None:
        """Gives a connection back: at once when it is clean, after cleaning when it is not, never when it is lost."""
        server.owner = None
        if server.closed_why is not None:
            return
        if not server.reusable:
            self.around.spawn(self.recover(Drain(server)))  # who hears what comes before the coroutine runs
        elif server.cancelling:
            self._held[server] = None
        elif server.dirty:
            self.around.spawn(self.clean(server))
        elif self.closed or server.lifetime_s <= 0 or len(self.core.lent) + len(self.core.idle) > self.core.size:
            server.close(Lost.REPLACED)
        else:
            self._free(server)

    async def cancel(self, server: ServerConnection) -> None:
        """Sends a cancel request for what `server` does. Nobody else gets the connection before it is spent.

        Raises ServerFault when the target cannot be reached.
        """
        self.hold(server)
        try:
            await cancel(self.target, server.pid, server.secret, tls=server.tls, timeout_s=CANCEL_TIMEOUT_S)
        finally:
            self.let_go(server)

    def hold(self, server: ServerConnection) -> None:
        """A cancel request for it is, or may soon be, on its way: it is lent to nobody until as many `let_go`."""
        server.cancelling += 1

    def let_go(self, server: ServerConnection) -> None:
        server.cancelling -= 1
        if not server.cancelling and server in self._held:
            del self._held[server]
            self.release(server)

    def _free(self, server: ServerConnection) -> None:
        server.used_at = now = self.around.clock()
        waiter = self.core.released(server)
        if waiter is not None:
            self.grant(waiter, server, now)

    def grant(self, waiter: Waiter, server: ServerConnection, now: float) -> None:
        self.counters.assigned += 1
        self.counters.wait_time_s += now - waiter.since
        waiter.gone = True
        waiter.borrower.granted(server)

    def lost(self, server: ServerConnection) -> None:
        """The socket of one of ours is gone."""
        self.core.removed(server)
        self._held.pop(server, None)
        self.gone = self.gone.plus(server.traffic())
        why = server.closed_why
        if why is Lost.OUT_OF_SYNC:
            self.counters.out_of_sync += 1
        if why in (Lost.UNCLEAN, Lost.UNHEALTHY):
            self.counters.force_closed += 1
        if not self.closed and self.core.waiters:
            self.fill(self.around.clock())

    # --- opening -----------------------------------------------------------------------------------------------

    def fill(self, now: float) -> None:
        """Opens what is wanted now."""
        if self.closed or self.core.paused or now < self._retry_at:
            return
        # A ban ends with a success, and a pool that keeps no idle connections would never have one: nobody asks it.
        minimum = max(self.settings.min_size, 1) if self.health.trial_due(now) else self.settings.min_size
        for _ in range(self.core.wanted(minimum, CONNECTING_AT_ONCE) - self._checking):
            self.core.connecting += 1
            self.around.spawn(self._open())

    def grow(self, now: float) -> None:
        """For lanes: they wait for nothing, so that nobody in the queue asks for the connection they could use."""
        core = self.core
        if self.closed or core.paused or now < self._retry_at or core.connecting or core.total >= core.size:
            return
        core.connecting += 1
        self.around.spawn(self._open())

    async def _open(self) -> None:
        clock, settings = self.around.clock, self.settings
        started = clock()
        server = ServerConnection(next(_server_ids), self, self.around.no_parameters, started)
        jitter = self.around.random.uniform(-settings.lifetime_jitter_s, settings.lifetime_jitter_s)
        server.lifetime_s = max(1.0, settings.lifetime_s + jitter)
        self.counters.auth_attempts += 1
        try:
            for attempt in range(max(1, settings.connect_attempts)):
                try:
                    await self.around.open(self.target, server, settings.connect_timeout_s)
                    break
                except ServerFault:
                    if attempt + 1 >= settings.connect_attempts:
                        raise
                    await asyncio.sleep(settings.connect_attempt_delay_s)
        except ServerFault as fault:
            self.core.connecting -= 1
            self._open_failed(fault, clock())
            return
        except BaseException:
            self.core.connecting -= 1
            raise
        now = clock()
        server.created_at = server.used_at = server.checked_at = now
        self.counters.connects += 1
        self.counters.connect_time_s += now - started
        self._down_since = self._fault = None
        self._retry_at = 0.0
        self.health.succeeded()
        if server.statuses:
            self.server_parameters = dict(server.statuses)
        if server.closed_why is not None or self.closed:
            self.core.connecting -= 1
            server.close(Lost.REPLACED)
            return
        waiter = self.core.opened(server)
        if waiter is not None:
            self.grant(waiter, server, now)

    def _open_failed(self, fault: ServerFault, now: float) -> None:
        self.counters.errors += 1
        self.health.failed(fault.message, now, self.settings.ban_timeout_s, may_ban=self.role == "replica")
        if self._fault is None or self._fault.message != fault.message:
            log.warning(
                "server_connect_failed database=%s user=%s server=%s sqlstate=%s reason=%s",
                self.database, self.user, self.target.address, fault.sqlstate, fault,
            )  # fmt: skip
        self._fault = fault
        if self._down_since is None:
            self._down_since = now
        self._retry_at = now + (RETRY_LOGIN_S if _is_hopeless(fault) else RETRY_S)
        if self.core.total == 0 and not self._is_patient(now):
            self.refuse_waiters(self.down(fault))

    def _is_patient(self, now: float) -> bool:
        """A server that is restarting is worth waiting for, as long as a client would wait for a connection anyway; a
        replica's clients have somewhere else to go."""
        if self._fault is None or self._down_since is None or _is_hopeless(self._fault) or self.role == "replica":
            return False
        return now - self._down_since < self.settings.checkout_timeout_s

    def down(self, fault: ServerFault) -> PoolDown:
        down = PoolDown(
            f'connection pool for user "{self.user}" and database "{self.database}" is down',
            sqlstate="58000",
            detail=f"{self.target.address}: {fault}",
            hint="check the server and the credentials in [[databases]] and users.toml; SHOW POOLS tells the state",
        )
        down.is_banned = self.role == "replica" and self.health.banned(self.around.clock())
        return down

    def refuse_waiters(self, fault: Exception) -> None:
        waiters = self.core.waiters
        # first all are taken out: who is refused may wait again, or give up for others
        for waiter in [waiters.popleft() for _ in range(len(waiters))]:
            if not waiter.gone:
                waiter.gone = True
                waiter.borrower.refused(fault)

    # --- keeping house -----------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Called a few times a second: time-outs, minimum size, ages, background checks."""
        core, settings = self.core, self.settings
        while core.waiters and not core.paused:
            first = core.waiters[0]
            if first.gone:
                core.waiters.popleft()
            elif now - first.since > settings.checkout_timeout_s:
                core.waiters.popleft()
                first.gone = True
                self.counters.errors += 1
                first.borrower.refused(self._checkout_timeout(now - first.since))
            else:
                break
        if self.lanes is not None:
            self.lanes.retire(now)
        for server in [s for s in core.idle if now - s.created_at > s.lifetime_s]:
            self.close_idle(server, Lost.LIFETIME)
        spare = len(core.idle) + len(core.lent) - settings.min_size
        # the bottom of the stack is the coldest
        for server in core.idle[: max(0, spare)]:
            if now - server.used_at > settings.idle_timeout_s:
                self.close_idle(server, Lost.IDLE_TIMEOUT)
        interval = settings.idle_healthcheck_interval_s
        if interval > 0 and now - self._checked_at >= interval and core.idle and not core.paused:
            self._checked_at = now
            server = core.idle.pop(0)
            core.lent[server] = None
            self.around.spawn(self.check(server))
        if core.paused:
            for server in list(core.idle):
                self.close_idle(server, Lost.RECONNECT)
        else:
            self.fill(now)

    def _checkout_timeout(self, waited_s: float) -> ServerFault:
        detail = f"Waited {waited_s:.1f} s for one of {self.core.size} connections to {self.target.address}."
        if self._fault is not None:
            detail += f" Last attempt: {self._fault}"
        return ServerFault(
            "checkout timeout",
            sqlstate="58000",
            detail=detail,
            hint="raise default_pool_size or checkout_timeout, or look for long transactions in SHOW CLIENTS",
        )

    def close_idle(self, server: ServerConnection, why: Lost) -> None:
        self.core.idle.remove(server)
        server.close(why)

    async def check(self, server: ServerConnection) -> None:
        """An empty query, in the background; a connection that fails it never reaches a client."""
        talk = Conversation(server)
        server.healthchecks += 1
        try:
            await talk.query(";", self.settings.healthcheck_timeout_s)
        except ServerFault as fault:
            self.health.failed(
                fault.message, self.around.clock(), self.settings.ban_timeout_s, may_ban=self.role == "replica"
            )
            talk.end()
            server.close(Lost.UNHEALTHY)
            return
        talk.end()
        self.health.succeeded()
        server.checked_at = self.around.clock()
        if self.closed or server.lifetime_s <= 0:
            server.close(Lost.REPLACED)
            return
        # `used_at` stays: a check is no use, or idle connections would never grow old
        waiter = self.core.released(server)
        if waiter is not None:
            self.grant(waiter, server, server.checked_at)

    async def _check_for_waiter(self, server: ServerConnection) -> None:
        try:
            await self.check(server)
        finally:
            self._checking -= 1

    async def clean(self, server: ServerConnection) -> None:
        """Takes away what must not reach the next client: settings, temporary tables, locks, listeners, cursors."""
        talk = Conversation(server)
        try:
            await talk.query("DISCARD ALL", self.settings.rollback_timeout_s)
        except ServerFault:
            talk.end()
            server.close(Lost.UNCLEAN)
            return
        talk.end()
        self.counters.cleaned += 1
        server.parameters = self.around.no_parameters
        server.prepared.clear()
        server.dirty = False
        self.release(server)

    async def recover(self, drain: Drain) -> None:
        """Its client left in the middle: finish what is owed, roll back, use it again; or close it."""
        server = drain.server
        how = self.settings.connection_recovery
        pipeline = server.pipeline
        if how == "drop" or (how == "rollback_only" and not pipeline.idle()):
            drain.end()
            server.close(Lost.UNCLEAN)
            return
        limit_s = self.settings.rollback_timeout_s
        try:
            if not await drain.quiet(limit_s):
                await self.cancel(server)
                if not await drain.quiet(limit_s):
                    raise ServerFault("statement of a client that has gone does not end", sqlstate="57014")
            drain.end()
            if pipeline.tx_status != IDLE:
                self.counters.rollbacks += 1
                server.rollbacks += 1
                talk = Conversation(server)
                try:
                    await talk.query("ROLLBACK", limit_s)
                finally:
                    talk.end()
        except ServerFault:
            drain.end()
            server.close(Lost.UNCLEAN)
            return
        self.counters.re_synced += 1
        # what the client set in its last transaction is unknown: start from scratch
        server.dirty = True
        if server.reusable:
            self.release(server)
        else:
            server.close(Lost.UNCLEAN)

    def doubt_statements(self) -> None:
        """The meaning of statements has changed (DDL)."""
        for server in (*self.core.idle, *self.core.lent):
            server.doubt_statements()

    def pause(self) -> None:
        self.core.paused = True

    def resume(self) -> None:
        self.core.paused = False
        now = self.around.clock()
        for waiting in self.core.waiters:
            waiting.since = now  # the pause does not count against checkout_timeout
        while self.core.idle and (waiter := self.core.first_waiter()) is not None:
            server = self.core.idle.pop()
            self.core.lent[server] = None
            self.grant(waiter, server, self.around.clock())
        self.fill(self.around.clock())

    def reconnect(self) -> None:
        """Fresh connections: idle ones close now, lent ones when they come back."""
        for server in list(self.core.idle):
            self.close_idle(server, Lost.RECONNECT)
        for server in self.core.lent:
            server.lifetime_s = 0.0
        if self.lanes is not None:
            self.lanes.close()

    def close(self, why: Lost = Lost.REPLACED) -> None:
        """Lends nothing any more; connections in use end when they come back."""
        self.closed = True
        if self.lanes is not None:
            self.lanes.close()
        for server in list(self.core.idle):
            self.close_idle(server, why)
        self.refuse_waiters(self._gone())

    @staticmethod
    def _gone() -> PoolClosed:
        return PoolClosed("connection pool was closed", sqlstate="57P01", hint="the configuration changed; try again")


def _is_hopeless(fault: ServerFault) -> bool:
    return fault.sqlstate.startswith(_HOPELESS)
