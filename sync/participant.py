"""One node's whole part: its follower, and the coordinator while it runs a rollout. Routes events, owns no rule.

The shape of every control-plane core: `receive(message, source, now)`, `tick(now)`, `deadline`; the outcomes of effects
come back through the methods named in `effects.py`.
"""

from __future__ import annotations

from sync.changes import Abort as AbortChange
from sync.changes import Change, Commit, Open, StartFencing, TakeOver
from sync.coordinator import Coordinator, Order, Step
from sync.effects import Effect, Finish
from sync.follower import Follower
from sync.messages import MemberRow, Message, Progress
from sync.ports import Report
from sync.rollout import Reading
from sync.settings import SyncSettings
from sync.version import ConfigVersion


class Participant:
    def __init__(
        self, follower: Follower, settings: SyncSettings, coordinator_class: type[Coordinator] = Coordinator
    ) -> None:
        self.follower = follower
        self.settings = settings
        self.coordinator: Coordinator | None = None
        self.progress = Progress(0, ())  # what another coordinator showed last
        self._coordinator_class = coordinator_class

    @property
    def node(self) -> str:
        return self.follower.node

    @property
    def deadline(self) -> float:
        coordinator = self.coordinator
        return min(self.follower.deadline, float("inf") if coordinator is None else coordinator.deadline)

    def tick(self, now: float) -> list[Effect]:
        effects = self.follower.tick(now)
        if self.coordinator is not None:
            effects += self.coordinator.tick(now)
        return self._settled(effects)

    def receive(self, message: Message, source: str, now: float) -> list[Effect]:
        if isinstance(message, Progress):
            if message.rid >= self.progress.rid:
                self.progress = message
            return []
        effects = self.follower.receive(message, source, now)
        if self.coordinator is not None:
            effects += self.coordinator.receive(message, source, now)
        return self._settled(effects)

    def _settled(self, effects: list[Effect]) -> list[Effect]:
        """A coordinator that has ended leaves its rows behind for SHOW ROLLOUT."""
        coordinator = self.coordinator
        if coordinator is not None and coordinator.step is Step.ENDED:
            if coordinator.rid:
                self.progress = Progress(coordinator.rid, tuple(coordinator.rows.values()))
            self.coordinator = None
            self.follower.coordinating = 0
        return effects

    # ── orders ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def roll_out(self, order: Order, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self.coordinator is not None:
            if self.coordinator.step is not Step.CONFIRMING:
                dry = self.coordinator.step is Step.DRY
                what = "a dry run is under way" if dry else f"rollout {self.coordinator.rid} is open"
                reason = f"{what}: node {self.node} runs it"
                return [Finish(order.token, "aborted", None, order.target, reason, 0, ())]
            effects += self._settled(self.coordinator.hurry())
        if order.dry_run:
            cell = self.follower.reading.cell
            members = () if cell is None else cell.roster.names
            self.coordinator, begun = self._coordinator_class.dry(self.node, self.settings, order, members, now)
        else:
            self.coordinator, begun = self._coordinator_class.begin(self.node, self.settings, order, now)
        return self._settled(effects + begun)

    def unreachable(self, node: str, reason: str, now: float) -> list[Effect]:
        if self.coordinator is None:
            return []
        return self._settled(self.coordinator.unreachable(node, reason, now))

    def leave(self, now: float) -> list[Effect]:
        return self.follower.leave(now)

    # ── outcomes of effects ─────────────────────────────────────────────────────────────────────────────────────────

    def saw(self, reading: Reading, now: float) -> list[Effect]:
        self._recognise(reading)
        effects = self.follower.saw(reading, now)
        if self.coordinator is not None:
            effects += self.coordinator.saw(reading, now)
        return self._settled(effects)

    def _recognise(self, reading: Reading) -> None:
        """A watch may show the own rollout before the compare-and-set that opened it has answered."""
        roll = None if reading.cell is None else reading.cell.roll
        coordinator = self.coordinator
        if roll is None or coordinator is None or reading.rev < self.follower.reading.rev:
            return
        mine = coordinator.token == roll.token and (coordinator.step is Step.OPENING or coordinator.epoch == roll.epoch)
        self.follower.coordinating = roll.rid if mine else 0

    def amended(self, change: Change, ok: bool | None, reading: Reading, reason: str, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if isinstance(change, TakeOver):
            effects += self._took_over(ok, reading, now)
        elif self.coordinator is not None and self._asked(self.coordinator, change):
            effects += self.coordinator.amended(change, ok, reading, reason, now)
        self._recognise(reading)
        effects += self.follower.amended(change, ok, reading, reason, now)
        return self._settled(effects)

    @staticmethod
    def _asked(coordinator: Coordinator, change: Change) -> bool:
        if isinstance(change, Open):
            return change.token == coordinator.token
        if isinstance(change, StartFencing | Commit | AbortChange):
            return (change.rid, change.epoch) == (coordinator.rid, coordinator.epoch)
        return False

    def _took_over(self, ok: bool | None, reading: Reading, now: float) -> list[Effect]:
        cell = reading.cell
        if not ok or cell is None or cell.roll is None or cell.roll.coordinator != self.node:
            return []
        effects: list[Effect] = []
        coordinator = self.coordinator
        if coordinator is not None and coordinator.token == cell.roll.token:
            return coordinator.promoted(cell, now) if coordinator.epoch < cell.roll.epoch else []
        if coordinator is not None:
            # An older rollout: the same reading shows how it ended.
            effects += self._settled(coordinator.saw(reading, now) + coordinator.hurry())
        self.coordinator, begun = self._coordinator_class.succeed(self.node, self.settings, cell, now)
        return effects + begun

    def obtained(self, digest: str, ok: bool, now: float) -> list[Effect]:
        return self.follower.obtained(digest, ok, now)

    def validated(self, rid: int, target: str, report: Report, asked_by: str, now: float) -> list[Effect]:
        del now
        return self.follower.validated(rid, target, report, asked_by)

    def drained(self, rid: int, attempt: int, now: float) -> list[Effect]:
        return self.follower.drained(rid, attempt, now)

    def drain_failed(self, rid: int, attempt: int, reason: str, now: float) -> list[Effect]:
        return self.follower.drain_failed(rid, attempt, reason, now)

    def applied(self, version: ConfigVersion, error: str, now: float) -> list[Effect]:
        return self.follower.applied(version, error, now)

    # ── what is shown ───────────────────────────────────────────────────────────────────────────────────────────────

    def rows(self, rid: int) -> tuple[MemberRow, ...]:
        """The members' rows of a rollout, as far as this node has heard of them."""
        if self.coordinator is not None and self.coordinator.rid == rid:
            return tuple(self.coordinator.rows.values())
        return self.progress.rows if self.progress.rid == rid else ()
