"""The socket of a client: login first, then a Session. Chunks in, chunks out."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Protocol, cast

from node.client.login import Login, LoginResult, Reception
from node.client.session import Session
from node.errors import Bug
from node.loop.receiver import Receiver
from node.wire import messages

log = logging.getLogger("pgmurmur.client")

# What a client may send between its password and its welcome (the first one waits for a server connection).
EARLY_BYTES = 1 << 20


class Taker(Protocol):
    """Whoever takes a client's bytes after its login: a Session, or the admin console."""

    def from_client(self, data: bytes) -> None: ...

    def client_lost(self) -> None: ...

    def client_pause(self) -> None: ...

    def client_resume(self) -> None: ...


class ClientProtocol(Receiver):
    """asyncio's face of one client. `local`: it came by the UNIX socket.

    Of a client that waits for nothing this is all there is, beside its Session: what a login needs goes with it. It has
    the methods of asyncio.Protocol and not the class, which nobody asks for and a compiled class could not inherit.
    """

    __slots__ = (
        "_early_paused", "_local", "_login", "_reception", "_session", "_welcome", "early", "part", "receiver",
        "transport",
    )  # fmt: skip

    def __init__(
        self, reception: Reception, welcome: Callable[[ClientProtocol, LoginResult], None], *, local: bool = False
    ) -> None:
        self._reception = reception
        self._welcome = welcome
        self._local = local
        self._login: Login | None = None
        self.transport: asyncio.Transport | None = None
        self.receiver: Taker | None = None
        self._session: Session | None = None  # the receiver, if it is one: compiled, its call costs no look-up
        self.part: Callable[[ClientProtocol], None] | None = None  # ends the connection of a client that was let in
        self._early_paused = False
        self.early = b""  # what the client sent between its login and its welcome

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.transport is None:
            self.transport = cast(asyncio.Transport, transport)
            self._login = Login(
                self, self.transport, self._reception, self._logged_in, hold_greeting=True, local=self._local
            )

    def _logged_in(self, result: LoginResult) -> None:
        self._login = None
        self.transport = result.transport
        self.early = result.accepted.surplus
        self._welcome(self, result)

    def take(self, receiver: Taker) -> None:
        """From now on the client's bytes go to `receiver`."""
        self.receiver = receiver
        if isinstance(receiver, Session):
            self._session = receiver
        early, self.early = self.early, b""
        if self._early_paused and self.transport is not None:
            self._early_paused = False
            self.transport.resume_reading()
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        session = self._session
        if session is not None or self.receiver is not None:
            try:
                if session is not None:
                    session.from_client(data)
                elif self.receiver is not None:
                    self.receiver.from_client(data)
            except Exception as error:  # a bug of ours ends this session, not the process
                log.exception("session_failed")
                self.close_with(Bug(f"internal error: {error}"))
        elif self._login is not None:
            self._login.receive(data)
        else:
            self.early += data
            if len(self.early) > EARLY_BYTES and self.transport is not None and not self._early_paused:
                self._early_paused = True
                self.transport.pause_reading()

    def eof_received(self) -> bool:
        """The client sends no more: its connection ends."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._login is not None:
            self._login.lost()
        receiver, self.receiver = self.receiver, None
        self._session = None
        if receiver is not None:
            receiver.client_lost()

    def pause_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.client_pause()

    def resume_writing(self) -> None:
        if self.receiver is not None:
            self.receiver.client_resume()

    def address(self) -> tuple[str, int]:
        """Where the client is. Many come from few hosts, whose names are shared."""
        peer = self.transport.get_extra_info("peername") if self.transport is not None and not self._local else None
        return (sys.intern(str(peer[0])), int(peer[1])) if isinstance(peer, tuple) else ("unix", 0)

    def pause_reading(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def hang_up(self) -> None:
        """The session is over."""
        if self.part is not None:
            self.part(self)

    def close_with(self, fault: Bug) -> None:
        transport = self.transport
        if transport is not None and not transport.is_closing():
            transport.write(messages.error_response(fault))
            transport.close()
