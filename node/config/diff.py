"""What changes from one configuration to another, and how carefully the flock must turn.

Changes are compared by meaning: the order of tables and keys in a file changes nothing. The class decides the protocol
(see sync): LOCAL needs nobody else, ROLLING may coexist with its predecessor on other nodes, EXCLUSIVE may not, because
two nodes would route the same row differently. Scope: the databases whose `routing_digest` differs; others never pause.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, SecretStr

from node.config.resolve import rules
from node.config.schema import ARRAYS, TABLES, Config, Database, MappingEntry, ShardedTable, brackets, file_key
from node.config.setting import Live, about
from node.config.words import MappingKind, Role

HIDDEN = "(hidden)"


class ChangeClass(StrEnum):
    """In order of care; a rollout has the class of its most careful change."""

    LOCAL = "local"
    ROLLING = "rolling"
    EXCLUSIVE = "exclusive"


@dataclass(frozen=True, slots=True)
class Difference:
    """`lines` are for people, one per change; `restart` are keys a running node will not take over."""

    change: ChangeClass = ChangeClass.LOCAL
    scope: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.lines


# keys that nobody outside this node can notice: how it logs, what it shows, which sockets it listens on
_LOCAL_GENERAL_PREFIXES = ("log_", "query_log", "openmetrics_", "healthcheck_port", "stats_period", "broadcast_")
_LOCAL_GENERAL = frozenset({"host", "port", "workers", "unix_socket_dir", "dns_ttl"})
_LOCAL_TABLES = frozenset({"memory", "otel", "plugins", "discovery", "control", "qos", "query_stats", "autodiscovery"})


def diff(before: Config, after: Config) -> Difference:
    """All changes between two valid configurations."""
    changes = [change for table in TABLES if "." not in table for change in _table(table, before, after)]
    scope = tuple(sorted(_moved(before, after)))
    if scope:
        change = ChangeClass.EXCLUSIVE
    elif any(not one.local for one in changes):
        change = ChangeClass.ROLLING
    else:
        change = ChangeClass.LOCAL
    routed = [f'routing of database "{name}" changes: {_routing_line(before, after, name)}' for name in scope]
    restart = [f"{one.where} takes effect when a node restarts" for one in changes if one.restart]
    return Difference(change, scope, (*routed, *(one.line for one in changes)), tuple(restart))


def _moved(before: Config, after: Config) -> Iterator[str]:
    """Databases whose routing differs. One that appears or goes counts: a copy of it under another name may be in
    use by other nodes, and pausing a database that nobody can enter costs nothing."""
    for name in {*before.database_names(), *after.database_names()}:
        if routing_digest(before, name) != routing_digest(after, name):
            yield name


# -- routing ----------------------------------------------------------------------------------------------------------


def routing_digest(config: Config, database: str) -> str:
    """SHA-256 of everything that decides on which server a row of this database lives; "" when there is none."""
    if database not in config.database_names():
        return ""
    canonical = json.dumps(_routing(config, database), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _routing(config: Config, database: str) -> dict[str, Any]:
    targets = config.targets(database)
    return {
        "shards": config.shards(database),
        # replicas do not decide where rows live; a server whose role is still to be detected may
        "primaries": sorted(
            {(e.shard, e.host, e.port, e.server_database) for e in targets if e.role is not Role.REPLICA}
        ),
        "tables": _ordered_rules(config, database),
        "omnisharded": sorted(
            {name for one in config.omnisharded_tables if one.database == database for name in one.tables}
        ),
        "schemas": sorted(
            [one.name or "", -1 if one.shard is None else one.shard, one.all]
            for one in config.sharded_schemas
            if one.database == database
        ),
    }


def _ordered_rules(config: Config, database: str) -> list[Any]:
    """Rules about different tables may stand in any order; rules of one table name (whatever their schema), and rules
    without a table, are tried in theirs."""
    found = [(rule, entries) for rule, entries in rules(config, database)]
    found.sort(key=lambda one: one[0].name or "")  # stable
    return [_rule(rule, entries) for rule, entries in found]


def _rule(rule: ShardedTable, entries: tuple[MappingEntry, ...]) -> dict[str, Any]:
    facts = rule.model_dump(mode="json", exclude={"database", "primary", "mapping"})
    return {**facts, "mapping": _canonical(entries)}


def _canonical(entries: tuple[MappingEntry, ...]) -> list[Any]:
    """A mapping without its order, as long as no key has two homes; then the first entry wins and order stays."""
    homes: dict[str, int] = {}
    plain: list[Any] = []
    for entry in entries:
        if entry.kind is MappingKind.LIST:
            for key in entry.values or ():
                homes.setdefault(json.dumps(key), entry.shard)
        else:
            plain.append([json.dumps(entry.start), json.dumps(entry.end), entry.shard])
    return [sorted(homes.items()), plain if _ambiguous(entries) else sorted(plain)]


def _ambiguous(entries: tuple[MappingEntry, ...]) -> bool:
    """Could two ranges hold the same key? Judged without the data type: sorted starts must meet the ends before."""
    spans = [(entry.start, entry.end) for entry in entries if entry.kind is MappingKind.RANGE]
    defaults = sum(entry.kind is MappingKind.DEFAULT for entry in entries)
    if defaults > 1:
        return True
    for index, (start, end) in enumerate(spans):
        for other_start, other_end in spans[index + 1 :]:
            if not (_ends_before(end, other_start) or _ends_before(other_end, start)):
                return True
    return False


def _ends_before(end: int | str | None, start: int | str | None) -> bool:
    if isinstance(end, int) and isinstance(start, int):
        return end <= start
    if isinstance(end, str) and isinstance(start, str):
        return end.encode() <= start.encode()
    return False


def _routing_line(before: Config, after: Config, name: str) -> str:
    old = _routing(before, name) if routing_digest(before, name) else None
    new = _routing(after, name) if routing_digest(after, name) else None
    if old is None:
        return f"new, with {after.shards(name)} shard{'' if after.shards(name) == 1 else 's'}"
    if new is None:
        return "removed"
    words = {
        "shards": f"shards {old['shards']} -> {new['shards']}",
        "primaries": "primaries",
        "tables": "shard map",
        "omnisharded": "omnisharded tables",
        "schemas": "sharded schemas",
    }
    return ", ".join(text for key, text in words.items() if old[key] != new[key])


# -- changes for people -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Change:
    where: str
    line: str
    local: bool
    restart: bool = False


def _table(table: str, before: Config, after: Config) -> Iterator[_Change]:
    if table in ARRAYS:
        yield from _array(table, getattr(before, table), getattr(after, table))
        return
    old, new = getattr(before, table), getattr(after, table)
    where = brackets(table)
    if old is None or new is None:
        if old is not new:
            yield _Change(where, f"{where} {'added' if old is None else 'removed'}", table in _LOCAL_TABLES)
        return
    for name, line in _fields(table, old, new):
        restart = about(TABLES[table], name).live is Live.RESTART
        yield _Change(f"{where} {file_key(table, name)}", f"{where} {line}", _is_local(table, name), restart)


def _is_local(table: str, name: str) -> bool:
    if table in _LOCAL_TABLES:
        return True
    return table == "general" and (name in _LOCAL_GENERAL or name.startswith(_LOCAL_GENERAL_PREFIXES))


def _fields(table: str, old: BaseModel, new: BaseModel) -> Iterator[tuple[str, str]]:
    """(field, "key: old -> new") of each field that differs."""
    for name in TABLES[table].model_fields:
        one, other = getattr(old, name), getattr(new, name)
        if _meaning(one) != _meaning(other):
            yield name, f"{file_key(table, name)}: {_shown(one)} -> {_shown(other)}"


def _meaning(value: Any) -> Any:
    """A value without the order that means nothing: names, and mappings whose keys have one home."""
    if isinstance(value, tuple) and value:
        if all(isinstance(one, MappingEntry) for one in value):
            return _canonical(value)
        if all(isinstance(one, str) for one in value):
            return sorted(set(value))
    return value


def _array(table: str, before: tuple[BaseModel, ...], after: tuple[BaseModel, ...]) -> Iterator[_Change]:
    """Entries are matched by what names them; an entry whose name changes is one removed and one added."""
    old, new = _named(table, before), _named(table, after)
    where = brackets(table)
    local = table in _LOCAL_TABLES
    for name in sorted({**old, **new}):
        label = f"{where} {name}"
        if name not in new:
            yield _Change(label, f"{label}: removed", local)
        elif name not in old:
            yield _Change(label, f"{label}: added", local)
        else:
            for _, line in _fields(table, old[name], new[name]):
                yield _Change(label, f"{label} {line}", local)


# what names an entry, as far as it is given
_IDENTITY: Mapping[str, tuple[str, ...]] = {
    "databases": ("name", "shard", "role", "host", "port", "database_name"),
    "users": ("name", "database", "databases", "all_databases"),
    "sharded_tables": ("database", "schema_name", "name", "column"),
    "sharded_mappings": ("database", "schema_name", "table", "column", "kind", "shard"),
    "sharded_schemas": ("database", "name"),
    "omnisharded_tables": ("database", "sticky"),
    "mirroring": ("source_db", "destination_db"),
    "query_parsers": ("database",),
    "plugins": ("name",),
}


def _named(table: str, entries: tuple[BaseModel, ...]) -> dict[str, BaseModel]:
    named: dict[str, BaseModel] = {}
    for entry in entries:
        name = " ".join(filter(None, (_part(entry, part) for part in _IDENTITY[table])))
        label, copy = name, 2
        while label in named:
            label, copy = f"{name} ({copy})", copy + 1
        named[label] = entry
    return named


def _part(entry: BaseModel, part: str) -> str:
    value = getattr(entry, part)
    if isinstance(entry, Database) and part == "shard":
        return f"shard {value}"
    if value is None or value is False:
        return ""
    if value is True:
        return part
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _shown(value: Any) -> str:
    """A value as the file would have it; secrets never."""
    match value:
        case None:
            return "default"
        case SecretStr():
            return HIDDEN
        case bool():
            return "true" if value else "false"
        case tuple() if any(isinstance(one, SecretStr) for one in value):
            return HIDDEN
        case tuple():
            return "[" + ", ".join(map(_shown, value)) + "]"
        case MappingEntry():
            return _entry_shown(value)
    return str(value)


def _entry_shown(entry: MappingEntry) -> str:
    match entry.kind:
        case MappingKind.LIST:
            keys = ", ".join(map(str, entry.values or ()))
            return f"({keys}) on {entry.shard}"
        case MappingKind.RANGE:
            start, end = ("" if bound is None else str(bound) for bound in (entry.start, entry.end))
            return f"{start}..{end} on {entry.shard}"
        case MappingKind.DEFAULT:
            return f"rest on {entry.shard}"
