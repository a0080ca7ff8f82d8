# cython: annotation_typing=False
"""A text of SQL as the lexer has walked it (routing/lexer): its shape, its literals, its statements. Compiled."""

from __future__ import annotations

from node.routing.literals import string_value

# Flags a text is lexed by.
BACKSLASH = 1  # standard_conforming_strings is off: \ escapes in every '...'
ORACLE = 2  # IvorySQL's Oracle mode: q'[...]' quotes, anonymous blocks

# Kinds of literals.
INTEGER = 1
NUMERIC = 2
STRING = 3


class Lexed:
    """What one walk found. `marks`: kind, start, end per replaced literal, flat; `comments`: start, end, flat;
    `trace`: kind letter and span of each token, when asked for. Lists are only made where there is something to say:
    the empty ones are all the same, and nobody's to change."""

    sql: bytes
    shape: bytes
    statements: int
    flags: int
    broken: bool
    marks: list[int]
    comments: list[int]
    trace: list[int]
    _cuts: list[int]  # ends of statements, but for the last
    _end: int  # of the last statement; -1: there is none
    _first: int
    _first_end: int
    _block: bool

    @property
    def first(self) -> bytes:
        """The first word, in capitals."""
        return b"BLOCK" if self._block else self.sql[self._first : self._first_end].upper()

    def literal_count(self) -> int:
        return len(self.marks) // 3

    def literal_kind(self, i: int) -> int:
        return self.marks[3 * i]

    def literal_text(self, i: int) -> bytes:
        """The literal as written, quotes included."""
        return self.sql[self.marks[3 * i + 1] : self.marks[3 * i + 2]]

    def literal_value(self, i: int) -> bytes:
        """The value: a number as written, a string without quotes and escapes. ValueError on a bad escape."""
        text = self.literal_text(i)
        return string_value(text, self.flags & BACKSLASH != 0) if self.marks[3 * i] == STRING else text

    @property
    def literals(self) -> list[tuple[int, int, int]]:
        """(kind, start, end) of each replaced literal."""
        marks = self.marks
        return [(marks[k], marks[k + 1], marks[k + 2]) for k in range(0, len(marks), 3)]

    def spans(self) -> list[tuple[int, int, int]]:
        """(start, end, ordinal of the first literal) of each statement."""
        found = []
        start = 0
        ordinal = 0
        for end in [*self._cuts, self._end] if self._end >= 0 else self._cuts:
            found.append((start, end, ordinal))
            ordinal += sum(1 for k in range(1, len(self.marks), 3) if start <= self.marks[k] < end)
            start = end + 1
        return found

    def comment_texts(self) -> list[bytes]:
        """Each comment, delimiters included, in order."""
        spans = self.comments
        return [self.sql[spans[k] : spans[k + 1]] for k in range(0, len(spans), 2)]
