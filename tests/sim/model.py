"""The rollout protocol as an abstract state machine, small enough to visit every state for two or three nodes.

Everything that costs nothing is left out: there are no messages and no clocks, only what may happen next. A PAUSE that
was ever sent may arrive at any later time, any number of times, or never, so it needs no queue: a serving node may
pause for any rollout that was ever opened on its version. A vote is a fact once it was said. A statement in flight
survives the crash of the proxy that sent it. Leases stand for the operator's word in `isolation = serve`: a node may be
evicted only when it stopped and its statements are gone.

Checked in every state: the versions of serving nodes and of statements still running are at most one (Inv1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from random import Random
from typing import NamedTuple


class Mode(IntEnum):
    DOWN = 0
    BOOT = 1
    SERVE = 2
    PAUSED = 3
    FENCED = 4


class Outcome(IntEnum):
    OPEN = 0
    COMMITTED = 1
    ABORTED = 2


NOBODY = -1  # no statement in flight, no rollout paused or voted for


class Node(NamedTuple):
    mode: Mode = Mode.SERVE
    version: int = 0
    running: int = NOBODY  # the version of a statement on the server
    paused: int = NOBODY  # the rollout it drains for
    voted: int = NOBODY  # the rollout it is fenced for, on disk
    lease: bool = True


class Rollout(NamedTuple):
    base: int
    members: int  # bit per node
    votes: int = 0
    outcome: Outcome = Outcome.OPEN


class State(NamedTuple):
    version: int
    roster: int
    rollouts: tuple[Rollout, ...]
    nodes: tuple[Node, ...]

    @property
    def open(self) -> list[int]:
        return [rid for rid, rollout in enumerate(self.rollouts) if rollout.outcome is Outcome.OPEN]

    def with_node(self, i: int, node: Node) -> State:
        return self._replace(nodes=(*self.nodes[:i], node, *self.nodes[i + 1 :]))

    def with_rollout(self, rid: int, rollout: Rollout) -> State:
        return self._replace(rollouts=(*self.rollouts[:rid], rollout, *self.rollouts[rid + 1 :]))

    @property
    def broken(self) -> bool:
        versions = {node.version for node in self.nodes if node.mode is Mode.SERVE}
        versions |= {node.running for node in self.nodes if node.running != NOBODY}
        return len(versions) > 1


Step = tuple[str, State]


def first_state(nodes: int) -> State:
    return State(0, (1 << nodes) - 1, (), tuple(Node() for _ in range(nodes)))


# Deliberate mistakes. HARMLESS ones were expected to matter and do not: unanimity already protects.
MUTANTS = (
    "vote not durable",
    "commit on majority",
    "resume after vote",
    "vote before drain",
    "joiner serves at once",
    "evict on suspicion",
    "ghosts ignored",
    "activate without decision",
    "boot from cache",
    "lease expiry keeps statements",
    "outcome learned after eviction",
)
HARMLESS = ("two rollouts open at once",)


@dataclass(frozen=True)
class Model:
    nodes: int
    rollouts: int
    mutant: str = ""

    def steps(self, state: State) -> Iterator[Step]:
        """Everything that may happen next."""
        yield from self._coordinators(state)
        for i in range(self.nodes):
            yield from self._traffic(state, i)
            yield from self._follower(state, i)
            yield from self._life(state, i)
            yield from self._membership(state, i)

    def _coordinators(self, state: State) -> Iterator[Step]:
        may_open = not state.open or self.mutant == "two rollouts open at once"
        if len(state.rollouts) < self.rollouts and may_open:
            opened = Rollout(base=state.version, members=state.roster)
            yield "open", state._replace(rollouts=(*state.rollouts, opened))
        for rid in state.open:
            rollout = state.rollouts[rid]
            voted = rollout.votes & rollout.members
            enough = voted == rollout.members
            if self.mutant == "commit on majority":
                enough = voted.bit_count() * 2 > rollout.members.bit_count()
            if enough and rollout.members:
                committed = state.with_rollout(rid, rollout._replace(outcome=Outcome.COMMITTED))
                yield "commit", committed._replace(version=rid + 1)
            yield "abort", state.with_rollout(rid, rollout._replace(outcome=Outcome.ABORTED))

    def _traffic(self, state: State, i: int) -> Iterator[Step]:
        node = state.nodes[i]
        if node.mode is Mode.SERVE and node.running == NOBODY:
            yield "begin", state.with_node(i, node._replace(running=node.version))
        if node.running != NOBODY:
            yield "end", state.with_node(i, node._replace(running=NOBODY))

    def _follower(self, state: State, i: int) -> Iterator[Step]:
        node = state.nodes[i]
        match node.mode:
            case Mode.SERVE if node.voted == NOBODY:
                for rid, rollout in enumerate(state.rollouts):
                    if rollout.base == node.version:
                        yield "pause", state.with_node(i, node._replace(mode=Mode.PAUSED, paused=rid))
            case Mode.PAUSED:
                if node.running == NOBODY or self.mutant == "vote before drain":
                    yield "vote", self._vote(state, i, node, node.paused)
                yield "un-pause", state.with_node(i, node._replace(mode=Mode.SERVE, paused=NOBODY))
            case Mode.FENCED:
                yield from self._fenced(state, i)
            case Mode.BOOT:
                yield from self._booting(state, i)

    @staticmethod
    def _vote(state: State, i: int, node: Node, rid: int) -> State:
        rollout = state.rollouts[rid]
        fenced = state.with_node(i, node._replace(mode=Mode.FENCED, paused=NOBODY, voted=rid))
        return fenced.with_rollout(rid, rollout._replace(votes=rollout.votes | 1 << i))

    def _fenced(self, state: State, i: int) -> Iterator[Step]:
        node = state.nodes[i]
        rollout = state.rollouts[node.voted]
        mode = Mode.SERVE if node.lease or self.mutant == "outcome learned after eviction" else Mode.BOOT
        free = node._replace(mode=mode, voted=NOBODY)
        if rollout.outcome is Outcome.COMMITTED:
            yield "learn commit", state.with_node(i, free._replace(version=node.voted + 1))
        elif rollout.outcome is Outcome.ABORTED:
            yield "learn abort", state.with_node(i, free)
        if self.mutant == "resume after vote":
            yield "resume!", state.with_node(i, node._replace(mode=Mode.SERVE, voted=NOBODY))
        if self.mutant == "activate without decision" and rollout.votes & rollout.members == rollout.members:
            turned = node._replace(mode=Mode.SERVE, version=node.voted + 1, voted=NOBODY)
            yield "activate!", state.with_node(i, turned)

    def _booting(self, state: State, i: int) -> Iterator[Step]:
        node, bit = state.nodes[i], 1 << i
        awaited = all(state.rollouts[rid].members & bit for rid in state.open)
        if state.roster & bit and (awaited or self.mutant == "joiner serves at once"):
            served = Node(Mode.SERVE, state.version, node.running, NOBODY, NOBODY, lease=True)
            yield "serve", state.with_node(i, served)
        if self.mutant == "boot from cache":
            yield "serve!", state.with_node(i, node._replace(mode=Mode.SERVE, paused=NOBODY, voted=NOBODY))
        if self.mutant == "ghosts ignored" and node.running != NOBODY and state.roster & bit:
            for rid in state.open:
                if state.rollouts[rid].members & bit:
                    yield "vote!", self._vote(state, i, node._replace(version=state.version), rid)

    def _life(self, state: State, i: int) -> Iterator[Step]:
        node = state.nodes[i]
        if node.mode is Mode.DOWN:
            mode = Mode.BOOT if node.voted == NOBODY else Mode.FENCED
            yield "restart", state.with_node(i, node._replace(mode=mode, paused=NOBODY))
            return
        voted = NOBODY if self.mutant == "vote not durable" else node.voted
        yield "crash", state.with_node(i, node._replace(mode=Mode.DOWN, paused=NOBODY, voted=voted))

    def _membership(self, state: State, i: int) -> Iterator[Step]:
        node, bit = state.nodes[i], 1 << i
        if node.lease:
            mode = node.mode if node.mode in (Mode.DOWN, Mode.FENCED) else Mode.BOOT
            running = node.running if self.mutant == "lease expiry keeps statements" else NOBODY
            stopped = node._replace(mode=mode, running=running, paused=NOBODY, lease=False)
            yield "expire", state.with_node(i, stopped)
        if state.roster & bit and (not node.lease or self.mutant == "evict on suspicion"):
            without = state._replace(roster=state.roster & ~bit)
            for rid in state.open:
                rollout = state.rollouts[rid]
                without = without.with_rollout(rid, rollout._replace(members=rollout.members & ~bit))
            yield "evict", without
        if not state.roster & bit and node.mode in (Mode.BOOT, Mode.FENCED):
            joined = state._replace(roster=state.roster | bit)
            yield "join", joined.with_node(i, node._replace(mode=Mode.BOOT, paused=NOBODY, voted=NOBODY))


@dataclass
class Visit:
    """What an exhaustive visit found: `path` leads to a broken state; `stuck` states can never recover."""

    states: int = 0
    transitions: int = 0
    path: list[str] | None = None
    complete: bool = True
    stuck: int = field(default=0)


def visit(model: Model, limit: int = 1_000_000, *, recovery: bool = False) -> Visit:
    """Breadth first over every interleaving, so a path found is a shortest one."""
    first = first_state(model.nodes)
    parents: dict[State, tuple[State, str] | None] = {first: None}
    queue = [first]
    found = Visit()
    arrows: dict[State, list[State]] = {}
    for state in queue:
        targets = list(model.steps(state))
        found.transitions += len(targets)
        if recovery:
            for _, target in targets:
                arrows.setdefault(target, []).append(state)
        for label, target in targets:
            if target in parents:
                continue
            parents[target] = (state, label)
            if target.broken:
                found.states, found.path = len(parents), _path(parents, target)
                return found
            if len(parents) >= limit:
                found.states, found.complete = len(parents), False
                return found
            queue.append(target)
    found.states = len(parents)
    if recovery:
        found.stuck = len(parents) - len(_reaching(arrows, [state for state in queue if _whole(state)]))
    return found


def _path(parents: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    labels = []
    step = parents[state]
    while step is not None:
        state, label = step
        labels.append(label)
        step = parents[state]
    return labels[::-1]


def _whole(state: State) -> bool:
    serving = all(node.mode is Mode.SERVE and node.version == state.version for node in state.nodes)
    return serving and not state.open


def _reaching(arrows: dict[State, list[State]], goals: list[State]) -> dict[State, bool]:
    seen = dict.fromkeys(goals, True)
    stack = list(goals)
    while stack:
        for state in arrows.get(stack.pop(), ()):
            if state not in seen:
                seen[state] = True
                stack.append(state)
    return seen


# Rare steps are rare: a walk that expires leases all day never gets to the interesting states.
WEIGHTS = {"expire": 0.25, "evict": 0.5, "crash": 0.4, "abort": 0.25, "commit": 3.0}


def walk(model: Model, seed: int, steps: int) -> list[str] | None:
    """One random path; its labels when it ends in a broken state, None otherwise."""
    random = Random(seed)
    state, labels = first_state(model.nodes), []
    for _ in range(steps):
        choices = list(model.steps(state))
        if not choices:
            return None
        label, state = random.choices(choices, [WEIGHTS.get(name, 1.0) for name, _ in choices])[0]
        labels.append(label)
        if state.broken:
            return labels
    return None
