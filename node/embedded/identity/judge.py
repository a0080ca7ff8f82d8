"""Who owns which byte, seen from one client: what arrives must be its own answers, in order, to the byte, no more.

The usual answer is compared in one go with the bytes that were computed beforehand. Only what differs is taken apart:
an answer may be cut short by an error that a fault explains, and by nothing else.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from node.embedded.identity import wire

MARK = re.compile(rb"c(\d+)s(\d+):")
"""Every value a client selects begins with its own number and that of its unit."""
MESSAGE_LIMIT_BYTES = 256 << 20
"""A longer message than any unit asks for is a length that was misread."""


@dataclass(slots=True, eq=False)
class Unit:
    """What ends in one ReadyForQuery."""

    kind: str
    protocol: str
    """simple, extended or prepared: what the summary counts by."""
    sent: bytes
    expected: bytes
    others: tuple[bytes, ...] = ()
    """Answers that are as right as `expected`."""
    plain_read: bool = True
    """A fast read in autocommit: behind a dead server it must be sent again, unseen."""
    in_transaction: bool = False
    """An error leaves a failed transaction behind."""
    opens_transaction: bool = False
    """By itself, so an error may leave a failed transaction behind or not."""
    writes: int = 0
    """The row of the ledger that is written once this has been answered; 0: none."""
    prepares: int = -1
    """The number of the statement that exists once this has been answered."""
    closes: int = -1
    then: Unit | None = None
    """The next step of its transaction."""
    if_failed: bytes = b""
    """What the unit right behind may answer too when a fault has ended this one."""
    at_least: int = 0
    """The smallest value of a counter that may be seen, of `DIGITS` digits, at `value_at`; 0: there is no counter."""
    value_at: int = 0
    torn: bool = False
    """Sent in several segments."""

    @property
    def settles(self) -> bool:
        """Does its end mean something for what its client does next?"""
        return self.kind in ("prepare", "close", "tick") or self.writes != 0 or self.then is not None


DIGITS = 12


class Wrong(Exception):
    """A byte that no rule explains: what the whole run is about."""

    def __init__(self, what: str, unit: Unit | None, got: bytes, offset: int) -> None:
        super().__init__(what)
        self.what = what
        self.unit = unit
        self.got = got
        self.offset = offset
        """Into `got`, where the first wrong message begins."""


Explain = Callable[[Unit | None, str, bool], bool]
"""(unit, SQLSTATE, fatal?) -> does a fault that happened explain it?"""


@dataclass(slots=True)
class Judge:
    """One connection's answers. `receive` returns the units that are over, with the SQLSTATE that ended each or ''."""

    explain: Explain
    owed: deque[Unit] = field(default_factory=deque)
    ended: str = ""
    """The SQLSTATE of the FATAL error after which nothing but the end of the connection may come."""
    _position: int = 0
    """Bytes of the first owed answer that have come and are right."""
    _astray: bytes = b""
    """All bytes since the first owed unit's beginning, once they are not simply the expected ones."""

    def receive(self, data: bytes) -> list[tuple[Unit, str]]:
        """Raises Wrong."""
        over: list[tuple[Unit, str]] = []
        owed = self.owed
        while data:
            if self.ended:
                self._after_the_end(data)
                return over
            if self._astray or not owed:
                data = self._look_closely(data, over)
                continue
            unit = owed[0]
            expected, position = unit.expected, self._position
            missing = len(expected) - position
            if len(data) < missing:
                if not expected.startswith(data, position):
                    self._go_astray(expected[:position] + data)
                    data = self._look_closely(b"", over)
                    continue
                self._position = position + len(data)
                return over
            if data != expected and not data.startswith(expected[position:] if position else expected):
                self._go_astray(expected[:position] + data)
                data = self._look_closely(b"", over)
                continue
            owed.popleft()
            self._position = 0
            over.append((unit, ""))
            data = data[missing:]
        return over

    @property
    def got(self) -> bytes:
        """What has come of the first owed answer."""
        return self._astray or (self.owed[0].expected[: self._position] if self.owed else b"")

    # -- inside ----------------------------------------------------------------------------------------------------

    def _go_astray(self, gathered: bytes) -> None:
        self._astray = gathered
        self._position = 0

    def _look_closely(self, data: bytes, over: list[tuple[Unit, str]]) -> bytes:
        """Takes whole messages apart; what is left over after the unit's end, or b"" when more must come."""
        got = self._astray + data
        self._astray = got
        unit = self.owed[0] if self.owed else None
        if unit is not None:
            for right in (unit.expected, *unit.others):
                if got.startswith(right):
                    return self._over(unit, "", got[len(right) :], over)
                if right.startswith(got):
                    return b""
            if unit.at_least and len(got) >= len(unit.expected):
                return self._counter(unit, got, over)
        at, expected = 0, b"" if unit is None else unit.expected
        while True:
            size = _message_size(got, at, unit)
            if size == 0:
                return b""
            body_end = at + size
            letter = got[at : at + 1]
            if unit is not None and any(r.startswith(got[at:body_end], at) for r in (expected, *unit.others)):
                at = body_end
                continue
            if unit is not None and unit.at_least and len(unit.expected) > body_end and letter == b"D":
                at = body_end  # judged once the answer is whole
                continue
            if letter != b"E":
                raise Wrong(_difference(unit, got, at, body_end), unit, got, at)
            fields = wire.error_fields(got[at + 5 : body_end])
            sqlstate, fatal = fields.get("C", "?????"), fields.get("S") in ("FATAL", "PANIC")
            if (unit is None and not fatal) or not self.explain(unit, sqlstate, fatal):
                said = f"{fields.get('S')} {sqlstate}: {fields.get('M')}"
                raise Wrong(f"an error that no fault explains ({said})", unit, got, at)
            if fatal:
                self.ended = sqlstate
                self._astray = b""
                if len(got) > body_end:
                    self._after_the_end(got[body_end:])
                return b""
            assert unit is not None
            rest = got[body_end:]
            if unit.opens_transaction and rest.startswith(wire.READY_FAILED):
                unit.in_transaction = True
            ready = wire.READY_FAILED if unit.in_transaction else wire.READY
            if len(rest) < len(ready) and ready.startswith(rest):
                return b""
            if not rest.startswith(ready):
                raise Wrong(f"after {sqlstate} comes no ReadyForQuery with {chr(ready[-1])}", unit, got, body_end)
            return self._over(unit, sqlstate, rest[len(ready) :], over)

    def _after_the_end(self, data: bytes) -> None:
        """PostgreSQL says nothing more; one more FATAL error about the same fault is let pass, and counted."""
        last = data[:1] == b"E" and int.from_bytes(data[1:5], "big") + 1 == len(data)
        fields = wire.error_fields(data[5:]) if last else {}
        sqlstate = fields.get("C", "")
        if not last or " " in self.ended or fields.get("S") != "FATAL" or not self.explain(None, sqlstate, True):
            raise Wrong(f"bytes after the FATAL error {self.ended}", None, data, 0)
        self.ended += f" then {sqlstate}"

    def _counter(self, unit: Unit, got: bytes, over: list[tuple[Unit, str]]) -> bytes:
        end = len(unit.expected)
        start, stop = unit.value_at, unit.value_at + DIGITS
        if got[:start] == unit.expected[:start] and got[stop:end] == unit.expected[stop:]:
            value = int(got[start:stop]) if got[start:stop].isdigit() else -1
            if value >= unit.at_least:
                return self._over(unit, "", got[end:], over)
            what = f"a counter that stood at {unit.at_least} before this was asked is read as {value}"
            raise Wrong(what, unit, got, start)
        unit.at_least = 0  # then it is no counter's answer at all
        return self._look_closely(b"", over)

    def _over(self, unit: Unit, sqlstate: str, rest: bytes, over: list[tuple[Unit, str]]) -> bytes:
        self.owed.popleft()
        self._astray = b""
        over.append((unit, sqlstate))
        if sqlstate and unit.if_failed and self.owed:
            self.owed[0].others = (unit.if_failed,)
        return rest


def _message_size(got: bytes, at: int, unit: Unit | None) -> int:
    """Of the message at `at` with its letter; 0: not all of it is here."""
    if len(got) < at + 5:
        return 0
    length = int.from_bytes(got[at + 1 : at + 5], "big")
    if not 4 <= length <= MESSAGE_LIMIT_BYTES:
        raise Wrong(f"a message of {length} bytes", unit, got, at)
    return length + 1 if len(got) > at + length else 0


def _difference(unit: Unit | None, got: bytes, at: int, end: int) -> str:
    letter = chr(got[at])
    if unit is None:
        return f"a message {letter} although nothing is owed"
    rest = unit.expected[at:]
    if not rest:
        return f"a message {letter} after the end of the answer"
    if rest[0] != got[at]:
        return f"a message {letter} where {chr(rest[0])} is due"
    return f"a message {letter} that differs"


def strangers(got: bytes, client: int) -> set[int]:
    """The clients other than this one whose marks are in the bytes."""
    return {int(number) for number, _ in MARK.findall(got)} - {client}
