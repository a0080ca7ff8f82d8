"""A listening socket: every connection becomes a stream with a protocol of its own."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from node.loop import kernel
from node.loop.poller import READABLE, Source

if TYPE_CHECKING:
    from node.loop.loop import Loop

log = logging.getLogger("pgmurmur.loop")

# Connections that one turn takes in; who is connected already is served in between.
ACCEPTED_AT_ONCE = 64
# When the process or the machine has no descriptors or memory left, new clients wait in the kernel's queue so long.
RETRY_S = 0.5
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor(Source):
    """`listening` is a bound, listening, non-blocking socket, which is closed with this."""

    __slots__ = ("_factory", "_family", "_listening", "_loop")

    def __init__(self, loop: Loop, listening: socket.socket, factory: Callable[[], Any]) -> None:
        self._loop = loop
        self._listening = listening
        self._family = listening.family
        self._factory = factory
        self.number = listening.fileno()
        loop.poller.add(self, READABLE)

    def ready(self, events: int) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connected = kernel.accept(self._listening, self.number)
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._pause(error)
                    return
                continue  # that client is gone again: accept(2) passes on what happened to it
            if connected < 0:
                return
            self._loop.stream(connected, self._family, self._factory())

    def _pause(self, error: OSError) -> None:
        """The kernel would report the clients who wait in every turn."""
        log.error("accept_failed reason=%s hint=%r", error, "raise the limit of open files (ulimit -n)")
        poller = self._loop.poller
        poller.forget(self)
        poller.unwatch(self.number)
        self._loop.call_later(RETRY_S, self._resume)

    def _resume(self) -> None:
        if self.number >= 0:
            self._loop.poller.add(self, READABLE)

    def abandon(self) -> None:
        self._listening.close()

    def close(self) -> None:
        """Nobody is accepted any more. The clients that came in stay."""
        if self.number < 0:
            return
        self._loop.poller.forget(self)
        self.number = -1
        self._loop.poller.at_turn_end(self._listening.close)
