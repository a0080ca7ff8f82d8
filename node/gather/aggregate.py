"""Partial aggregates of several shards become PostgreSQL's own: same value, same type, same display scale.

Shards compute what they can (`sum(x)`, `count(x)`, `array_agg(DISTINCT x)` in hidden binary columns); here the parts
of one group are combined. A group's other columns come from the first of its rows to arrive: they depend on the group
only, so any shard's copy is right. min, max and the boolean aggregates *choose* one shard's row, whose visible column
is then exact whatever expression stands around them.

Exact means: integers and numerics never pass through floating point; float sums are refused, because PostgreSQL's
result depends on the order of additions, which differs between one server and several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from node.errors import refused
from node.gather import numeric, values
from node.gather.merge import DISTINCT_OVERHEAD_BYTES, too_much
from node.gather.numeric import Numeric
from node.gather.results import Result, convert
from node.routing.outcome import Aggregate
from node.wire.messages import Column

Row = list[bytes | None]


class State(Protocol):
    """One aggregate of one group."""

    def add(self, row: Row) -> None: ...
    def result(self) -> Result: ...


class Chosen:
    """min, max, bool_and, bool_or: the row whose partial wins lends its visible column."""

    def __init__(self, partial: int, output: int, key: values.Key, largest: bool) -> None:
        self.partial, self.output, self.key, self.largest = partial, output, key, largest
        self.best: bytes | None = None
        self.shown: bytes | None = None
        self.empty = True

    def add(self, row: Row) -> None:
        raw = row[self.partial]
        if raw is None:
            if self.empty:
                self.shown = row[self.output]
            self.empty = False
            return
        key = self.key(raw)
        if self.best is None or (key > self.best if self.largest else key < self.best):
            self.best, self.shown = key, row[self.output]
        self.empty = False

    def result(self) -> Result:
        return self.shown


class Integers:
    """count and sums of partial integers, and bit_and, bit_or, bit_xor: NULL until a part is not."""

    def __init__(self, partial: int, combine: Callable[[int, int], int]) -> None:
        self.partial, self.combine = partial, combine
        self.value: int | None = None

    def add(self, row: Row) -> None:
        raw = row[self.partial]
        if raw is not None:
            part = values.int_of(raw)
            self.value = part if self.value is None else self.combine(self.value, part)

    def result(self) -> Result:
        return self.value


class Numerics:
    """Sums of partial numerics, NaN and infinities included."""

    def __init__(self, partial: int) -> None:
        self.partial = partial
        self.value: Numeric | None = None

    def add(self, row: Row) -> None:
        raw = row[self.partial]
        if raw is not None:
            part = numeric.decode(raw)
            self.value = part if self.value is None else numeric.add(self.value, part)

    def result(self) -> Result:
        return self.value


class Average:
    """The sum of the sums over the sum of the counts, with numeric division's own scale."""

    def __init__(self, total: State, count: State) -> None:
        self.total, self.count = total, count

    def add(self, row: Row) -> None:
        self.total.add(row)
        self.count.add(row)

    def result(self) -> Result:
        total, count = self.total.result(), self.count.result()
        if total is None or not isinstance(count, int) or not count:
            return None
        if isinstance(total, int):
            total = numeric.of_int(total)
        if not isinstance(total, Numeric):
            return None
        return numeric.divide(total, numeric.of_int(count))


class Spread:
    """The variance family from N, sum(x) and sum(x*x), all exact numerics."""

    def __init__(self, count: State, total: State, squares: State, sample: bool, root: bool) -> None:
        self.parts = (count, total, squares)
        self.sample, self.root = sample, root

    def add(self, row: Row) -> None:
        for part in self.parts:
            part.add(row)

    def result(self) -> Result:
        count, total, squares = (part.result() for part in self.parts)
        if not isinstance(count, int) or not isinstance(total, Numeric) or not isinstance(squares, Numeric):
            return None
        if count <= (1 if self.sample else 0):
            return None
        if total.kind or squares.kind:
            return numeric.NAN
        return spread(count, total, squares, self.sample, self.root)


class Distinct:
    """aggregate(DISTINCT x): the shards' sets are united by PostgreSQL's equality, then counted or added."""

    def __init__(self, partial: int, finish: Callable[[list[tuple[int, bytes]]], Result], room: Room) -> None:
        self.partial, self.finish, self.room = partial, finish, room
        self.seen: dict[bytes, tuple[int, bytes]] = {}

    def add(self, row: Row) -> None:
        raw = row[self.partial]
        if raw is None:
            return
        element, found = values.array_elements(raw)
        key = values.equality_key(element, "DISTINCT in an aggregate")
        for value in found:
            if value is None:
                continue
            mark = key(value)
            if mark not in self.seen:
                self.seen[mark] = (element, value)
                self.room.use(len(mark) + len(value) + DISTINCT_OVERHEAD_BYTES)

    def result(self) -> Result:
        return self.finish(list(self.seen.values()))


class Room:
    """Memory that groups and distinct values of one query may take together."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def use(self, size: int) -> None:
        self.used_bytes += size
        if self.used_bytes > self.limit_bytes:
            raise too_much("groups and distinct values", self.limit_bytes)


def spread(count: int, total: Numeric, squares: Numeric, sample: bool, root: bool) -> Numeric:
    """(N·Σx² − (Σx)²) / (N·(N − 1 or N)), rounded where the server rounds."""
    left = numeric.multiply(numeric.of_int(count), squares)
    right = numeric.multiply(total, total)
    # The server rounds both products to twice the sum's scale before it subtracts.
    scale = 2 * total.scale
    top = numeric.add(numeric.rescale(left, scale), numeric.rescale(Numeric(0, -right.digits, right.scale), scale))
    if top.digits <= 0:
        return numeric.ZERO
    bottom = numeric.of_int(count * (count - 1 if sample else count))
    wanted = numeric.division_scale(top, bottom)
    result = numeric.divide(top, bottom)
    return numeric.square_root(result, wanted) if root else result


def state(aggregate: Aggregate, columns: Sequence[Column], room: Room) -> Callable[[], State]:
    """How to start this aggregate for a new group; types are judged here, once. Raises 0A000.

    `columns` are the whole row's, and the aggregate's column numbers are plain indexes by now.
    """
    name, parts, output = aggregate.function, aggregate.partials, aggregate.output
    first = columns[parts[0]].type_oid
    label = f"{name}()"
    if name in ("min", "max"):
        key = values.ordering_key(first, aggregate.bytewise, label)
        return lambda: Chosen(parts[0], output, key, name == "max")
    if name in ("count", "bit_and", "bit_or", "bit_xor"):
        if first not in values.INTEGERS:
            raise refused(f"{label} of this type")
        combine = _COMBINE[name]
        return lambda: Integers(parts[0], combine)
    if name == "sum":
        return _sum(parts[0], first, label)
    if name == "avg":
        total, count = _sum(parts[0], first, label), _sum(parts[1], columns[parts[1]].type_oid, label)
        return lambda: Average(total(), count())
    if name in _SPREADS:
        # The shard's own result tells the argument's type: over floats it is double precision.
        if columns[parts[3]].type_oid != values.NUMERIC:
            raise _inexact(label)
        sample, root = _SPREADS[name]
        count_at, total_at, squares_at = parts[:3]
        return lambda: Spread(
            Integers(count_at, _COMBINE["count"]), Numerics(total_at), Numerics(squares_at), sample, root
        )
    if name in _DISTINCT:
        element = values.ARRAYS.get(first)
        if element is None and first not in _MORE_ARRAYS:
            raise refused(f"{name.removesuffix(' distinct')}(DISTINCT) of this type")
        if name != "count distinct" and first not in _SUMMABLE_ARRAYS:
            raise _inexact(label)
        finish = _DISTINCT[name]
        return lambda: Distinct(parts[0], finish, room)
    raise refused(f"aggregate {label}")


def _sum(partial: int, type_oid: int, label: str) -> Callable[[], State]:
    if type_oid in values.INTEGERS:
        return lambda: Integers(partial, _COMBINE["count"])
    if type_oid == values.NUMERIC:
        return lambda: Numerics(partial)
    if type_oid in (values.FLOAT4, values.FLOAT8):
        raise _inexact(label)
    raise refused(f"{label} of this type", detail=f"its result has type OID {type_oid}")


def _inexact(label: str) -> Exception:
    return refused(
        f"{label} of floating-point values",
        detail="the result depends on the order in which values are added",
        hint="cast the argument to numeric",
    )


def _sum_distinct(found: list[tuple[int, bytes]]) -> Result:
    if not found:
        return None
    if found[0][0] != values.NUMERIC:
        return sum(values.int_of(raw) for _, raw in found)
    total = numeric.decode(found[0][1])
    for _, raw in found[1:]:
        total = numeric.add(total, numeric.decode(raw))
    return total


def _avg_distinct(found: list[tuple[int, bytes]]) -> Result:
    total = _sum_distinct(found)
    if isinstance(total, int):
        total = numeric.of_int(total)
    return numeric.divide(total, numeric.of_int(len(found))) if isinstance(total, Numeric) else None


_COMBINE: dict[str, Callable[[int, int], int]] = {
    "count": int.__add__,
    "bit_and": int.__and__,
    "bit_or": int.__or__,
    "bit_xor": int.__xor__,
}
_SPREADS = {  # name: (divides by N - 1, takes the root)
    "variance": (True, False),
    "var_samp": (True, False),
    "var_pop": (False, False),
    "stddev": (True, True),
    "stddev_samp": (True, True),
    "stddev_pop": (False, True),
}
_DISTINCT: dict[str, Callable[[list[tuple[int, bytes]]], Result]] = {
    "count distinct": len,
    "sum distinct": _sum_distinct,
    "avg distinct": _avg_distinct,
}
_INT2_ARRAY, _INT4_ARRAY, _INT8_ARRAY, _NUMERIC_ARRAY = 1005, 1007, 1016, 1231
_SUMMABLE_ARRAYS = frozenset((_INT2_ARRAY, _INT4_ARRAY, _INT8_ARRAY, _NUMERIC_ARRAY))
# Element types that are compared by their own keys although a whole array of them is not: float4, float8, numeric,
# interval, timetz, character(n), "char", bit, varbit, money, macaddr8, pg_lsn.
_MORE_ARRAYS = frozenset((1021, 1022, _NUMERIC_ARRAY, 1187, 1270, 1014, 1002, 1561, 1563, 791, 775, 3221))


class Groups:
    """Hash aggregation: one row and one state per aggregate for every group."""

    def __init__(
        self,
        columns: Sequence[Column],
        group: Sequence[int],
        aggregates: Sequence[Aggregate],
        room: Room,
    ) -> None:
        self._columns = columns
        self._group = [(n, values.equality_key(columns[n].type_oid, "GROUP BY")) for n in group]
        self._aggregates = [(a, state(a, columns, room), columns[a.output]) for a in aggregates]
        self._groups: dict[bytes, tuple[Row, list[State]]] = {}
        self._room = room

    def __len__(self) -> int:
        return len(self._groups)

    def add(self, row: Row) -> None:
        mark = b"".join([b"\0" if (raw := row[n]) is None else b"\1" + key(raw) for n, key in self._group])
        found = self._groups.get(mark)
        if found is None:
            found = self._groups[mark] = (row, [start() for _, start, _ in self._aggregates])
            self._room.use(len(mark) + sum(len(raw) for raw in row if raw) + DISTINCT_OVERHEAD_BYTES * len(row))
        for each in found[1]:
            each.add(row)

    def rows(self) -> list[Row]:
        """The finished rows, hidden columns included, in order of each group's first arrival."""
        finished = []
        for row, states in self._groups.values():
            done = list(row)
            for (aggregate, _, column), each in zip(self._aggregates, states, strict=True):
                value = each.result()
                if value is None and aggregate.otherwise:
                    continue  # every shard's part was NULL, so every shard shows the alternative
                done[aggregate.output] = convert(value, column, aggregate.digits)
            finished.append(done)
        self._groups.clear()
        return finished
