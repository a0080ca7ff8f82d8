"""The replies that one server connection still owes, and to whom.

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
* After an ErrorResponse in the extended protocol the server discards everything up to the next Sync, Query messages
  included. So does the queue: an error pays for all up to that Sync, and while no Sync was forwarded yet (`failed`)
  nothing more is owed.
* In copy-in mode the server swallows Sync and Flush; they owe nothing until the client has sent CopyDone or CopyFail.
  A client that sends its data without waiting for CopyInResponse leaves a COPY_END in the queue: what stands before it
  is swallowed, what stands behind it is answered.

Who pays it off is wire/pipeline. Interpreted and compiled (see reply_queue.pxd) this file behaves the same.
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

# The compiled queue reads C integers of these names (reply_queue.pxd); Python keeps the public ones.
_SYNC = SYNC
_QUERY = QUERY
_SKIP = SKIP
_SKIP_QUERY = SKIP_QUERY
_COPY_END = COPY_END
_RING_ENTRIES = RING_ENTRIES


class ReplyQueue:
    """What was forwarded, as far as its replies are still to come."""

    def __init__(self) -> None:
        self.sent = 0
        self.done = 0
        self.batch = False  # extended messages were forwarded that no Sync has ended
        self.failed = False  # the server discards until a Sync that was not forwarded yet
        self.copy_in = 0  # 1: the server takes CopyData; 2: CopyDone or CopyFail was forwarded
        self.ordinals = array("q", bytes(8 * _RING_ENTRIES))
        self.kinds = bytearray(_RING_ENTRIES)
        self.owners: list[object] = [None] * _RING_ENTRIES
        self.head = 0  # first entry
        self.tail = 0  # one past the last entry

    # --- what is forwarded -------------------------------------------------------------------------------------------

    def push(self, kind: int, ordinal: int, owner: object) -> None:
        slot = self.tail & _MASK
        self.ordinals[slot] = ordinal
        self.kinds[slot] = kind
        self.owners[slot] = owner
        self.tail += 1

    def room(self) -> int:
        """Entries that may still be pushed."""
        return _RING_ENTRIES - (self.tail - self.head)

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

    # --- whose the replies are ---------------------------------------------------------------------------------------

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

    # --- what an answer says of those behind it ----------------------------------------------------------------------

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
