"""Ctrl-C at the worst moments: a process that has just been born, and nobody has noted it yet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from node.embedded.cluster import own_workspace
from node.embedded.stopping import Stopped, postponed, stop_on_signals


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_is_an_exception_and_only_the_first_one() -> None:
    stop_on_signals()
    with pytest.raises(Stopped, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)


def test_a_postponed_signal_is_raised_after_the_outermost_block() -> None:
    stop_on_signals()
    reached = []
    with pytest.raises(Stopped, match="SIGINT"), postponed():
        with postponed():
            signal.raise_signal(signal.SIGINT)
            reached.append("inner")
        reached.append("outer")
    assert reached == ["inner", "outer"]


def test_no_process_is_left_behind_that_was_being_born(monkeypatch: pytest.MonkeyPatch) -> None:
    born: list[subprocess.Popen[bytes]] = []

    class Interrupted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            born.append(self)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped), own_workspace() as workspace:
        monkeypatch.setattr(subprocess, "Popen", Interrupted)
        workspace.spawn([sys.executable, "-c", "import signal; signal.pause()"], output=subprocess.DEVNULL)
    (process,) = born
    assert process.wait(30) != 0
    assert not workspace.path.exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
