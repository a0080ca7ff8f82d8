"""One INSERT becomes several, and their answers one: batches for INSERT ... SELECT, RETURNING rows, command tags.

The text of a multi-row INSERT is split by routing (SplitProgram); here is what happens with rows and results.

INSERT ... SELECT: all rows are computed before the first is stored, as in one server, whose SELECT does not see its
own inserts. Rows then travel as parameters *of the type that the SELECT described*, so that every shard applies the
same assignment cast one server would have applied (boolean to text is `true`, not `t`); the key is computed by the
same cast here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from node.errors import Bug, ClientFault, refused
from node.gather import numeric, values
from node.gather.merge import too_much
from node.routing.outcome import InsertSelectProgram
from node.routing.topology import DataType
from node.wire.messages import BINARY, Column, parse_data_row

INSERT_SELECT_BYTES = 64 << 20  # rows of one INSERT ... SELECT held here; more is 53400
BATCH_ROWS = 1000
BATCH_BYTES = 4 << 20
MAX_PARAMETERS = 65535  # of one Bind message
EVERY_SHARD = -1
_FIRST_USER_OID = 16384
_COUNTED = frozenset(("INSERT", "UPDATE", "DELETE", "MERGE", "SELECT", "COPY", "FETCH", "MOVE"))


@dataclass(frozen=True, slots=True)
class Batch:
    """One INSERT for one shard (EVERY_SHARD: for all of them). `rows` are numbers of the SELECT's rows, from 0."""

    shard: int
    sql: str
    types: tuple[int, ...]
    formats: tuple[int, ...]
    parameters: tuple[bytes | None, ...]
    rows: tuple[int, ...]


class InsertSelect:
    """Collects the SELECT's rows, then hands out the INSERTs.

    `columns` describe the SELECT's result in the formats its rows have. `shard_of(key)` maps the key as text (None
    for NULL) to a shard and raises ClientFault for a key without one. `literals` are columns which are bare string
    constants or NULL in the select list: as in one statement, they take the target column's type.
    """

    def __init__(
        self,
        program: InsertSelectProgram,
        columns: Sequence[Column],
        shard_of: Callable[[bytes | None], int],
        *,
        literals: frozenset[int] = frozenset(),
        limit_bytes: int = INSERT_SELECT_BYTES,
    ) -> None:
        if len(columns) != len(program.columns):
            more = len(columns) > len(program.columns)
            text = (
                "INSERT has more expressions than target columns"
                if more
                else ("INSERT has more target columns than expressions")
            )
            raise ClientFault(text, sqlstate="42601")
        self._program = program
        self._columns = columns
        self._shard_of = shard_of
        self._limit_bytes = limit_bytes
        self._rows: list[tuple[int, int, list[bytes | None]]] = []
        self.held_bytes = 0
        # Types made by users have other OIDs on other shards: their text is read as the target column's type.
        self._types = tuple(
            0 if n in literals or c.type_oid >= _FIRST_USER_OID else c.type_oid for n, c in enumerate(columns)
        )
        user_binary = any(c.format == BINARY and not oid for c, oid in zip(columns, self._types, strict=True))
        if user_binary:
            raise Bug("INSERT ... SELECT reads untyped columns in binary")

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, body: bytes) -> None:
        """One DataRow body. Raises 53400 over the limit, and what `shard_of` raises."""
        row = parse_data_row(body)
        self.held_bytes += len(body)
        if self.held_bytes > self._limit_bytes:
            raise too_much("the rows of INSERT ... SELECT", self._limit_bytes)
        rule = self._program.rule
        shard = EVERY_SHARD
        if rule is not None:
            at = self._program.key_column
            column = self._columns[at]
            oid = self._types[at] or values.TEXT
            shard = self._shard_of(assigned_key(row[at], oid, column.format == BINARY, rule.data_type))
        self._rows.append((shard, len(self._rows), row))

    def batches(self) -> Iterator[Batch]:
        """Shard by shard, rows in the SELECT's order."""
        by_shard: dict[int, list[tuple[int, list[bytes | None]]]] = {}
        for shard, number, row in self._rows:
            by_shard.setdefault(shard, []).append((number, row))
        for shard in sorted(by_shard):
            chunks = list(self._chunks(by_shard[shard]))
            if len(chunks) > 1 and "DO UPDATE" in self._program.insert_tail.upper():
                # One statement refuses to touch a row twice; several would do it silently.
                raise refused(
                    "INSERT ... SELECT ... ON CONFLICT DO UPDATE of this many rows",
                    detail=f"{len(by_shard[shard])} rows for one shard do not fit into one statement",
                )
            for chunk in chunks:
                yield self._batch(shard, chunk)

    def _chunks(self, rows: list[tuple[int, list[bytes | None]]]) -> Iterator[list[tuple[int, list[bytes | None]]]]:
        most = max(1, min(BATCH_ROWS, MAX_PARAMETERS // max(1, len(self._columns))))
        if "DO UPDATE" in self._program.insert_tail.upper():
            most = max(1, MAX_PARAMETERS // max(1, len(self._columns)))
        chunk: list[tuple[int, list[bytes | None]]] = []
        size = 0
        for number, row in rows:
            chunk.append((number, row))
            size += sum(len(value) for value in row if value)
            if len(chunk) >= most or size > BATCH_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _batch(self, shard: int, chunk: list[tuple[int, list[bytes | None]]]) -> Batch:
        width = len(self._columns)
        parameters: list[bytes | None] = []
        for _, row in chunk:
            parameters += row
        lists = ", ".join(
            "(" + ", ".join(f"${n * width + k + 1}" for k in range(width)) + ")" for n in range(len(chunk))
        )
        sql = f"{self._program.insert_head} {lists} {self._program.insert_tail}".rstrip()
        formats = tuple(c.format for c in self._columns) * len(chunk)
        return Batch(
            shard, sql, self._types * len(chunk), formats, tuple(parameters), tuple(number for number, _ in chunk)
        )


def assigned_key(raw: bytes | None, type_oid: int, binary: bool, data_type: DataType) -> bytes | None:
    """The key as text after the assignment cast from the SELECT's type to the key column's.

    Where PostgreSQL has no such cast the shard will say so; the value is passed on. Raises 0A000 for casts that are
    not emulated exactly, 22003 for a number that is no bigint.
    """
    if raw is None:
        return None
    if data_type == DataType.BIGINT:
        if type_oid in values.INTEGERS:
            return b"%d" % values.int_of(raw) if binary else raw
        if type_oid == values.NUMERIC:
            number = numeric.decode(raw) if binary else _numeric_text(raw)
            if number.kind:
                raise ClientFault("cannot convert NaN or infinity to bigint", sqlstate="0A000")
            return b"%d" % numeric.rescale(number, 0).digits
        if type_oid in (values.FLOAT4, values.FLOAT8):
            raise refused("a floating-point value for the sharding key")
    if binary and type_oid == values.UUID:
        text = raw.hex()
        return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:])).encode()
    if type_oid == values.BPCHAR:
        return raw.rstrip(b" ")
    if type_oid == values.BOOL and data_type == DataType.VARCHAR:
        return b"true" if raw in (b"t", b"\1") else b"false"
    if binary and type_oid not in (values.TEXT, values.VARCHAR, values.NAME):
        raise refused("a binary value of this type for the sharding key")
    return raw


def _numeric_text(raw: bytes) -> numeric.Numeric:
    """numeric's output text, back to a value."""
    text = raw.decode("ascii")
    if text in ("NaN", "Infinity", "-Infinity"):
        return numeric.NAN
    whole, _, fraction = text.partition(".")
    return numeric.Numeric(numeric.FINITE, int(whole + fraction), len(fraction))


def interleave(numbers: Sequence[Sequence[int]], returned: Sequence[Sequence[bytes]]) -> list[bytes]:
    """RETURNING rows of the parts, in the order of the client's rows.

    `numbers[k]` are the client's row numbers of part k, `returned[k]` its DataRow bodies in the order they came. A
    part that returned fewer rows than it was given (ON CONFLICT DO NOTHING, a trigger) cannot tell which are missing:
    then the parts follow one another.
    """
    if all(len(given) == len(rows) for given, rows in zip(numbers, returned, strict=True)):
        pairs = [
            pair
            for given, rows in zip(numbers, returned, strict=True)
            for pair in zip(given, rows, strict=True)
        ]  # fmt: skip
        pairs.sort(key=lambda pair: pair[0])
        return [row for _, row in pairs]
    return [row for rows in returned for row in rows]


def combine_tags(tags: Sequence[str]) -> str:
    """One command tag for several: counts add up. Tags of different commands are a bug of ours."""
    if not tags:
        raise Bug("no command tag to combine")
    commands = {tag.rstrip("0123456789").rstrip() for tag in tags}
    if len(commands) != 1:
        raise Bug("shards answered with different commands", detail=", ".join(sorted(commands)))
    command = tags[0].split(" ", 1)[0]
    if command not in _COUNTED or not tags[0][-1:].isdigit():
        return tags[0]
    total = sum(int(tag.rsplit(" ", 1)[1]) for tag in tags)
    # The object ID in INSERT's tag is always 0 since tables have no object IDs.
    return f"INSERT 0 {total}" if command == "INSERT" else f"{command} {total}"
