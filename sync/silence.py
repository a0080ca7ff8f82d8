"""How long a coordinator may be silent before a member succeeds it.

A timer per (rollout, epoch): it starts when the register first shows them, every Stage and Fence starts it again. Its
length is `takeover` plus chance, so that mostly one member acts; two that act at once meet in the register.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sync.rollout import Roll
from sync.settings import SyncSettings

if TYPE_CHECKING:
    from random import Random

INFINITY = float("inf")


class Silence:
    def __init__(self, node: str, settings: SyncSettings, random: Random) -> None:
        self.ends = INFINITY
        self._node = node
        self._settings = settings
        self._random = random
        self._key = (0, 0)

    def listen(self, roll: Roll | None, coordinating: int, now: float) -> bool:
        """The register was read. True when it shows a rollout or a coordinator that is new to this member."""
        if roll is None:
            self._key = (0, 0)
            self.stop()
            return False
        key = (roll.rid, roll.epoch)
        if key == self._key:
            return False
        self._key = key
        if roll.coordinator == self._node and coordinating != roll.rid:
            self.ends = now  # a former life of this very node opened it: nobody else needs to be waited for
        else:
            self.again(now)
        return True

    def heard(self, rid: int, epoch: int, now: float) -> None:
        """A sign of life; one of an older epoch says nothing about the present coordinator."""
        if (rid, epoch) == self._key:
            self.again(now)

    def again(self, now: float) -> None:
        self.ends = now + self._settings.takeover + self._random.random() * self._settings.takeover_jitter

    def stop(self) -> None:
        self.ends = INFINITY
