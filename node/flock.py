"""This node as a member: discovery, control channel and sync on one side, the proxy on the other.

`Proxy` is the ConfigTarget of sync: what a rollout may do to the data plane. Documents are bytes to sync; here they
are the two files.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import SystemRandom
from typing import Protocol

import mmh3

from discovery.member import Address, Member, State
from discovery.seal import Keyring
from discovery.service import Discovery, MemberView
from discovery.settings import DiscoverySettings
from discovery.sockets import advertised_host, bind_pair
from node.config import diff
from node.config.document import unpack
from node.config.files import with_admin_password
from node.config.load import parse
from node.config.problems import ConfigError
from node.config.schema import Config
from node.config.setting import Secret
from node.database import Database
from node.databases import Databases
from node.errors import ClientFault, Fault
from node.gate import Reason
from node.layout import load_layout
from node.pool.checkout import checkout
from node.pool.pool import Pool
from node.server.conversation import Conversation
from node.server.simple import SimpleClient
from node.snapshot import Snapshot, snapshot
from node.tls import ClientTls
from sync.control import ControlChannel
from sync.identity import Identity as ControlIdentity
from sync.ports import ApplyFailed, DrainFailed, Report
from sync.rollout import ChangeClass
from sync.service import Sync
from sync.settings import SyncSettings
from sync.version import ConfigVersion, digest_of

log = logging.getLogger("pgmurmur.flock")

_CLASSES = {
    diff.ChangeClass.LOCAL: ChangeClass.LOCAL,
    diff.ChangeClass.ROLLING: ChangeClass.ROLLING,
    diff.ChangeClass.EXCLUSIVE: ChangeClass.EXCLUSIVE,
}
EVERYTHING = "*"
# A dry run connects to every server that is new; this many at a time, each at most so long.
TRIED_AT_ONCE = 4
TRY_TIMEOUT_S = 5.0
# Connections that a dry run leaves open in each new pool, at most; and for how long when no commit comes.
WARM_LIMIT = 4
READY_FOR_S = 60.0
GHOSTS_TIMEOUT_S = 5.0
GHOSTS_POLL_S = 0.05
# application_name has 63 bytes: "pgmurmur/", the node, "/" and so many hexadecimal digits of the boot.
BOOT_DIGITS = 16
SHOWN_NAME_BYTES = 63 - len("pgmurmur//") - BOOT_DIGITS
# Statements that an earlier life of this node, or an evicted one, left running on a server, and may still take effect.
_GHOSTS = (
    "SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity "
    "WHERE application_name LIKE E'{prefix}%' AND application_name <> E'{own}' AND pid <> pg_catalog.pg_backend_pid()"
)


def server_prefix(node: str) -> str:
    """How the application_name of this node's server connections begins, whichever boot opened them.

    PostgreSQL cuts names at 63 bytes and shows other than printable ASCII as `?`, so that a long or exotic node name is
    told by its hash: names that differ only where nobody looks would be one node's to the server."""
    if len(node) <= SHOWN_NAME_BYTES and node.isascii() and "/" not in node:
        return f"pgmurmur/{node}/"
    shown = "".join(c if c.isascii() and c.isalnum() else "-" for c in node)[: SHOWN_NAME_BYTES - 9]
    return f"pgmurmur/{shown}~{mmh3.hash(node.encode(), signed=False):08x}/"


def server_name(node: str, boot: str) -> str:
    """pgmurmur/<node>/<boot>: a rollout tells by it whose backends are whose."""
    return server_prefix(node) + boot[:BOOT_DIGITS]


class Clock:
    """The two clocks discovery asks for."""

    def now(self) -> float:
        return time.monotonic()

    def utc(self) -> float:
        return time.time()


@dataclass(frozen=True, slots=True)
class FlockOptions:
    """Where this member listens and whom it asks first; from the command line, then the files."""

    name: str
    gossip: Address
    seeds: tuple[str, ...]
    mdns: bool
    keys: Keyring
    register_url: str
    profile: str
    seed_interval_s: float = 60.0


def read_keys(key_file: str | None) -> Keyring:
    """The flock's secrets; none without a file. Raises ValueError for one that cannot be used."""
    if key_file is None:
        return Keyring()
    try:
        return Keyring.parse(Path(key_file).read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"key file {key_file}: {getattr(error, 'strerror', None) or error}") from None


def is_loopback(host: str) -> bool:
    """Is this an address that only this host can reach? Raises OSError for a name that is none."""
    if Address(host, 0).is_wildcard:
        return False
    return ipaddress.ip_address(advertised_host(host).partition("%")[0]).is_loopback


def sync_settings(config: Config) -> SyncSettings:
    """Milliseconds of the files as sync's seconds."""
    s = config.sync
    return SyncSettings(
        validate_timeout=s.validate_timeout / 1000,
        drain_timeout=s.drain_timeout / 1000,
        pause_max=s.pause_max / 1000,
        fence_timeout=s.fence_timeout / 1000,
        takeover=s.takeover_timeout / 1000,
        confirm=s.apply_timeout / 1000,
        isolation=s.isolation.value,
    )


class Applier(Protocol):
    """The part of the app that turns a Snapshot into what new transactions see."""

    def check(self, config: Config) -> ClientTls | None:
        """How the servers of `config` are talked to. Raises OSError, ValueError for files that cannot be used."""
        ...

    def apply(self, new: Snapshot) -> None:
        """Raises OSError, ValueError."""
        ...


class Proxy:
    """What a rollout does to this node's traffic. `applier` puts a configuration in force, at once and whole."""

    def __init__(
        self, databases: Databases, node: str, boot: str, applier: Applier, environ: Mapping[str, str]
    ) -> None:
        self._databases = databases
        self._prefix = server_prefix(node)
        self._own = server_name(node, boot)
        self._applier = applier
        self._environ = environ
        self._haunted: set[str] = set()  # targets that were found free of older backends
        self._read: tuple[str, Snapshot] | None = None  # the last document read, by digest
        self._forgets: asyncio.TimerHandle | None = None
        self.admin_password: Secret | None = None  # generated at start; a document without one keeps it

    def read(self, document: bytes) -> Config:
        """Raises ClientFault with every error."""
        config_text, users_text = unpack(document)
        loaded = parse(config_text, users_text, self._environ)
        config, _ = with_admin_password(loaded.config)
        if loaded.config.admin.password is None and self.admin_password is not None:
            admin = config.admin.model_copy(update={"password": self.admin_password})
            config = config.model_copy(update={"admin": admin})
        return config

    def _snapshot(self, document: bytes) -> Snapshot:
        """Of the document as such, without a version. Raises ClientFault. The last one is kept: what a dry run has
        read is not read again while clients wait."""
        digest = digest_of(document)
        if self._read is None or self._read[0] != digest:
            self._read = (digest, snapshot(self.read(document), document, number=0, digest=digest))
        return self._read[1]

    async def validate(self, document: bytes) -> Report:
        try:
            new = await asyncio.to_thread(self._snapshot, document)
        except ConfigError as error:
            return Report(ChangeClass.LOCAL, errors=tuple(map(str, error.problems)))
        except ClientFault as fault:
            return Report(ChangeClass.LOCAL, errors=(str(fault),))
        current = self._databases.snapshot
        if current is None:
            return Report(ChangeClass.LOCAL)
        difference = diff.diff(current.config, new.config)
        try:
            tls = self._applier.check(new.config)
        except (OSError, ValueError) as error:
            errors = [str(error)]
        else:
            errors = await self._make_ready(new, tls, difference.scope)
        return Report(
            _CLASSES[difference.change], difference.scope, tuple(errors), (*difference.lines, *difference.restart)
        )

    # --- the dry run -------------------------------------------------------------------------------------------------

    async def _make_ready(self, new: Snapshot, tls: ClientTls | None, scope: tuple[str, ...]) -> list[str]:
        """Logs in to every server that is not in use now, keeps connections for the first clients of the new map, and
        reads the catalogs it needs. What stays open is closed when nothing comes of it."""
        databases = self._databases
        draft = databases.stage(new, tls)
        if self._forgets is not None:
            self._forgets.cancel()
        self._forgets = asyncio.get_running_loop().call_later(READY_FOR_S, databases.unstage)
        slots = asyncio.Semaphore(TRIED_AT_ONCE)
        errors: dict[str, None] = {}

        async def attempt(pool: Pool) -> None:
            target = pool.target
            async with slots:
                try:
                    client = await SimpleClient.connect(target, timeout_s=TRY_TIMEOUT_S)
                    client.close()
                except Fault as fault:
                    errors[f"server {target.address}, database {target.database}, user {target.user}: {fault}"] = None
                else:
                    await self._fill(pool)

        await asyncio.gather(*(attempt(pool) for pool in databases.new_pools(draft)))
        if not errors:
            for name in scope:
                database = draft.of(name)
                if database is not None and database.routed and not database.layout.loaded:
                    await self._read_catalog(database)
        return sorted(errors)

    async def _fill(self, pool: Pool) -> None:
        """As many connections as the busiest neighbour has, so that nobody waits for one when the map turns."""
        kin = [p for p in self._databases.pools if (p.user, p.database) == (pool.user, pool.database)]
        busiest = max((len(p.core.idle) + len(p.core.lent) for p in kin), default=1)
        borrowed = [
            asyncio.ensure_future(checkout(pool)) for _ in range(max(1, min(busiest, pool.core.size, WARM_LIMIT)))
        ]
        await asyncio.wait(borrowed, timeout=TRY_TIMEOUT_S)
        for one in borrowed:
            one.cancel()
        for server in await asyncio.gather(*borrowed, return_exceptions=True):
            if not isinstance(server, BaseException):
                pool.release(server)

    async def _read_catalog(self, database: Database) -> None:
        try:
            async with asyncio.timeout(TRY_TIMEOUT_S):
                await load_layout(database)
        except (Fault, TimeoutError) as error:
            # not worth a refusal: it is read again when the first statement needs it
            log.warning("catalog_not_ready database=%s reason=%s", database.name, error)

    # --- the pause ---------------------------------------------------------------------------------------------------

    def _names(self, scope: tuple[str, ...]) -> tuple[str, ...]:
        """sync says `*` when this member must stop serving as a whole: it was evicted, replaced or left behind."""
        if EVERYTHING not in scope:
            return scope
        return tuple({*self._databases.gates, *self._databases.config.database_names()})

    def pause(self, scope: tuple[str, ...], rid: int) -> None:
        for name in self._names(scope):
            self._databases.gate(name).close(Reason.ROLLOUT)
        log.info("paused rollout=%s databases=%s", rid, ",".join(scope))

    async def drain(self, scope: tuple[str, ...]) -> None:
        """Every transaction begun here has ended, and no statement of an earlier life of this node runs any more."""
        loop = asyncio.get_running_loop()
        waits = []
        for name in self._names(scope):
            gate = self._databases.gate(name)
            if gate.running:
                done: asyncio.Future[None] = loop.create_future()
                gate.when_drained(lambda done=done: None if done.done() else done.set_result(None))  # type: ignore[misc]
                waits.append(done)
        if waits:
            await asyncio.gather(*waits)
        await self._exorcise(self._names(scope))

    async def _exorcise(self, scope: tuple[str, ...]) -> None:
        for name, pool in self._primaries(scope).items():
            if name not in self._haunted:
                try:
                    await self._end_backends(pool, self._prefix)
                except (Fault, TimeoutError) as error:
                    raise DrainFailed(
                        f"server {pool.target.address}: {error or 'backends of an earlier start do not end'}"
                    ) from None
                self._haunted.add(name)

    async def end_statements_of(self, member: str) -> list[str]:
        """Of a member that somebody says is dead: what it left running on the servers must not take effect once the
        others turn. The servers that could not be asked, with why."""
        failed = []
        for pool in self._primaries(self._names((EVERYTHING,))).values():
            try:
                await self._end_backends(pool, server_prefix(member))
            except (Fault, TimeoutError) as error:
                failed.append(f"{pool.target.address}: {error or 'its backends do not end'}")
        return failed

    def _primaries(self, scope: tuple[str, ...]) -> dict[str, Pool]:
        """One pool per server and login: a role may look at its own backends, in whichever database."""
        pools: dict[str, Pool] = {}
        for pool in self._databases.pools:
            if pool.database in scope and pool.role == "primary":
                pools.setdefault(f"{pool.target.address}/{pool.target.user}", pool)
        return pools

    async def _end_backends(self, pool: Pool, prefix: str) -> None:
        """Returns when no backend is left whose name begins so, this boot's own aside. Raises Fault, TimeoutError."""
        async with asyncio.timeout(GHOSTS_TIMEOUT_S):
            server = await checkout(pool)
            talk = Conversation(server)
            try:
                sql = _GHOSTS.format(prefix=_escaped(prefix), own=_quoted(self._own))
                while True:
                    (result,) = await talk.query(sql, GHOSTS_TIMEOUT_S)
                    if result.rows[0][0] == b"0":
                        return
                    await asyncio.sleep(GHOSTS_POLL_S)
            finally:
                talk.end()
                pool.release(server)

    def resume(self, scope: tuple[str, ...]) -> None:
        # whatever was paused, by whichever scope: a database may have come or gone meanwhile
        for name in self._databases.gates if EVERYTHING in scope else scope:
            self._databases.gate(name).open(Reason.ROLLOUT)
        log.info("resumed databases=%s", ",".join(scope))

    async def apply(self, document: bytes, version: ConfigVersion) -> None:
        try:
            new = replace(self._snapshot(document), number=version.n, digest=version.digest)
            self._applier.apply(new)
        except Fault as fault:
            raise ApplyFailed(str(fault)) from None
        except (OSError, ValueError) as error:
            raise ApplyFailed(str(error)) from None


def _escaped(text: str) -> str:
    """Inside E'…', as a LIKE pattern."""
    return _quoted(text).replace("%", "\\\\%").replace("_", "\\\\_")


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "''")


class Flock:
    """Discovery, control channel and sync of this node, started and stopped in order."""

    def __init__(self, options: FlockOptions, node: str, boot: bytes, state: Path, client: tuple[str, int]) -> None:
        """Raises OSError when the gossip address cannot be had."""
        self.options = options
        self.node = node
        self.boot = boot
        self._state = state
        keyring = options.keys
        identity = ControlIdentity(node, keyring.keys, options.name, state) if keyring else None
        self._udp, self._tcp = bind_pair(options.gossip)
        self.gossip = Address(options.gossip.host, self._udp.getsockname()[1])
        self.control = ControlChannel(node, flock=options.name, identity=identity)
        host = advertised_host(client[0]) if client[0] else "127.0.0.1"
        me = Member(node=node, gossip=self.gossip, client=Address(host, client[1]), boot=boot)
        settings = DiscoverySettings(
            flock=options.name,
            bind=self.gossip,
            seeds=options.seeds,
            state_dir=str(state),
            mdns=options.mdns,
            profile=options.profile,
            resolve_interval_s=options.seed_interval_s,
        )
        self.discovery = Discovery(me, settings, self.control, keyring, Clock(), SystemRandom())
        self.sync: Sync | None = None

    async def start(self) -> None:
        await self.control.start(self.gossip.host, self.gossip.port, sock=self._tcp)
        await self.discovery.start(self._udp)

    def build_sync(self, target: Proxy, settings: SyncSettings) -> Sync:
        """Raises SettingsError."""
        self.sync = Sync(
            node=self.node,
            boot=self.boot.hex(),
            state_dir=self._state,
            register_url=self.options.register_url,
            control=self.control,
            peers=self.peers,
            reachable=self.reachable,
            target=target,
            settings=settings,
            address=str(Address(advertised_host(self.gossip.host), self.gossip.port)),
        )
        return self.sync

    def members(self) -> list[MemberView]:
        return self.discovery.members()

    def peers(self) -> dict[str, str]:
        """Control addresses of the others, by node name."""
        return {view.node: str(view.gossip) for view in self.members() if not view.me and view.state is not State.LEFT}

    def reachable(self, node: str) -> bool | None:
        for view in self.members():
            if view.node == node:
                return {State.ALIVE: True, State.SUSPECT: None}.get(view.state, False)
        return None

    def tell(self, *, clients: int, version: tuple[int, str] | None) -> None:
        """What the others show about this node."""
        number, text = version or (0, "")
        self.discovery.update_meta(clients=clients, version=number, digest=text)

    async def leave(self) -> None:
        if self.sync is not None:
            await self.sync.leave()
        await self.discovery.leave()

    async def stop(self) -> None:
        if self.sync is not None:
            await self.sync.stop()
        await self.discovery.stop()
        await self.control.stop()
