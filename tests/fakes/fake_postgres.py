"""A PostgreSQL that misbehaves on command: tears its messages, delays them, hangs, dies in the middle of a reply.

It knows the statements it is given and BEGIN, COMMIT, ROLLBACK; anything else is a syntax error, as in the real one.
`tests/integration/test_fakes.py` compares it with real PostgreSQL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType

from fakes.conversation import Letters, Message

from node.wire import messages, startup

INT4, INT8, TEXT = 23, 20, 25
_SIZES = {INT4: 4, INT8: 8}


@dataclass(frozen=True)
class Mischief:
    """How a reply is delivered."""

    tear: int = 0
    """Bytes per write, each flushed apart; 0 sends all at once."""
    delay_s: float = 0
    """Silence before the first byte."""
    die_after: int | None = None
    """Bytes after which the connection is reset."""
    hang_after: int | None = None
    """Bytes after which nothing comes any more, and the connection stays open."""


@dataclass(frozen=True)
class Reply:
    """What a statement answers: rows of texts with their columns, or an error."""

    tag: str = "SELECT 0"
    columns: Sequence[tuple[str, int]] = ()
    rows: Sequence[Sequence[str | None]] = ()
    error: tuple[str, str] | None = None
    """SQLSTATE and text; the other fields are then ignored."""
    mischief: Mischief = field(default_factory=Mischief)

    @classmethod
    def table(cls, columns: Sequence[tuple[str, int]], *rows: Sequence[str | None]) -> Reply:
        return cls(f"SELECT {len(rows)}", columns, rows)

    def but(self, **mischief: float | int) -> Reply:
        """The same with Mischief of these fields."""
        return replace(self, mischief=Mischief(**mischief))  # type: ignore[arg-type]

    def description(self) -> bytes:
        if not self.columns:
            return b"n\0\0\0\4"
        return messages.row_description(
            [messages.Column(name.encode(), oid, type_size=_SIZES.get(oid, -1)) for name, oid in self.columns]
        )

    def body(self) -> bytes:
        rows = [messages.data_row([None if value is None else value.encode() for value in row]) for row in self.rows]
        return b"".join(rows) + messages.command_complete(self.tag)


def failure(sqlstate: str, text: str, severity: str = "ERROR") -> bytes:
    return messages.message(b"E", messages.error_fields(severity, sqlstate, text))


class FakePostgres:
    """Listens on 127.0.0.1; `heard` is every message of every connection after its login, in order of arrival."""

    def __init__(
        self,
        replies: Mapping[str, Reply] | None = None,
        *,
        password: str | None = None,
        parameters: Mapping[str, str] | None = None,
        login: Mischief | None = None,
        refuse: tuple[str, str] | None = None,
    ) -> None:
        """`password` asks for it in clear text; `refuse` answers every login with FATAL (SQLSTATE, text)."""
        self.replies = dict(replies or {})
        self.password = password
        self.parameters = {
            "server_version": "18.0",
            "server_encoding": "UTF8",
            "client_encoding": "UTF8",
            "DateStyle": "ISO, MDY",
            "integer_datetimes": "on",
            "standard_conforming_strings": "on",
            **(parameters or {}),
        }
        self.login = login or Mischief()
        self.refuse = refuse
        self.heard: list[Message] = []
        self.startups: list[dict[str, str]] = []
        self.cancelled: list[tuple[int, bytes]] = []
        self.connections = 0
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FakePostgres:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.drop_all()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def host(self) -> str:
        return "127.0.0.1"

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def drop_all(self) -> None:
        """Resets every connection, as a killed server does."""
        for writer in tuple(self._open):
            writer.transport.abort()

    def send_all(self, data: bytes) -> None:
        """Unasked: a notice, a ParameterStatus, garbage."""
        for writer in self._open:
            writer.write(data)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        self.connections += 1
        try:
            # Cancelled only by our own __aexit__; asyncio's streams would log the cancellation as an error (3.11).
            expected = (EOFError, ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, _Dead)
            with contextlib.suppress(*expected):
                if await self._start(reader, writer):
                    await _Session(self, reader, writer).run()
        finally:
            self._open.discard(writer)
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        while True:
            length = int.from_bytes(await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            code = int.from_bytes(body[:4])
            if code in (80877103, 80877104):  # SSLRequest, GSSENCRequest: neither is here
                writer.write(b"N")
            elif code == 80877102:
                self.cancelled.append((int.from_bytes(body[4:8]), body[8:]))
                return False
            else:
                break
        words = [word.decode() for word in body[4:-1].split(b"\0")[:-1]]
        self.startups.append(dict(zip(words[::2], words[1::2], strict=True)))
        if self.refuse is not None:
            writer.write(failure(*self.refuse, severity="FATAL"))
            return False
        if self.password is not None:
            writer.write(startup.authentication(startup.Authentication.CLEARTEXT_PASSWORD))
            given = await Letters(reader).next()
            if given.body != self.password.encode() + b"\0":
                writer.write(failure("28P01", "password authentication failed", severity="FATAL"))
                return False
        number = self.connections
        greeting = [startup.authentication(startup.Authentication.OK)]
        greeting += [messages.parameter_status(n.encode(), v.encode()) for n, v in self.parameters.items()]
        greeting += [messages.backend_key_data(number, number.to_bytes(4)), messages.READY_IDLE]
        await deliver(writer, b"".join(greeting), self.login)
        return True


class _Dead(Exception):
    """Mischief ended the connection."""


async def deliver(writer: asyncio.StreamWriter, data: bytes, how: Mischief) -> None:
    if how.delay_s:
        await asyncio.sleep(how.delay_s)
    stops = [stop for stop in (how.die_after, how.hang_after) if stop is not None]
    part = data[: min(stops)] if stops else data
    for at in range(0, len(part), how.tear or max(len(part), 1)):
        writer.write(part[at : at + (how.tear or len(part))])
        await writer.drain()
        if how.tear:
            await asyncio.sleep(0)
    if how.die_after is not None:
        writer.transport.abort()
        raise _Dead
    if how.hang_after is not None:
        await asyncio.Event().wait()


class _Session:
    """One logged-in connection: simple and extended protocol, transaction status, errors that skip to Sync."""

    def __init__(self, fake: FakePostgres, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.fake = fake
        self.letters = Letters(reader)
        self.writer = writer
        self.status = "I"
        self.skipping = False
        self.statements: dict[bytes, str] = {}
        self.portals: dict[bytes, str] = {}

    async def run(self) -> None:
        while True:
            message = await self.letters.next()
            self.fake.heard.append(message)
            if message.letter == "X":
                return
            if self.skipping and message.letter != "S":
                continue
            match message.letter:
                case "Q":
                    await self._query(message.body.rstrip(b"\0").decode())
                case "P":
                    parsed = messages.parse_parse(message.body)
                    sql = parsed.sql.decode()
                    if self._look_up(sql) is None:
                        self._fail("42601", f'syntax error at or near "{sql.split(" ")[0]}"')
                    else:
                        self.statements[parsed.name] = sql
                        self.writer.write(messages.PARSE_COMPLETE)
                case "B":
                    bound = messages.parse_bind(message.body)
                    if bound.statement not in self.statements:
                        self._fail("26000", f'prepared statement "{bound.statement.decode()}" does not exist')
                    else:
                        self.portals[bound.portal] = self.statements[bound.statement]
                        self.writer.write(messages.BIND_COMPLETE)
                case "D":
                    table = self.statements if message.body[:1] == b"S" else self.portals
                    reply = self._look_up(table[message.body[1:].rstrip(b"\0")])
                    assert reply is not None
                    if message.body[:1] == b"S":
                        self.writer.write(messages.message(b"t", b"\0\0"))
                    self.writer.write(reply.description())
                case "E":
                    name, _, _ = message.body.partition(b"\0")
                    await self._execute(self.portals[name], described=True)
                case "C":
                    self.writer.write(messages.CLOSE_COMPLETE)
                case "S":
                    self.skipping = False
                    self._ready()
                case "H":
                    pass
                case _:
                    self._fail("08P01", f"invalid frontend message type {ord(message.letter)}")

    def _look_up(self, sql: str) -> Reply | None:
        sql = sql.strip().rstrip(";")
        found = self.fake.replies.get(sql)
        if found is None and sql.upper() in ("BEGIN", "COMMIT", "ROLLBACK"):
            return Reply(tag=sql.upper())
        return found

    async def _query(self, sql: str) -> None:
        if not sql.strip(" ;"):
            self.writer.write(messages.EMPTY_QUERY)
        elif self._look_up(sql) is None:
            self._fail("42601", f'syntax error at or near "{sql.split(" ")[0]}"')
        else:
            await self._execute(sql, described=False)
        self.skipping = False
        self._ready()

    async def _execute(self, sql: str, *, described: bool) -> None:
        reply = self._look_up(sql)
        assert reply is not None
        tag = reply.tag
        if self.status == "E" and tag not in ("ROLLBACK", "COMMIT"):
            self._fail("25P02", "current transaction is aborted, commands ignored until end of transaction block")
            return
        if reply.error is not None:
            self._fail(*reply.error)
            return
        if tag == "BEGIN":
            self.status = "T"
        elif tag in ("COMMIT", "ROLLBACK"):
            tag = "ROLLBACK" if self.status == "E" else tag
            self.status = "I"
        data = replace(reply, tag=tag).body()
        if not described and reply.columns:
            data = reply.description() + data
        await deliver(self.writer, data, reply.mischief)

    def _fail(self, sqlstate: str, text: str) -> None:
        self.writer.write(failure(sqlstate, text))
        self.skipping = True
        if self.status == "T":
            self.status = "E"

    def _ready(self) -> None:
        self.writer.write(messages.ready_for_query(ord(self.status)))
