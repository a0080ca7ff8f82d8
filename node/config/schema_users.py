"""Who may come in: `users.toml`, and the admin."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from node.config.schema_databases import Name, PoolOverrides
from node.config.setting import Count, Live, Secret, Table, setting
from node.config.words import ServerAuth

_POOLS = Live.POOLS

Percent = Annotated[int, Field(ge=1, le=80)]


class User(PoolOverrides):
    """One user of one or more logical databases."""

    name: Name = setting(text="name clients log in with", live=_POOLS)
    database: Name | None = setting(None, "the logical database", live=_POOLS)
    databases: tuple[Name, ...] = setting((), "several logical databases", live=_POOLS, lax=True)
    all_databases: bool = setting(False, "every logical database", live=_POOLS)
    password: Secret | None = setting(None, "password of the client, and of the server unless told", live=_POOLS)
    passwords: tuple[Secret, ...] = setting((), "several accepted passwords, for rotation", live=_POOLS, lax=True)
    password_hash: Secret | None = setting(None, "SCRAM verifier; needs server_password", live=_POOLS)
    identity: str | None = setting(None, "client certificate identity that replaces a password")
    tls_client_certificate_required: bool | None = setting(None, "must show a client certificate")
    server_user: Name | None = setting(None, "user towards servers; absent = name", live=_POOLS)
    server_password: Secret | None = setting(None, "password towards servers; absent = password", live=_POOLS)
    server_auth: ServerAuth = setting(ServerAuth.PASSWORD, "how to log in to servers", live=_POOLS, lax=True)
    server_iam_region: str | None = setting(None, "AWS region", live=_POOLS)
    server_vault_path: str | None = setting(None, "Vault secret for servers", live=_POOLS)
    vault_path: str | None = setting(None, "Vault secret for clients", live=_POOLS)
    vault_refresh_percent: Percent = setting(80, "renew at this share of the lease", unit="%")
    replication_mode: bool = setting(False, "may use the replication protocol")
    replication_sharding: bool = setting(False, "a logical stream is filtered by shard")
    schema_admin: bool = setting(False, "used to read and copy schemas", live=_POOLS)
    cross_shard_disabled: bool | None = setting(None, "refuse statements over several shards")
    two_phase_commit: bool | None = setting(None, "general.two_phase_commit for this user")
    two_phase_commit_auto: bool | None = setting(None, "general.two_phase_commit_auto for this user")
    max_client_conn: Count | None = setting(None, "most clients of this user on this node", ours=True)

    @property
    def accepted(self) -> tuple[Secret, ...]:
        """Passwords a client may use, in the order in which servers are tried with them."""
        first = (self.password,) if self.password is not None else ()
        return first + self.passwords

    @property
    def has_password(self) -> bool:
        return bool(self.accepted) or self.password_hash is not None


class Admin(Table):
    """The virtual database with the console."""

    name: Name = setting("admin", "name of the virtual database")
    user: Name = setting("admin", "who may use it")
    password: Secret | None = setting(
        None, "password; absent = a random one, logged at start", variable="PGDOG_ADMIN_PASSWORD"
    )
