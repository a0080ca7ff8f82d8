"""Turns become medians, spreads and JSON; what failed never becomes a number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.embedded.reports import report, turn

from node.embedded.bench.results import (
    Row,
    Sample,
    Unreadable,
    as_json,
    family,
    fold_candidates,
    label,
    read,
)


def test_a_report_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(as_json(report()))
    assert read(file) == report()


def test_json_has_medians_and_errors_side_by_side() -> None:
    row = next(row for row in json.loads(as_json(report()))["rows"] if row["mode"] == "prepared")
    assert row["targets"]["ours"]["median"]["tps"] == 6000.0
    assert row["targets"]["pgbouncer"] == {
        "median": {},
        "turns": [],
        "errors": ["no prepared statements here"] * 2,
        "note": "",
    }


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 99}', '{"format": 1}', '{"format": 1, "settings": 1, "machine": 1, "rows": [1]}'],
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(Unreadable):
        read(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match="cannot read results"):
        read(tmp_path / "nothing.json")


def test_a_spread_needs_two_turns() -> None:
    assert Sample([turn(100.0)]).spread("tps") is None
    assert Sample([turn(90.0), turn(100.0), turn(130.0)]).spread("tps") == pytest.approx(0.2)
    assert Sample().median("tps") is None
    assert Sample([turn(5.0)]).median("cpu_us") is None


def test_the_best_pool_size_counts_and_the_others_stay() -> None:
    row = Row(
        "select",
        "simple",
        16,
        {
            "direct": Sample([turn(9.0)]),
            "pgbouncer@4": Sample([turn(10.0), turn(30.0)]),
            "pgbouncer@20": Sample([turn(12.0), turn(14.0)]),
            "pgbouncer@99": Sample([], ["too many"]),
        },
    )
    fold_candidates(row)
    assert row.samples["pgbouncer"].values("tps") == [10.0, 30.0]
    assert row.samples["pgbouncer"].note == "pool 4"
    assert {"pgbouncer@4", "pgbouncer@20", "pgbouncer@99"} < set(row.samples)


def test_when_every_pool_size_fails_the_error_stays() -> None:
    row = Row("select", "simple", 16, {"pgbouncer@4": Sample([], ["no"]), "pgbouncer@8": Sample([], ["no"])})
    fold_candidates(row)
    assert row.samples["pgbouncer"] == Sample([], ["no"], "")


def test_targets_belong_to_families() -> None:
    assert [family(name) for name in ("ours", "ours-sharded", "ours:lanes=2")] == ["ours"] * 3
    assert label("ours:lanes=off") == "pgmurmur, lanes=off"
    assert label("pgdog-sharded") == "PgDog, sharded"
    assert label("direct") == "PostgreSQL, direct"
