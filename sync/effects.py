"""What the cores ask their shell to do. Performed in order; if Persist fails, nothing after it happens and the process
stops promising. Long work answers with an event: the name is in each docstring."""

from __future__ import annotations

from dataclasses import dataclass

from sync.changes import Change
from sync.messages import MemberRow, Message
from sync.promise import Applied, Promise
from sync.version import ConfigVersion

EVERYTHING = ("*",)  # the scope that names all databases


@dataclass(frozen=True, slots=True)
class SendTo:
    node: str
    message: Message


@dataclass(frozen=True, slots=True)
class Persist:
    """fsync the record before anything after it in the list."""

    promise: Promise


@dataclass(frozen=True, slots=True)
class Read:
    """A linearizable read that begins now. Answer: `saw(reading)`, or none when the register is unreachable."""


@dataclass(frozen=True, slots=True)
class Amend:
    """Perform a change on the cell. Answer: `amended(change, ok, reading, reason)`; ok is None when nobody knows."""

    change: Change


@dataclass(frozen=True, slots=True)
class Obtain:
    """Have the document in the own store. Answer: `obtained(digest, ok)`."""

    digest: str


@dataclass(frozen=True, slots=True)
class Validate:
    """Obtain and dry-run a document. Answer: `validated(rid, target, report)`."""

    rid: int
    target: str
    asked_by: str


@dataclass(frozen=True, slots=True)
class Pause:
    """No new transaction may start in the scope from this instant."""

    scope: tuple[str, ...]
    rid: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until nothing planned under the served version runs, older lives of this node included.
    Answer: `drained(rid, attempt)` or `drain_failed(rid, attempt, reason)`."""

    scope: tuple[str, ...]
    rid: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Resume:
    scope: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """Swap to this version's document. Answer: `applied(version, error)`."""

    version: ConfigVersion


@dataclass(frozen=True, slots=True)
class Serving:
    """The member serves this version; the first one ends the boot."""

    applied: Applied


@dataclass(frozen=True, slots=True)
class RefuseToStart:
    """The boot cannot end well: the register's version and the local document disagree, or the register is broken."""

    reason: str
    version: ConfigVersion | None


@dataclass(frozen=True, slots=True)
class Left:
    """The seat is given up; the process may exit."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something a person has to know. One line, stable event word first."""

    event: str
    detail: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The answer to whoever asked for the rollout, given once. outcome: committed, aborted or unknown."""

    token: str
    outcome: str
    version: int | None
    target: str
    reason: str
    rid: int
    rows: tuple[MemberRow, ...]


Effect = (
    SendTo
    | Persist
    | Read
    | Amend
    | Obtain
    | Validate
    | Pause
    | Drain
    | Resume
    | Apply
    | Serving
    | RefuseToStart
    | Left
    | Alarm
    | Finish
)
