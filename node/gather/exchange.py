"""Asking several shards at once and making one answer of it: the I/O around the cores of this package.

Every shard is asked by the extended protocol in one write, all shards at the same time. Each is read by a task of its
own, no further than BUFFER_BYTES ahead of what the client has taken. Whatever happens, every connection is read up to
its ReadyForQuery (or closed), so that it can be used again; on a failure the others are cancelled first.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from node.errors import Fault, ServerFault
from node.gather.gathering import Gathering, shard_formats
from node.gather.split import combine_tags
from node.routing.outcome import Combine, MergeProgram
from node.server.connection import Lost
from node.server.conversation import Conversation, Message, fault_of
from node.wire import messages
from node.wire.codes import Backend

# After a cancel the statement should end at once; a server that does not is closed.
CANCELLED_TIMEOUT_S = 10.0

CONCATENATE = MergeProgram()

BINARY_HEADER_BYTES = 19  # signature, flags, and the length of an extension that PostgreSQL does not have
BINARY_TRAILER = b"\xff\xff"


class Sink(Protocol):
    """Where rows go: the client, or a list."""

    def write(self, data: bytes) -> None: ...

    async def ready(self) -> None:
        """Returns when more may be written."""


class Part(Protocol):
    """Who asks one shard and reads its answer: a Conversation, or a ride on a lane (client/ride.py)."""

    def send_extended(
        self,
        sql: bytes,
        types: Sequence[int] = (),
        parameter_formats: Sequence[int] = (),
        parameters: Sequence[bytes | None] = (),
        result_formats: Sequence[int] = (),
    ) -> None: ...

    async def next(self) -> Message:
        """The next reply, up to ReadyForQuery. Raises Fault when there will be none."""

    def refuse_copy(self) -> None: ...

    def enough(self) -> None:
        """All that is needed has come. `next` still comes to its end."""

    def hurry(self) -> None:
        """The answer is not needed any more. `next` still comes to its end."""


@dataclass(frozen=True, slots=True)
class Request:
    """One statement with its parameters, as it goes to a shard."""

    sql: bytes
    types: tuple[int, ...] = ()
    formats: tuple[int, ...] = ()
    parameters: tuple[bytes | None, ...] = ()

    def subset(self, sql: str, indexes: Sequence[int] | None) -> Request:
        """Rewritten text that uses only some of the parameters, renumbered in this order."""
        if indexes is None:
            return Request(sql.encode(), self.types, self.formats, self.parameters)
        codes = messages.spelled_out(self.formats, len(self.parameters))
        return Request(
            sql.encode(),
            tuple(self.types[i] if i < len(self.types) else 0 for i in indexes),
            tuple(codes[i] for i in indexes),
            tuple(self.parameters[i] for i in indexes),
        )


@dataclass(slots=True)
class Answer:
    """What came of it beside the rows: `tag` as the client reads it, `rows` delivered."""

    tag: str = ""
    rows: int = 0
    returned: bool = False  # there was a RowDescription
    tags: list[str] = field(default_factory=list)
    columns: int = 0  # that a shard returned, hidden ones and twins included
    took_s: float = 0.0  # of the slowest shard, without what this process did meanwhile
    size: int = 0  # bytes, of the widest shard


async def describe(talk: Conversation, request: Request) -> tuple[bytes, list[messages.Column]]:
    """ParameterDescription (whole message) and columns of a statement; none if it returns no rows."""
    parsed = messages.parse(b"", request.sql, request.types)
    return await _described(talk, parsed, messages.describe_statement(b""))


async def describe_cursor(talk: Conversation, name: bytes) -> list[messages.Column]:
    """Columns of a portal that DECLARE CURSOR made."""
    _, columns = await _described(talk, messages.describe_portal(name))
    return columns


async def _described(talk: Conversation, *asked: bytes) -> tuple[bytes, list[messages.Column]]:
    pipeline = talk.server.pipeline
    for _ in asked:
        pipeline.owe()
    pipeline.owe_sync(talk)
    talk.send(b"".join((*asked, messages.SYNC)))
    parameters, columns = b"", list[messages.Column]()
    fault: ServerFault | None = None
    while True:
        letter, body = await talk.next()
        if letter == Backend.PARAMETER_DESCRIPTION:
            parameters = messages.message(b"t", body)
        elif letter == Backend.ROW_DESCRIPTION:
            columns = messages.parse_row_description(body)
        elif letter == Backend.ERROR_RESPONSE and fault is None:
            fault = fault_of(body, client=True)
        elif letter == Backend.READY_FOR_QUERY:
            if fault is not None:
                raise fault
            return parameters, columns


class Redefined(ServerFault):
    """A statement returns other columns than it did when it was bound by heart. The client has heard nothing yet."""


async def ask(
    talks: Sequence[Conversation],
    requests: Sequence[Request],
    sink: Sink,
    *,
    program: MergeProgram = CONCATENATE,
    combine: Combine = Combine.CONCAT,
    formats: Sequence[int] = (),
    description: bool = True,
    first_ahead: bool = False,
) -> Answer:
    """Runs requests[n] on talks[n] and writes the rows, with a RowDescription before them if `description`.

    `first_ahead`: the others begin when the first has done it. Whoever changes on every shard the same rows queues at
    the first one then; if all began at once, two clients could each have a shard and wait for the other's without end,
    which no server could see. Raises the first fault after every connection came to rest.
    """
    bound: Sequence[int] = formats
    if program.hidden or program.twins:
        _, columns = await describe(talks[0], requests[0])
        bound = shard_formats(program, len(columns), formats)
    reading = _Reading(talks, sink, program, combine, formats, description)
    return await reading.run(requests, bound, first_ahead=first_ahead)


async def ask_by_heart(
    parts: Sequence[Part],
    request: Request,
    sink: Sink,
    *,
    program: MergeProgram,
    combine: Combine,
    formats: Sequence[int],
    description: bool,
    columns: int | None,
) -> Answer:
    """As `ask`, of a statement that is known to return `columns` columns (None: the program does not need to know):
    nobody is asked beforehand, and all parts are sent in this very turn of the loop. Raises Redefined when it returns
    others."""
    bound = formats if columns is None else shard_formats(program, columns, formats)
    reading = _Reading(parts, sink, program, combine, formats, description, columns)
    return await reading.run([request] * len(parts), bound)


class _Reading:
    """All shards of one statement."""

    def __init__(
        self,
        parts: Sequence[Part],
        sink: Sink,
        program: MergeProgram,
        combine: Combine,
        formats: Sequence[int],
        description: bool,
        expected: int | None = None,
    ) -> None:
        self._parts = parts
        self._sink = sink
        self._program = program
        self._first_only = combine is Combine.FIRST
        self._formats = formats
        self._description = description
        self._expected = expected  # columns, if it was bound by heart
        self._answer = Answer()
        self._gathering: Gathering | None = None
        self._described = asyncio.Event()
        self._moved = asyncio.Event()
        self._fault: Fault | None = None
        self._tags: list[str] = [""] * len(parts)
        self._sizes = [0] * len(parts)
        self._resting = [False] * len(parts)
        self._sent = Stopwatch()

    async def run(self, requests: Sequence[Request], bound: Sequence[int], *, first_ahead: bool = False) -> Answer:
        self._sent = Stopwatch()
        everybody = range(len(self._parts))
        for turn in (everybody[:1], everybody[1:]) if first_ahead else (everybody,):
            self._resting = [n not in turn for n in everybody]
            for n in turn:
                request = requests[n]
                self._parts[n].send_extended(request.sql, request.types, request.formats, request.parameters, bound)
            await at_rest([self._read(n) for n in turn])
            if self._fault is not None:
                raise self._fault
        gathering = self._gathering
        answer = self._answer
        answer.tags = self._tags
        answer.returned = gathering is not None
        answer.rows = gathering.rows if gathering is not None else 0
        answer.size = max(self._sizes)
        said = [tag for tag in self._tags if tag] or self._tags  # a part that was not needed to its end has none
        answer.tag = self._tags[0] if self._first_only else combine_tags(said)
        if gathering is not None and answer.tag.startswith("SELECT "):
            answer.tag = f"SELECT {answer.rows}"
        return answer

    async def _read(self, n: int) -> None:
        part = self._parts[n]
        try:
            while True:
                letter, body = await part.next()
                self._sizes[n] += len(body) + 5
                if letter == Backend.READY_FOR_QUERY:
                    self._resting[n] = True
                    self._answer.took_s = self._sent.waited_s()
                    return
                if self._fault is None:
                    await self._take(n, letter, body)
        except Fault as fault:
            self._resting[n] = True
            self._fail(fault)

    async def _take(self, n: int, letter: int, body: bytes) -> None:
        if letter == Backend.DATA_ROW:
            gathering = self._gathering
            if gathering is None or (self._first_only and n > 0) or gathering.complete:
                return
            self._guarded(lambda: gathering.feed(n, body))
            await self._deliver()
            self._stop_if_complete(n)
            while self._fault is None and gathering.full(n) and n not in gathering.hungry():
                self._moved.clear()
                await self._moved.wait()
        elif letter == Backend.ROW_DESCRIPTION:
            self._guarded(lambda: self._describe(messages.parse_row_description(body)))
        elif letter == Backend.COMMAND_COMPLETE:
            self._tags[n] = body[:-1].decode("utf-8", "replace")
            gathering = self._gathering
            if gathering is not None and not (self._first_only and n > 0):
                self._guarded(lambda: gathering.finish(n))
                await self._deliver()
        elif letter == Backend.ERROR_RESPONSE:
            self._fail(self._said(fault_of(body, client=True)))
        elif letter == Backend.NOTICE_RESPONSE and not (self._first_only and n > 0):
            self._sink.write(messages.message(b"N", body))
        elif letter == Backend.COPY_IN_RESPONSE:
            self._parts[n].refuse_copy()

    def _said(self, fault: ServerFault) -> Fault:
        """A server says 08P01 when other columns were bound than the statement has."""
        if self._expected is not None and self._gathering is None and fault.sqlstate == "08P01":
            return Redefined(fault.message, sqlstate=fault.sqlstate)
        return fault

    def _describe(self, columns: list[messages.Column]) -> None:
        if self._gathering is None:
            if self._expected is not None and len(columns) != self._expected:
                raise Redefined("a shard returns other columns than before", sqlstate="08P01")
            self._answer.columns = len(columns)
            count = 1 if self._first_only else len(self._parts)
            self._gathering = Gathering(self._program, columns, self._formats, count)
            if self._description:
                self._sink.write(self._gathering.row_description())
        else:
            self._gathering.check(columns)

    async def _deliver(self) -> None:
        gathering = self._gathering
        if gathering is None or self._fault is not None:
            return
        rows = gathering.take()
        if rows:
            self._sink.write(rows)
            self._moved.set()
            await self._sink.ready()

    def _guarded(self, call: object) -> None:
        assert callable(call)
        try:
            call()
        except Fault as fault:
            self._fail(fault)

    def _fail(self, fault: Fault) -> None:
        """The first fault is the answer; the other shards need not finish."""
        if self._fault is not None:
            return
        self._fault = fault
        self._moved.set()
        for n, part in enumerate(self._parts):
            if not self._resting[n]:
                part.hurry()

    def _stop_if_complete(self, last: int) -> None:
        """Is LIMIT reached with this row of part `last`? Its end will say what the command was."""
        if self._gathering is not None and self._gathering.complete:
            for n, part in enumerate(self._parts):
                if n != last and not self._resting[n]:
                    part.enough()


class Stopwatch:
    """How long others took. With many clients an answer lies in its socket while this process is busy with theirs,
    which says nothing of the statement; so the CPU time that this process has used since is not counted."""

    __slots__ = ("_cpu_s", "_since")

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._cpu_s = time.thread_time()

    def waited_s(self) -> float:
        return max(0.0, (time.monotonic() - self._since) - (time.thread_time() - self._cpu_s))


async def settle_cancelled(talk: Conversation) -> None:
    """After a cancel: waits until it can hit nothing any more."""
    if not talk.cancelled:
        return
    talk.cancelled = False
    try:
        if talk.cancelling is not None:
            await talk.cancelling
        await talk.query(";", CANCELLED_TIMEOUT_S)
    except ServerFault as fault:
        if fault.sqlstate != "57014":
            talk.server.close(Lost.UNCLEAN)


async def at_rest(readers: Sequence[object]) -> None:
    """Runs all to their end, also when this task is cancelled half-way: then they are cancelled too."""
    tasks = [asyncio.ensure_future(reader) for reader in readers]  # type: ignore[call-overload]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def copy_out(talks: Sequence[Conversation], sql: bytes, sink: Sink, *, first_only: bool, header: bool) -> str:
    """COPY … TO STDOUT on every shard, one after the other, as one stream. Returns the command tag.

    `header`: the first line of text or csv is one. The binary format has a header and a trailer of its own
    (PostgreSQL, COPY, "File Formats"); the stream has each once.
    """
    rows = 0
    held = b""  # the binary header: drivers expect it in one piece with what follows
    chosen = talks[:1] if first_only else talks
    for n, talk in enumerate(chosen):
        talk.server.pipeline.owe_query(talk)
        talk.send(message_of(sql))
        binary = False
        begun = n == 0
        last = n == len(chosen) - 1
        fault: Fault | None = None
        while True:
            letter, body = await talk.next()
            if letter == Backend.READY_FOR_QUERY:
                break
            if letter == Backend.COPY_OUT_RESPONSE:
                binary = body[:1] == b"\1"
                if n == 0:
                    sink.write(messages.message(b"H", body))
            elif letter == Backend.COPY_DATA and fault is None:
                if not begun:
                    begun = True
                    if binary:
                        body = body[BINARY_HEADER_BYTES:]
                    elif header:
                        continue
                if binary and not last and body[-2:] == BINARY_TRAILER and len(body) in (2, BINARY_HEADER_BYTES + 2):
                    body = body[:-2]
                if binary and n == 0 and len(body) == BINARY_HEADER_BYTES:
                    held = body
                elif body:
                    sink.write(messages.copy_data(held + body))
                    held = b""
                await sink.ready()
            elif letter == Backend.COMMAND_COMPLETE:
                rows += int(body[:-1].decode().rpartition(" ")[2])
            elif letter == Backend.ERROR_RESPONSE and fault is None:
                fault = fault_of(body, client=True)
            elif letter == Backend.NOTICE_RESPONSE:
                sink.write(messages.message(b"N", body))
        if fault is not None:
            raise fault
    sink.write(messages.COPY_DONE)
    return f"COPY {rows}"


def message_of(sql: bytes) -> bytes:
    return messages.message(b"Q", sql + b"\0")
