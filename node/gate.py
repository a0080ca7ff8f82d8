"""May a transaction start now? The one brake on traffic: PAUSE, MAINTENANCE and rollouts close it, for reasons.

One `Gate` stands before each logical database. A client passes it once per transaction, before planning, so that
whoever waited is planned by the map in force when it opens. `running` counts every transaction begun and not ended,
also one of which no server has seen a byte; when a closed gate counts zero, it is drained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import StrEnum


class Reason(StrEnum):
    """Why a gate is closed. It opens when no reason is left."""

    PAUSE = "pause"
    MAINTENANCE = "maintenance"
    ROLLOUT = "rollout"


class Gate:
    """The brake of one logical database."""

    __slots__ = ("database", "drained", "is_open", "reasons", "running", "waiting")

    def __init__(self, database: str) -> None:
        self.database = database
        self.is_open = True
        self.reasons: set[Reason] = set()
        self.running = 0
        self.waiting: deque[Callable[[], None]] = deque()
        self.drained: list[Callable[[], None]] = []

    def enter(self) -> bool:
        """Counts a transaction in, unless the gate is closed. Whoever entered owes one `leave`."""
        if not self.is_open:
            return False
        self.running += 1
        return True

    def leave(self) -> None:
        self.running -= 1
        if self.running == 0 and self.drained:
            called, self.drained = self.drained, []
            for call in called:
                call()

    def wait(self, call: Callable[[], None]) -> None:
        """`call` runs once, when the gate opens; in the order of waiting."""
        self.waiting.append(call)

    def forget(self, call: Callable[[], None]) -> None:
        """The waiter is gone."""
        try:
            self.waiting.remove(call)
        except ValueError:
            pass

    def when_drained(self, call: Callable[[], None]) -> None:
        """`call` runs as soon as no transaction is running; at once if none is."""
        if self.running == 0:
            call()
        else:
            self.drained.append(call)

    def close(self, reason: Reason) -> None:
        self.reasons.add(reason)
        self.is_open = False

    def open(self, reason: Reason) -> None:
        """Takes one reason away; the last one lets everybody in who waited."""
        self.reasons.discard(reason)
        if self.reasons:
            return
        self.is_open = True
        # Whoever closes the gate again from a callback finds the rest still waiting, in order.
        for _ in range(len(self.waiting)):
            if not self.is_open:
                return
            self.waiting.popleft()()
