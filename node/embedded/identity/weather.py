"""The faults of a run: when they strike, how often, and which errors each of them explains."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from node.embedded.identity.targets import telling

if TYPE_CHECKING:
    from node.embedded.identity.run import Run
    from node.embedded.nodes import NodeProcess

FAULTS = (
    *("cancel", "disconnect", "terminate", "restart", "slow_reader", "huge", "slow", "reconnect", "pause", "lock"),
)
NEEDS_CONSOLE = {"reconnect", "pause"}

CLOSED = "closed"
"""The connection ended without a word."""
GONE = frozenset({"57P01", "08006", "08003", "58000", CLOSED})
AWAY = GONE | {"57P02", "57P03", "08001", "08004", ""}
"""Without a SQLSTATE: nobody listens."""
GRACE_S = 3.0
"""A checkout may have been waiting; a proxy notices a dead server when it next looks."""
WINDOWS_LIMIT = 10_000
WARM_REPLIES = 10_000
"""Before the first storm: a proxy has to learn which reads are fast."""
KNOWN_PATIENCE_S = 15.0
"""A node that has not read its catalogue knows no read to be one, so that it may send none again."""
WARM_SHARE = 0.1
"""Of all replies, in a shorter run."""


@dataclass
class Window:
    """From the moment a fault began until its effects are over."""

    start: float
    end: float
    codes: frozenset[str]


@dataclass
class Weather:
    """What has struck so far. An error is explained when a fault that causes it lay between question and answer."""

    windows: list[Window] = field(default_factory=list)

    def begins(self, now: float, codes: frozenset[str]) -> Window:
        window = Window(now, float("inf"), codes)
        self.windows.append(window)
        del self.windows[:-WINDOWS_LIMIT]
        return window

    def explains(self, code: str, asked_at: float, now: float) -> bool:
        for window in reversed(self.windows):
            if window.start <= now and asked_at <= window.end and code in window.codes:
                return True
        return False


@dataclass(frozen=True)
class Storm:
    """One kind of fault: waits between `pause_s` each time, the first time a part of it."""

    name: str
    pause_s: tuple[float, float]
    strike: Callable[[Run, random.Random], Awaitable[None]]


async def terminate(run: Run, dice: random.Random) -> None:
    window = run.weather.begins(run.now(), GONE)
    share = dice.choice((0.1, 0.3, 1.0))
    kill = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        f"WHERE usename = 'bench' AND random() < {share} AND pid <> pg_backend_pid()"
    )
    server = dice.choice(run.servers)
    try:
        await asyncio.to_thread(server.sql, kill)
    finally:
        window.end = run.now() + GRACE_S


async def restart(run: Run, dice: random.Random) -> None:
    window = run.weather.begins(run.now(), AWAY)
    server = dice.choice(run.servers)
    try:
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(dice.random() * 0.3)
        await asyncio.to_thread(server.start)
    finally:
        window.end = run.now() + GRACE_S


async def reconnect(run: Run, dice: random.Random) -> None:
    await run.command("RECONNECT")


async def pause(run: Run, dice: random.Random) -> None:
    await run.command("PAUSE")
    try:
        await asyncio.sleep(0.05 + dice.random() * 0.3)
    finally:
        await run.command("RESUME")


STORMS = (
    Storm("terminate", (0.5, 2.0), terminate),
    Storm("restart", (10.0, 30.0), restart),
    Storm("reconnect", (2.0, 6.0), reconnect),
    Storm("pause", (2.0, 6.0), pause),
)
SHORT = 0.2
"""The first time it strikes after this part of its pause, so that short runs meet it too."""


async def _until_reads_are_known(run: Run, node: NodeProcess) -> None:
    until = run.now() + KNOWN_PATIENCE_S
    while run.now() < until and not run.enough:
        if (await asyncio.to_thread(telling, node, "POOLS")).get("lane_units"):
            return
        await asyncio.sleep(0.1)


async def blow(run: Run, storm: Storm) -> None:
    """Strikes again and again until the run is over."""
    dice = random.Random(f"{run.world.seed}-{storm.name}")
    part = SHORT
    while run.replies < min(WARM_REPLIES, WARM_SHARE * run.wanted) and not run.enough:
        await asyncio.sleep(0.05)
    if run.strict_reads and run.node is not None:
        await _until_reads_are_known(run, run.node)
    while not run.enough:
        low, high = storm.pause_s
        await asyncio.sleep(part * (low + dice.random() * (high - low)))
        part = 1.0
        async with run.one_storm:  # a server that is being restarted cannot be asked to end its backends
            if not run.over:
                await storm.strike(run, dice)
                run.happened[storm.name] += 1
