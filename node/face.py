"""The node as its console and its HTTP endpoints see it (admin.ports.Node)."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from discovery.service import MemberView
from node.admin.commands import serve
from node.admin.consoles import Consoles
from node.admin.ports import RolloutReport, RolloutRequest, RolloutStatus
from node.cli import version
from node.client.services import Services
from node.config import files
from node.config.diff import diff, routing_digest
from node.config.document import pack, unpack
from node.config.limits import LIMITS
from node.config.runtime import shown, with_setting
from node.config.setting import seconds
from node.databases import Databases
from node.errors import ClientFault, Fault, ServerFault
from node.http.listeners import Answers, up
from node.pool.pool import Pool
from node.snapshot import Snapshot, snapshot
from node.stats.counters import Averages, Periods
from node.stats.openmetrics import NodeSample, PoolSample, metrics, render
from node.wire.codes import Transaction
from sync.messages import MemberRow
from sync.ports import ControlUnreachable
from sync.version import ConfigVersion

if TYPE_CHECKING:
    from node.app import App

log = logging.getLogger("pgmurmur.admin")


class Face:
    """Reads the running parts; changes go through sync, or (RELOAD, SET) through the app's `apply`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._periods = Periods(app.clock())
        self._sampled_at = app.clock()
        self._outcomes: Counter[str] = Counter()
        self._offset = time.time() - app.clock()

    # --- looking -----------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._app.node

    @property
    def version(self) -> str:
        return version()

    @property
    def services(self) -> Services:
        return self._app.services

    @property
    def databases(self) -> Databases:
        return self._app.databases

    def clock(self) -> float:
        return self._app.clock()

    def utc(self, at: float) -> float:
        return at + self._offset

    def counters(self, pool: Pool) -> tuple[object, Averages]:
        counters = pool.counters
        total = pool.gone
        for server in (*pool.core.idle, *pool.core.lent):
            total = total.plus(server.traffic())
        for name, value in total._asdict().items():
            setattr(counters, name, value)
        return counters, self._periods.of(pool.id)

    def tick(self) -> None:
        """Called a few times a second: ends the period of the averages when it is over."""
        period_s = seconds(self.databases.config.general.stats_period) or 15.0
        now = self.clock()
        if now - self._sampled_at >= period_s:
            self._sampled_at = now
            self._periods.tick({pool.id: self.counters(pool)[0] for pool in self.databases.pools}, now)

    def settings(self) -> Iterable[tuple[str, str]]:
        return shown(self.databases.config)

    def members(self) -> Sequence[MemberView]:
        """Of this node what is so now; of the others what they told last."""
        self._app.tell()
        return self._app.flock.members()

    def drift(self) -> str | None:
        if not self._app.sync.drift:
            return None
        return "the configuration files of this node differ from the version in force; ROLLOUT would put them in force"

    def rollout_status(self) -> RolloutStatus:
        rows = self._app.sync.status()
        if not rows:
            return RolloutStatus(0, None, "idle", "", None, ())
        head = rows[0]
        started = head["started"]
        return RolloutStatus(
            head["id"] or 0,
            head["version"],
            head["phase"],
            head["coordinator"] or "",
            datetime.fromisoformat(started).timestamp() if started else None,
            tuple(
                MemberRow(
                    row["node"],
                    row["state"] or "",
                    paused_ms=row["paused_ms"],
                    drained_ms=row["drained_ms"],
                    reason=row["reason"],
                )
                for row in rows
            ),
        )

    def history(self) -> Sequence[ConfigVersion]:
        cell = self._app.sync.cell
        return cell.history if cell is not None else ()

    # --- changing ----------------------------------------------------------------------------------------------------

    async def reload(self) -> Sequence[str]:
        """This node only, and only until it starts again: what the flock agreed on rules at every start."""
        app = self._app
        current = app.databases.snapshot
        assert current is not None
        texts = self._files()
        document = pack(texts.config, texts.users)
        config = app.proxy.read(document)
        moved = [
            name
            for name in {*config.database_names(), *current.config.database_names()}
            if self._routes_differently(current, config, name)
        ]
        if moved and len(self.members()) > 1:
            raise ClientFault(
                f'cannot reload: routing of database "{", ".join(sorted(moved))}" would differ from the other nodes\'',
                sqlstate="55000",
                hint="ROLLOUT changes all nodes together",
            )
        app.texts = texts
        app.sync.local_files(document)
        app.apply(snapshot(config, document, number=current.number, digest=current.digest))
        app.refresh_catalogs()
        return diff(current.config, config).restart

    @staticmethod
    def _routes_differently(current: Snapshot, config: object, name: str) -> bool:
        from node.config.schema import Config

        assert isinstance(config, Config)
        return routing_digest(config, name) != routing_digest(current.config, name)

    async def reload_logged(self) -> None:
        """SIGHUP."""
        try:
            for notice in await self.reload():
                log.warning("reload %s", notice)
            log.info("reloaded")
        except Fault as fault:
            log.error("reload_failed reason=%s", fault)

    def set_setting(self, name: str, value: str) -> None:
        app = self._app
        current = app.databases.snapshot
        assert current is not None
        config = with_setting(current.config, name, value)
        app.apply(snapshot(config, current.document, number=current.number, digest=current.digest))

    async def rollout(self, request: RolloutRequest) -> RolloutReport:
        app = self._app
        document = await self._document(request)
        outcome = await app.sync.rollout(document, app.node, request.timeout_s, request.dry_run)
        if outcome.errors or (not outcome.opened and outcome.outcome == "aborted" and not outcome.dry_run):
            raise ClientFault(
                f"rollout refused: {outcome.reason}"
                if not outcome.errors
                else "rollout refused: the document is not valid",
                sqlstate="55006" if not outcome.errors else "F0000",
                detail="\n".join(outcome.errors) or None,
                hint="nothing was changed",
            )
        self._outcomes[outcome.outcome] += 1
        # What a member remarks while it accepts is no reason; members of one version remark the same.
        accepted = [row for row in outcome.nodes if row.ack and outcome.outcome == "committed" and row.reason]
        notes = tuple(dict.fromkeys(str(row.reason) for row in accepted))
        rows = tuple(replace(row, reason=None) if row in accepted else row for row in outcome.nodes)
        return RolloutReport(outcome.outcome, outcome.rid, outcome.version, outcome.digest, outcome.reason, rows, notes)

    async def _document(self, request: RolloutRequest) -> bytes:
        app = self._app
        if request.to_version is not None:
            for known in self.history():
                if known.n == request.to_version:
                    return await app.sync.document(known.digest)
            raise ClientFault(
                f"version {request.to_version} is not remembered",
                sqlstate="22023",
                hint="SHOW CONFIG HISTORY lists the versions one can go back to",
            )
        if request.config is None and request.users is None:
            app.texts = self._files()
            return pack(app.texts.config, app.texts.users)
        current = app.databases.snapshot
        assert current is not None
        config, users = unpack(current.document)
        return pack(
            request.config if request.config is not None else config,
            request.users if request.users is not None else users,
        )

    def _files(self) -> files.Texts:
        """This node's files. A missing one counts as empty at start, as in PgDog; it must not empty a running flock."""
        options = self._app.options.files
        texts = files.read(options.config, options.users)
        missing = (*texts.warnings, *texts.unreadable)
        if missing:
            raise ClientFault(
                "configuration files cannot be read",
                sqlstate="58P01",
                detail="\n".join(map(str, missing)),
                hint="nothing was changed",
            )
        return texts

    async def evict(self, member: str) -> None:
        app = self._app
        if member != app.node:
            for failed in await app.proxy.end_statements_of(member):
                log.warning("evicted_statements_may_run member=%s server=%s", member, failed)
        if not await app.sync.evict(member, app.node):
            raise ServerFault(
                f'member "{member}" was not evicted',
                sqlstate="55000",
                hint="SHOW PEERS lists the members; one cannot evict itself",
            )
        app.flock.discovery.evict(member)

    def shutdown(self) -> None:
        self._app.shutdown()

    async def ask(self, member: str, payload: bytes, timeout_s: float) -> bytes:
        app = self._app
        address = app.flock.peers().get(member)
        if address is None:
            raise ServerFault(f'member "{member}" is not known', sqlstate="08001")
        try:
            return await app.flock.control.request(address, "admin", payload, timeout_s, node=member)
        except ControlUnreachable as error:
            raise ServerFault(str(error), sqlstate="08001") from None

    # --- serving -----------------------------------------------------------------------------------------------------

    def serve_console(self) -> None:
        """Admin logins on the client port, and CLUSTER commands from other members."""
        app = self._app
        self.consoles = Consoles(self)
        app.welcome.console = self.consoles
        app.flock.control.handle("admin", self._for_peer)

    async def _for_peer(self, sender: str, payload: bytes) -> bytes:
        """A CLUSTER command that was given on another member, whose console has checked who gave it."""
        return await serve(self, payload)

    def answers(self) -> Answers:
        app = self._app
        return Answers(
            metrics=self.metrics,
            healthy=lambda: up(pool.health.healthy for pool in app.databases.pools),
            ready=lambda: app.ready,
            title=f"pgmurmur {app.node}",
        )

    def metrics(self) -> str:
        app = self._app
        services, databases = app.services, app.databases
        general = databases.config.general
        cache = services.shapes.cache
        states = Counter(view.state.value for view in self.members())
        entries = cache.entries()
        applied = app.sync.version
        node = NodeSample(
            pools=[self._pool_sample(pool) for pool in databases.pools],
            clients=len(services.sessions),
            clients_locked=sum(session.pin is not None for session in services.sessions.values()),
            prepared_statements_limit=min(general.prepared_statements_limit, LIMITS.client_prepared_statements),
            prepared_statements=len(services.prepared.known),
            prepared_statements_memory_used=sum(p.memory_bytes for p in services.prepared.known.values()),
            query_cache_limit=cache.limit,
            query_cache_size=len(cache),
            query_cache_hits=cache.hits,
            query_cache_misses=cache.misses,
            query_cache_direct=sum(entry.direct for entry in entries),
            query_cache_cross=sum(entry.multi for entry in entries),
            loop_lag_s=app.janitor.lag_s,
            config_version=applied[0] if applied is not None else 0,
            ready=app.ready,
            members={state: states.get(state, 0) for state in ("alive", "suspect", "dead", "left")},
            paused={name: not gate.is_open for name, gate in databases.gates.items()},
            gate_waiting={name: len(gate.waiting) for name, gate in databases.gates.items()},
            rollouts=dict(self._outcomes),
        )
        return render(metrics(node), general.openmetrics_namespace)

    def _pool_sample(self, pool: Pool) -> PoolSample:
        counters, averages = self.counters(pool)
        core = pool.core
        idle_in_transaction = sum(
            server.pipeline.idle() and server.pipeline.tx_status == Transaction.OPEN for server in core.lent
        )
        first = core.waiters[0].since if core.waiters else None
        return PoolSample(
            user=pool.user,
            database=pool.database,
            host=pool.target.host,
            port=pool.target.port,
            shard=pool.shard,
            role=pool.role,
            max_connections=core.size,
            cl_waiting=core.waiting(),
            sv_active=len(core.lent) - idle_in_transaction,
            sv_idle=len(core.idle),
            sv_idle_xact=idle_in_transaction,
            maxwait_s=self.clock() - first if first is not None else 0.0,
            counters=counters,
            averages=averages,
        )
