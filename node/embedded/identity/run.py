"""One run: the clients, the weather, what was counted, and what was wrong."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from node.embedded.identity import weather
from node.embedded.identity.client import Client
from node.embedded.identity.judge import Unit, Wrong, strangers
from node.embedded.identity.world import DATABASE, HOT_KEYS, World
from node.embedded.nodes import NodeProcess
from node.embedded.server import Server

FAILURES_LIMIT = 5
"""One is enough to fail; a few help to understand it."""
NO_ANSWER_S = 60.0
DOORS = 64
"""Connections that are being opened at once."""
HERD = 40
HERD_PATIENCE_S = 0.02
HUGE_PAUSE_S = 3.0
PROGRESS_S = 5.0
END_PATIENCE_S = 90.0
CONSOLE_PATIENCE_S = 60.0
NOTES_LIMIT = 100
DUMP_LIMIT_BYTES = 2000


@dataclass
class Failure:
    """A byte that no rule explains, with all that is known of it."""

    client: int
    what: str
    kind: str
    strangers: list[int]
    foreign_bytes: int
    conversation: str

    def as_text(self) -> str:
        whose = f", bytes of the clients {self.strangers}" if self.strangers else ""
        return f"client {self.client}, unit {self.kind}: {self.what}{whose}\n{self.conversation}"


class Run:
    """Clients read it at every answer, so what they need lies here as plain attributes."""

    def __init__(
        self,
        world: World,
        address: tuple[str, int],
        servers: Sequence[Server],
        *,
        replies: int,
        faults: frozenset[str] = frozenset(),
        strict_reads: bool = False,
        node: NodeProcess | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.world = world
        self.address = address
        self.servers = servers
        self.wanted = replies
        self.faults = faults
        self.strict_reads = strict_reads
        self.node = node
        self.say = say
        self.cancels = "cancel" in faults
        self.disconnects = "disconnect" in faults
        self.slow_readers = "slow_reader" in faults
        self.sleeps = "slow" in faults
        self.locks = "lock" in faults
        self.weather = weather.Weather()
        self.replies = 0
        self.over = False
        self.tally: Counter[tuple[str, str]] = Counter()
        self.errors: Counter[str] = Counter()
        self.happened: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self.notes: list[str] = []
        self.herds = 0
        self.seconds = 0.0
        self._herd: list[Client] = []
        self._huge_at = 0.0 if "huge" in faults else float("inf")
        self._is_huge = False
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the whole of it -------------------------------------------------------------------------------------------

    async def perform(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time
        self.later = loop.call_later
        self.doors = asyncio.Semaphore(DOORS)
        self.one_storm = asyncio.Lock()
        self.clients = [Client(self, number) for number in range(self.world.clients)]
        gc.freeze()
        started = time.monotonic()
        for client in self.clients:
            self.start(client.connect())
        storms = [
            asyncio.create_task(weather.blow(self, storm)) for storm in weather.STORMS if storm.name in self.faults
        ]
        said_at, said = started, 0
        try:
            while not self.enough:
                await asyncio.sleep(0.05)
                self._watch(storms)
                now = time.monotonic()
                if now - said_at > PROGRESS_S:
                    rate = (self.replies - said) / (now - said_at)
                    self.say(f"{self.replies:,} of {self.wanted:,} replies, {rate:,.0f} per second, {self._so_far()}")
                    said_at, said = now, self.replies
            self.seconds = time.monotonic() - started
            await asyncio.gather(*storms)
            await self._all_stopped()
        finally:
            self.over = True
            for storm in storms:
                storm.cancel()
            await asyncio.gather(*storms, return_exceptions=True)
            for client in self.clients:
                client.leave()
            await asyncio.sleep(0.05)
            for task in list(self._tasks):
                task.cancel()
            gc.unfreeze()

    @property
    def enough(self) -> bool:
        return self.replies >= self.wanted or len(self.failures) >= FAILURES_LIMIT or self.over

    def _watch(self, storms: list[asyncio.Task[None]]) -> None:
        for storm in storms:
            if storm.done() and storm.exception() is not None:
                storm.result()
        now = self.now()
        for client in self.clients:
            judge = client.judge
            if client.transport is None or now - client.asked_at < NO_ANSWER_S:
                continue
            if judge.owed or judge.ended:
                what = f"FATAL {judge.ended}, and the connection stays open" if judge.ended else "no answer"
                first = judge.owed[0] if judge.owed else None
                wrong = Wrong(f"{what} for {NO_ANSWER_S:.0f} s", first, judge.got, 0)
                self.failed(client, wrong)
                client.leave()

    async def _all_stopped(self) -> None:
        until = self.now() + END_PATIENCE_S
        while not all(client.stopped for client in self.clients) and len(self.failures) < FAILURES_LIMIT:
            self._stampede()
            await asyncio.sleep(0.05)
            if self.now() > until:
                for client in self.clients:
                    if not client.stopped and (client.judge.owed or client.judge.ended):
                        first = client.judge.owed[0] if client.judge.owed else None
                        wrong = Wrong(f"no answer at the end {client.judge.ended}".rstrip(), first, client.judge.got, 0)
                        self.failed(client, wrong)
                        return
                return

    def _so_far(self) -> str:
        struck = ", ".join(f"{name} {count}" for name, count in sorted(self.happened.items()))
        return f"{sum(self.errors.values())} explained errors ({struck or 'no faults'})"

    # -- for the clients -------------------------------------------------------------------------------------------

    now: Callable[[], float]
    later: Callable[..., object]

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def join_herd(self, client: Client) -> None:
        self._herd.append(client)
        if len(self._herd) == 1:
            self.later(HERD_PATIENCE_S, self._stampede)
        elif len(self._herd) >= HERD:
            self._stampede()

    def _stampede(self) -> None:
        if not self._herd:
            return
        herd, self._herd = self._herd, []
        self.herds += 1
        for client in herd:
            client.answer_herd(self.herds % HOT_KEYS)

    def may_be_huge(self) -> bool:
        """One at a time, and not too often: the answer that is expected lies in memory here as well."""
        if self._is_huge or self.now() < self._huge_at:
            return False
        self._is_huge = True
        self.happened["huge"] += 1
        return True

    def huge_is_over(self) -> None:
        self._is_huge = False
        self._huge_at = self.now() + HUGE_PAUSE_S

    def explains(self, unit: Unit | None, code: str, asked_at: float, *, wanted: bool = True) -> bool:
        if self.strict_reads and wanted and unit is not None and unit.plain_read:
            return False
        return self.weather.explains(code, asked_at, self.now())

    def refused(self, client: Client, what: str, asked_at: float, code: str = "") -> None:
        """A login that failed."""
        self.errors[f"login {code or 'refused'}"] += 1
        if not self.weather.explains(code, asked_at, self.now()):
            self.failed(client, Wrong(f"a login that no fault explains: {what}", None, b"", 0))

    def closed(self, client: Client) -> None:
        """A connection that ended without a word, while answers were owed or not."""
        self.errors[weather.CLOSED] += 1
        first = client.judge.owed[0] if client.judge.owed else None
        if not self.explains(first, weather.CLOSED, client.asked_at):
            self.failed(client, Wrong("the connection was closed", first, client.judge.got, len(client.judge.got)))

    def failed(self, client: Client, wrong: Wrong) -> None:
        others = sorted(strangers(wrong.got[wrong.offset :], client.number))
        failure = Failure(
            client.number,
            wrong.what,
            wrong.unit.kind if wrong.unit else "none",
            others[:20],
            len(wrong.got) - wrong.offset if others else 0,
            conversation(client, wrong),
        )
        if len(self.failures) >= FAILURES_LIMIT:
            return
        self.failures.append(failure)
        self.say(f"WRONG, seed {self.world.seed}: {failure.as_text()}")

    def note(self, text: str) -> None:
        if len(self.notes) < NOTES_LIMIT:
            self.notes.append(text)

    async def command(self, text: str) -> None:
        """To the node's console, which may be slow to answer while thousands of clients log in again."""
        import psycopg

        assert self.node is not None
        until = self.now() + CONSOLE_PATIENCE_S
        while True:
            try:
                await asyncio.to_thread(self.node.ask, text)
                return
            except psycopg.OperationalError as error:
                self.note(f"{text}: {error}")
                if self.now() > until:
                    raise RuntimeError(f"the console does not answer {text}: {error}") from error

    # -- afterwards ------------------------------------------------------------------------------------------------

    def judge_ledger(self) -> list[str]:
        """Every acknowledged row once, every uncertain one at most once, and no other."""
        found: Counter[tuple[int, int]] = Counter()
        for server in self.servers:
            for client, n in server.sql("SELECT client, n FROM ledger", DATABASE):
                found[int(client), int(n)] += 1
        return ledger_wrongs({c.number: (c.author.written, c.uncertain, c.never) for c in self.clients}, found)


def ledger_wrongs(asked: dict[int, tuple[int, set[int], set[int]]], found: Counter[tuple[int, int]]) -> list[str]:
    """`asked`: per client how many rows it wrote, numbered from 1, which are uncertain, and which were rolled back."""
    wrongs = []
    left = dict(found)
    for client, (written, uncertain, never) in asked.items():
        for n in range(1, written + 1):
            count = left.pop((client, n), 0)
            if n in never:
                if count:
                    wrongs.append(f"row {n} of client {client} was rolled back and is there")
            elif count > 1:
                wrongs.append(f"row {n} of client {client} was written {count} times")
            elif count == 0 and n not in uncertain:
                wrongs.append(f"row {n} of client {client} was acknowledged and is not there")
    wrongs += [f"row {n} of client {client} was never asked for" for client, n in left]
    return wrongs


def conversation(client: Client, wrong: Wrong) -> str:
    """What was sent last and what came, around the first byte that is wrong."""
    lines = []
    unit = wrong.unit
    if unit is None:
        lines += [f"sent earlier ({one.kind}, {one.protocol}):\n{dump(one.sent)}" for one in client.recent]
    else:
        lines.append(f"sent ({unit.protocol}{', torn' if unit.torn else ''}):\n{dump(unit.sent)}")
        start = max(0, wrong.offset - 200)
        lines.append(f"expected, from byte {start}:\n{dump(unit.expected[start:])}")
    start = max(0, wrong.offset - 200)
    lines.append(f"received, from byte {start}, wrong from byte {wrong.offset}:\n{dump(wrong.got[start:])}")
    return "\n".join(lines)


def dump(data: bytes) -> str:
    """A hexdump, cut where nobody would read on."""
    lines = []
    for at in range(0, min(len(data), DUMP_LIMIT_BYTES), 16):
        piece = data[at : at + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        lines.append(f"  {at:06x}  {piece.hex(' '):<47}  {letters}")
    if len(data) > DUMP_LIMIT_BYTES:
        lines.append(f"  and {len(data) - DUMP_LIMIT_BYTES} bytes more")
    return "\n".join(lines) or "  nothing"
