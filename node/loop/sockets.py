"""Sockets become transports: streams of ours on a loop of ours, asyncio's on any other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

from node.loop.acceptor import Acceptor
from node.loop.loop import Loop


class Streaming(Protocol):
    """asyncio.Protocol by its shape: a compiled class cannot inherit from it, and the loops do not ask."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


class Serving(Protocol):
    """A listening socket that is served."""

    def close(self) -> None: ...


async def adopt(connected: socket.socket, protocol: Streaming) -> None:
    """`connected` is a non-blocking stream socket. `protocol.connection_made` has been called when this returns.

    Whatever is raised, the socket is closed then.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, Loop):
        family = connected.family
        loop.stream(connected.detach(), family, protocol)
        return
    try:
        if connected.family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: cast(asyncio.Protocol, protocol), sock=connected)
        else:
            await loop.create_connection(lambda: cast(asyncio.Protocol, protocol), sock=connected)
    except BaseException:
        connected.close()
        raise


async def serve(listening: socket.socket, factory: Callable[[], Streaming], backlog: int) -> Serving:
    """Every connection to `listening`, bound and non-blocking, becomes a transport with a protocol of its own."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, Loop):
        listening.listen(backlog)
        return Acceptor(loop, listening, factory)
    made = cast(Callable[[], asyncio.Protocol], factory)
    if listening.family == socket.AF_UNIX:
        return await loop.create_unix_server(made, sock=listening, backlog=backlog)
    return await loop.create_server(made, sock=listening, backlog=backlog)


def turn_end(loop: asyncio.AbstractEventLoop) -> Callable[[Callable[[], None]], object]:
    """What calls something when the turn of the loop ends."""
    return loop.at_turn_end if isinstance(loop, Loop) else loop.call_soon
