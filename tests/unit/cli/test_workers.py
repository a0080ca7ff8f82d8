"""The parent of workers: its port, its patience, its words."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import socket

import pytest

from node.log import JsonFormatter, TextFormatter
from node.worker import OPEN, STOP, Prepared, Ready, Worker
from node.workers import RESTART_DELAY_LIMIT_S, RESTART_DELAY_S, reserve, restart_delay_s

READY = Ready("127.0.0.1:6432", "0.0.0.0:16432", "-", "10.0.0.1:16432", 10, 1000)


def test_every_death_doubles_the_patience_up_to_a_limit() -> None:
    delays = [restart_delay_s(deaths) for deaths in range(1, 1000)]
    assert delays[:3] == [RESTART_DELAY_S, 2 * RESTART_DELAY_S, 4 * RESTART_DELAY_S]
    assert delays[-1] == max(delays) == RESTART_DELAY_LIMIT_S


def bind(port: int, *, shared: bool) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made


def test_a_reserved_port_is_for_workers_and_gets_no_clients() -> None:
    port, kept = reserve("127.0.0.1", 0)
    workers = [bind(port, shared=True) for _ in range(2)]
    try:
        with socket.socket() as early:
            assert early.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED  # nobody listens yet
        for worker in workers:
            worker.listen(100)
        clients = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(64)]
        for worker in workers:
            worker.setblocking(False)
        shares = [0, 0]
        for number, worker in enumerate(workers):
            while sum(shares) < len(clients):
                try:
                    worker.accept()[0].close()
                except BlockingIOError:
                    break
                shares[number] += 1
        assert sum(shares) == len(clients)  # each of them came to a worker
        for client in clients:
            client.close()
        with pytest.raises(OSError, match="in use"):
            bind(port, shared=False)
        with pytest.raises(OSError, match=f"could not listen on 127.0.0.1:{port}: "):
            reserve("127.0.0.1", port)  # another parent
    finally:
        for one in (*kept, *workers):
            one.close()


def test_what_a_worker_says_is_read_as_it_was() -> None:
    assert Ready.from_bytes(READY.to_bytes()) == READY
    assert READY.line == "ready\t127.0.0.1:6432\t0.0.0.0:16432\t-"


class Born:
    """A worker at its door, and its parent's end of the channel."""

    def __init__(self) -> None:
        self.parent, channel = socket.socketpair()
        self.parent.setblocking(False)
        self.calls: list[str] = []
        self.worker = Worker(1, Prepared(None, None), (), b"", channel)  # type: ignore[arg-type]
        self.door = asyncio.create_task(
            self.worker.door(READY, self.listen, lambda: self.calls.append("stop"), lambda: self.calls.append("hasten"))
        )

    async def listen(self) -> None:
        self.calls.append("listen")

    async def heard(self) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.parent, 4096)

    async def calls_are(self, *wanted: str) -> None:
        async with asyncio.timeout(5):
            while self.calls != list(wanted):
                await asyncio.sleep(0)

    async def end(self) -> None:
        asyncio.get_running_loop().remove_reader(self.worker.channel)
        self.worker.channel.close()
        self.parent.close()


async def test_the_door_opens_when_the_parent_says_so() -> None:
    born = Born()
    assert Ready.from_bytes(await born.heard()) == READY
    assert born.calls == []
    born.parent.send(OPEN)
    assert await born.door
    assert await born.heard() == OPEN
    assert born.calls == ["listen"]
    born.parent.send(STOP)
    await born.calls_are("listen", "stop")
    born.parent.send(STOP)
    await born.calls_are("listen", "stop", "hasten", "stop")
    await born.end()


async def test_a_parent_that_dies_stops_its_worker_and_hastens_nobody() -> None:
    born = Born()
    await born.heard()
    born.parent.send(OPEN)
    assert await born.door
    born.parent.send(STOP)
    await born.calls_are("listen", "stop")
    born.parent.close()
    await born.calls_are("listen", "stop", "stop")
    await born.end()


@pytest.mark.parametrize("word", [b"", STOP])
async def test_the_door_stays_shut_when_all_is_over_before(word: bytes) -> None:
    born = Born()
    await born.heard()
    if word:
        born.parent.send(word)
    else:
        born.parent.close()
    assert not await born.door
    assert born.calls == ["stop"]
    await born.end()


def test_lines_of_several_workers_can_be_told_apart() -> None:
    record = logging.makeLogRecord({"name": "pgmurmur", "levelname": "INFO", "msg": "ready node=%s", "args": ("n-2",)})
    assert "INFO pgmurmur worker=2 ready node=n-2" in TextFormatter(2).format(record)
    assert "INFO pgmurmur ready node=n-2" in TextFormatter().format(record)
    assert json.load(io.StringIO(JsonFormatter(2).format(record)))["worker"] == 2
    assert "worker" not in json.load(io.StringIO(JsonFormatter().format(record)))
