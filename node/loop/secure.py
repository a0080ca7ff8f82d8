"""TLS over any transport, as a transport: OpenSSL by Python's `ssl`, between two buffers in memory.

`secure` shakes hands and returns the transport to go on with. A record that is damaged ends the connection, and so does
an end without a farewell: PostgreSQL's protocol knows by itself whether something is missing.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

from node.loop.receiver import Receiver

HANDSHAKE_TIMEOUT_S = 10.0
# What one call decrypts at most: a record of TLS (RFC 8446 §5.1).
RECORD_BYTES = 1 << 14


async def secure(
    transport: Any,
    protocol: Any,
    context: ssl.SSLContext,
    *,
    server_side: bool = False,
    server_hostname: str | None = None,
    already_read: bytes = b"",
    timeout_s: float = HANDSHAKE_TIMEOUT_S,
) -> asyncio.Transport:
    """The transport of `protocol` from now on. `already_read` is what somebody else has read of the handshake.

    `transport` must not be reading, and what is returned is not, either: its user says `resume_reading` when it knows
    its new transport, or an answer would go out by the old one, in clear. `protocol` is not told of it (no
    connection_made). Raises OSError (ssl.SSLError and TimeoutError among them): `transport` is closed then and
    `protocol` told nothing; when it is cancelled likewise.
    """
    secured = Secure(transport, context, server_side, server_hostname)
    try:
        async with asyncio.timeout(timeout_s):
            await secured.shake_hands(already_read)
    except TimeoutError:
        transport.abort()
        raise TimeoutError(f"the TLS handshake took longer than {timeout_s:g} s") from None
    except BaseException:
        transport.close()  # not aborted: an alert may be on its way, which tells the other side why
        raise
    secured.set_protocol(protocol)
    return cast(asyncio.Transport, secured)


class Secure(Receiver):
    """Between `transport` and a protocol."""

    __slots__ = (
        "_closing", "_error", "_incoming", "_outgoing", "_protocol", "_receiver", "_shaking", "_ssl", "_transport",
    )  # fmt: skip

    def __init__(self, transport: Any, context: ssl.SSLContext, server_side: bool, server_hostname: str | None) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._protocol: Any = None
        self._receiver: Receiver | None = None
        self._shaking: asyncio.Future[None] | None = None
        self._closing = False
        self._error: Exception | None = None
        transport.set_protocol(self)

    # --- the handshake --------------------------------------------------------------------------------------------

    async def shake_hands(self, already_read: bytes) -> None:
        """Raises OSError."""
        if self._transport.is_closing():
            raise ConnectionResetError("connection closed before the TLS handshake")
        shaking = self._shaking = asyncio.get_running_loop().create_future()
        self._incoming.write(already_read)
        self._shake()
        self._transport.resume_reading()
        try:
            await shaking
        finally:
            self._shaking = None
        if self._transport.is_closing():
            raise ConnectionResetError("connection closed during the TLS handshake")

    def _shake(self) -> None:
        shaking = self._shaking
        if shaking is None or shaking.done():
            return  # what comes behind the handshake waits until somebody reads
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
        except OSError as error:
            self._send()
            shaking.set_exception(error)
        else:
            self._send()
            self._transport.pause_reading()
            shaking.set_result(None)

    # --- the transport's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        return

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        if self._protocol is None:
            self._shake()
        else:
            self._decrypt()

    def _decrypt(self) -> None:
        """All that is complete, in one piece: it is at most what one read brought, and what was left of the last."""
        incoming, session = self._incoming, self._ssl
        pieces: list[bytes] = []
        ended = False
        try:
            while incoming.pending or session.pending():
                piece = session.read(RECORD_BYTES)
                if not piece:
                    ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        except OSError as error:
            self._break(error)
            return
        if self._outgoing.pending:
            self._send()  # an answer of TLS itself, to a change of keys for instance
        if pieces:
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._receiver is not None:
                self._receiver.data_received(data)
            else:
                self._protocol.data_received(data)
        if ended:
            self.eof_received()

    def eof_received(self) -> bool:
        shaking = self._shaking
        if shaking is not None and not shaking.done():
            shaking.set_exception(ConnectionResetError("connection closed during the TLS handshake"))
        elif self._protocol is not None and not self._closing and not self._protocol.eof_received():
            self.close()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        shaking = self._shaking
        if shaking is not None and not shaking.done():
            shaking.set_exception(error or ConnectionResetError("connection closed during the TLS handshake"))
        protocol, self._protocol = self._protocol, None
        self._receiver = None
        self._closing = True
        if protocol is not None:
            protocol.connection_lost(self._error or error)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    # --- the protocol's side --------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            self._ssl.write(data)
        except OSError as error:
            self._break(error)
            return
        self._transport.write(self._outgoing.read())

    def close(self) -> None:
        """Says farewell, and does not wait for the other side's."""
        if self._closing:
            return
        self._closing = True
        try:
            self._ssl.unwrap()
        except OSError:
            pass  # it wants to read the other side's farewell
        self._send()
        self._transport.close()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._closing or bool(self._transport.is_closing())

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._closing:
            return
        self._transport.resume_reading()
        if self._incoming.pending:  # it came in one piece with the end of the handshake
            asyncio.get_running_loop().call_soon(self._catch_up)

    def _catch_up(self) -> None:
        if self.is_reading() and self._protocol is not None:
            self._decrypt()

    def is_reading(self) -> bool:
        return bool(self._transport.is_reading())

    def can_write_eof(self) -> bool:
        """TLS ends in both directions, here as in OpenSSL's own tools."""
        return False

    def get_write_buffer_size(self) -> int:
        return int(self._transport.get_write_buffer_size())

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`ssl_object`, and what the transport beneath knows."""
        return self._ssl if name == "ssl_object" else self._transport.get_extra_info(name, default)

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol
        self._receiver = protocol if isinstance(protocol, Receiver) else None

    def _send(self) -> None:
        data = self._outgoing.read()
        if data:
            self._transport.write(data)

    def _break(self, error: Exception) -> None:
        """A record makes no sense. An alert tells the other side."""
        self._closing = True
        self._error = error
        self._send()
        self._transport.close()
