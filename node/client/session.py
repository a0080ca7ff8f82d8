"""One client, from its login to its end: which server it has, what it waits for, what it left behind.

A session is in exactly one state, and the state tells the gear:

    READY     fast gear: callbacks. Without a server (`server is None`) the next message begins a transaction;
              with one, bytes pass (`pump`).
    WAITING   fast gear: at the gate or in a pool's queue. The message that began it is still unread in `requests`.
    RIDING    fast gear: a read of ours is under way on a lane, together with other clients' (pool/lane.py).
    SLOW      a coroutine of client/slow.py has the session; which gives it back when it ends (`back`).
    CLOSED    the end.

Questions at a transaction's start, in this order: gate → plan → acquire → link. A session that could not go on gives
the message back (`requests.at = requests.start`) and starts over from the gate, so nothing planned by an old map is
ever sent. A server goes back to its pool when it owes nothing and its last ReadyForQuery said I.

On a database with one shard messages are forwarded as they come. On a sharded one (`routed`) a *unit* is planned as a
whole: a Query, or an extended batch up to its Sync; one that needs a single shard goes the same way as above, any
other is handed to the slow gear.

A session is one object in layers, a file each; every layer knows the ones before it:

    Rider        what a lane tells whoever rides on it (pool/rider.py)
    Statements   the names of prepared statements
    Riding       a read on a lane
    Linked       what the server says that it has to itself; the end of a unit
    Forwarding   what the client says goes to that server
    Borrowing    gate, choice, queue, link
    Session      its client, its next message, errors and the end
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from node.client.borrowing import Borrowing
from node.client.malformed import look_at_torn, too_long, unknown
from node.client.states import CLOSED, EMPTY, READY, RIDING, SLOW, WAITING
from node.errors import ClientFault, Fault
from node.routing.outcome import Role
from node.server.connection import IDLE, Lost, ServerConnection
from node.server.conversation import Conversation
from node.wire import messages
from node.wire.codes import Frontend, Transaction
from node.wire.requests import CONTINUED, NOTHING, TOO_LONG

if TYPE_CHECKING:
    from node.auth.verifier import Account
    from node.client.ride import Rides
    from node.client.services import Services
    from node.database import Database

# A client that sends while it cannot be served is read up to here and then no further.
UNREAD_BYTES = 256 << 10

_BIND = int(Frontend.BIND)
_CLOSE = int(Frontend.CLOSE)
_DESCRIBE = int(Frontend.DESCRIBE)
_EXECUTE = int(Frontend.EXECUTE)
_FLUSH = int(Frontend.FLUSH)
_FUNCTION_CALL = int(Frontend.FUNCTION_CALL)
_PARSE = int(Frontend.PARSE)
_QUERY = int(Frontend.QUERY)
_SYNC = int(Frontend.SYNC)
_TERMINATE = int(Frontend.TERMINATE)
_COPY = frozenset((*map(int, (Frontend.COPY_DATA, Frontend.COPY_DONE, Frontend.COPY_FAIL)), CONTINUED))

_TX_OPEN = int(Transaction.OPEN)
_TX_FAILED = int(Transaction.FAILED)

# The compiled session reads C integers of these names (session.pxd); Python keeps the public ones.
_READY, _WAITING, _SLOW, _CLOSED, _RIDING = READY, WAITING, SLOW, CLOSED, RIDING
_NOTHING, _TOO_LONG, _IDLE = NOTHING, TOO_LONG, IDLE

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


class Session(Borrowing):
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
        super().__init__(services, account, database, write, now)
        self.id = number
        self.shell = shell
        self.application_name = ""
        # a unit of a sharded database
        self.unit_role = Role.PRIMARY
        self.rides: Rides | None = None  # the slow gear's read on lanes of several shards
        # cancel key
        self.pid = 0
        self.secret = b""
        # for the console
        self.connected_at = now
        self.transactions_2pc = 0
        self.bytes_received = 0
        self.on_closed: Callable[[Session], None] | None = None
        self.on_resumed: Callable[[], None] | None = None  # a coroutine waits for the client to read

    # --- the client's side -------------------------------------------------------------------------------------------

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

    # --- the next message --------------------------------------------------------------------------------------------

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

    def begin(self) -> bool:
        """Without a server: looks at the next message. True: go on; False: wait for bytes or for somebody."""
        requests = self.requests
        letter = requests.next()
        if letter == _NOTHING:
            if requests.need:
                look_at_torn(requests)
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

    def begin_routed(self) -> bool:
        """A sharded database: see client/routed.py."""
        global _begin_routed
        if _begin_routed is None:
            from node.client.routed import begin

            _begin_routed = begin
        return _begin_routed(self)

    def unlinked(self, letter: int) -> bool:
        """A message that needs no server."""
        if letter == _TOO_LONG:
            raise too_long(self.requests)
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
        raise unknown(letter)

    # --- the slow gear -----------------------------------------------------------------------------------------------

    def replay(self) -> None:
        self.state = _SLOW
        self.services.slow_replay(self)

    def ask(self) -> None:
        self.state = _SLOW
        self.services.slow_ask(self)

    # --- errors and the end ------------------------------------------------------------------------------------------

    @property
    def tx_status(self) -> int:
        """What a ReadyForQuery of ours has to say."""
        if self.tx_failed:
            return _TX_FAILED
        if self.begin_message or self.links:
            return _TX_OPEN
        return self.server.pipeline.tx_status if self.server is not None else _IDLE

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
