"""What was measured: turns of a target, gathered to rows, written to JSON and read back.

A turn is a mapping from a metric to a number; the unit is in the metric's name. A turn that failed leaves an error and
no numbers, so it can never be taken for a zero.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
"""Of the JSON file; a reader refuses what it does not know."""

DIRECT, PGBOUNCER, PGDOG, OURS = "direct", "pgbouncer", "pgdog", "ours"
FAMILIES = (DIRECT, PGBOUNCER, PGDOG, OURS)

LABELS = {DIRECT: "PostgreSQL, direct", PGBOUNCER: "PgBouncer", PGDOG: "PgDog", OURS: "pgmurmur"}


class Unreadable(ValueError):
    """A file is not a result of ours; the text says why."""


@dataclass
class Sample:
    """All turns of one target in one row."""

    turns: list[dict[str, float]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    note: str = ""
    """What the table says beside the target's name, such as the pool size that was best."""

    def values(self, metric: str) -> list[float]:
        return [turn[metric] for turn in self.turns if metric in turn]

    def median(self, metric: str) -> float | None:
        values = self.values(metric)
        return statistics.median(values) if values else None

    def spread(self, metric: str) -> float | None:
        """Half the distance from the smallest to the largest turn, as a share of the median; None for one turn."""
        values = self.values(metric)
        if len(values) < 2 or not statistics.median(values):
            return None
        return (max(values) - min(values)) / 2 / statistics.median(values)

    def metrics(self) -> list[str]:
        return list(dict.fromkeys(metric for turn in self.turns for metric in turn))


@dataclass
class Row:
    """One work, in one protocol, with so many clients, through every target."""

    work: str
    mode: str
    clients: int
    samples: dict[str, Sample] = field(default_factory=dict)


@dataclass
class Report:
    """A whole run. `profiles` and `lexing` are there when they were asked for."""

    settings: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    profiles: list[dict[str, Any]] = field(default_factory=list)
    lexing: list[dict[str, Any]] = field(default_factory=list)


def family(target: str) -> str:
    """ours-sharded, ours:lanes=off → ours."""
    return next((name for name in FAMILIES if target == name or target.startswith((f"{name}-", f"{name}:"))), target)


def label(target: str) -> str:
    """For people: pgmurmur, sharded."""
    name = family(target)
    rest = target[len(name) :].lstrip("-:").replace(":", ", ").replace("-", ", ")
    return f"{LABELS.get(name, name)}{', ' if rest else ''}{rest}"


def fold_candidates(row: Row, prefix: str = f"{PGBOUNCER}@", into: str = PGBOUNCER, metric: str = "tps") -> None:
    """Of several pool sizes (pgbouncer@4, pgbouncer@20) the best by median counts as pgbouncer; all of them stay."""
    candidates = {name: sample for name, sample in row.samples.items() if name.startswith(prefix)}
    if not candidates:
        return

    def rank(name: str) -> float:
        return candidates[name].median(metric) or 0.0

    best = max(candidates, key=rank)
    chosen = candidates[best]
    size = best.removeprefix(prefix)
    row.samples[into] = Sample(chosen.turns, chosen.errors, f"pool {size}" if chosen.turns else "")


def as_json(report: Report) -> str:
    rows = [
        {
            "work": row.work,
            "mode": row.mode,
            "clients": row.clients,
            "targets": {
                name: {
                    "median": {metric: sample.median(metric) for metric in sample.metrics()},
                    "turns": sample.turns,
                    "errors": sample.errors,
                    "note": sample.note,
                }
                for name, sample in row.samples.items()
            },
        }
        for row in report.rows
    ]
    whole = {
        "format": FORMAT,
        "settings": report.settings,
        "machine": report.machine,
        "rows": rows,
        "profiles": report.profiles,
        "lexing": report.lexing,
    }
    return json.dumps(whole, indent=2) + "\n"


def read(path: Path) -> Report:
    """Raises Unreadable."""
    try:
        whole = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot read results from {path}: {error}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise Unreadable(f"{path} is not a result of scripts/bench --json (format {FORMAT})")
    try:
        return Report(
            settings=whole["settings"],
            machine=whole["machine"],
            rows=[_row(row) for row in whole["rows"]],
            profiles=whole.get("profiles", []),
            lexing=whole.get("lexing", []),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise Unreadable(f"{path} is a damaged result: {type(error).__name__} {error}") from error


def _row(row: Mapping[str, Any]) -> Row:
    samples = {
        name: Sample([dict(turn) for turn in found["turns"]], list(found["errors"]), found.get("note", ""))
        for name, found in row["targets"].items()
    }
    return Row(row["work"], row["mode"], int(row["clients"]), samples)


def percentile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all do not exceed. `ordered` ascends, not empty."""
    rank = -(-len(ordered) * share // 1)  # ceil
    return ordered[min(len(ordered), max(1, int(rank))) - 1]
