"""A connected socket as a transport, without asyncio between the kernel and its protocol.

It has the methods of `asyncio.Transport` that are used here and keeps its promises: a write is tried at once, and what
the socket does not take is kept; the protocol is told to pause when that is too much; `connection_lost` is the last
thing it hears, never from within a call of its own.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any

from node.loop import kernel
from node.loop.poller import READABLE, WRITABLE, Poller, Source
from node.loop.receiver import Receiver

if TYPE_CHECKING:
    from node.loop.loop import Loop

# What may wait to be written before the protocol is told to pause, and what is left when it may go on: asyncio's own.
HIGH_WATER_BYTES = 1 << 16
LOW_WATER_BYTES = 1 << 14
# Pieces that one system call writes; Linux takes 1,024.
GATHERED = 64


class Stream(Source):
    """`number` is a connected, non-blocking stream socket of `family`, which is the stream's own from now on."""

    __slots__ = (
        "_asked", "_closing", "_eof", "_error", "_family", "_lost", "_paused", "_poller", "_protocol", "_reading",
        "_receiver", "_waiting", "_waiting_bytes", "loop",
    )  # fmt: skip

    def __init__(self, loop: Loop, number: int, family: int, protocol: Any) -> None:
        self.loop = loop
        self.number = number
        self._family = family
        self._poller: Poller = loop.poller
        self._protocol: Any = None
        self._receiver: Receiver | None = None  # the protocol, if it is one: its call costs no look-up
        self._asked = READABLE  # what the kernel was asked to report
        self._reading = True
        self._closing = False  # nothing is accepted any more
        self._lost = False  # connection_lost was called, or is about to be
        self._eof = False  # write_eof was called
        self._paused = False  # the protocol was told to pause writing
        self._waiting: deque[memoryview | bytes] | None = None  # what the socket has not taken yet
        self._waiting_bytes = 0
        self._error: Exception | None = None
        self.set_protocol(protocol)
        self._poller.add(self, READABLE)

    # --- the kernel's side ----------------------------------------------------------------------------------------

    def ready(self, events: int) -> None:
        if events & ~WRITABLE:
            if self._reading:
                self._read()
            elif self._waiting is None:
                self._ask(0)  # or it would be reported in every turn until somebody reads
        if self._waiting is not None and events & ~READABLE:
            self._flush()

    def _read(self) -> None:
        try:
            data = kernel.receive(self.number, self._poller.room)
        except OSError as error:
            self._end(error)
            return
        if data is None:
            return
        try:
            if not data:
                self._read_end()
            elif self._receiver is not None:
                self._receiver.data_received(data)
            else:
                self._protocol.data_received(data)
        except Exception as error:
            self._fail(error)

    def _read_end(self) -> None:
        """The other side sends no more."""
        if self._protocol.eof_received():
            self._reading = False
            self._ask(self._asked & ~READABLE)
        else:
            self.close()

    def _ask(self, events: int) -> None:
        """Of the kernel, to report `events`. It reports errors and hang-ups whether asked or not, so that of a socket
        that waits for nothing it must not know."""
        if events == self._asked or self._lost:
            return
        if events == 0:
            self._poller.forget(self)
            self._poller.unwatch(self.number)
        elif self._asked == 0:
            self._poller.add(self, events)
        else:
            self._poller.change(self.number, events)
        self._asked = events

    # --- the protocol's side --------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Bytes-like. Never fails: an error of the socket is told to the protocol as the end of the connection."""
        if self._closing or self._eof:
            return
        if self._waiting is not None:
            self._keep(data)
            return
        try:
            sent = kernel.send(self.number, data)
        except OSError as error:
            self._end(error)
            return
        if sent < len(data):
            self._keep(memoryview(data)[sent:] if sent else data)

    def _keep(self, rest: memoryview | bytes) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(rest)
        self._waiting_bytes += len(rest)
        self._ask(self._asked | WRITABLE)
        if self._waiting_bytes > HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            try:
                self._protocol.pause_writing()
            except Exception as error:
                self._fail(error)

    def _flush(self) -> None:
        waiting = self._waiting
        if waiting is None:
            return
        try:
            if len(waiting) == 1:
                sent = kernel.send(self.number, waiting[0])
            else:
                sent = os.writev(self.number, [waiting[index] for index in range(min(len(waiting), GATHERED))])
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        self._waiting_bytes -= sent
        while sent:
            first = waiting[0]
            if len(first) > sent:
                waiting[0] = memoryview(first)[sent:]
                break
            sent -= len(first)
            waiting.popleft()
        if not waiting:
            self._waiting = None
            self._ask(READABLE if self._reading else 0)
        if self._paused and self._waiting_bytes <= LOW_WATER_BYTES:
            self._paused = False
            try:
                self._protocol.resume_writing()
            except Exception as error:
                self._fail(error)
        if self._waiting is None:
            if self._closing:
                self._end(None)
            elif self._eof:
                kernel.shut_down(self.number)

    def write_eof(self) -> None:
        """What waits is still written, then the other side hears that no more comes. Reading goes on."""
        if self._eof or self._closing:
            return
        self._eof = True
        if self._waiting is None:
            kernel.shut_down(self.number)

    def can_write_eof(self) -> bool:
        return True

    def pause_reading(self) -> None:
        """The kernel is told only if something comes meanwhile."""
        self._reading = False

    def resume_reading(self) -> None:
        if self._closing or self._reading:
            return
        self._reading = True
        self._ask(self._asked | READABLE)

    def is_reading(self) -> bool:
        return self._reading

    def close(self) -> None:
        """What waits is still written, then the protocol hears connection_lost."""
        if self._closing:
            return
        self._closing = True
        self._reading = False
        if self._waiting is None:
            self._end(None)
        else:
            self._ask(WRITABLE)

    def abort(self) -> None:
        """What waits is dropped."""
        self._end(None)

    def is_closing(self) -> bool:
        return self._closing

    def _fail(self, error: Exception) -> None:
        """The protocol raised: a bug, which ends this connection only."""
        self.loop.call_exception_handler(
            {"message": "a protocol failed", "exception": error, "transport": self, "protocol": self._protocol}
        )
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._lost:
            return
        if self._asked:
            self._poller.forget(self)
        self._lost = self._closing = True
        self._reading = False
        self._waiting = None
        self._waiting_bytes = 0
        self._error = error
        self._poller.at_turn_end(self._say_lost)

    def _say_lost(self) -> None:
        os.close(self.number)  # which takes it from epoll, too
        self.number = -1
        protocol, self._protocol = self._protocol, None
        self._receiver = None
        protocol.connection_lost(self._error)

    def abandon(self) -> None:
        os.close(self.number)

    # --- what a transport tells -----------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername`, `sockname`, and `socket`: a second descriptor of it, for options, which the caller closes."""
        if self.number < 0:
            return default
        if name == "socket":
            return socket.socket(fileno=os.dup(self.number))
        if name not in ("peername", "sockname"):
            return default
        # named in full, so that Python need not ask the kernel what it is
        borrowed = socket.socket(self._family, socket.SOCK_STREAM, 0, self.number)
        try:
            return borrowed.getpeername() if name == "peername" else borrowed.getsockname()
        except OSError:
            return default
        finally:
            borrowed.detach()

    def get_protocol(self) -> Any:
        return self._protocol

    def set_protocol(self, protocol: Any) -> None:
        self._protocol = protocol
        self._receiver = protocol if isinstance(protocol, Receiver) else None

    def get_write_buffer_size(self) -> int:
        return self._waiting_bytes
