"""What a server says: the walk over its bytes that pays off the queue of replies it owes (wire/reply_queue).

It understands no body that it need not understand: a 20 MB row passes through in the chunks in which it arrives.

Rules (documentation chapter "Message Flow"):
* Parse, Bind, Close, Describe and Execute are each paid by one completing message; a Query only by ReadyForQuery.
* `tx_status` is set from ReadyForQuery and from nothing else.

Interpreted and compiled (see pipeline.pxd) this file behaves the same; the compiled walk costs about 5 ns a message.
"""

from __future__ import annotations

from node.wire.reply_queue import (
    COPY_END,
    FAKE_CLOSE_COMPLETE,
    FAKE_PARSE_COMPLETE,
    QUERY,
    RING_ENTRIES,
    SKIP,
    SKIP_QUERY,
    SYNC,
    ReplyQueue,
)

# A server's ErrorResponse, ParameterStatus or CommandComplete is held whole up to this size, to be looked at.
HELD_BYTES = 1 << 20

# No message is longer (the length field is a signed 32-bit integer).
MAX_LENGTH = 0x7FFFFFFF

_FAKES = {FAKE_PARSE_COMPLETE: b"1\0\0\0\4", FAKE_CLOSE_COMPLETE: b"3\0\0\0\4", COPY_END: b""}

# The compiled walk reads C integers of these names (pipeline.pxd); Python keeps the public ones.
_SYNC = SYNC
_QUERY = QUERY
_SKIP = SKIP
_SKIP_QUERY = SKIP_QUERY
_FAKE_PARSE_COMPLETE = FAKE_PARSE_COMPLETE
_FAKE_CLOSE_COMPLETE = FAKE_CLOSE_COMPLETE
_COPY_END = COPY_END
_MASK = RING_ENTRIES - 1
_HELD_BYTES = HELD_BYTES
_MAX_LENGTH = MAX_LENGTH


def _number(p: bytes, at: int) -> int:
    """Four bytes, big-endian. A function, so that the compiled one is unsigned: `byte << 24` alone has a sign. (C of
    this file alone, as its like in wire/requests is.)"""
    return p[at] << 24 | p[at + 1] << 16 | p[at + 2] << 8 | p[at + 3]


class Pipeline(ReplyQueue):
    """One server connection as seen from its replies: what is owed, what was heard, its transaction status."""

    def __init__(self) -> None:
        super().__init__()
        self.tx_status = 73  # I
        self.broken = 0  # letter of the reply that fits nothing we asked; 0: all is well
        self.shared = False  # a lane: only what an autocommit read can be answered with fits
        self.answered = False  # since the last ReadyForQuery something came that a Query can end with
        self.errors = 0  # ErrorResponses seen
        self.units = 0  # ReadyForQuery seen
        self.rows_inserted = self.rows_updated = self.rows_deleted = 0  # by the command tags
        self.tag = 0  # first four bytes of the last CommandComplete, big-endian
        self.skip_error = b""  # the ErrorResponse that answered a SKIP_QUERY
        self.last_error = b""  # body of the last ErrorResponse held whole
        self.statuses: list[bytes] = []  # bodies of ParameterStatus messages not yet looked at
        self.whole = 0  # of what `replies` returned last: the bytes up to and with the last ReadyForQuery
        self.stopped_at = 0  # where the walk stopped because what follows belongs to another owner; 0: at the end
        self.held = b""
        self.rest = 0
        self.rest_skipped = False

    def idle(self) -> bool:
        """Nothing owed, nothing half done: the connection may change hands, if `tx_status` is I too."""
        return (
            self.done == self.sent
            and not self.batch
            and self.copy_in == 0
            and self.rest == 0
            and not self.held
            and self.broken == 0
        )

    def replies(self, data: bytes, start: int) -> bytes:
        """Walks data[start:]; returns what the owner at the head of the queue may read.

        Stops after a ReadyForQuery when the next entry has another owner, or when nothing more is owed: what follows
        (the last words of a server that shuts down) is not for whoever was served (`stopped_at`). The caller delivers
        and goes on from there. Sets `broken` when a reply does not fit the queue: the connection must then be closed.
        """
        self.stopped_at = 0
        self.whole = 0
        kept = len(self.held)
        if kept:
            data = self.held + data
            self.held = b""
        p = data
        n = len(data)
        pos = start
        run = start  # data[run:pos] passes
        out: list[bytes] | None = None
        if self.rest:
            end = pos + self.rest
            if end > n:
                end = n
            self.rest -= end - pos
            pos = end
            if self.rest_skipped:
                run = pos
        while pos < n:
            if n - pos < 5:
                self.held = data[pos:]
                break
            letter = p[pos]
            length = _number(p, pos + 1)
            if length < 4 or length > _MAX_LENGTH:
                self.broken = letter
                break
            end = pos + 1 + length
            slot = self.head & _MASK
            head = 0
            if self.head != self.tail and self.ordinals[slot] == self.done + 1:
                head = self.kinds[slot]
            if letter == 68 or letter == 100:  # D, d: rows and copy data, owed by somebody
                if self.done == self.sent or (self.shared and letter == 100):
                    self.broken = letter
                    break
                if end > n:
                    self.rest = end - n
                    self.rest_skipped = head == _SKIP_QUERY
                    end = n
                if head == _SKIP_QUERY:
                    if pos > run:
                        out = [] if out is None else out
                        out.append(data[run:pos])
                    run = end
                pos = end
                continue
            if end > n and length <= _HELD_BYTES:
                self.held = data[pos:]
                break
            skipped = head == _SKIP_QUERY
            if letter == 90:  # Z: ReadyForQuery
                if length != 5 or (head != _SYNC and head != _QUERY and head != _SKIP_QUERY):
                    self.broken = letter
                    break
                if self.shared and (p[pos + 5] != 73 or (head == _QUERY and not self.answered)):  # I
                    self.broken = letter
                    break
                self.answered = False
                self.tx_status = p[pos + 5]
                self.units += 1
                self.copy_in = 0
                self.done += 1
                owner = self.owners[slot]
                self.owners[slot] = None
                self.head += 1
            elif self.shared and (letter == 71 or letter == 87 or letter == 72 or letter == 99):  # G, W, H, c
                self.broken = letter  # a read is no COPY
                break
            elif self.shared and (letter == 115 or letter == 65 or letter == 86):  # s, A, V
                self.broken = letter  # all rows were asked for, nobody listens here, and functions are called alone
                break
            elif letter == 67 or letter == 73 or letter == 115:  # C, I, s: an Execute, or a part of a Query
                if letter == 67 and length >= 8 and end <= n:
                    self.tag = _number(p, pos + 5)
                    if end <= n:
                        self.count_rows(data, pos + 5, end - 1)
                self.copy_in = 0
                self.answered = True
                if head != _QUERY and head != _SKIP_QUERY:
                    if self.done == self.sent or head == _SYNC:
                        self.broken = letter
                        break
                    self.done += 1
            elif letter == 49 or letter == 50 or letter == 51:  # 1, 2, 3: Parse, Bind, Close
                if self.done == self.sent or head == _SYNC or head == _QUERY or head == _SKIP_QUERY:
                    self.broken = letter
                    break
                if head == _SKIP:
                    skipped = True
                    self.owners[slot] = None
                    self.head += 1
                self.done += 1
            elif letter == 84 or letter == 110:  # T, n: a Describe, or the head of a Query's rows
                if self.done == self.sent or head == _SYNC:
                    self.broken = letter
                    break
                if head != _QUERY and head != _SKIP_QUERY:
                    self.done += 1
            elif letter == 69:  # E: ErrorResponse
                self.errors += 1
                self.answered = True
                self.copy_in = 0
                if end <= n:
                    self.last_error = data[pos + 5 : end]
                if head == _SKIP_QUERY:
                    self.skip_error = data[pos:end]
                elif head != _QUERY:
                    self.fail()  # also when nothing is owed: a Flush that was malformed fails the batch too
            elif letter == 83:  # S: ParameterStatus, at any time
                skipped = False
                self.statuses.append(data[pos + 5 : end])
            elif letter == 71 or letter == 87:  # G, W: the server takes CopyData now
                if self.done == self.sent:
                    self.broken = letter
                    break
                self.swallow(1 if head == _QUERY or head == _SKIP_QUERY else 0)
            elif letter == 78 or letter == 65:  # N, A: at any time
                skipped = False
            elif letter == 116 or letter == 72 or letter == 99 or letter == 86:  # t, H, c, V complete nothing
                if self.done == self.sent:
                    self.broken = letter
                    break
            else:
                self.broken = letter
                break
            if end > n:
                self.rest = end - n
                self.rest_skipped = skipped
                end = n
            if skipped:
                if pos > run:
                    out = [] if out is None else out
                    out.append(data[run:pos])
                run = end
            pos = end
            if letter == 90:
                self.whole = end - run if out is None else end - run + sum(map(len, out))
            # messages the client expects now, and the server will not send
            while self.head != self.tail:
                slot = self.head & _MASK
                kind = self.kinds[slot]
                if self.ordinals[slot] != self.done + 1:
                    break
                if kind != _FAKE_PARSE_COMPLETE and kind != _FAKE_CLOSE_COMPLETE and kind != _COPY_END:
                    break
                out = [] if out is None else out
                if pos > run:
                    out.append(data[run:pos])
                out.append(_FAKES[kind])
                run = pos
                self.owners[slot] = None
                self.head += 1
            if letter == 90 and pos < n:
                if self.head != self.tail:
                    other = self.owners[self.head & _MASK] is not owner
                else:
                    other = self.done == self.sent
                if other:
                    self.stopped_at = pos - kept  # counted in the caller's bytes
                    break
        if out is None:
            if run == 0 and pos == n:
                return data
            return data[run:pos]
        if pos > run:
            out.append(data[run:pos])
        return b"".join(out)

    def count_rows(self, data: bytes, at: int, end: int) -> None:
        """A command tag is data[at:end]: `INSERT 0 5`, `UPDATE 3`, `DELETE 1`."""
        p = data
        letter = p[at]
        if letter != 73 and letter != 85 and letter != 68:  # I, U, D
            return
        rows = 0
        scale = 1
        while end > at and 48 <= p[end - 1] <= 57:
            end -= 1
            rows += (p[end] - 48) * scale
            scale *= 10
        if letter == 73:
            self.rows_inserted += rows
        elif letter == 85:
            self.rows_updated += rows
        else:
            self.rows_deleted += rows
