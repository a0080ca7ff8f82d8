"""What discovery needs from the node: the control channel between members, and clocks."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

Handler = Callable[[str, bytes], Awaitable[bytes]]  # (proven node name of who asks, payload) -> answer


class Control(Protocol):
    """Requests between members over mutually authenticated TCP; `sync.control` has the real one."""

    def handle(self, service: str, handler: Handler) -> None:
        """Answer requests for this service; an exception becomes the caller's OSError."""

    async def request(
        self, address: str, service: str, payload: bytes, timeout: float, *, node: str | None = None
    ) -> bytes:
        """The answer of the member at `host:port`, which must be `node` if that is given. Raises OSError (TimeoutError
        is one); its `refused`, if it has one, is true when the host answered that nobody listens there.
        """
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
