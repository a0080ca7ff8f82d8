"""Where each key of a TOML text stands.

`tomllib` parses strictly but forgets positions; an error without its line is no help in a file of 500 lines. This
scanner reads the text a second time and remembers, for every key, table header and array element, the line on which
it starts. Source of the grammar: TOML 1.0.0, and what 1.1 adds (newlines in inline tables, two escapes), since newer
Pythons read it.

Contract: the text has already been accepted by `tomllib`. The scanner relies on that and checks nothing: it only
has to know where things begin and end. On a text `tomllib` would refuse, the positions mean nothing, but the scan
still ends, because every step moves forward.

A *path* is what `tomllib`'s result is indexed by: ("databases", 1, "host") is `data["databases"][1]["host"]`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

Path = tuple[str | int, ...]

_SPACE = " \t"
_BLANK = " \t\r\n"
_BARE_END = " \t\r\n,]}#"
_ESCAPES = {"b": "\b", "e": "\x1b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


class Positions:
    """Lines (from 1) of the keys of one text."""

    def __init__(self, lines: Mapping[Path, int]) -> None:
        self._lines = lines

    def line(self, path: Path) -> int:
        """The line of the path, or of the nearest thing around it that was written; 1 when nothing was."""
        for length in range(len(path), 0, -1):
            found = self._lines.get(path[:length])
            if found is not None:
                return found
        return 1

    def __contains__(self, path: Path) -> bool:
        return path in self._lines

    def paths(self) -> frozenset[Path]:
        return frozenset(self._lines)


def scan(text: str) -> Positions:
    """The positions of every key in a valid TOML text."""
    scanner = _Scanner(text)
    scanner.document()
    return Positions(scanner.lines)


class _Scanner:
    """One walk over the text; `at` is the offset of the next character and only grows."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[Path, int] = {}
        self._starts = [0, *(index + 1 for index, character in enumerate(text) if character == "\n")]
        self._elements: dict[Path, int] = {}  # array of tables -> index of its newest element

    def document(self) -> None:
        table: Path = ()
        while self._next_token(_BLANK):
            if self.text.startswith("[", self.at):
                table = self._header()
            else:
                self._pair(table)

    # -- structure ----------------------------------------------------------------------------------------------

    def _header(self) -> Path:
        """`[a.b]` or `[[a.b]]`; the path it opens. A name that is an array of tables means its newest element."""
        start = self.at
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        names = self._key()
        self.at += 2 if array else 1
        path: Path = ()
        for depth, name in enumerate(names, 1):
            path += (name,)
            last = depth == len(names)
            if last and array:
                self._elements[path] = self._elements.get(path, -1) + 1
            self._note(path, start)
            if path in self._elements and (array or not last):
                path += (self._elements[path],)
                self._note(path, start)
        return path

    def _pair(self, table: Path) -> None:
        """`a.b = value` inside a table."""
        start = self.at
        path = table
        for name in self._key():
            path += (name,)
            self._note(path, start)
        self.at += 1  # the equals sign
        self._next_token(_SPACE)
        self._value(path)

    def _value(self, path: Path) -> None:
        character = self.text[self.at : self.at + 1]
        if character in ('"', "'"):
            self._string()
        elif character == "[":
            self._array(path)
        elif character == "{":
            self._inline_table(path)
        else:
            start = self.at
            self._skip_until(_BARE_END)
            # a date and its time may be separated by one space: "1979-05-27 07:32:00" is a single value
            if self.at - start == 10 and self.text[self.at : self.at + 1] == " " and self._digit(self.at + 1):
                self.at += 1
                self._skip_until(_BARE_END)
            self.at = max(self.at, start + 1)

    def _array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while self._next_token(_BLANK):
            if self.text[self.at] == "]":
                break
            if self.text[self.at] == ",":
                self.at += 1
                continue
            element = (*path, index)
            self._note(element, self.at)
            self._value(element)
            index += 1
        self.at += 1

    def _inline_table(self, path: Path) -> None:
        self.at += 1
        while self._next_token(_BLANK):
            if self.text[self.at] == "}":
                break
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self._pair(path)
        self.at += 1

    # -- tokens -------------------------------------------------------------------------------------------------

    def _key(self) -> list[str]:
        """`a . "b" . 'c'`, leaving `at` on the equals sign or closing bracket."""
        names = []
        while self._next_token(_SPACE):
            character = self.text[self.at]
            if character in "=]":
                break
            if character == ".":
                self.at += 1
            elif character in "\"'":
                names.append(self._string())
            else:
                start = self.at
                self._skip_until(" \t\r\n.=]\"'#")
                self.at = max(self.at, start + 1)
                names.append(self.text[start : self.at])
        return names

    def _string(self) -> str:
        """Any of the four kinds of string; the value (only keys use it, and keys are never multi-line)."""
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            return self._long_string(quote)
        self.at += 1
        value = []
        while self.at < len(self.text) and self.text[self.at] != quote:
            if quote == '"' and self.text[self.at] == "\\":
                value.append(self._escape())
            else:
                value.append(self.text[self.at])
                self.at += 1
        self.at += 1
        return "".join(value)

    def _long_string(self, quote: str) -> str:
        start = self.at = self.at + 3
        while self.at < len(self.text) and not self.text.startswith(quote * 3, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        end = self.at
        self.at += 3
        # up to two quotes may stand directly before the closing three: ""..."""""
        while self.at < end + 5 and self.text.startswith(quote, self.at):
            self.at += 1
        return self.text[start : self.at - 3]

    def _escape(self) -> str:
        letter = self.text[self.at + 1 : self.at + 2]
        width = {"x": 2, "u": 4, "U": 8}.get(letter, 0)
        digits = self.text[self.at + 2 : self.at + 2 + width]
        self.at += 2 + width
        if width:
            return chr(int(digits, 16))
        return _ESCAPES.get(letter, letter)

    def _next_token(self, blank: str) -> bool:
        """Skips blanks, and comments where newlines are blanks; false at the end of the text."""
        while self.at < len(self.text):
            character = self.text[self.at]
            if character in blank:
                self.at += 1
            elif character == "#" and "\n" in blank:
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return True
        return False

    def _skip_until(self, stops: str) -> None:
        while self.at < len(self.text) and self.text[self.at] not in stops:
            self.at += 1

    def _digit(self, offset: int) -> bool:
        return self.text[offset : offset + 1].isdigit()

    def _note(self, path: Path, offset: int) -> None:
        """The first mention counts: that is where a reader looks for the table."""
        self.lines.setdefault(path, bisect_right(self._starts, offset))
