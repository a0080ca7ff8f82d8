"""What every way to authenticate a client has in common.

A conversation speaks first (`start`), then answers the body of each message `p` until it returns `Done` (or `Slow`,
which leads there) or raises a FATAL ClientFault. It owns no socket and no clock. The words of a failure are the same
for a wrong password and for a user who does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from node.errors import ClientFault

if TYPE_CHECKING:
    from node.auth.scram import Derived


class Done(NamedTuple):
    """The client is who it says it is."""

    reply: bytes  # to be sent before AuthenticationOk
    method: str  # for logs and SHOW CLIENTS: trust, certificate, password, md5, scram-sha-256, scram-sha-256-plus
    password: str | None = None  # set by passthrough only: still to be checked with the server


class Slow(NamedTuple):
    """Whether the answer is right takes `scram.derive(*wanted)`, milliseconds that nobody else should wait for."""

    wanted: tuple[str, bytes, int]
    judge: Callable[[Derived], Done]  # of what was derived; raises as `receive`


class Conversation(Protocol):
    @property
    def limit_bytes(self) -> int:
        """The longest answer this conversation accepts now."""

    def start(self) -> bytes: ...

    def receive(self, body: bytes) -> bytes | Done | Slow: ...


def rejected(user: str) -> ClientFault:
    """28P01: wrong password or no such user, nobody outside may know which."""
    return ClientFault(f'password authentication failed for user "{user}"', sqlstate="28P01", severity="FATAL")


def violated(text: str, detail: str | None = None, *, sqlstate: str = "08P01") -> ClientFault:
    return ClientFault(text, sqlstate=sqlstate, detail=detail, severity="FATAL")
