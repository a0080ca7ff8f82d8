"""A client that says exactly what a test wants, byte by byte, and hears every message.

It has its own SCRAM, written apart from node/auth, so that a mistake there does not cancel out.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import ssl
import struct
from types import TracebackType

from fakes.conversation import Answer, Letters, Message

from node.wire import messages, startup

TIMEOUT_S = 10.0


class LoginRefused(Exception):
    """The server answered the login with an ErrorResponse, given here by field letter."""

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(f"{fields.get('S')} {fields.get('C')}: {fields.get('M')}")
        self.fields = fields


class FakeClient:
    """One connection. Every wait has a time limit; a message that does not come in time is a failed test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._letters = Letters(reader)
        self.parameters: dict[str, str] = {}
        self.key: tuple[int, bytes] = (0, b"")

    @classmethod
    async def open(cls, host: str, port: int) -> FakeClient:
        """A bare connection: nothing said yet. A host that starts with / is the folder of a UNIX socket."""
        if host.startswith("/"):
            reader, writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            reader, writer = await asyncio.open_connection(host, port)
        return cls(reader, writer)

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        *,
        user: str,
        database: str,
        password: str = "",
        minor: int = 0,
        tls: ssl.SSLContext | None = None,
        **parameters: str,
    ) -> FakeClient:
        """Logs in, as far as ReadyForQuery. Raises LoginRefused."""
        client = await cls.open(host, port)
        try:
            if tls is not None:
                await client.start_tls(tls)
            pairs = {"user": user, "database": database, **parameters}
            client.send(
                startup.startup_message([(name.encode(), value.encode()) for name, value in pairs.items()], minor)
            )
            await client.log_in(user, password)
        except BaseException:
            await client.abort()
            raise
        return client

    async def start_tls(self, context: ssl.SSLContext) -> None:
        self.send(startup.ssl_request())
        if await asyncio.wait_for(self.reader.readexactly(1), TIMEOUT_S) != b"S":
            raise AssertionError("the server does not speak TLS")
        await self.writer.start_tls(context)

    async def log_in(self, user: str, password: str) -> None:
        """Answers whatever the server asks for, then listens until it is ready."""
        scram: _Scram | None = None
        while True:
            message = await self.read()
            match message.letter:
                case "E":
                    raise LoginRefused(message.fields)
                case "S":
                    name, value, _ = message.body.split(b"\0")
                    self.parameters[name.decode()] = value.decode()
                case "K":
                    self.key = struct.unpack_from("!I", message.body)[0], message.body[4:]
                case "Z":
                    return
                case "R":
                    (kind,) = struct.unpack_from("!I", message.body)
                    if kind == 3:
                        self.send(startup.password_message(password.encode()))
                    elif kind == 5:
                        self.send(startup.password_message(_md5(user, password, message.body[4:8])))
                    elif kind == 10:
                        scram = _Scram(password)
                        self.send(startup.sasl_initial_response(b"SCRAM-SHA-256", scram.first()))
                    elif kind == 11 and scram is not None:
                        self.send(startup.sasl_response(scram.final(message.body[4:])))
                    elif kind == 12 and scram is not None:
                        scram.verify(message.body[4:])
                    elif kind != 0:
                        raise AssertionError(f"unknown authentication request {kind}")

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    async def send_torn(self, data: bytes, size: int = 1) -> None:
        """In pieces that arrive one by one, as a slow network would deliver them."""
        for at in range(0, len(data), size):
            self.writer.write(data[at : at + size])
            await self.writer.drain()
            await asyncio.sleep(0)

    async def read(self) -> Message:
        return await asyncio.wait_for(self._letters.next(), TIMEOUT_S)

    async def answer(self) -> Answer:
        """Everything up to the next ReadyForQuery. Raises EOFError when the connection ends before."""
        return await self.until("Z")

    async def until(self, letter: str) -> Answer:
        heard: list[Message] = []
        while not heard or heard[-1].letter != letter:
            heard.append(await self.read())
        return Answer.of(heard)

    async def query(self, sql: str | bytes) -> Answer:
        self.send(messages.query(sql))
        return await self.answer()

    async def extended(
        self, sql: str | bytes, *parameters: bytes | None, name: bytes = b"", types: tuple[int, ...] = ()
    ) -> Answer:
        """Parse, Bind, Describe, Execute, Sync in one write, as drivers do."""
        text = sql.encode() if isinstance(sql, str) else sql
        self.send(
            messages.parse(name, text, types),
            messages.bind(b"", name, (), parameters),
            messages.describe_portal(b""),
            messages.execute(),
            messages.SYNC,
        )
        return await self.answer()

    async def ended(self) -> bytes:
        """What still comes until the peer closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), TIMEOUT_S)
        except ConnectionError:
            return b""

    async def close(self) -> None:
        """Terminate, then close."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.send(messages.TERMINATE)
            self.writer.close()
            await asyncio.wait_for(self.writer.wait_closed(), TIMEOUT_S)

    async def abort(self) -> None:
        """Gone without a word (a reset)."""
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(self.writer.wait_closed(), TIMEOUT_S)

    async def __aenter__(self) -> FakeClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _md5(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5((password + user).encode()).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt).hexdigest().encode()


class _Scram:
    """RFC 5802 and 7677, the client's side, without channel binding."""

    def __init__(self, password: str) -> None:
        self._password = password.encode()
        self._nonce = base64.b64encode(os.urandom(18))

    def first(self) -> bytes:
        self._bare = b"n=,r=" + self._nonce
        return b"n,," + self._bare

    def final(self, server_first: bytes) -> bytes:
        given = dict(part.split(b"=", 1) for part in server_first.split(b","))
        if not given[b"r"].startswith(self._nonce):
            raise AssertionError("the server's nonce does not begin with ours")
        salted = hashlib.pbkdf2_hmac("sha256", self._password, base64.b64decode(given[b"s"]), int(given[b"i"]))
        key = _hmac(salted, b"Client Key")
        without_proof = b"c=biws,r=" + given[b"r"]
        said = b",".join((self._bare, server_first, without_proof))
        signature = _hmac(hashlib.sha256(key).digest(), said)
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        self._server_signature = _hmac(_hmac(salted, b"Server Key"), said)
        return without_proof + b",p=" + base64.b64encode(proof)

    def verify(self, server_final: bytes) -> None:
        if server_final != b"v=" + base64.b64encode(self._server_signature):
            raise AssertionError("the server does not know the password's verifier")


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, "sha256").digest()
