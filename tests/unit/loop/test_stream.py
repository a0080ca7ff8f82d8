"""Streams on a loop of ours, and asyncio's own transports beside them: a protocol must not notice which it has."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from node.loop import stream as stream_module
from node.loop.loop import Loop
from node.loop.receiver import Receiver
from node.loop.sockets import adopt, serve, turn_end
from node.loop.stream import HIGH_WATER_BYTES, LOW_WATER_BYTES
from node.strip import is_compiled

ROOT = Path(__file__).resolve().parents[3]
MAKERS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"ours": Loop, "asyncio": asyncio.SelectorEventLoop}


class Listener:
    """A protocol that notes what it is told."""

    def __init__(self) -> None:
        self.heard = b""
        self.events: list[str] = []
        self.transport: Any = None
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.stays = False
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.on_data(data)

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.stays

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        assert not self.busy, "connection_lost within a call of the protocol's own"
        self.events.append(f"lost {type(error).__name__}")
        self.lost.set_result(error)


class Compiled(Listener, Receiver):
    """The same by the shorter way."""


def run(main: Callable[[], Coroutine[Any, Any, None]], maker: Callable[[], asyncio.AbstractEventLoop] = Loop) -> None:
    with asyncio.Runner(loop_factory=maker) as runner:
        runner.run(asyncio.wait_for(main(), 20))


async def pair(kind: type[Listener] = Listener) -> tuple[Listener, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    listener = kind()
    await adopt(ours, listener)
    return listener, theirs


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def receive_all(theirs: socket.socket) -> bytes:
    """Up to the end of the stream."""
    loop = asyncio.get_running_loop()
    received = bytearray()
    while True:
        try:
            data = await loop.sock_recv(theirs, 1 << 16)
        except ConnectionResetError:  # said once by a UNIX socket whose other end was closed with something unread
            continue
        if not data:
            return bytes(received)
        received += data


@pytest.mark.parametrize("kind", [Listener, Compiled])
def test_bytes_go_both_ways(kind: type[Listener]) -> None:
    async def main() -> None:
        listener, theirs = await pair(kind)
        listener.on_data = lambda data: listener.transport.write(data.upper())
        await asyncio.get_running_loop().sock_sendall(theirs, b"murmur")
        assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"MURMUR"
        theirs.close()
        assert await listener.lost is None
        assert listener.events == ["eof", "lost NoneType"]

    run(main)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_what_a_slow_reader_leaves_is_kept_and_its_writer_told(
    maker: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        listener, theirs = await pair()
        transport = listener.transport
        data = random.Random(1).randbytes(5_000_000)
        for at in range(0, len(data), 70_001):
            transport.write(data[at : at + 70_001])
        assert listener.events == ["pause"]
        assert transport.get_write_buffer_size() > HIGH_WATER_BYTES
        transport.close()
        assert transport.is_closing()
        assert await receive_all(theirs) == data
        await listener.lost
        assert listener.events == ["pause", "resume", "lost NoneType"]
        theirs.close()

    run(main, maker)


def test_the_writer_may_go_on_when_little_is_left() -> None:
    async def main() -> None:
        listener, theirs = await pair()
        transport = listener.transport
        transport.write(bytes(1_000_000))
        while "resume" not in listener.events:
            assert transport.get_write_buffer_size() > LOW_WATER_BYTES
            await asyncio.get_running_loop().sock_recv(theirs, 10_000)
            await turns(1)
        assert 0 <= transport.get_write_buffer_size() <= LOW_WATER_BYTES
        transport.abort()
        theirs.close()
        await listener.lost

    run(main)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_abort_drops_what_waits(maker: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        listener, theirs = await pair()
        listener.transport.write(bytes(3_000_000))
        listener.transport.abort()
        listener.transport.write(b"too late")
        assert len(await receive_all(theirs)) < 3_000_000
        assert await listener.lost is None
        theirs.close()

    run(main, maker)


def test_the_end_is_told_once_and_never_within_a_call() -> None:
    async def main() -> None:
        listener, theirs = await pair()
        end = [listener.transport.close, listener.transport.abort, listener.transport.close]

        def leave(data: bytes) -> None:
            listener.busy = True
            for call in end:
                call()
            listener.transport.write(b"nobody reads this")
            listener.busy = False

        listener.on_data = leave
        theirs.send(b"x")
        assert await listener.lost is None
        await turns()
        assert listener.events == ["lost NoneType"]
        assert listener.transport.get_extra_info("peername") is None
        assert theirs.recv(100) == b""
        theirs.close()

    run(main)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_paused_reading_hears_nothing_until_it_is_resumed(maker: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        listener, theirs = await pair()
        await turns()  # asyncio's begins to read a turn later
        listener.transport.pause_reading()
        assert not listener.transport.is_reading()
        theirs.send(b"one")
        await turns()
        theirs.send(b"two")
        await turns()
        assert listener.heard == b""
        listener.transport.write(b"writing goes on")
        assert await asyncio.get_running_loop().sock_recv(theirs, 100) == b"writing goes on"
        listener.transport.resume_reading()
        while len(listener.heard) < 6:
            await turns(1)
        assert listener.heard == b"onetwo"
        listener.transport.pause_reading()
        theirs.close()
        await turns()
        assert listener.events == []  # the end is read like anything else
        listener.transport.resume_reading()
        await listener.lost

    run(main, maker)


def test_a_socket_that_nobody_reads_does_not_keep_the_loop_busy() -> None:
    """The kernel reports it once; were it asked again, every turn would end at once."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        listener, theirs = await pair()
        listener.transport.pause_reading()
        theirs.send(b"x")
        await turns()
        kernel = select.epoll.fromfd(os.dup(loop.poller.fileno()))
        assert kernel.poll(0) == []
        theirs.close()  # hang-ups are reported whether asked for or not
        await turns()
        assert kernel.poll(0) == []
        kernel.close()
        listener.transport.abort()
        await listener.lost

    run(main)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_half_a_connection_can_be_closed(maker: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        listener, theirs = await pair()
        listener.transport.write(bytes(1_000_000))
        assert listener.transport.can_write_eof()
        listener.transport.write_eof()
        assert len(await receive_all(theirs)) == 1_000_000
        theirs.send(b"still heard")
        while not listener.heard:
            await turns(1)
        listener.stays = True
        theirs.shutdown(socket.SHUT_WR)
        while listener.events[-1:] != ["eof"]:
            await turns(1)
        listener.transport.close()
        assert await listener.lost is None
        theirs.close()

    run(main, maker)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_a_reset_is_told_as_what_it_is(maker: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as door:
            theirs = socket.create_connection(door.getsockname())
            ours, _ = door.accept()
        ours.setblocking(False)
        listener = Listener()
        await adopt(ours, listener)
        assert listener.transport.get_extra_info("peername") == theirs.getsockname()
        assert listener.transport.get_extra_info("sockname") == theirs.getpeername()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        assert isinstance(await listener.lost, ConnectionResetError)

    run(main, maker)


def test_a_protocol_that_fails_loses_its_connection_and_nobody_else_does() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        (bad, to_bad), (good, to_good) = await pair(), await pair()

        def fail(data: bytes) -> None:
            raise ValueError("a bug")

        bad.on_data = fail
        to_bad.send(b"x")
        to_good.send(b"y")
        assert isinstance(await bad.lost, ValueError)
        while not good.heard:
            await turns(1)
        assert [type(context["exception"]) for context in told] == [ValueError]
        good.transport.abort()
        await good.lost
        for theirs in (to_bad, to_good):
            theirs.close()

    run(main)


def test_a_protocol_that_cannot_begin_leaves_no_socket_and_no_harm() -> None:
    class Stillborn(Listener):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            raise ValueError("a bug")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        with theirs:
            with pytest.raises(ValueError, match="a bug"):
                await adopt(ours, Stillborn())
            assert await receive_all(theirs) == b""
        with socket.create_server(("127.0.0.1", 0)) as door:
            door.setblocking(False)
            serving = await serve(door, Stillborn, 10)
            client = socket.create_connection(door.getsockname())
            client.setblocking(False)
            assert await loop.sock_recv(client, 1) == b""  # and the loop goes on
            client.close()
            serving.close()
            await turns()
        assert [type(context["exception"]) for context in told] == [ValueError]

    run(main)


def test_a_stream_that_was_ended_in_a_turn_hears_nothing_more_of_it() -> None:
    async def main() -> None:
        (one, to_one), (two, to_two) = await pair(), await pair()
        one.on_data = lambda data: two.transport.abort()
        two.on_data = lambda data: one.transport.abort()
        to_one.send(b"x")
        to_two.send(b"x")
        done, _ = await asyncio.wait([one.lost, two.lost], return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        assert sorted((one.heard, two.heard)) == [b"", b"x"]
        one.transport.abort()
        two.transport.abort()
        await asyncio.gather(one.lost, two.lost)
        for theirs in (to_one, to_two):
            theirs.close()

    run(main)


def test_the_end_of_a_turn_comes_when_all_of_it_was_served() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        soon = turn_end(loop)
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: told.append(context))
        order: list[str] = []
        ended = loop.create_future()

        def fail() -> None:
            order.append("end")
            soon(lambda: (order.append("end of the end"), ended.set_result(None)))
            raise ValueError("a bug")

        pairs = [await pair() for _ in range(3)]
        for listener, _ in pairs:
            listener.on_data = lambda data: (order.append("data"), soon(fail) if order == ["data"] else None)
        for _, theirs in pairs:
            theirs.send(b"x")
        await ended
        assert order == ["data", "data", "data", "end", "end of the end"]
        assert [type(context["exception"]) for context in told] == [ValueError]
        for listener, theirs in pairs:
            listener.transport.abort()
            await listener.lost
            theirs.close()

    run(main)


def test_traffic_does_not_starve_asyncio() -> None:
    """Two streams that never stop answering each other; timers, callbacks, threads and signals come through."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        players = [Listener(), Listener()]
        for player, end in zip(players, (ours, theirs), strict=True):
            end.setblocking(False)
            await adopt(end, player)
            player.on_data = player.transport.write
        players[0].transport.write(b"ball")
        await asyncio.sleep(0.01)
        await asyncio.to_thread(int)
        heard = loop.create_future()
        loop.add_signal_handler(signal.SIGUSR1, heard.set_result, None)
        os.kill(os.getpid(), signal.SIGUSR1)
        await heard
        assert len(players[0].heard) > 4
        for player in players:
            player.transport.abort()
            await player.lost

    run(main)


def play(seed: int, maker: Callable[[], asyncio.AbstractEventLoop]) -> tuple[object, ...]:
    """One random conversation; what both ends heard, and how it ended for the protocol."""
    result: list[object] = []

    async def main() -> None:
        rng = random.Random(seed)
        loop = asyncio.get_running_loop()
        listener, theirs = await pair()
        await turns()
        received = bytearray()
        expected = 0
        for _ in range(rng.randint(5, 40)):
            match rng.randrange(7):
                case 0 | 1:
                    size = rng.choice((1, 100, 70_000, 400_000))
                    listener.transport.write(rng.randbytes(size))
                    expected += size
                case 2:
                    theirs.send(rng.randbytes(rng.choice((1, 5_000))))
                case 3:
                    listener.transport.pause_reading()
                case 4:
                    listener.transport.resume_reading()
                case 5:
                    while expected - len(received) > 100_000:
                        received += await loop.sock_recv(theirs, 1 << 20)
                case 6:
                    await turns(rng.randrange(4))
        listener.transport.resume_reading()
        ending = rng.choice(("close", "write_eof", "they close"))
        if ending == "close":
            listener.transport.close()
            received += await receive_all(theirs)
        elif ending == "write_eof":
            listener.transport.write_eof()
            received += await receive_all(theirs)
        else:
            while len(received) < expected:
                received += await loop.sock_recv(theirs, 1 << 20)
        heard_late = ending != "close"
        theirs.close()
        await listener.lost
        result.extend((bytes(received), listener.heard if heard_late else None, listener.events[-1]))

    run(main, maker)
    return tuple(result)


def test_a_protocol_cannot_tell_it_from_asyncio() -> None:
    seeds = [random.randrange(1 << 32) for _ in range(60)]
    for seed in seeds:
        assert play(seed, Loop) == play(seed, asyncio.SelectorEventLoop), f"seed {seed}"


def test_descriptors_are_closed_with_the_loop() -> None:
    before = len(os.listdir("/proc/self/fd"))
    kept: list[socket.socket] = []

    async def main() -> None:
        _, theirs = await pair()
        kept.append(theirs)

    run(main)
    assert kept[0].recv(1) == b""
    kept[0].close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_sources_behave_like_the_compiled_build() -> None:
    """The same tests again, interpreted."""
    if not is_compiled(stream_module):
        pytest.skip("nothing is compiled here: the other tests of this folder have run interpreted already")
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "tests/unit/loop"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert "1 skipped" in ran.stdout  # this test, there
