"""How many connections of a pool are lanes: a fixed number, or the one with which most reads get through.

`auto` climbs a hill. While units stand behind others it counts what gets through in windows of WINDOW_S, tries one
step up or down, keeps the step if it was worth it, and rests. Where a number more brings nothing, fewer are better:
every busy backend takes CPU time and caches from the others, and from us when the server is on the same machine.
Nobody can know the server's free cores from here; throughput is the only witness.
"""

from __future__ import annotations

# Long enough for some hundred reads, short enough to be at eight lanes within a second.
WINDOW_S = 0.2
# Shared machines are noisy: a step counts as better only beyond this.
WORTH = 1.08
# After a step that was not worth it, the next one is tried after so many windows.
REST_WINDOWS = 20
# A pool begins with two: a unit that finds one lane busy has another, and two share well on the smallest machine.
FIRST = 2


class LaneCount:
    """`fixed` None: auto, between 1 and `most`."""

    def __init__(self, fixed: int | None, most: int) -> None:
        self.fixed = fixed
        self.most = max(1, most)
        self.allowed = min(self.most, FIRST if fixed is None else fixed)
        self._since = -1.0  # begin of the window; below 0: none is open
        self._before = 0  # units that had ended then
        self._looked = 0.0
        self._rate = 0.0  # of the last window with the number that is tried against
        self._from = 0  # the number a step is tried from; 0: no step is under way
        self._rest = 0
        self._upwards = True
        self._stride = 0  # the next step upwards; 0: half of what there is

    def limit(self, fixed: int | None, most: int) -> None:
        """The configuration has changed."""
        self.fixed, self.most = fixed, max(1, most)
        self.allowed = min(self.most, self.allowed if fixed is None else fixed)
        self._from, self._since = 0, -1.0

    def look(self, now: float, ended: int) -> None:
        """Called now and then while units stand behind others; `ended` counts all units of the pool's lanes."""
        if self.fixed is not None or self.most == 1:
            return
        if self._since < 0 or now - self._looked > WINDOW_S / 2:
            # nobody stood behind anybody in between: what got through then says nothing
            self._since, self._before = now, ended
        self._looked = now
        if now - self._since < WINDOW_S:
            return
        rate = (ended - self._before) / (now - self._since)
        self._since, self._before = now, ended
        self._judge(rate)

    def _judge(self, rate: float) -> None:
        if self._from:
            start, self._from = self._from, 0
            worth = rate > self._rate * WORTH if self.allowed > start else rate * WORTH > self._rate
            if worth:
                # downwards a little is given up with each step: together no more than with one
                self._rate = rate if self.allowed > start else max(rate, self._rate)
                self._stride = 0
                self._step()
                return
            if self._upwards:
                self._stride = (self.allowed - start) // 2  # it went too far, or there is nothing to find
            self.allowed = start
            self._upwards = not self._upwards
            self._rest = REST_WINDOWS
            return
        if self._rest > 0:
            self._rest -= 1
            if self._rest:
                return
        self._rate = rate
        self._step()

    def _step(self) -> None:
        start = self.allowed
        if self._upwards and start == self.most:
            self._upwards = False
        elif not self._upwards and start == 1:
            self._upwards = True
        step = (self._stride or max(1, start // 2)) if self._upwards else -1
        self.allowed = max(1, min(self.most, start + step))
        self._from = start
