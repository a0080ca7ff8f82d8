"""What a session hears of the server that it has to itself, and what follows when nothing more is owed.

At the end of a unit the session *settles*: what the unit left behind is noted, and outside a transaction the server
goes back to its pool. Of a server that is lost the client hears one error, or nothing when all that was under way may
be sent again (client/again.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from node.client.again import is_blamed, units_left
from node.client.riding import Riding
from node.client.states import CLOSED, EMPTY, READY
from node.errors import ClientFault, Fault, ServerFault
from node.server.connection import IDLE, Lost, ServerConnection
from node.server.last_words import is_last_word, only_notices
from node.wire import messages
from node.wire.reply_queue import RING_ENTRIES

if TYPE_CHECKING:
    from node.client.enlist import Told
    from node.client.execute import Portal
    from node.client.services import Services
    from node.database import Database
    from node.routing.catalog import Catalog

# Entries of the server's reply queue that one message may need (Close and Parse ahead of a Bind).
ROOM = 8
_FULL = RING_ENTRIES - ROOM

# The compiled file reads C integers of these names (linked.pxd).
_READY, _CLOSED, _IDLE = READY, CLOSED, IDLE


class Linked(Riding):
    """The part of a Session (client/session.py) that hears its server."""

    def __init__(self, services: Services, database: Database, write: Callable[[bytes], None], now: float) -> None:
        super().__init__(services, database, write, now)
        self.server: ServerConnection | None = None
        self.linked_at = now
        self.entered = False  # counted in by the gate
        self.discarding = False  # an error was answered; everything up to the next Sync is skipped
        self.torn_copy = False  # the server has got the beginning of a CopyData message and waits for the rest
        self.must_ask = False  # a statement has made settings that only the server knows
        self.redefined = False  # the transaction changed what statements mean
        # of the server and of the session, when it was linked
        self.errors_before = 0
        self.bytes_before = 0
        # a transaction of a sharded database
        self.shard = -1
        self.links: Mapping[int, ServerConnection] = EMPTY  # the slow gear's servers in a transaction over shards
        self.wrote: frozenset[int] = frozenset()  # shards of that transaction that may have changed
        self.story: tuple[Told, ...] = ()  # what a shard that joins that transaction must hear first
        self.cursors: Mapping[str, int] = EMPTY  # the shards they were declared on
        self.portals: Mapping[bytes, Portal] = EMPTY  # that the slow gear holds between two units of a transaction
        self.changed_schema = False
        self.catalog: Catalog | None = None  # what that transaction made of it
        # units on a whole connection, in the client's own bytes: given back if they have to be sent again
        self.kept = b""  # they are kept[kept_at:kept_end]; kept_end == 0: nothing is kept
        self.kept_at = self.kept_end = 0
        self.kept_units = 0  # ReadyForQuery messages of that connection before them
        self.fresh = False  # nothing was sent since the connection was lent
        self.begun = False  # a part of the reply that is coming was delivered
        self.withheld = b""  # the server's last words, until it is known whether anybody has to hear them
        self.stop_at = 0  # end of the unit that may be forwarded; 0: everything may

    # --- the rest of the session -------------------------------------------------------------------------------------

    def pause_client(self) -> None:
        """Reads no further."""
        raise NotImplementedError

    def ask(self) -> None:
        """The slow gear asks the server what the settings are now, and gives it back."""
        raise NotImplementedError

    def fail(self, fault: Fault) -> None:
        """Answers the message in hand with an error. FATAL ends the session; else it goes on after the Sync."""
        raise NotImplementedError

    # --- the server's side -------------------------------------------------------------------------------------------

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

    # --- a server that ends ------------------------------------------------------------------------------------------

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

    def forget_kept(self) -> None:
        self.kept = b""
        self.kept_at = self.kept_end = 0

    # --- the end of a unit -------------------------------------------------------------------------------------------

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
                self.refuse_transaction()
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
                self.ask()
                return
            self.server = None
            if self.writing_paused and server.closed_why is None:
                server.resume_reading()
            pool.take_back(server, now)
        self.leave()

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

    def refuse_transaction(self) -> None:
        """In statement mode none may be open when a unit has ended."""
        self.fail(
            ClientFault(
                "transaction blocks are not supported in statement pooler mode",
                sqlstate="58000",
                hint='set pooler_mode = "transaction" for this database',
                severity="FATAL",
            )
        )

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
