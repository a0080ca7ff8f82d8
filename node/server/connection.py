"""One connection to a PostgreSQL server: who borrows it, what it owes, what its session has been told.

A connection is lent to one owner at a time, fast gear (a client session) or slow gear (`Conversation`). Whoever
borrows hears `from_server` for every chunk and `server_lost` once. While nobody borrows it, the only things a server
may say are asynchronous; anything else means it is out of step, and it is closed rather than handed out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from node.errors import ClientFault, ServerFault
from node.wire import messages
from node.wire.codes import Backend, Transaction
from node.wire.pipeline import Pipeline

if TYPE_CHECKING:
    from node.pool.pool import Pool

IDLE = int(Transaction.IDLE)


class Owner:
    """Whoever has borrowed a connection. A class and no Protocol: compiled, a call of it costs no look-up."""

    __slots__ = ()

    def from_server(self, server: ServerConnection, data: bytes) -> None:
        raise NotImplementedError

    def server_lost(self, server: ServerConnection, fault: ServerFault) -> None:
        raise NotImplementedError

    def server_pause(self) -> None:
        """The server takes no more bytes for now."""

    def server_resume(self) -> None:
        """It takes bytes again."""


class State(StrEnum):
    """The words of SHOW SERVERS."""

    IDLE = "idle"
    ACTIVE = "active"
    IDLE_IN_TRANSACTION = "idle in transaction"
    TRANSACTION_ERROR = "transaction error"
    CLOSED = "disconnected"


class Lost(StrEnum):
    """Why a connection ended; printed in logs and counted."""

    SERVER_CLOSED = "server closed the connection"
    OUT_OF_SYNC = "server sent something nobody asked for"
    IDLE_TIMEOUT = "idle_timeout"
    LIFETIME = "server_lifetime"
    REPLACED = "configuration changed"
    RECONNECT = "RECONNECT"
    UNHEALTHY = "health check failed"
    UNCLEAN = "left in an unknown state by its client"
    SHUTDOWN = "shutdown"


class Traffic(NamedTuple):
    """What has passed over connections."""

    bytes_sent: int = 0
    bytes_received: int = 0
    rows_inserted: int = 0
    rows_updated: int = 0
    rows_deleted: int = 0

    def plus(self, other: Traffic) -> Traffic:
        return Traffic(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


class ServerConnection:
    """The sans-IO half; server/protocol.py owns the socket and sets `write`, `close` and the reading switches."""

    __slots__ = (
        "bytes_received", "bytes_sent", "cancelling", "checked_at", "close_transport", "closed_why", "created_at",
        "dirty", "errors", "gone", "healthchecks", "id", "lane", "lifetime_s", "owner", "parameters", "pause_reading",
        "pid", "pipeline", "pool", "prepared", "queries", "requested_at", "resume_reading", "rollbacks", "secret",
        "statuses", "tls", "transactions", "used_at", "write", "writing_paused",
    )  # fmt: skip

    def __init__(self, number: int, pool: Pool | None, parameters: object, now: float) -> None:
        self.id = number
        self.pool = pool
        self.pipeline = Pipeline()
        self.owner: Owner | None = None
        self.lane: object = None  # its Lane, since it was one for the first time
        self.parameters = parameters  # interned; compared with `is`
        self.prepared: OrderedDict[int, bool] = OrderedDict()  # id of a Prepared → surely there (else: Close first)
        self.statuses: dict[str, str] = {}  # ParameterStatus values as last reported
        self.dirty = False  # something outlives a transaction here that must not reach the next client
        self.pid = 0
        self.secret = b""
        self.tls = False
        self.created_at = now
        self.used_at = now
        self.checked_at = now
        self.requested_at = now
        self.lifetime_s = float("inf")
        self.closed_why: Lost | None = None
        self.gone = False  # its pool has been told
        self.cancelling = 0  # cancel requests on their way; whoever gets it next must not be hit by one
        self.writing_paused = False
        self.queries = self.transactions = self.rollbacks = self.errors = self.healthchecks = 0
        self.bytes_sent = self.bytes_received = 0
        self.write: Callable[[bytes], None] = _no_transport
        self.close_transport: Callable[[], None] = _nothing
        self.pause_reading: Callable[[], None] = _nothing
        self.resume_reading: Callable[[], None] = _nothing

    def traffic(self) -> Traffic:
        p = self.pipeline
        return Traffic(self.bytes_sent, self.bytes_received, p.rows_inserted, p.rows_updated, p.rows_deleted)

    @property
    def state(self) -> State:
        if self.closed_why is not None:
            return State.CLOSED
        if self.owner is None:
            return State.IDLE
        if not self.pipeline.idle():
            return State.ACTIVE
        if self.pipeline.tx_status == Transaction.OPEN:
            return State.IDLE_IN_TRANSACTION
        if self.pipeline.tx_status == Transaction.FAILED:
            return State.TRANSACTION_ERROR
        return State.ACTIVE

    @property
    def reusable(self) -> bool:
        """May it go back to the pool as it is?"""
        pipeline = self.pipeline
        return self.closed_why is None and pipeline.tx_status == IDLE and pipeline.idle()

    def receive(self, data: bytes) -> None:
        """Bytes from the server's socket: each piece to whoever has the connection when it is reached."""
        self.bytes_received += len(data)
        pipeline = self.pipeline
        at = 0
        while True:
            owner = self.owner
            if owner is None:
                self.unsolicited(data[at:] if at else data)
                return
            out = pipeline.replies(data, at)
            at = pipeline.stopped_at
            if pipeline.statuses:
                self.learn()
            owner.from_server(self, out)
            # what follows answers another owner's request: the one who has the connection then hears it
            if at == 0 or self.closed_why is not None or pipeline.broken:
                break
        if pipeline.broken and self.closed_why is None:
            fault = self.out_of_sync()
            self.close(Lost.OUT_OF_SYNC)
            self.lost(fault)

    def unsolicited(self, data: bytes) -> None:
        """What a server says while nobody has borrowed it."""
        pipeline = self.pipeline
        before = pipeline.errors
        pipeline.replies(data, 0)
        self.learn()
        if pipeline.errors != before:
            self.close(Lost.SERVER_CLOSED)
        elif pipeline.broken or not pipeline.idle():
            self.close(Lost.OUT_OF_SYNC)

    def learn(self) -> None:
        """Takes note of the ParameterStatus messages that came."""
        statuses = self.pipeline.statuses
        if statuses:
            self.pipeline.statuses = []
            for body in statuses:
                try:
                    name, value = messages.parse_parameter_status(body)
                except ClientFault:
                    self.pipeline.broken = int(Backend.PARAMETER_STATUS)
                    return
                known = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace")}
                self.statuses = {**self.statuses, **known}  # a new one: who keeps the old one sees what has changed

    def doubt_statements(self) -> None:
        """Every prepared statement is closed before its next use, and parsed anew."""
        self.prepared = OrderedDict.fromkeys(self.prepared, False)

    def out_of_sync(self) -> ServerFault:
        letter = self.pipeline.broken
        name = Backend(letter).name if letter in Backend._value2member_map_ else f"message {letter}"
        return ServerFault(
            "server sent a reply that fits no request",
            sqlstate="08P01",
            detail=f"{name} while {self.pipeline.sent - self.pipeline.done} replies were owed.",
            hint="the server connection was closed; the transaction is rolled back",
            severity="FATAL",
        )

    def close(self, why: Lost) -> None:
        """Ends the connection now, whatever it is doing. Its owner, if any, hears `server_lost`."""
        if self.closed_why is None:
            self.closed_why = why
            if self.owner is None and self.pool is not None:
                self.pool.core.removed(self)  # the socket is still there for a moment; nobody may borrow it any more
            self.close_transport()

    def lost(self, fault: ServerFault) -> None:
        """The socket is gone."""
        if self.closed_why is None:
            self.closed_why = Lost.SERVER_CLOSED
        owner, self.owner = self.owner, None
        if self.pool is not None and not self.gone:
            self.gone = True
            self.pool.lost(self)
        if owner is not None:
            owner.server_lost(self, fault)


def _no_transport(data: bytes) -> None:
    raise ServerFault("server connection is closed", sqlstate="08003", severity="FATAL")


def _nothing() -> None:
    return None
