"""What must hold after every event of a flock, and what must come true once the world is kind again.

Inv1 OneVersion   serving members and statements still running on any server know one barrier (adjacent versions that
                  route alike may coexist; that is what rolling means)
Inv2 CommitAll    an exclusive commit finds the durable vote of every member of the roster
Inv3 FencedSilent a member whose durable vote belongs to the open rollout serves nothing
Inv4 Decision     a rollout's outcome is written once and stays
Inv5 Chain        versions count by one and name their parent
Inv6 OneRollout   a rollout opens only when none is open, and ids are never used twice
Inv7 JoinSafe     who serves has a seat, taken in this very life
Bounded           a member that has not voted is paused for pause_max at most
"""

from __future__ import annotations

from sim.flock import CHAOS_ENDS_S, HEALED_WITHIN_S, SETTINGS, SLOWEST_STATEMENT_S, Flock

from sync.rollout import Cell, ChangeClass, Phase


class Broken(AssertionError):
    """An invariant does not hold; the message names it, the seed and the command that shows how it came about."""


class Watchdog:
    def __init__(self, flock: Flock) -> None:
        self.flock = flock
        self.outcomes: dict[int, Phase] = {}
        self._rev_seen = -1
        self._cell: Cell | None = None
        flock.register.hooks.append(self.swapped)
        flock.world.checks.append(self.look)

    def fail(self, invariant: str, detail: str) -> None:
        world = self.flock.world
        raise Broken(
            f"{invariant} at {world.now:.4f} s of seed {world.seed}: {detail}\n"
            f"    replay: scripts/simulate --seed {world.seed} --trace"
        )

    # ── the register's history ──────────────────────────────────────────────────────────────────────────────────────

    def swapped(self, before: Cell | None, after: Cell) -> None:
        if before is None:
            return
        if after.cur != before.cur:
            self._chained(before, after)
        if before.roll is not None and (after.roll is None or after.roll.rid != before.roll.rid):
            self._decided(before.roll.rid, after)
        if after.roll is not None and before.roll is None and after.roll.rid in self.outcomes:
            self.fail("Inv6 OneRollout", f"rollout {after.roll.rid} is opened again")
        if after.roll is not None and before.roll is not None and after.roll.rid != before.roll.rid:
            self.fail("Inv6 OneRollout", f"{after.roll.rid} opened while {before.roll.rid} was open")
        last = before.last
        if last is not None and after.last is not None and last.rid == after.last.rid and last != after.last:
            self.fail("Inv4 Decision", f"the outcome of {last.rid} changed")

    def _chained(self, before: Cell, after: Cell) -> None:
        if after.cur.n != before.cur.n + 1 or after.cur.parent != before.cur.digest:
            self.fail("Inv5 Chain", f"{before.cur} was followed by {after.cur}")
        if self.flock.documents[after.cur.digest] is ChangeClass.EXCLUSIVE:
            self._voted(after, before)

    def _voted(self, after: Cell, before: Cell) -> None:
        for name in before.roster.names:
            if (name, after.cur.rid) not in self.flock.kept_votes:
                self.fail("Inv2 CommitAll", f"rollout {after.cur.rid} committed without a durable vote of {name}")

    def _decided(self, rid: int, after: Cell) -> None:
        outcome = Phase.COMMITTED if after.committed(rid) is not None else Phase.ABORTED
        if rid in self.outcomes:
            self.fail("Inv4 Decision", f"rollout {rid} was decided twice")
        self.outcomes[rid] = outcome

    # ── every event ─────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        flock = self.flock
        if flock.register.rev != self._rev_seen:
            self._rev_seen, self._cell = flock.register.rev, flock.register.reading.cell
        barriers: dict[int, str] = {}
        for name, member in flock.members.items():
            proxy = flock.proxies[name]
            if not member.up:
                continue
            if proxy.serving and proxy.version is not None:
                barriers[self._barrier(proxy.version.n)] = f"{name} serves version {proxy.version.n}"
                self._joined(name)
                self._silent(name)
            elif proxy.paused_since is not None:
                self._bounded(name, flock.world.now - proxy.paused_since)
        for statement in flock.statements.values():
            what = f"a statement of {statement.node} runs under {statement.version}"
            barriers.setdefault(self._barrier(statement.version), what)
        if len(barriers) > 1:
            self.fail("Inv1 OneVersion", ", ".join(barriers.values()))

    def _barrier(self, n: int) -> int:
        # A version nobody has committed is like no other.
        return self.flock.barrier_of.get(n, n)

    def _silent(self, name: str) -> None:
        cell = self._cell
        if cell is not None and cell.roll is not None and (name, cell.roll.rid) in self.flock.kept_votes:
            self.fail("Inv3 FencedSilent", f"{name} serves after its vote in the open rollout {cell.roll.rid}")

    def _joined(self, name: str) -> None:
        member = self.flock.members[name]
        seat = None if self._cell is None else self._cell.roster.get(name)
        if seat is None or seat.boot != f"{name}/{member.life}":
            self.fail("Inv7 JoinSafe", f"{name} serves in life {member.life}, its seat is {seat}")

    def _bounded(self, name: str, paused_s: float) -> None:
        if paused_s <= SETTINGS.pause_max * 1.02 + 0.1:  # its clock may run 1 % slow
            return
        promise = self.flock.promise_of(self.flock.members[name].disk)
        # A vote that outlives its rollout keeps nobody paused for long either: the outcome is there to be read.
        if promise is None or promise.vote is None:
            self.fail("Bounded", f"{name} is paused for {paused_s:.1f} s and has not voted")


def run_seed(seed: int, flock: Flock | None = None) -> Flock:
    """One whole life: cruelty with all checks, then healing, then one more rollout that must commit. Raises Broken."""
    flock = flock or Flock(seed)
    dog = Watchdog(flock)
    world = flock.world
    world.run(CHAOS_ENDS_S)
    flock.heal()
    if not world.run(CHAOS_ENDS_S + HEALED_WITHIN_S, stop=lambda: flock.whole):
        dog.fail("Liveness", f"not whole {HEALED_WITHIN_S:g} s after healing: {states(flock)}")
    world.run(world.now + SLOWEST_STATEMENT_S)  # an honest drain waits for these, and refuses when they take too long
    token = flock.roll_out(next(iter(flock.members)), ChangeClass.EXCLUSIVE)
    if not world.run(world.now + 10.0, stop=lambda: any(f.token == token for f in flock.finished)):
        dog.fail("Liveness", f"a rollout in a healthy flock did not end: {states(flock)}")
    outcome = next(f for f in flock.finished if f.token == token)
    if outcome.outcome != "committed":
        dog.fail("Liveness", f"a rollout in a healthy flock was {outcome.outcome}: {outcome.reason}")
    return flock


def states(flock: Flock) -> str:
    told = [f"{name} {'down' if not m.up else m.core.follower.state.name}" for name, m in flock.members.items()]
    cell = flock.register.reading.cell
    return f"{', '.join(told)}; rollout {None if cell is None else cell.roll}"
