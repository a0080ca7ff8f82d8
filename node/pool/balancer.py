"""Which of a shard's targets gets the next transaction? Reads may go to replicas, writes go to the primary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from node.errors import ServerFault
from node.pool.health import FOREVER

if TYPE_CHECKING:
    from random import Random

    from node.pool.pool import Pool


class Balancer:
    """One shard: at most one primary, any number of replicas.

    `strategy`: random, round_robin, least_active_connections, weighted_round_robin. `split`: include_primary,
    exclude_primary, include_primary_if_replica_banned, prefer_primary.
    """

    def __init__(
        self,
        primary: Pool | None,
        replicas: Sequence[Pool],
        *,
        strategy: str,
        split: str,
        random: Random,
        weights: Sequence[int] = (),
    ) -> None:
        self.primary = primary
        self.replicas = list(replicas)
        self.strategy = strategy
        self.split = split
        self._random = random
        self._turn = 0
        self._weights = dict(zip([p.id for p in [*replicas, *([primary] if primary else [])]], weights, strict=False))
        self._credit: dict[int, int] = {}

    @property
    def lone(self) -> Pool | None:
        """The primary, if there is nothing else to choose from."""
        return None if self.replicas else self.primary

    @property
    def pools(self) -> list[Pool]:
        return ([self.primary] if self.primary is not None else []) + self.replicas

    def write(self) -> Pool:
        """The primary. Raises ServerFault 25006 when the shard has none."""
        if self.primary is None:
            raise ServerFault(
                "cannot execute a write: no primary is configured",
                sqlstate="25006",
                hint='add a [[databases]] entry with role = "primary" for this shard',
            )
        return self.primary

    def read(self, now: float) -> Pool:
        """A target for a read, banned ones left out; if all are, the automatic bans are lifted."""
        if not self.replicas or (self.split == "prefer_primary" and self.primary is not None):
            return self.write()
        usable = [pool for pool in self.replicas if not pool.health.banned(now)]
        lost = len(usable) < len(self.replicas)
        with_primary = self.split == "include_primary" or (self.split == "include_primary_if_replica_banned" and lost)
        if self.primary is not None and with_primary and not self.primary.health.banned(now):
            usable.append(self.primary)
        if not usable:
            for pool in self.replicas:
                ban = pool.health.ban
                if ban is not None and ban.until != FOREVER:
                    pool.health.unban()
            usable = [pool for pool in self.replicas if not pool.health.banned(now)]
        if not usable:
            if self.primary is None or self.split == "exclude_primary":
                raise ServerFault(
                    "all replicas are banned", sqlstate="58000", hint="UNBAN on the admin console lifts bans"
                )
            return self.primary
        return self._choose(usable)

    def _choose(self, usable: list[Pool]) -> Pool:
        if len(usable) == 1:
            return usable[0]
        if self.strategy == "round_robin":
            self._turn += 1
            return usable[self._turn % len(usable)]
        if self.strategy == "least_active_connections":
            return min(usable, key=lambda pool: (len(pool.core.lent), pool.id))
        if self.strategy == "weighted_round_robin":
            # smooth weighted round robin: everyone earns its weight, the richest pays the sum
            total = 0
            for pool in usable:
                weight = self._weights.get(pool.id, 255)
                total += weight
                self._credit[pool.id] = self._credit.get(pool.id, 0) + weight
            best = max(usable, key=lambda pool: self._credit[pool.id])
            self._credit[best.id] -= total
            return best
        return usable[self._random.randrange(len(usable))]
