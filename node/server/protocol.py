"""The socket of a server connection: chunks in, chunks out, nothing decided here."""

from __future__ import annotations

import asyncio
from typing import cast

from node.errors import ServerFault
from node.loop.receiver import Receiver
from node.server.connection import ServerConnection
from node.wire import messages


class ServerProtocol(Receiver):
    """asyncio's face of one ServerConnection, after login; for its class see ClientProtocol."""

    __slots__ = ("connection", "transport")

    def __init__(self, connection: ServerConnection) -> None:
        self.connection = connection
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Also called by hand when the login hands its transport over."""
        opened = cast(asyncio.Transport, transport)
        self.transport = opened
        connection = self.connection
        connection.write = opened.write
        connection.close_transport = self.close
        connection.pause_reading = opened.pause_reading
        connection.resume_reading = opened.resume_reading

    def data_received(self, data: bytes) -> None:
        self.connection.receive(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f"{type(exc).__name__}: {exc}" if exc else "the server closed it"
        self.connection.lost(
            ServerFault(
                "server closed the connection unexpectedly",
                sqlstate="08006",
                detail=f"Connection ended: {reason}.",
                hint="a statement that was running may or may not have taken effect",
                severity="FATAL",
            )
        )

    def pause_writing(self) -> None:
        self.connection.writing_paused = True
        if self.connection.owner is not None:
            self.connection.owner.server_pause()

    def resume_writing(self) -> None:
        self.connection.writing_paused = False
        if self.connection.owner is not None:
            self.connection.owner.server_resume()

    def close(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self.connection.reusable or self.connection.owner is None:
            transport.write(messages.TERMINATE)
            transport.close()
        else:
            # In the middle of something: what is still buffered must not reach the server.
            transport.abort()
