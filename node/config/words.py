"""The words settings may take. Spelling as in PgDog's files: snake_case."""

from __future__ import annotations

from enum import StrEnum


class PoolerMode(StrEnum):
    TRANSACTION = "transaction"
    SESSION = "session"
    STATEMENT = "statement"


class LogFormat(StrEnum):
    TEXT = "text"
    JSON = "json"
    JSON_FLATTENED = "json_flattened"


class Recovery(StrEnum):
    """What happens to a connection whose other side vanished."""

    RECOVER = "recover"
    ROLLBACK_ONLY = "rollback_only"
    DROP = "drop"


class SizeAction(StrEnum):
    WARN = "warn"
    BLOCK = "block"


class Balancing(StrEnum):
    RANDOM = "random"
    ROUND_ROBIN = "round_robin"
    LEAST_ACTIVE = "least_active_connections"
    WEIGHTED = "weighted_round_robin"


class ReadWriteStrategy(StrEnum):
    CONSERVATIVE = "conservative"
    AGGRESSIVE = "aggressive"


class ReadWriteSplit(StrEnum):
    INCLUDE_PRIMARY = "include_primary"
    EXCLUDE_PRIMARY = "exclude_primary"
    INCLUDE_IF_BANNED = "include_primary_if_replica_banned"
    PREFER_PRIMARY = "prefer_primary"


class QueryParser(StrEnum):
    AUTO = "auto"
    ON = "on"
    OFF = "off"
    SESSION_CONTROL = "session_control"
    SESSION_CONTROL_AND_LOCKS = "session_control_and_locks"


class ParserEngine(StrEnum):
    PROTOBUF = "pg_query_protobuf"
    RAW = "pg_query_raw"


class SystemCatalogs(StrEnum):
    OMNISHARDED = "omnisharded"
    OMNISHARDED_STICKY = "omnisharded_sticky"
    SHARDED = "sharded"


class LoadSchema(StrEnum):
    ON = "on"
    OFF = "off"
    AUTO = "auto"


class PreparedStatements(StrEnum):
    DISABLED = "disabled"
    EXTENDED = "extended"
    EXTENDED_ANONYMOUS = "extended_anonymous"
    FULL = "full"


class AuthType(StrEnum):
    SCRAM = "scram"
    MD5 = "md5"
    PLAIN = "plain"
    TRUST = "trust"


class Passthrough(StrEnum):
    DISABLED = "disabled"
    ENABLED = "enabled"
    ENABLED_PLAIN = "enabled_plain"
    ENABLED_ALLOW_CHANGE = "enabled_allow_change"
    ENABLED_PLAIN_ALLOW_CHANGE = "enabled_plain_allow_change"


class TlsVerify(StrEnum):
    DISABLED = "disabled"
    PREFER = "prefer"
    VERIFY_CA = "verify_ca"
    VERIFY_FULL = "verify_full"


class UniqueId(StrEnum):
    STANDARD = "standard"
    COMPACT = "compact"


class CopyFormat(StrEnum):
    BINARY = "binary"
    TEXT = "text"


class CutoverAction(StrEnum):
    ABORT = "abort"
    CUTOVER = "cutover"


class Role(StrEnum):
    PRIMARY = "primary"
    REPLICA = "replica"
    AUTO = "auto"


class DataType(StrEnum):
    BIGINT = "bigint"
    UUID = "uuid"
    VARCHAR = "varchar"
    VECTOR = "vector"


class Hasher(StrEnum):
    POSTGRES = "postgres"
    SHA1 = "sha1"


class LookupResult(StrEnum):
    VALUE = "value"
    SHARD = "shard"


class MappingKind(StrEnum):
    LIST = "list"
    RANGE = "range"
    DEFAULT = "default"


class Rewrite(StrEnum):
    ERROR = "error"
    REWRITE = "rewrite"
    IGNORE = "ignore"
    REWRITE_OMNI = "rewrite_omni"


class MirrorLevel(StrEnum):
    ALL = "all"
    DML = "dml"
    DDL = "ddl"


class ServerAuth(StrEnum):
    PASSWORD = "password"
    RDS_IAM = "rds_iam"
    AZURE = "azure_workload_identity"
    VAULT_DYNAMIC = "vault_dynamic"
    VAULT_STATIC = "vault_static"


class VaultAuth(StrEnum):
    KUBERNETES = "kubernetes"
    APPROLE = "approle"


class Isolation(StrEnum):
    """What a node that cannot reach the register does with traffic (sync)."""

    SERVE = "serve"
    PAUSE = "pause"


class Profile(StrEnum):
    """Gossip constants for the network between members (discovery)."""

    LOCAL = "local"
    LAN = "lan"
    WAN = "wan"


# log levels, most verbose first; PgDog's log_level may also be a filter expression of them
LOG_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "off")
