"""One configuration as it is applied: frozen, replaced whole, held by a session for one transaction at most.

The only module that knows both `config` and `routing`: it turns tables of the files into topologies.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from node.config import diff
from node.config.resolve import rules
from node.config.schema import Config, MappingEntry
from node.routing.shard_map import DefaultEntry, KeyValue, ListEntry, Mapping, RangeEntry
from node.routing.topology import DataType, Hasher, ShardedSchema, ShardedTable, Topology


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`number` and `digest` are the ConfigVersion the flock agreed on; (0, …) before there is one."""

    number: int
    digest: str
    document: bytes = field(repr=False)
    config: Config = field(repr=False)
    topologies: dict[str, Topology] = field(repr=False)

    def routing_digest(self, database: str) -> str:
        return diff.routing_digest(self.config, database)


def snapshot(config: Config, document: bytes, *, number: int, digest: str) -> Snapshot:
    topologies = {name: topology(config, name) for name in config.database_names()}
    return Snapshot(number, digest, document, config, topologies)


def fold(name: str) -> str:
    """An identifier as PostgreSQL stores it: lower case unless it was quoted."""
    if len(name) > 1 and name[0] == name[-1] == '"':
        return name[1:-1].replace('""', '"')
    return name.lower()


def topology(config: Config, database: str) -> Topology:
    """The routing half of the configuration for one logical database."""
    tables = []
    for rule, entries in rules(config, database):
        data_type = DataType(rule.data_type.value)
        tables.append(
            ShardedTable(
                schema=fold(rule.schema_name) if rule.schema_name is not None else None,
                name=fold(rule.name) if rule.name is not None else None,
                column=fold(rule.column),
                data_type=data_type,
                hasher=Hasher(rule.hasher.value),
                mapping=_mapping(entries, data_type) if entries else None,
            )
        )
    listed = [one for one in config.omnisharded_tables if one.database == database]
    general = config.general
    return Topology(
        database=database,
        shards=config.shards(database),
        tables=tuple(tables),
        omnisharded=frozenset(fold(name) for one in listed for name in one.tables),
        cross_shard_disabled=general.cross_shard_disabled,
        omnisharded_sticky=general.omnisharded_sticky or any(one.sticky for one in listed),
        rewrite_shard_key=config.rewrite.shard_key.value,
        schemas=tuple(
            ShardedSchema(fold(one.name) if one.name is not None else None, None if one.all else one.shard)
            for one in config.sharded_schemas
            if one.database == database
        ),
    )


def _mapping(entries: tuple[MappingEntry, ...], data_type: DataType) -> Mapping:
    built: list[ListEntry | RangeEntry | DefaultEntry] = []
    for entry in entries:
        if entry.values is not None:
            built.append(ListEntry(tuple(key_value(data_type, value) for value in entry.values), entry.shard))
        elif entry.start is not None or entry.end is not None:
            start = key_value(data_type, entry.start) if entry.start is not None else None
            end = key_value(data_type, entry.end) if entry.end is not None else None
            built.append(RangeEntry(start, end, entry.shard))
        else:
            built.append(DefaultEntry(entry.shard))
    return Mapping(tuple(built))


def key_value(data_type: DataType, text: int | str) -> KeyValue:
    """A key as a mapping writes it. ValueError for one that is not of the type (configcheck has said so before)."""
    if data_type is DataType.BIGINT:
        return int(text)
    if data_type is DataType.UUID:
        return uuid.UUID(str(text)).bytes
    return str(text).encode()
