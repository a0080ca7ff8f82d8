"""Messages of protocol 3.0 built by hand, both ways: what a client sends, and what PostgreSQL must answer to the byte.

Written apart from node/wire on purpose: a mistake there must not be repeated by those who look for it.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence

_int16 = struct.Struct("!h").pack
_int32 = struct.Struct("!i").pack
_head = struct.Struct("!ci").pack
_field = struct.Struct("!ihihih").pack
_header = struct.Struct("!cih").pack

INT4, INT8, TEXT, BYTEA, BOOL, VOID = 23, 20, 25, 17, 16, 2278
_SIZES = {INT4: 4, INT8: 8, BOOL: 1, VOID: 4}
"""pg_type.typlen; every other type here is of variable length (-1)."""

SYNC = b"S\x00\x00\x00\x04"
TERMINATE = b"X\x00\x00\x00\x04"
PARSED = b"1\x00\x00\x00\x04"
BOUND = b"2\x00\x00\x00\x04"
CLOSED = b"3\x00\x00\x00\x04"
NO_DATA = b"n\x00\x00\x00\x04"
EMPTY = b"I\x00\x00\x00\x04"
SUSPENDED = b"s\x00\x00\x00\x04"
READY = b"Z\x00\x00\x00\x05I"
READY_IN_TRANSACTION = b"Z\x00\x00\x00\x05T"
READY_FAILED = b"Z\x00\x00\x00\x05E"
DESCRIBE_PORTAL = b"D\x00\x00\x00\x06P\x00"
EXECUTE = b"E\x00\x00\x00\x09\x00\x00\x00\x00\x00"
TEXT_FORMAT, BINARY_FORMAT = 0, 1


def message(letter: bytes, body: bytes) -> bytes:
    return _head(letter, len(body) + 4) + body


# -- what a client sends ---------------------------------------------------------------------------------------------


def query(sql: bytes) -> bytes:
    return _head(b"Q", len(sql) + 5) + sql + b"\0"


def parse(sql: bytes, types: Sequence[int] = (), name: bytes = b"") -> bytes:
    body = b"%b\0%b\0%b%b" % (name, sql, _int16(len(types)), b"".join(map(_int32, types)))
    return _head(b"P", len(body) + 4) + body


def bind(values: Sequence[bytes | None], formats: Sequence[int] = (), result: int = 0, name: bytes = b"") -> bytes:
    """To the unnamed portal; `result` is one format for all columns."""
    parts = [b"\0", name, b"\0", _int16(len(formats)), *map(_int16, formats), _int16(len(values))]
    for value in values:
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts.append(_int32(len(value)))
            parts.append(value)
    parts.append(b"\0\1\0\1" if result else b"\0\0")
    body = b"".join(parts)
    return _head(b"B", len(body) + 4) + body


def describe(name: bytes) -> bytes:
    return message(b"D", b"S" + name + b"\0")


def close(name: bytes) -> bytes:
    return message(b"C", b"S" + name + b"\0")


def execute(max_rows: int) -> bytes:
    return message(b"E", b"\0" + _int32(max_rows))


def startup(user: str, database: str, application: str) -> bytes:
    pairs = {"user": user, "database": database, "application_name": application, "client_encoding": "UTF8"}
    body = _int32(3 << 16) + b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
    return _int32(len(body) + 4) + body


def cancel_request(key: bytes) -> bytes:
    """`key` is the body of BackendKeyData."""
    return _int32(len(key) + 8) + _int32(80877102) + key


# -- what PostgreSQL answers -----------------------------------------------------------------------------------------


def row_description(columns: Iterable[tuple[bytes, int] | tuple[bytes, int, int, int]], format_code: int = 0) -> bytes:
    """Columns are (name, type) of an expression, or (name, type, table, number) of a table's own column."""
    parts = []
    for name, type_oid, *origin in columns:
        table, number = origin or (0, 0)
        parts += [name, b"\0", _field(table, number, type_oid, _SIZES.get(type_oid, -1), -1, format_code)]
    body = b"".join(parts)
    return _header(b"T", len(body) + 6, len(parts) // 3) + body


def parameter_description(types: Sequence[int]) -> bytes:
    return message(b"t", _int16(len(types)) + b"".join(map(_int32, types)))


def data_row(*values: bytes | None) -> bytes:
    parts = []
    for value in values:
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts.append(_int32(len(value)))
            parts.append(value)
    body = b"".join(parts)
    return _header(b"D", len(body) + 6, len(values)) + body


def complete(tag: bytes) -> bytes:
    return _head(b"C", len(tag) + 5) + tag + b"\0"


def copy_out(columns: int) -> bytes:
    return message(b"H", b"\0" + _int16(columns) + b"\0\0" * columns)


def copy_line(line: bytes) -> bytes:
    return message(b"d", line)


COPY_DONE = b"c\x00\x00\x00\x04"


def error_fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse; nonsense gives what can be read of it."""
    fields = {}
    for field in body.split(b"\0"):
        if field:
            fields[chr(field[0])] = field[1:].decode(errors="replace")
    return fields


def without_source(error: bytes) -> bytes:
    """An ErrorResponse without the fields that name PostgreSQL's source."""
    kept = [field for field in error[5:].split(b"\0") if field and field[:1] not in b"FLR"]
    return message(b"E", b"\0".join(kept) + b"\0\0")


# -- SCRAM-SHA-256, the client's side (RFC 5802) ---------------------------------------------------------------------

_salted: dict[tuple[str, bytes, int], bytes] = {}
"""Thousands of clients log in as one user: the 4,096 rounds are worth remembering. One entry per salt met."""
_SALTED_LIMIT = 1000


class Scram:
    """Two messages and one check. Raises ValueError when the server does not prove that it knows the password."""

    def __init__(self, password: str, nonce: bytes) -> None:
        self.password = password
        self.nonce = nonce
        self._signature = b""

    def first(self) -> bytes:
        body = b"n,,n=,r=" + self.nonce
        return message(b"p", b"SCRAM-SHA-256\0" + _int32(len(body)) + body)

    def final(self, challenge: bytes) -> bytes:
        fields = dict(part.split(b"=", 1) for part in challenge.split(b","))
        if not fields[b"r"].startswith(self.nonce):
            raise ValueError("the server's nonce does not begin with ours")
        salt, rounds = b64decode(fields[b"s"]), int(fields[b"i"])
        key = (self.password, salt, rounds)
        salted = _salted.get(key)
        if salted is None:
            if len(_salted) >= _SALTED_LIMIT:
                _salted.clear()
            salted = _salted[key] = hashlib.pbkdf2_hmac("sha256", self.password.encode(), salt, rounds)
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = b"c=biws,r=" + fields[b"r"]
        said = b",".join((b"n=,r=" + self.nonce, challenge, without_proof))
        proof = hmac.digest(hashlib.sha256(client_key).digest(), said, "sha256")
        self._signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), said, "sha256")
        mixed = bytes(a ^ b for a, b in zip(client_key, proof, strict=True))
        return message(b"p", without_proof + b",p=" + b64encode(mixed))

    def verify(self, final: bytes) -> None:
        if b64decode(final.removeprefix(b"v=")) != self._signature:
            raise ValueError("the server does not know the password")
