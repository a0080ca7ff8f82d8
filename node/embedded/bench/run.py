"""One run: sets the stage, starts the proxies, and lets the targets take turns at each work."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from node import strip
from node.embedded.bench import bulk, crowd, lexing, load, meter
from node.embedded.bench.configs import Settings
from node.embedded.bench.load import Job, Pace, in_turn
from node.embedded.bench.pgbench import NotMeasured, Pgbench
from node.embedded.bench.profile import NoProfile, Perf
from node.embedded.bench.results import DIRECT, OURS, PGBOUNCER, PGDOG, Report, Row, Sample, family, fold_candidates
from node.embedded.bench.stage import POINT_SELECT, SPLIT_INSERT, Stage
from node.embedded.bench.targets import SHARDED, Proxies, Target
from node.embedded.binaries import NoPostgres, find_program
from node.embedded.screen import Screen
from node.embedded.workspace import Workspace

SHARDED_TOO = {"point", "split"}
"""Works that proxies which shard also do on a sharded database."""

SPARE_CLIENTS = 200
"""Beyond those that are asked for: looking on, filling tables, the busy ones beside the idle ones."""

SPARE_FILES = 1_000
"""Of a process that has a connection for each client: server connections, logs, what libraries open."""

Turn = Callable[[Target], dict[str, float]]


class Run:
    """Everything between the command line and the report."""

    def __init__(self, workspace: Workspace, given: argparse.Namespace, screen: Screen) -> None:
        self.workspace = workspace
        self.given = given
        self.screen = screen
        built = "compiled" if all(strip.compiled().values()) else "interpreted"
        self.report = Report(settings=_settings(given), machine={**meter.machine(), "strip": built})
        self.folder = workspace.folder("bench")
        program = find_program("pgbench")
        if program is None:
            raise NoPostgres("pgbench is neither on PATH nor in the wheel (Debian: apt install postgresql-contrib)")
        self.pgbench = Pgbench(program, self.folder)
        self.perf = Perf(self.folder) if given.profile else None

    def measure(self) -> Report:
        """Raises NoPostgres, NotStarted, NotMeasured when it cannot even begin; later errors stand in the report."""
        given = self.given
        self.report.machine["load_before"] = meter.load()
        with self.screen.waiting(f"servers, tables (pgbench's at scale {given.scale}) and proxies"):
            targets = self._set_up()
        if given.verbose:
            self._say_configurations()
        for job in self._jobs(targets):
            with self.screen.waiting(f"{job.work.name}, {job.mode}, {job.clients} clients"):
                self._load(job)
        for work in given.works:
            if work in bulk.WORKS:
                with self.screen.waiting(f"{work}, {given.megabytes} MB"):
                    self._bulk(work, targets)
        if "idle" in given.works:
            with self.screen.waiting(f"{given.idle_clients} idle clients"):
                self._idle(targets)
        if "storm" in given.works:
            with self.screen.waiting(f"a storm of {given.storm_clients} logins"):
                self._storm(targets)
        self.report.lexing = lexing.shares(self.report.rows)
        self.report.machine["load_after"] = meter.load()
        return self.report

    # -- setting up ------------------------------------------------------------------------------------------------

    def _set_up(self) -> list[Target]:
        given = self.given
        most = self._most_clients()
        meter.raise_open_files(most + SPARE_FILES)
        nodes = len(given.lanes) + sum(given.workers)
        pools = max([given.pool_size, *given.pgbouncer_pool_sizes]) * 2 * (4 + nodes)
        straight = max([*given.clients, given.storm_clients if "storm" in given.works else 0])
        needs_direct = DIRECT in given.targets
        self.stage = Stage(
            self.workspace,
            sharded=bool(SHARDED_TOO & set(given.works)),
            connections=pools + (straight if needs_direct else 0),
        )
        self.stage.fill(given.works, self.pgbench, given.scale, given.megabytes)
        self.proxies = Proxies(
            self.workspace,
            Settings(self.stage.login(), self.stage.shards(), self.stage.sharded_tables(), given.pool_size, most),
        )
        targets = self._start()
        if self.stage.sharded:
            node = next((target for target in targets if family(target.name) == OURS), None)
            self.stage.fill_sharded(node or self.proxies.node(None, None))
        self.stage.settle()
        self.report.machine["versions"] = {"PostgreSQL": self.stage.version, **self.proxies.versions}
        return targets

    def _start(self) -> list[Target]:
        given, proxies = self.given, self.proxies
        found: list[Target | None] = []
        if DIRECT in given.targets:
            found.append(self.stage.direct)
        if PGBOUNCER in given.targets:
            sizes = given.pgbouncer_pool_sizes
            found += [proxies.pgbouncer(size, f"{PGBOUNCER}@{size}") for size in sizes]
            if not sizes:
                found.append(proxies.pgbouncer(given.pool_size))
        if PGDOG in given.targets:
            found.append(proxies.pgdog())
        if OURS in given.targets:
            found += [proxies.node(lanes, workers, name) for name, (lanes, workers) in self._nodes().items()]
        if not any(found):
            raise NotMeasured("none of the targets is installed")
        return [target for target in found if target is not None]

    def _nodes(self) -> dict[str, tuple[str | None, int | None]]:
        """Lanes and workers of each. The first is plainly ours; what is said of it stands in its note."""
        found: dict[str, tuple[str | None, int | None]] = {}
        for lanes in self.given.lanes or [None]:
            for workers in self.given.workers or [None]:
                found[f"{OURS}:{_said(lanes, workers)}" if found else OURS] = (lanes, workers)
        return found

    def _most_clients(self) -> int:
        given = self.given
        most: int = max(
            [
                *given.clients,
                given.idle_clients if "idle" in given.works else 0,
                given.storm_clients if "storm" in given.works else 0,
            ]
        )
        return most + SPARE_CLIENTS

    def _say_configurations(self) -> None:
        for name, text in self.proxies.said.items():
            self.screen.say(f"   -- {name}", "bold")
            self.screen.say("".join(f"   {line}\n" for line in text.splitlines()), "dim")

    # -- measuring -------------------------------------------------------------------------------------------------

    def _jobs(self, targets: Sequence[Target]) -> list[Job]:
        point, split = self.folder / "point.sql", self.folder / "split.sql"
        point.write_text(POINT_SELECT)
        split.write_text(SPLIT_INSERT)
        found = []
        for work in load.works(self.given.works, str(point), str(split)):
            mine = list(targets)
            if work.name in SHARDED_TOO:
                mine += [
                    target.on(SHARDED, f"{target.name}-sharded")
                    for target in targets
                    if family(target.name) in (PGDOG, OURS)
                ]
            for mode in self.given.modes if len(work.modes) > 1 else work.modes:
                found += [Job(work, mode, clients, tuple(mine)) for clients in self.given.clients]
        return found

    def _load(self, job: Job) -> None:
        given = self.given
        pace = Pace(given.duration, given.jobs, given.latency_sampling)

        def turn(target: Target) -> dict[str, float]:
            return load.measure(self.pgbench, job, target, pace)

        self._turns(Row(job.work.name, job.mode, job.clients), job.targets, turn)

    def _bulk(self, work: str, targets: Sequence[Target]) -> None:
        def turn(target: Target) -> dict[str, float]:
            return bulk.measure(self.stage, work, target, self.given.megabytes)

        self._turns(Row(work, "simple", 1), targets, turn, metric="mb_per_s")

    def _storm(self, targets: Sequence[Target]) -> None:
        count = self.given.storm_clients
        self._turns(Row("storm", "simple", count), targets, lambda target: crowd.storm(target, count), "logins_per_s")

    def _idle(self, targets: Sequence[Target]) -> None:
        given = self.given
        busy = crowd.Busy(self.pgbench, given.duration, given.jobs, given.latency_sampling)
        nodes = self._nodes()

        def turn(target: Target) -> dict[str, float]:
            started: list[Target] = []

            def start() -> Target:
                started.append(self._afresh(target, nodes))
                return started[0]

            try:
                return crowd.idle(start, given.idle_clients, busy)
            finally:
                for one in started:
                    self.proxies.stop(one)

        proxies = [target for target in targets if target.pid is not None]
        self._turns(Row("idle", "simple", given.idle_clients), proxies, turn, profiled=False)

    def _afresh(self, target: Target, nodes: dict[str, tuple[str | None, int | None]]) -> Target:
        if family(target.name) == OURS:
            return self.proxies.node(*nodes[target.name], target.name)
        _, _, size = target.name.partition("@")
        fresh = (
            self.proxies.pgdog()
            if target.name == PGDOG
            else self.proxies.pgbouncer(int(size or self.given.pool_size), target.name)
        )
        if fresh is None:
            raise NotMeasured(f"{target.name} is not there any more")
        return fresh

    def _turns(
        self, row: Row, targets: Sequence[Target], turn: Turn, metric: str = "tps", *, profiled: bool = True
    ) -> None:
        row.samples = {target.name: Sample() for target in targets}
        for number in range(self.given.repetitions):
            for target in in_turn(targets, number):
                sample = row.samples[target.name]
                try:
                    sample.turns.append(turn(target))
                except NotMeasured as error:
                    sample.errors.append(str(error))
        if OURS in row.samples:
            row.samples[OURS].note = _said(*self._nodes()[OURS])
        fold_candidates(row, metric=metric)
        self.report.rows.append(row)
        if self.perf is not None and profiled:
            self._profile(row, [target for target in targets if family(target.name) == OURS], turn, self.perf)

    def _profile(self, row: Row, targets: Sequence[Target], turn: Turn, perf: Perf) -> None:
        """A turn more, whose numbers do not count: being watched costs something."""
        names = [module.rpartition(".")[2] for module in strip.STRIP]
        for target in targets:
            found: dict[str, Any] = {
                "target": target.name,
                "what": f"{row.work}, {row.mode}, {row.clients} clients",
            }
            try:
                with perf.watching(target.pids()):
                    turn(target)
                found |= perf.summary(names)
            except (NoProfile, NotMeasured) as error:
                found["error"] = str(error)
            self.report.profiles.append(found)


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    """As JSON can hold them."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()}


def _said(lanes: str | None, workers: int | None) -> str:
    """What was asked of a node: lanes=auto,workers=2."""
    asked = (("lanes", lanes), ("workers", workers))
    return ",".join(f"{name}={value}" for name, value in asked if value is not None)
