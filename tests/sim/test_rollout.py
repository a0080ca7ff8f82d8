"""The real cores of sync in the simulated world: 500 seeds with every fault, and every mutant of the cores caught.

Kept under a minute by a fixed range of seeds; `scripts/simulate --from N --seeds M` walks further at night.
"""

from __future__ import annotations

from collections import Counter

import pytest
from sim.flock import Flock
from sim.invariants import Broken, run_seed
from sim.mutants import MUTANTS, Mutant

SEEDS = 500
BATCHES = 10

# Situations a sweep must have met; a sweep that never saw a takeover says nothing about takeovers.
NEEDED = (
    "committed",
    "aborted",
    "conflict",
    "swapped, answer lost",
    "register outage",
    "vote present at boot",
    "fsync failed",
    "disk lost",
    "evicted by hand",
    "no_seat_yet",
    "ghost killed",
    "takeover",
    "takeover committed",
    "apply_failed",
)

_marks: Counter[str] = Counter()


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_flock_keeps_its_invariants_whatever_breaks(batch: int) -> None:
    marks: Counter[str] = Counter()
    for seed in range(batch * SEEDS // BATCHES, (batch + 1) * SEEDS // BATCHES):
        marks.update(run_seed(seed).marks)
    # Each batch of 50 seeds meets the common situations; the rare ones are asked for over all of them below.
    assert marks["committed"] > 50
    assert marks["aborted"] > 50
    assert marks["takeover"] > 0


def test_the_sweep_meets_every_situation_it_is_meant_for() -> None:
    marks: Counter[str] = Counter()
    for seed in range(1000, 1000 + SEEDS):
        marks.update(run_seed(seed).marks)
        if all(marks[name] for name in NEEDED):
            break
    assert [name for name in NEEDED if not marks[name]] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught_within_500_seeds(mutant: Mutant) -> None:
    for seed in [mutant.first, *range(SEEDS)]:
        try:
            run_seed(seed, mutant.flock(seed))
        except Broken:
            return
    pytest.fail(f"nobody noticed the mutant: {mutant.name}")


def test_the_same_seed_replays_exactly() -> None:
    def trace(seed: int) -> list[str]:
        flock = Flock(seed)
        lines: list[str] = []
        flock.world.trace = lines.append
        run_seed(seed, flock)
        return lines

    first = trace(5)
    assert first == trace(5)
    assert first != trace(6)


def test_a_failure_names_the_command_that_replays_it() -> None:
    mutant = next(m for m in MUTANTS if m.name == "vote before drain")
    seed, text = next(filter(None, (_failure(mutant, seed) for seed in range(SEEDS))))
    assert text.endswith(f"replay: scripts/simulate --seed {seed} --trace")


def _failure(mutant: Mutant, seed: int) -> tuple[int, str] | None:
    try:
        run_seed(seed, mutant.flock(seed))
    except Broken as broken:
        return seed, str(broken)
    return None
