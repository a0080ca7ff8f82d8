"""TLS as a transport, against OpenSSL in a blocking socket."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.certificates import Authority
from fakes.loops import LOOPS, policy

from node.loop.secure import secure
from node.loop.sockets import adopt

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return policy(request.param)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def contexts(request: pytest.FixtureRequest, authority: Authority) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(of a server, of a client)"""
    certificate, key = authority.issue("localhost")
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    theirs = ssl.create_default_context(cafile=authority.certificate)
    theirs.minimum_version = theirs.maximum_version = request.param
    return ours, theirs


class Echo:
    """Answers with what it hears; under TLS from `begun` on."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.heard = b""
        self.events: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.transport.write(data)

    def eof_received(self) -> bool:
        self.events.append("eof")
        return False

    def pause_writing(self) -> None:
        self.events.append("pause")
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.events.append("resume")
        self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self.events.append("lost")
        self.lost.set_result(error)


class Leaver(Echo):
    """Hangs up behind its first answer."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)
        self.transport.close()
        self.transport.write(b"too late")


@asynccontextmanager
async def conversation(
    context: ssl.SSLContext, talk: Callable[[socket.socket], Any], kind: type[Echo] = Echo, **options: Any
) -> AsyncIterator[tuple[Echo, Awaitable[Any]]]:
    """An echo with TLS at one end of a socket, and `talk` with the other end in a thread."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    echo = kind()
    await adopt(ours, echo)
    talking = asyncio.create_task(asyncio.to_thread(talk, theirs))
    plain = echo.transport
    try:
        echo.transport = await secure(plain, echo, context, server_side=True, **options)
        echo.transport.resume_reading()
        yield echo, talking
    finally:
        plain.abort()
        theirs.close()
        await asyncio.wait([talking], timeout=20)


async def test_both_ways_and_the_farewell(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    data = random.Random(2).randbytes(3_000_000)

    def talk(theirs: socket.socket) -> bytes:
        with contexts[1].wrap_socket(theirs, server_hostname="localhost", suppress_ragged_eofs=False) as secured:
            secured.sendall(b"at once")  # behind the end of the handshake, in one piece with it perhaps
            received = bytearray()
            while len(received) < len(b"at once"):
                received += secured.recv(1000)
            for at in range(0, len(data), 50_000):
                secured.sendall(data[at : at + 50_000])
                while len(received) < len(b"at once") + at + 50_000:
                    received += secured.recv(1 << 16)
            secured.sendall(b"bye")
            assert secured.recv(3) == b"bye"
            secured.unwrap()
            return bytes(received)

    async with conversation(contexts[0], talk) as (echo, talking):
        assert await talking == b"at once" + data
        assert await echo.lost is None
        assert echo.events[-2:] == ["eof", "lost"]
        assert echo.transport.get_extra_info("ssl_object").version() is not None


async def test_we_say_farewell_when_we_close(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    def talk(theirs: socket.socket) -> bytes:
        with contexts[1].wrap_socket(theirs, server_hostname="localhost", suppress_ragged_eofs=False) as secured:
            secured.sendall(b"last words")
            received = bytearray()
            while data := secured.recv(100):  # an end without a farewell raises here
                received += data
            return bytes(received)

    async with conversation(contexts[0], talk, Leaver) as (echo, talking):
        assert await talking == b"last words"
        assert echo.transport.is_closing()
        assert await echo.lost is None


class Giver(Echo):
    """Answers with more than the socket takes."""

    def data_received(self, data: bytes) -> None:
        for _ in range(40):
            self.transport.write(data * 100_000)


async def test_its_writer_is_told_when_nobody_reads(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    def talk(theirs: socket.socket) -> int:
        with contexts[1].wrap_socket(theirs, server_hostname="localhost") as secured:
            secured.sendall(b"x")
            received = 0
            while received < 4_000_000:
                data = secured.recv(1 << 16)
                assert data.strip(b"x") == b""
                received += len(data)
            return received

    async with conversation(contexts[0], talk, Giver) as (echo, talking):
        assert await talking == 4_000_000
        await echo.lost
        assert echo.events[:2] == ["pause", "resume"]


async def test_an_end_without_a_farewell_is_an_end(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    def talk(theirs: socket.socket) -> None:
        secured = contexts[1].wrap_socket(theirs, server_hostname="localhost")
        secured.sendall(b"x")
        assert secured.recv(1) == b"x"
        socket.socket(fileno=secured.detach()).close()

    async with conversation(contexts[0], talk) as (echo, talking):
        await talking
        await echo.lost
        assert echo.heard == b"x"


async def test_a_damaged_record_ends_the_connection(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    def talk(theirs: socket.socket) -> bytes:
        secured = contexts[1].wrap_socket(theirs, server_hostname="localhost")
        secured.sendall(b"x")
        assert secured.recv(1) == b"x"
        plain = socket.socket(fileno=secured.detach())
        plain.settimeout(20)
        plain.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        answered = bytearray()
        while data := plain.recv(1000):
            answered += data
        plain.close()
        return bytes(answered)

    async with conversation(contexts[0], talk) as (echo, talking):
        assert isinstance(await echo.lost, ssl.SSLError)
        assert await talking  # an alert
        assert echo.heard == b"x"


async def test_a_handshake_that_fails_is_told_to_both(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("localhost")
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    stranger = ssl.create_default_context(cafile=Authority(tmp_path).certificate)

    def talk(theirs: socket.socket) -> None:
        with pytest.raises(ssl.SSLCertVerificationError):
            stranger.wrap_socket(theirs, server_hostname="localhost")

    with pytest.raises(ssl.SSLError, match="alert"):
        async with conversation(ours, talk):
            pytest.fail("the handshake did not fail")


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01", b"Q\x00\x00\x00\x04SELECT 1"], ids=repr)
async def test_a_handshake_that_breaks_off_is_an_error(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], sent: bytes
) -> None:
    def talk(theirs: socket.socket) -> None:
        theirs.sendall(sent)
        theirs.close()

    with pytest.raises(OSError):
        async with conversation(contexts[0], talk):
            pytest.fail("there was no handshake")


async def test_a_handshake_has_a_time_limit(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with pytest.raises(TimeoutError, match=r"the TLS handshake took longer than 0\.05 s"):
        async with conversation(contexts[0], lambda theirs: theirs.recv(1), timeout_s=0.05):
            pytest.fail("nobody shook hands")


class Knocked(Echo):
    """Reads the first piece in clear, as who waits for a client's first message does."""

    def __init__(self) -> None:
        super().__init__()
        self.first: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.first.done():
            super().data_received(data)
        else:
            self.transport.pause_reading()
            self.first.set_result(data)


async def test_what_somebody_else_has_read_of_the_handshake_comes_first(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def talk() -> bytes:
        with contexts[1].wrap_socket(theirs, server_hostname="localhost") as secured:
            secured.sendall(b"hello")
            return secured.recv(100)

    echo = Knocked()
    talking = asyncio.create_task(asyncio.to_thread(talk))
    await adopt(ours, echo)
    read = await echo.first
    echo.transport = await secure(echo.transport, echo, contexts[0], server_side=True, already_read=read)
    echo.transport.resume_reading()
    assert await talking == b"hello"
    await echo.lost


async def test_our_side_can_be_the_client(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)

    def talk() -> bytes:
        with contexts[0].wrap_socket(theirs, server_side=True) as secured:
            secured.sendall(b"hello")
            return secured.recv(100)

    echo = Echo()
    talking = asyncio.create_task(asyncio.to_thread(talk))
    await adopt(ours, echo)
    echo.transport = await secure(echo.transport, echo, contexts[1], server_hostname="localhost")
    echo.transport.resume_reading()
    assert await talking == b"hello"
    assert echo.transport.get_extra_info("ssl_object").getpeercert()["subject"] == ((("commonName", "localhost"),),)
    await echo.lost
