"""A client's read on a lane (pool/lane.py), together with other clients': boarding, the answer, what may come between.

A read that could not stay on its lane, or lost it before anything of the answer was delivered, is given back in the
client's own bytes and begins anew, on another lane or alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node.client.again import SENT_AGAIN_MAX, weights_of
from node.client.shape import Shape
from node.client.statements import Statements
from node.client.states import READY, RIDING
from node.client.weight import Weight
from node.errors import ClientFault, ServerFault
from node.server.connection import ServerConnection
from node.wire import messages
from node.wire.codes import Frontend, Transaction
from node.wire.requests import Requests

if TYPE_CHECKING:
    from node.client.prepared import Prepared
    from node.client.services import Services
    from node.database import Database
    from node.pool.lane import Lane
    from node.pool.lanes import Lanes
    from node.pool.pool import Pool

# What a statement takes is seen by an event loop that is late itself: by so many of its lags the time may be too long,
# one until the question is sent, one until the answer is read.
LAGS = 2.0

_BIND = int(Frontend.BIND)
_PARSE = int(Frontend.PARSE)
_QUERY = int(Frontend.QUERY)
_TX_IDLE = int(Transaction.IDLE)

# The compiled file reads C integers of these names (riding.pxd).
_READY, _RIDING, _LAGS = READY, RIDING, LAGS


class Riding(Statements):
    """The part of a Session (client/session.py) that shares connections with other clients."""

    def __init__(self, services: Services, database: Database, write: Callable[[bytes], None], now: float) -> None:
        super().__init__(services, database, write)
        self.requests = Requests(services.limits.message_bytes)
        self.state = _READY
        self.pool: Pool | None = None  # that was asked last
        self.reading_paused = False
        self.writing_paused = False
        # a transaction of a sharded database that no server has heard of yet
        self.begin_message = b""
        self.tx_failed = False
        # a read on a lane, in the client's own bytes: given back if it has to be sent again
        self.lane: Lane | None = None
        self.unit = b""
        self.weight: Weight | None = None  # of the unit under way; one that runs alone may learn that it is light
        self.offer: ServerConnection | Lane | None = None  # what the pool had for a read that waited
        self.sent_again = 0
        self.blamed = False  # it stood at the front of a server that died without a word
        # for the console
        self.active_since = 0.0
        self.transaction_since = 0.0
        self.last_request = now
        self.queries = self.transactions = self.errors = 0
        self.query_time_s = self.transaction_time_s = 0.0
        self.bytes_sent = 0

    # --- the rest of the session ---------------------------------------------------------------------------------

    def advance(self) -> None:
        """Goes as far as the bytes and the state allow."""
        raise NotImplementedError

    def waited(self) -> None:
        """The wait in a pool's queue is over."""
        raise NotImplementedError

    def leave(self) -> None:
        """No transaction is open any more: tells the gate."""
        raise NotImplementedError

    def resume_client(self) -> None:
        """Reads on."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the session from our side."""
        raise NotImplementedError

    # --- boarding --------------------------------------------------------------------------------------------------

    def shape_of_query(self, buffer: bytes, start: int, end: int) -> Shape:
        """Of the Query buffer[start:end], which may lack even the zero at its end."""
        raw = buffer
        return self.services.shapes.find(raw[start + 5 : end - 1] if end - start > 5 else b"")

    def share(self, pool: Pool, start: int, end: int) -> bool:
        """Sends the unit that begins with the message buffer[start:end] by a lane of `pool`, if it may share and there
        is one. False: nothing has happened."""
        self.weight = None  # of an earlier unit that never ran: neither its time nor its place is this one's
        layout = self.database.layout
        requests = self.requests
        buffer = raw = requests.buffer  # `raw`: compiled, a cut of C bytes instead of a slice of an object
        if not layout.sharing:
            self.services.want_layout(self.database)
            return False
        if self.writing_paused or self.begin_message or self.tx_failed:
            return False
        prepared: Prepared | None = None
        letter = buffer[start]
        if letter == _QUERY:
            # what follows, if anything, is pipelined: that goes the way on which nothing waits for an answer
            if end != len(buffer):
                return False
            requests.count = 0
            shape = self.shape_of_query(buffer, start, end)
        elif letter in (_BIND, _PARSE) and requests.batch(start):
            if requests.text_at:
                shape = self.services.shapes.find(raw[requests.text_at : requests.text_end])
            else:
                name = raw[requests.name_at : requests.name_end]
                prepared = self.prepared.get(name)
                if prepared is None or name in self.doubtful:
                    return False
                known = prepared.shape
                if known is None:
                    known = prepared.shape = self.services.shapes.find(prepared.sql)
                shape = known
        else:
            return False
        weights = layout.weights
        if weights is None:
            weights = weights_of(layout)
        weight = shape.weight if shape.weighed_in is weights else weights.of(shape)
        assert weight is not None
        if weight.alone is not None:
            return False
        self.weight = weight
        if not weight.is_light() or self.blamed or self.sent_again >= SENT_AGAIN_MAX:
            pool.counters.lane_heavy += 1
            return False
        lanes = pool.lanes
        assert lanes is not None
        lane = self.accept(lanes) if self.offer is not None else lanes.choose(self.parameters, self.transaction_since)
        if lane is None:
            pool.counters.lane_full += 1
            return False
        data = self.unit = buffer if start == 0 else buffer[start:]
        if prepared is not None:
            at, name_at, name_end = requests.bind_at, requests.name_at, requests.name_end
            length = requests.bind_end - at - 1 + len(prepared.name) - (name_end - name_at)
            data = b"".join((
                b"B", length.to_bytes(4, "big"), raw[at + 5 : name_at], prepared.name, raw[name_end : len(buffer)]
            ))  # fmt: skip
        elif requests.count:
            self.unnamed_parse = raw[start : requests.parse_end]
        else:
            self.unnamed_parse = b""
        requests.at = len(buffer)
        self.lane = lane
        self.pool = pool
        self.state = _RIDING
        self.queries += 1
        # a unit that is sent again began long ago, but not on this lane
        since = self.services.clock() if self.sent_again else self.transaction_since
        lane.board(self, data, requests.count, prepared, since)
        return True

    def would_share(self, parameters: object) -> bool:
        """Is what waits here a read that may share a connection with these settings?"""
        weight = self.weight
        return (
            weight is not None
            and weight.is_light()
            and self.parameters is parameters
            and not self.blamed
            and not self.writing_paused
            and self.sent_again < SENT_AGAIN_MAX
        )

    def accept(self, lanes: Lanes) -> Lane | None:
        """The lane we were offered, or a connection that becomes one."""
        offer = self.offer
        if isinstance(offer, ServerConnection):
            if offer.pool is not lanes.pool or offer.parameters is not self.parameters:
                return None
            self.offer = None
            return lanes.adopt(offer)
        self.offer = None
        lane = offer
        return (
            lane
            if lane is not None and lane.open and lane.lanes is lanes
            else lanes.choose(self.parameters, self.transaction_since)
        )

    def invited(self, lane: Lane) -> None:
        """The read that waits for a connection may ride."""
        self.waited()
        self.offer = lane
        self.advance()
        self.offer = None

    # --- on the lane -----------------------------------------------------------------------------------------------

    def lane_bytes(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        self.write(data)

    def lane_reply(self, data: bytes, now: float, took_s: float, size: int) -> None:
        """Our unit on the lane is answered."""
        if self.state != _RIDING:
            return  # closed by what another client's end has caused
        self.bytes_sent += len(data)
        self.write(data)
        weight = self.weight
        assert weight is not None
        weight.learn(self.on_time(took_s), size)
        self.off_the_lane()
        self.last_request = now
        took = now - self.transaction_since
        self.active_since = 0.0
        self.transactions += 1
        self.query_time_s += took
        self.transaction_time_s += took
        pool = self.pool
        assert pool is not None
        counters = pool.counters
        counters.queries += 1
        counters.transactions += 1
        counters.query_time_s += took
        counters.transaction_time_s += took
        self.leave()
        self.go_on()

    def on_time(self, took_s: float) -> float:
        """What of a time is the server's: the event loop was late."""
        return took_s - _LAGS * self.services.lag_s

    def off_the_lane(self) -> None:
        self.state = _READY
        self.lane = None
        self.unit = b""
        self.weight = None
        self.sent_again = 0
        self.blamed = False

    def go_on(self) -> None:
        """The unit is over: what the client has sent since?"""
        if self.state == _READY:
            if self.reading_paused:
                self.resume_client()
            if self.requests.waiting_bytes():
                self.advance()

    def lane_error(self) -> None:
        self.errors += 1

    def put_off(self, blamed: bool) -> None:
        """Our unit is to be sent again: nothing of its answer has come, and as a read it may run twice."""
        if self.state != _RIDING:
            return
        if blamed and self.blamed:
            self.lane_lost(
                ServerFault(
                    "server closed the connection unexpectedly",
                    sqlstate="08006",
                    detail="The statement was running when two servers in turn closed their connection.",
                    severity="FATAL",
                ),
                False,
            )
            return
        again, was_blamed = self.sent_again + 1, self.blamed or blamed
        self.requests.give_back(self.unit)
        self.off_the_lane()
        self.sent_again, self.blamed = again, was_blamed
        self.advance()

    def lane_lost(self, fault: ServerFault, said: bool) -> None:
        if self.state != _RIDING:
            return
        self.errors += 1
        if not said and (self.lane is None or not self.lane.pipeline.rest):
            self.write(messages.error_response(fault))
        self.close()

    def cancellable_lane(self, lane: Lane) -> list[ServerConnection]:
        """The lane's server if it works for this client alone. Whoever can leave the lane is answered here."""
        if lane.is_alone_at_front(self):
            # those behind go elsewhere first: a cancel request that comes late hits nobody
            lane.make_way()
            lane.lanes.counters.lane_cancelled += 1
            return [lane.server]
        if not lane.may_leave(self):
            return []  # part of an answer that others wait for too: its end is on its way
        lane.leave(self)
        lane.lanes.counters.lane_cancelled += 1
        self.off_the_lane()
        self.active_since = 0.0
        self.requests.start = self.requests.at
        self.errors += 1
        self.write(messages.error_response(ClientFault("canceling statement due to user request", sqlstate="57014")))
        self.write(messages.ready_for_query(_TX_IDLE))
        self.leave()
        self.go_on()
        return []
