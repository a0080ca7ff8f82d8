"""How much this node trusts itself (Lifeguard's local health multiplier).

A proxy whose event loop is late sees everybody else as late. So each sign of our own slowness (a probe that failed, a
nack that did not come, an accusation we had to refute, a late event loop) makes us slower to accuse others.
"""

from __future__ import annotations


class Awareness:
    """A score from 0 (healthy) to `limit`; timeouts are multiplied by score + 1."""

    def __init__(self, limit: int = 8) -> None:
        self._limit = limit
        self.score = 0

    def add(self, delta: int) -> None:
        self.score = max(0, min(self._limit, self.score + delta))

    def lag(self, lag_s: float, tolerable_s: float) -> None:
        """A late event loop lifts the score at once to the multiple of what is tolerable; only success lowers it."""
        self.score = max(self.score, min(self._limit, int(lag_s / tolerable_s)))

    def scale(self, seconds: float) -> float:
        return seconds * (self.score + 1)

    @property
    def stretch(self) -> float:
        """Factor for suspicions, 1 to 3. Our addition: with half of all packets lost every probe fails now and then,
        and a suspicion must outlive the luck needed to refute it; a healthy observer of one crash stays at 1.
        """
        return 1.0 + self.score / 4.0
