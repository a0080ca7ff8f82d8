"""Deliberate mistakes, each one a rule of the cores taken away. A checker that has never caught anything proves
nothing, so every mutant here must be caught by the invariants within 500 seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sim.flock import Fate, Flock

from sync import effects as e
from sync.changes import Obsolete, TakeSeat, _existing
from sync.coordinator import Coordinator
from sync.follower import Follower, State
from sync.messages import Decided, Fenced, Message
from sync.rollout import Cell, ChangeClass, Reading, Roll
from sync.version import ConfigVersion


class VoteNotDurable(Follower):
    """Says its vote and keeps it in memory only."""

    def _vote(self, roll: Roll) -> list[e.Effect]:
        return [effect for effect in super()._vote(roll) if not isinstance(effect, e.Persist)]


class SaysBeforeItWrites(Follower):
    """The right effects in the wrong order: a crash between them forgets a vote that was heard."""

    def _vote(self, roll: Roll) -> list[e.Effect]:
        return super()._vote(roll)[::-1]


class ResumesAfterVote(Follower):
    """Patience ends although the vote was said."""

    @property
    def deadline(self) -> float:
        return min(super().deadline, self._patience_ends)

    @property
    def _patience_ends(self) -> float:
        return self._paused_at + 1.0 if self.state is State.FENCED and self.serving else float("inf")

    def tick(self, now: float) -> list[e.Effect]:
        return self._resume(now) if now >= self._patience_ends else super().tick(now)


class VotesBeforeDrain(Follower):
    def _pause(self, roll: Roll, now: float) -> list[e.Effect]:
        effects = super()._pause(roll, now)
        return effects + self._vote(roll) if self.state is State.PAUSING else effects


class BootsFromCache(Follower):
    """Serves what the journal names before it has read the register."""

    def tick(self, now: float) -> list[e.Effect]:
        known = self.promise.applied
        if self.state is State.BOOTING and known is not None and self.promise.vote is None:
            return self._start_applying(ConfigVersion(known.n, known.digest, "", 0, known.barrier, "", 0.0))
        return super().tick(now)


class TrustsTheHint(Follower):
    """Turns when it is told so, without the register."""

    def _decided(self, rid: int, n: int, source: str, now: float) -> list[e.Effect]:
        roll, serving = self._roll, self.serving
        if self.state is State.FENCED and n and roll is not None and roll.rid == rid and serving is not None:
            return self._start_applying(ConfigVersion(n, roll.target, serving.digest, rid, n, "", 0.0))
        return super()._decided(rid, n, source, now)


class HintsBeforeDecision(Coordinator):
    """Has all votes and tells everybody to turn before the compare-and-set."""

    def _commit(self, now: float) -> list[e.Effect]:
        n = 1 + max((cell.cur.n for cell in [self._cell] if cell is not None), default=0)
        return [*(e.SendTo(name, Decided(self.rid, n)) for name in self.rows), *super()._commit(now)]

    _cell: Cell | None = None

    def saw(self, reading: Reading, now: float) -> list[e.Effect]:
        self._cell = reading.cell
        return super().saw(reading, now)


class CommitsOnMajority(Coordinator):
    def enough_votes(self) -> bool:
        voted = sum(row.state == "fenced" for row in self.rows.values())
        return voted * 2 > len(self.rows)


class NeverFences(Coordinator):
    """Takes every change for a rolling one."""

    def _all_accepted(self, now: float) -> list[e.Effect]:
        for name, answer in self._answers.items():
            self._answers[name] = replace(answer, change=ChangeClass.ROLLING)
        return super()._all_accepted(now)


class CountsAnyVote(Coordinator):
    """A vote is a vote, whichever rollout it was cast in."""

    def receive(self, message: Message, source: str, now: float) -> list[e.Effect]:
        if isinstance(message, Fenced):
            message = replace(message, rid=self.rid)
        return super().receive(message, source, now)


class CountsConsentAsVote(Coordinator):
    """Whoever accepted the document counts as fenced."""

    def _all_fenced(self, now: float) -> list[e.Effect]:
        return self._commit(now)


class BelievesLateReads(Follower):
    """Answers of the register overtake each other, and the older one is believed."""

    def saw(self, reading: Reading, now: float) -> list[e.Effect]:
        self.reading = Reading(0, self.reading.cell)
        return super().saw(reading, now)


@dataclass(frozen=True, slots=True)
class _SeatAtOnce(TakeSeat):
    def apply(self, cell: Cell | None) -> Cell:
        cell = _existing(cell)
        if cell.cur.digest != self.digest:
            raise Obsolete("another version came into force", wait=True)
        return replace(cell, roster=cell.roster.with_seat(self.node, self.seat))


class JoinsDuringRollout(Follower):
    """Takes a seat while the others are voting without it."""

    def _boot(self, cell: Cell | None, now: float) -> list[e.Effect]:
        return [
            e.Amend(_SeatAtOnce(x.change.node, x.change.seat, x.change.digest))
            if isinstance(x, e.Amend) and isinstance(x.change, TakeSeat)
            else x
            for x in super()._boot(cell, now)
        ]


class ForgetsVoteAtBoot(Follower):
    """The vote is on the disk; nobody looks."""

    def _boot(self, cell: Cell | None, now: float) -> list[e.Effect]:
        self.promise = replace(self.promise, vote=None)
        return super()._boot(cell, now)


class ServesWithoutSeat(Follower):
    """One read is enough, it thinks; the seat can wait."""

    def _boot(self, cell: Cell | None, now: float) -> list[e.Effect]:
        if cell is not None and self.state is State.BOOTING:
            return self._start_applying(cell.cur)
        return super()._boot(cell, now)


class NeverSucceeds(Follower):
    """Waits for its coordinator for ever."""

    def _succeed(self, now: float) -> list[e.Effect]:
        self._silence.stop()
        return []


class NeverUnpauses(Follower):
    """Before its vote, too, it waits for somebody else's word."""

    def _unpause(self, reason: str, now: float) -> list[e.Effect]:
        self._paused_at = now
        return []


class TellsAppliedTooSoon(Follower):
    """Resumes the old version while the new one is still being applied."""

    def _fenced(self, cell: Cell, now: float) -> list[e.Effect]:
        effects = super()._fenced(cell, now)
        if self.state is State.APPLYING and self._paused is not None:
            paused, self._paused = self._paused, None
            return [e.Resume(paused), *effects]
        return effects


@dataclass(frozen=True)
class Mutant:
    name: str
    follower: type[Follower] = Follower
    coordinator: type[Coordinator] = Coordinator
    kill_ghosts: bool = True
    first: int = 0  # a seed that caught it once: tried first, so that the gate is quick
    fate: Fate | None = None  # the kind of trouble it takes, where a random mix would need thousands of seeds

    def flock(self, seed: int) -> Flock:
        return Flock(
            seed,
            self.fate,
            follower_class=self.follower,
            coordinator_class=self.coordinator,
            kill_ghosts=self.kill_ghosts,
        )


LATE_PACKETS = Fate(
    members=2,
    loss=0.0,
    duplicate=0.3,
    tail=0.3,
    crash_every_s=0.0,
    crash_chance=0.0,
    partition_every_s=0.0,
    register_fails=0.0,
    outage_every_s=0.0,
    fsync_fails=0.0,
    wipe=0.0,
    slow_statements=0.05,
    refusals=0.0,
)

MUTANTS = (
    Mutant("vote not durable", VoteNotDurable),
    Mutant("vote said before it is written", SaysBeforeItWrites, first=96),
    Mutant("vote forgotten at boot", ForgetsVoteAtBoot, first=16),
    Mutant("resume after vote", ResumesAfterVote, first=4),
    Mutant("vote before drain", VotesBeforeDrain, first=2),
    Mutant("boot from cache", BootsFromCache),
    Mutant("serve without a seat", ServesWithoutSeat),
    Mutant("activate without decision", TrustsTheHint, HintsBeforeDecision),
    Mutant("commit on majority", coordinator=CommitsOnMajority),
    Mutant("consent counts as vote", coordinator=CountsConsentAsVote),
    Mutant("votes of any rollout", coordinator=CountsAnyVote, fate=LATE_PACKETS, first=2),
    Mutant("no barrier", coordinator=NeverFences),
    Mutant("late reads believed", BelievesLateReads, first=3),
    Mutant("joiner serves at once", JoinsDuringRollout, first=37),
    Mutant("ghosts ignored", kill_ghosts=False, first=44),
    Mutant("old version resumed after commit", TellsAppliedTooSoon),
    Mutant("no takeover", NeverSucceeds, first=9),
    Mutant("no un-pausing before the vote", NeverUnpauses, first=65),
)
