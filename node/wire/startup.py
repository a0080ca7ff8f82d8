"""Everything said before the first ReadyForQuery, in both directions.

Sources: documentation chapters "Message Flow: Start-up", "Message Formats" and "SASL Authentication"; the rules for
`options` are those of PostgreSQL's command line (`postgres -c name=value --name=value`).

The packets of the startup family have no letter: length, then a code that is a protocol version or a magic number. A
connection may bring several of them one after the other (GSSENCRequest, SSLRequest, StartupMessage), each decided on
its own by `read_request`, which never consumes a byte of what follows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

from node.errors import ClientFault
from node.wire import messages
from node.wire.codes import CANCEL_REQUEST, GSSENC_REQUEST, PROTOCOL_3_0, PROTOCOL_3_2, SSL_REQUEST

# What follows the length may have this many bytes (PostgreSQL: MAX_STARTUP_PACKET_LENGTH).
STARTUP_LIMIT_BYTES = 10_000
# One authentication answer (PostgreSQL: 65535 for passwords, 1024 for SASL).
PASSWORD_LIMIT_BYTES = 65_535
SASL_LIMIT_BYTES = 1_024
# Cancel keys: four bytes up to protocol 3.0, up to 256 since 3.2.
SECRET_MIN_BYTES = 4
SECRET_LIMIT_BYTES = 256
# The newest minor version of protocol 3 that we speak.
NEWEST_MINOR = PROTOCOL_3_2 & 0xFFFF
# A TLS record of type "handshake" starts so; as a length it would mean 369 million bytes, so it is never a packet.
TLS_HANDSHAKE_BYTE = 0x16
ALPN_PROTOCOL = "postgresql"
# Startup packets that are taken apart once: the clients of one application send the same one at every connection. Only
# short ones (a guest must not make us remember 10 kB), those unused for longest go first.
REMEMBERED_STARTUPS = 512
REMEMBERED_BYTES = 512

_HEADER = struct.Struct("!II")
_LENGTH = struct.Struct("!I")
_INT = struct.Struct("!i")


class Encryption(Enum):
    """The requests that ask for an encrypted connection; only TLS can be granted."""

    TLS = "SSLRequest"
    GSS = "GSSENCRequest"
    DIRECT_TLS = "direct TLS"  # a ClientHello with no SSLRequest before it (PostgreSQL 17); no byte is consumed


class CancelRequest(NamedTuple):
    pid: int
    secret: bytes


def text_of(raw: bytes) -> str:
    """UTF-8, and other bytes shown as \\xNN as PostgreSQL 16 does."""
    return raw.decode("utf-8", "backslashreplace")


class Introduction(NamedTuple):
    """The texts of a startup packet, by `text_of`."""

    user: str
    database: str
    parameters: Mapping[str, str]
    replication: str


@dataclass(frozen=True)
class Startup:
    """One StartupMessage. Its bytes are as the client sent them: their encoding is not known yet.

    Clients whose packets are equal may share one, mappings and all: never change it.
    """

    minor: int  # as asked for; may be newer than ours
    user: bytes
    database: bytes  # the user's name when the client named none
    replication: bytes
    settings: Mapping[bytes, bytes] = field(default_factory=dict)  # `options` first, overruled by named parameters
    protocol_options: Mapping[bytes, bytes] = field(default_factory=dict)  # names starting with _pq_.

    @property
    def spoken_minor(self) -> int:
        return min(self.minor, NEWEST_MINOR)

    @cached_property
    def introduction(self) -> Introduction:
        return Introduction(
            text_of(self.user),
            text_of(self.database),
            {text_of(name): text_of(value) for name, value in self.settings.items()},
            text_of(self.replication),
        )

    def negotiation(self) -> bytes:
        """NegotiateProtocolVersion when the client asked for more than we know, else nothing.

        PostgreSQL's field "newest minor version" carries the whole version number (libpq compares it so).
        """
        if self.minor <= NEWEST_MINOR and not self.protocol_options:
            return b""
        return messages.negotiate_protocol_version(PROTOCOL_3_0 | self.spoken_minor, list(self.protocol_options))


Request = Encryption | CancelRequest | Startup


class Read(NamedTuple):
    request: Request
    consumed: int


def read_request(data: bytes | bytearray) -> Read | None:
    """The request at the start of `data`; None while it is incomplete. Raises ClientFault FATAL.

    The length is judged as soon as its four bytes are there: nobody can make us wait for, or hold, more than
    STARTUP_LIMIT_BYTES.
    """
    if not data:
        return None
    if data[0] == TLS_HANDSHAKE_BYTE:
        return Read(Encryption.DIRECT_TLS, 0)
    if len(data) < 4:
        return None
    (length,) = _LENGTH.unpack_from(data)
    if not 8 <= length <= STARTUP_LIMIT_BYTES + 4:
        raise _fatal("invalid length of startup packet")
    if len(data) < length:
        return None
    (_, code) = _HEADER.unpack_from(data)
    body = bytes(data[8:length])
    return Read(_request(code, body), length)


def _request(code: int, body: bytes) -> Request:
    if code == CANCEL_REQUEST:
        return _cancel(body)
    if code in (SSL_REQUEST, GSSENC_REQUEST):
        if body:
            raise _fatal("invalid length of startup packet")
        return Encryption.TLS if code == SSL_REQUEST else Encryption.GSS
    major, minor = code >> 16, code & 0xFFFF
    if major != PROTOCOL_3_0 >> 16:
        raise ClientFault(
            f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.{NEWEST_MINOR}",
            sqlstate="0A000",
            severity="FATAL",
        )
    return _startup(minor, body) if len(body) <= REMEMBERED_BYTES else _read_startup(minor, body)


def _cancel(body: bytes) -> CancelRequest:
    secret = body[4:]
    if not SECRET_MIN_BYTES <= len(secret) <= SECRET_LIMIT_BYTES:
        raise _fatal("invalid length of cancel request packet")
    return CancelRequest(_LENGTH.unpack_from(body)[0], secret)


def _read_startup(minor: int, body: bytes) -> Startup:
    named = _pairs(body)
    user = named.pop(b"user", b"")
    if not user:
        raise ClientFault("no PostgreSQL user name specified in startup packet", sqlstate="28000", severity="FATAL")
    database = named.pop(b"database", b"") or user
    replication = named.pop(b"replication", b"")
    settings = parse_options(named.pop(b"options", b""))
    protocol_options = {name: value for name, value in named.items() if name.startswith(b"_pq_.")}
    settings.update((name, value) for name, value in named.items() if name not in protocol_options)
    return Startup(minor, user, database, replication, settings, protocol_options)


_startup = lru_cache(maxsize=REMEMBERED_STARTUPS)(_read_startup)


def _pairs(body: bytes) -> dict[bytes, bytes]:
    """name NUL value NUL … NUL; the last of two equal names counts."""
    pairs: dict[bytes, bytes] = {}
    at = 0
    while True:
        end = body.find(b"\0", at)
        if end < 0:
            raise _bad_layout()
        if end == at:
            break
        value_end = body.find(b"\0", end + 1)
        if value_end < 0:
            raise _bad_layout()
        pairs[body[at:end]] = body[end + 1 : value_end]
        at = value_end + 1
    if at != len(body) - 1:
        raise _bad_layout()
    return pairs


def _bad_layout() -> ClientFault:
    return _fatal("invalid startup packet layout: expected terminator as last byte")


def _fatal(text: str) -> ClientFault:
    return ClientFault(text, sqlstate="08P01", severity="FATAL")


# --- options ---------------------------------------------------------------------------------------------------

_SPACES = b" \t\n\v\f\r"
# Switches of `postgres` that are settings under another name; the rest of them make no sense through a proxy.
_SWITCHES = {b"S": b"work_mem", b"e": b"datestyle", b"F": b"fsync"}
_SWITCH_VALUES = {b"e": b"euro", b"F": b"off"}


def parse_options(options: bytes) -> dict[bytes, bytes]:
    """The settings in a startup packet's `options`. Raises ClientFault FATAL 42601 like PostgreSQL.

    Words are separated by white space, a backslash takes the next byte literally. `-c name=value`, `-cname=value` and
    `--name=value`; a dash inside a name means an underscore. Some drivers leave the `+` of a URL where a blank was
    meant (`-c+a=b+-c+c=d`): read as a blank where no PostgreSQL setting could carry it, before a dash and after -c.
    """
    settings: dict[bytes, bytes] = {}
    words = split_options(options)
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        switch = word[1:2]
        if word.startswith(b"--") and len(word) > 2:
            _assign(settings, word[2:], f"--{_shown(word[2:])} requires a value")
        elif switch in (b"c", *_SWITCHES) and word.startswith(b"-"):
            value = word[2:].removeprefix(b"+")
            if not value and switch not in _SWITCH_VALUES:
                if at == len(words):
                    raise _bad_option(f"invalid command-line argument for server process: {_shown(word)}")
                value = words[at]
                at += 1
            if switch == b"c":
                _assign(settings, value, f"-c {_shown(value)} requires a value")
            else:
                settings[_SWITCHES[switch]] = _SWITCH_VALUES.get(switch, value)
        else:
            raise _bad_option(f"invalid command-line argument for server process: {_shown(word)}")
    return settings


def _assign(settings: dict[bytes, bytes], word: bytes, complaint: str) -> None:
    name, equals, value = word.partition(b"=")
    if not equals or not name:
        raise _bad_option(complaint)
    settings[name.replace(b"-", b"_")] = value


def split_options(options: bytes) -> list[bytes]:
    """The words of `options` after white space and backslashes were dealt with."""
    words: list[bytes] = []
    word = bytearray()
    started = False
    at = 0
    while at < len(options):
        byte = options[at]
        if byte in _SPACES or (byte == 0x2B and options[at + 1 : at + 2] == b"-"):
            if started:
                words.append(bytes(word))
                word.clear()
                started = False
        else:
            if byte == 0x5C:
                at += 1
                if at == len(options):
                    break  # a lone backslash at the end stands for nothing
            started = True
            word.append(options[at])
        at += 1
    if started:
        words.append(bytes(word))
    return words


def _shown(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _bad_option(text: str) -> ClientFault:
    return ClientFault(text, sqlstate="42601", severity="FATAL")


def quote_option(name: str, value: str) -> str:
    """One `-c name=value` for `options`, with the blanks and backslashes of the value escaped."""
    escaped = "".join(f"\\{c}" if c in " \t\n\v\f\r\\" else c for c in value)
    return f"-c {name}={escaped}"


# --- what a client says ----------------------------------------------------------------------------------------


def ssl_request() -> bytes:
    return _HEADER.pack(8, SSL_REQUEST)


def cancel_request(pid: int, secret: bytes) -> bytes:
    return _HEADER.pack(12 + len(secret), CANCEL_REQUEST) + _LENGTH.pack(pid) + secret


def startup_message(parameters: Iterable[tuple[bytes, bytes]], minor: int = 0) -> bytes:
    """A StartupMessage for protocol 3.`minor`; names and values must not contain NUL."""
    body = b"".join(name + b"\0" + value + b"\0" for name, value in parameters) + b"\0"
    return _HEADER.pack(len(body) + 8, PROTOCOL_3_0 | minor) + body


def password_message(password: bytes) -> bytes:
    return messages.message(b"p", password + b"\0")


def sasl_initial_response(mechanism: bytes, data: bytes) -> bytes:
    return messages.message(b"p", mechanism + b"\0" + _INT.pack(len(data)) + data)


def sasl_response(data: bytes) -> bytes:
    return messages.message(b"p", data)


class InitialResponse(NamedTuple):
    mechanism: bytes
    data: bytes | None  # None: the client wants to be asked first


def parse_sasl_initial_response(body: bytes) -> InitialResponse:
    reader = messages.Reader(body, "SASLInitialResponse")
    mechanism, data = reader.cstring(), reader.value()
    reader.end()
    return InitialResponse(mechanism, data)


def parse_password(body: bytes) -> bytes:
    """The password of a PasswordMessage: everything before its single, final NUL."""
    if not body or body.find(b"\0") != len(body) - 1:
        raise _fatal("invalid password packet size")
    return body[:-1]


# --- what a server says ----------------------------------------------------------------------------------------


class Authentication(IntEnum):
    """The number that follows R."""

    OK = 0
    CLEARTEXT_PASSWORD = 3
    MD5_PASSWORD = 5
    GSS = 7
    GSS_CONTINUE = 8
    SSPI = 9
    SASL = 10
    SASL_CONTINUE = 11
    SASL_FINAL = 12


def authentication(kind: Authentication, data: bytes = b"") -> bytes:
    return messages.message(b"R", _LENGTH.pack(kind) + data)


def authentication_sasl(mechanisms: Sequence[bytes]) -> bytes:
    return authentication(Authentication.SASL, b"".join(name + b"\0" for name in mechanisms) + b"\0")


AUTHENTICATION_OK = authentication(Authentication.OK)


class Asked(NamedTuple):
    """An Authentication message from a server."""

    kind: int  # an Authentication, or a number we do not know
    data: bytes

    def mechanisms(self) -> list[bytes]:
        reader = messages.Reader(self.data, "AuthenticationSASL")
        names = []
        while name := reader.cstring():
            names.append(name)
        return names


def parse_authentication(body: bytes) -> Asked:
    reader = messages.Reader(body, "Authentication")
    return Asked(reader.uint32(), body[4:])


def parse_backend_key(body: bytes) -> tuple[int, bytes]:
    """Process id and secret; the secret is 4 to 256 bytes long."""
    reader = messages.Reader(body, "BackendKeyData")
    pid, secret = reader.uint32(), body[4:]
    if not SECRET_MIN_BYTES <= len(secret) <= SECRET_LIMIT_BYTES:
        raise messages.malformed("BackendKeyData", f"a secret of {len(secret)} bytes")
    return pid, secret


def parse_negotiation(body: bytes) -> tuple[int, list[bytes]]:
    """Minor version the server wants to speak, and the options it does not know."""
    reader = messages.Reader(body, "NegotiateProtocolVersion")
    version, count = reader.uint32(), reader.uint32()
    if count > STARTUP_LIMIT_BYTES:
        raise messages.malformed("NegotiateProtocolVersion", f"{count} options")
    names = [reader.cstring() for _ in range(count)]
    reader.end()
    return version & 0xFFFF, names
