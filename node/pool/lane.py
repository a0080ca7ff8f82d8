"""Lanes: server connections on which reads of several clients travel one behind the other.

A *unit* is what ends in one ReadyForQuery. Whether it may share is its session's question (client/weight.py); here is
who owns which byte of a lane, and what happens when its head is slow, its server dies, or a client leaves.

A lane is no kind of connection but something that a connection is while units are under way on it: the first unit makes
it one (`Lanes.choose`), the last reply gives it back to the pool, where whoever waits for a whole connection gets it.

    boarding    the unit is owed in the queue of replies (wire/reply_queue) with its *rider* as the owner. While lanes
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

from node.pool.rider import Passenger, Rider, riders_of
from node.server.connection import Lost, Owner, ServerConnection
from node.server.last_words import is_by_operator, is_last_word, only_notices

if TYPE_CHECKING:
    from node.errors import ServerFault
    from node.stats.pool_counters import PoolCounters

# Riders of one crowd. All of them are answered in one turn of the event loop, and each that leaves is looked for.
CROWD_MAX = 64


class Prepared(Protocol):
    """A named statement that many clients may bind (client/prepared.py)."""

    number: int
    parse: bytes

    def make_room(self, server: ServerConnection, limit: int, owner: object) -> tuple[bytes, list[int]]: ...


class LaneOwner:
    """What all lanes of a pool have in common, and what a lane asks of it (pool/lanes.py)."""

    def __init__(
        self,
        counters: PoolCounters,
        soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float],
    ) -> None:
        self.counters = counters
        self.soon = soon  # calls when the turn of the event loop ends
        self.clock = clock
        self.coalesces = True
        self.prepared_limit = 1 << 62
        self.watching = False  # somebody stood behind another a moment ago
        self.ended = 0  # units answered

    def invite(self, lane: Lane) -> None:
        """Who waits for a connection, and need not have one of its own, boards `lane`."""
        raise NotImplementedError

    def watch(self) -> None:
        """Somebody stands behind another: are the fronts slow?"""
        raise NotImplementedError

    def leave(self, lane: Lane, now: float) -> None:
        """The lane is empty: its connection goes back."""
        raise NotImplementedError

    def forget(self, lane: Lane) -> None:
        """The lane's connection is gone."""
        raise NotImplementedError


class Lane(Owner):
    """One connection while units of several clients are under way on it. Owner of the connection meanwhile."""

    def __init__(self, lanes: LaneOwner, server: ServerConnection) -> None:
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
