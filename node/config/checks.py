"""What each key alone cannot show: entries that contradict each other.

An error where routing could be wrong or a node could not serve; a warning where PgDog warns, so that its files load.

The checks also run on what `salvage` left of files with errors, where a value that failed raises `Unread`. Each
`suppress(Unread)` holds one thing that can be decided by itself: what it needs and does not get makes it silent, and
nothing else.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from node.config.checks_sharding import SHARDING
from node.config.problems import Findings, meant
from node.config.resolve import databases_of
from node.config.schema import Config
from node.config.setting import Unread
from node.config.words import (
    LOG_LEVELS,
    AuthType,
    Passthrough,
    PoolerMode,
    PreparedStatements,
    Role,
    ServerAuth,
    TlsVerify,
)

_MOST_ITERATIONS = 1_000_000  # of a password_hash; each login by it costs that much
_KEY_BYTES = 32
_VERIFIER = re.compile(r"SCRAM-SHA-256\$([0-9]{1,9}):([^$:]+)\$([^$:]+):([^$:]+)", re.ASCII)


def check(config: Config) -> Findings:
    """Everything that is wrong or odd about a configuration whose keys are all valid, or about the rest of one."""
    findings = Findings()
    for one in _CHECKS:
        with suppress(Unread):
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
            _roles(config, findings, name, shard)


def _roles(config: Config, findings: Findings, name: str, shard: int) -> None:
    entries = [(i, e) for i, e in enumerate(config.databases) if (e.name, e.shard) == (name, shard)]
    roles = Counter(entry.role for _, entry in entries)
    if Role.AUTO in roles and len(roles) > 1:
        findings.warn(
            ("databases", entries[0][0]),
            f'shard {shard} of "{name}" mixes role = "auto" with fixed roles; roles are not detected there',
        )


def _primaries(config: Config, findings: Findings) -> None:
    writers: dict[tuple[str, int], list[tuple[int, tuple[str, int, str]]]] = {}
    for index, entry in enumerate(config.databases):
        with suppress(Unread):
            if entry.role is Role.PRIMARY and not entry.resharding_only:
                target = (entry.host, entry.port, entry.server_database)
                writers.setdefault((entry.name, entry.shard), []).append((index, target))
    for (name, shard), found in writers.items():
        targets = {target for _, target in found}
        if len(targets) > 1:
            findings.error(
                ("databases", found[1][0]),
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


def _names(config: Config, findings: Findings) -> None:
    """Rules about a database that does not exist decide nothing."""
    known = config.database_names()
    for table in ("sharded_tables", "sharded_mappings", "sharded_schemas", "omnisharded_tables"):
        for index, rule in enumerate(getattr(config, table)):
            if rule.database not in known:
                findings.warn(
                    (table, index, "database"), f'there is no database "{rule.database}"{meant(rule.database, known)}'
                )


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


def _hashes(config: Config, findings: Findings) -> None:
    """A verifier that cannot be read would be found by the first client, or by everybody's first moment."""
    for index, user in enumerate(config.users):
        with suppress(Unread):
            if user.password_hash is not None and not _is_verifier(user.password_hash.get_secret_value()):
                findings.error(
                    ("users", index, "password_hash"),
                    '"password_hash" in [[users]] must be a SCRAM verifier: '
                    "SCRAM-SHA-256$iterations:salt$stored key:server key",
                )


def _is_verifier(text: str) -> bool:
    """No more than auth/scram.py reads (tests/unit/config/test_checks.py holds the two together)."""
    shape = _VERIFIER.fullmatch(text)
    if shape is None or not 1 <= int(shape[1]) <= _MOST_ITERATIONS:
        return False
    try:
        salt, *keys = (b64decode(part, validate=True) for part in shape.groups()[1:])
    except ValueError:
        return False
    return bool(salt) and all(len(key) == _KEY_BYTES for key in keys)


def _passwords_needed(config: Config) -> bool:
    general = config.general
    return general.auth_type is not AuthType.TRUST and general.passthrough_auth is Passthrough.DISABLED


def _server_auth(config: Config, findings: Findings) -> None:
    for index, user in enumerate(config.users):
        path = ("users", index, "server_auth")
        with suppress(Unread):
            if user.server_auth is ServerAuth.PASSWORD:
                continue
            with suppress(Unread):
                if config.general.passthrough_auth is not Passthrough.DISABLED:
                    findings.error(path, f'server_auth = "{user.server_auth}" needs passthrough_auth = "disabled"')
            if config.general.tls_verify is TlsVerify.DISABLED:
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


def _tls(config: Config, findings: Findings) -> None:
    general = config.general
    for first, second in (
        ("tls_certificate", "tls_private_key"),
        ("tls_private_key", "tls_certificate"),
        ("tls_server_certificate", "tls_server_private_key"),
        ("tls_server_private_key", "tls_server_certificate"),
    ):
        with suppress(Unread):
            if getattr(general, first) is not None and getattr(general, second) is None:
                findings.error(("general", first), f'"{first}" needs "{second}"')
    with suppress(Unread):
        if general.tls_client_required and general.tls_certificate is None:
            findings.error(("general", "tls_client_required"), '"tls_client_required" needs "tls_certificate"')
    if general.tls_verify in (TlsVerify.VERIFY_CA, TlsVerify.VERIFY_FULL) and not general.tls_server_ca_certificate:
        findings.warn(("general", "tls_verify"), f'tls_verify = "{general.tls_verify}" uses the CAs of this system')


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
    _primaries,
    _duplicate_targets,
    _pooler_modes,
    _names,
    *SHARDING,
    _users,
    _hashes,
    _server_auth,
    _duplicate_users,
    _general,
    _tls,
    _passthrough,
    _log_level,
    _mirroring,
    _replica_lag,
    _sync,
)
