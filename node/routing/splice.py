"""INSERT ... VALUES taken apart as text: rows are cut out where the lexer says that they begin and end.

Taking the parsed statement apart and writing it again costs a hundred microseconds a row, this about two. What is not
surely understood is left to that (`rows_of` says None).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from node.routing.lexed import BACKSLASH, ORACLE, Lexed
from node.routing.lexer import trace

_MARK = re.compile(rb"\S")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one INSERT in its text: `spans` from each one's ( to behind its ). `parameters`: place and number of
    every $n, in order."""

    sql: bytes
    end: int
    spans: tuple[tuple[int, int], ...]
    parameters: tuple[tuple[int, int, int], ...]

    def only(self, rows: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """The statement with these rows (from 0, ascending) alone, its parameters numbered from 1 without gaps; and
        which (from 0) each of them was."""
        spans = self.spans
        pieces = [(0, spans[0][0]), *(spans[row] for row in rows), (spans[-1][1], self.end)]
        numbers: list[int] = []
        if self.parameters:
            inside = self._inside(pieces)
            numbers = sorted({number for _, _, number in inside})
            order = {number: place + 1 for place, number in enumerate(numbers)}
            texts = []
            left = iter([*inside, (self.end, self.end, 0)])
            start, end, number = next(left)
            for first, last in pieces:
                text = b""
                while start < last:
                    text += self.sql[first:start] + b"$%d" % order[number]
                    first = end
                    start, end, number = next(left)
                texts.append(text + self.sql[first:last])
        else:
            texts = [self.sql[first:last] for first, last in pieces]
        whole = texts[0] + b", ".join(texts[1:-1]) + texts[-1]
        return whole.decode(), tuple(number - 1 for number in numbers)

    def _inside(self, pieces: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
        found = []
        left = iter(pieces)
        first, last = next(left)
        for parameter in self.parameters:
            while parameter[0] >= last:
                first, last = next(left, (self.end, self.end + 1))
            if first <= parameter[0]:
                found.append(parameter)
        return found


def rows_of(lexed: Lexed) -> Rows | None:
    """None when the text is more than one INSERT ... VALUES, or not surely that."""
    if lexed.statements != 1 or lexed.broken or lexed.flags & (BACKSLASH | ORACLE) or lexed.first != b"INSERT":
        return None
    sql = lexed.sql
    end = lexed.spans()[0][1]
    spans: list[tuple[int, int]] = []
    parameters: list[tuple[int, int, int]] = []
    depth = opened = at = 0
    within = False  # behind VALUES
    over = False  # behind the last row
    separated = True  # a row may begin: behind VALUES or a comma
    gaps: dict[bytes, tuple[tuple[int, bytes], ...]] = {}  # what stands between tokens is mostly the same
    for kind, start, stop in [*trace(sql, lexed.flags), ("", end, end)]:
        gap = sql[at : min(start, end)]
        marks = gaps.get(gap)
        if marks is None:
            marks = gaps[gap] = tuple((found.start(), found.group()) for found in _MARK.finditer(gap))
        for place, mark in marks:
            if mark == b"(":
                if depth == 0 and within and not over:
                    if not separated:
                        return None
                    opened = at + place
                depth += 1
            elif mark == b")":
                depth -= 1
                if depth < 0:
                    return None
                if depth == 0 and within and not over:
                    spans.append((opened, at + place + 1))
                    separated = False
            elif depth == 0 and within and not over:
                if mark != b"," or separated:
                    return None
                separated = True
        at = stop
        if kind == "p":
            parameters.append((start, stop, int(sql[start + 1 : stop])))
        if kind and kind != "c" and depth == 0:
            if within:
                if separated or (not over and sql[start:stop].lower() not in (b"on", b"returning")):
                    return None
                over = True
            elif kind == "w" and sql[start:stop].lower() == b"values":
                within = True
    return Rows(sql, end, tuple(spans), tuple(parameters)) if spans and depth == 0 and not separated else None
