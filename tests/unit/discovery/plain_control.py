"""A control channel without TLS, for tests: one request per connection, 4-byte lengths."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from discovery.member import Address

if TYPE_CHECKING:
    from discovery.control import Handler


class PlainControl:
    def __init__(self, node: str) -> None:
        self.node = node
        self.handlers: dict[str, Handler] = {}
        self.requests: list[tuple[str, str]] = []
        self.failing = False
        self._server: asyncio.Server | None = None

    def handle(self, name: str, handler: Handler) -> None:
        self.handlers[name] = handler

    async def start(self, sock: socket.socket) -> None:
        self._server = await asyncio.start_server(self._serve, sock=sock)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            name = (await self._read(reader)).decode()
            asker = (await self._read(reader)).decode()
            answer = await self.handlers[name](asker, await self._read(reader))
            writer.write(struct.pack("!I", len(answer)) + answer)
            await writer.drain()
        except Exception:  # the caller sees a closed connection
            pass
        finally:
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> bytes:
        (length,) = struct.unpack("!I", await reader.readexactly(4))
        return await reader.readexactly(length)

    async def request(
        self, address: str, service: str, payload: bytes, timeout: float, *, node: str | None = None
    ) -> bytes:
        self.requests.append((address, service))
        if self.failing:
            raise OSError("control channel is down")
        try:
            async with asyncio.timeout(timeout):
                reader, writer = await asyncio.open_connection(*Address.parse(address))
                try:
                    for part in (service.encode(), self.node.encode(), payload):
                        writer.write(struct.pack("!I", len(part)) + part)
                    return await self._read(reader)
                finally:
                    writer.close()
        except asyncio.IncompleteReadError as error:
            raise OSError("control channel closed") from error
