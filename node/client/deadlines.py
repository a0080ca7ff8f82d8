"""Time-outs by the thousand for the price of one timer.

A login that is over in a millisecond must not pay for a timer of its own, and in a storm thousands of them wait at
once. Who is added with the same time-out runs out of time in the order of coming, so a look at the first in the queue
is enough: nobody walks over those who still have time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

# How late a time-out may be noticed.
TICK_S = 0.1


class Expiring(Protocol):
    def expired(self) -> None:
        """The time is up. Called once, and the entry is gone by then."""


class Deadlines:
    """`later(seconds, call)` runs `call` then; it is asked for while somebody waits, one call at a time."""

    __slots__ = ("_clock", "_later", "_ticking", "_waiting")

    def __init__(self, later: Callable[[float, Callable[[], None]], object], clock: Callable[[], float]) -> None:
        self._later = later
        self._clock = clock
        self._ticking = False
        # By time-out: few of them, only those in force since the oldest entry came. Each queue is in order of expiry.
        self._waiting: dict[float, dict[Expiring, float]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, one: Expiring, timeout_s: float) -> None:
        """`one.expired()` is called after `timeout_s`, at most TICK_S late, unless `discard` comes first."""
        queue = self._waiting.get(timeout_s)
        if queue is None:
            queue = self._waiting[timeout_s] = {}
        queue[one] = self._clock() + timeout_s
        if not self._ticking:
            self._ticking = True
            self._later(TICK_S, self._tick)

    def discard(self, one: Expiring, timeout_s: float) -> None:
        """Nothing happens to who is not here."""
        queue = self._waiting.get(timeout_s)
        if queue is not None:
            queue.pop(one, None)

    def _tick(self) -> None:
        if not any(self._waiting.values()):
            self._waiting.clear()
            self._ticking = False
            return
        self._later(TICK_S, self._tick)
        now = self._clock()
        for queue in list(self._waiting.values()):
            due = []
            for one, deadline in queue.items():
                if deadline > now:
                    break
                due.append(one)
            for one in due:
                if queue.pop(one, None) is not None:  # else the end of another was its end too
                    one.expired()
