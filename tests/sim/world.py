"""A deterministic world for sans-IO cores: one heap of events, one seeded Random, no threads, no real clock.

Vocabulary
----------
*World*     time, chance and the heap. `run(until)` pops `(time, sequence, thunk)`; equal times keep insertion order.
*Member*    one process: a core that may crash at any point, lose its memory, keep its disk and start again.
*Disk*      what survives a crash. Writes which were not synced may be lost, each by itself (no order is promised).
*Network*   loses, doubles, delays and reorders; links may be cut in one direction only. A message sent before a crash
            may arrive after the restart.

A core is anything with `receive(message, source, now) -> list[Effect]`, `tick(now) -> list[Effect]` and `deadline`
(house style: no base class). What an effect means is said by the test's `perform(member, effect)`, which mostly calls
`world.send`, `member.disk`, or `member.feed(...)` later for the outcome of long work. Effects are performed in order; a
crash may strike between any two of them, and `Halt` raised by `perform` drops the rest (a failed fsync).

Rules that keep a seed reproducible: never iterate a set, never use `id()`, the clock or the `random` module here or
in a core; take chance from `world.random` only.

    world = World(seed=7, network=Network(loss=0.1))
    a = world.add("a", build=lambda member: Swim(...), perform=perform)
    world.run(until=30.0)
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

INFINITY = float("inf")


class Core(Protocol):
    """The habit every control-plane core follows."""

    def receive(self, message: Any, source: Any, now: float) -> list[Any]: ...

    def tick(self, now: float) -> list[Any]: ...

    @property
    def deadline(self) -> float: ...


class Halt(Exception):
    """Raised by `perform`: the process may not go on (fsync failed); its other effects are dropped and it crashes."""


class Stuck(AssertionError):
    """More events than any honest run needs: somebody re-arms a timer without moving on."""


@dataclass
class Network:
    """Chances per message (0..1) and delays in seconds. The tail makes late packets of a former life."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay: tuple[float, float] = (0.0002, 0.002)
    tail: float = 0.0  # chance that a message takes up to `tail_delay` instead
    tail_delay: float = 5.0
    cuts: dict[tuple[Hashable, Hashable], bool] = field(default_factory=dict)

    def latency(self, random: Random) -> float:
        if self.tail and random.random() < self.tail:
            return random.uniform(self.delay[0], self.tail_delay)
        return random.uniform(*self.delay)

    def cut(self, source: Hashable, target: Hashable) -> None:
        """One direction only: nothing from `source` reaches `target`."""
        self.cuts[source, target] = True

    def partition(self, left: Iterable[Hashable], right: Iterable[Hashable]) -> None:
        others = list(right)
        for a in left:
            for b in others:
                self.cut(a, b)
                self.cut(b, a)

    def heal(self) -> None:
        """No cut, no loss: what a liveness check grants before it demands an outcome. Late packets stay late."""
        self.cuts.clear()
        self.loss = self.duplicate = self.tail = 0.0


class Disk:
    """Keys and values which survive a crash once `sync` returned."""

    def __init__(self) -> None:
        self._synced: dict[str, Any] = {}
        self._fresh: dict[str, Any] = {}
        self.fails: Exception | None = None  # raised by the next syncs: EIO, ENOSPC

    def write(self, key: str, value: Any) -> None:
        self._fresh[key] = value

    def sync(self) -> None:
        if self.fails is not None:
            raise self.fails
        self._synced.update(self._fresh)
        self._fresh.clear()

    def read(self, key: str, default: Any = None) -> Any:
        return self._fresh.get(key, self._synced.get(key, default))

    def crash(self, random: Random) -> None:
        """Each write that was not synced survives or is lost, as a page cache does it."""
        for key, value in self._fresh.items():
            if random.random() < 0.5:
                self._synced[key] = value
        self._fresh.clear()

    def wipe(self) -> None:
        self._synced.clear()
        self._fresh.clear()


class Member:
    """One process of the world. `core` is None while it is down; `life` counts its starts."""

    def __init__(
        self,
        world: World,
        name: Hashable,
        build: Callable[[Member], Core],
        perform: Callable[[Member, Any], None],
    ) -> None:
        self.world = world
        self.name = name
        self.build = build
        self.perform = perform
        self.disk = Disk()
        self.core: Any = None
        self.life = 0
        self.stalled_until = 0.0
        self.clock_offset = 0.0
        self.clock_rate = 1.0
        self.crash_chance = 0.0  # per effect: "crashes at any point" without naming the points
        self._armed = INFINITY
        self._arming = 0

    @property
    def up(self) -> bool:
        return self.core is not None

    @property
    def now(self) -> float:
        """This machine's own monotonic clock; it never equals a neighbour's unless the test wants it."""
        return self.world.now * self.clock_rate + self.clock_offset

    def start(self) -> None:
        """Build a new core from what the disk kept. The core's first `tick` comes at once."""
        if self.up:
            return
        self.life += 1
        self.core = self.build(self)
        self.world.note("start", self.name, self.life)
        self.feed(lambda core, now: core.tick(now))

    def crash(self) -> None:
        if not self.up:
            return
        self.core = None
        self._armed = INFINITY
        self._arming += 1
        self.disk.crash(self.world.random)
        self.world.note("crash", self.name, self.life)

    def feed(self, event: Callable[[Any, float], list[Any] | None]) -> None:
        """Give the core one event, perform its effects in order, re-arm its one timer; ignored while it is down."""
        if not self.up:
            return
        life = self.life
        if self.world.now < self.stalled_until:
            self.world.at(self.stalled_until, lambda: self._resume(life, event))
            return
        for effect in event(self.core, self.now) or ():
            if self.crash_chance and self.world.random.random() < self.crash_chance:
                self.crash()
                return
            self.world.note("effect", self.name, effect)
            try:
                self.perform(self, effect)
            except Halt as halt:
                self.world.note("halt", self.name, str(halt))
                self.crash()
                return
            if self.life != life or not self.up:
                return
        self._arm()

    def later(self, delay: float, event: Callable[[Any, float], list[Any] | None]) -> None:
        """Long work: its outcome reaches the same life of the core after `delay`, or never if that life ended."""
        life = self.life
        self.world.after(delay, lambda: self._resume(life, event))

    def stall(self, seconds: float) -> None:
        """The event loop stands still: nothing is read and no timer fires until it runs again."""
        self.stalled_until = max(self.stalled_until, self.world.now + seconds)

    def _resume(self, life: int, event: Callable[[Any, float], list[Any] | None]) -> None:
        if self.life == life:
            self.feed(event)

    def _arm(self) -> None:
        deadline: float = self.core.deadline
        if deadline == self._armed:
            return
        self._armed = deadline
        self._arming += 1
        arming = self._arming
        if deadline < INFINITY:
            at = (deadline - self.clock_offset) / self.clock_rate
            # A float clock rounds: a timer in the past or exactly now must still let time move.
            self.world.at(max(at, self.world.now) + 1e-9, lambda: self._fire(arming))

    def _fire(self, arming: int) -> None:
        if arming == self._arming and self.up:
            self._armed = INFINITY
            self.feed(lambda core, now: core.tick(now))


class World:
    """Time, chance, the heap of events, the members and the checks that run after every event."""

    def __init__(self, seed: int, network: Network | None = None, event_limit: int = 500_000) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.network = network or Network()
        self.now = 0.0
        self.members: dict[Hashable, Member] = {}
        self.checks: list[Callable[[], None]] = []
        self.trace: Callable[[str], None] | None = None
        self.events = 0
        self.event_limit = event_limit
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0

    def add(
        self,
        name: Hashable,
        build: Callable[[Member], Core],
        perform: Callable[[Member, Any], None],
        start_at: float | None = 0.0,
    ) -> Member:
        """A new member; `start_at=None` leaves it down until `start()`."""
        member = Member(self, name, build, perform)
        self.members[name] = member
        if start_at is not None:
            self.at(start_at, member.start)
        return member

    def at(self, time: float, thunk: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (max(time, self.now), self._sequence, thunk))

    def after(self, delay: float, thunk: Callable[[], None]) -> None:
        self.at(self.now + delay, thunk)

    def send(self, source: Hashable, target: Hashable, message: Any, *, reply_to: Any = None) -> None:
        """Hand a message to the network. `reply_to` is what the receiver sees as the source (default: the name)."""
        network, random = self.network, self.random
        copies = 2 if network.duplicate and random.random() < network.duplicate else 1
        for _ in range(copies):
            if network.loss and random.random() < network.loss:
                self.note("lost", source, target, message)
                continue
            origin = source if reply_to is None else reply_to
            self.after(network.latency(random), lambda origin=origin: self._deliver(source, target, message, origin))

    def _deliver(self, source: Hashable, target: Hashable, message: Any, origin: Any) -> None:
        # Asked at arrival, not at departure: a cut also swallows what is on its way.
        if (source, target) in self.network.cuts:
            self.note("cut", source, target, message)
            return
        member = self.members.get(target)
        if member is None or not member.up:
            return
        self.note("deliver", source, target, message)
        member.feed(lambda core, now: core.receive(message, origin, now))

    def run(self, until: float, stop: Callable[[], bool] | None = None) -> bool:
        """Run events up to a time; True when `stop()` became true (asked after every event)."""
        if stop is not None and stop():
            return True
        while self._heap and self._heap[0][0] <= until:
            time, _, thunk = heapq.heappop(self._heap)
            self.now = max(self.now, time)
            self.events += 1
            if self.events > self.event_limit:
                raise Stuck(f"seed {self.seed}: more than {self.event_limit} events at {self.now:.3f} s")
            thunk()
            for check in self.checks:
                check()
            if stop is not None and stop():
                return True
        self.now = max(self.now, until)
        return False

    def note(self, *words: Any) -> None:
        """One line of the trace; costs nothing when nobody reads it."""
        if self.trace is not None:
            self.trace(f"{self.now:10.4f}  " + " ".join(str(word) for word in words))
