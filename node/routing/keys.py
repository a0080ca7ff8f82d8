"""Sets of key values, and how conditions become them once values are known.

`KeySet` holds single values (None is NULL) and closed intervals; ALL is everything. Sets only ever err on the large
side: more shards than needed are asked, never fewer.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, NamedTuple

from node.errors import ClientFault
from node.routing.conditions import AllOf, AnyOf, Compare, Condition, IsNull, Member, OneOf, Same
from node.routing.operands import ArrayOf, Operand, Parameter
from node.routing.outcome import Values
from node.routing.shard_map import KeyValue, placed_shards, shard_of
from node.routing.stored import AS_GIVEN, Stored
from node.routing.topology import DataType, ShardedTable
from node.routing.typed import Typed, cast, evaluate, in_range, read_uuid, text_value

WIDTH_MAX: Final = 64  # a BETWEEN no wider than this is a list of keys, also under a hash
TARGETS: Final = {DataType.BIGINT: "int8", DataType.VARCHAR: "text", DataType.UUID: "uuid", DataType.VECTOR: "vector"}

_SMALLER: Final = {23: "int4", 21: "int2"}

Interval = tuple[KeyValue | None, KeyValue | None]  # both ends included; None: open


class KeySet(NamedTuple):
    points: frozenset[KeyValue | None] = frozenset()
    intervals: tuple[Interval, ...] = ()
    everything: bool = False


ALL: Final = KeySet(everything=True)
NOTHING: Final = KeySet()
JUST_NULL: Final = KeySet(frozenset((None,)))


def union(a: KeySet, b: KeySet) -> KeySet:
    if a.everything or b.everything:
        return ALL
    return KeySet(a.points | b.points, a.intervals + b.intervals)


def intersection(a: KeySet, b: KeySet) -> KeySet:
    if a.everything:
        return b
    if b.everything:
        return a
    points = frozenset(p for p in a.points if _has(b, p)) | frozenset(p for p in b.points if _has(a, p))
    intervals = tuple(met for x in a.intervals for y in b.intervals if (met := _overlap(x, y)) is not None)
    return KeySet(points, intervals)


def _has(keys: KeySet, value: KeyValue | None) -> bool:
    return value in keys.points or (value is not None and any(_within(i, value) for i in keys.intervals))


def _within(interval: Interval, value: KeyValue) -> bool:
    low, high = interval
    return not (low is not None and value < low) and not (high is not None and high < value)  # type: ignore[operator]


def _overlap(a: Interval, b: Interval) -> Interval | None:
    low = a[0] if b[0] is None else b[0] if a[0] is None else max(a[0], b[0])
    high = a[1] if b[1] is None else b[1] if a[1] is None else min(a[1], b[1])
    if low is not None and high is not None and high < low:  # type: ignore[operator]
        return None
    return low, high


def shards_of(rule: ShardedTable, keys: KeySet, shards: int) -> tuple[int, ...]:
    """Every shard on which rows with these keys may live, ascending. Unmapped keys live nowhere."""
    if keys.everything:
        return placed_shards(rule, shards)
    found: set[int] = set()
    for point in keys.points:
        shard = shard_of(rule, point, shards)
        if shard is not None:
            found.add(shard)
    for low, high in keys.intervals:
        if isinstance(low, int) and isinstance(high, int) and high - low <= WIDTH_MAX:
            found.update(s for v in range(low, high + 1) if (s := shard_of(rule, v, shards)) is not None)
        elif rule.mapping is not None:
            found.update(rule.mapping.shards_between(low, high))
        else:
            return placed_shards(rule, shards)
    return tuple(sorted(found))


def keys_of(condition: Condition | None, rule: ShardedTable, values: Values, stored: Stored = AS_GIVEN) -> KeySet:
    """The keys a condition allows; it speaks of nothing but the rule's column. ClientFault for unreadable values."""
    match condition:
        case None | Same():
            return ALL
        case Compare(operator="=" | "is"):
            return _equal(condition, rule, values, stored)
        case Compare():
            return _ordered(condition, rule, values, stored)
        case Member():
            if _mixed(condition.operands, rule, values):
                return ALL
            found = NOTHING
            beside = stored if len(condition.operands) < 2 else stored.wider  # numbers may widen the list's type
            for operand in condition.operands:
                found = union(found, _points(evaluate(operand, values, target_of(rule, beside)), rule, beside))
            return found
        case AnyOf():
            return _any(condition, rule, values, stored)
        case IsNull():
            return JUST_NULL
        case AllOf():
            found = ALL
            for part in condition.parts:
                found = intersection(found, keys_of(part, rule, values, stored))
            return found
        case OneOf():
            found = NOTHING
            for part in condition.parts:
                found = union(found, keys_of(part, rule, values, stored))
            return found


def target_of(rule: ShardedTable, stored: Stored = AS_GIVEN) -> str:
    """The type that a literal or a parameter takes beside the key column; errors name it."""
    target = TARGETS[rule.data_type]
    return _SMALLER.get(stored.type_oid, target) if target == "int8" else target


def _equal(condition: Compare, rule: ShardedTable, values: Values, stored: Stored) -> KeySet:
    found = evaluate(condition.operand, values, target_of(rule, stored))
    if condition.operator == "is" and found is not None and found.kind == "null":
        return JUST_NULL
    return _points(found, rule, stored)


def _points(found: Typed | None, rule: ShardedTable, stored: Stored = AS_GIVEN) -> KeySet:
    """The keys equal to a value; a comparison with NULL holds for none."""
    if found is None:
        return ALL
    if found.kind == "null":
        return NOTHING
    value = found.value
    if rule.data_type == DataType.BIGINT:
        if found.kind == "unknown" and isinstance(value, bytes):
            read = text_value(value, target_of(rule, stored))
            value = read.value if read is not None else None
        if isinstance(value, Decimal):  # bigint is compared as numeric: 5.0 finds 5, 1.5 finds nothing
            if value != value.to_integral_value():
                return NOTHING
            value = int(value)
        if not isinstance(value, int):
            return ALL
        return KeySet(frozenset((value,))) if -(2**63) <= value < 2**63 else NOTHING
    if rule.data_type == DataType.VARCHAR:
        if found.kind in ("unknown", "text") and isinstance(value, bytes):
            return KeySet(frozenset((stored.compared(_utf8(value)),)))
        return ALL
    if rule.data_type == DataType.UUID and isinstance(value, bytes):
        if found.kind == "unknown":
            return KeySet(frozenset((read_uuid(value),)))
        return KeySet(frozenset((value,))) if found.kind == "uuid" else ALL
    return ALL


def _utf8(value: bytes) -> bytes:
    """Text keys hash as the server stores them. Bytes of another client_encoding would name a wrong shard."""
    if not value.isascii():
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise ClientFault(
                f'invalid byte sequence for encoding "UTF8": 0x{value[error.start]:02x}',
                sqlstate="22021",
                hint="sharding keys of type text need client_encoding UTF8",
            ) from None
    return value


def _mixed(operands: tuple[Operand, ...], rule: ShardedTable, values: Values) -> bool:
    """Elements of one list get one type: beside a fraction, '1.0' and an undeclared parameter are no integers."""
    if rule.data_type != DataType.BIGINT or len(operands) < 2:
        return False
    known = [evaluate(o, values, "") for o in operands if not isinstance(o, Parameter)]
    return any(found is None or found.kind not in ("int", "unknown", "null") for found in known) and (
        len(known) < len(operands) or any(found is not None and found.kind == "unknown" for found in known)
    )


def _any(condition: AnyOf, rule: ShardedTable, values: Values, stored: Stored) -> KeySet:
    target = target_of(rule, stored)
    if isinstance(condition.operand, ArrayOf) and _mixed(condition.operand.elements, rule, values):
        return ALL
    found = evaluate(condition.operand, values, target + "[]")
    if found is not None and found.kind == "unknown" and isinstance(found.value, bytes):
        found = cast(found, target + "[]")
    if found is None:
        return ALL
    if found.kind == "null":
        return NOTHING
    if found.kind != "array" or not isinstance(found.value, tuple):
        return ALL
    keys = NOTHING
    for element in found.value:
        keys = union(keys, _points(element, rule, stored))
    return keys


def _ordered(condition: Compare, rule: ShardedTable, values: Values, stored: Stored) -> KeySet:
    found = evaluate(condition.operand, values, target_of(rule, stored))
    if found is None:
        return ALL
    if found.kind == "null":
        return NOTHING
    value = found.value
    if rule.data_type == DataType.BIGINT:
        if found.kind == "unknown":
            read = text_value(value, target_of(rule, stored)) if isinstance(value, bytes) else None
            value = read.value if read is not None else None
        if not isinstance(value, int):
            return ALL
        # Integers: an excluded end is the included end next to it.
        low: KeyValue | None = None
        high: KeyValue | None = None
        if condition.operator in (">", ">="):
            low = value + (condition.operator == ">")
        else:
            high = value - (condition.operator == "<")
        return KeySet(intervals=((low, high),))
    if rule.data_type == DataType.VARCHAR and found.kind not in ("unknown", "text"):
        return ALL
    points = _points(found, rule).points
    bound = next(iter(points), None)
    if bound is None:
        return ALL
    return KeySet(intervals=((bound, None) if condition.operator in (">", ">=") else (None, bound),))


def inserted(operand: Operand, rule: ShardedTable, values: Values, stored: Stored = AS_GIVEN) -> KeyValue | None:
    """The key a row gets when this is assigned to the key column. LookupError: not known; ClientFault: not possible."""
    found = evaluate(operand, values, target_of(rule, stored))
    if found is None:
        raise LookupError
    if found.kind == "null":
        return None
    value = found.value
    match rule.data_type:
        case DataType.BIGINT:
            if found.kind == "unknown" and isinstance(value, bytes):
                read = text_value(value, target_of(rule, stored))
                value = read.value if read is not None else None
            if isinstance(value, Decimal):
                if found.kind == "float" or value != value.to_integral_value():
                    raise ClientFault(
                        f'the sharding key "{rule.column}" is an integer, but the value is not', sqlstate="0A000",
                        detail=f"{value} would be rounded when it is stored", hint="write the rounded value",
                    )  # fmt: skip
                value = int(value)
            if isinstance(value, int):
                return in_range(value, "int8")
        case DataType.VARCHAR:
            if isinstance(value, bytes) and found.kind in ("unknown", "text", "bpchar"):
                return _utf8(value)
            if found.kind == "int":
                return str(value).encode()
        case DataType.UUID if isinstance(value, bytes):
            return read_uuid(value) if found.kind == "unknown" else value
        case DataType.VECTOR if isinstance(value, bytes):
            try:
                return tuple(float(part) for part in value.decode().strip("[] ").split(","))
            except ValueError:
                shown = value.decode("utf-8", "replace")
                raise ClientFault(f'invalid input syntax for type vector: "{shown}"', sqlstate="22P02") from None
    raise LookupError
