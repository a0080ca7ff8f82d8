"""What each key alone cannot show: entries that contradict each other.

An error where routing could be wrong or a node could not serve; a warning where PgDog warns, so that its files load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from uuid import UUID

from node.config.problems import Findings, meant
from node.config.resolve import databases_of, rules, same_rule
from node.config.schema import Config, MappingEntry
from node.config.schema_databases import KeyText
from node.config.words import (
    LOG_LEVELS,
    AuthType,
    DataType,
    Hasher,
    LookupResult,
    MappingKind,
    Passthrough,
    PoolerMode,
    PreparedStatements,
    Role,
    ServerAuth,
    TlsVerify,
)

INT8 = range(-(2**63), 2**63)


def check(config: Config) -> Findings:
    """Everything that is wrong or odd about a configuration whose keys are all valid."""
    findings = Findings()
    for one in _CHECKS:
        one(config, findings)
    return findings


# -- databases --------------------------------------------------------------------------------------------------------


def _shards(config: Config, findings: Findings) -> None:
    for name in config.database_names():
        found = {entry.shard for entry in config.targets(name)}
        missing = sorted(set(range(max(found) + 1)) - found)
        first = next(index for index, entry in enumerate(config.databases) if entry.name == name)
        if missing:
            listed = ", ".join(map(str, missing))
            findings.warn(("databases", first), f'database "{name}" has no entry for shard {listed}')
        for shard in sorted(found):
            _primaries(config, findings, name, shard)


def _primaries(config: Config, findings: Findings, name: str, shard: int) -> None:
    entries = [(i, e) for i, e in enumerate(config.databases) if (e.name, e.shard) == (name, shard)]
    roles = Counter(entry.role for _, entry in entries)
    index = entries[0][0]
    if Role.AUTO in roles and len(roles) > 1:
        findings.warn(
            ("databases", index),
            f'shard {shard} of "{name}" mixes role = "auto" with fixed roles; roles are not detected there',
        )
    writers = [(i, e) for i, e in entries if e.role is Role.PRIMARY and not e.resharding_only]
    targets = {(entry.host, entry.port, entry.server_database) for _, entry in writers}
    if len(targets) > 1:
        findings.error(
            ("databases", writers[1][0]),
            f'shard {shard} of "{name}" has {len(targets)} primaries; two servers that take writes would differ',
        )


def _duplicate_targets(config: Config, findings: Findings) -> None:
    seen: set[tuple[str, int, str, int, str, Role]] = set()
    for index, entry in enumerate(config.databases):
        key = (entry.name, entry.shard, entry.host, entry.port, entry.server_database, entry.role)
        if key in seen:
            findings.warn(
                ("databases", index), f'database "{entry.name}" lists {entry.host}:{entry.port} twice as {entry.role}'
            )
        seen.add(key)


def _pooler_modes(config: Config, findings: Findings) -> None:
    for name in config.database_names():
        modes = {entry.pooler_mode or config.general.pooler_mode for entry in config.targets(name)}
        if len(modes) > 1:
            first = next(i for i, e in enumerate(config.databases) if e.name == name)
            findings.warn(
                ("databases", first), f'entries of "{name}" differ in pooler_mode; the first entry\'s mode is used'
            )


# -- sharding ---------------------------------------------------------------------------------------------------------


def _names(config: Config, findings: Findings) -> None:
    """Rules about a database that does not exist decide nothing."""
    known = config.database_names()
    for table in ("sharded_tables", "sharded_mappings", "sharded_schemas", "omnisharded_tables"):
        for index, rule in enumerate(getattr(config, table)):
            if rule.database not in known:
                findings.warn(
                    (table, index, "database"), f'there is no database "{rule.database}"{meant(rule.database, known)}'
                )


def _rule_shards(config: Config, findings: Findings) -> None:
    """A shard nobody holds would lose rows or refuse statements at run time."""
    for index, rule in enumerate(config.sharded_tables):
        for number, entry in enumerate(rule.mapping or ()):
            path = ("sharded_tables", index, "mapping", number, "shard")
            _existing_shard(config, findings, path, rule.database, entry.shard)
    for index, mapping in enumerate(config.sharded_mappings):
        _existing_shard(config, findings, ("sharded_mappings", index, "shard"), mapping.database, mapping.shard)
        if not any(same_rule(mapping, rule) for rule in config.sharded_tables):
            findings.warn(("sharded_mappings", index), f'no sharded table has the column "{mapping.column}"')
        _mapping_kind(config, findings, index)
    for index, schema in enumerate(config.sharded_schemas):
        if schema.shard is not None:
            _existing_shard(config, findings, ("sharded_schemas", index, "shard"), schema.database, schema.shard)
        if (schema.shard is None) != schema.all:
            findings.error(("sharded_schemas", index), 'a sharded schema needs either "shard" or all = true')


def _existing_shard(config: Config, findings: Findings, path: tuple[str | int, ...], database: str, shard: int) -> None:
    found = sorted({entry.shard for entry in config.targets(database)})
    if found and shard not in found:
        findings.error(path, f'database "{database}" has no shard {shard}; it has {", ".join(map(str, found))}')


def _mapping_kind(config: Config, findings: Findings, index: int) -> None:
    mapping = config.sharded_mappings[index]
    entry = MappingEntry(shard=mapping.shard, values=mapping.values, start=mapping.start, end=mapping.end)
    if entry.kind is not mapping.kind:
        findings.error(("sharded_mappings", index, "kind"), f'kind = "{mapping.kind}" does not fit the keys given')


def _mappings(config: Config, findings: Findings) -> None:
    for index, rule in enumerate(config.sharded_tables):
        path = ("sharded_tables", index)
        entries = tuple(entry for found, entries in rules(config) if found is rule for entry in entries)
        for number, entry in enumerate(rule.mapping or ()):
            where = (*path, "mapping", number)
            if entry.values is not None and (entry.start is not None or entry.end is not None):
                findings.error(where, 'a mapping entry has either "values" or "start" and "end"')
        for bound in _keys(entries):
            problem = _unreadable(bound, rule.data_type)
            if problem:
                findings.error((*path, "mapping"), problem)
                break
        else:
            for message in _overlaps(entries, rule.data_type):
                findings.warn((*path, "mapping"), message)
            for message in _empty_ranges(entries, rule.data_type):
                findings.error((*path, "mapping"), message)


def _keys(entries: tuple[MappingEntry, ...]) -> Iterator[KeyText]:
    for entry in entries:
        yield from entry.values or ()
        yield from (bound for bound in (entry.start, entry.end) if bound is not None)


def _unreadable(key: KeyText, data_type: DataType) -> str | None:
    """A key that can never equal a value of the column would silently send rows elsewhere."""
    match data_type:
        case DataType.BIGINT:
            fits = isinstance(key, int) and key in INT8
        case DataType.VARCHAR:
            fits = isinstance(key, str)
        case DataType.UUID:
            fits = isinstance(key, str) and _is_uuid(key)
        case DataType.VECTOR:
            return "vector keys have no mapping"
    return None if fits else f"mapping key {key!r} is not a {data_type}"


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


def _overlaps(entries: tuple[MappingEntry, ...], data_type: DataType) -> Iterator[str]:
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


def _empty_ranges(entries: tuple[MappingEntry, ...], data_type: DataType) -> Iterator[str]:
    for entry in entries:
        if not _before(entry.start, entry.end, data_type):
            yield f"range from {entry.start!r} to {entry.end!r} is empty"


def _lookups(config: Config, findings: Findings) -> None:
    for index, rule in enumerate(config.sharded_tables):
        path = ("sharded_tables", index)
        if rule.lookup_result is LookupResult.SHARD:
            others = (rule.mapping, rule.centroids, rule.centroids_path)
            if any(others) or rule.hasher is not Hasher.POSTGRES:
                findings.error(
                    (*path, "lookup_result"), 'lookup_result = "shard" excludes mapping, centroids and hasher'
                )
            if rule.lookup_query is None:
                findings.error((*path, "lookup_result"), 'lookup_result = "shard" needs a lookup_query')
        if rule.data_type is DataType.VECTOR and not (rule.centroids or rule.centroids_path):
            findings.error(path, 'data_type = "vector" needs centroids or centroids_path')


def _duplicate_rules(config: Config, findings: Findings) -> None:
    seen = set()
    for index, rule in enumerate(config.sharded_tables):
        key = (rule.database, rule.schema_name, rule.name, rule.column)
        if key in seen:
            table = rule.name or "any table"
            findings.error(("sharded_tables", index), f'"{rule.column}" of {table} has two rules')
        seen.add(key)


# -- users ------------------------------------------------------------------------------------------------------------


def _users(config: Config, findings: Findings) -> None:
    known = config.database_names()
    for index, user in enumerate(config.users):
        path = ("users", index)
        named = (*user.databases, *((user.database,) if user.database is not None else ()))
        for name in named:
            if name not in known and not user.all_databases:
                findings.warn(path, f'user "{user.name}" names the unknown database "{name}"{meant(name, known)}')
        if not named and not user.all_databases:
            findings.warn(path, f'user "{user.name}" has no database, so it can log in nowhere')
        if not user.has_password and user.identity is None and _passwords_needed(config):
            findings.warn(path, f'user "{user.name}" has no password, so it cannot log in')
        if user.password_hash is not None and user.server_password is None and not user.accepted:
            findings.warn(path, f'user "{user.name}" has a password_hash but no server_password to log in to servers')
        _server_auth(config, findings, index)
    _duplicate_users(config, findings)


def _passwords_needed(config: Config) -> bool:
    general = config.general
    return general.auth_type is not AuthType.TRUST and general.passthrough_auth is Passthrough.DISABLED


def _server_auth(config: Config, findings: Findings, index: int) -> None:
    user, general = config.users[index], config.general
    if user.server_auth is ServerAuth.PASSWORD:
        return
    path = ("users", index, "server_auth")
    if general.passthrough_auth is not Passthrough.DISABLED:
        findings.error(path, f'server_auth = "{user.server_auth}" needs passthrough_auth = "disabled"')
    if general.tls_verify is TlsVerify.DISABLED:
        findings.error(path, f'server_auth = "{user.server_auth}" needs TLS towards servers (tls_verify)')


def _duplicate_users(config: Config, findings: Findings) -> None:
    seen: set[tuple[str, str]] = set()
    for index, user in enumerate(config.users):
        for database in databases_of(config, user):
            if (user.name, database) in seen:
                findings.warn(
                    ("users", index),
                    f'user "{user.name}" has several entries for database "{database}"; the first one is used',
                )
            seen.add((user.name, database))


# -- general ----------------------------------------------------------------------------------------------------------


def _general(config: Config, findings: Findings) -> None:
    general = config.general
    renames = general.prepared_statements is not PreparedStatements.DISABLED
    if general.pooler_mode is PoolerMode.SESSION and renames and "prepared_statements" in general.model_fields_set:
        findings.warn(("general", "prepared_statements"), 'pooler_mode = "session" disables prepared_statements')
    if 0 < general.ban_timeout <= general.idle_healthcheck_interval:
        findings.warn(
            ("general", "idle_healthcheck_interval"),
            "idle_healthcheck_interval should be shorter than ban_timeout: a ban is lifted by a good check",
        )
    for first, second in (
        ("tls_certificate", "tls_private_key"),
        ("tls_private_key", "tls_certificate"),
        ("tls_server_certificate", "tls_server_private_key"),
        ("tls_server_private_key", "tls_server_certificate"),
    ):
        if getattr(general, first) is not None and getattr(general, second) is None:
            findings.error(("general", first), f'"{first}" needs "{second}"')
    if general.tls_client_required and general.tls_certificate is None:
        findings.error(("general", "tls_client_required"), '"tls_client_required" needs "tls_certificate"')
    if general.tls_verify in (TlsVerify.VERIFY_CA, TlsVerify.VERIFY_FULL) and not general.tls_server_ca_certificate:
        findings.warn(("general", "tls_verify"), f'tls_verify = "{general.tls_verify}" uses the CAs of this system')
    _passthrough(config, findings)


def _log_level(config: Config, findings: Findings) -> None:
    """PgDog takes `info,pgdog::net=debug`; here the first word counts for everything."""
    written = config.general.log_level
    word = written.partition(",")[0].rpartition("=")[2].strip().lower()
    if word not in LOG_LEVELS:
        findings.warn(
            ("general", "log_level"), f'log_level "{written}" is none of {", ".join(LOG_LEVELS)}; info is used'
        )
    elif word != written.lower():
        findings.warn(("general", "log_level"), f'of log_level "{written}" only "{word}" is used')


def _passthrough(config: Config, findings: Findings) -> None:
    general = config.general
    match general.passthrough_auth:
        case Passthrough.ENABLED | Passthrough.ENABLED_ALLOW_CHANGE if general.tls_certificate is None:
            findings.warn(("general", "passthrough_auth"), "passthrough_auth needs a tls_certificate")
        case Passthrough.ENABLED_PLAIN | Passthrough.ENABLED_PLAIN_ALLOW_CHANGE:
            findings.warn(("general", "passthrough_auth"), "passwords may cross the network in clear text")
        case _:
            pass


def _mirroring(config: Config, findings: Findings) -> None:
    known = config.database_names()
    for index, mirror in enumerate(config.mirroring):
        for key, name in (("source_db", mirror.source_db), ("destination_db", mirror.destination_db)):
            if name not in known:
                findings.warn(("mirroring", index, key), f'there is no database "{name}"{meant(name, known)}')


def _replica_lag(config: Config, findings: Findings) -> None:
    lag = config.replica_lag
    if lag is not None and "check_interval" in lag.model_fields_set and lag.max_age is None:
        findings.error(("replica_lag",), '"check_interval" in [replica_lag] needs "max_age"')


def _sync(config: Config, findings: Findings) -> None:
    """A member must give up before its coordinator does, or an abort leaves it paused for longer than promised."""
    sync = config.sync
    if sync.drain_timeout > sync.pause_max:
        findings.error(("sync", "drain_timeout"), '"drain_timeout" must not be longer than "pause_max"')
    if config.admin.name in config.database_names():
        findings.warn(("admin",), f'database "{config.admin.name}" is hidden by the admin console of that name')


_CHECKS: tuple[Callable[[Config, Findings], None], ...] = (
    _shards,
    _duplicate_targets,
    _pooler_modes,
    _names,
    _rule_shards,
    _mappings,
    _lookups,
    _duplicate_rules,
    _users,
    _general,
    _log_level,
    _mirroring,
    _replica_lag,
    _sync,
)
