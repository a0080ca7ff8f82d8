"""What a client sends goes on to the server that it has to itself: as it is where possible, in one write.

On the way three things are looked at: which messages a reply is owed for, the names of prepared statements
(client/statements.py), and statements that leave something behind (`special`). What no server must get is an error of
ours (client/malformed.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node.client.again import KEPT_BYTES, PIPELINED_BYTES
from node.client.linked import ROOM, Linked
from node.client.malformed import SMALL, SMALL_BYTES, look_at_torn, no_transactions, too_large, too_long, violation
from node.client.states import READY
from node.errors import ClientFault
from node.server.connection import IDLE, ServerConnection
from node.wire import messages
from node.wire.codes import Frontend, Transaction
from node.wire.requests import CONTINUED, NOTHING, TOO_LONG

if TYPE_CHECKING:
    from node.client.services import Services
    from node.client.shape import Shape
    from node.database import Database

_BIND = int(Frontend.BIND)
_CLOSE = int(Frontend.CLOSE)
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
_TX_FAILED = int(Transaction.FAILED)
_COPY = frozenset((int(Frontend.COPY_DATA), _COPY_DONE, _COPY_FAIL, CONTINUED))

# The compiled file reads C integers of these names (forwarding.pxd); Python keeps the public ones.
_READY, _IDLE, _NOTHING, _TOO_LONG, _ROOM = READY, IDLE, NOTHING, TOO_LONG, ROOM
_SMALL_BYTES, _KEPT_BYTES = SMALL_BYTES, KEPT_BYTES


class Forwarding(Linked):
    """The part of a Session (client/session.py) that passes on what its client sends."""

    def __init__(self, services: Services, database: Database, write: Callable[[bytes], None], now: float) -> None:
        super().__init__(services, database, write, now)
        # what the client has made of its session
        self.startup: dict[str, str] = {}
        self.tracked: tuple[str, ...] = ()  # names whose values are asked for after a SET
        self.reset_settings: tuple[str, ...] = ()

    def enter(self) -> bool:
        """Passes the gate, and looks at the world as it is now. False: waiting; the message was given back."""
        raise NotImplementedError

    # --- to the server -----------------------------------------------------------------------------------------------

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
                        look_at_torn(requests)
                    break
                start, end = requests.start, requests.end
                replacement: bytes | None = None
                if large and end - start > _SMALL_BYTES and letter in SMALL:
                    raise too_large(letter, end - start - 1)
                if self.torn_copy:  # the rest of a CopyData message: its beginning is there already
                    self.torn_copy = requests.rest > 0
                elif letter == _TOO_LONG:
                    raise too_long(requests)
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
                    raise violation(requests)
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

    def keep_more(self, buffer: bytes, first: int, upto: int) -> None:
        """buffer[first:upto] was forwarded behind what is under way."""
        if self.kept_end - self.kept_at + upto - first > PIPELINED_BYTES:
            self.forget_kept()
        else:
            self.kept = self.kept[self.kept_at : self.kept_end] + buffer[first:upto]
            self.kept_at = 0
            self.kept_end = len(self.kept)

    # --- statements that leave something behind ----------------------------------------------------------------------

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
