"""One client, from its login to its end: which server it has, what it waits for, what it left behind.

A session is in exactly one state, and the state tells the gear:

    READY     fast gear: callbacks. Without a server (`server is None`) the next message begins a transaction;
              with one, bytes pass (`pump`).
    WAITING   fast gear: at the gate or in a pool's queue. The message that began it is still unread in `requests`.
    RIDING    fast gear: a read of ours is under way on a lane, together with other clients' (pool/lane.py).
    SLOW      a coroutine of client/slow.py has the session; it ends by calling `slow_done`.
    CLOSED    the end.

Questions at a transaction's start, in this order: gate → plan → acquire → link. A session that could not go on gives
the message back (`requests.at = requests.start`) and starts over from the gate, so nothing planned by an old map is
ever sent. A server goes back to its pool when it owes nothing and its last ReadyForQuery said I.

On a database with one shard messages are forwarded as they come. On a sharded one (`routed`) a *unit* is planned as a
whole: a Query, or an extended batch up to its Sync; one that needs a single shard goes the same way as above, any
other is handed to the slow gear.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from node.client.again import KEPT_BYTES, PIPELINED_BYTES, is_blamed, units_left
from node.client.riding import Riding
from node.client.shape import Shape
from node.client.states import CLOSED as CLOSED
from node.client.states import EMPTY as EMPTY
from node.client.states import READY as READY
from node.client.states import RIDING as RIDING
from node.client.states import SLOW as SLOW
from node.client.states import WAITING as WAITING
from node.errors import ClientFault, Fault, ServerFault
from node.pool.lane import is_last_word, only_notices
from node.pool.pool import PoolClosed, PoolDown
from node.routing.hints import NONE as NO_HINTS
from node.routing.outcome import Role
from node.server.connection import IDLE, Lost, ServerConnection
from node.server.conversation import Conversation
from node.wire import messages
from node.wire.codes import Frontend, Transaction
from node.wire.pipeline import (
    CONTINUED,
    NOTHING,
    RING_ENTRIES,
    TOO_LONG,
)

if TYPE_CHECKING:
    from node.auth.verifier import Account
    from node.client.enlist import Told
    from node.client.execute import Portal
    from node.client.ride import Rides
    from node.client.services import Services
    from node.database import Database
    from node.pool.balancer import Balancer
    from node.pool.core import Waiter
    from node.pool.pool import Pool
    from node.routing.catalog import Catalog

log = logging.getLogger("pgmurmur.client")

# A client that sends while it cannot be served is read up to here and then no further.
UNREAD_BYTES = 256 << 10
# A read that found so many targets down is told of the last one.
MOVED_MAX = 20
# Entries of the server's reply queue that one message may need (Close and Parse ahead of a Bind).
_ROOM = 8
_FULL = RING_ENTRIES - _ROOM

_BIND = int(Frontend.BIND)
_CLOSE = int(Frontend.CLOSE)
_COPY_DATA = int(Frontend.COPY_DATA)
_COPY_DONE = int(Frontend.COPY_DONE)
_COPY_FAIL = int(Frontend.COPY_FAIL)
_DESCRIBE = int(Frontend.DESCRIBE)
_EXECUTE = int(Frontend.EXECUTE)
_FLUSH = int(Frontend.FLUSH)
_FUNCTION_CALL = int(Frontend.FUNCTION_CALL)
_PARSE = int(Frontend.PARSE)
_QUERY = int(Frontend.QUERY)
_SYNC = int(Frontend.SYNC)
_TERMINATE = int(Frontend.TERMINATE)
_COPY = frozenset((_COPY_DATA, _COPY_DONE, _COPY_FAIL, CONTINUED))
_OTHERS = _COPY | {_FLUSH, _SYNC, _TERMINATE}

# Messages that cannot be long; a server ends the connection of a client whose Sync is (PQ_SMALL_MESSAGE_LIMIT).
SMALL_BYTES = 10_000
_SMALL = frozenset((_CLOSE, _COPY_DONE, _COPY_FAIL, _DESCRIBE, _EXECUTE, _FLUSH, _SYNC, _TERMINATE))

# The compiled session reads C integers of these names (session.pxd); Python keeps the public ones.
_READY, _WAITING, _SLOW, _CLOSED, _RIDING = READY, WAITING, SLOW, CLOSED, RIDING
_NOTHING, _TOO_LONG, _SMALL_BYTES, _IDLE, _KEPT_BYTES = NOTHING, TOO_LONG, SMALL_BYTES, IDLE, KEPT_BYTES

_TX_IDLE = int(Transaction.IDLE)
_TX_OPEN = int(Transaction.OPEN)
_TX_FAILED = int(Transaction.FAILED)


# client/routed.py imports this file; asking for it with every unit would cost more than routing
_begin_routed: Callable[[Session], bool] | None = None


class Shell(Protocol):
    """What a session gets of its socket, beside `write` (client/protocol.py)."""

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def hang_up(self) -> None:
        """Ends the connection once the client has read what was written."""

    def address(self) -> tuple[str, int]:
        """Where the client is."""


def _begins(letter: int) -> bool:
    """Does a transaction begin with it?"""
    return letter in (_QUERY, _BIND, _PARSE, _EXECUTE, _DESCRIBE, _CLOSE, _FUNCTION_CALL)


class Session(Riding):
    """Sans-IO: the shell (client/protocol.py) passes bytes in."""

    def __init__(
        self,
        number: int,
        services: Services,
        account: Account,
        database: Database,
        *,
        write: Callable[[bytes], None],
        shell: Shell,
        now: float,
    ) -> None:
        super().__init__(services, database, write, now)
        self.id = number
        self.account = account
        self.gate = database.gate
        self.shell = shell
        self.server: ServerConnection | None = None
        self.waiter: Waiter | None = None
        self.entered = False  # counted in by the gate
        self.discarding = False  # an error was answered; everything up to the next Sync is skipped
        # what the client has made of its session
        self.startup: dict[str, str] = {}
        self.application_name = ""
        self.tracked: tuple[str, ...] = ()  # names whose values are asked for after a SET
        self.must_ask = False
        self.redefined = False  # the transaction changed what statements mean
        self.torn_copy = False  # the server has got the beginning of a CopyData message and waits for the rest
        self.asking = False  # inside `acquire`
        self.reset_settings: tuple[str, ...] = ()
        self.errors_before = 0
        # a transaction of a sharded database
        self.shard = -1
        self.links: Mapping[int, ServerConnection] = EMPTY  # the slow gear's servers in a transaction over shards
        self.wrote: frozenset[int] = frozenset()  # shards of that transaction that may have changed
        self.story: tuple[Told, ...] = ()  # what a shard that joins that transaction must hear first
        self.cursors: Mapping[str, int] = EMPTY  # the shards they were declared on
        self.portals: Mapping[bytes, Portal] = EMPTY  # that the slow gear holds between two units of a transaction
        self.rides: Rides | None = None  # the slow gear's read on lanes of several shards
        self.changed_schema = False
        self.catalog: Catalog | None = None  # what that transaction made of it
        self.hints = NO_HINTS  # SET pgdog.shard and its kin, startup parameters
        self.unit_role = Role.PRIMARY
        # units on a whole connection, likewise given back if they have to be sent again (client/again.py)
        self.kept = b""  # they are kept[kept_at:kept_end]; kept_end == 0: nothing is kept
        self.kept_at = self.kept_end = 0
        self.kept_units = 0  # ReadyForQuery messages of that connection before them
        self.fresh = False  # nothing was sent since the connection was lent
        self.begun = False  # a part of the reply that is coming was delivered
        self.withheld = b""  # the server's last words, until it is known whether anybody has to hear them
        self.moved = 0  # pools that were down for this transaction
        self.stop_at = 0  # end of the unit that may be forwarded; 0: everything may
        # cancel key
        self.pid = 0
        self.secret = b""
        # for the console
        self.connected_at = now
        self.linked_at = now
        self.bytes_before = 0
        self.transactions_2pc = 0
        self.wait_time_s = 0.0
        self.bytes_received = 0
        self.on_closed: Callable[[Session], None] | None = None
        self.on_resumed: Callable[[], None] | None = None  # a coroutine waits for the client to read

    # --- the client's side ---------------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        """Bytes from the client's socket."""
        self.bytes_received += len(data)
        self.requests.feed(data)
        if self.state == _READY:
            self.advance()
        elif self.requests.waiting_bytes() > UNREAD_BYTES:
            self.pause_client()
        if self.state == _SLOW and self.services.slow_waiting(self):
            self.services.slow_feed(self)

    def advance(self) -> None:
        """Goes as far as the bytes and the state allow."""
        while self.state == _READY:
            try:
                if self.database.routed:
                    if not self.begin_routed():
                        return
                elif self.server is not None:
                    if not self.pump():
                        return
                elif not self.begin():
                    return
            except Fault as fault:
                if self.requests.at == self.requests.start:
                    self.requests.next()  # the message at fault was only looked at so far
                self.fail(fault)

    def client_lost(self) -> None:
        """The client's socket is gone."""
        self.end()

    def pause_client(self) -> None:
        if not self.reading_paused:
            self.reading_paused = True
            self.shell.pause_reading()

    def resume_client(self) -> None:
        if self.reading_paused:
            self.reading_paused = False
            self.shell.resume_reading()

    def client_pause(self) -> None:
        """The client does not read: its server is read no further either."""
        self.writing_paused = True
        if self.server is not None and self.server.closed_why is None:
            self.server.pause_reading()  # on a lane it depends on who stands behind us: the lane looks after each write

    def client_resume(self) -> None:
        self.writing_paused = False
        if self.on_resumed is not None:
            self.on_resumed()
        if self.server is not None and self.server.closed_why is None:
            self.server.resume_reading()
        elif self.lane is not None:
            self.lane.read_on()

    # --- beginning -------------------------------------------------------------------------------------------------

    def begin(self) -> bool:
        """Without a server: looks at the next message. True: go on; False: wait for bytes or for somebody."""
        requests = self.requests
        letter = requests.next()
        if letter == _NOTHING:
            if requests.need:
                self.look_at_torn()
            return False
        if self.discarding or not _begins(letter):
            return self.unlinked(letter)
        if not self.enter():
            return False
        database = self.database
        pool = database.only
        if pool is None:
            if database.routed:
                requests.at = requests.start
                return True
            pool = self.asked(database.balancers[0]) or self.choose(letter)
        if pool.lanes is not None and self.share(pool, requests.start, requests.end):
            return False
        return self.acquire(pool)

    def enter(self) -> bool:
        """Passes the gate, and looks at the world as it is now. False: waiting; the message was given back."""
        if not self.entered:
            if not self.gate.enter():
                self.requests.at = self.requests.start
                self.wait_at_gate()
                return False
            self.entered = True
            self.transaction_since = self.active_since = self.services.clock()
            self.moved = 0
            if self.database.epoch != self.services.epoch:
                self.move()
        return True

    def acquire(self, pool: Pool) -> bool:
        """Asks `pool` for a server. True: linked. False: waiting in its queue; the message was given back."""
        self.requests.at = self.requests.start
        self.pool = pool
        server = pool.acquire(self.transaction_since) if self.offer is None else self.offered(pool)
        if server is not None:
            return self.link(server)
        self.state = _WAITING
        self.active_since = self.services.clock()
        self.asking = True
        self.waiter = pool.wait(self)
        self.asking = False
        return self.state == _READY

    def move(self) -> None:
        """The configuration has changed since the last transaction: the same database, as it is defined now."""
        database = self.services.database(self.account.user, self.database.name)
        if database.gate is not self.gate:
            self.gate.leave()
            self.gate = database.gate
            self.gate.running += 1
        self.database = database
        self.managed = database.manages_statements
        server = self.server
        if server is not None and server.pool is not None and server.pool.closed:
            raise ClientFault(
                "terminating connection because the configuration of its database changed",
                sqlstate="57P01",
                hint="reconnect",
                severity="FATAL",
            )

    def moves_on(self, fault: Exception) -> bool:
        """Was it refused because its pool went with an older configuration, and does the one in force route alike, so
        that what was planned may ask the new pool? Or because a replica is gone, which is banned by now, so that a read
        may ask another target? Raises ClientFault when its database is gone."""
        if isinstance(fault, PoolDown):
            self.moved += 1
            return fault.is_banned and self.moved <= MOVED_MAX
        if not isinstance(fault, PoolClosed) or self.database.epoch == self.services.epoch:
            return False
        before = self.database.topology
        self.move()
        return self.database.topology == before

    def choose(self, letter: int) -> Pool:
        """Primary or replica, by what the first statement is."""
        shape: Shape | None = None
        requests = self.requests
        body = requests.buffer[requests.start + 5 : requests.end]
        if letter == _QUERY:
            shape = self.services.shapes.find(body[:-1])
        elif letter == _PARSE:
            shape = self.services.shapes.find(messages.parse_parse(body).sql)
        elif letter in (_BIND, _DESCRIBE):
            name = b"".join(body.split(b"\0", 2)[1:2]) if letter == _BIND else body[1:-1]
            prepared = self.prepared.get(name)
            if prepared is not None:
                shape = self.services.shapes.find(prepared.sql)
            elif self.unnamed_parse:
                shape = self.services.shapes.find(messages.parse_parse(self.unnamed_parse[5:]).sql)
        role = (self.services.shapes.hints().role if shape is not None else None) or self.hints.role
        balancer = self.database.balancers[0]
        if role == "primary" or (role is None and (shape is None or not self.database.may_read_elsewhere(shape))):
            return balancer.write()
        return balancer.read(self.services.clock())

    def unlinked(self, letter: int) -> bool:
        """A message that needs no server."""
        if letter == _TOO_LONG:
            raise self.too_long()
        if letter == _TERMINATE:
            self.close()
            return False
        if letter == _SYNC:
            self.discarding = False
            self.write(messages.ready_for_query(self.tx_status))
            return True
        if letter == _FLUSH and not self.discarding and self.requests.end - self.requests.start != 5:
            raise ClientFault("invalid message format", sqlstate="08P01")
        # Flush has nothing to flush; copy messages are what is left of a COPY that has ended in an error.
        if self.discarding or letter == _FLUSH or letter in _COPY:
            return True
        if letter == _FUNCTION_CALL:  # of a sharded database: large objects, mostly
            raise ClientFault(
                "a function call by protocol is not supported on a sharded database",
                sqlstate="0A000",
                detail="Nothing tells which shard it is for.",
                hint="use a database with one shard for it",
            )
        raise ClientFault(f"invalid frontend message type {letter}", sqlstate="08P01", severity="FATAL")

    @property
    def tx_status(self) -> int:
        """What a ReadyForQuery of ours has to say."""
        if self.tx_failed:
            return _TX_FAILED
        if self.begin_message or self.links:
            return _TX_OPEN
        return self.server.pipeline.tx_status if self.server is not None else _TX_IDLE

    # --- waiting ---------------------------------------------------------------------------------------------------

    def wait_at_gate(self) -> None:
        self.state = _WAITING
        self.waiter = None
        self.active_since = self.services.clock()
        self.gate.wait(self.gate_opened)

    def gate_opened(self) -> None:
        if self.state == _WAITING:
            self.wait_time_s += self.services.clock() - self.active_since
            self.active_since = 0.0
            self.state = _READY
            self.resume_client()
            self.advance()

    def granted(self, server: ServerConnection) -> None:
        """The pool has a server for us."""
        self.waited()
        if self.pool is not None and self.pool.lanes is not None and self.would_share(server.parameters):
            # a read that may share: the connection becomes a lane, for those behind us too
            self.offer = server
            self.advance()
            offer, self.offer = self.offer, None
            if isinstance(offer, ServerConnection) and offer.pool is not None:
                offer.pool.release(offer)  # the world has changed
            elif self.lane is not None:
                self.lane.lanes.invite(self.lane)
        elif self.link(server):
            self.advance()

    def asked(self, balancer: Balancer) -> Pool | None:
        """The pool that has just offered something, if it still is one of this shard's: choosing anew could mean
        waiting at another one, again and again."""
        return self.pool if self.offer is not None and self.pool in balancer.pools else None

    def offered(self, pool: Pool) -> ServerConnection | None:
        """The connection we were offered, if it is one of this pool."""
        offer = self.offer
        if isinstance(offer, ServerConnection) and offer.pool is pool:
            self.offer = None
            return offer
        return pool.acquire(self.services.clock())

    def waited(self) -> None:
        """The wait in a pool's queue is over."""
        self.wait_time_s += self.services.clock() - self.active_since
        self.active_since = 0.0
        self.waiter = None
        self.state = _READY
        self.resume_client()

    def refused(self, fault: Exception) -> None:
        """The pool has none. By client_connection_recovery the client stays or goes."""
        self.waiter = None
        self.weight = None  # it does not run: the next unit's time is not its own
        self.state = _READY
        self.resume_client()
        try:
            moved = self.moves_on(fault)
        except ClientFault as gone:
            moved, fault = False, gone
        if moved:  # the message was given back: the same again, at another pool
            if not self.asking:
                self.advance()
            return
        self.sent_again = 0
        self.blamed = False
        known = fault if isinstance(fault, Fault) else ServerFault(str(fault), sqlstate="58000")
        if self.services.drops_refused_clients and known.sqlstate not in ("57014", "57P03"):
            known.severity = "FATAL"
        self.requests.next()
        self.fail(known)
        if not self.asking:  # else `advance` goes on by itself
            self.advance()

    def stop_waiting(self) -> None:
        if self.waiter is not None and self.pool is not None:
            self.pool.forget(self.waiter)
            self.waiter = None
        else:
            self.gate.forget(self.gate_opened)

    # --- linked ----------------------------------------------------------------------------------------------------

    def link(self, server: ServerConnection) -> bool:
        """Takes the server. False: its settings differ from ours, the slow gear sees to it first."""
        self.server = server
        server.owner = self
        self.unnamed_on = None
        self.errors_before = server.pipeline.errors
        self.last_request = self.linked_at = self.services.clock()
        self.bytes_before = self.bytes_sent
        self.fresh = not self.begin_message
        self.withheld = b""
        if self.writing_paused:
            server.pause_reading()
        if server.parameters is not self.parameters:
            self.state = _SLOW
            self.services.slow_replay(self)
            return False
        if self.begin_message:
            self.send_begin(server)
        return True

    def relink(self, shard: int, server: ServerConnection) -> None:
        """The slow gear gives back the one server of an open transaction."""
        self.fresh = False
        self.shard = shard
        self.server = server
        server.owner = self
        self.unnamed_on = None
        self.errors_before = server.pipeline.errors
        if self.writing_paused:
            server.pause_reading()

    def send_begin(self, server: ServerConnection) -> None:
        """The transaction has begun long ago as far as the client knows."""
        server.pipeline.owe_skipped_query(self)
        server.write(self.begin_message)

    def pump(self) -> bool:
        """Forwards what was received to the linked server. True: look again; False: wait."""
        requests, server = self.requests, self.server
        assert server is not None
        pipeline = server.pipeline
        if not self.entered and requests.waiting_bytes():
            requests.start = requests.at
            if not self.enter():
                return False
        buffer = requests.buffer
        first = run = upto = requests.at  # buffer[run:upto] passes as it is
        pieces: list[bytes] | None = None
        again = False
        stop_at = self.stop_at
        if not self.active_since:
            self.active_since = self.services.clock()
        large = len(buffer) - run > _SMALL_BYTES
        try:
            while stop_at == 0 or upto < stop_at:
                letter = requests.next()
                if letter == _NOTHING:
                    if requests.need:
                        self.look_at_torn()
                    break
                start, end = requests.start, requests.end
                replacement: bytes | None = None
                if large and end - start > _SMALL_BYTES and letter in _SMALL:
                    raise self.too_large(letter, end - start - 1)
                if self.torn_copy:  # the rest of a CopyData message: its beginning is there already
                    self.torn_copy = requests.rest > 0
                elif letter == _TOO_LONG:
                    raise self.too_long()
                elif self.discarding and letter != _SYNC:
                    replacement = b""
                    if letter == _TERMINATE:
                        letter = -1
                elif letter == _QUERY:
                    # a unit of a sharded database that came this far is known to be plain
                    shape = None if stop_at else self.shape_of_query(buffer, start, end)
                    if shape is not None and not shape.plain and not self.special(shape, _QUERY):
                        again = requests.at != start  # answered here: go on; given back: wait until all is settled
                        run = self.flush(buffer, run, upto, end, pieces)
                        pieces = None
                        upto = end if again else upto
                        break
                    pipeline.owe_query(self)
                    self.queries += 1
                    self.unnamed_parse = b""
                elif letter == _EXECUTE:
                    pipeline.owe()
                    self.queries += 1
                elif letter == _SYNC:
                    self.discarding = False
                    pipeline.owe_sync(self)
                elif letter == _PARSE:
                    replacement = self.on_parse(server, buffer, start, end)
                elif letter == _BIND:
                    replacement = self.on_bind(server, buffer, start, end)
                elif letter in (_DESCRIBE, _CLOSE):
                    replacement = self.on_name(server, letter, buffer, start, end)
                elif letter == _FUNCTION_CALL:
                    pipeline.owe_query(self)
                elif letter in _COPY:
                    if pipeline.done == pipeline.sent and not pipeline.batch:
                        replacement = b""  # what is left of a COPY that has failed
                    else:
                        self.torn_copy = requests.rest > 0
                        if letter in (_COPY_DONE, _COPY_FAIL):
                            pipeline.copy_ended()
                elif letter == _FLUSH:
                    if end - start != 5:
                        pipeline.owe()  # an error, and what follows is discarded up to the next Sync, a Query too
                else:
                    letter = -1 if letter == _TERMINATE else -2
                if letter == -1:
                    self.flush(buffer, run, upto, upto, pieces)
                    self.close()
                    return False
                if letter == -2:
                    raise self.protocol_violation()
                upto = end
                if replacement is not None:
                    if pieces is None:
                        pieces = []
                    if start > run:
                        pieces.append(buffer[run:start])
                    if replacement:
                        pieces.append(replacement)
                    run = end
                if pipeline.room() < _ROOM:
                    self.pause_client()
                    break
        except ClientFault as fault:
            # What stands before it is owed already. An error of ours that overtook its replies, or left a transaction
            # open that PostgreSQL would have failed, would be a lie: then it ends the session.
            self.flush(buffer, run, upto, upto, pieces)
            if not pipeline.idle() or pipeline.tx_status != _IDLE:
                fault.severity = "FATAL"
            raise
        self.flush(buffer, run, upto, upto, pieces)
        if self.fresh:
            self.fresh = self.begun = False
            self.kept = buffer
            self.kept_at = first
            self.kept_end = upto if upto - first <= _KEPT_BYTES else 0
            self.kept_units = pipeline.units
        elif self.kept_end and upto > first:
            self.keep_more(buffer, first, upto)
        if stop_at and upto >= stop_at:
            self.stop_at = 0
        if self.server is server and pipeline.done == pipeline.sent and pipeline.idle() and not self.torn_copy:
            self.settle()
            return self.state == _READY and requests.waiting_bytes() > 0 and (again or self.server is None)
        return again

    def keep_more(self, buffer: bytes, first: int, upto: int) -> None:
        """buffer[first:upto] was forwarded behind what is under way."""
        if self.kept_end - self.kept_at + upto - first > PIPELINED_BYTES:
            self.forget_kept()
        else:
            self.kept = self.kept[self.kept_at : self.kept_end] + buffer[first:upto]
            self.kept_at = 0
            self.kept_end = len(self.kept)

    def forget_kept(self) -> None:
        self.kept = b""
        self.kept_at = self.kept_end = 0

    def flush(self, buffer: bytes, run: int, upto: int, next_run: int, pieces: list[bytes] | None) -> int:
        """Writes what passes; the next run begins at `next_run`."""
        server = self.server
        if server is None:
            return next_run
        if pieces is None:
            if upto <= run:
                return next_run
            data = buffer if run == 0 and upto == len(buffer) else buffer[run:upto]
        else:
            if upto > run:
                pieces.append(buffer[run:upto])
            data = b"".join(pieces)
            if not data:
                return next_run
        server.bytes_sent += len(data)
        server.write(data)
        return next_run

    def from_server(self, server: ServerConnection, data: bytes) -> None:
        """Bytes for the client; and, when nothing more is owed, the end of a unit."""
        pipeline = server.pipeline
        if pipeline.errors != self.errors_before and data:
            data = self.withhold(server, data)
        if data:
            self.bytes_sent += len(data)
            self.write(data)
        if pipeline.done == pipeline.sent and pipeline.idle() and not self.torn_copy:
            self.settle()
            if self.state == _READY:
                # a server that is not ours any more will not tell when it takes bytes again
                if self.reading_paused and (self.server is None or not server.writing_paused):
                    self.resume_client()
                if self.requests.waiting_bytes():
                    self.advance()
            return
        if self.kept_end and data and not only_notices(data):
            self.begun = len(data) > pipeline.whole
        if self.reading_paused and not server.writing_paused and pipeline.room() > _FULL // 2:
            self.resume_client()
            if self.state == _READY:
                self.advance()

    def server_pause(self) -> None:
        self.pause_client()

    def server_resume(self) -> None:
        if self.state == _READY:
            self.resume_client()

    def withhold(self, server: ServerConnection, data: bytes) -> bytes:
        """There is an error in `data`. If it is what a server says before it ends, nothing of that is passed on before
        the end: perhaps the unit can be sent again. Returns what the client may read now."""
        pipeline = server.pipeline
        last = pipeline.last_error
        if not data.endswith(last) or not is_last_word(last):
            return data
        cut = len(data) - len(last) - 5
        if self.kept_end and (pipeline.whole or not self.begun):
            cut = pipeline.whole
            self.begun = False
        self.withheld = data[cut:]
        server.close(Lost.SERVER_CLOSED)
        return data[:cut]

    def server_lost(self, server: ServerConnection, fault: ServerFault) -> None:
        """The link is gone. What may run twice is sent again; else the client hears one error: the server's own last
        words if it had any."""
        if self.state == _CLOSED:
            return
        self.server = None
        withheld, self.withheld = self.withheld, b""
        if self.kept_end and self.state == _READY and self.send_again(server):
            return
        if withheld:
            self.errors += 1
            self.bytes_sent += len(withheld)
            self.write(withheld)
            self.close()
            return
        pipeline = server.pipeline
        last = pipeline.last_error
        said = pipeline.errors != self.errors_before and is_last_word(last)
        said = said and pipeline.skip_error[5:] != last
        self.errors += 1
        if not said and not pipeline.rest:
            self.write(messages.error_response(fault))
        self.close()

    def send_again(self, server: ServerConnection) -> bool:
        """Nothing was heard of the units under way: if all are reads, they are given back and begin anew."""
        units = units_left(self, server)
        if not units:
            return False
        pool = server.pool
        assert pool is not None
        pool.counters.lane_resent_lost += len(units)
        self.forget_kept()
        if server.pipeline.errors != self.errors_before:
            self.doubtful |= frozenset(self.unit_names)
        self.unit_names = self.unit_parsed = ()
        self.sent_again += 1
        self.blamed = self.blamed or is_blamed(server)
        self.stop_at = 0
        self.weight = None
        self.requests.give_back(b"".join(units))
        self.resume_client()
        self.advance()
        return True

    def settle(self) -> None:
        """The server owes nothing. Outside a transaction it goes back to its pool, unless something pins it."""
        server = self.server
        assert server is not None
        pipeline = server.pipeline
        if self.forget_statements or self.redefined:
            self.after_changes(server)
        if pipeline.errors != self.errors_before:
            self.after_errors(server)
        if self.unit_names:
            self.unit_names = self.unit_parsed = ()
        if self.kept_end:
            self.kept = b""
            self.kept_end = 0
        self.fresh = False
        if self.sent_again:
            self.sent_again = 0
            self.blamed = False
        self.last_request = now = self.services.clock()
        pool = server.pool
        assert pool is not None
        counters = pool.counters
        if self.weight is not None:
            # a read that might have shared, and did not since nobody knew, or had forgotten, that it is light
            alone_s = self.on_time(now - self.linked_at)
            self.weight.ran_alone(alone_s, self.bytes_sent - self.bytes_before)
            self.weight = None
        if self.active_since:
            took = now - self.active_since
            self.active_since = 0.0
            self.query_time_s += took
            counters.query_time_s += took
            counters.queries += 1
        if pipeline.tx_status != _IDLE:
            if self.database.mode == "statement":
                raise_statement_mode(self)
            return
        if self.entered:
            took = now - self.transaction_since
            self.transactions += 1
            self.transaction_time_s += took
            counters.transactions += 1
            counters.transaction_time_s += took
        if self.begin_message or self.tx_failed or self.changed_schema:
            self.end_transaction()
        if self.pin is None and self.database.mode != "session":
            if self.must_ask:
                self.state = _SLOW
                self.services.slow_ask(self)
                return
            self.server = None
            if self.writing_paused and server.closed_why is None:
                server.resume_reading()
            pool.take_back(server, now)
        self.leave()

    def end_transaction(self) -> None:
        """No transaction is open any more."""
        self.begin_message = b""
        self.wrote = frozenset()
        self.story = ()
        self.cursors = self.portals = EMPTY
        if self.changed_schema:
            self.changed_schema = False
            self.catalog = None
            self.services.schema_changed(self.database)
        self.tx_failed = False

    def unlink(self) -> None:
        """Gives the server back."""
        server = self.server
        if server is None:
            return
        self.server = None
        self.shard = -1
        if self.writing_paused and server.closed_why is None:
            server.resume_reading()
        server.owner = None
        if server.pool is not None:
            server.pool.release(server)

    def leave(self) -> None:
        if self.entered:
            self.entered = False
            self.gate.leave()
        if self.services.closing:
            self.say_goodbye()

    def say_goodbye(self) -> None:
        """The node is shutting down and no transaction is open."""
        if self.state in (_READY, _WAITING, _SLOW, _RIDING):
            self.fail(
                ClientFault("terminating connection due to administrator command", sqlstate="57P01", severity="FATAL")
            )

    def after_errors(self, server: ServerConnection) -> None:
        """Something in this unit failed: statements parsed in it may or may not exist."""
        count = server.pipeline.errors - self.errors_before
        self.errors += count
        server.errors += count
        self.errors_before = server.pipeline.errors
        for number in self.unit_parsed:
            server.prepared[number] = False
        self.doubtful |= frozenset(self.unit_names)
        if b"C0A000\0" in server.pipeline.last_error or b"C26000\0" in server.pipeline.last_error:
            # "cached plan must not change result type": parse anew next time
            for number in server.prepared:
                server.prepared[number] = False

    def after_changes(self, server: ServerConnection) -> None:
        """DISCARD ALL, DEALLOCATE ALL or DDL has been answered, well or not."""
        if self.redefined:
            # PostgreSQL refuses to run a statement whose result type has changed: all are parsed anew at next use
            server.doubt_statements()
            if server.pipeline.tx_status == _IDLE:
                self.redefined = False
                for pool in self.database.pools:
                    pool.doubt_statements()
        if self.forget_statements:
            if server.pipeline.errors == self.errors_before:
                self.forget(server)
            else:
                self.forget_statements = 0
                server.doubt_statements()

    # --- statements that leave something behind ------------------------------------------------------------------

    def special(self, shape: Shape, letter: int) -> bool:
        """Takes note of what a statement does to the session. False: it was answered, or has to wait (given back)."""
        server = self.server
        assert server is not None
        if shape.begins and self.database.mode == "statement":
            raise no_transactions()
        if self.database.mode == "session":
            server.dirty = True
            return True
        if (
            shape.deallocates is not None
            and shape.deallocates in self.prepared
            and letter == _QUERY
            and not server.pipeline.batch
            and server.pipeline.tx_status != _TX_FAILED
        ):
            if not server.pipeline.idle():
                self.requests.at = self.requests.start
                return False
            self.drop_statement(shape.deallocates)
            self.write(messages.command_complete("DEALLOCATE") + messages.ready_for_query(server.pipeline.tx_status))
            return False
        self.note(shape, server)
        return True

    def note(self, shape: Shape, server: ServerConnection | None) -> None:
        """What the statement leaves behind, on its server connection and for the session."""
        if server is not None and (shape.forgets_statements or shape.marks_dirty or shape.pin is not None):
            server.dirty = True
        if shape.forgets_statements:
            self.forget_statements = 2 if shape.discards_all else 1
        if shape.redefines:
            self.redefined = True
        if shape.alters and not self.database.routed:  # of several shards the slow gear sees to it
            self.changed_schema = True
        if shape.marks_dirty:
            self.must_ask = True
        if shape.sets or shape.resets_all:
            self.must_ask = True
            self.reset_settings += tuple(n for n in shape.resets if n in self.startup)
            if shape.resets_all:
                self.reset_settings = tuple(self.startup)
            self.tracked = tuple(dict.fromkeys((*self.tracked, *shape.sets)))
        if shape.pin is not None:
            self.pin = shape.pin

    # --- errors and the end --------------------------------------------------------------------------------------

    def protocol_violation(self) -> ClientFault:
        requests = self.requests
        if requests.length:
            return self.too_long()
        letter = requests.buffer[requests.start] if requests.start < len(requests.buffer) else 0
        return ClientFault(f"invalid frontend message type {letter}", sqlstate="08P01", severity="FATAL")

    def look_at_torn(self) -> None:
        """A message of which the beginning is there: is it worth waiting for the rest?"""
        torn = self.requests.torn
        assert torn is not None
        letter, length = torn[0][0], self.requests.need - 1
        if not _begins(letter) and letter not in _OTHERS:
            raise ClientFault(f"invalid frontend message type {letter}", sqlstate="08P01", severity="FATAL")
        if length > _SMALL_BYTES and letter in _SMALL:
            raise self.too_large(letter, length)

    def too_large(self, letter: int, length: int) -> ClientFault:
        return ClientFault(
            f"invalid message length {length}",
            sqlstate="08P01",
            detail=f"A {Frontend(letter).name} message of up to {_SMALL_BYTES} bytes is accepted.",
            severity="FATAL",
        )

    def too_long(self) -> ClientFault:
        return ClientFault(
            f"invalid message length {self.requests.length}",
            sqlstate="08P01",
            detail=f"Messages of up to {self.requests.limit} bytes are accepted.",
            hint="raise message_bytes in [general] if this client means it",
            severity="FATAL",
        )

    def fail(self, fault: Fault) -> None:
        """Answers the message in hand with an error. FATAL ends the session; else it goes on after the Sync."""
        self.errors += 1
        if fault.severity in ("FATAL", "PANIC"):
            if not self.in_mid_message():
                self.write(messages.error_response(fault))
            self.close()
            return
        self.write(messages.error_response(fault))
        requests = self.requests
        query = requests.start < len(requests.buffer) and requests.buffer[requests.start] in (_QUERY, _FUNCTION_CALL)
        if self.begin_message:
            self.tx_failed = True  # as PostgreSQL's would be
        if query:
            self.write(messages.ready_for_query(self.tx_status))
        else:
            self.discarding = True
        if self.server is None:
            if not self.begin_message and not self.links:
                self.leave()
        elif self.server.pipeline.idle() and self.server.pipeline.tx_status == _IDLE:
            self.settle()

    def in_mid_message(self) -> bool:
        """Was the beginning of a row delivered whose rest has not come? An error would be read as a part of it: all
        that can be said then is the end of the connection."""
        if self.lane is not None:
            return self.lane.pipeline.rest > 0 and not self.lane.may_leave(self)
        return self.server is not None and self.server.pipeline.rest > 0

    def close(self) -> None:
        """Ends the session from our side."""
        self.end()
        self.shell.hang_up()

    def end(self) -> None:
        if self.state == _CLOSED:
            return
        was, self.state = self.state, _CLOSED
        if was == _WAITING:
            self.stop_waiting()
        elif was == _RIDING:
            lane, self.lane = self.lane, None
            if lane is not None:
                lane.leave(self)
        elif was == _SLOW:
            self.services.slow_abandon(self)
        for name in list(self.prepared):
            self.drop_statement(name)
        for link in self.links.values():
            # those a coroutine talks to are the coroutine's: it may have to finish a commit
            if link.pool is not None and not isinstance(link.owner, Conversation):
                link.owner = None
                link.pool.release(link)
        self.links = EMPTY
        server, self.server = self.server, None
        if server is not None:
            if self.must_ask or self.database.mode == "session" or was == _SLOW:
                server.dirty = True
            if self.writing_paused and server.closed_why is None:
                server.resume_reading()
            server.owner = None
            if self.torn_copy:
                # half a CopyData message was forwarded: nothing but closing can end it
                server.close(Lost.UNCLEAN)
            elif server.pool is not None:
                server.pool.release(server)
        self.leave()
        if self.on_closed is not None:
            self.on_closed(self)

    def cancellable(self) -> list[ServerConnection]:
        """The servers that work for this client now. A client that waits for one is answered here."""
        if self.state == _WAITING:
            self.stop_waiting()
            self.refused(ClientFault("canceling statement due to user request", sqlstate="57014"))
            return []
        if self.lane is not None:
            return self.cancellable_lane(self.lane)
        servers = [self.server] if self.server is not None else list(self.links.values())
        servers = [server for server in servers if not server.pipeline.idle()]
        return servers if self.rides is None else servers + self.rides.cancel()

    def begin_routed(self) -> bool:
        """A sharded database: see client/routed.py."""
        global _begin_routed
        if _begin_routed is None:
            from node.client.routed import begin

            _begin_routed = begin
        return _begin_routed(self)


def no_transactions() -> ClientFault:
    return ClientFault(
        "transaction control statements are not supported in statement pooler mode",
        sqlstate="58000",
        hint='set pooler_mode = "transaction" for this database',
    )


def raise_statement_mode(session: Session) -> None:
    session.fail(
        ClientFault(
            "transaction blocks are not supported in statement pooler mode",
            sqlstate="58000",
            hint='set pooler_mode = "transaction" for this database',
            severity="FATAL",
        )
    )
