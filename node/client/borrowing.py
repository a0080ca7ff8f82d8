"""How a session gets a server: the gate, the choice between a shard's targets, the pool's queue, and the link.

Whoever waits has given back the message that made it wait (`requests.at = requests.start`): when the wait is over the
session starts over with it, so that nothing planned by an old map is ever sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from node.client.forwarding import Forwarding
from node.client.shape import Shape
from node.client.states import READY, RIDING, SLOW, WAITING
from node.errors import ClientFault, Fault, ServerFault
from node.pool.pool import PoolClosed, PoolDown
from node.routing.hints import NONE as NO_HINTS
from node.server.connection import ServerConnection
from node.wire import messages
from node.wire.codes import Frontend

if TYPE_CHECKING:
    from node.auth.verifier import Account
    from node.client.services import Services
    from node.database import Database
    from node.pool.balancer import Balancer
    from node.pool.core import Waiter
    from node.pool.pool import Pool

# A read that found so many targets down is told of the last one.
MOVED_MAX = 20

_BIND = int(Frontend.BIND)
_DESCRIBE = int(Frontend.DESCRIBE)
_PARSE = int(Frontend.PARSE)
_QUERY = int(Frontend.QUERY)

# The compiled file reads C integers of these names (borrowing.pxd).
_READY, _WAITING, _SLOW, _RIDING = READY, WAITING, SLOW, RIDING


class Borrowing(Forwarding):
    """The part of a Session (client/session.py) that borrows: from the gate its turn, from a pool a server."""

    def __init__(
        self, services: Services, account: Account, database: Database, write: Callable[[bytes], None], now: float
    ) -> None:
        super().__init__(services, database, write, now)
        self.account = account
        self.gate = database.gate
        self.waiter: Waiter | None = None
        self.asking = False  # inside `acquire`
        self.moved = 0  # pools that were down for this transaction
        self.hints = NO_HINTS  # SET pgdog.shard and its kin, startup parameters
        self.wait_time_s = 0.0  # for the console

    def replay(self) -> None:
        """The slow gear makes the server's settings ours."""
        raise NotImplementedError

    # --- the gate, and the configuration behind it -------------------------------------------------------------------

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

    # --- a pool ------------------------------------------------------------------------------------------------------

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

    def asked(self, balancer: Balancer) -> Pool | None:
        """The pool that has just offered something, if it still is one of this shard's: choosing anew could mean
        waiting at another one, again and again."""
        return self.pool if self.offer is not None and self.pool in balancer.pools else None

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

    def offered(self, pool: Pool) -> ServerConnection | None:
        """The connection we were offered, if it is one of this pool."""
        offer = self.offer
        if isinstance(offer, ServerConnection) and offer.pool is pool:
            self.offer = None
            return offer
        return pool.acquire(self.services.clock())

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

    def stop_waiting(self) -> None:
        if self.waiter is not None and self.pool is not None:
            self.pool.forget(self.waiter)
            self.waiter = None
        else:
            self.gate.forget(self.gate_opened)

    # --- the link ----------------------------------------------------------------------------------------------------

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
            self.replay()
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
