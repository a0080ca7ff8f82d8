"""The session of an admin client: simple and extended protocol, one command after the other.

A console is always in the slow gear: bytes are framed as they come and one coroutine works through them, so a ROLLOUT
that takes a minute holds up nothing but its own client. There are no transactions: ReadyForQuery always says I.

After an error in an extended query everything up to the next Sync is skipped (documentation, "Extended Query").
A client that leaves does not stop the command it gave: half a rollout would be worse than one that nobody watches.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.admin.answers import Answer, Field, Row, encode
from node.admin.commands import Prepared, Role, perform, prepare
from node.client.protocol import Taker
from node.errors import Bug, ClientFault, Fault
from node.wire import messages
from node.wire.codes import Frontend
from node.wire.requests import CONTINUED, NOTHING, TOO_LONG, Requests

if TYPE_CHECKING:
    from node.admin.ports import Node

log = logging.getLogger("pgmurmur.admin")

_TEXT_OID = 25
# Binary integers as parameters, by type OID.
_INTEGERS = {21: struct.Struct("!h"), 23: struct.Struct("!i"), 20: struct.Struct("!q")}
_TEXTS = frozenset((0, 18, 19, 25, 705, 1042, 1043))
# Rows are written in pieces of about this size; between two of them a slow client is waited for.
PIECE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class ConsoleLimits:
    """Chosen in config/limits.py. `unread_bytes`: what a client may send while a command of its runs."""

    consoles: int = 100
    message_bytes: int = 4 * 2**20 + 65_536
    unread_bytes: int = 8 * 2**20
    statements: int = 1_000
    portals: int = 1_000


@dataclass(slots=True)
class Parsed:
    """A prepared statement; None is an empty one."""

    statement: Prepared | None
    types: tuple[int, ...]


@dataclass(slots=True)
class Portal:
    statement: Prepared | None
    formats: tuple[int, ...]
    answer: Answer | None = None  # once it has been executed
    sent: int = 0


class Console(Taker):
    """Bytes in, bytes out; see the module."""

    def __init__(
        self,
        node: Node,
        limits: ConsoleLimits,
        role: Role,
        *,
        write: Callable[[bytes], None],
        close: Callable[[], None],
        pause_reading: Callable[[], None],
        resume_reading: Callable[[], None],
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        self._node = node
        self._limits = limits
        self._role = role
        self._write = write
        self._close = close
        self._pause_reading = pause_reading
        self._resume_reading = resume_reading
        self._on_closed = on_closed
        self._requests = Requests(limits.message_bytes)
        self._working = False
        self._reading_paused = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.closed = False
        self._skipping = False  # up to the next Sync
        self._statements: dict[bytes, Parsed] = {}
        self._portals: dict[bytes, Portal] = {}

    # --- the client's socket ---------------------------------------------------------------------------------------

    def from_client(self, data: bytes) -> None:
        if self.closed:
            return
        self._requests.feed(data)
        if not self._working:
            self._working = True
            self._node.services.spawn(self._work())
        elif self._requests.waiting_bytes() > self._limits.unread_bytes and not self._reading_paused:
            self._reading_paused = True
            self._pause_reading()

    def client_lost(self) -> None:
        self._ended()

    def client_pause(self) -> None:
        self._writable.clear()

    def client_resume(self) -> None:
        self._writable.set()

    def end(self, fault: Fault | None = None) -> None:
        """Ends the session from our side."""
        if self.closed:
            return
        if fault is not None:
            self._write(messages.error_response(fault))
        self._close()
        self._ended()

    def _ended(self) -> None:
        if not self.closed:
            self.closed = True
            self._writable.set()
            self._on_closed()

    def _send(self, data: bytes) -> None:
        if not self.closed:
            self._write(data)

    # --- one message after the other -------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Works through what has come. Nothing awaits between the last `next` and the end: no byte is forgotten."""
        requests = self._requests
        try:
            while not self.closed:
                letter = requests.next()
                if letter == NOTHING:
                    if not self._reading_paused:
                        break
                    self._reading_paused = False
                    self._resume_reading()
                    continue
                await self._message(letter, requests.buffer[requests.start + 5 : requests.end])
        except Exception as error:
            log.exception("admin_failed")
            self.end(Bug(f"internal error: {type(error).__name__}"))
        finally:
            self._working = False

    async def _message(self, letter: int, body: bytes) -> None:
        """An ERROR is answered and skipped over, a FATAL ends the session."""
        try:
            if letter == Frontend.SYNC:
                self._skipping = False
                self._portals.clear()  # a portal ends with its transaction, and there is none
                self._send(messages.READY_IDLE)
            elif letter == Frontend.TERMINATE:
                self.end()
            elif letter == TOO_LONG:
                raise self._too_long()
            elif letter == Frontend.QUERY:
                # a Query after an error without a Sync is skipped too, as PostgreSQL does
                if not self._skipping:
                    await self._query(body)
            elif letter == Frontend.FUNCTION_CALL:
                if not self._skipping:
                    self._send(
                        messages.error_response(ClientFault("function calls are not supported", sqlstate="0A000"))
                        + messages.READY_IDLE
                    )
            elif letter in _EXTENDED:
                if not self._skipping:
                    await self._extended(letter, body)
            elif letter not in _PASSED_OVER:
                raise ClientFault(f"invalid frontend message type {letter}", sqlstate="08P01", severity="FATAL")
        except Fault as fault:
            if fault.severity in ("FATAL", "PANIC"):
                self.end(fault)
            else:
                self._send(messages.error_response(fault))
                self._skipping = True

    def _too_long(self) -> ClientFault:
        return ClientFault(
            f"invalid message length {self._requests.length}",
            sqlstate="08P01",
            detail=f"The admin console takes messages of up to {self._limits.message_bytes} bytes.",
            severity="FATAL",
        )

    async def _extended(self, letter: int, body: bytes) -> None:
        match letter:
            case Frontend.PARSE:
                self._parse(messages.parse_parse(body))
            case Frontend.BIND:
                self._bind(messages.parse_bind(body))
            case Frontend.DESCRIBE:
                self._describe(*_kind_and_name(body, "Describe"))
            case Frontend.CLOSE:
                self._close_named(*_kind_and_name(body, "Close"))
            case Frontend.EXECUTE:
                reader = messages.Reader(body, "Execute")
                name, limit = reader.cstring(), reader.int32()
                reader.end()
                await self._execute(name, limit)

    # --- simple ----------------------------------------------------------------------------------------------------

    async def _query(self, body: bytes) -> None:
        reader = messages.Reader(body, "Query")
        sql = reader.cstring()
        reader.end()
        self._portals.pop(b"", None)
        self._statements.pop(b"", None)
        try:
            prepared = prepare(_text(sql), self._role)
            if not prepared:
                self._send(messages.EMPTY_QUERY)
            for statement in prepared:
                if statement.parameters:
                    raise ClientFault("there is no parameter $1", sqlstate="42P02")
                answer = await perform(self._node, statement)
                if answer.fields is not None and answer.fault is None:
                    self._send(messages.row_description([one.described() for one in answer.fields]))
                await self._finish(answer, ())
        except Fault as fault:
            if fault.severity in ("FATAL", "PANIC"):
                raise
            self._send(messages.error_response(fault))
        self._send(messages.READY_IDLE)

    async def _finish(self, answer: Answer, formats: Sequence[int]) -> None:
        """Notices, then rows and the tag, or the error."""
        self._notices(answer)
        if answer.fault is not None:
            raise answer.fault
        await self._rows(answer, answer.rows, formats)
        self._send(messages.command_complete(answer.tag))

    def _notices(self, answer: Answer) -> None:
        for notice in answer.notices:
            self._send(messages.notice(notice.text, detail=notice.detail, hint=notice.hint))

    async def _rows(self, answer: Answer, rows: Sequence[Row], formats: Sequence[int]) -> None:
        fields = answer.fields
        if fields is None:
            return
        codes = _per_column(formats, fields)
        piece: list[bytes] = []
        size = 0
        for row in rows:
            values = [encode(value, one.type, code) for value, one, code in zip(row, fields, codes, strict=True)]
            piece.append(messages.data_row(values))
            size += len(piece[-1])
            if size > PIECE_BYTES:
                self._send(b"".join(piece))
                piece, size = [], 0
                await self._writable.wait()
        if piece:
            self._send(b"".join(piece))

    # --- extended --------------------------------------------------------------------------------------------------

    def _parse(self, parse: messages.Parse) -> None:
        if parse.name and parse.name in self._statements:
            raise ClientFault(f'prepared statement "{_shown(parse.name)}" already exists', sqlstate="42P05")
        if len(self._statements) >= self._limits.statements:
            raise ClientFault(f"too many prepared statements (limit {self._limits.statements})", sqlstate="53400")
        found = prepare(_text(parse.sql), self._role)
        if len(found) > 1:
            raise ClientFault("cannot insert multiple commands into a prepared statement", sqlstate="42601")
        statement = found[0] if found else None
        count = max(len(parse.types), statement.parameters if statement is not None else 0)
        types = tuple(parse.types[at] if at < len(parse.types) else 0 for at in range(count))
        for oid in types:
            if oid not in _TEXTS and oid not in _INTEGERS:
                raise ClientFault(
                    f"parameters of type {oid} are not supported",
                    sqlstate="0A000",
                    hint="the admin console takes texts and integers",
                )
        self._statements[parse.name] = Parsed(statement, types)
        self._send(messages.PARSE_COMPLETE)

    def _find_statement(self, name: bytes) -> Parsed:
        found = self._statements.get(name)
        if found is None:
            what = f'prepared statement "{_shown(name)}"' if name else "unnamed prepared statement"
            raise ClientFault(f"{what} does not exist", sqlstate="26000")
        return found

    def _find_portal(self, name: bytes) -> Portal:
        found = self._portals.get(name)
        if found is None:
            raise ClientFault(f'portal "{_shown(name)}" does not exist', sqlstate="34000")
        return found

    def _bind(self, bind: messages.Bind) -> None:
        parsed = self._find_statement(bind.statement)
        if bind.portal and bind.portal in self._portals:
            raise ClientFault(f'cursor "{_shown(bind.portal)}" already exists', sqlstate="42P03")
        if len(self._portals) >= self._limits.portals:
            raise ClientFault(f"too many portals (limit {self._limits.portals})", sqlstate="53400")
        if len(bind.parameters) != len(parsed.types):
            raise ClientFault(
                f"bind message supplies {len(bind.parameters)} parameters,"
                f" but the prepared statement requires {len(parsed.types)}",
                sqlstate="08P01",
            )
        statement = parsed.statement
        if statement is not None and bind.parameters:
            statement = statement.bound(
                [
                    _parameter(value, oid, bind.format_of(index))
                    for index, (value, oid) in enumerate(zip(bind.parameters, parsed.types, strict=True))
                ]
            )
        if any(code not in (messages.TEXT, messages.BINARY) for code in bind.result_formats):
            raise ClientFault("unsupported format code", sqlstate="22023")
        portal = Portal(statement, bind.result_formats)
        fields = statement.fields() if statement is not None else None
        if fields is not None:
            _per_column(bind.result_formats, fields)
        self._portals[bind.portal] = portal
        self._send(messages.BIND_COMPLETE)

    def _describe(self, kind: bytes, name: bytes) -> None:
        if kind == b"S":
            parsed = self._find_statement(name)
            types = [oid or _TEXT_OID for oid in parsed.types]
            described = struct.pack(f"!H{len(types)}I", len(types), *types)
            self._send(messages.message(b"t", described))
            self._describe_rows(parsed.statement, ())
        else:
            portal = self._find_portal(name)
            self._describe_rows(portal.statement, portal.formats)

    def _describe_rows(self, statement: Prepared | None, formats: Sequence[int]) -> None:
        fields = statement.fields() if statement is not None else None
        if fields is None:
            self._send(messages.NO_DATA)
            return
        codes = _per_column(formats, fields)
        self._send(messages.row_description([one.described(code) for one, code in zip(fields, codes, strict=True)]))

    async def _execute(self, name: bytes, limit: int) -> None:
        """Runs the command at the first Execute; later ones fetch what is left."""
        portal = self._find_portal(name)
        if portal.statement is None:
            self._send(messages.EMPTY_QUERY)
            return
        if portal.answer is None:
            portal.answer = await perform(self._node, portal.statement)
            self._notices(portal.answer)
            if portal.answer.fault is not None:
                raise portal.answer.fault
        answer = portal.answer
        last = len(answer.rows) if limit <= 0 else min(portal.sent + limit, len(answer.rows))
        await self._rows(answer, answer.rows[portal.sent : last], portal.formats)
        portal.sent = last
        self._send(messages.PORTAL_SUSPENDED if last < len(answer.rows) else messages.command_complete(answer.tag))

    def _close_named(self, kind: bytes, name: bytes) -> None:
        if kind == b"S":
            self._statements.pop(name, None)
        else:
            self._portals.pop(name, None)
        self._send(messages.CLOSE_COMPLETE)


_EXTENDED = frozenset((Frontend.PARSE, Frontend.BIND, Frontend.DESCRIBE, Frontend.CLOSE, Frontend.EXECUTE))
# Flush: nothing is ever held back. Copy messages: what is left of a COPY that was refused.
_PASSED_OVER = frozenset((Frontend.FLUSH, Frontend.COPY_DATA, Frontend.COPY_DONE, Frontend.COPY_FAIL, CONTINUED))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ClientFault('invalid byte sequence for encoding "UTF8"', sqlstate="22021") from None


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _kind_and_name(body: bytes, what: str) -> tuple[bytes, bytes]:
    reader = messages.Reader(body, what)
    kind, name = reader.take(1), reader.cstring()
    reader.end()
    if kind not in (b"S", b"P"):
        raise messages.malformed(what, "it names neither a statement nor a portal")
    return kind, name


def _parameter(value: bytes | None, oid: int, code: int) -> str | None:
    """A parameter as text, whatever its format."""
    if value is None or code == messages.TEXT or oid in _TEXTS:
        return None if value is None else _text(value)
    integer = _INTEGERS[oid]
    if code != messages.BINARY or len(value) != integer.size:
        raise ClientFault("incorrect binary data format in a parameter", sqlstate="22P03")
    return str(integer.unpack(value)[0])


def _per_column(formats: Sequence[int], fields: Sequence[Field]) -> Sequence[int]:
    """A format code for each column: none given means text, one given means it for all."""
    if len(formats) <= 1:
        return (formats[0] if formats else messages.TEXT,) * len(fields)
    if len(formats) != len(fields):
        raise ClientFault(
            f"bind message has {len(formats)} result formats but query has {len(fields)} columns", sqlstate="08P01"
        )
    return formats
