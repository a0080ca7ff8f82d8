"""The questions a loop asks the kernel all the time, by Python's own modules.

This file is never compiled. Compiled callers take the functions of the same names from kernel.pxd instead, which make
the same system calls without an object for each argument, and give up the interpreter's lock only to wait.
"""

from __future__ import annotations

import os
import select
import socket

# Descriptors that one question can answer; the others come in the next turn.
EVENTS_LIMIT = 512

Answers = list[tuple[int, int]]


def answers() -> Answers:
    """Where what `wait` hears goes."""
    return []


def wait(epoll: select.epoll, number: int, into: Answers, timeout_s: float) -> int:
    """How many descriptors are ready, at once or within `timeout_s` (negative: some day), at most EVENTS_LIMIT.
    `number` is epoll's own. Runs Python's signal handlers when a signal ends it, and then says 0."""
    into[:] = epoll.poll(timeout_s, EVENTS_LIMIT)
    return len(into)


def descriptor(found: Answers, index: int) -> int:
    return found[index][0]


def events(found: Answers, index: int) -> int:
    return found[index][1]


def receive(number: int, room: bytearray) -> bytes | None:
    """What has arrived, up to the size of `room`; b"": the end; None: nothing yet. Raises OSError."""
    try:
        return os.read(number, len(room))
    except (BlockingIOError, InterruptedError):
        return None


def send(number: int, data: bytes | memoryview) -> int:
    """How many bytes of `data` (bytes-like, contiguous) the socket took, perhaps 0. Raises OSError."""
    try:
        return os.write(number, data)
    except (BlockingIOError, InterruptedError):
        return 0


def shut_down(number: int) -> None:
    """No more is sent: the other side reads the end of the stream. A socket that is not connected any more is fine."""
    connected = socket.socket(fileno=number)
    try:
        connected.shutdown(socket.SHUT_WR)
    except OSError:
        pass
    finally:
        connected.detach()


def accept(listening: socket.socket, number: int) -> int:
    """The descriptor of the next connection, non-blocking and closed on exec; -1: nobody waits. Raises OSError."""
    try:
        connected, _ = listening.accept()
    except (BlockingIOError, InterruptedError):
        return -1
    connected.setblocking(False)
    return connected.detach()
