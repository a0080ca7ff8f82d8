"""Hears a server out whose client has gone in the middle of something, and keeps nothing of what it says."""

from __future__ import annotations

import asyncio

from node.errors import ServerFault
from node.server.connection import Owner, ServerConnection
from node.wire import messages

# A statement that no server knows: to bind it fails a batch.
_NO_STATEMENT = b"__pgmurmur_the_client_has_gone"


class Drain(Owner):
    """Owns `server` until `end`.

    Not a Conversation: the client may have left with half a row delivered, so what comes cannot be framed; only the
    pipeline knows where it stands.
    """

    def __init__(self, server: ServerConnection) -> None:
        self.server = server
        self._changed = asyncio.Event()
        self._fault: ServerFault | None = None
        server.owner = self

    def end(self) -> None:
        if self.server.owner is self:
            self.server.owner = None

    async def quiet(self, timeout_s: float) -> bool:
        """True when the server owes nothing any more; False when it still does after `timeout_s`.

        A COPY is failed, a batch ended by an error and a Sync. Raises ServerFault when the connection is lost.
        """
        server, pipeline = self.server, self.server.pipeline
        try:
            async with asyncio.timeout(timeout_s):
                while not pipeline.idle():
                    if self._fault is not None:
                        raise self._fault
                    if server.closed_why is not None or pipeline.broken:
                        raise ServerFault("server connection is closed", sqlstate="08006")
                    ahead = b""
                    if pipeline.copy_in == 1:
                        ahead = messages.copy_fail("the client has gone")
                        pipeline.copy_ended()
                    if pipeline.batch and pipeline.copy_in != 1:
                        # A Sync alone would commit what the client never asked to be committed.
                        ahead += messages.bind(b"", _NO_STATEMENT) + messages.SYNC
                        pipeline.owe()
                        pipeline.owe_sync(self)
                    if ahead:
                        server.write(ahead)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def from_server(self, server: ServerConnection, data: bytes) -> None:
        self._changed.set()

    def server_lost(self, server: ServerConnection, fault: ServerFault) -> None:
        self._fault = fault
        self._changed.set()
