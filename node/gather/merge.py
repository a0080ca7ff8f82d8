# cython: annotation_typing=False
"""Rows of several shards become one stream: concatenated, or merged by keys, cut and without duplicates.

Compiled (see merge.pxd); the same file runs interpreted. Rows are DataRow *bodies* (documentation chapter "Message
Formats"); the client's columns are the first `visible` fields of a row and are passed on as they came, never decoded.
What is compared are keys (node.gather.values): bytes that sort as PostgreSQL sorts.

The merge is streaming. A row goes out as soon as every unfinished shard has a row waiting, because only then is the
smallest known; `hungry` names the shards it waits for, `full` says which others should stop being read meanwhile, so
that memory is bounded by shards × buffer however large the result is. Rows with equal keys leave in shard order, and
in the order their shard sent them: with LIMIT the answer is the same every time.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush, heapreplace

from node.errors import ClientFault, ServerFault

PLAIN, SIGNED, OTHER = 0, 1, 2
DISTINCT_OVERHEAD_BYTES = 64  # what a remembered key costs besides its bytes, roughly
_plain = PLAIN
_signed = SIGNED
_invert = bytes(255 - n for n in range(256))
_flip = [bytes((1, n ^ 0x80)) for n in range(256)]  # "not null", then the first byte with its sign turned
_PREFIXES = 4096  # remembered heads of messages, by length


class KeySpec:
    """One column of a key: how its binary form becomes sortable bytes."""

    def __init__(
        self,
        column: int,
        kind: int,
        make: Callable[[bytes], bytes] | None,
        descending: bool = False,
        nulls_first: bool = False,
    ) -> None:
        self.column = column
        self.kind = kind
        self.make = make
        self.descending = descending
        self.null = b"\0" if nulls_first else b"\2"


class Rows:
    """Takes DataRow bodies of one shape apart: the client's part, and keys.

    Raises ServerFault 08P01 for a row that is not what was described: nothing read from a network is trusted.
    """

    def __init__(self, columns: int, visible: int) -> None:
        self.columns = columns
        self.visible = visible
        self._starts = array("q", bytes(8 * (columns + 1)))
        self._sizes = array("q", bytes(8 * (columns + 1)))
        self._head = visible.to_bytes(2, "big")
        self._prefixes: dict[int, bytes] = {}

    def open(self, body: bytes) -> None:
        """Finds the fields of this row for `key` and `message`."""
        data = body
        size = len(body)
        if size < 2 or (data[0] << 8 | data[1]) != self.columns:
            raise _strange_row()
        at = 2
        for n in range(self.columns):
            if size - at < 4:
                raise _strange_row()
            if data[at] >= 128:  # only -1, NULL, is legal with the high bit set
                if data[at] != 255 or data[at + 1] != 255 or data[at + 2] != 255 or data[at + 3] != 255:
                    raise _strange_row()
                at += 4
                self._starts[n] = at
                self._sizes[n] = -1
                continue
            length = data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
            at += 4
            if length > size - at:
                raise _strange_row()
            self._starts[n] = at
            self._sizes[n] = length
            at += length
        if at != size:
            raise _strange_row()
        self._starts[self.columns] = size + 4

    def message(self, body: bytes) -> bytes:
        """The client's DataRow for the opened row."""
        if self.visible == self.columns:
            return b"D" + (len(body) + 4).to_bytes(4, "big") + body
        end = self._starts[self.visible] - 4  # where the first hidden field's length begins
        prefix = self._prefixes.get(end)
        if prefix is None:
            prefix = b"D" + (end + 4).to_bytes(4, "big") + self._head
            if len(self._prefixes) < _PREFIXES:
                self._prefixes[end] = prefix
        return prefix + body[2:end]

    def key(self, body: bytes, specs: list[KeySpec]) -> bytes:
        """The sort key of the opened row."""
        if len(specs) == 1:
            return self._part(body, specs[0])
        parts = []
        for n in range(len(specs)):
            parts.append(self._part(body, specs[n]))  # noqa: PERF401 - a comprehension would not be typed
        return b"".join(parts)

    def _part(self, body: bytes, spec: KeySpec) -> bytes:
        column = spec.column
        size = self._sizes[column]
        if size < 0:
            return spec.null
        data = body
        start = self._starts[column]
        if spec.kind == _signed and size > 0:
            part = _flip[data[start]] + body[start + 1 : start + size]
        elif spec.kind == _plain or spec.make is None:
            part = b"\1" + body[start : start + size]
        else:
            part = b"\1" + spec.make(body[start : start + size])
        return b"\1" + part[1:].translate(_invert) if spec.descending else part


class Merge:
    """Concatenates (no `sort`) or merges rows of `shards` shards, then drops duplicates, then cuts.

    `distinct`: None, or the key whose repetition drops a row; the keys seen may take `distinct_limit_bytes` (53400).
    `limit` -1: all rows. `buffer_bytes` per shard is where `full` begins; rows fed beyond it are still taken.
    """

    def __init__(
        self,
        rows: Rows,
        shards: int,
        sort: Sequence[KeySpec],
        distinct: Sequence[KeySpec] | None,
        limit: int,
        offset: int,
        buffer_bytes: int,
        distinct_limit_bytes: int,
    ) -> None:
        self._rows = rows
        self._sort = list(sort)
        self._distinct = None if distinct is None else list(distinct)
        self._verbatim = not sort and distinct is None and limit < 0 and not offset and rows.visible == rows.columns
        self._queues: list[deque[tuple[bytes, bytes, bytes]]] = [deque() for _ in range(shards)]
        self._sizes = [0] * shards
        self._finished = [False] * shards
        self._heap: list[tuple[bytes, int]] = []
        self._missing = shards  # unfinished shards without a waiting row
        self._seen: set[bytes] = set()
        self._seen_bytes = 0
        self._left = limit
        self._skip = offset
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._buffer_bytes = buffer_bytes
        self._distinct_limit_bytes = distinct_limit_bytes
        self.rows = 0
        self.complete = limit == 0

    @property
    def buffered_bytes(self) -> int:
        """Rows held here: waiting for other shards, or not yet taken."""
        return sum(self._sizes) + self._out_bytes

    def hungry(self) -> tuple[int, ...]:
        """The shards without which nothing can go out."""
        if not self._sort or self.complete:
            return ()
        return tuple(n for n in range(len(self._queues)) if not self._finished[n] and not self._queues[n])

    def full(self, shard: int) -> bool:
        """This shard should not be read until others caught up."""
        return self._sizes[shard] > self._buffer_bytes

    def feed(self, shard: int, body: bytes) -> None:
        """One DataRow body of that shard."""
        if self.complete:
            return
        rows = self._rows
        rows.open(body)
        mark = b"" if self._distinct is None else rows.key(body, self._distinct)
        if not self._sort:
            self._emit(rows.message(body), mark)
            return
        key = rows.key(body, self._sort)
        queue = self._queues[shard]
        if not queue:
            heappush(self._heap, (key, shard))
            self._missing -= 1
        message = rows.message(body)
        queue.append((key, message, mark))
        self._sizes[shard] += len(message)
        if not self._missing:
            self._advance()

    def feed_rows(self, shard: int, messages: bytes) -> None:
        """Whole DataRow messages, letters and lengths included, one after the other."""
        data = messages
        at = 0
        size = len(messages)
        counted = 0
        while at < size and not self.complete:
            if size - at < 5 or data[at] != 68:
                raise _strange_row()
            length = data[at + 1] << 24 | data[at + 2] << 16 | data[at + 3] << 8 | data[at + 4]
            if data[at + 1] >= 128 or length < 6 or length > size - at - 1:
                raise _strange_row()
            if self._verbatim:
                counted += 1
            else:
                self.feed(shard, messages[at + 5 : at + 1 + length])
            at += 1 + length
        if counted:
            self.rows += counted
            self._out.append(messages)
            self._out_bytes += size

    def finish(self, shard: int) -> None:
        """That shard has no more rows (its CommandComplete arrived)."""
        if self._finished[shard]:
            return
        self._finished[shard] = True
        if not self._queues[shard]:
            self._missing -= 1
            if not self._missing:
                self._advance()

    def take(self) -> bytes:
        """Client-ready DataRow messages that are certain by now."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        return data

    def _advance(self) -> None:
        heap = self._heap
        while heap:
            shard = heap[0][1]
            queue = self._queues[shard]
            item = queue.popleft()
            self._sizes[shard] -= len(item[1])
            self._emit(item[1], item[2])
            if self.complete:
                break
            if queue:
                heapreplace(heap, (queue[0][0], shard))
                continue
            heappop(heap)
            if not self._finished[shard]:
                self._missing += 1
                return
        if self.complete:
            for waiting in self._queues:
                waiting.clear()
            self._sizes = [0] * len(self._sizes)
            heap.clear()

    def _emit(self, message: bytes, mark: bytes) -> None:
        if self._distinct is not None:
            if mark in self._seen:
                return
            self._seen.add(mark)
            self._seen_bytes += len(mark) + DISTINCT_OVERHEAD_BYTES
            if self._seen_bytes > self._distinct_limit_bytes:
                raise too_much("distinct values", self._distinct_limit_bytes)
        if self._skip > 0:
            self._skip -= 1
            return
        self._out.append(message)
        self._out_bytes += len(message)
        self.rows += 1
        if self._left > 0:
            self._left -= 1
            if self._left == 0:
                self.complete = True


def too_much(what: str, limit_bytes: int) -> ClientFault:
    """53400: a limit of ours, not of PostgreSQL."""
    return ClientFault(
        f"{what} of a query over several shards need more than {limit_bytes} bytes",
        sqlstate="53400",
        hint="restrict the query, or raise the limit",
    )


def _strange_row() -> ServerFault:
    return ServerFault("a shard sent a row that does not fit its description", sqlstate="08P01")
