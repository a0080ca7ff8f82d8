"""What a rollout tells whoever asked for it, and the rows of SHOW ROLLOUT."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sync.messages import MemberRow
from sync.rollout import Cell, Phase


@dataclass(frozen=True, slots=True)
class Outcome:
    """`outcome`: committed, aborted (nothing changed) or unknown (how to find out is in `reason`).

    `opened` is False when the rollout was refused before anything opened: invalid document, another one open, dry run.
    `errors` lists what this node's own validation found.
    """

    outcome: str
    version: int | None
    digest: str
    reason: str | None
    nodes: tuple[MemberRow, ...] = ()
    errors: tuple[str, ...] = ()
    rid: int = 0
    dry_run: bool = False

    @property
    def opened(self) -> bool:
        return self.rid > 0

    @property
    def exit_status(self) -> int:
        """0 committed, or a dry run that everybody accepts; 1 aborted; 3 not known yet."""
        if self.dry_run:
            return 0 if self.nodes and all(row.ack for row in self.nodes) else 1
        return {"committed": 0, "aborted": 1}.get(self.outcome, 3)

    def as_json(self) -> dict[str, Any]:
        """The object of `rollout --json`."""
        return {
            "outcome": self.outcome,
            "version": self.version,
            "digest": self.digest,
            "reason": self.reason,
            "nodes": [
                {
                    "node": row.node,
                    "version": row.version,
                    "paused_ms": row.paused_ms,
                    "drained_ms": row.drained_ms,
                    "ack": bool(row.ack),
                    "reason": row.reason,
                }
                for row in self.nodes
            ],
        }


COLUMNS = (
    "id",
    "version",
    "phase",
    "coordinator",
    "started",
    "node",
    "state",
    "paused_ms",
    "drained_ms",
    "reason",
)


def status_rows(cell: Cell | None, known: tuple[MemberRow, ...]) -> list[dict[str, Any]]:
    """One row per member of the open rollout, else of the last one; `idle` when there was none. Values by COLUMNS.

    `version` is the one the rollout makes or made, null after an abort; `started` is UTC text.
    """
    if cell is None:
        return []
    head: dict[str, Any]
    if cell.roll is not None:
        roll = cell.roll
        head = _head(roll.rid, cell.cur.n + 1, roll.phase, roll.coordinator, roll.opened_at_utc)
        reason = None
    elif cell.last is not None:
        last = cell.last
        head = _head(last.rid, last.n or None, last.phase, last.coordinator, last.opened_at_utc)
        reason = last.reason or None
    else:
        head = _head(None, cell.cur.n, Phase.IDLE, None, None)
        reason = None
    told = {row.node: row for row in known}
    names = [*told, *(name for name in cell.roster.names if name not in told)]
    return [{**head, **_tail(told.get(name, MemberRow(name, "")), reason)} for name in sorted(names)]


def _head(
    rid: int | None, version: int | None, phase: Phase, coordinator: str | None, started: float | None
) -> dict[str, Any]:
    text = None
    if started is not None:
        text = datetime.fromtimestamp(started, UTC).isoformat(sep=" ", timespec="milliseconds")
    return {"id": rid, "version": version, "phase": phase.value, "coordinator": coordinator, "started": text}


def _tail(row: MemberRow, reason: str | None) -> dict[str, Any]:
    return {
        "node": row.node,
        "state": row.state or None,
        "paused_ms": row.paused_ms,
        "drained_ms": row.drained_ms,
        "reason": row.reason or reason,
    }
