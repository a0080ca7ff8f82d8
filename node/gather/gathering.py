"""`Gathering`: the rows of several shards as the rows of one PostgreSQL, driven by a MergeProgram.

Sans-IO. The exchange feeds what the shards sent and takes what the client gets:

    gathering = Gathering(program, columns, client_formats, shards)
    gathering.row_description()           for the client
    gathering.feed(n, data_row_body)      or feed_rows(n, whole_messages)
    gathering.finish(n)                   shard n said CommandComplete
    gathering.take()                      DataRow messages that are certain by now
    gathering.complete                    LIMIT reached: cancel the others
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from node.errors import ClientFault, ServerFault
from node.gather import values
from node.gather.aggregate import Groups, Room, Row
from node.gather.merge import OTHER, PLAIN, SIGNED, KeySpec, Merge, Rows
from node.routing.outcome import MergeProgram, SortKey
from node.wire.messages import BINARY, TEXT, Column, data_row, parse_data_row, row_description

BUFFER_BYTES = 1 << 20  # per shard, waiting for other shards; beyond it `full` asks to stop reading
MEMORY_BYTES = 256 << 20  # groups and distinct values of one query; more is 53400


def client_formats(given: Sequence[int], columns: int) -> tuple[int, ...]:
    """Bind's result formats spelled out: none given means text, one given means it for all (08P01 otherwise)."""
    if not given:
        return (TEXT,) * columns
    if len(given) == 1:
        return tuple(given) * columns
    if len(given) != columns:
        raise ClientFault(
            f"bind message has {len(given)} result formats but query has {columns} columns", sqlstate="08P01"
        )
    return tuple(given)


def visible_columns(program: MergeProgram, total: int) -> int:
    """How many of a shard's columns are the client's."""
    shown = (total - program.hidden) // (2 if program.twins else 1)
    if shown < 0 or shown * (2 if program.twins else 1) + program.hidden != total:
        raise ServerFault("a shard described other columns than its query has", sqlstate="08P01")
    return shown


def shard_formats(program: MergeProgram, total: int, given: Sequence[int]) -> tuple[int, ...]:
    """The result formats to bind at a shard whose statement describes `total` columns; hidden ones are binary."""
    shown = visible_columns(program, total)
    return client_formats(given, shown) + (BINARY,) * (total - shown)


class Gathering:
    """One query's rows. `columns` is what the first shard described; `check` compares the others' with it.

    Raises ClientFault 0A000 when a type or collation cannot be compared exactly, 53400 over `memory_bytes`.
    """

    def __init__(
        self,
        program: MergeProgram,
        columns: Sequence[Column],
        formats: Sequence[int],
        shards: int,
        *,
        buffer_bytes: int = BUFFER_BYTES,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._total = len(columns)
        self._shown = visible_columns(program, self._total)
        codes = shard_formats(program, self._total, formats)
        self._columns = [c._replace(format=code) for c, code in zip(columns, codes, strict=True)]
        self._program = program
        sort = [self._spec(key, ordering=True) for key in program.sort]
        self._groups: Groups | None = None
        self._pending = shards
        rows, limit = Rows(self._total, self._shown), -1 if program.limit is None else program.limit
        if program.group is None:
            distinct = None
            if program.distinct is not None:
                marks = program.distinct or range(self._shown)
                distinct = [self._spec(SortKey(n), ordering=False) for n in marks]
            self._merge = Merge(rows, shards, sort, distinct, limit, program.offset, buffer_bytes, memory_bytes)
        else:
            aggregates = [
                replace(a, output=self._at(a.output), partials=tuple(map(self._at, a.partials)))
                for a in program.aggregates
            ]
            group = [self._key_at(n) for n in program.group]
            self._groups = Groups(self._columns, group, aggregates, Room(memory_bytes))
            # The finished groups pass through a merge of one source, which sorts nothing but cuts.
            self._sort = sort
            self._rows = rows
            self._merge = Merge(rows, 1, (), None, limit, program.offset, buffer_bytes, memory_bytes)

    def row_description(self) -> bytes:
        """For the client: names, types and modifiers are the shards' own."""
        return row_description(self._columns[: self._shown])

    def check(self, columns: Sequence[Column]) -> None:
        """Another shard must describe the same rows; types made by users may have another OID there."""
        same = len(columns) == self._total and all(
            theirs.name == ours.name
            and (theirs.type_oid == ours.type_oid or min(theirs.type_oid, ours.type_oid) >= _FIRST_USER_OID)
            for theirs, ours in zip(columns, self._columns, strict=True)
        )
        if not same:
            raise ClientFault(
                "the shards describe this query's rows differently",
                sqlstate="42P16",
                hint="apply the same schema on every shard",
            )

    def feed(self, shard: int, body: bytes) -> None:
        """One DataRow body."""
        if self._groups is None:
            self._merge.feed(shard, body)
            return
        row = parse_data_row(body)
        if len(row) != self._total:
            raise ServerFault("a shard sent a row that does not fit its description", sqlstate="08P01")
        self._groups.add(row)

    def feed_rows(self, shard: int, messages: bytes) -> None:
        """Whole DataRow messages, one after the other."""
        if self._groups is None:
            self._merge.feed_rows(shard, messages)
            return
        at = 0
        while at < len(messages):
            end = at + 1 + int.from_bytes(messages[at + 1 : at + 5], "big")
            self.feed(shard, messages[at + 5 : end])
            at = end

    def finish(self, shard: int) -> None:
        """That shard is done."""
        if self._groups is None:
            self._merge.finish(shard)
            return
        self._pending -= 1
        if self._pending == 0:
            for row in self._sorted(self._groups.rows()):
                self._merge.feed(0, data_row(row)[5:])
            self._merge.finish(0)

    def take(self) -> bytes:
        return self._merge.take()

    def hungry(self) -> tuple[int, ...]:
        """Shards whose next row everything waits for; never stop reading these."""
        return self._merge.hungry() if self._groups is None else ()

    def full(self, shard: int) -> bool:
        """Stop reading this shard until `take` or another shard's rows made room."""
        return self._groups is None and self._merge.full(shard)

    @property
    def complete(self) -> bool:
        """LIMIT is reached: whatever still comes is not needed."""
        return bool(self._merge.complete)

    @property
    def rows(self) -> int:
        """Rows for the client so far: the number in the command tag."""
        return int(self._merge.rows)

    @property
    def buffered_bytes(self) -> int:
        return int(self._merge.buffered_bytes)

    def _at(self, column: int) -> int:
        """A program's column number as an index into the row."""
        return column if column >= 0 else self._total + column

    def _key_at(self, column: int) -> int:
        """The same, but the client's own columns are read through their binary twins."""
        return self._at(column) + (self._shown if column >= 0 and self._program.twins else 0)

    def _spec(self, key: SortKey, *, ordering: bool) -> KeySpec:
        at = self._key_at(key.column)
        if not 0 <= at < self._total or self._columns[at].format != BINARY:
            raise ServerFault("a shard described other columns than its query has", sqlstate="08P01")
        oid = self._columns[at].type_oid
        if ordering:
            make = values.ordering_key(oid, key.bytewise, "ORDER BY")
        else:
            make = values.equality_key(oid, "DISTINCT")
        kind = SIGNED if oid in values.INLINE_SIGNED else PLAIN if oid in values.INLINE_PLAIN else OTHER
        return KeySpec(at, kind, make, key.descending, key.nulls_first)

    def _sorted(self, rows: list[Row]) -> list[Row]:
        if not self._sort:
            return rows
        keyed = []
        for row in rows:
            body = data_row(row)[5:]
            self._rows.open(body)
            keyed.append((self._rows.key(body, self._sort), row))
        keyed.sort(key=lambda pair: pair[0])
        return [row for _, row in keyed]


_FIRST_USER_OID = 16384
