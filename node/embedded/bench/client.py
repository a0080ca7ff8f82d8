"""A PostgreSQL client that costs little itself: it logs in by SCRAM and lets answers pass without looking at rows.

The keys of a password are derived once per salt and kept, so that what is measured of a thousand logins is the proxy.
`Login` does no I/O; `Wire` is a blocking connection for large answers, `Visitor` one of many on an event loop.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Iterator
from typing import cast

from node.auth.scram import NONCE_BYTES, KeyCache, ScramClient, nonce_of
from node.embedded.bench.pgbench import NotMeasured
from node.embedded.bench.targets import PASSWORD, USER, Target
from node.errors import Fault
from node.wire import messages
from node.wire.codes import Backend
from node.wire.startup import Authentication, parse_authentication, startup_message

READ_BYTES = 1 << 18
IO_TIMEOUT_S = 120.0
TAIL_BYTES = 64
"""Enough for CommandComplete and ReadyForQuery."""

READY = b"Z\0\0\0\x05I"

_HEADER = struct.Struct("!cI")


def query(text: str) -> bytes:
    return messages.message(b"Q", text.encode() + b"\0")


class Login:
    """From StartupMessage to the first ReadyForQuery. Give it what arrives; it answers what to send."""

    def __init__(self, database: str, keys: KeyCache) -> None:
        self._database = database
        self._keys = keys
        self._buffer = bytearray()
        self._scram: ScramClient | None = None
        self._done = False

    def start(self) -> bytes:
        return startup_message([(b"user", USER.encode()), (b"database", self._database.encode())])

    def receive(self, data: bytes) -> bytes:
        """Raises NotMeasured when the server says no."""
        self._buffer += data
        try:
            return b"".join(self._answer(letter, body) for letter, body in self._messages())
        except Fault as fault:
            raise NotMeasured(f"the login went wrong: {fault}") from fault

    def is_done(self) -> bool:
        return self._done

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        buffer = self._buffer
        while len(buffer) >= _HEADER.size:
            size = 1 + _HEADER.unpack_from(buffer)[1]
            if len(buffer) < size:
                return
            letter, body = buffer[0], bytes(buffer[_HEADER.size : size])
            del buffer[:size]
            yield letter, body

    def _answer(self, letter: int, body: bytes) -> bytes:
        if letter == Backend.ERROR_RESPONSE:
            raise NotMeasured(error_text(body))
        if letter == Backend.READY_FOR_QUERY:
            self._done = True
        if letter != Backend.AUTHENTICATION:
            return b""
        kind, data = parse_authentication(body)
        if kind == Authentication.SASL:
            asked = parse_authentication(body)
            nonce = nonce_of(secrets.token_bytes(NONCE_BYTES))
            self._scram = ScramClient(PASSWORD, asked.mechanisms(), nonce=nonce, binding=None, cache=self._keys)
            return self._scram.start()
        if kind == Authentication.SASL_CONTINUE and self._scram is not None:
            self._scram.challenged(data)
            return self._scram.prove()
        if kind == Authentication.SASL_FINAL and self._scram is not None:
            self._scram.verify(data)
        elif kind != Authentication.OK:
            raise NotMeasured(f"authentication method {kind} is not what was configured")
        return b""


def error_text(body: bytes) -> str:
    fields = messages.parse_error(body)
    return f"{fields.get('S', 'ERROR')}: {fields.get('M', '?')}"


class Wire:
    """One blocking connection. Every method raises NotMeasured when the server says no, or nothing for too long."""

    def __init__(self, target: Target, keys: KeyCache) -> None:
        self._buffer = bytearray(READ_BYTES)
        try:
            self._socket = socket.create_connection(("127.0.0.1", target.port), timeout=IO_TIMEOUT_S)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            login = Login(target.database, keys)
            answer = login.start()
            while not login.is_done():
                if answer:
                    self._socket.sendall(answer)
                answer = login.receive(self._read())
        except OSError as error:
            raise NotMeasured(f"cannot log in: {error}") from error

    def close(self) -> None:
        self._socket.close()

    def drain(self, text: str, tag: str) -> int:
        """Sends a query and takes the whole answer; how many bytes it had. It must end with the command tag `tag`."""
        try:
            self._socket.sendall(query(text))
            return self._until_ready(tag)
        except OSError as error:
            raise NotMeasured(f"the connection broke: {error}") from error

    def copy_in(self, table: str, chunk: bytes, times: int, tag: str) -> None:
        """COPY FROM STDIN of whole CopyData messages."""
        try:
            self._socket.sendall(query(f"COPY {table} FROM STDIN"))
            said = self._read()
            if said[:1] != b"G":
                raise NotMeasured(_complaint(said))
            for _ in range(times):
                self._socket.sendall(chunk)
            self._socket.sendall(messages.message(b"c", b""))
            self._until_ready(tag)
        except OSError as error:
            raise NotMeasured(f"the connection broke: {error}") from error

    def _until_ready(self, tag: str) -> int:
        view = memoryview(self._buffer)
        end = b"C" + struct.pack("!I", len(tag) + 5) + tag.encode() + b"\0" + READY
        total, tail, first = 0, b"", True
        while True:
            count = self._socket.recv_into(view)
            if not count:
                raise NotMeasured("the connection was closed in the middle of an answer")
            total += count
            if first and view[0] == Backend.ERROR_RESPONSE:
                raise NotMeasured(_complaint(bytes(view[:count])))
            first = False
            tail = (tail + bytes(view[max(0, count - TAIL_BYTES) : count]))[-TAIL_BYTES:]
            if tail.endswith(end):
                return total
            if tail.endswith(READY):
                raise NotMeasured(f"the answer did not end with {tag}: {tail!r}")

    def _read(self) -> bytes:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise NotMeasured("the connection was closed")
        return data


def _complaint(said: bytes) -> str:
    if said[:1] == b"E" and len(said) > _HEADER.size:
        size = 1 + _HEADER.unpack_from(said)[1]
        if len(said) >= size:
            return error_text(said[_HEADER.size : size])
    return f"unexpected answer {said[:40]!r}"


class Visitor(asyncio.Protocol):
    """One of many clients on an event loop; `ready` is done at the end of a login, or of each `ask` thereafter."""

    def __init__(self, database: str, keys: KeyCache) -> None:
        self._login = Login(database, keys)
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self._first = b""
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._transport.write(self._login.start())

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._login.is_done():
            self._first = self._first or data
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            if self._tail.endswith(READY) and not self.ready.done():
                self._end(None if self._first[:1] != b"E" else NotMeasured(_complaint(self._first)))
            return
        try:
            answer = self._login.receive(data)
        except NotMeasured as error:
            self._end(error)
            self._transport.abort()
            return
        if answer:
            self._transport.write(answer)
        if self._login.is_done():
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(NotMeasured(f"the connection was closed{f': {error}' if error else ''}"))

    def ask(self, text: str) -> asyncio.Future[None]:
        assert self._transport is not None
        self._tail = self._first = b""
        self.ready = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            self._end(NotMeasured("the connection was closed"))
        else:
            self._transport.write(query(text))
        return self.ready

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def leave(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self, error: Exception | None) -> None:
        if self.ready.done():
            return
        if error is None:
            self.ready.set_result(None)
        else:
            self.ready.set_exception(error)
            self.ready.exception()  # whoever waits hears of it; nobody waiting is no reason to complain
