"""`scripts/bench identity` belongs to another module, which is looked up when it is asked for."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from node.embedded.bench.__main__ import IDENTITY, main


def test_the_words_after_identity_are_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[list[str]] = []

    def run(arguments: list[str]) -> int:
        heard.append(arguments)
        return 3

    module = ModuleType(IDENTITY)
    monkeypatch.setattr(module, "main", run, raising=False)
    monkeypatch.setitem(sys.modules, IDENTITY, module)
    assert main(["identity", "--replies", "10"]) == 3
    assert heard == [["--replies", "10"]]


def test_without_the_module_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, IDENTITY, None)
    assert main(["identity"]) == 1
    assert "has no identity load" in capsys.readouterr().err
