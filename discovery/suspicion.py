"""How long a suspect may stay one (Lifeguard, Dadgar et al. 2017, LHA-Suspicion).

A suspicion starts long and gets shorter with every *independent* accuser: one slow accuser cannot kill, many can
quickly. `timeout = max(min, max - (max - min) * log(C + 1) / log(K + 1))` with C confirmations of K expected.
"""

from __future__ import annotations

import math


def minimum_timeout_s(multiplier: float, members: int, probe_interval_s: float) -> float:
    """`multiplier * max(1, log10 N) * probe interval`: news needs log N rounds to reach the accused and come back."""
    return multiplier * max(1.0, math.log10(max(1, members))) * probe_interval_s


def expected_confirmations(wanted: int, members: int) -> int:
    """Accusers beside the first that shorten the wait. 0 where the flock has too few members to provide them."""
    return wanted if members - 2 >= wanted else 0


class Suspicion:
    """One member's open suspicion; dropped when the member refutes it, turned into a death at its deadline."""

    def __init__(self, accuser: str, now: float, *, minimum_s: float, maximum_s: float, expected: int) -> None:
        self.started = now
        self._minimum_s = minimum_s
        self._maximum_s = maximum_s
        self._expected = expected
        self._accusers = {accuser: None}  # a dict: ordered, and iteration never depends on hash seeds

    @property
    def confirmations(self) -> int:
        return len(self._accusers) - 1

    def confirm(self, accuser: str) -> bool:
        """Count an accuser once. True when it was news worth passing on; beyond K nobody needs to hear more."""
        if accuser in self._accusers or self.confirmations >= self._expected:
            return False
        self._accusers[accuser] = None
        return True

    def timeout_s(self) -> float:
        if self._expected < 1:
            return self._minimum_s
        share = math.log(self.confirmations + 1) / math.log(self._expected + 1)
        return max(self._minimum_s, self._maximum_s - (self._maximum_s - self._minimum_s) * share)

    def deadline(self, stretch: float = 1.0) -> float:
        """When the suspect is declared dead. `stretch` >= 1 grows while this node doubts its own health."""
        return self.started + self.timeout_s() * stretch

    def forgive(self, seconds: float) -> None:
        """Time during which this process did not run does not count against the suspect."""
        self.started += seconds
