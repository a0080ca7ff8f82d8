"""Who has something to read: one epoll descriptor for the sockets of clients and servers, and for those of asyncio.

A turn is one question to the kernel and everything that it answers. Sources (streams, and listening sockets that become
streams) are served here, turn after turn; asyncio hears of a turn only when one of its own descriptors is ready, one of
its timers is due, or somebody has scheduled a callback with it.

Level-triggered (epoll(7)): what was not read, or could not be written yet, is reported again in the next turn.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from time import monotonic

from node.loop import kernel

# The most that one read brings: fewer system calls for large results, and still in the processor's cache.
READ_BYTES = 1 << 18

READABLE = 0x01  # EPOLLIN
WRITABLE = 0x04  # EPOLLOUT


class Source:
    """One descriptor that the poller knows. `number` is that descriptor, -1 once it is closed."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def ready(self, events: int) -> None:
        """What the kernel reports of it in this turn, besides what was asked for: EPOLLERR and EPOLLHUP."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Closes the descriptor; nobody is told."""
        raise NotImplementedError


class Poller:
    """`failed(error)` hears what a source raises, or a callback at the end of a turn; the others go on."""

    def __init__(self, failed: Callable[[Exception], object]) -> None:
        self._failed = failed
        self._epoll = select.epoll()
        self._number = self._epoll.fileno()
        self._answers = kernel.answers()
        self._sources: dict[int, Source] = {}
        self._last: list[Callable[[], object]] = []  # to be called when the turn ends
        self.room = bytearray(READ_BYTES)  # where the kernel puts what a source reads
        self.summoned = False  # asyncio has something to do: a callback was scheduled, or a timer

    def close(self) -> None:
        """With every source that is still open."""
        for source in self._sources.values():
            source.abandon()
        self._sources.clear()
        self._epoll.close()

    def fileno(self) -> int:
        """epoll's own descriptor."""
        return self._number

    def watch(self, number: int, events: int) -> None:
        """A descriptor of asyncio's, which `turns` reports."""
        self._epoll.register(number, events)

    def change(self, number: int, events: int) -> None:
        self._epoll.modify(number, events)

    def unwatch(self, number: int) -> None:
        self._epoll.unregister(number)

    def add(self, source: Source, events: int) -> None:
        number = source.number
        self._epoll.register(number, events)
        self._sources[number] = source

    def forget(self, source: Source) -> None:
        """It hears of no events any more. Its descriptor is to be closed when the turn ends, and not before: in this
        turn a new one with the same number could hear what the kernel reported of this one."""
        self._sources.pop(source.number, None)

    def at_turn_end(self, call: Callable[[], object]) -> None:
        """`call()` runs once everything that the kernel reported in this turn was served."""
        self._last.append(call)

    def turns(self, timeout_s: float | None) -> list[tuple[int, int]]:
        """Serves the sources until asyncio is wanted. Returns its ready descriptors with their events, or none when
        `timeout_s` is over (None: never; 0: after one turn) or it was summoned."""
        self.summoned = False
        if self._last:
            self._end_turn()
        forever = timeout_s is None
        left = -1.0 if timeout_s is None else timeout_s
        until = monotonic() + left if left > 0 else 0.0
        if self.summoned:
            forever, left = False, 0.0
        others: list[tuple[int, int]] = []
        sources = self._sources
        answers = self._answers
        while True:
            count = kernel.wait(self._epoll, self._number, answers, left)
            for index in range(count):
                number = kernel.descriptor(answers, index)
                events = kernel.events(answers, index)
                source = sources.get(number)
                if source is not None:
                    try:
                        source.ready(events)
                    except Exception as error:  # a bug, or the kernel has no memory: nobody else's matter
                        self._failed(error)
                else:
                    others.append((number, events))
            if self._last:
                self._end_turn()
            if others or self.summoned:
                return others
            if not forever:
                left = until - monotonic()
                if left <= 0:
                    return others

    def _end_turn(self) -> None:
        """What is asked for meanwhile belongs to the end of this turn, too."""
        last = self._last
        for call in last:
            try:
                call()
            except Exception as error:
                self._failed(error)
        last.clear()
