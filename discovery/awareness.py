"""How much this node trusts itself (Lifeguard's local health multiplier).

A proxy whose event loop is late sees everybody else as late. So each sign of our own slowness (a probe that failed, a
nack that did not come, an accusation we had to refute, a late event loop) makes us slower to accuse others.
"""

from __future__ import annotations


class Awareness:
    """A score from 0 (healthy) to `limit`; timeouts are multiplied by score + 1."""

    def __init__(self, limit: int, calm_s: float) -> None:
        """Lateness of the event loop is forgotten by one point per `calm_s`; failed probes only by good ones."""
        self._limit = limit
        self._calm_s = calm_s
        self._probes = 0
        self._lag = 0.0
        self._settled = 0.0

    @property
    def score(self) -> int:
        return min(self._limit, self._probes + int(self._lag))

    def add(self, delta: int) -> None:
        self._probes = max(0, min(self._limit, self._probes + delta))

    def lag(self, lag_s: float, tolerable_s: float, now: float) -> None:
        """A late event loop lifts the score at once, by the multiple of what is tolerable."""
        self.settle(now)
        self._lag = max(self._lag, min(float(self._limit), lag_s / tolerable_s))

    def settle(self, now: float) -> None:
        """Let time pass: a loop that runs on time again is as good as before."""
        self._lag = max(0.0, self._lag - max(0.0, now - self._settled) / self._calm_s)
        self._settled = now

    def scale(self, seconds: float) -> float:
        return seconds * (self.score + 1)

    @property
    def stretch(self) -> float:
        """Factor for suspicions, 1 to 3. Our addition: with half of all packets lost every probe fails now and then,
        and a suspicion must outlive the luck needed to refute it; a healthy observer of one crash stays at 1.
        """
        return 1.0 + self.score / 4.0
