"""Conversations come out the same whole and torn at every byte: what a chunk is means nothing to a session."""

from __future__ import annotations

import pytest
from fakes.session_stage import Stage
from integration.session_cases import CASES, Say


def transcript(steps: list[Say], cut: int, *, size: int = 0) -> bytes:
    """What a client reads whose steps are each torn at byte `cut`, or into pieces of `size` bytes."""
    stage = Stage(prepared_limit=2)
    session, heard = stage.client()
    for step in steps:
        data = step.data
        chunks = [data[at : at + size] for at in range(0, len(data), size)] if size else [data[:cut], data[cut:]]
        for chunk in filter(None, chunks):
            session.from_client(chunk)
            stage.settle()
    session.client_lost()
    stage.settle()
    assert len(stage.pool.core.idle) == 1
    assert not stage.pool.out_of_sync
    return bytes(heard)


@pytest.mark.parametrize("name", CASES)
def test_a_conversation_is_the_same_torn_at_every_byte(name: str) -> None:
    steps = CASES[name]
    whole = transcript(steps, 0)
    for cut in range(1, max(len(step.data) for step in steps)):
        assert transcript(steps, cut) == whole, cut
    assert transcript(steps, 0, size=1) == whole
