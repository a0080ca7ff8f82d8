"""Waiting in a coroutine for what must become true (tests/integration/harness.py has the one for threads)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TIMEOUT_S = 10.0


async def wait_until(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Raises TimeoutError when it never comes true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
