"""Finishes what two-phase commits left behind: after a crash of this node, or while a shard could not be reached.

Every shard is asked for prepared transactions of ours; the decision log says which are committed. Presumed abort:
without a decision they are rolled back. Asked again until nothing is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from node.database import Database
from node.databases import Databases
from node.errors import Fault
from node.gather.two_phase import PREFIX, DecisionLog, Orphan, parse_gid, recover
from node.pool.checkout import checkout
from node.pool.pool import Pool
from node.server.conversation import Conversation

log = logging.getLogger("pgmurmur.two_phase")

ASK_AGAIN_S = 5.0
TIMEOUT_S = 30.0
_ORPHANS = (
    f"SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = current_database() AND gid LIKE '{PREFIX}\\_%'"
)


class Resolver:
    def __init__(self, decisions: DecisionLog, databases: Databases, clock: Callable[[], float]) -> None:
        self._decisions = decisions
        self._databases = databases
        self._clock = clock
        self._wake = asyncio.Event()
        self._unfinished: dict[tuple[str, int], list[tuple[str, bool, tuple[int, int] | None]]] = {}

    def later(self, database: Database, gids: dict[int, str], key: tuple[int, int] | None) -> None:
        """Parts of this boot that did not hear the decision: committed if `key` is given, else rolled back."""
        for shard, gid in gids.items():
            self._unfinished.setdefault((database.name, shard), []).append((gid, key is not None, key))
        self._wake.set()

    async def run(self) -> None:
        while True:
            try:
                done = await self._after_crash() if self._needs_recovery() else True
                done = await self._of_this_boot() and done
            except Fault as fault:
                log.warning("recovery_waits reason=%s", fault)
                done = False
            if done:
                await self._wake.wait()
                self._wake.clear()
            else:
                await asyncio.sleep(ASK_AGAIN_S)

    _recovered = False

    def _needs_recovery(self) -> bool:
        return not self._recovered

    def _primaries(self) -> list[Pool]:
        """One pool per distinct server database that is a shard of several."""
        found: dict[tuple[str, int, str], Pool] = {}
        for database in self._databases.by_user.values():
            if len(database.balancers) > 1:
                for balancer in database.balancers:
                    if balancer.primary is not None:
                        target = balancer.primary.target
                        found.setdefault((target.host, target.port, target.database), balancer.primary)
        return list(found.values())

    async def _after_crash(self) -> bool:
        pools = {f"{p.target.address}/{p.target.database}": p for p in self._primaries()}
        orphans = []
        for name, pool in pools.items():
            rows = await self._ask(pool, _ORPHANS)
            orphans += [Orphan(name, str(row[0], "utf-8")) for row in rows if row[0] is not None]
        decisions = self._decisions
        todo = recover(decisions.identity, decisions.boot, decisions.decided, orphans)
        for stranger in todo.strangers:
            gid = parse_gid(stranger.gid)
            if gid is not None:
                log.info("prepared_by_another_node gid=%s server=%s", stranger.gid, stranger.target)
        for resolution in todo.resolve:
            await self._ask(pools[resolution.target], resolution.sql)
            log.warning("two_phase_recovered gid=%s verdict=%s", resolution.gid, resolution.verdict)
        for key in todo.done:
            decisions.forget(key)
        self._recovered = True
        return True

    async def _of_this_boot(self) -> bool:
        for (name, shard), parts in list(self._unfinished.items()):
            database = next((d for d in self._databases.by_user.values() if d.name == name), None)
            if database is None or shard >= len(database.balancers):
                log.error("two_phase_lost_shard database=%s shard=%s gids=%s", name, shard, [p[0] for p in parts])
                del self._unfinished[(name, shard)]
                continue
            while parts:
                gid, commits, key = parts[0]
                try:
                    await self._ask(
                        database.balancers[shard].write(), f"{'COMMIT' if commits else 'ROLLBACK'} PREPARED '{gid}'"
                    )
                except Fault as fault:
                    if fault.sqlstate != "42704":  # done before, only the answer was lost
                        log.warning("two_phase_waits gid=%s reason=%s", gid, fault)
                        return False
                parts.pop(0)
                if key is not None and not any(p[2] == key for listed in self._unfinished.values() for p in listed):
                    self._decisions.forget(key)
            del self._unfinished[(name, shard)]
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
