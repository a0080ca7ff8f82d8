"""What a client asks: frames the messages of protocol v3 in the chunks in which they arrive.

A message is handed out when it is whole, one at a time; what is torn is held until the rest is there. No body is looked
into but by `batch`. CopyData is the exception: it may be as long as a file, and passes in parts.

Interpreted and compiled (see requests.pxd) this file behaves the same.
"""

from __future__ import annotations

# What `Requests.next` says besides a message letter.
# Beside letters, which are bytes: a client may send any of those.
NOTHING = 256
CONTINUED = 257  # more of a CopyData body of which a part was taken before
TOO_LONG = 258  # the length field is below four or above the limit

# The compiled walk reads C integers of these names (requests.pxd); Python keeps the public ones.
_NOTHING = NOTHING
_CONTINUED = CONTINUED
_TOO_LONG = TOO_LONG


def _number(p: bytes, at: int) -> int:
    """Four bytes, big-endian. A function, so that the compiled one is unsigned: `byte << 24` alone has a sign. (C of
    this file alone, as its like in wire/pipeline is.)"""
    return p[at] << 24 | p[at + 1] << 16 | p[at + 2] << 8 | p[at + 3]


class Requests:
    """Frames the messages of one client; holds what is torn, under `limit` bytes a message."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.hold_copy = False  # CopyData is handed out only whole (the slow gear splits it)
        self.buffer = b""
        self.at = 0  # first byte of `buffer` not yet handed out
        self.start = 0  # what `next` handed out last is buffer[start:end]
        self.end = 0
        self.rest = 0  # bytes still to come of a CopyData body handed out in parts
        self.need = 0  # bytes a held message has in all; 0: none is held
        self.torn_bytes = 0
        self.torn: list[bytes] | None = None
        self.length = 0  # the offending length after TOO_LONG
        # what `batch` found: where in `buffer` the text of its Parse and the statement name of its Bind are
        self.count = 0  # messages before the Sync
        self.text_at = 0
        self.text_end = 0
        self.parse_end = 0
        self.bind_at = -1
        self.bind_end = 0
        self.name_at = 0
        self.name_end = 0

    def feed(self, data: bytes) -> None:
        """Adds what arrived. Chunks of a torn message are collected and joined once, not copied again and again."""
        if self.need:
            torn = self.torn
            assert torn is not None
            torn.append(data)
            self.torn_bytes += len(data)
            if self.torn_bytes < self.need:
                return
            self.buffer = b"".join(torn)
            self.at = 0
            self.torn = None
            self.need = 0
        elif self.at < len(self.buffer):
            self.buffer = self.buffer[self.at :] + data
            self.at = 0
        else:
            self.buffer = data
            self.at = 0

    def waiting_bytes(self) -> int:
        """Bytes received and not yet handed out."""
        return self.torn_bytes if self.need else len(self.buffer) - self.at

    def hold(self, size: int) -> None:
        """Keeps buffer[at:], the beginning of a message or unit of `size` bytes, until all of it is there."""
        kept = self.buffer[self.at :]
        self.torn = [kept]
        self.torn_bytes = len(kept)
        self.need = size
        self.buffer = b""
        self.at = 0

    def next(self) -> int:
        """The letter of the next whole message, or NOTHING, CONTINUED, TOO_LONG; the bytes are buffer[start:end].

        Successive CopyData messages are handed out as one run. Unless `hold_copy`, the last one may be torn; its
        rest comes as CONTINUED.
        """
        if self.need:
            return _NOTHING
        p = self.buffer
        n = len(self.buffer)
        at = self.at
        if self.rest:
            if at == n:
                return _NOTHING
            end = at + self.rest
            if end > n:
                end = n
            self.rest -= end - at
            self.start = at
            self.end = end
            self.at = end
            return _CONTINUED
        if n - at < 5:
            return _NOTHING
        letter = p[at]
        length = _number(p, at + 1)
        if length < 4 or length > self.limit:
            self.length = length
            return _TOO_LONG
        end = at + 1 + length
        if letter == 100 and not self.hold_copy:  # d: CopyData
            while end < n - 5 and p[end] == 100:
                length = _number(p, end + 1)
                if length < 4 or length > self.limit:
                    break
                end += 1 + length
            if end > n:
                self.rest = end - n
                end = n
        elif end > n:
            self.hold(end - at)
            return _NOTHING
        self.start = at
        self.end = end
        self.at = end
        return letter

    def unit(self) -> int:
        """The end of the unit that begins at `at`, without handing it out; 0 while it is not whole.

        A unit ends with the first Query, Sync, Flush, FunctionCall, Terminate or copy message. Returns -1 when a
        length, or the unit as a whole, exceeds the limit; `length` then says how much.
        """
        if self.need:
            return 0
        p = self.buffer
        n = len(self.buffer)
        at = self.at
        while n - at >= 5:
            letter = p[at]
            length = _number(p, at + 1)
            if length < 4 or at - self.at + length > self.limit:
                self.length = length
                return -1
            end = at + 1 + length
            if end > n:
                self.hold(end - self.at)
                return 0
            # B C D E P go on; everything else ends the unit
            if letter != 66 and letter != 67 and letter != 68 and letter != 69 and letter != 80:
                return end
            at = end
        return 0

    def batch(self, at: int) -> bool:
        """Is buffer[at:] one whole batch of one statement, in the shape that drivers send?

            [Parse of the unnamed statement] [Describe of it] Bind [Describe portal] Execute of all rows [Close portal]
            Sync

        with the unnamed portal and nothing behind it. Then `text_at`, `text_end` delimit the text of its Parse (both 0
        without one), which ends at `parse_end`; `bind_at`, `bind_end` delimit its Bind, `name_at`, `name_end` the
        Bind's statement name, `count` is the number of messages before the Sync. Whatever else it may be is for others
        to find out.
        """
        p = self.buffer
        n = len(self.buffer)
        self.count = 0
        self.text_at = 0
        self.text_end = 0
        self.bind_at = -1
        executed = False
        if self.need:
            return False
        while n - at >= 5:
            letter = p[at]
            length = _number(p, at + 1)
            if length < 4 or length > self.limit:
                return False
            end = at + 1 + length
            if end > n:
                return False
            if letter == 83:  # S: Sync
                return length == 4 and end == n and executed
            self.count += 1
            if letter == 80:  # P: Parse
                if self.count != 1 or length < 8 or p[at + 5] != 0:
                    return False
                self.parse_end = end
                self.text_at = at + 6
                self.text_end = at + 6
                while self.text_end < end and p[self.text_end] != 0:
                    self.text_end += 1
                if self.text_end >= end:
                    return False
            elif letter == 66:  # B: Bind
                if self.bind_at >= 0 or length < 12 or p[at + 5] != 0:
                    return False
                self.bind_at = at
                self.bind_end = end
                self.name_at = at + 6
                self.name_end = at + 6
                while self.name_end < end and p[self.name_end] != 0:
                    self.name_end += 1
                # a named statement was parsed long ago, the unnamed one in this batch
                if self.name_end >= end or (self.name_at == self.name_end) != (self.text_at != 0):
                    return False
            elif letter == 68:  # D: Describe
                if length != 6 or p[at + 6] != 0 or executed:
                    return False
                if p[at + 5] == 83:  # S: of the statement
                    if self.text_at == 0:
                        return False
                elif p[at + 5] != 80 or self.bind_at < 0:
                    return False
            elif letter == 69:  # E: Execute
                if length != 9 or p[at + 5] != 0 or self.bind_at < 0 or executed or _number(p, at + 6) != 0:
                    return False
                executed = True
            elif letter == 67:  # C: Close
                if length != 6 or p[at + 5] != 80 or p[at + 6] != 0 or not executed:
                    return False
            else:
                return False
            at = end
        return False

    def give_back(self, unit: bytes) -> None:
        """Puts a unit that was handed out in front of what has come since: it is going to be looked at again."""
        if self.need:
            assert self.torn is not None
            self.buffer = unit + b"".join(self.torn)
            self.torn = None
            self.need = self.torn_bytes = 0
        else:
            self.buffer = unit + self.buffer[self.at :]
        self.at = 0
