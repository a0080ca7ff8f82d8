"""May a unit of this shape share a connection with other clients' units, and is it light enough?

Two questions. The first is settled by the statement and the catalogue: it reads, locks nothing, calls nothing volatile.
The second is learned: what it took and how much it said, each time it ran, alone or on a lane. A shape that was not
seen yet runs alone, and so does one that was slow or wide lately: those behind it would wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from node.client.shape import Shape
    from node.routing.catalog import Catalog

# What may be shared is at most this slow and this wide. The clock of the event loop counts in milliseconds.
LIGHT_S = 0.005
LIGHT_BYTES = 32 << 10
# Slow means that one run in nine or more takes longer: on a busy machine any statement waits for a core, or behind a
# lock, now and then, and an average would be of nothing but those. A run that took longer than the estimate raises it
# by the first factor, any other lowers it by the second: above it stay ln FALL / ln(FALL / RISE) of the runs.
# Wide means the widest answer lately.
RISE = 1.5
FALL = 0.95
# Alone, on a connection of its own, a statement is as slow as the many backends make it that run at the same time; on a
# lane it would not be. So of those runs the fastest lately counts: it is forgotten at this rate, run by run, from at
# least a tick of the clock on. What has become ten times slower is heavy some 25 runs later.
FORGOTTEN = 1.1
TICK_S = 0.0005
DECAY = 0.9
# Shapes of one catalogue; beyond that all of them learn anew.
WEIGHTS_MAX = 5000

# The compiled weight reads C numbers of these names (weight.pxd); Python keeps the public ones.
_LIGHT_S, _LIGHT_BYTES, _TICK_S = LIGHT_S, LIGHT_BYTES, TICK_S
_RISE, _FALL, _FORGOTTEN, _DECAY = RISE, FALL, FORGOTTEN, DECAY


class Weight:
    """What one shape has taken. `alone`: why it never shares; None: it may."""

    __slots__ = ("alone", "fastest_s", "runs", "size", "took_s")

    def __init__(self, alone: str | None) -> None:
        self.alone = alone
        self.runs = 0
        self.took_s = 0.0
        self.fastest_s = 1e9
        self.size = 0.0

    def ran_alone(self, took_s: float, size: int) -> None:
        """A run on a whole connection."""
        if took_s < 0:  # of a time of which the lag of the event loop was taken off
            took_s = 0.0
        fastest = self.fastest_s * _FORGOTTEN if self.fastest_s > _TICK_S else _TICK_S * _FORGOTTEN
        self.fastest_s = took_s if took_s < fastest else fastest
        self.learn(self.fastest_s, size)

    def learn(self, took_s: float, size: int) -> None:
        """One more run: from the moment the server had it to the end of its answer, and the answer's bytes."""
        self.runs += 1
        if took_s < _TICK_S:
            took_s = _TICK_S
        if self.runs == 1:
            self.took_s = took_s
        elif took_s > self.took_s:
            self.took_s *= _RISE
            if self.took_s > took_s:
                self.took_s = took_s
        else:
            self.took_s *= _FALL
            if self.took_s < took_s:
                self.took_s = took_s
        wide = self.size * _DECAY
        self.size = size if size > wide else wide

    def is_light(self) -> bool:
        return self.runs > 0 and self.took_s <= _LIGHT_S and self.size <= _LIGHT_BYTES


class Weights:
    """The weights of all shapes under one catalogue."""

    __slots__ = ("catalog", "known")

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.known: dict[Shape, Weight] = {}

    def of(self, shape: Shape) -> Weight:
        weight = self.known.get(shape)
        if weight is None:
            if len(self.known) >= WEIGHTS_MAX:
                self.known.clear()
            weight = self.known[shape] = Weight(shape.why_alone(self.catalog))
        # others with the same text, in another database, take turns at this place
        shape.weighed_in, shape.weight = self, weight
        return weight
