"""Where does a statement go, and how does its answer come together: `plan`, a pure function of its arguments."""

from __future__ import annotations

from node.routing.outcome import (
    Aggregate,
    Combine,
    CopyProgram,
    InsertSelectProgram,
    MergeProgram,
    NeedLookup,
    Outcome,
    Plan,
    Program,
    Refusal,
    Road,
    Role,
    SortKey,
    SplitPart,
    SplitProgram,
    Values,
)

__all__ = [
    "Aggregate",
    "Combine",
    "CopyProgram",
    "InsertSelectProgram",
    "MergeProgram",
    "NeedLookup",
    "Outcome",
    "Plan",
    "Program",
    "Refusal",
    "Road",
    "Role",
    "SortKey",
    "SplitPart",
    "SplitProgram",
    "Values",
]
