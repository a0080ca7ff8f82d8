"""The slow gear on one server connection: a coroutine asks, waits and reads whole messages.

Used for everything that is not a client's bytes passing through: replaying settings, cleaning up, health checks,
the catalog, and the shards of a statement that touches several. At most BUFFERED_BYTES of replies are held before
the server is read no further.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.errors import Bug, ServerFault
from node.server.cancel import cancel
from node.server.connection import Lost, Owner, ServerConnection
from node.wire import messages
from node.wire.codes import Backend
from node.wire.requests import NOTHING, TOO_LONG, Requests

log = logging.getLogger("pgmurmur.server")

# How long a cancel request of ours may take until the server has dealt with it.
CANCEL_TIMEOUT_S = 5.0
# Replies held for a reader that is slower than the server; then the server's socket is read no further.
BUFFERED_BYTES = 1 << 20
# One reply message of a server: PostgreSQL's own limit for a value is 1 GiB.
MESSAGE_BYTES = 0x7FFFFFFF
# What one `query` may return; our own questions are small.
RESULT_BYTES = 64 << 20

Message = tuple[int, bytes]

_READY = int(Backend.READY_FOR_QUERY)
_ERROR = int(Backend.ERROR_RESPONSE)


@dataclass(slots=True)
class Result:
    """One statement's answer."""

    columns: list[messages.Column] = field(default_factory=list)
    rows: list[list[bytes | None]] = field(default_factory=list)
    tag: str = ""


# Fields of an ErrorResponse that an exception has attributes for; the others go on as they came.
_NAMED = frozenset("SVCMDHP")


def fault_of(body: bytes, *, without: str = "", client: bool = False) -> ServerFault:
    """A server's ErrorResponse as an exception: its SQLSTATE, its words, the constraint it names; fields of the
    letters `without` are left out. `client`: it is for the client, in whose encoding it is, and for nobody else."""
    f = messages.parse_error(body, errors=messages.KEPT if client else "replace")
    return ServerFault(
        f.get("M", "unknown error"),
        sqlstate=f.get("C", "XX000"),
        detail=f.get("D"),
        hint=f.get("H"),
        severity=f.get("V", f.get("S", "ERROR")),
        position=int(f["P"]) if f.get("P", "").isdigit() else None,
        fields={letter: text for letter, text in f.items() if letter not in _NAMED and letter not in without},
    )


_hurrying: set[asyncio.Task[None]] = set()


class Conversation(Owner):
    """Borrows `server` until `end`; replies come out of `next` as (letter, body)."""

    def __init__(self, server: ServerConnection) -> None:
        if server.owner is not None:
            raise Bug("server connection lent twice")
        server.owner = self
        self.server = server
        self._frames = Requests(MESSAGE_BYTES)
        self._frames.hold_copy = True
        self._queue: deque[Message] = deque()
        self._bytes = 0
        self._paused = False
        self._waiting: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        if not server.writing_paused:
            self._writable.set()
        self._fault: ServerFault | None = None
        # a cancel request is or was under way; nothing new may be asked before it is known to be spent
        self.cancelled = False
        self.cancelling: asyncio.Task[None] | None = None

    def end(self) -> ServerConnection:
        """Gives the connection back to whoever called; what it still owes is the caller's business."""
        self._resume()
        if self.server.owner is self:
            self.server.owner = None
        return self.server

    # --- what the connection tells us -------------------------------------------------------------------------

    def from_server(self, server: ServerConnection, data: bytes) -> None:
        frames = self._frames
        frames.feed(data)
        while True:
            letter = frames.next()
            if letter == NOTHING:
                break
            if letter == TOO_LONG:
                server.close(Lost.OUT_OF_SYNC)
                break
            body = frames.buffer[frames.start + 5 : frames.end]
            self._queue.append((letter, body))
            self._bytes += len(body) + 64
        if self._bytes > BUFFERED_BYTES and not self._paused:
            self._paused = True
            server.pause_reading()
        self._wake()

    def server_lost(self, server: ServerConnection, fault: ServerFault) -> None:
        self._fault = fault
        self._writable.set()
        self._wake()

    def server_pause(self) -> None:
        self._writable.clear()

    def server_resume(self) -> None:
        self._writable.set()

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if self.server.closed_why is None:
                self.server.resume_reading()

    # --- what a coroutine does ----------------------------------------------------------------------------------

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    async def next(self) -> Message:
        """The next reply. Raises ServerFault when the connection is lost."""
        while not self._queue:
            if self._fault is not None:
                raise self._fault
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        letter, body = self._queue.popleft()
        self._bytes -= len(body) + 64
        if self._paused and self._bytes < BUFFERED_BYTES // 2:
            self._resume()
        return letter, body

    def send(self, data: bytes) -> None:
        """Writes; the caller has told the pipeline what this owes. Raises ServerFault when the connection is lost."""
        if self._fault is not None:
            raise self._fault
        self.server.bytes_sent += len(data)
        self.server.write(data)

    async def drained(self) -> None:
        """Waits until the server takes more bytes (back-pressure of COPY)."""
        await self._writable.wait()
        if self._fault is not None:
            raise self._fault

    def send_query(self, sql: str) -> None:
        self.server.pipeline.owe_query(self)
        self.server.queries += 1
        self.send(messages.query(sql))

    def send_extended(
        self,
        sql: bytes,
        types: Sequence[int] = (),
        parameter_formats: Sequence[int] = (),
        parameters: Sequence[bytes | None] = (),
        result_formats: Sequence[int] = (),
        *,
        describe: bool = True,
    ) -> None:
        """Parse, Bind, Describe, Execute and Sync of an unnamed statement, in one write."""
        pipeline = self.server.pipeline
        parts = [
            messages.parse(b"", sql, types),
            messages.bind(b"", b"", parameter_formats, parameters, result_formats),
        ]
        if describe:
            parts.append(messages.describe_portal(b""))
        parts.append(messages.execute())
        for _ in parts:
            pipeline.owe()
        parts.append(messages.SYNC)
        pipeline.owe_sync(self)
        self.server.queries += 1
        self.send(b"".join(parts))

    def refuse_copy(self) -> None:
        """The server wants CopyData, and nobody here has any: the statement is to end in an error."""
        self.send(messages.copy_fail("COPY is not expected here"))
        self.server.pipeline.copy_ended()

    def enough(self) -> None:
        """The rest of the answer is not needed: it is read all the same, a cancel request would cost more."""

    def hurry(self) -> None:
        """Cancels what the server is doing for nothing; the reply is still to be read to its end.

        A cancel that arrives late would hit the connection's next statement: until an empty query has come back
        after it, the connection counts as unclean (gather/exchange.py, `settle_cancelled`).
        """
        self.cancelled = True
        task = asyncio.get_running_loop().create_task(self._cancel())
        _hurrying.add(task)
        task.add_done_callback(_hurrying.discard)
        self.cancelling = task

    async def _cancel(self) -> None:
        server = self.server
        if server.pool is None:
            return
        try:
            await cancel(server.pool.target, server.pid, server.secret, tls=server.tls, timeout_s=CANCEL_TIMEOUT_S)
        except ServerFault as fault:
            log.info("cancel_failed server=%s reason=%s", server.id, fault)
            server.close(Lost.UNCLEAN)

    async def ready(self) -> ServerFault | None:
        """Skips to ReadyForQuery; the first error on the way, if any."""
        first: ServerFault | None = None
        while True:
            letter, body = await self.next()
            if letter == _READY:
                return first
            if letter == _ERROR and first is None:
                first = fault_of(body)

    async def query(self, sql: str, timeout_s: float) -> list[Result]:
        """Asks by the simple protocol. Raises ServerFault with the server's own words, or 57014 after `timeout_s`.

        After a time-out the connection is in the middle of something: it is closed.
        """
        try:
            async with asyncio.timeout(timeout_s):
                self.send_query(sql)
                return await self._results()
        except TimeoutError:
            self.server.close(Lost.UNHEALTHY)
            raise ServerFault(
                "server did not answer in time",
                sqlstate="57014",
                detail=f"No answer within {timeout_s:g} s to: {sql[:80]}",
            ) from None

    async def _results(self) -> list[Result]:
        results: list[Result] = []
        current = Result()
        fault: ServerFault | None = None
        size = 0
        while True:
            letter, body = await self.next()
            if letter == Backend.ROW_DESCRIPTION:
                current.columns = messages.parse_row_description(body)
            elif letter == Backend.DATA_ROW:
                size += len(body)
                if size > RESULT_BYTES:
                    self.server.close(Lost.UNHEALTHY)
                    raise ServerFault(
                        "answer of the server is too large", sqlstate="54000", detail=f"Limit: {RESULT_BYTES} bytes."
                    )
                current.rows.append(messages.parse_data_row(body))
            elif letter == Backend.COMMAND_COMPLETE:
                current.tag = body[:-1].decode("utf-8", "replace")
                results.append(current)
                current = Result()
            elif letter == _ERROR and fault is None:
                fault = fault_of(body)
            elif letter == _READY:
                if fault is not None:
                    raise fault
                return results
