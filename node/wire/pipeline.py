"""What a client asked and what a server still owes: the two walks over the bytes of protocol v3.

`Requests` frames what a client sends. `Pipeline` belongs to one server connection: it keeps the queue of replies the
server still owes and walks what the server sends, paying off the queue. Neither understands a body it need not
understand: a 20 MB row passes through in the chunks in which it arrives.

The queue is arithmetic, not objects. Every request that has a reply gets the next *ordinal*; `sent` is the ordinal of
the last request forwarded, `done` of the last reply completed. Only what is special stands in the ring, sorted by
ordinal, and every entry names its owner, the client to whom the bytes of that reply belong:

    SYNC        the reply ends with the ReadyForQuery of a Sync message
    QUERY       the reply ends with the ReadyForQuery of a Query or FunctionCall message
    SKIP        one extended-protocol reply that no client asked for; it is cut out
    SKIP_QUERY  a whole Query of ours (BEGIN ahead of a transaction's first statement); all of it is cut out
    FAKE_…      a message the client expects but the server will not send, put in *before* the reply of that ordinal
    COPY_END    a mark: CopyDone or CopyFail was forwarded here, before the server said that it takes CopyData

Rules (documentation chapter "Message Flow"):
* Parse, Bind, Close, Describe and Execute are each paid by one completing message; a Query only by ReadyForQuery.
* After an ErrorResponse in the extended protocol the server discards everything up to the next Sync, Query messages
  included. So does the queue: an error pays for all up to that Sync, and while no Sync was forwarded yet (`failed`)
  nothing more is owed.
* In copy-in mode the server swallows Sync and Flush; they owe nothing until the client has sent CopyDone or CopyFail.
  A client that sends its data without waiting for CopyInResponse leaves a COPY_END in the queue: what stands before it
  is swallowed, what stands behind it is answered.
* `tx_status` is set from ReadyForQuery and from nothing else.

Interpreted and compiled (see pipeline.pxd) this file behaves the same; the compiled walk costs about 5 ns a message.
"""

from __future__ import annotations

from array import array
from typing import Any

SYNC = 1
QUERY = 2
SKIP = 3
SKIP_QUERY = 4
FAKE_PARSE_COMPLETE = 5
FAKE_CLOSE_COMPLETE = 6
COPY_END = 7

# Replies owed to special entries on one server connection; a client that pipelines more is read no further until
# the server has caught up.
RING_ENTRIES = 2048
_MASK = RING_ENTRIES - 1

# A server's ErrorResponse, ParameterStatus or CommandComplete is held whole up to this size, to be looked at.
HELD_BYTES = 1 << 20

# No message is longer (the length field is a signed 32-bit integer).
MAX_LENGTH = 0x7FFFFFFF

# What `Requests.next` says besides a message letter.
NOTHING = 0
CONTINUED = 1  # more of a CopyData body of which a part was taken before
TOO_LONG = 2  # the length field is below four or above the limit

_FAKES = {FAKE_PARSE_COMPLETE: b"1\0\0\0\4", FAKE_CLOSE_COMPLETE: b"3\0\0\0\4", COPY_END: b""}

# The compiled walk reads C integers of these names (pipeline.pxd); Python keeps the public ones.
_SYNC = SYNC
_QUERY = QUERY
_SKIP = SKIP
_SKIP_QUERY = SKIP_QUERY
_FAKE_PARSE_COMPLETE = FAKE_PARSE_COMPLETE
_FAKE_CLOSE_COMPLETE = FAKE_CLOSE_COMPLETE
_COPY_END = COPY_END
_RING_ENTRIES = RING_ENTRIES
_HELD_BYTES = HELD_BYTES
_MAX_LENGTH = MAX_LENGTH
_NOTHING = NOTHING
_CONTINUED = CONTINUED
_TOO_LONG = TOO_LONG


def _number(p: bytes, at: int) -> int:
    """Four bytes, big-endian. A function, so that the compiled one is unsigned: `byte << 24` alone has a sign."""
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


class Pipeline:
    """The replies one server connection owes, to whom, and its transaction status."""

    def __init__(self) -> None:
        self.sent = 0
        self.done = 0
        self.tx_status = 73  # I
        self.batch = False  # extended messages were forwarded that no Sync has ended
        self.failed = False  # the server discards until a Sync that was not forwarded yet
        self.copy_in = 0  # 1: the server takes CopyData; 2: CopyDone or CopyFail was forwarded
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
        self.ordinals = array("q", bytes(8 * _RING_ENTRIES))
        self.kinds = bytearray(_RING_ENTRIES)
        self.owners: list[object] = [None] * _RING_ENTRIES
        self.head = 0  # first entry
        self.tail = 0  # one past the last entry

    # --- what is forwarded ------------------------------------------------------------------------------------

    def push(self, kind: int, ordinal: int, owner: object) -> None:
        slot = self.tail & _MASK
        self.ordinals[slot] = ordinal
        self.kinds[slot] = kind
        self.owners[slot] = owner
        self.tail += 1

    def room(self) -> int:
        """Entries that may still be pushed."""
        return _RING_ENTRIES - (self.tail - self.head)

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

    def owe_query(self, owner: object) -> None:
        """A Query or FunctionCall was forwarded."""
        if self.failed:
            return
        self.batch = False  # a Query ends a batch as a Sync does
        self.sent += 1
        self.push(_QUERY, self.sent, owner)

    def owe_skipped_query(self, owner: object) -> None:
        """A Query of our own was sent; nobody sees its reply, except in `skip_error`."""
        self.sent += 1
        self.push(_SKIP_QUERY, self.sent, owner)

    def owe(self) -> None:
        """A Parse, Bind, Describe, Execute or Close of the client was forwarded."""
        self.batch = True
        if not self.failed:
            self.sent += 1

    def owe_skipped(self, owner: object) -> None:
        """A Parse or Close of our own was sent; its completion is cut out, its error is the client's."""
        self.batch = True
        if not self.failed:
            self.sent += 1
            self.push(_SKIP, self.sent, owner)

    def owe_fake(self, kind: int, owner: object) -> bool:
        """The client's Parse or Close was not forwarded. True: nothing stands before it, answer it at once."""
        self.batch = True
        if self.failed:
            return False
        if self.done == self.sent:
            return True
        self.push(kind, self.sent + 1, owner)
        return False

    def owe_sync(self, owner: object) -> None:
        """A Sync was forwarded."""
        if self.copy_in == 1 and self.done < self.sent:
            return  # swallowed by the server; the client sends another one after CopyDone or CopyFail
        self.batch = False
        self.failed = False
        self.sent += 1
        self.push(_SYNC, self.sent, owner)

    def owe_unit(self, count: int, owner: object) -> None:
        """A whole batch was forwarded: `count` messages that have a reply each, and its Sync."""
        self.batch = False
        self.sent += count + 1
        self.push(_SYNC, self.sent, owner)

    def copy_ended(self) -> None:
        """CopyDone or CopyFail was forwarded."""
        if self.copy_in == 1:
            self.copy_in = 2
        elif self.copy_in == 0 and self.done < self.sent:
            self.push(_COPY_END, self.sent + 1, None)

    # --- whose the replies are ---------------------------------------------------------------------------------

    def head_owner(self) -> Any:
        """To whom the next byte of the server belongs; None: to nobody, or nothing is owed."""
        if self.head == self.tail:
            return None
        return self.owners[self.head & _MASK]

    def all_owners(self) -> list[Any]:
        """Everybody to whom something is owed, in the order of the replies, each once; without those that left."""
        found: list[Any] = []
        at = self.head
        while at != self.tail:
            owner = self.owners[at & _MASK]
            if owner is not None and not (found and found[len(found) - 1] is owner):
                found.append(owner)
            at += 1
        return found

    def change_owner(self, owner: object, to: object) -> bool:
        """What is owed to `owner` is owed to `to` now; None: its bytes are dropped. False: nothing is."""
        any_found = False
        at = self.head
        while at != self.tail:
            if self.owners[at & _MASK] is owner:
                self.owners[at & _MASK] = to
                any_found = True
            at += 1
        return any_found

    # --- what comes back ---------------------------------------------------------------------------------------

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

    def fail(self) -> None:
        """An error in the extended protocol pays for everything up to the next Sync."""
        while self.head != self.tail:
            slot = self.head & _MASK
            if self.kinds[slot] == _SYNC:
                self.done = self.ordinals[slot] - 1
                return
            self.owners[slot] = None
            self.head += 1
        self.done = self.sent
        self.failed = True
        self.batch = True  # only a Sync ends it now

    def swallow(self, keep: int) -> None:
        """The server takes CopyData now: what was forwarded behind the COPY and before its CopyDone gets no answer.

        `keep`: 1 when the COPY itself has an entry at the head (it came by Query), 0 when it is an Execute.
        """
        first = self.head + keep
        at = first
        syncs = 0
        while at != self.tail and self.kinds[at & _MASK] != _COPY_END:
            if self.kinds[at & _MASK] == _SYNC:
                syncs += 1
            at += 1
        if at == self.tail:
            self.copy_in = 1
            self.sent = self.done + 1
            if keep == 0:
                self.batch = True
        else:
            self.copy_in = 2
            self.sent -= syncs
            at += 1
        while at != self.tail:  # what stands behind the mark moves up
            self.ordinals[first & _MASK] = self.ordinals[at & _MASK] - syncs
            self.kinds[first & _MASK] = self.kinds[at & _MASK]
            self.owners[first & _MASK] = self.owners[at & _MASK]
            first += 1
            at += 1
        while self.tail != first:
            self.tail -= 1
            self.owners[self.tail & _MASK] = None
