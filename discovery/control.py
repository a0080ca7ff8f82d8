"""What discovery needs from the node: the control channel between members, and clocks."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from discovery.member import Address

Handler = Callable[[bytes], Awaitable[bytes]]


class Control(Protocol):
    """Requests between members over mutually authenticated TCP; `sync` has the real one."""

    def handle(self, name: str, handler: Handler) -> None:
        """Answer requests of this name with `await handler(payload)`; an exception becomes the caller's OSError."""

    async def request(self, address: Address, name: str, payload: bytes, timeout: float) -> bytes:
        """The answer of the member at this address. Raises OSError (TimeoutError is one) when there is none."""
        ...


class Clock(Protocol):
    """Two clocks that are never mixed."""

    def now(self) -> float:
        """Seconds that do not jump; decides everything."""
        ...

    def utc(self) -> float:
        """Seconds since 1970; for display only."""
        ...


class SystemClock:
    """Monotonic and wall clock of this machine."""

    def now(self) -> float:
        return time.monotonic()

    def utc(self) -> float:
        return time.time()
