"""From a key to a shard: list, then range, then default; without a mapping, the hash."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, sqrt
from typing import TYPE_CHECKING

from node.routing import hashing
from node.routing.topology import DataType, Hasher

if TYPE_CHECKING:
    from node.routing.topology import ShardedTable

# BIGINT: int. VARCHAR: its bytes. UUID: sixteen bytes. VECTOR: floats.
KeyValue = int | bytes | tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ListEntry:
    """`values` may hold None: rows whose key is NULL."""

    values: tuple[KeyValue | None, ...]
    shard: int


@dataclass(frozen=True, slots=True)
class RangeEntry:
    """`start` is included, `end` is not; None leaves that side open."""

    start: KeyValue | None
    end: KeyValue | None
    shard: int


@dataclass(frozen=True, slots=True)
class DefaultEntry:
    shard: int


Entry = ListEntry | RangeEntry | DefaultEntry


@dataclass(frozen=True, slots=True)
class Mapping:
    """Entries in the order of the configuration. Overlapping ranges: the first wins."""

    entries: tuple[Entry, ...]
    _listed: dict[KeyValue | None, int] = field(init=False, repr=False, compare=False)
    _ranges: tuple[RangeEntry, ...] = field(init=False, repr=False, compare=False)
    _starts: tuple[KeyValue, ...] | None = field(init=False, repr=False, compare=False)
    _default: int | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        listed: dict[KeyValue | None, int] = {}
        ranges: list[RangeEntry] = []
        default: int | None = None
        for entry in self.entries:
            match entry:
                case ListEntry():
                    for value in entry.values:
                        listed.setdefault(value, entry.shard)
                case RangeEntry():
                    ranges.append(entry)
                case DefaultEntry():
                    default = entry.shard if default is None else default
        object.__setattr__(self, "_listed", listed)
        object.__setattr__(self, "_default", default)
        starts = _sorted_starts(ranges)
        object.__setattr__(self, "_starts", starts)
        object.__setattr__(self, "_ranges", tuple(ranges))

    def shard_of(self, value: KeyValue | None) -> int | None:
        """The shard of one value; None: no entry has it."""
        found = self._listed.get(value)
        if found is not None:
            return found
        if value is not None:
            if self._starts is not None:
                at = bisect_right(self._starts, value) - 1
                if at >= 0 and _inside(self._ranges[at], value):
                    return self._ranges[at].shard
                return self._default
            for entry in self._ranges:
                if _inside(entry, value):
                    return entry.shard
        return self._default

    def shards_between(self, low: KeyValue | None, high: KeyValue | None) -> frozenset[int]:
        """Every shard that may hold a value in [low, high]; None leaves that side open."""
        found = {e.shard for e in self._ranges if _meets(e, low, high)}
        for value, shard in self._listed.items():
            if value is not None and not _below(value, low) and not _below(high, value):
                found.add(shard)
        if self._default is not None:
            found.add(self._default)
        return frozenset(found)

    @property
    def shards(self) -> frozenset[int]:
        """Every shard that holds any row."""
        found = set(self._listed.values()) | {entry.shard for entry in self._ranges}
        return frozenset(found if self._default is None else found | {self._default})


def _sorted_starts(ranges: list[RangeEntry]) -> tuple[KeyValue, ...] | None:
    """Starts for bisection when the ranges are closed below, ascending and disjoint; else None."""
    starts: list[KeyValue] = []
    for before, entry in zip([None, *ranges], ranges, strict=False):
        if entry.start is None:
            return None
        if before is not None and (before.end is None or _below(entry.start, before.end)):
            return None
        starts.append(entry.start)
    return tuple(starts) if len(starts) > 8 else None


def _below(a: KeyValue | None, b: KeyValue | None) -> bool:
    """a < b, where None is no bound and below nothing."""
    return a is not None and b is not None and a < b  # type: ignore[operator]


def _inside(entry: RangeEntry, value: KeyValue) -> bool:
    return not _below(value, entry.start) and (entry.end is None or _below(value, entry.end))


def _meets(entry: RangeEntry, low: KeyValue | None, high: KeyValue | None) -> bool:
    if entry.start is not None and _below(high, entry.start):
        return False
    return not (entry.end is not None and low is not None and not _below(low, entry.end))


def shard_of(rule: ShardedTable, value: KeyValue | None, shards: int) -> int | None:
    """The shard of a row with this key; None where the mapping has no place for it.

    NULL adds nothing to a hash of 0: PostgreSQL's hash partition with remainder 0 takes rows whose key is NULL.
    """
    mapping = rule.mapping
    if mapping is not None:
        return mapping.shard_of(value)
    if value is None:
        return 0
    if rule.lookup_is_shard:
        return value if isinstance(value, int) and 0 <= value < shards else None
    if isinstance(value, tuple):
        return nearest(rule.centroids, value, 1)[0] % shards if rule.centroids else None
    if rule.hasher == Hasher.SHA1:
        return hashing.sha1(str(value).encode() if isinstance(value, int) else value) % shards
    hashed = hashing.bigint(value) if isinstance(value, int) else hashing.varchar(value)
    return hashed % shards


def nearest(centroids: Sequence[Sequence[float]], value: Sequence[float], probes: int) -> list[int]:
    """Indexes of the `probes` nearest centroids by L2 distance; 0 probes: ceil(sqrt(how many there are))."""
    count = probes or ceil(sqrt(len(centroids)))

    def distance(index: int) -> tuple[float, int]:
        return sum((a - b) ** 2 for a, b in zip(centroids[index], value, strict=False)), index

    return sorted(range(len(centroids)), key=distance)[:count]


def placed_shards(rule: ShardedTable, shards: int) -> tuple[int, ...]:
    """Every shard that may hold rows of the table."""
    if rule.mapping is not None:
        return tuple(sorted(s for s in rule.mapping.shards if s < shards))
    return tuple(range(shards))


def key_value(data_type: DataType, value: int | str | bytes) -> KeyValue:
    """A value of the configuration or of the command line as a key. ValueError if it is none."""
    if data_type == DataType.BIGINT:
        number = int(value)
        if not -(2**63) <= number < 2**63:
            raise ValueError(f"{value!r} is out of range for type bigint")
        return number
    text = value.decode() if isinstance(value, bytes) else str(value)
    if data_type == DataType.UUID:
        return uuid.UUID(text).bytes
    if data_type == DataType.VECTOR:
        return tuple(float(part) for part in text.strip("[] ").split(","))
    return text.encode()
