# cython: annotation_typing=False
"""The commonest extended batch, taken apart without an object per field. Compiled; see batch.pxd.

Offsets into the buffer are all that is kept. Only what is well-formed to its last byte is accepted; what is not, and
what is merely unusual, is for the parsers of `messages`, which know the errors.
"""

from __future__ import annotations

_PARSE, _BIND, _DESCRIBE, _EXECUTE, _CLOSE, _SYNC = 80, 66, 68, 69, 67, 83


class Batch:
    """Of the batch that `read` accepted last: where the names, the text and the parameters are."""

    def __init__(self) -> None:
        self.parsed = False  # there is a Parse; then the Bind is of its statement
        self.name = self.name_end = 0  # of the statement that is bound
        self.sql = self.sql_end = 0
        self.start = self.end = 0  # of the parameter that was found last
        self.binary = False
        self._types = self._type_count = 0
        self._formats = self._format_count = 0
        self._values = self._value_count = 0

    def read(self, buffer: bytes, at: int, end: int) -> bool:
        """Is buffer[at:end] one Bind, behind at most one Parse which is of the same statement, then anything about
        portals and statements, and Syncs?"""
        d = buffer
        bound = False
        self.parsed = False
        if end > len(buffer):
            return False
        while at < end:
            if end - at < 5:
                return False
            letter = d[at]
            size = _size(buffer, at + 1)
            if size < 4 or size > end - at - 1:
                return False
            stop = at + 1 + size
            if letter == _BIND:
                if bound or not self._bind(buffer, at + 5, stop):
                    return False
                bound = True
            elif letter == _PARSE:
                if bound or self.parsed or not self._parse(buffer, at + 5, stop):
                    return False
                self.parsed = True
            elif letter != _SYNC and (not bound or (letter != _EXECUTE and letter != _DESCRIBE and letter != _CLOSE)):
                return False
            at = stop
        return bound

    def find(self, buffer: bytes, number: int) -> bool:
        """Is parameter `number` (from 1) there, and neither NULL nor in a format nobody knows? `start` and `end` say
        where."""
        if number < 1 or number > self._value_count:
            return False
        code = 0
        if self._format_count:
            at = self._formats + (2 * (number - 1) if self._format_count > 1 else 0)
            code = buffer[at] << 8 | buffer[at + 1]
            if code > 1:
                return False
        at = self._values
        size = _size(buffer, at)
        while number > 1:
            at += 4 if size == 0xFFFFFFFF else 4 + size
            size = _size(buffer, at)
            number -= 1
        if size == 0xFFFFFFFF:
            return False
        self.start = at + 4
        self.end = at + 4 + size
        self.binary = code == 1
        return True

    def type_of(self, buffer: bytes, number: int) -> int:
        """The type that this batch's Parse declared for parameter `number`; 0: none."""
        if number < 1 or number > self._type_count:
            return 0
        return _size(buffer, self._types + 4 * (number - 1))

    def _parse(self, buffer: bytes, at: int, stop: int) -> bool:
        self.name = at
        self.name_end = _string_end(buffer, at, stop)
        self.sql = self.name_end + 1
        self.sql_end = _string_end(buffer, self.sql, stop)
        at = self.sql_end + 1
        if stop - at < 2:
            return False
        self._type_count = buffer[at] << 8 | buffer[at + 1]
        self._types = at + 2
        return at + 2 + 4 * self._type_count == stop

    def _bind(self, buffer: bytes, at: int, stop: int) -> bool:
        at = _string_end(buffer, at, stop) + 1
        name_end = _string_end(buffer, at, stop)
        if self.parsed:
            size = name_end - at
            if size != self.name_end - self.name:
                return False
            i = 0
            while i < size:
                if buffer[at + i] != buffer[self.name + i]:
                    return False
                i += 1
        self.name = at
        self.name_end = name_end
        at = name_end + 1
        if stop - at < 2:
            return False
        formats = buffer[at] << 8 | buffer[at + 1]
        self._formats = at + 2
        self._format_count = formats
        at += 2 + 2 * formats
        if stop - at < 2:
            return False
        count = buffer[at] << 8 | buffer[at + 1]
        at += 2
        self._values = at
        self._value_count = count
        if formats > 1 and formats != count:
            return False
        while count > 0:
            if stop - at < 4:
                return False
            size = _size(buffer, at)
            at += 4
            if size != 0xFFFFFFFF:
                if size > stop - at:
                    return False
                at += size
            count -= 1
        if stop - at < 2:
            return False
        return at + 2 + 2 * (buffer[at] << 8 | buffer[at + 1]) == stop


def _size(buffer: bytes, at: int) -> int:
    d = buffer
    return d[at] << 24 | d[at + 1] << 16 | d[at + 2] << 8 | d[at + 3]


def _string_end(buffer: bytes, at: int, stop: int) -> int:
    """Where its zero byte is; `stop` if there is none."""
    d = buffer
    while at < stop and d[at] != 0:
        at += 1
    return at
