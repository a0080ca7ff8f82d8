"""A hundred thousand replies through one node while servers die and clients leave: every byte is its owner's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from node.embedded.identity import main

REPLIES = 100_000


def load(tmp_path: Path, *options: str) -> dict[str, dict[str, int]]:
    file = tmp_path / "summary.json"
    status = main([f"--json={file}", *options])  # prints the seed, and everything about a byte that is wrong
    assert status == 0
    said: dict[str, dict[str, int]] = json.loads(file.read_text())
    assert said["failures"] == []
    assert said["wrong rows"] == []
    assert said["foreign bytes"] == 0
    assert set(said["by protocol"]) == {"simple", "extended", "prepared"}
    return said


@pytest.mark.timeout(300)
def test_no_client_receives_a_byte_that_is_not_its_own(tmp_path: Path) -> None:
    said = load(tmp_path, f"--replies={REPLIES}", "--clients=500", "--huge-mb=10")
    assert said["replies"] >= REPLIES
    happened = {"cancel", "disconnect", "huge", "slow reader", "terminate", "restart", "reconnect", "pause"}
    assert happened <= set(said["faults"])
    assert said["explained errors"]["57014"] > 0
    assert not [code for code in said["explained errors"] if " then " in code], "one dead server, one error"


@pytest.mark.timeout(120)
def test_without_faults_there_are_no_errors(tmp_path: Path) -> None:
    said = load(tmp_path, "--replies=5000", "--clients=100", "--faults=none")
    assert said["explained errors"] == {}
    assert said["rows uncertain"] == 0


@pytest.mark.timeout(120)
def test_across_shards_too(tmp_path: Path) -> None:
    said = load(tmp_path, "--replies=5000", "--clients=100", "--faults=cancel,disconnect,terminate", "--sharded")
    assert {"cancel", "terminate"} <= set(said["faults"])


@pytest.mark.timeout(120)
def test_no_read_notices_that_its_server_died(tmp_path: Path) -> None:
    said = load(tmp_path, "--replies=60000", "--clients=64", "--faults=terminate,restart", "--strict-reads")
    assert said["faults"]["terminate"] > 0
    assert said["node"]["POOLS"]["lane_resent_lost"] > 0  # type: ignore[index]
