"""Finishes what two-phase commits left behind: after a crash of this node, or while a shard could not be reached.

Every shard is asked for prepared transactions of ours; the decision log says which are committed. Presumed abort:
without a decision they are rolled back. Asked again until nothing is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from node.database import Database
from node.databases import Databases
from node.errors import Fault
from node.gather.two_phase import PREFIX, DecisionLog, Orphan, recover
from node.pool.checkout import checkout
from node.pool.pool import Pool
from node.server.conversation import Conversation

log = logging.getLogger("pgmurmur.two_phase")

UNDEFINED_OBJECT = "42704"  # there is no such prepared transaction
ASK_AGAIN_S = 5.0
TIMEOUT_S = 30.0
# A PREPARE whose connection was lost may still be running when its ROLLBACK PREPARED finds nothing: asked this often.
ROLLBACK_TRIES = 3
# Only who prepared a transaction (or a superuser) may finish it.
_ORPHANS = (
    "SELECT gid, owner FROM pg_catalog.pg_prepared_xacts"
    f" WHERE database = current_database() AND gid LIKE '{PREFIX}\\_%'"
)


@dataclass(slots=True)
class _Part:
    """One shard of a transaction of this boot; `key` None: to be rolled back."""

    user: str
    database: str
    shard: int
    gid: str
    key: tuple[int, int] | None
    tries: int = 0

    @property
    def sql(self) -> str:
        return f"{'COMMIT' if self.key is not None else 'ROLLBACK'} PREPARED '{self.gid}'"


class Resolver:
    def __init__(self, decisions: DecisionLog, databases: Databases, clock: Callable[[], float]) -> None:
        self._decisions = decisions
        self._databases = databases
        self._clock = clock
        self._wake = asyncio.Event()
        self._recovered = False
        self._unfinished: list[_Part] = []

    def later(self, database: Database, gids: dict[int, str], key: tuple[int, int] | None) -> None:
        """Parts of this boot that did not hear the decision: committed if `key` is given, else rolled back."""
        self._unfinished += [_Part(database.user, database.name, shard, gid, key) for shard, gid in gids.items()]
        self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            if not self._recovered:
                self._recovered = await self._after_crash()
            await self._of_this_boot()
            if self._recovered and not self._unfinished:
                await self._wake.wait()
            else:
                await asyncio.sleep(ASK_AGAIN_S)

    def _primaries(self) -> dict[str, dict[str, Pool]]:
        """The databases that are shards of several, by address: the pools of each, by the user they log in as."""
        found: dict[str, dict[str, Pool]] = {}
        for database in self._databases.by_user.values():
            if len(database.balancers) > 1:
                for balancer in database.balancers:
                    if balancer.primary is not None:
                        target = balancer.primary.target
                        pools = found.setdefault(f"{target.address}/{target.database}", {})
                        pools.setdefault(target.user, balancer.primary)
        return found

    async def _after_crash(self) -> bool:
        """Finishes what an earlier boot prepared, on every server that answers. True: all did, and all is finished."""
        decisions = self._decisions
        primaries = self._primaries()
        complete = True
        for name, pools in primaries.items():
            try:
                for gid, owner in await self._orphans(pools):
                    complete = (
                        await self._finish(name, gid, pools.get(owner) or next(iter(pools.values()))) and complete
                    )
            except Fault as fault:
                log.warning("recovery_waits server=%s reason=%s", name, fault)
                complete = False
        if complete:
            for key in recover(decisions.identity, decisions.boot, decisions.decided, ()).done:
                decisions.forget(key)
        return complete

    async def _orphans(self, pools: dict[str, Pool]) -> list[tuple[str, str]]:
        rows = await self._ask(next(iter(pools.values())), _ORPHANS)
        return [
            (str(row[0], "utf-8"), str(row[1], "utf-8")) for row in rows if row[0] is not None and row[1] is not None
        ]

    async def _finish(self, name: str, gid: str, pool: Pool) -> bool:
        decisions = self._decisions
        todo = recover(decisions.identity, decisions.boot, decisions.decided, [Orphan(name, gid)])
        for stranger in todo.strangers:
            log.info("prepared_by_another_node gid=%s server=%s", stranger.gid, stranger.target)
        for resolution in todo.resolve:
            try:
                await self._ask(pool, resolution.sql)
            except Fault as fault:
                if fault.sqlstate != UNDEFINED_OBJECT:
                    log.warning("two_phase_waits gid=%s reason=%s", gid, fault)
                    return False
            log.warning("two_phase_recovered gid=%s verdict=%s", resolution.gid, resolution.verdict)
        return True

    async def _of_this_boot(self) -> None:
        """One attempt for every part; a shard that does not answer holds up no other."""
        unreachable: set[tuple[str, int]] = set()
        for part in list(self._unfinished):
            place = (part.database, part.shard)
            if place not in unreachable and not await self._try(part):
                unreachable.add(place)

    async def _try(self, part: _Part) -> bool:
        """False: the shard does not answer."""
        database = self._databases.by_user.get((part.user, part.database))
        if database is None or part.shard >= len(database.balancers):
            log.error("two_phase_lost_shard database=%s shard=%s gid=%s", part.database, part.shard, part.gid)
            self._unfinished.remove(part)  # its decision stays in the log
            return True
        try:
            await self._ask(database.balancers[part.shard].write(), part.sql)
        except Fault as fault:
            if fault.sqlstate != UNDEFINED_OBJECT:
                log.warning("two_phase_waits gid=%s reason=%s", part.gid, fault)
                return False
            part.tries += 1
            if part.key is None and part.tries < ROLLBACK_TRIES:
                return True
        # committed or rolled back, now or before when only the answer was lost
        self._unfinished.remove(part)
        if part.key is not None and not any(other.key == part.key for other in self._unfinished):
            self._decisions.forget(part.key)
        return True

    async def _ask(self, pool: Pool, sql: str) -> list[list[bytes | None]]:
        server = await checkout(pool)
        talk = Conversation(server)
        try:
            results = await talk.query(sql, TIMEOUT_S)
            return results[0].rows if results else []
        finally:
            talk.end()
            pool.release(server)
