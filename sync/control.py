"""The control channel: one TCP port per node for everything that nodes ask each other.

A connection carries length-prefixed msgpack arrays: a hello from each side, then `[ASK, id, service, payload]` and
`[ANSWER, id, ok, payload or error text]`. Services are named, so that sync, discovery's push-pull and cancel forwarding
share the port without knowing each other:

    control.handle("sync", handler)                      handler(sender's node name, payload) -> answer
    await control.request(address, "sync", payload, 2.0, node="n2")

With a flock key both sides prove it by TLS 1.3 certificates (`identity.py`), and the name in the hello must be the
proven one. Without a key plain TCP is spoken, and only with peers on loopback addresses. One connection per peer is
kept and opened again when it broke.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from typing import Any

from sync.identity import Identity, proven_name
from sync.packing import Malformed, pack, unpack
from sync.ports import ControlUnreachable, Handler
from sync.roster import NAME_LIMIT
from sync.version import DOCUMENT_LIMIT_BYTES

log = logging.getLogger("sync.control")

PROTOCOL = 1
ASK, ANSWER = 0, 1
HELLO_LIMIT_BYTES = 1024  # all that a stranger may send
PAYLOAD_LIMIT_BYTES = 1024 * 1024  # of a question
FRAME_LIMIT_BYTES = DOCUMENT_LIMIT_BYTES + 64 * 1024  # of an answer: a document and its envelope
CONNECTIONS_LIMIT = 1024  # accepted ones; also bounds what strangers can hold open for HELLO_TIMEOUT_S
REQUESTS_LIMIT = 64  # at work per accepted connection
HELLO_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 3.0


class Rejected(Exception):
    """The peer is not one of us, or says something no member says."""


class _Link:
    """Frames over one stream, both directions. Reading raises Rejected, Malformed or the stream's own errors."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def read(self, limit_bytes: int) -> list[Any]:
        length = int.from_bytes(await self.reader.readexactly(4), "big")
        if not 0 < length <= limit_bytes:
            raise Malformed(f"a frame of {length} bytes, the limit is {limit_bytes}")
        return unpack(await self.reader.readexactly(length), limit_bytes)

    async def write(self, values: list[Any]) -> None:
        data = pack(values)
        self.writer.write(len(data).to_bytes(4, "big") + data)
        await self.writer.drain()

    async def close(self) -> None:
        self.writer.close()
        try:
            await asyncio.wait_for(self.writer.wait_closed(), 1.0)
        except (OSError, TimeoutError):
            pass


class _Peer:
    """The connection this node opened to one address, with the questions that wait on it."""

    def __init__(self, link: _Link, name: str) -> None:
        self.link = link
        self.name = name
        self.waiting: dict[int, asyncio.Future[bytes]] = {}
        self.next_id = 1
        self.task: asyncio.Task[None] | None = None
        self.closed = False

    async def run(self) -> None:
        """Hand answers to those who wait until the connection ends; then tell them all."""
        reason = "the connection was closed"
        try:
            while True:
                self._answer(await self.link.read(FRAME_LIMIT_BYTES))
        except (OSError, EOFError, Malformed) as error:
            reason = str(error) or reason
        finally:
            self.closed = True
            for waiter in self.waiting.values():
                if not waiter.done():
                    waiter.set_exception(ControlUnreachable(reason))
            await self.link.close()

    def _answer(self, frame: list[Any]) -> None:
        if len(frame) != 4 or frame[0] != ANSWER or not isinstance(frame[1], int):
            raise Malformed("expected an answer")
        waiter = self.waiting.get(frame[1])
        if waiter is None or waiter.done():
            return  # whoever asked has given up
        if frame[2] is True and isinstance(frame[3], bytes):
            waiter.set_result(frame[3])
        else:
            waiter.set_exception(ControlUnreachable(f"the peer answered: {str(frame[3])[:200]}"))

    async def ask(self, service: str, payload: bytes) -> bytes:
        number, self.next_id = self.next_id, self.next_id + 1
        waiter: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.waiting[number] = waiter
        try:
            await self.link.write([ASK, number, service, payload])
            return await waiter
        finally:
            del self.waiting[number]


class ControlChannel:
    """Server and client of the control port. `identity` None: plain TCP, loopback peers only."""

    def __init__(self, node: str, *, flock: str = "default", identity: Identity | None = None) -> None:
        self.node = node
        self.flock = flock
        self.identity = identity
        self._handlers: dict[str, Handler] = {}
        self._server: asyncio.Server | None = None
        self._peers: dict[str, _Peer] = {}
        self._opening: dict[str, asyncio.Lock] = {}
        self._accepted: set[asyncio.Task[None]] = set()

    def handle(self, service: str, handler: Handler) -> None:
        """One handler per name; what it raises goes to the asker as a text and to the log."""
        if service in self._handlers:
            raise ValueError(f"service {service} has a handler already")
        self._handlers[service] = handler

    async def start(self, host: str, port: int, *, sock: socket.socket | None = None) -> int:
        """Listen on an address, or on a socket that is bound already; returns the port. Raises OSError."""
        context = None if self.identity is None else self.identity.server
        if sock is not None:
            self._server = await asyncio.start_server(self._accept, sock=sock, ssl=context)
        else:
            self._server = await asyncio.start_server(self._accept, host, port, ssl=context)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = [*self._accepted, *(peer.task for peer in self._peers.values() if peer.task is not None)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._peers.clear()
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    # ── asking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def request(
        self, address: str, service: str, payload: bytes, timeout: float, *, node: str | None = None
    ) -> bytes:
        """Ask the node at `address` ("host:port"). With `node` the peer must be that one. Raises ControlUnreachable."""
        if len(payload) > PAYLOAD_LIMIT_BYTES:
            raise ControlUnreachable(f"a question of {len(payload)} bytes is over the limit of {PAYLOAD_LIMIT_BYTES}")
        try:
            async with asyncio.timeout(timeout):
                peer = await self._peer(address)
                if node is not None and peer.name != node:
                    raise ControlUnreachable(f'node "{peer.name}" answers at {address}, not "{node}"')
                return await peer.ask(service, payload)
        except ControlUnreachable:
            raise
        except ConnectionRefusedError as error:
            raise ControlUnreachable(f"{address} refused the connection", refused=True) from error
        except TimeoutError:
            raise ControlUnreachable(f"no answer from {address} within {timeout:g} s") from None
        except (OSError, EOFError, Rejected, Malformed) as error:
            raise ControlUnreachable(f"{address}: {error or type(error).__name__}") from None

    async def _peer(self, address: str) -> _Peer:
        async with self._opening.setdefault(address, asyncio.Lock()):
            peer = self._peers.get(address)
            if peer is None or peer.closed:
                peer = self._peers[address] = await self._open(address)
            return peer

    async def _open(self, address: str) -> _Peer:
        host, _, port = address.rpartition(":")
        context = None if self.identity is None else self.identity.client
        if not port.isdecimal():
            raise Rejected("not an address of the form host:port")
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            streams = await asyncio.open_connection(host.strip("[]"), int(port), ssl=context)
            link = _Link(*streams)
            try:
                peer = _Peer(link, await self._greet(link))
            except BaseException:
                await link.close()
                raise
        peer.task = asyncio.create_task(peer.run())
        return peer

    async def _greet(self, link: _Link) -> str:
        """Exchange hellos; the peer's name, proven where there is a key. Raises Rejected."""
        if self.identity is None and not _is_loopback(link.writer):
            raise Rejected("without a flock key only loopback peers are accepted")
        await link.write([PROTOCOL, "pgmurmur", self.flock, self.node])
        hello = await link.read(HELLO_LIMIT_BYTES)
        if len(hello) != 4 or hello[1] != "pgmurmur" or not isinstance(hello[3], str) or len(hello[3]) > NAME_LIMIT:
            raise Rejected("the peer is no pgmurmur node")
        if hello[0] != PROTOCOL:
            raise Rejected(f"the peer speaks control protocol {hello[0]}, this node {PROTOCOL}")
        if hello[2] != self.flock:
            raise Rejected("the peer belongs to another flock")
        if self.identity is not None and proven_name(link.writer.get_extra_info("peercert")) != hello[3]:
            raise Rejected("the peer's certificate has another name")
        return hello[3]

    # ── answering ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        link = _Link(reader, writer)
        self._accepted.add(task)
        try:
            if len(self._accepted) > CONNECTIONS_LIMIT:
                raise Rejected("too many connections")
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                sender = await self._greet(link)
            await self._serve(link, sender)
        except (Rejected, Malformed, TimeoutError) as error:
            log.warning("control_rejected peer=%s reason=%s", writer.get_extra_info("peername"), error)
        except (OSError, EOFError, ssl.SSLError):
            pass  # the peer went away; it will come back
        except asyncio.CancelledError:
            pass  # stop() waits for us; there is nobody else to tell
        finally:
            self._accepted.discard(task)
            await link.close()

    async def _serve(self, link: _Link, sender: str) -> None:
        slots = asyncio.Semaphore(REQUESTS_LIMIT)
        async with asyncio.TaskGroup() as tasks:
            while True:
                try:
                    frame = await link.read(PAYLOAD_LIMIT_BYTES + 1024)
                except (OSError, EOFError):
                    return
                if len(frame) != 4 or frame[0] != ASK or not isinstance(frame[1], int):
                    raise Malformed("expected a question")
                if not isinstance(frame[2], str) or not isinstance(frame[3], bytes):
                    raise Malformed("expected a service and a payload")
                await slots.acquire()  # no slot, no reading: the asker feels it as back-pressure
                tasks.create_task(self._answer(link, sender, frame[1], frame[2], frame[3], slots))

    async def _answer(
        self, link: _Link, sender: str, number: int, service: str, payload: bytes, slots: asyncio.Semaphore
    ) -> None:
        try:
            handler = self._handlers.get(service)
            if handler is None:
                answer = [ANSWER, number, False, f"no service {service[:50]}"]
            else:
                try:
                    answer = [ANSWER, number, True, await handler(sender, payload)]
                except Exception as error:  # a handler's failure is an answer; the connection carries other services
                    log.exception("control_handler_failed service=%s peer=%s", service, sender)
                    answer = [ANSWER, number, False, f"{type(error).__name__}: {error}"]
            await link.write(answer)
        except OSError:
            pass
        finally:
            slots.release()


def _is_loopback(writer: asyncio.StreamWriter) -> bool:
    peer = writer.get_extra_info("peername")
    try:
        return ipaddress.ip_address(peer[0].partition("%")[0]).is_loopback
    except (TypeError, ValueError, IndexError):
        return False
