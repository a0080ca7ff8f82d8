"""The abstract protocol: every interleaving for two nodes, and each mistake caught by a random walk."""

from __future__ import annotations

import pytest
from sim.model import HARMLESS, MUTANTS, Model, visit, walk


def test_two_nodes_and_one_rollout_are_safe_in_every_state_and_can_always_recover() -> None:
    found = visit(Model(nodes=2, rollouts=1), recovery=True)
    assert found.path is None
    assert found.complete
    assert found.stuck == 0
    assert found.states == 5876
    assert found.transitions == 32396


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_mistake_is_caught_by_a_walk(mutant: str) -> None:
    assert any(walk(Model(3, 2, mutant), seed, 250) for seed in range(500)), f"no walk noticed: {mutant}"


@pytest.mark.parametrize("mutant", HARMLESS)
def test_unanimity_alone_protects_against_two_open_rollouts(mutant: str) -> None:
    assert not any(walk(Model(2, 2, mutant), seed, 200) for seed in range(30))


def test_the_protocol_itself_survives_walks_of_three_nodes() -> None:
    assert not any(walk(Model(3, 3), seed, 250) for seed in range(30))


def test_a_shortest_path_to_a_mistake_reads_like_a_story() -> None:
    found = visit(Model(2, 1, "vote before drain"))
    assert found.path is not None
    assert found.path[-1] in ("learn commit", "serve")
    assert found.path.count("vote") == 2
