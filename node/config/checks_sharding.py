"""Contradictions between sharding rules, their mappings and the shards there are. See `checks` for how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import UUID

from node.config.positions import Path
from node.config.problems import Findings
from node.config.resolve import same_rule
from node.config.schema import Config, MappingEntry, ShardedTable
from node.config.schema_databases import KeyText
from node.config.setting import Unread
from node.config.words import DataType, Hasher, LookupResult, MappingKind

INT8 = range(-(2**63), 2**63)
KEYS_SHOWN = 5


def _rule_shards(config: Config, findings: Findings) -> None:
    """A shard nobody holds would lose rows or refuse statements at run time."""
    for index, rule in enumerate(config.sharded_tables):
        with suppress(Unread):
            for number, entry in enumerate(rule.mapping or ()):
                path = ("sharded_tables", index, "mapping", number, "shard")
                with suppress(Unread):
                    _existing_shard(config, findings, path, rule.database, entry.shard)


def _old_mappings(config: Config, findings: Findings) -> None:
    for index, mapping in enumerate(config.sharded_mappings):
        path = ("sharded_mappings", index)
        with suppress(Unread):
            _existing_shard(config, findings, (*path, "shard"), mapping.database, mapping.shard)
        with suppress(Unread):
            entry = MappingEntry(shard=0, values=mapping.values, start=mapping.start, end=mapping.end)
            if entry.kind is not mapping.kind:
                findings.error((*path, "kind"), f'kind = "{mapping.kind}" does not fit the keys given')
        with suppress(Unread):
            if not any(same_rule(mapping, rule) for rule in config.sharded_tables):
                findings.warn(path, f'no sharded table has the column "{mapping.column}"')


def _schemas(config: Config, findings: Findings) -> None:
    for index, schema in enumerate(config.sharded_schemas):
        path = ("sharded_schemas", index)
        with suppress(Unread):
            if schema.shard is not None:
                _existing_shard(config, findings, (*path, "shard"), schema.database, schema.shard)
        with suppress(Unread):
            if (schema.shard is None) != schema.all:
                findings.error(path, 'a sharded schema needs either "shard" or all = true')


def _existing_shard(config: Config, findings: Findings, path: Path, database: str, shard: int) -> None:
    found = sorted({entry.shard for entry in config.targets(database)})
    if found and shard not in found:
        findings.error(path, f'database "{database}" has no shard {shard}; it has {", ".join(map(str, found))}')


def _mappings(config: Config, findings: Findings) -> None:
    for index, rule in enumerate(config.sharded_tables):
        path = ("sharded_tables", index, "mapping")
        with suppress(Unread):
            for number, entry in enumerate(rule.mapping or ()):
                with suppress(Unread):
                    if entry.values is not None and (entry.start is not None or entry.end is not None):
                        findings.error((*path, number), 'a mapping entry has either "values" or "start" and "end"')
        entries = list(_entries(config, index))
        fits = True
        for where, entry in entries:
            with suppress(Unread):
                problem = _keys_problem(entry, rule.data_type)
                if problem is not None:
                    findings.error(where, problem)
                    fits = False
        with suppress(Unread):
            if fits:
                for message in _overlaps([entry for _, entry in entries], rule.data_type):
                    findings.warn(path, message)


def _entries(config: Config, index: int) -> Iterator[tuple[Path, MappingEntry]]:
    """The mapping of a rule, old-style entries joined, each with the place it was written at."""
    rule = config.sharded_tables[index]
    with suppress(Unread):
        for number, entry in enumerate(rule.mapping or ()):
            yield ("sharded_tables", index, "mapping", number), entry
    with suppress(Unread):
        for number, one in enumerate(config.sharded_mappings):
            with suppress(Unread):
                if same_rule(one, rule):
                    joined = MappingEntry(shard=one.shard, values=one.values, start=one.start, end=one.end)
                    yield ("sharded_mappings", number), joined


def _keys_problem(entry: MappingEntry, data_type: DataType) -> str | None:
    keys = [*(entry.values or ()), *(bound for bound in (entry.start, entry.end) if bound is not None)]
    if keys and data_type is DataType.VECTOR:
        return "vector keys have no mapping"
    wrong = [key for key in keys if not _readable(key, data_type)]
    if len(wrong) == 1:
        return f"mapping key {wrong[0]!r} is not a {data_type}"
    if wrong:
        rest = f" and {len(wrong) - KEYS_SHOWN} more" if len(wrong) > KEYS_SHOWN else ""
        return f"mapping keys {', '.join(map(repr, wrong[:KEYS_SHOWN]))}{rest} are not {data_type}s"
    if not _before(entry.start, entry.end, data_type):
        return f"range from {entry.start!r} to {entry.end!r} is empty"
    return None


def _readable(key: KeyText, data_type: DataType) -> bool:
    """A key that can never equal a value of the column would silently send rows elsewhere."""
    if data_type is DataType.BIGINT:
        return isinstance(key, int) and key in INT8
    return isinstance(key, str) and (data_type is not DataType.UUID or _is_uuid(key))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _comparable(key: KeyText, data_type: DataType) -> tuple[int, bytes]:
    """Order of keys inside one data type: numbers, or bytes."""
    if isinstance(key, int):
        return key, b""
    return 0, UUID(key).bytes if data_type is DataType.UUID else key.encode()


def _overlaps(entries: list[MappingEntry], data_type: DataType) -> Iterator[str]:
    """Keys with two homes: the first entry wins, which is rarely what was meant."""
    shards: dict[tuple[int, bytes], int] = {}
    for entry in entries:
        for key in entry.values or ():
            if shards.setdefault(_comparable(key, data_type), entry.shard) != entry.shard:
                yield f"key {key!r} is mapped to two shards; the first entry wins"
    ranges = [entry for entry in entries if entry.kind is MappingKind.RANGE]
    for index, one in enumerate(ranges):
        for other in ranges[index + 1 :]:
            if _before(one.start, other.end, data_type) and _before(other.start, one.end, data_type):
                yield f"ranges of shards {one.shard} and {other.shard} overlap; the first entry wins"
    if sum(entry.kind is MappingKind.DEFAULT for entry in entries) > 1:
        yield "two default entries; the first one wins"


def _before(start: KeyText | None, end: KeyText | None, data_type: DataType) -> bool:
    """Does a range with this start begin before that end? Open ends reach everything."""
    return start is None or end is None or _comparable(start, data_type) < _comparable(end, data_type)


def _lookups(config: Config, findings: Findings) -> None:
    for index, rule in enumerate(config.sharded_tables):
        path = ("sharded_tables", index)
        with suppress(Unread):
            if rule.lookup_result is LookupResult.SHARD:
                if _places_rows(rule):
                    message = 'lookup_result = "shard" excludes mapping, centroids and hasher'
                    findings.error((*path, "lookup_result"), message)
                if rule.lookup_query is None:
                    findings.error((*path, "lookup_result"), 'lookup_result = "shard" needs a lookup_query')
        with suppress(Unread):
            if rule.data_type is DataType.VECTOR and not (rule.centroids or rule.centroids_path):
                findings.error(path, 'data_type = "vector" needs centroids or centroids_path')


def _places_rows(rule: ShardedTable) -> bool:
    """Does the rule itself say where a key lives? As far as is known: one such key is enough."""
    placed = False
    for name in ("mapping", "centroids", "centroids_path"):
        with suppress(Unread):
            placed = placed or bool(getattr(rule, name))
    with suppress(Unread):
        placed = placed or rule.hasher is not Hasher.POSTGRES
    return placed


def _duplicate_rules(config: Config, findings: Findings) -> None:
    seen = set()
    for index, rule in enumerate(config.sharded_tables):
        with suppress(Unread):
            key = (rule.database, rule.schema_name, rule.name, rule.column)
            if key in seen:
                table = rule.name or "any table"
                findings.error(("sharded_tables", index), f'"{rule.column}" of {table} has two rules')
            seen.add(key)


SHARDING: tuple[Callable[[Config, Findings], None], ...] = (
    _rule_shards,
    _old_mappings,
    _schemas,
    _mappings,
    _lookups,
    _duplicate_rules,
)
