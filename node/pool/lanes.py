"""The lanes of one pool: which connection a unit boards, which lane ends, and whose front is slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node.pool.lane import Lane, LaneOwner
from node.pool.rider import Rider

if TYPE_CHECKING:
    from node.pool.lane_count import LaneCount
    from node.pool.pool import Pool
    from node.server.connection import ServerConnection

# Units under way on one lane, those that nobody waits for any more included. More would make a client wait longer
# for those before it than a lane more costs, and a lane's death would send more of them again.
DEPTH_LIMIT = 128
# A front that takes this long is not what its shape has learned (client/weight.py): those behind it go elsewhere.
SLOW_S = 0.025
# How often slow fronts are looked for while somebody stands behind one.
LOOK_EVERY_S = 0.01
# A statement whose client has gone is heard out for so long on the lane, then by the pool, which ends it.
ABANDONED_S = 0.25


class Lanes(LaneOwner):
    """The lanes of one pool: which connection a unit boards."""

    def __init__(self, pool: Pool, count: LaneCount, *, soon: Callable[[Callable[[], None]], object],
                 later: Callable[[float, Callable[[], None]], object], clock: Callable[[], float]) -> None:  # fmt: skip
        super().__init__(pool.counters, soon, clock)
        self.pool = pool
        self.core = pool.core
        self.count = count  # how many connections are lanes
        self.later = later
        self.active: list[Lane] = []

    def choose(self, parameters: object, now: float) -> Lane | None:
        """A lane with these settings: a connection that nobody uses while there may be more lanes, else the shallowest.
        None: the unit asks the pool for a whole connection. `now`: when the unit began, or later."""
        core = self.core
        active = self.active
        if core.paused:
            return None
        best: Lane | None = None
        depth = DEPTH_LIMIT
        boardable = 0
        for lane in active:
            if lane.open:
                boardable += 1
                if lane.depth < depth and lane.parameters is parameters:
                    server = lane.server
                    if server.lifetime_s <= 0 or server.cancelling or server.closed_why is not None:
                        lane.open = False
                    else:
                        best = lane
                        depth = lane.depth
        if core.waiters and best is not None:
            self.invite(best)
            if not best.open:
                best = None
        if core.waiters:
            # Somebody waits for a whole connection: one lane ends for them. The last one does too: then reads queue up
            # with everybody else, first come first served, and the first read whose turn comes opens a lane again.
            if boardable:
                self.end_one()
                if best is not None and not best.open:
                    best = None
            return best
        if best is None or boardable < self.count.allowed:
            opened = self.enter(parameters, now)
            if opened is not None:
                return opened
        return best

    def enter(self, parameters: object, now: float) -> Lane | None:
        """Makes an idle connection with these settings a lane."""
        server = self.pool.acquire_like(parameters, now)
        return None if server is None else self.adopt(server)

    def adopt(self, server: ServerConnection) -> Lane:
        """A connection that is lent already becomes a lane."""
        lane = server.lane
        if not isinstance(lane, Lane) or lane.lanes is not self:  # lanes were switched off and on in between
            lane = server.lane = Lane(self, server)
        entered = lane
        entered.enter()
        self.active.append(entered)
        return entered

    def invite(self, lane: Lane) -> None:
        """Reads at the head of the pool's queue need not wait for a connection of their own: they board `lane`. Whoever
        stands behind somebody who does need one keeps his place."""
        waiters = self.core.waiters
        for _ in range(len(waiters)):
            if not waiters or not lane.open or lane.depth >= DEPTH_LIMIT:
                return
            waiter = waiters[0]
            rider = waiter.borrower
            if not waiter.gone:
                if not isinstance(rider, Rider) or not rider.would_share(lane.parameters):
                    return
                self.counters.wait_time_s += self.clock() - waiter.since
            waiters.popleft()
            if not waiter.gone:
                waiter.gone = True
                rider.invited(lane)  # type: ignore[attr-defined]

    def leave(self, lane: Lane, now: float) -> None:
        """The lane is empty: its connection goes back."""
        self.forget(lane)
        lane.pipeline.shared = False
        self.pool.take_back(lane.server, now)

    def forget(self, lane: Lane) -> None:
        active = self.active
        if len(active) == 1 and active[0] is lane:
            active.clear()
        elif lane in active:
            active.remove(lane)

    def close(self) -> None:
        """Nobody boards any more (RECONNECT, a new configuration); what is under way ends as usual."""
        for lane in self.active:
            lane.open = False

    def end_one(self) -> None:
        """The shallowest lane is to end, unless one is about to. One with a slow front is not."""
        now = self.clock()
        if any(not lane.open and now - lane.front_since <= SLOW_S for lane in self.active):
            return
        open_ones = [lane for lane in self.active if lane.open]
        if open_ones:
            min(open_ones, key=_depth).open = False

    def retire(self, now: float) -> None:
        """Connections that are busy all the time grow old too."""
        for lane in self.active:
            if now - lane.server.created_at > lane.server.lifetime_s:
                lane.open = False
        self.trim()

    def trim(self) -> None:
        """Fewer lanes are wanted than there are, or fewer connections: a lane that is never empty would never end."""
        core = self.core
        open_ones = sorted((lane for lane in self.active if lane.open), key=_depth)
        too_many = len(core.lent) + len(core.idle) - core.size - (len(self.active) - len(open_ones))
        alike: dict[int, int] = {}  # lanes of the same settings; one that is full may have a stand-in
        for lane in open_ones:
            if lane.depth < DEPTH_LIMIT:
                alike[id(lane.parameters)] = alike.get(id(lane.parameters), 0) + 1
        for lane in open_ones:
            there = alike.get(id(lane.parameters), 0)
            if too_many > 0 or there > self.count.allowed:
                lane.open = False
                too_many -= 1
                alike[id(lane.parameters)] = there - 1

    # --- slow fronts -------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Somebody stands behind another: are the fronts slow?"""
        if not self.watching:
            self.watching = True
            self.later(LOOK_EVERY_S, self.look)

    def look(self) -> None:
        self.watching = False
        now = self.clock()
        self.count.look(now, self.ended)
        slow = [lane for lane in self.active if now - lane.front_since > SLOW_S]
        for lane in slow:
            # one that was closed for another reason may still have somebody behind its front
            if lane.depth > 1 and lane.has_others() and self.has_room_besides(slow):
                self.counters.lane_slow += 1
                lane.make_way()
            if lane.front is None and now - lane.front_since > ABANDONED_S:
                self.abandon(lane)
        self.trim()
        open_ones = sum(lane.open for lane in self.active)
        if open_ones < self.count.allowed and not self.core.idle and any(lane.depth > 1 for lane in self.active):
            self.pool.grow(now)
        if any(lane.depth > 1 or lane.front is None for lane in self.active):
            self.watch()

    def has_room_besides(self, slow: list[Lane]) -> bool:
        """Is there a connection on which a unit would be answered sooner than behind a slow front?"""
        core = self.core
        if core.paused:
            return False
        return bool(core.idle) or core.total < core.size or any(lane.open and lane not in slow for lane in self.active)

    def abandon(self, lane: Lane) -> None:
        """What runs on it is nobody's any more: the pool hears it out, or ends it."""
        lane.make_way()
        self.forget(lane)
        lane.pipeline.shared = False
        self.pool.release(lane.server)


def _depth(lane: Lane) -> int:
    return lane.depth
