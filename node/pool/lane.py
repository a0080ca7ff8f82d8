"""Lanes: server connections on which reads of several clients travel one behind the other.

A *unit* is what ends in one ReadyForQuery. Whether it may share is its session's question (client/weight.py); here is
who owns which byte of a lane, and what happens when its head is slow, its server dies, or a client leaves.

A lane is no kind of connection but something that a connection is while units are under way on it: the first unit makes
it one (`Lanes.choose`), the last reply gives it back to the pool, where whoever waits for a whole connection gets it.

    boarding    the unit is owed in the queue of replies (wire/pipeline.py) with its *rider* as the owner. While lanes
                are busy its bytes lie in `outbox` until the turn of the event loop ends: one write for all who boarded
                in that turn; on a quiet pool they are sent at once
    front       the rider whose unit the server answers now; the others stand behind, in the order of boarding
    crowd       a list of riders in a rider's place: identical units of one turn, sent once, answered to each
    left        None in a rider's place: he is gone, was cancelled or has been sent elsewhere; his bytes are dropped

Rules:
* Bytes, errors and notices belong to the front until its ReadyForQuery. A reply that does not fit closes the lane.
* A rider of whose reply nothing was delivered may be *put off*: he gives his unit back and sends it again, elsewhere.
  Only reads ride, so running one twice changes nothing. A rider who has had a byte hears the error.
* Who stood at the front of a server that died without a word may be the reason: he is put off once, and then alone.
* A lane that nobody may board any more (`open` is false) ends with its last reply. It is closed to others when its
  front is slow or does not read (everybody behind is put off), for a cancel request, for RECONNECT, and when somebody
  waits for a whole connection.
* A statement that a unit makes known to the server ahead of itself is known to the others only when that unit has ended
  well: a failed Parse must not be another client's error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from node.errors import ClientFault
from node.server.connection import Lost, Owner, ServerConnection
from node.wire import messages

if TYPE_CHECKING:
    from node.errors import ServerFault
    from node.pool.lane_count import LaneCount
    from node.pool.pool import Pool

# Units under way on one lane, those that nobody waits for any more included. More would make a client wait longer
# for those before it than a lane more costs, and a lane's death would send more of them again.
DEPTH_LIMIT = 128
# Riders of one crowd. All of them are answered in one turn of the event loop, and each that leaves is looked for.
CROWD_MAX = 64
# A front that takes this long is not what its shape has learned (client/weight.py): those behind it go elsewhere.
SLOW_S = 0.025
# How often slow fronts are looked for while somebody stands behind one.
LOOK_EVERY_S = 0.01
# A statement whose client has gone is heard out for so long on the lane, then by the pool, which ends it.
ABANDONED_S = 0.25


class Prepared(Protocol):
    """A named statement that many clients may bind (client/prepared.py)."""

    number: int
    parse: bytes

    def make_room(self, server: ServerConnection, limit: int, owner: object) -> tuple[bytes, list[int]]: ...


class Rider(Owner):
    """A client with a unit on a lane (client/session.py)."""

    writing_paused: bool

    def would_share(self, parameters: object) -> bool:
        """Does a read wait here for a connection that could as well ride on a lane with these settings?"""
        raise NotImplementedError

    def invited(self, lane: Lane) -> None:
        """It need not wait any more: there is this lane. Called when it has left the queue."""
        raise NotImplementedError

    def lane_bytes(self, data: bytes) -> None:
        """The beginning of the reply."""
        raise NotImplementedError

    def lane_reply(self, data: bytes, now: float, took_s: float, size: int) -> None:
        """The end of the reply, and what all of it took. The rider may board again at once."""
        raise NotImplementedError

    def lane_error(self) -> None:
        """The reply has an ErrorResponse in it."""
        raise NotImplementedError

    def put_off(self, blamed: bool) -> None:
        """Nothing was delivered: send it again, elsewhere. `blamed`: it may be the reason why the server died."""
        raise NotImplementedError

    def lane_lost(self, fault: ServerFault, said: bool) -> None:
        """A part was delivered, and no more will come. `said`: the server's last words were part of it."""
        raise NotImplementedError


class Lane(Owner):
    """One connection while units of several clients are under way on it. Owner of the connection meanwhile."""

    def __init__(self, lanes: Lanes, server: ServerConnection) -> None:
        self.lanes = lanes
        self.server = server
        self.pipeline = server.pipeline
        self.parameters = server.parameters
        self.depth = 0  # units under way, those of riders that left included
        self.open = True
        self.front: Passenger = None
        self.front_since = 0.0
        self.front_bytes = 0
        self.heard = False  # the front has had a byte
        self.said = False  # the server's last words were among them
        self.reading_paused = False  # until the front reads
        self.units = 0
        self.errors = 0
        self.outbox: list[bytes] = []
        self.turn: dict[bytes, Rider | list[Rider]] = {}  # who boarded in this turn of the loop with these bytes
        self.unsure: dict[int, int] = {}  # statements made known → the reply after which that is sure
        self.answering: list[Rider] = []  # those of a crowd who have not been told yet how it ended
        self.parting: list[Rider] = []  # who is about to be put off
        self.known: object = None  # the server's table of statements that these are of; after doubts it is another

    def enter(self) -> None:
        """The connection becomes a lane."""
        server, pipeline = self.server, self.pipeline
        server.owner = self
        pipeline.shared = True
        self.parameters = server.parameters
        self.depth = 0
        self.open = True
        self.front = None
        self.units = pipeline.units
        self.errors = pipeline.errors
        # when it was one before, it may have ended in the middle of something
        self.heard = self.said = False
        self.reading_paused = False
        if self.unsure:
            self.unsure.clear()

    # --- riders ------------------------------------------------------------------------------------------------

    def board(self, rider: Rider, data: bytes, count: int, prepared: Prepared | None, now: float) -> None:
        """Sends a unit. `count`: messages before the Sync of a batch, 0 for a Query. `prepared`: the statement that
        it binds by name."""
        pipeline = self.pipeline
        turn = self.turn
        if turn:
            before = turn.get(data)
            if before is not None and not (isinstance(before, list) and len(before) >= CROWD_MAX):
                self.join(before, rider, data)
                return
        ahead = b"" if prepared is None else self.ahead(rider, prepared)
        if count:
            pipeline.owe_unit(count, rider)
        else:
            pipeline.owe_query(rider)
        if ahead:
            # the unit that makes a statement known is the last one owed
            self.unsure[prepared.number] = pipeline.sent  # type: ignore[union-attr]
        counters = self.lanes.counters
        counters.lane_units += 1
        self.depth += 1
        if self.depth == 1:
            self.front = rider
            self.heard = False
            self.front_bytes = 0
            self.front_since = now
        else:
            counters.lane_shared += 1
            self.lanes.watch()
        if not self.outbox:
            if self.depth == 1 and not self.lanes.watching:
                # nobody stood behind another lately, so that nothing would be gained by waiting for the turn's end
                self.send(ahead + data if ahead else data)
                return
            self.lanes.soon(self.flush)
        self.outbox.append(ahead + data if ahead else data)
        if self.lanes.coalesces:
            turn[data] = rider

    def join(self, before: Rider | list[Rider], rider: Rider, data: bytes) -> None:
        """The same bytes are about to be sent for another client in this very turn: one answer serves both, and its
        snapshot is younger than either request."""
        counters = self.lanes.counters
        counters.lane_units += 1
        counters.lane_shared += 1
        counters.lane_coalesced += 1
        if isinstance(before, list):
            before.append(rider)
            return
        crowd = [before, rider]
        self.pipeline.change_owner(before, crowd)
        if self.front is before:
            self.front = crowd
        self.turn[data] = crowd

    def flush(self) -> None:
        """The turn of the loop ends: everything that boarded in it goes to the server."""
        outbox = self.outbox
        if not outbox:
            return
        self.outbox = []
        if self.turn:
            self.turn.clear()
        self.send(outbox[0] if len(outbox) == 1 else b"".join(outbox))

    def send(self, data: bytes) -> None:
        server = self.server
        if server.closed_why is None:
            server.bytes_sent += len(data)
            server.write(data)

    def ahead(self, rider: Rider, prepared: Prepared) -> bytes:
        """What must be sent ahead so that the server knows the statement."""
        server = self.server
        known = server.prepared
        if known is not self.known:
            self.known = known
            self.unsure.clear()
        number = prepared.number
        if known.get(number):
            if len(known) >= self.lanes.prepared_limit:
                known.move_to_end(number)  # room is made by closing the one unused for longest
            return b""
        ahead, _ = prepared.make_room(server, self.lanes.prepared_limit, rider)
        self.pipeline.owe_skipped(rider)
        known[number] = False
        return ahead + prepared.parse

    def leave(self, rider: Rider) -> None:
        """The client has gone or was cancelled: its bytes are dropped."""
        self.turn.clear()
        self.lanes.counters.lane_left += 1
        passenger: Passenger = rider
        for told in (self.answering, self.parting):
            if rider in told:
                told.remove(rider)
        if not self.pipeline.change_owner(rider, None):
            # the front's place may be gone already, when it is what ends the connection
            for crowd in (self.front, *self.pipeline.all_owners()):
                if isinstance(crowd, list) and rider in crowd:
                    crowd.remove(rider)
                    passenger = crowd
                    if not crowd:
                        self.pipeline.change_owner(crowd, None)
        if self.front is passenger:
            if passenger is rider or not riders_of(passenger):
                self.front = None
                self.lanes.watch()
            self.read_on()

    def is_alone_at_front(self, rider: Rider) -> bool:
        """Would a cancel request sent now reach the unit of this rider, and nobody else's?"""
        return self.front is rider

    def may_leave(self, rider: Rider) -> bool:
        """Was nothing of the reply delivered yet, so that another one can take its place?"""
        front = self.front
        return not (self.heard and (front is rider or (isinstance(front, list) and rider in front)))

    def has_others(self) -> bool:
        """Does anybody stand behind the front?"""
        return any(passenger is not self.front for passenger in self.pipeline.all_owners())

    def make_way(self) -> None:
        """The front takes long, does not read, or is about to be cancelled: those behind it go elsewhere, and nobody
        boards any more. Their replies are dropped when they come."""
        self.open = False
        self.turn.clear()
        riders = [rider for rider in self.pipeline.all_owners() if rider is not self.front]
        for rider in riders:
            self.pipeline.change_owner(rider, None)
        self.lanes.counters.lane_resent_slow += sum(len(riders_of(each)) for each in riders)
        self.put_off(riders)

    def put_off(self, passengers: list[Passenger]) -> None:
        for passenger in passengers:
            self.parting += riders_of(passenger)
        while self.parting:
            self.parting.pop(0).put_off(False)

    # --- what the server says ----------------------------------------------------------------------------------

    def from_server(self, server: ServerConnection, data: bytes) -> None:
        """Bytes for the front; perhaps the end of its unit."""
        pipeline = self.pipeline
        front = self.front
        if (pipeline.errors != self.errors or pipeline.broken) and self.is_over(data):
            return
        if pipeline.units == self.units:
            self.front_bytes += len(data)
            if front is not None and data:
                if not self.heard:
                    self.heard = not only_notices(data)
                    if self.heard and self.depth == len(self.outbox):
                        self.heard = False
                        pipeline.broken = data[0]  # the question was not sent yet
                        return
                if isinstance(front, list):
                    for each in list(front):
                        each.lane_bytes(data)
                else:
                    rider = front
                    rider.lane_bytes(data)
                self.pause_if_unread()
            return
        ended = pipeline.units - self.units
        if self.outbox and self.depth - ended < len(self.outbox):
            pipeline.broken = 90  # Z: the answer to a question that was not sent yet
            return
        self.units = pipeline.units
        self.depth -= ended
        self.lanes.ended += ended
        now = self.lanes.clock()
        took_s = now - self.front_since
        size = self.front_bytes + len(data)
        self.front_since = now
        self.front_bytes = 0
        self.heard = False
        self.front = pipeline.head_owner() if self.depth else None
        if self.unsure:
            self.settle_statements()
        if self.reading_paused:
            self.read_on()
        if front is not None:
            if isinstance(front, list):
                self.answering = front
                while front:
                    front.pop(0).lane_reply(data, now, took_s, size)
            else:
                rider = front
                rider.lane_reply(data, now, took_s, size)
        if self.depth == 0 and server.owner is self:
            self.lanes.leave(self, now)

    def is_over(self, data: bytes) -> bool:
        """Looks at an error, or at a reply that does not fit; `data` is for the front. True: the connection ends,
        `server_lost` will come."""
        pipeline = self.pipeline
        self.errors = pipeline.errors
        front = self.front
        last = pipeline.last_error
        if pipeline.broken:
            self.open = False
            return True
        if is_last_word(last):
            # It belongs to him who is being answered. Whatever the server says after it answers nobody.
            self.open = False
            if self.heard:
                self.said = True
                for rider in riders_of(front):
                    rider.lane_bytes(data)
            self.server.close(Lost.SERVER_CLOSED)
            return True
        self.server.errors += 1
        for number in self.unsure:
            self.server.prepared[number] = False
        self.unsure.clear()
        if b"C0A000\0" in last or b"C26000\0" in last:
            # "cached plan must not change result type": parse anew next time
            self.server.doubt_statements()
        for rider in riders_of(front):
            rider.lane_error()
        return False

    def settle_statements(self) -> None:
        done = self.pipeline.done
        known = self.server.prepared
        if known is not self.known:
            self.unsure.clear()
        for number, ordinal in list(self.unsure.items()):
            if ordinal <= done:
                del self.unsure[number]
                if number in known:
                    known[number] = True

    def server_lost(self, server: ServerConnection, fault: ServerFault) -> None:
        """The connection is gone: who has heard nothing tries elsewhere, and nobody notices."""
        # the front comes first, even when the end of its reply was what did not fit
        front, self.front = self.front, None
        others = [passenger for passenger in self.pipeline.all_owners() if passenger is not front]
        blamed = bool(self.pipeline.broken) or not is_by_operator(self.pipeline.last_error)
        self.depth = 0
        self.open = False
        self.outbox = []
        self.turn.clear()
        self.lanes.forget(self)
        self.pipeline.change_owner(front, None)
        for passenger in others:
            self.pipeline.change_owner(passenger, None)
        counters = self.lanes.counters
        self.answering = riders_of(front)
        while self.answering:
            rider = self.answering.pop(0)
            if self.heard:
                rider.lane_lost(fault, self.said)
            else:
                counters.lane_resent_lost += 1
                rider.put_off(blamed)
        counters.lane_resent_lost += sum(len(riders_of(each)) for each in others)
        self.put_off(others)

    def pause_if_unread(self) -> None:
        """A front that does not read: nobody stands behind it, and its server is read no further."""
        if any(rider.writing_paused for rider in riders_of(self.front)):
            if not self.reading_paused:
                self.reading_paused = True
                self.lanes.counters.lane_unread += 1
                self.server.pause_reading()
            self.make_way()

    def read_on(self) -> None:
        """The front reads again, or has gone."""
        if self.reading_paused and not any(rider.writing_paused for rider in riders_of(self.front)):
            self.reading_paused = False
            if self.server.closed_why is None:
                self.server.resume_reading()

    def server_pause(self) -> None:
        """The server takes no more bytes for now."""
        self.open = False


Passenger = Rider | list[Rider] | None
"""Whose a unit is: a rider's, a crowd's, or nobody's any more."""


def riders_of(passenger: Passenger) -> list[Rider]:
    """A list of its own: riders leave crowds while one goes through them."""
    if passenger is None:
        return []
    return list(passenger) if isinstance(passenger, list) else [passenger]


def is_last_word(error: bytes) -> bool:
    """Does the server end after this ErrorResponse? Its field of the severity says so; any other may be anybody's
    text."""
    return _severity_and_code(error)[0] in ("FATAL", "PANIC")


def is_by_operator(error: bytes) -> bool:
    """Class 57, operator intervention, the crash of another backend included: not the statement's fault."""
    severity, code = _severity_and_code(error)
    return severity == "FATAL" and code.startswith("57")


def _severity_and_code(error: bytes) -> tuple[str, str]:
    try:
        fields = messages.parse_error(error)
    except ClientFault:
        return "", ""
    return fields.get("V", fields.get("S", "")), fields.get("C", "")


def only_notices(data: bytes) -> bool:
    """Nothing but NoticeResponse and ParameterStatus: said by a server at any time, no part of a reply."""
    at = 0
    while at + 5 <= len(data):
        if data[at] not in (78, 83):  # N, S
            return False
        at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
    return at == len(data)


class Lanes:
    """The lanes of one pool: which connection a unit boards."""

    def __init__(self, pool: Pool, count: LaneCount, *, soon: Callable[[Callable[[], None]], object],
                 later: Callable[[float, Callable[[], None]], object], clock: Callable[[], float]) -> None:  # fmt: skip
        self.pool = pool
        self.core = pool.core
        self.count = count  # how many connections are lanes
        self.soon = soon  # calls when the turn of the event loop ends
        self.later = later
        self.clock = clock
        self.coalesces = True
        self.prepared_limit = 1 << 62
        self.active: list[Lane] = []
        self.watching = False
        self.ended = 0  # units answered
        self.counters = pool.counters

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
