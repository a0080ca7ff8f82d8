"""asyncio's own event loop, with a poller beneath it that serves the sockets of clients and servers.

Everything that is not traffic (gossip, control channel, HTTP, timers, coroutines) runs as on any asyncio loop.
"""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from contextvars import Context
from time import monotonic
from typing import Any, TypeVarTuple, Unpack

import uvloop

from node.loop import poller
from node.loop.poller import READABLE, WRITABLE, Poller
from node.loop.stream import Stream
from node.strip import is_compiled

Arguments = TypeVarTuple("Arguments")


class _Selector(selectors.BaseSelector):
    """What asyncio asks of a selector, for its own descriptors."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = _number(fileobj)
        if number in self._keys:
            raise KeyError(f"{fileobj!r} (descriptor {number}) is registered already")
        self._poller.watch(number, _asked(events))
        key = self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = self.get_key(fileobj).fd
        self._poller.change(number, _asked(events))
        key = self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        key = self.get_key(fileobj)
        del self._keys[key.fd]
        with suppress(OSError):  # it was closed before
            self._poller.unwatch(key.fd)
        return key

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[_number(fileobj)]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = []
        for number, events in self._poller.turns(timeout):
            key = self._keys.get(number)
            if key is not None:
                found.append((key, key.events & _told(events)))
        return found

    def close(self) -> None:
        self._keys.clear()
        self._poller.close()


def _number(fileobj: Any) -> int:
    return fileobj if isinstance(fileobj, int) else int(fileobj.fileno())


def _asked(events: int) -> int:
    return (READABLE if events & selectors.EVENT_READ else 0) | (WRITABLE if events & selectors.EVENT_WRITE else 0)


def _told(events: int) -> int:
    """Errors and hang-ups are news for both: the next read or write says which."""
    return (selectors.EVENT_READ if events & ~WRITABLE else 0) | (selectors.EVENT_WRITE if events & ~READABLE else 0)


class Loop(asyncio.SelectorEventLoop):
    """Linux only: it needs epoll."""

    def __init__(self) -> None:
        self.poller = Poller(self._failed)
        super().__init__(_Selector(self.poller))

    def stream(self, number: int, family: int, protocol: Any) -> Stream:
        """The connected, non-blocking socket `number` becomes a transport, of which the protocol is told at once.

        Whatever is raised, the socket is closed then, or will be when the turn ends.
        """
        try:
            stream = Stream(self, number, family, protocol)
        except BaseException:  # epoll has a limit, too
            os.close(number)
            raise
        try:
            protocol.connection_made(stream)
        except BaseException:
            stream.abort()
            raise
        return stream

    def at_turn_end(self, call: Callable[[], object]) -> None:
        """Like call_soon, for what concerns traffic: it does not make asyncio's machinery run."""
        self.poller.at_turn_end(call)

    def time(self) -> float:
        return monotonic()

    # Whatever asyncio has to do ends the poller's turns; its own wake-ups from other threads come by a socket.

    def call_soon(
        self, callback: Callable[[Unpack[Arguments]], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        self.poller.summoned = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self.poller.summoned = True
        return super().call_at(when, callback, *args, context=context)

    def _failed(self, error: Exception) -> None:
        self.call_exception_handler({"message": "a socket or callback failed", "exception": error})


def new_loop() -> asyncio.AbstractEventLoop:
    """Ours where it is compiled, which is on Linux; else uvloop, which is faster than ours interpreted."""
    return Loop() if is_compiled(poller) else uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, int]) -> int:
    """Like asyncio.run."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)
