"""What every way to authenticate a client has in common.

A conversation speaks first (`start`), then answers the body of each message `p` until it returns `Done` or raises a
FATAL ClientFault. It owns no socket and no clock. The words of a failure are the same for a wrong password and for a
user who does not exist.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from node.errors import ClientFault


class Done(NamedTuple):
    """The client is who it says it is."""

    reply: bytes  # to be sent before AuthenticationOk
    method: str  # for logs and SHOW CLIENTS: trust, certificate, password, md5, scram-sha-256, scram-sha-256-plus
    password: str | None = None  # set by passthrough only: still to be checked with the server


class Conversation(Protocol):
    @property
    def limit_bytes(self) -> int:
        """The longest answer this conversation accepts now."""

    def start(self) -> bytes: ...

    def receive(self, body: bytes) -> bytes | Done: ...


def rejected(user: str) -> ClientFault:
    """28P01: wrong password or no such user, nobody outside may know which."""
    return ClientFault(f'password authentication failed for user "{user}"', sqlstate="28P01", severity="FATAL")


def violated(text: str, detail: str | None = None, *, sqlstate: str = "08P01") -> ClientFault:
    return ClientFault(text, sqlstate=sqlstate, detail=detail, severity="FATAL")
