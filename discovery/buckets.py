"""Token buckets: how much one source may send before we stop reading it."""

from __future__ import annotations


class Buckets:
    """`rate_per_s` on average and twice that in one burst, per source; the source unheard for longest is forgotten."""

    def __init__(self, rate_per_s: float, sources_limit: int) -> None:
        self._rate = rate_per_s
        self._limit = sources_limit
        self._levels: dict[str, tuple[float, float]] = {}  # source -> (tokens, when)

    def take(self, source: str, now: float) -> bool:
        """True while the source stays within its rate."""
        burst = 2 * self._rate
        tokens, then = self._levels.pop(source, (burst, now))
        tokens = min(burst, tokens + (now - then) * self._rate)
        if len(self._levels) >= self._limit:
            del self._levels[next(iter(self._levels))]
        taken = tokens >= 1.0
        self._levels[source] = (tokens - 1.0 if taken else tokens, now)
        return taken


class Complaints:
    """One log line per cause and ten seconds; the rest is counted."""

    def __init__(self, interval_s: float = 10.0) -> None:
        self._interval_s = interval_s
        self._last: dict[str, float] = {}
        self._silent: dict[str, int] = {}

    def due(self, cause: str, now: float) -> int | None:
        """How many were kept quiet since the last line when it is time for one, else None. Causes are a fixed few."""
        if now - self._last.get(cause, float("-inf")) < self._interval_s:
            self._silent[cause] = self._silent.get(cause, 0) + 1
            return None
        self._last[cause] = now
        return self._silent.pop(cause, 0)
