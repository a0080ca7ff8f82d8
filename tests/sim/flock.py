"""A flock in the simulated world: the real cores of `sync`, a simulated register, servers with statements that outlive
their proxy, and operators who roll out, abort and pull plugs.

One `Flock` is one seed. `Fate` says what may go wrong in it; `tests/sim/invariants.py` looks after every event.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from sim.world import Disk, Halt, Member, Network, World

from sync import effects as e
from sync.changes import Abort, Change, Commit, Evict, Obsolete, TakeOver
from sync.coordinator import Coordinator, Order
from sync.follower import Follower
from sync.messages import decode as decode_message
from sync.messages import encode as encode_message
from sync.participant import Participant
from sync.ports import Report
from sync.promise import Promise
from sync.promise import decode as decode_promise
from sync.promise import encode as encode_promise
from sync.rollout import Cell, ChangeClass, Reading
from sync.rollout import decode as decode_cell
from sync.rollout import encode as encode_cell
from sync.roster import Seat
from sync.settings import SyncSettings
from sync.version import ConfigVersion, digest_of, first_version

SETTINGS = SyncSettings()
CHAOS_ENDS_S = 40.0
HEALED_WITHIN_S = 45.0  # a validation that nobody answers any more may take its whole validate_timeout
SLOWEST_STATEMENT_S = 12.0


@dataclass
class Fate:
    """Which faults a seed suffers: a random half of them (swarm testing), so that some runs get far."""

    members: int
    loss: float
    duplicate: float
    tail: float
    crash_every_s: float
    crash_chance: float
    partition_every_s: float
    register_fails: float
    outage_every_s: float
    fsync_fails: float
    wipe: float
    slow_statements: float
    refusals: float

    @classmethod
    def drawn(cls, random: Random) -> Fate:
        def some(chance: float, low: float, high: float) -> float:
            value = random.uniform(low, high)
            return value if random.random() < chance else 0.0

        return cls(
            members=random.choice((2, 3, 3, 3, 4, 5)),
            loss=some(0.6, 0.01, 0.3),
            duplicate=some(0.6, 0.01, 0.2),
            tail=some(0.5, 0.01, 0.1),
            crash_every_s=some(0.6, 2.0, 15.0),
            crash_chance=some(0.5, 0.002, 0.03),
            partition_every_s=some(0.5, 3.0, 15.0),
            register_fails=some(0.4, 0.01, 0.2),
            outage_every_s=some(0.3, 5.0, 15.0),
            fsync_fails=some(0.2, 0.01, 0.1),
            wipe=some(0.2, 0.05, 0.3),
            slow_statements=some(0.4, 0.01, 0.05),
            refusals=some(0.3, 0.01, 0.1),
        )


@dataclass(frozen=True)
class Statement:
    """Runs on a server, whatever became of the proxy that sent it."""

    node: str
    life: int
    version: int


@dataclass
class Proxy:
    """The simulated ConfigTarget of one life of one node."""

    version: ConfigVersion | None = None
    opened: bool = False
    paused_since: float | None = None

    @property
    def serving(self) -> bool:
        return self.opened and self.paused_since is None and self.version is not None


@dataclass
class Register:
    """Linearizable: each read and swap happens at one instant between its call and its answer."""

    rev: int = 0
    data: bytes | None = None
    hooks: list[Callable[[Cell | None, Cell], None]] = field(default_factory=list)

    @property
    def reading(self) -> Reading:
        return Reading(self.rev, None if self.data is None else decode_cell(self.data))

    def cas(self, rev: int, cell: Cell) -> bool:
        if rev != self.rev:
            return False
        before = self.reading.cell
        self.rev, self.data = self.rev + 1, encode_cell(cell)
        for hook in self.hooks:
            hook(before, cell)
        return True


class Flock:
    def __init__(
        self,
        seed: int,
        fate: Fate | None = None,
        *,
        follower_class: type[Follower] = Follower,
        coordinator_class: type[Coordinator] = Coordinator,
        kill_ghosts: bool = True,
    ) -> None:
        self.world = World(seed, Network(delay=(0.0002, 0.01)))
        self.random = self.world.random
        self.fate = fate or Fate.drawn(self.random)
        network = self.world.network
        network.loss, network.duplicate, network.tail = self.fate.loss, self.fate.duplicate, self.fate.tail
        self.register = Register()
        self.follower_class = follower_class
        self.coordinator_class = coordinator_class
        self.kill_ghosts = kill_ghosts
        self.proxies: dict[str, Proxy] = {}
        self.statements: dict[int, Statement] = {}
        self.documents: dict[str, ChangeClass] = {digest_of(b"1"): ChangeClass.EXCLUSIVE}
        self.marks: dict[str, int] = {}
        self.finished: list[e.Finish] = []
        self.calm = False
        self.outage_until = 0.0
        self.kept_votes: dict[tuple[str, int], bool] = {}
        self._counter = itertools.count(1)
        self.members = {f"n{i}": self._add(f"n{i}", 0.01 * i) for i in range(1, self.fate.members + 1)}
        self.barrier_of: dict[int, int] = {1: 1}  # the truth about versions, from the documents and not from the cores
        self.register.hooks.append(self._note_barrier)
        self.register.hooks.append(self._tell_watchers)
        for name in self.members:
            self.world.after(self.random.random(), lambda name=name: self._client(name))  # type: ignore[misc]
        self.world.after(self.random.uniform(0.5, 3.0), self._operator)
        self._every(self.fate.crash_every_s, self._pull_a_plug)
        self._every(self.fate.partition_every_s, self._cut_a_cable)
        self._every(self.fate.outage_every_s, self._stop_the_register)

    def mark(self, name: str) -> None:
        """A situation that a sweep over seeds must have met, or the sweep proves little."""
        self.marks[name] = self.marks.get(name, 0) + 1

    # ── members ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _add(self, name: str, start_at: float) -> Member:
        self.proxies[name] = Proxy()
        member = self.world.add(name, self._build, self._perform, start_at)
        member.crash_chance = self.fate.crash_chance
        member.clock_offset = self.random.uniform(0, 1000)
        member.clock_rate = self.random.uniform(0.99, 1.01)
        return member

    def promise_of(self, disk: Disk) -> Promise | None:
        data = disk.read("promise")
        return None if data is None else decode_promise(data)

    def _build(self, member: Member) -> Participant:
        name = str(member.name)
        promise = self.promise_of(member.disk)
        if promise is None:
            promise = Promise(disk=f"{name}-{next(self._counter)}")
            member.disk.write("promise", encode_promise(promise))
            member.disk.sync()
        if promise.vote is not None:
            self.mark("vote present at boot")
        self.proxies[name] = Proxy()
        follower = self.follower_class(
            node=name,
            seat=Seat(f"{name}/{member.life}", promise.disk, f"{name}:1"),
            promise=promise,
            local=first_version(digest_of(b"1"), by=name, at_utc=0.0),
            adopt=member.life > 1,  # who lost its disk is told to take what is in force
            settings=SETTINGS,
            random=self.random,
        )
        return Participant(follower, SETTINGS, self.coordinator_class)

    def _perform(self, member: Member, effect: Any) -> None:
        name = str(member.name)
        proxy = self.proxies[name]
        match effect:
            case e.SendTo(node, message):
                self.world.send(name, node, decode_message(encode_message(message)))
            case e.Persist(promise):
                self._persist(member, promise)
            case e.Read():
                self._read(member)
            case e.Amend(change):
                self._amend(member, change, 0)
            case e.Obtain(digest):
                ok = self.calm or self.random.random() < 0.9
                member.later(self.random.uniform(0.001, 0.1), lambda core, now: core.obtained(digest, ok, now))
            case e.Validate(rid, target, asked_by):
                report = self._judge(target)
                delay = self.random.uniform(0.001, 0.3)
                member.later(delay, lambda core, now: core.validated(rid, target, report, asked_by, now))
            case e.Pause():
                proxy.paused_since = self.world.now
            case e.Resume():
                proxy.paused_since = None
            case e.Drain(_, rid, attempt):
                self._drain(member, rid, attempt)
            case e.Apply(version):
                self._apply(member, version)
            case e.Serving():
                proxy.opened = True
            case e.Finish():
                self.finished.append(effect)
                self.mark(effect.outcome)
            case e.RefuseToStart(reason, _):
                raise AssertionError(f"{name} refuses to start: {reason}")
            case e.Alarm(event, _):
                self.mark(event)
            case e.Left():
                proxy.opened = False
                self.mark("left")

    def _persist(self, member: Member, promise: Promise) -> None:
        member.disk.write("promise", encode_promise(promise))
        if not self.calm and self.fate.fsync_fails and self.random.random() < self.fate.fsync_fails:
            self.mark("fsync failed")
            raise Halt("fsync failed")
        member.disk.sync()
        if promise.vote is not None:
            self.kept_votes[str(member.name), promise.vote.rid] = True

    def _judge(self, target: str) -> Report:
        change = self.documents[target]
        if not self.calm and self.fate.refusals and self.random.random() < self.fate.refusals:
            return Report(change, (), ("no such shard",))
        return Report(change, ("shop",))

    def _drain(self, member: Member, rid: int, attempt: int) -> None:
        """Done when no statement of any life of this node runs; older lives' backends are ended on the server."""
        name = str(member.name)

        def look(core: Participant, now: float) -> list[e.Effect]:
            for key, statement in list(self.statements.items()):
                if statement.node == name and statement.life < member.life and self.kill_ghosts:
                    self.mark("ghost killed")
                    del self.statements[key]
            if any(self._blocks(statement, member) for statement in self.statements.values()):
                member.later(0.02, look)
                return []
            return core.drained(rid, attempt, now)

        member.later(self.random.uniform(0.001, 0.05), look)

    def _blocks(self, statement: Statement, member: Member) -> bool:
        return statement.node == member.name and (self.kill_ghosts or statement.life == member.life)

    def _apply(self, member: Member, version: ConfigVersion) -> None:
        proxy = self.proxies[str(member.name)]
        failed = "" if self.calm or self.random.random() < 0.98 else "out of memory"

        def swap(core: Participant, now: float) -> list[e.Effect]:
            if not failed:
                proxy.version = version
            return core.applied(version, failed, now)

        member.later(self.random.uniform(0.0005, 0.02), swap)

    # ── the register ────────────────────────────────────────────────────────────────────────────────────────────────

    def _trip(self) -> float:
        return self.random.uniform(0.0003, 0.02)

    def _fails(self) -> bool:
        if self.calm:
            return False
        return self.world.now < self.outage_until or self.random.random() < self.fate.register_fails

    def _read(self, member: Member) -> None:
        life = member.life
        if self._fails():
            return

        def at_register() -> None:
            reading = self.register.reading
            if member.life == life:
                member.later(self._trip(), lambda core, now: core.saw(reading, now))

        self.world.after(self._trip(), at_register)

    def _amend(self, member: Member, change: Change, attempt: int) -> None:
        """Read, ask the change, swap; each step is an event of its own, and any answer may be lost on its way."""
        life = member.life

        def answer(ok: bool | None, reading: Reading, reason: str = "") -> None:
            if member.life == life:
                member.later(self._trip(), lambda core, now: core.amended(change, ok, reading, reason, now))

        def at_register() -> None:
            reading = self.register.reading
            if self._fails() or attempt > 20:
                answer(None, reading)
            elif change.done(reading.cell):
                answer(True, reading)
            else:
                try:
                    cell = change.apply(reading.cell)
                except Obsolete as obsolete:
                    answer(False, reading, obsolete.reason)
                else:
                    self.world.after(2 * self._trip(), lambda: swap(reading, cell))

        def swap(reading: Reading, cell: Cell) -> None:
            if self._fails():
                answer(None, reading)
            elif not self.register.cas(reading.rev, cell):
                self.mark("conflict")
                if member.life == life:
                    self._amend(member, change, attempt + 1)
            elif self._fails():
                self.mark("swapped, answer lost")
                answer(None, reading)
            else:
                self._mark_takeovers(change)
                answer(True, Reading(self.register.rev, cell))

        self.world.after(self._trip(), at_register)

    def _mark_takeovers(self, change: Change) -> None:
        if isinstance(change, TakeOver):
            self.mark("takeover")
        elif isinstance(change, Commit) and change.epoch > 1:
            self.mark("takeover committed")

    def _note_barrier(self, before: Cell | None, after: Cell) -> None:
        del before
        n, exclusive = after.cur.n, self.documents[after.cur.digest] is ChangeClass.EXCLUSIVE
        self.barrier_of.setdefault(n, n if exclusive else self.barrier_of.get(n - 1, n))

    def _tell_watchers(self, before: Cell | None, after: Cell) -> None:
        del before, after
        for member in self.members.values():
            if member.up and self.random.random() < 0.7:
                self._read(member)

    # ── the outside ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _every(self, mean_s: float, act: Callable[[], None]) -> None:
        if not mean_s:
            return

        def again() -> None:
            if self.calm:
                return
            act()
            self.world.after(self.random.expovariate(1 / mean_s), again)

        self.world.after(self.random.expovariate(1 / mean_s), again)

    def _client(self, name: str) -> None:
        """Statements keep coming; some of them take longer than any drain waits."""
        member, proxy = self.members[name], self.proxies[name]
        if member.up and proxy.serving and proxy.version is not None:
            key = next(self._counter)
            self.statements[key] = Statement(name, member.life, proxy.version.n)
            slow = not self.calm and self.random.random() < self.fate.slow_statements
            duration = self.random.uniform(3.0, SLOWEST_STATEMENT_S) if slow else self.random.expovariate(1 / 0.05)
            self.world.after(duration, lambda: self._end_statement(key))
        self.world.after(self.random.uniform(0.05, 0.5), lambda: self._client(name))

    def _end_statement(self, key: int) -> None:
        self.statements.pop(key, None)

    def _operator(self) -> None:
        """Several people at once, with and without patience, from any node."""
        if self.calm:
            return
        name = self.random.choice(list(self.members))
        what = self.random.random()
        if what < 0.9:
            change = self.random.choice((ChangeClass.EXCLUSIVE, ChangeClass.EXCLUSIVE, ChangeClass.ROLLING))
            self.roll_out(name, change, self.random.choice((2.0, 60.0)))
        else:
            cell = self.register.reading.cell
            if cell is not None and cell.roll is not None:
                self._amend(self.members[name], Abort(cell.roll.rid, None, "the operator changed his mind"), 0)
        self.world.after(self.random.choice((0.01, 0.3, 1.0, 3.0, 5.0)), self._operator)

    def roll_out(self, name: str, change: ChangeClass, timeout: float = 60.0) -> str:
        digest = digest_of(b"document %d" % next(self._counter))
        self.documents[digest] = change
        token = f"{name}-{next(self._counter)}"

        def begin(core: Participant, now: float) -> list[e.Effect]:
            serving = core.follower.serving
            if serving is None:
                return []
            order = Order(token, "op", serving.digest, digest, timeout, self.world.now)
            return core.roll_out(order, now)

        self.members[name].feed(begin)
        return token

    def _pull_a_plug(self) -> None:
        member = self.random.choice(list(self.members.values()))
        if not member.up:
            return
        member.crash()
        what = self.random.random()
        if what < self.fate.wipe:
            member.disk.wipe()
            self.mark("disk lost")
        elif what > 0.9:
            self.evict(str(member.name))
        self.world.after(self.random.expovariate(1 / 3.0), member.start)

    def evict(self, name: str) -> None:
        """A person pulled the plug, ended the backends, and says so."""
        for key, statement in list(self.statements.items()):
            if statement.node == name:
                del self.statements[key]
        reading = self.register.reading
        if reading.cell is not None and len(reading.cell.roster) > 1:
            self.mark("evicted by hand")
            self.register.cas(reading.rev, Evict(name, "op").apply(reading.cell))

    def _stop_the_register(self) -> None:
        self.mark("register outage")
        self.outage_until = self.world.now + self.random.uniform(1.0, 15.0)

    def _cut_a_cable(self) -> None:
        names = list(self.members)
        self.random.shuffle(names)
        split = self.random.randint(1, len(names) - 1)
        network = self.world.network
        if self.random.random() < 0.3:
            network.cut(names[0], names[1])
        else:
            network.partition(names[:split], names[split:])
        self.world.after(self.random.uniform(0.5, 8.0), network.cuts.clear)

    # ── the run ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def heal(self) -> None:
        """The cruelty ends; from here on the flock owes an outcome."""
        self.calm = True
        self.world.network.heal()
        for member in self.members.values():
            member.crash_chance = 0.0
            member.start()

    @property
    def whole(self) -> bool:
        """Nothing is open and every member serves the version in force."""
        cell = self.register.reading.cell
        if cell is None or cell.roll is not None:
            return False
        return all(
            proxy.serving and proxy.version is not None and proxy.version.n == cell.cur.n
            for proxy in self.proxies.values()
        )
