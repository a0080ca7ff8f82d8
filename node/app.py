"""The composition root: builds the parts of a node, starts and stops them in order. Nobody imports this.

Start: files → port bound → control and gossip → register read (sync applies what is in force) → clients welcome.
Stop: no new clients → transactions end → the flock is told → everything closed.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import logging
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Awaitable
from pathlib import Path

from discovery.member import Address
from discovery.sockets import advertised_host
from node.auth.verifier import Authenticator, AuthType
from node.cancels import SERVICE as CANCEL
from node.cancels import Cancels
from node.catalogs import Catalogs
from node.client import parameters
from node.client.entrance import LoginRules
from node.client.listener import Listener
from node.client.login import Reception
from node.client.prepared import PreparedStatements
from node.client.protocol import ClientProtocol
from node.client.services import Limits, Services
from node.client.shape import Shapes
from node.client.slow import Slow
from node.config import files
from node.config.diff import diff
from node.config.document import pack
from node.config.limits import LIMITS
from node.config.problems import ConfigError
from node.config.schema import Config
from node.config.setting import seconds
from node.databases import Databases, Identity, tcp_options
from node.errors import Fault
from node.face import Face
from node.farewell import farewell
from node.flock import Flock, FlockOptions, Proxy, is_loopback, read_keys, server_name, sync_settings
from node.gather.two_phase import DecisionLog
from node.http.listeners import Listeners
from node.janitor import Janitor
from node.layout import forget, load_layout, read_catalog
from node.log import configure_logging
from node.loop.loop import run as run_loop
from node.loop.sockets import turn_end
from node.options import (
    NodeOptions,
    following,
    gossip_address,
    join_address,
    node_name,
    register_url,
    split_address,
    state_directory,
)
from node.pool.pool import Surroundings
from node.reception import Accounts, Welcome, account
from node.resolver import Resolver
from node.server.connect import Target, connect
from node.server.connection import ServerConnection
from node.server.protocol import ServerProtocol
from node.snapshot import Snapshot
from node.strip import compiled
from node.tls import ClientTls, ServerTls, TlsVerify, client_tls, server_tls
from node.worker import Prepared, Ready, Worker
from node.workers import Workers
from sync.service import StartRefused, Sync
from sync.settings import SettingsError

log = logging.getLogger("pgmurmur")

# New containers that start a collection of the young, how many of those start one of the middle-aged, and how many of
# these a full one. Clients come and go without cycles, so there is little to find; but a full collection walks over all
# clients that are there (0.1 s with 10,000 of them), and with Python's 700, 10, 10 a storm of logins brings five.
COLLECTOR = (2_000, 5, 100)

# How often other members hear how many clients there are, and pools' averages are looked after.
TELL_EVERY_S = 0.5


def run(options: NodeOptions) -> int:
    """A node, or as many as --workers says, in the foreground; the exit status."""
    if options.workers > 1:
        return Workers(options, prepare, lambda chosen, worker: run_loop(App(chosen, worker).main())).run()
    return run_loop(App(options).main())


def prepare(options: NodeOptions) -> Prepared:
    """Reads the files and begins to log. Raises ConfigError."""
    texts = files.read(options.files.config, options.files.users)
    loaded = texts.parse(os.environ)
    general = loaded.config.general
    configure_logging(options.log_level or general.log_level, options.log_format or general.log_format.value)
    for warning in loaded.warnings:
        log.warning("config %s", warning)
    config, generated = files.with_admin_password(loaded.config)
    if generated is not None:
        log.warning("admin_password_generated user=%s password=%s", config.admin.user, generated)
    missing = [name for name, is_compiled in compiled().items() if not is_compiled]
    if missing:
        log.warning("interpreted modules=%s hint=%r", ",".join(missing), "install a C compiler and reinstall")
    return Prepared(texts, config, generated)


def _content(path: Path | None) -> bytes | None:
    """None, too, when it cannot be read: what uses the file says so better."""
    try:
        return path.read_bytes() if path is not None else None
    except OSError:
        return None


class Refused(Exception):
    """The node does not start; the text is for the operator."""


class App:
    """One node: one process, one event loop, one member; with `worker` it is one of several on the same client port."""

    def __init__(self, options: NodeOptions, worker: Worker | None = None) -> None:
        self.options = options
        self.worker = worker
        self.shift = worker.number - 1 if worker is not None else 0  # of every port but the clients'
        self.boot = secrets.token_bytes(16)
        self.random = random.Random(secrets.randbits(64))
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._signalled = False
        self.hasten = asyncio.Event()
        self.ready = False
        self.status = 0
        self._server_tls: tuple[tuple[object, ...], ClientTls | None] | None = None  # what it was made of, and it

    # --- life --------------------------------------------------------------------------------------------------------

    async def main(self) -> int:
        try:
            await self._start()
        except (ConfigError, Refused) as error:
            print(error, file=sys.stderr)
            return 1
        except (OSError, ValueError, SettingsError) as error:
            print(f"pgmurmur: {error}", file=sys.stderr)
            return 1
        except Fault as fault:
            print(f"pgmurmur: {fault}", file=sys.stderr)
            return 1
        await self._stopping.wait()
        await self._stop()
        return self.status

    async def _start(self) -> None:
        options = self.options
        worker = self.worker
        prepared = worker.prepared if worker is not None else prepare(options)
        self.texts, config = prepared.texts, prepared.config
        general = config.general
        if worker is not None:
            configure_logging(
                options.log_level or general.log_level, options.log_format or general.log_format.value, worker.number
            )
        self.loop = asyncio.get_running_loop()
        self.clock = time.monotonic
        self.host = options.host or general.host
        self.keys = read_keys(options.key_file or config.discovery.key_file)
        self._build_reception()
        welcomed = self._welcomed  # bound once, not once per client
        self.listener = Listener(
            lambda: ClientProtocol(self.reception, welcomed),
            self.host,
            options.port if options.port is not None else general.port,
            unix_factory=lambda: ClientProtocol(self.reception, welcomed, local=True),
            # a UNIX socket cannot be shared by name: the first worker has it
            unix_socket_dir=Path(general.unix_socket_dir) if general.unix_socket_dir and not self.shift else None,
            share_port=worker is not None,
            tcp=tcp_options(config),
        )
        if worker is None:
            await self.listener.start()
        self.node = node_name(options, socket.gethostname(), self.listener.port)
        self._open_state()
        self._build(config)
        if prepared.admin_password is not None:
            self.proxy.admin_password = config.admin.password
        await self._join(config)
        await self._start_http(config)
        for sign in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(sign, self.shutdown)
        self.loop.add_signal_handler(signal.SIGHUP, lambda: self.spawn(self.face.reload_logged()))
        # What start-up made is here to stay: a full collection that walks it all again would stop traffic for long.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTOR)
        self.ready = self.welcome.accepting = True
        self.tell()
        report = self._report()
        if worker is None:
            print(report.line, flush=True)
        elif not await worker.door(report, self.listener.start, self.stop, self.hasten.set):
            return
        log.info("ready node=%s addr=%s gossip=%s", self.node, report.client, report.gossip)

    def _report(self) -> Ready:
        gossip = self.flock.gossip
        return Ready(
            client=join_address(self.host, self.listener.port),
            gossip=join_address(*gossip),
            http=join_address(*self.http) if self.http is not None else "-",
            seed=join_address(advertised_host(gossip.host), gossip.port),
            servers=sum(pool.core.size for pool in self.databases.pools),
            clients=self.welcome.max_clients,
        )

    def _open_state(self) -> None:
        self.state = state_directory(self.options, self.node, os.environ, root=os.geteuid() == 0)
        try:
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.decisions = DecisionLog(self.state / "decisions")
            self.decisions.open()
        except (OSError, Fault) as error:
            raise Refused(f"pgmurmur: the state folder {self.state} cannot be used: {error}") from None

    def _build_reception(self) -> None:
        """Before the port is bound: who knocks now is told that the node is starting."""
        # Members that share a key show a client the same salts, so that none of them looks different. So do workers.
        if self.keys:
            secret = hmac.digest(self.keys.keys[0], b"pgmurmur salts", "sha256")
        else:
            secret = self.worker.salts if self.worker is not None else secrets.token_bytes(32)
        self.reception = Reception(
            LoginRules(),
            Authenticator(secret, secrets.token_bytes),
            Accounts(lambda: self.databases.config).find,
            lambda request: self.cancels.request(request),
        )

    def _welcomed(self, protocol: ClientProtocol, result: object) -> None:
        self.welcome(protocol, result)  # type: ignore[arg-type]

    def _build(self, config: Config) -> None:
        identity = server_name(self.node, self.boot.hex())
        around = Surroundings(
            open=self.open_server,
            clock=self.clock,
            random=self.random,
            spawn=self.spawn,
            no_parameters=parameters.NONE,
            soon=turn_end(self.loop),
            later=self.loop.call_later,
        )
        self.databases = Databases(around, Identity(identity), self.random, config)
        self.services = Services(
            clock=self.clock,
            spawn=self.spawn,
            shapes=Shapes(config.general.query_cache_limit),
            prepared=PreparedStatements(LIMITS.client_prepared_statements),
            database=self.databases.find,
            slow=Slow(),
            limits=Limits(LIMITS.message_bytes, LIMITS.client_prepared_statements),
            node=self.node,
        )
        self.resolver = Resolver(self.decisions, self.databases, self.clock)
        self.services.decisions = self.decisions
        self.services.resolve_later = self.resolver.later
        self.services.load_layout = load_layout
        self.services.read_catalog = read_catalog
        self.services.schema_changed = self.schema_changed
        self.catalogs = Catalogs(lambda: self.databases.by_user.values(), self.spawn)
        self.services.want_layout = self.catalogs.want
        self.welcome = Welcome(self.services, self.databases, self.node, self.clock, self.spawn)
        self.welcome.accepting = False
        self.janitor = Janitor(self.services, self.databases, self.catalogs, self._lagged)
        self.welcome.watch = self.janitor.watch
        self.proxy = Proxy(self.databases, self.node, self.boot.hex(), self, os.environ)

    async def _join(self, config: Config) -> None:
        """Control channel, gossip, register: after this a configuration is in force. Raises Refused."""
        options, d = self.options, config.discovery
        self.flock = Flock(
            FlockOptions(
                name=options.flock or d.flock,
                gossip=self._gossip(d.gossip),
                seeds=(*(options.seeds or d.seeds), *(self.worker.seeds if self.worker is not None else ())),
                mdns=options.mdns if options.mdns is not None else d.mdns,
                keys=self.keys,
                register_url=register_url(
                    options, config.sync.register_url, options.flock or d.flock, os.environ, root=os.geteuid() == 0
                ),
                profile="auto" if d.profile.value == "lan" else d.profile.value,
                seed_interval_s=max(1.0, d.seed_interval / 1000),
            ),
            self.node,
            self.boot,
            self.state,
            (self.host, self.listener.port),
        )
        self.sync: Sync = self.flock.build_sync(self.proxy, sync_settings(config))
        self.face = Face(self)
        self.cancels = Cancels(self.welcome.by_key, self._control_addresses, self.flock.control.request)
        self.flock.control.handle(CANCEL, self.cancels.for_peer)
        self.flock.control.handle("schema", self._schema_changed_at_peer)
        self.face.serve_console()
        await self.flock.start()
        self.spawn(self.janitor.run())
        self.spawn(self._tell())
        try:
            await self.sync.start(pack(self.texts.config, self.texts.users), self.options.adopt)
        except StartRefused as error:
            await self.flock.stop()
            raise Refused(self._why_refused(error)) from None
        self.spawn(self.resolver.run())
        self.sync.failed.add_done_callback(self._sync_failed)

    def _control_addresses(self) -> dict[str, str]:
        """Of the other members that are not known to be gone: as gossip knows them, else as they took their seats."""
        cell = self.sync.cell
        seats = {} if cell is None else {name: seat.address for name, seat in cell.roster.seats if name != self.node}
        known = {**seats, **self.flock.peers()}
        return {name: address for name, address in known.items() if self.flock.reachable(name) is not False}

    def _gossip(self, configured: str | None) -> Address:
        """Without a key only this host is spoken with. An address that others can reach would promise more: refused
        when somebody chose it; when it only follows from the client address, loopback is taken in its place."""
        host, port = gossip_address(self.options, self.host, self.listener.port, configured)
        port = following(port, self.shift)
        if self.keys or is_loopback(host):
            return Address(host, port)
        if self.options.gossip or configured:
            raise Refused(
                f"pgmurmur: other hosts can reach the gossip address {join_address(host, port)}, and this flock has no"
                " key: anybody could join it\n"
                "HINT: give every node the same --key-file (one line: openssl rand -base64 32), or"
                f" --gossip 127.0.0.1:{port} for nodes on this host only"
            )
        log.info("gossip_on_loopback hint=%r", "without a --key-file nodes find each other on this host only")
        return Address("::1" if ":" in host else "127.0.0.1", port)

    def _why_refused(self, error: StartRefused) -> str:
        lines = [f"pgmurmur: {error}"]
        if error.document is not None:
            try:
                there = self.proxy.read(error.document)
                here = self.proxy.read(pack(self.texts.config, self.texts.users))
                lines += [f"  {line}" for line in diff(there, here).lines]
            except Fault as fault:
                lines.append(f"  the register's document does not read here: {fault}")
            lines.append("HINT: --adopt takes the register's version, whatever the local files say")
        return "\n".join(lines)

    def _sync_failed(self, future: asyncio.Future[None]) -> None:
        """This member must not promise anything any more: it leaves, with an error."""
        if not future.cancelled() and (error := future.exception()) is not None:
            log.error("sync_failed reason=%s", error)
            self.status = 1
            self.hasten.set()
            self.stop()

    async def _start_http(self, config: Config) -> None:
        general = config.general

        def shifted(host: str, port: int) -> tuple[str, int]:
            return host, following(port, self.shift)

        wanted = shifted(*split_address(self.options.http)) if self.options.http is not None else None
        metrics = shifted(general.openmetrics_host, general.openmetrics_port) if general.openmetrics_port else None
        health = shifted("0.0.0.0", general.healthcheck_port) if general.healthcheck_port else None
        self.listeners = Listeners(self.face.answers(), http=wanted, openmetrics=metrics, healthcheck=health)
        await self.listeners.start()
        self.http = (wanted[0], self.listeners.http_port or 0) if wanted is not None else None

    async def _stop(self) -> None:
        log.info("stopping clients=%s", len(self.services.sessions))
        self.ready = self.welcome.accepting = False
        self.listener.stop_accepting()
        timeout_s = seconds(self.databases.config.general.shutdown_timeout) or 60.0
        await farewell(self.services, self.welcome, timeout_s, self.hasten)
        await self.flock.leave()
        self.face.consoles.close()
        await self.listeners.stop()
        await self.listener.close()
        await self.flock.stop()
        for pool in self.databases.pools:
            pool.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.decisions.close()
        log.info("stopped")

    def shutdown(self) -> None:
        """SIGTERM, SIGINT, SHUTDOWN; a second one hastens."""
        if self._signalled:
            self.hasten.set()
        self._signalled = True
        if self.worker is not None:
            self.worker.say_stop()  # what is meant for one is meant for all
        self._stopping.set()

    def stop(self) -> None:
        """Also the parent's word to its workers, beside a signal that may have come to all: both together are one."""
        self._stopping.set()

    # --- configuration -----------------------------------------------------------------------------------------------

    def check(self, config: Config) -> ClientTls | None:
        """How the servers of `config` are talked to; its files can be used. Raises OSError, ValueError."""
        self._certificate(config)
        return self._client_tls(config)

    def apply(self, new: Snapshot) -> None:
        """Puts a configuration in force for every transaction that begins from now on. Raises OSError, ValueError."""
        general = new.config.general
        certificate = self._certificate(new.config)
        gone = self.databases.apply(new, self._client_tls(new.config))
        self.reception.rules = LoginRules(
            auth_type=AuthType(general.auth_type.value),
            tls=certificate,
            tls_required=general.tls_client_required,
            timeout_s=seconds(general.client_login_timeout) or 60.0,
        )
        services = self.services
        services.epoch = self.databases.epoch
        services.shapes.cache.resize(general.query_cache_limit)
        services.drops_refused_clients = general.client_connection_recovery.value == "drop"
        self.welcome.max_clients = general.max_client_conn
        self.welcome.log_connections = general.log_connections
        self.welcome.log_disconnections = general.log_disconnections
        self.janitor.client_wait_s = new.config.sync.client_wait / 1000
        for pool in gone:
            pool.close()  # who waits there looks again, and finds the new one
        self.spawn(self._warm(new.config))
        log.info("applied version=%s digest=%s databases=%s", new.number, new.digest[:12], len(new.topologies))

    def refresh_catalogs(self) -> None:
        """What is known of the shards stays in force while it is read again: nobody waits for it."""
        for name in {name for _, name in self.databases.by_user}:
            self.spawn(self._refresh_catalog(name))

    async def _refresh_catalog(self, name: str) -> None:
        database = next((one for one in self.databases.by_user.values() if one.name == name), None)
        if database is not None and database.routed and database.layout.loaded:
            try:
                await load_layout(database, again=True)
            except Fault as fault:
                log.warning("catalog_not_refreshed database=%s reason=%s", name, fault)

    def _certificate(self, config: Config) -> ServerTls | None:
        general = config.general
        if general.tls_certificate is None or general.tls_private_key is None:
            return None
        ca = general.tls_client_ca_certificate
        return server_tls(
            Path(general.tls_certificate), Path(general.tls_private_key), Path(ca) if ca is not None else None
        )

    def _client_tls(self, config: Config) -> ClientTls | None:
        """The same object as long as settings and files are the same: pools with another one are other pools."""
        general = config.general
        names = (
            general.tls_server_ca_certificate,
            general.tls_server_certificate,
            general.tls_server_private_key,
        )
        paths = [Path(name) if name is not None else None for name in names]
        made_of = (general.tls_verify.value, *map(_content, paths))
        if self._server_tls is None or self._server_tls[0] != made_of:
            ca, certificate, private_key = paths
            made = client_tls(
                TlsVerify(general.tls_verify.value), ca=ca, certificate=certificate, private_key=private_key
            )
            self._server_tls = (made_of, made)
        return self._server_tls[1]

    async def _warm(self, config: Config) -> None:
        """SCRAM keys are derived before somebody logs in, beside the event loop."""
        accounts = [account(config, user.name, user.database or "") for user in config.users]
        await self.reception.warm([one for one in accounts if one is not None])

    # --- what the parts ask for --------------------------------------------------------------------------------------

    async def open_server(self, target: Target, connection: ServerConnection, timeout_s: float) -> None:
        opened = await connect(target, protocol_factory=lambda: ServerProtocol(connection), timeout_s=timeout_s)
        connection.pid, connection.secret, connection.tls = opened.pid, opened.secret, opened.tls
        connection.statuses = dict(opened.parameters)

    def schema_changed(self, database: object) -> None:
        """DDL went through this node: the catalog is read again, here and on every member."""
        name = getattr(database, "name", "")
        for other in self.databases.by_user.values():
            if other.name == name:
                forget(other)
        self.spawn(self._tell_schema(name))

    async def _tell_schema(self, name: str) -> None:
        for node, address in self.flock.peers().items():
            try:
                await self.flock.control.request(address, "schema", name.encode(), 5.0, node=node)
            except OSError as error:
                log.info("schema_change_not_told member=%s reason=%s", node, error)

    async def _schema_changed_at_peer(self, sender: str, payload: bytes) -> bytes:
        for database in self.databases.by_user.values():
            if database.name == payload.decode("utf-8", "replace"):
                forget(database)
        return b""

    def _lagged(self, lag_s: float) -> None:
        self.flock.discovery.lag(lag_s)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            self.tell()
            self.face.tick()

    def tell(self) -> None:
        """What is said of this node in SHOW PEERS, here and on the others."""
        self.flock.tell(clients=len(self.services.sessions), version=self.sync.version)

    def spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        async def guarded() -> None:
            try:
                await work
            except asyncio.CancelledError:
                raise
            except Exception:
                log.exception("task_failed")

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
