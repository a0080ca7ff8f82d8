"""Listening sockets on a loop of ours."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fakes.waiting import wait_until

from node.loop.acceptor import ACCEPTED_AT_ONCE
from node.loop.loop import Loop
from node.loop.sockets import Serving, serve


class Greeter:
    """Says hello to whoever comes."""

    here: set[Greeter] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport.get_extra_info("peername"), tuple)
        self.here.add(self)
        transport.write(b"hello")  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        return

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        return

    def resume_writing(self) -> None:
        return

    def connection_lost(self, error: Exception | None) -> None:
        self.here.discard(self)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Serving, tuple[str, int]]]:
    Greeter.here = set()
    listening = socket.socket()
    listening.setblocking(False)
    listening.bind(("127.0.0.1", 0))
    serving = await serve(listening, Greeter, 1024)
    try:
        yield serving, listening.getsockname()
    finally:
        serving.close()
        await asyncio.sleep(0)


def test_more_clients_at_once_than_one_turn_takes() -> None:
    async def main() -> None:
        async with served() as (_, address):
            clients = [socket.socket() for _ in range(3 * ACCEPTED_AT_ONCE)]
            for client in clients:
                client.connect(address)
            await wait_until(lambda: len(Greeter.here) == len(clients))
            for client in clients:
                assert client.recv(100) == b"hello"
                client.close()
            await wait_until(lambda: not Greeter.here)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_who_came_in_stays_when_nobody_is_accepted_any_more() -> None:
    async def main() -> None:
        async with served() as (serving, address):
            client = socket.create_connection(address)
            await wait_until(lambda: bool(Greeter.here))
            serving.close()
            serving.close()
            await asyncio.sleep(0)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            assert client.recv(100) == b"hello"
            assert len(Greeter.here) == 1
            client.close()
            await wait_until(lambda: not Greeter.here)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_clients_wait_while_there_are_no_descriptors_left(caplog: pytest.LogCaptureFixture) -> None:
    """accept(2) fails with EMFILE: the loop must neither spin nor forget the clients."""

    async def main() -> None:
        async with served() as (_, address):
            client = socket.create_connection(address)
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            lowest = os.dup(0)  # the number that the next descriptor would get
            os.close(lowest)
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
            try:
                await wait_until(lambda: bool(caplog.records))
                assert not Greeter.here
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await wait_until(lambda: bool(Greeter.here))
            client.close()
            await wait_until(lambda: not Greeter.here)
            assert len(caplog.records) == 1
            assert "ulimit -n" in caplog.text

    with caplog.at_level(logging.ERROR), asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())
