"""scripts/bench as people use it, with everything so small that the numbers mean nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import node

HOME = str(Path(node.__file__).resolve().parents[1])

SMALL = ["--clients", "2", "--duration", "1", "--repetitions", "1", "--scale", "1", "--targets", "direct,ours"]
WORKS = ["--works", "select,point,large,copy-in,copy-out,idle,storm", "--modes", "extended"]
SIZES = ["--megabytes", "2", "--idle-clients", "20", "--storm-clients", "10", "--latency-sampling", "1"]


@pytest.mark.timeout(240)
def test_every_kind_of_work_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, "-P", "-m", "node.embedded.bench", *SMALL, *WORKS, *SIZES, "--lanes", "off", "--json", file],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": HOME},
        timeout=220,
    )
    assert done.returncode == 0, done.stdout
    assert "not measured" not in done.stdout
    rows = {row["work"]: row["targets"] for row in json.loads(file.read_text())["rows"]}
    assert set(rows) == {"select", "point", "large", "copy-in", "copy-out", "idle", "storm"}
    assert {name for targets in rows.values() for name in targets} == {"direct", "ours", "ours-sharded"}
    for metric in ("tps", "cpu_us", "p50_ms", "p99_ms", "p999_ms"):
        assert rows["select"]["ours"]["median"][metric] > 0
    assert "cpu_us" not in rows["select"]["direct"]["median"]
    for work in ("large", "copy-in", "copy-out"):
        assert rows[work]["ours"]["median"]["mb_per_s"] > 0
    assert "direct" not in rows["idle"]
    assert rows["idle"]["ours"]["median"]["p50_ms"] > 0
    assert rows["storm"]["ours"]["median"]["all_in_s"] > 0
    assert rows["select"]["ours"]["note"] == "lanes=off"
    for text in ("bytes/client", "lexer's share", "pgmurmur (lanes=off)"):
        assert text in done.stdout
