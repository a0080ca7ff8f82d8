"""One of several members on one client port: what it is told at its birth, and the few things it and its parent say.

They share a socket. The worker says that it is a member of the flock (`Ready`), the parent answers when all are, the
worker opens the client port and says so. After that there is one word, STOP, from whoever was told to stop, and the end
of the stream, which is the end of the other. Everything else goes between workers as between machines.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

from node.config.files import Texts
from node.config.schema import Config

OPEN, STOP = b"!", b"."
SAYING_LIMIT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Prepared:
    """The files as read once, so that all workers begin with the same; `admin_password` when none was configured."""

    texts: Texts
    config: Config
    admin_password: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """What a node says when it serves. Addresses as texts; `http` "-" when there is none."""

    client: str
    gossip: str
    http: str
    seed: str
    """Where another member reaches its gossip; `gossip` may be a wildcard."""
    servers: int
    """Server connections that its pools may open, at most."""
    clients: int

    @property
    def line(self) -> str:
        """For whoever started the process: a line of its standard output."""
        return f"ready\t{self.client}\t{self.gossip}\t{self.http}"

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_bytes(cls, line: bytes) -> Ready:
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Worker:
    number: int
    """From 1."""
    prepared: Prepared
    seeds: tuple[str, ...]
    """Gossip of the workers that run already."""
    salts: bytes
    """Workers show a client the same salts: it must not tell one from another, or a user that exists from one that
    does not."""
    channel: socket.socket

    async def door(
        self,
        ready: Ready,
        listen: Callable[[], Awaitable[None]],
        stop: Callable[[], None],
        hasten: Callable[[], None],
    ) -> bool:
        """Waits until all workers are there and opens the client port: were the first to open it at once, it would get
        all the clients that have been waiting for a restart. False: it is not to be opened any more, and `stop` was
        called. Later the parent's word, or its end, calls `stop`; a second word `hasten`."""
        loop = asyncio.get_running_loop()
        self.channel.setblocking(False)
        try:
            await loop.sock_sendall(self.channel, ready.to_bytes())
            heard = await loop.sock_recv(self.channel, 1)
        except ConnectionError:
            heard = b""
        if heard != OPEN:
            stop()
            return False
        await listen()
        told = False

        def hear() -> None:
            nonlocal told
            try:
                words = self.channel.recv(SAYING_LIMIT_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                words = b""
            if not words:
                loop.remove_reader(self.channel)
            if words and (told or len(words) > 1):
                hasten()
            told = True
            stop()

        loop.add_reader(self.channel, hear)
        with contextlib.suppress(ConnectionError):  # then `hear` is called at once
            self.channel.send(OPEN)  # one byte always has room
        return True

    def say_stop(self) -> None:
        with contextlib.suppress(OSError):
            self.channel.send(STOP)
