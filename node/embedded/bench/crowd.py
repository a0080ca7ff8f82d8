"""Works of many clients at once: what an idle one costs, whether it slows down busy ones, and a storm of logins."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import uvloop

from node.auth.scram import KeyCache
from node.embedded.bench import meter
from node.embedded.bench.client import Visitor
from node.embedded.bench.load import cpu_per
from node.embedded.bench.pgbench import NotMeasured, Pgbench
from node.embedded.bench.targets import Target

AT_ONCE = 64
"""Clients of the idle crowd that log in at one time."""

LOGIN_TIMEOUT_S = 120.0

BUSY_CLIENTS = 64


@dataclass(frozen=True)
class Busy:
    """The clients that work beside the idle ones."""

    pgbench: Pgbench
    duration_s: int
    threads: int
    sampling: float

    def run(self, target: Target) -> dict[str, float]:
        options = ["--select-only", f"--jobs={self.threads}"]
        finished, _, latencies = self.pgbench.run_with_latencies(
            target, BUSY_CLIENTS, options, self.duration_s, self.sampling
        )
        return {"tps": finished.tps, **latencies}


def idle(start: Callable[[], Target], count: int, busy: Busy) -> dict[str, float]:
    """Memory per client of a proxy that `start` starts afresh, and the busy ones' latency without and with the crowd.

    A used process would hide what clients cost in memory that earlier ones left. Raises NotMeasured.
    """
    target = start()
    turn = {f"alone_{name}": value for name, value in busy.run(target).items()}
    turn |= _run(_beside(target, count, busy))
    return turn


def storm(target: Target, count: int) -> dict[str, float]:
    """All of them begin to log in in the same moment: seconds until the last one is in, CPU time per login."""
    return _run(_storm(target, count))


def _run(work: Coroutine[Any, Any, dict[str, float]]) -> dict[str, float]:
    """On a loop in a thread of its own: a signal must reach the caller, and a loop would swallow its exception."""
    found: Future[dict[str, float]] = Future()

    def run() -> None:
        try:
            found.set_result(uvloop.run(work))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, name="crowd", daemon=True).start()
    return found.result()


async def _beside(target: Target, count: int, busy: Busy) -> dict[str, float]:
    before = meter.resident_bytes(target.pids())
    visitors: list[Visitor] = []
    try:
        gate = asyncio.Semaphore(AT_ONCE)
        keys = KeyCache()

        async def enter() -> None:
            async with gate:
                visitor = await _connect(target, keys)
                visitors.append(visitor)
                await visitor.ready

        await _all([enter() for _ in range(count)])
        after_login = meter.resident_bytes(target.pids())

        async def ask(visitor: Visitor) -> None:
            async with gate:
                await visitor.ask("SELECT 1")

        await _all([ask(visitor) for visitor in visitors])
        after_query = meter.resident_bytes(target.pids())
        turn = await asyncio.to_thread(busy.run, target)
        left = sum(1 for visitor in visitors if visitor.closed)
        if left:
            raise NotMeasured(f"{left} of {count} idle clients were disconnected")
    finally:
        for visitor in visitors:
            visitor.leave()
    if before is not None and after_login is not None and after_query is not None:
        turn["client_bytes"] = (after_login - before) / count
        turn["client_bytes_after_query"] = (after_query - before) / count
    return turn


async def _storm(target: Target, count: int) -> dict[str, float]:
    keys = KeyCache()
    first = await _connect(target, keys)  # derives our own keys, and wakes up whatever sleeps in the proxy
    await first.ready
    visitors: list[Visitor] = []

    async def enter() -> None:
        visitor = await _connect(target, keys)
        visitors.append(visitor)
        await visitor.ready

    pids = target.pids()
    before, started = meter.cpu(pids), time.perf_counter()
    try:
        await _all([enter() for _ in range(count)])
        took_s, after = time.perf_counter() - started, meter.cpu(pids)
    finally:
        for visitor in (first, *visitors):
            visitor.leave()
    turn = {"all_in_s": took_s, "logins_per_s": count / took_s}
    if before is not None and after is not None:
        turn |= cpu_per(after - before, count)
    return turn


async def _connect(target: Target, keys: KeyCache) -> Visitor:
    loop = asyncio.get_running_loop()
    try:
        _, visitor = await loop.create_connection(lambda: Visitor(target.database, keys), "127.0.0.1", target.port)
    except OSError as error:
        raise NotMeasured(f"cannot connect: {error}") from error
    return visitor


async def _all(coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
    """All, or the first one's error, within a limit."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        async with asyncio.timeout(LOGIN_TIMEOUT_S):
            await asyncio.gather(*tasks)
    except TimeoutError as error:
        done = sum(1 for task in tasks if task.done())
        raise NotMeasured(f"{done} of {len(tasks)} clients were served within {LOGIN_TIMEOUT_S:.0f} s") from error
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
