"""Opens connections to PostgreSQL servers: address, TLS, start-up, authentication, up to the first ReadyForQuery.

A coroutine reads and answers, one message at a time; a small protocol collects bytes for it. When ReadyForQuery is
there, the transport and whatever the server has said since go to the caller's protocol in one step without an await, so
no byte falls between the two. Everything before has one deadline. What goes wrong is a ServerFault: the server's own
SQLSTATE and text if it said something, else 08001 (could not connect) or 08006 (connected, then lost) with the address.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar, cast

from node.auth import md5
from node.auth.scram import NONCE_BYTES, KeyCache, ScramClient, derive, nonce_of
from node.errors import ClientFault, ServerFault
from node.loop.secure import secure
from node.loop.sockets import Streaming, adopt
from node.tcp import TcpOptions
from node.tls import ClientTls, end_point_hash
from node.wire import messages
from node.wire.codes import HEADER_BYTES, MIN_LENGTH, Backend
from node.wire.startup import (
    Authentication,
    parse_authentication,
    parse_backend_key,
    parse_negotiation,
    password_message,
    ssl_request,
    startup_message,
)

# One message before ReadyForQuery: the longest seen are errors and ParameterStatus, far below.
MESSAGE_LIMIT_BYTES = 1 << 16
# All messages before ReadyForQuery; PostgreSQL 18 sends about 20, its kin some more.
MESSAGES_LIMIT = 1_000
NOTICES_LIMIT = 100
WRONG_PASSWORD = "28P01"

P = TypeVar("P", bound=Streaming)


@dataclass(frozen=True, slots=True)
class Target:
    """One PostgreSQL address and how to log in there. `host` with a leading slash is a folder of UNIX sockets."""

    host: str
    port: int
    database: str
    user: str
    passwords: tuple[str, ...] = field(default=(), repr=False)  # tried in order, a connection each
    tls: ClientTls | None = None
    application_name: str = "pgmurmur"  # pgmurmur/<node>/<boot>: a rollout tells by it whose backends are whose
    statement_timeout_ms: int | None = None
    lock_timeout_ms: int | None = None
    read_only: bool = False
    parameters: tuple[tuple[str, str], ...] = ()  # more startup parameters, over the ones above
    minor: int = 0  # 2 asks for protocol 3.2 and its long cancel keys; servers since 9.3 can say no
    tcp: TcpOptions = TcpOptions()

    @property
    def local(self) -> bool:
        return self.host.startswith("/")

    @property
    def address(self) -> str:
        if self.local:
            return f"{self.host}/.s.PGSQL.{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def startup_parameters(self) -> dict[str, str]:
        chosen = {"user": self.user, "database": self.database, "application_name": self.application_name}
        if self.statement_timeout_ms is not None:
            chosen["statement_timeout"] = str(self.statement_timeout_ms)
        if self.lock_timeout_ms is not None:
            chosen["lock_timeout"] = str(self.lock_timeout_ms)
        if self.read_only:
            chosen["default_transaction_read_only"] = "on"
        chosen.update(self.parameters)
        return chosen


@dataclass(frozen=True, slots=True)
class Connected(Generic[P]):
    """A connection that is ready for queries and belongs to `protocol`."""

    target: Target
    protocol: P
    transport: asyncio.Transport
    parameters: dict[str, str]  # ParameterStatus, whatever this server reports
    pid: int  # 0 when the server gave no cancel key
    secret: bytes = field(repr=False)
    minor: int
    tls: bool
    password_index: int  # which of the passwords was right
    notices: tuple[dict[str, str], ...]


_keys = KeyCache()
"""SCRAM keys per password, salt and iterations: the same server asks for the same ones at every connection."""


async def connect(
    target: Target, *, protocol_factory: Callable[[], P], timeout_s: float, cache: KeyCache | None = None
) -> Connected[P]:
    """Raises ServerFault, and nothing stays open. `protocol.connection_made` has been called when this returns.

    Another password is only tried after 28P01, so a server is never asked twice with the same one.
    """
    keys = cache if cache is not None else _keys
    deadline = asyncio.get_running_loop().time() + timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            for index, password in enumerate(target.passwords):
                try:
                    return await _attempt(target, password, index, protocol_factory, keys, deadline)
                except ServerFault as fault:
                    if fault.sqlstate != WRONG_PASSWORD or index == len(target.passwords) - 1:
                        raise
            return await _attempt(target, None, 0, protocol_factory, keys, deadline)
    except TimeoutError:
        raise unreachable(target, f"no answer within {timeout_s:g} s") from None
    except ClientFault as fault:  # what takes messages apart does not know whose message it is
        raise ServerFault(fault.message, sqlstate=fault.sqlstate, detail=fault.detail, severity="FATAL") from None


def unreachable(target: Target, reason: str) -> ServerFault:
    return ServerFault(f'could not connect to server "{target.address}": {reason}', sqlstate="08001", severity="FATAL")


def server_fault(body: bytes) -> ServerFault:
    """The server's ErrorResponse as an exception. Raises ClientFault when it is malformed."""
    fields = messages.parse_error(body)
    position = fields.get("P", "")
    return ServerFault(
        fields.get("M", "server sent an error without a text"),
        sqlstate=fields.get("C", "XX000"),
        detail=fields.get("D"),
        hint=fields.get("H"),
        severity=fields.get("V") or fields.get("S"),
        position=int(position) if position.isdecimal() else None,
    )


# --- bytes in, messages out ------------------------------------------------------------------------------------


class Wire(asyncio.Protocol):
    """Collects what the server says and hands it out by message to one waiting coroutine.

    Not reading fast enough pauses the transport, so it never holds more than a chunk over the limit.
    """

    def __init__(self, target: Target, limit_bytes: int = MESSAGE_LIMIT_BYTES) -> None:
        self._target = target
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._lost: ServerFault | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._paused = False

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > self._limit + HEADER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f": {exc}" if exc else ""
        self._lost = ServerFault(
            f'server "{self._target.address}" closed the connection unexpectedly{reason}',
            sqlstate="08006",
            severity="FATAL",
        )
        self._wake()

    # the coroutine's side

    @property
    def transport(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("not connected")
        return self._transport

    @transport.setter
    def transport(self, transport: asyncio.Transport) -> None:
        """TLS puts another transport on top."""
        self._transport = transport
        self._paused = False

    @property
    def lost(self) -> ServerFault | None:
        return self._lost

    async def byte(self) -> bytes:
        """The answer to SSLRequest, which must come alone: bytes behind it were never encrypted (CVE-2021-23222)."""
        await self._until(1)
        if len(self._buffer) > 1 and self._buffer[:1] == b"S":
            raise self._nonsense("received unencrypted data after SSL response")
        return self._take(1)

    async def message(self) -> tuple[int, bytes]:
        """Letter and body of the next message."""
        await self._until(HEADER_BYTES)
        letter, length = self._buffer[0], int.from_bytes(self._buffer[1:HEADER_BYTES], "big")
        if not MIN_LENGTH <= length <= self._limit:
            raise self._nonsense(f"message {chr(letter)!r} with a length of {length}")
        await self._until(length + 1)
        return letter, self._take(length + 1)[HEADER_BYTES:]

    async def closed(self) -> None:
        """Returns when the server has closed the connection; whatever it still says is dropped."""
        while self._lost is None:
            self._take(len(self._buffer))
            await self._more()

    def rest(self) -> bytes:
        return self._take(len(self._buffer))

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        if self._paused and len(self._buffer) <= self._limit and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return taken

    async def _until(self, count: int) -> None:
        while len(self._buffer) < count:
            if self._lost is not None:
                raise self._lost
            await self._more()

    async def _more(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _nonsense(self, what: str) -> ServerFault:
        return nonsense(self._target, what)


def nonsense(target: Target, what: str) -> ServerFault:
    return ServerFault(
        f'server "{target.address}" does not speak our protocol', sqlstate="08P01", detail=what, severity="FATAL"
    )


# --- opening ---------------------------------------------------------------------------------------------------


async def open_wire(target: Target, *, timeout_s: float, tls: ClientTls | None) -> tuple[Wire, bool]:
    """Connects, and encrypts when `tls` asks for it. Returns the wire and whether it is encrypted.

    Raises ServerFault; the connection is closed then. Closing it afterwards is the caller's duty.
    """
    connection = await _open_socket(target, timeout_s)
    wire = Wire(target)
    await adopt(connection, wire)
    if tls is None or target.local:
        return wire, False
    try:
        return wire, await _encrypt(target, wire, tls)
    except BaseException:
        wire.transport.abort()
        raise


async def _open_socket(target: Target, timeout_s: float) -> socket.socket:
    """Tries every address of the host in turn; one that is silent may use its share of the time, not all of it."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    addresses = await _addresses(target)
    reason = "the name has no address"
    for number, (family, address) in enumerate(addresses):
        share = (deadline - loop.time()) / (len(addresses) - number)
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)
            if not target.local:
                target.tcp.apply(connection)
            async with asyncio.timeout(share):
                await loop.sock_connect(connection, address)
            return connection
        except OSError as error:  # a TimeoutError too
            connection.close()
            reason = os.strerror(error.errno).lower() if error.errno else f"no answer within {share:.3g} s"
        except BaseException:
            connection.close()
            raise
    raise unreachable(target, reason)


async def _addresses(target: Target) -> Sequence[tuple[int, tuple[object, ...] | str]]:
    if target.local:
        return [(socket.AF_UNIX, target.address)]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise unreachable(target, f"could not translate host name to address: {reason}") from None
    return [(family, address) for family, _, _, _, address in found]


async def _encrypt(target: Target, wire: Wire, tls: ClientTls) -> bool:
    """False when the server has no TLS and we do not insist."""
    wire.transport.write(ssl_request())
    answer = await wire.byte()
    if answer == b"N":
        if tls.required:
            raise unreachable(target, "the server has no TLS, but tls_verify demands it")
        return False
    if answer != b"S":
        # An ErrorResponse perhaps; its text could come from anybody, so it is not shown (CVE-2024-10977).
        raise nonsense(target, f"{answer!r} in answer to SSLRequest")
    wire.transport.pause_reading()
    try:
        wire.transport = await secure(wire.transport, wire, tls.context, server_hostname=target.host)
        wire.transport.resume_reading()
    except ssl.SSLCertVerificationError as error:
        raise unreachable(target, f"its certificate cannot be trusted: {error.verify_message}") from None
    except OSError as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise unreachable(target, f"TLS handshake failed: {reason}") from None
    return True


# --- start-up --------------------------------------------------------------------------------------------------


async def _attempt(
    target: Target,
    password: str | None,
    index: int,
    protocol_factory: Callable[[], P],
    keys: KeyCache,
    deadline: float,
) -> Connected[P]:
    """One connection, one password."""
    timeout_s = deadline - asyncio.get_running_loop().time()
    wire, encrypted = await open_wire(target, timeout_s=timeout_s, tls=target.tls)
    try:
        login = _Login(target, wire, password, encrypted, keys)
        await login.run()
        protocol = protocol_factory()
        if wire.lost is not None:
            raise wire.lost
        # No await from here on: what comes now goes to the new protocol.
        transport, surplus = wire.transport, wire.rest()
        transport.set_protocol(cast(asyncio.BaseProtocol, protocol))
        protocol.connection_made(transport)
        if surplus:
            protocol.data_received(surplus)
    except BaseException:
        wire.transport.abort()
        raise
    return Connected(
        target=target,
        protocol=protocol,
        transport=transport,
        parameters=login.parameters,
        pid=login.pid,
        secret=login.secret,
        minor=login.minor,
        tls=encrypted,
        password_index=index,
        notices=tuple(login.notices),
    )


class _Login:
    """The client's side of start-up on an open wire; collects what the server says about itself."""

    def __init__(self, target: Target, wire: Wire, password: str | None, encrypted: bool, keys: KeyCache) -> None:
        self._target = target
        self._wire = wire
        self._password = password
        self._encrypted = encrypted
        self._keys = keys
        self._scram: ScramClient | None = None
        self._proven = True  # False while a SCRAM server still owes the proof that it knows the password
        self._authenticated = False
        self.parameters: dict[str, str] = {}
        self.pid = 0
        self.secret = b""
        self.minor = target.minor
        self.notices: list[dict[str, str]] = []

    async def run(self) -> None:
        """Until ReadyForQuery."""
        self._send(startup_message(_pairs(self._target.startup_parameters()), self._target.minor))
        for _ in range(MESSAGES_LIMIT):
            letter, body = await self._wire.message()
            if letter == Backend.ERROR_RESPONSE:
                raise server_fault(body)
            if letter == Backend.NOTICE_RESPONSE:
                if len(self.notices) < NOTICES_LIMIT:
                    self.notices.append(messages.parse_error(body))
            elif self._authenticated:
                if self._settled(letter, body):
                    return
            elif letter == Backend.AUTHENTICATION:
                await self._asked(body)
            elif letter == Backend.NEGOTIATE_PROTOCOL_VERSION:
                minor, _ = parse_negotiation(body)
                if minor > self._target.minor:
                    raise nonsense(self._target, f"protocol 3.{minor} when we asked for 3.{self._target.minor}")
                self.minor = minor
            else:
                raise nonsense(self._target, f"message {chr(letter)!r} during authentication")
        raise nonsense(self._target, f"more than {MESSAGES_LIMIT} messages before ReadyForQuery")

    def _send(self, data: bytes) -> None:
        self._wire.transport.write(data)

    def _settled(self, letter: int, body: bytes) -> bool:
        """One message after AuthenticationOk; True for ReadyForQuery."""
        if letter == Backend.PARAMETER_STATUS:
            name, value = messages.parse_parameter_status(body)
            self.parameters[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
        elif letter == Backend.BACKEND_KEY_DATA:
            self.pid, self.secret = parse_backend_key(body)
        elif letter == Backend.READY_FOR_QUERY and body == b"I":
            return True
        else:
            raise nonsense(self._target, f"message {chr(letter)!r} before ReadyForQuery")
        return False

    async def _asked(self, body: bytes) -> None:
        kind, data = asked = parse_authentication(body)
        if kind == Authentication.OK:
            if not self._proven:
                raise nonsense(self._target, "AuthenticationOk before the server proved that it knows the password")
            self._authenticated = True
        elif kind == Authentication.CLEARTEXT_PASSWORD:
            self._send(password_message(_bytes(self._known())))
        elif kind == Authentication.MD5_PASSWORD:
            if len(data) != md5.MD5_SALT_BYTES:
                raise nonsense(self._target, "an MD5 salt of another length than four bytes")
            self._send(md5.client_message(_bytes(self._target.user), _bytes(self._known()), data))
        elif kind == Authentication.SASL:
            if self._scram is not None:
                raise nonsense(self._target, "a second SASL exchange")
            self._proven = False
            self._scram = ScramClient(
                self._known(),
                asked.mechanisms(),
                nonce=nonce_of(secrets.token_bytes(NONCE_BYTES)),
                binding=self._binding(),
                cache=self._keys,
            )
            self._send(self._scram.start())
        elif kind == Authentication.SASL_CONTINUE and self._scram is not None:
            await self._prove(self._scram, data)
        elif kind == Authentication.SASL_FINAL and self._scram is not None:
            self._scram.verify(data)
            self._proven = True
        else:
            raise ServerFault(
                f'server "{self._target.address}" asks for authentication method {kind}, which is not supported',
                sqlstate="28000",
                hint="scram-sha-256, md5, password and trust are",
                severity="FATAL",
            )

    async def _prove(self, scram: ScramClient, data: bytes) -> None:
        """The first time at a server costs a PBKDF2, which is done beside the event loop."""
        salt, iterations = scram.challenged(data)
        password = self._known()
        if not self._keys.holds(password, salt, iterations):
            loop = asyncio.get_running_loop()
            derived = await loop.run_in_executor(None, derive, password, salt, iterations)
            self._keys.put(password, salt, iterations, derived)
        self._send(scram.prove())

    def _known(self) -> str:
        if self._password is None:
            raise ServerFault(
                f'server "{self._target.address}" asks for a password, but none is configured for user'
                f' "{self._target.user}"',
                sqlstate="28000",
                severity="FATAL",
            )
        return self._password

    def _binding(self) -> bytes | None:
        if not self._encrypted:
            return None
        certificate = self._wire.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return None if certificate is None else end_point_hash(certificate)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _pairs(parameters: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    pairs = [(_bytes(name), _bytes(value)) for name, value in parameters.items()]
    for name, value in pairs:
        if b"\0" in name + value or not name:
            # It would end the text early and start a parameter that nobody configured.
            raise ServerFault(f"startup parameter {name!r} contains a zero byte", sqlstate="08P01", severity="FATAL")
    return pairs
