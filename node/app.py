"""The composition root: builds the parts of a node, starts and stops them in order. Nobody imports this."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import Awaitable
from pathlib import Path

import uvloop

from node.auth.verifier import Authenticator
from node.client import parameters
from node.client.login import LoginRules, Reception
from node.client.listener import Listener
from node.client.prepared import PreparedStatements
from node.client.protocol import ClientProtocol
from node.client.services import Limits, Services
from node.client.shape import Shapes
from node.client.slow import Slow
from node.config import files
from node.config.document import digest, pack
from node.config.limits import LIMITS
from node.config.load import Loaded
from node.config.problems import ConfigError
from node.config.setting import seconds
from node.databases import Databases, Identity
from node.errors import Fault
from node.gather.two_phase import DecisionLog
from node.janitor import Janitor
from node.layout import forget, load_layout
from node.log import configure_logging
from node.options import NodeOptions, node_name, state_directory
from node.pool.pool import Surroundings
from node.reception import Welcome, account
from node.resolver import Resolver
from node.server.cancel import cancel as cancel_on_server
from node.server.connect import Target, connect
from node.server.connection import ServerConnection
from node.server.protocol import ServerProtocol
from node.snapshot import Snapshot, snapshot
from node.tls import ClientTls, ServerTls, TlsVerify, client_tls, server_tls
from node.wire.startup import CancelRequest

log = logging.getLogger("pgmurmur")


def run(options: NodeOptions) -> int:
    """A node in the foreground; the exit status."""
    return uvloop.run(App(options).main())


class App:
    """One node: one process, one event loop, one member."""

    def __init__(self, options: NodeOptions) -> None:
        self.options = options
        self.boot = secrets.token_hex(8)
        self.random = random.Random(secrets.randbits(64))
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._hasten = asyncio.Event()

    # --- starting ------------------------------------------------------------------------------------------------

    async def main(self) -> int:
        options = self.options
        try:
            texts = files.read(options.files.config, options.files.users)
            loaded = texts.parse(os.environ)
        except ConfigError as error:
            print(error, file=sys.stderr)
            return 1
        general = loaded.config.general
        configure_logging(options.log_level or general.log_level, options.log_format or general.log_format.value)
        for warning in loaded.warnings:
            log.warning("config %s", warning)
        config, generated = files.with_admin_password(loaded.config)
        if generated is not None:
            log.warning("admin_password_generated password=%s", generated)
        loop = asyncio.get_running_loop()
        self.clock = loop.time
        host, port = options.host or general.host, options.port if options.port is not None else general.port
        self.node = node_name(options, socket.gethostname(), port)
        self.state = state_directory(options, self.node, os.environ, root=os.geteuid() == 0)
        try:
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.decisions = DecisionLog(self.state / "decisions")
            self.decisions.open()
        except (OSError, Fault) as error:
            print(f"pgmurmur: the state folder {self.state} cannot be used: {error}", file=sys.stderr)
            return 1
        self.build()
        self.apply(snapshot(config, pack(texts.config, texts.users), number=0, digest=""))
        listener = Listener(
            lambda: ClientProtocol(self.reception, self.welcome),
            host,
            port,
            unix_socket_dir=Path(general.unix_socket_dir) if general.unix_socket_dir else None,
        )
        await listener.start()
        self.spawn(self.janitor.run())
        self.spawn(self.resolver.run())
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self.stop)
        print(f"ready\t{host}:{listener.port}\t-\t-", flush=True)
        log.info("ready node=%s addr=%s:%s", self.node, host, listener.port)
        await self._stop.wait()
        listener.stop_accepting()
        await listener.close()
        return 0

    def build(self) -> None:
        around = Surroundings(
            open=self.open_server, clock=self.clock, random=self.random, spawn=self.spawn, no_parameters=parameters.NONE
        )
        self.databases = Databases(around, Identity(f"pgmurmur/{self.node}/{self.boot}"), self.random)
        self.services = Services(
            clock=self.clock,
            spawn=self.spawn,
            shapes=Shapes(1000),
            prepared=PreparedStatements(10_000),
            database=self.databases.find,
            slow=Slow(),
            limits=Limits(LIMITS.message_bytes, LIMITS.client_prepared_statements),
            node=self.node,
        )
        self.services.decisions = self.decisions
        self.resolver = Resolver(self.decisions, self.databases, self.clock)
        self.services.resolve_later = self.resolver.later
        self.services.load_layout = load_layout
        self.services.schema_changed = forget
        self.welcome = Welcome(self.services, self.databases, self.node, self.clock, self.spawn)
        self.reception = Reception(
            LoginRules(),
            Authenticator(secrets.token_bytes(32), secrets.token_bytes),
            lambda user, database: account(self.databases.snapshot.config, user, database),
            self.cancel,
        )
        self.janitor = Janitor(self.services, self.databases, lambda lag_s: None)

    def apply(self, new: Snapshot) -> None:
        general = new.config.general
        self.reception.rules = LoginRules(
            auth_type=self.reception.rules.auth_type.__class__(general.auth_type.value),
            tls=None,
            tls_required=general.tls_client_required,
            timeout_s=seconds(general.client_login_timeout) or 60.0,
        )
        self.databases.apply(new, None)
        self.services.epoch = self.databases.epoch
        self.services.shapes.cache.resize(general.query_cache_limit)

    async def open_server(self, target: Target, connection: ServerConnection, timeout_s: float) -> None:
        opened = await connect(target, protocol_factory=lambda: ServerProtocol(connection), timeout_s=timeout_s)
        connection.pid, connection.secret, connection.tls = opened.pid, opened.secret, opened.tls
        connection.statuses = dict(opened.parameters)

    async def cancel(self, request: CancelRequest) -> None:
        session = self.welcome.by_key.get(request.pid)
        if session is None or not secrets.compare_digest(session.secret, request.secret):
            return
        server = session.server
        if server is not None and server.pool is not None and not server.pipeline.idle():
            await cancel_on_server(server.pool.target, server.pid, server.secret, tls=server.tls, timeout_s=10)

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

    def stop(self) -> None:
        if self._stop.is_set():
            self._hasten.set()
        self._stop.set()
