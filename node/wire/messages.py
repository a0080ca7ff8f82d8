"""Builds and takes apart protocol v3 messages (documentation chapter "Message Formats").

Builders return whole messages as bytes. Parsers take the *body* (what follows letter and length) and raise
`ClientFault` 08P01 on anything malformed: nothing read from a network is trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from node.errors import ClientFault, Fault

_H = struct.Struct("!h")
_I = struct.Struct("!i")
_HU = struct.Struct("!H")
_IU = struct.Struct("!I")

TEXT = 0
BINARY = 1

PARSE_COMPLETE = b"1\0\0\0\4"
BIND_COMPLETE = b"2\0\0\0\4"
CLOSE_COMPLETE = b"3\0\0\0\4"
NO_DATA = b"n\0\0\0\4"
EMPTY_QUERY = b"I\0\0\0\4"
PORTAL_SUSPENDED = b"s\0\0\0\4"
COPY_DONE = b"c\0\0\0\4"
SYNC = b"S\0\0\0\4"
FLUSH = b"H\0\0\0\4"
TERMINATE = b"X\0\0\0\4"
READY_IDLE = b"Z\0\0\0\5I"
READY_OPEN = b"Z\0\0\0\5T"
READY_FAILED = b"Z\0\0\0\5E"


def message(letter: bytes, body: bytes) -> bytes:
    """One message: letter, length (counting itself), body."""
    return letter + _I.pack(len(body) + 4) + body


def ready_for_query(status: int) -> bytes:
    return b"Z\0\0\0\5" + bytes((status,))


def query(sql: str | bytes) -> bytes:
    text = sql.encode() if isinstance(sql, str) else sql
    return message(b"Q", text + b"\0")


def parse(name: bytes, sql: bytes, types: Sequence[int] = ()) -> bytes:
    return message(b"P", name + b"\0" + sql + b"\0" + _HU.pack(len(types)) + b"".join(map(_IU.pack, types)))


def bind(
    portal: bytes,
    statement: bytes,
    parameter_formats: Sequence[int] = (),
    parameters: Sequence[bytes | None] = (),
    result_formats: Sequence[int] = (),
) -> bytes:
    parts = [portal, b"\0", statement, b"\0", _HU.pack(len(parameter_formats))]
    parts += [_H.pack(code) for code in parameter_formats]
    parts.append(_HU.pack(len(parameters)))
    for value in parameters:
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts += (_I.pack(len(value)), value)
    parts.append(_HU.pack(len(result_formats)))
    parts += [_H.pack(code) for code in result_formats]
    return message(b"B", b"".join(parts))


def describe_statement(name: bytes) -> bytes:
    return message(b"D", b"S" + name + b"\0")


def describe_portal(name: bytes) -> bytes:
    return message(b"D", b"P" + name + b"\0")


def close_statement(name: bytes) -> bytes:
    return message(b"C", b"S" + name + b"\0")


def execute(portal: bytes = b"", max_rows: int = 0) -> bytes:
    return message(b"E", portal + b"\0" + _I.pack(max_rows))


def parameter_status(name: bytes, value: bytes) -> bytes:
    return message(b"S", name + b"\0" + value + b"\0")


def backend_key_data(pid: int, secret: bytes) -> bytes:
    return message(b"K", _IU.pack(pid) + secret)


def command_complete(tag: str) -> bytes:
    return message(b"C", tag.encode() + b"\0")


def copy_data(data: bytes) -> bytes:
    return message(b"d", data)


def copy_fail(reason: str) -> bytes:
    return message(b"f", reason.encode() + b"\0")


def negotiate_protocol_version(minor: int, unknown_options: Sequence[bytes]) -> bytes:
    """Sent when the client asked for a newer minor version or for options we do not know."""
    names = b"".join(name + b"\0" for name in unknown_options)
    return message(b"v", _I.pack(minor) + _I.pack(len(unknown_options)) + names)


class Column(NamedTuple):
    """One field of a RowDescription."""

    name: bytes
    type_oid: int
    table_oid: int = 0
    attribute: int = 0
    type_size: int = -1
    type_modifier: int = -1
    format: int = TEXT


_COLUMN = struct.Struct("!IhIhih")


def row_description(columns: Iterable[Column]) -> bytes:
    listed = list(columns)
    parts = [_HU.pack(len(listed))]
    for c in listed:
        parts += (
            c.name,
            b"\0",
            _COLUMN.pack(c.table_oid, c.attribute, c.type_oid, c.type_size, c.type_modifier, c.format),
        )
    return message(b"T", b"".join(parts))


def data_row(values: Sequence[bytes | None]) -> bytes:
    parts = [_HU.pack(len(values))]
    for value in values:
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts += (_I.pack(len(value)), value)
    return message(b"D", b"".join(parts))


# How `parse_error` leaves bytes of other encodings than UTF-8 in a text that goes to a client and nowhere else.
KEPT = "surrogateescape"


def error_fields(
    severity: str,
    sqlstate: str,
    text: str,
    detail: str | None = None,
    hint: str | None = None,
    position: int | None = None,
    fields: Mapping[str, str] | None = None,
) -> bytes:
    """The body shared by ErrorResponse and NoticeResponse; `fields` are those that have no argument of their own.
    Bytes that were KEPT in a text are written as they were."""
    parts = [
        b"S",
        severity.encode(),
        b"\0V",
        severity.encode(),
        b"\0C",
        sqlstate.encode(),
        b"\0M",
        text.encode(errors=KEPT),
        b"\0",
    ]
    if detail is not None:
        parts += (b"D", detail.encode(errors=KEPT), b"\0")
    if hint is not None:
        parts += (b"H", hint.encode(errors=KEPT), b"\0")
    if position is not None:
        parts += (b"P", str(position).encode(), b"\0")
    for letter, value in (fields or {}).items():
        parts += (letter.encode(), value.encode(errors=KEPT), b"\0")
    parts.append(b"\0")
    return b"".join(parts)


def error_response(fault: Fault) -> bytes:
    return message(
        b"E",
        error_fields(
            fault.severity, fault.sqlstate, fault.message, fault.detail, fault.hint, fault.position, fault.fields
        ),
    )


def notice(
    text: str, *, severity: str = "NOTICE", sqlstate: str = "00000", detail: str | None = None, hint: str | None = None
) -> bytes:
    return message(b"N", error_fields(severity, sqlstate, text, detail, hint))


# --- taking bodies apart -------------------------------------------------------------------------------------


def malformed(what: str, detail: str | None = None) -> ClientFault:
    """08P01 protocol_violation; FATAL, because after a malformed message nothing that follows can be trusted."""
    return ClientFault(f"invalid {what} message", sqlstate="08P01", detail=detail, severity="FATAL")


class Reader:
    """Reads one message body from the left; every overrun is a protocol violation."""

    __slots__ = ("data", "at", "what")

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.at = 0
        self.what = what

    def cstring(self) -> bytes:
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise malformed(self.what, "string without a terminator")
        value = self.data[self.at : end]
        self.at = end + 1
        return value

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise malformed(self.what, "message is shorter than its fields")
        value = self.data[self.at : end]
        self.at = end
        return value

    def int16(self) -> int:
        return int(_H.unpack(self.take(2))[0])

    def uint16(self) -> int:
        return int(_HU.unpack(self.take(2))[0])

    def int32(self) -> int:
        return int(_I.unpack(self.take(4))[0])

    def uint32(self) -> int:
        return int(_IU.unpack(self.take(4))[0])

    def value(self) -> bytes | None:
        size = self.int32()
        return None if size == -1 else self.take(size)

    def end(self) -> None:
        if self.at != len(self.data):
            raise malformed(self.what, "message is longer than its fields")


class Parse(NamedTuple):
    name: bytes
    sql: bytes
    types: tuple[int, ...]


class Bind(NamedTuple):
    portal: bytes
    statement: bytes
    parameter_formats: tuple[int, ...]
    parameters: tuple[bytes | None, ...]
    result_formats: tuple[int, ...]

    def format_of(self, index: int) -> int:
        """Format code of parameter `index`: none given means text, one given means it for all."""
        codes = self.parameter_formats
        if not codes:
            return TEXT
        return codes[0] if len(codes) == 1 else codes[index]


def spelled_out(formats: Sequence[int], count: int) -> tuple[int, ...]:
    """Format codes as Bind abbreviates them: none given means text, one given means it for all."""
    if not formats:
        return (TEXT,) * count
    return tuple(formats) * count if len(formats) == 1 else tuple(formats)


def parse_parse(body: bytes) -> Parse:
    end = body.find(b"\0")
    sql_end = body.find(b"\0", end + 1)
    at = sql_end + 3
    if end < 0 or sql_end < 0 or at > len(body):
        raise malformed("Parse", "message is shorter than its fields")
    count = body[at - 2] << 8 | body[at - 1]
    if at + 4 * count != len(body):
        raise malformed("Parse", "message does not end with its fields")
    return Parse(body[:end], body[end + 1 : sql_end], struct.unpack_from(f"!{count}I", body, at) if count else ())


def parse_bind(body: bytes) -> Bind:
    """Without a Reader: a routed client has one of these in every unit."""
    end = body.find(b"\0")
    name_end = body.find(b"\0", end + 1)
    if end < 0 or name_end < 0:
        raise malformed("Bind", "string without a terminator")
    try:
        formats, at = _codes(body, name_end + 1)
        count = _HU.unpack_from(body, at)[0]
        at += 2
        values: list[bytes | None] = []
        for _ in range(count):
            size = _I.unpack_from(body, at)[0]
            at += 4
            if size == -1:
                values.append(None)
                continue
            value = body[at : at + size]
            if size < 0 or len(value) != size:
                raise malformed("Bind", "message is shorter than its fields")
            values.append(value)
            at += size
        results, at = _codes(body, at)
    except struct.error:
        raise malformed("Bind", "message is shorter than its fields") from None
    if at != len(body):
        raise malformed("Bind", "message is longer than its fields")
    if len(formats) > 1 and len(formats) != len(values):
        raise ClientFault(
            f"bind message has {len(formats)} parameter formats but {len(values)} parameters", sqlstate="08P01"
        )
    return Bind(body[:end], body[end + 1 : name_end], formats, tuple(values), results)


def _codes(body: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """A list of format codes and where it ends. Raises struct.error beyond the end."""
    count = _HU.unpack_from(body, at)[0]
    if not count:
        return (), at + 2
    return struct.unpack_from(f"!{count}h", body, at + 2), at + 2 + 2 * count


def parse_parameter_description(body: bytes) -> tuple[int, ...]:
    """Type OIDs of a ParameterDescription."""
    reader = Reader(body, "ParameterDescription")
    return tuple(reader.int32() & 0xFFFFFFFF for _ in range(reader.int16() & 0xFFFF))


def parse_row_description(body: bytes) -> list[Column]:
    r = Reader(body, "RowDescription")
    columns = []
    for _ in range(r.uint16()):
        name = r.cstring()
        table, attribute, oid, size, modifier, code = _COLUMN.unpack(r.take(_COLUMN.size))
        columns.append(Column(name, oid, table, attribute, size, modifier, code))
    r.end()
    return columns


def parse_data_row(body: bytes) -> list[bytes | None]:
    r = Reader(body, "DataRow")
    values = [r.value() for _ in range(r.uint16())]
    r.end()
    return values


def parse_error(body: bytes, *, errors: str = "replace") -> dict[str, str]:
    """Fields by their one-letter type: S severity, C SQLSTATE, M message, D detail, H hint …

    They are in the encoding of the connection's client; `errors` is what becomes of bytes that are not UTF-8.
    """
    fields: dict[str, str] = {}
    r = Reader(body, "ErrorResponse")
    while True:
        code = r.take(1)
        if code == b"\0":
            return fields
        fields[code.decode("latin-1")] = r.cstring().decode("utf-8", errors)


def parse_parameter_status(body: bytes) -> tuple[bytes, bytes]:
    r = Reader(body, "ParameterStatus")
    return r.cstring(), r.cstring()
