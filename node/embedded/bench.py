"""scripts/bench: pgbench through PostgreSQL itself, PgBouncer and one node, in turns, on this machine.

Per protocol and number of clients: transactions per second, their ratios, and the CPU time each proxy process spent per
query. All three talk to the same server; whoever comes first in a turn changes nothing, since turns alternate.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node.embedded.binaries import NoPostgres, find_program
from node.embedded.cluster import Stopped, stop_on_signals
from node.embedded.nodes import NodeProcess
from node.embedded.screen import Screen
from node.embedded.server import Server
from node.embedded.workspace import Workspace, free_port

USER, PASSWORD = "bench", "bench"
DATABASE, SHARDED = "bench", "sharded"
MODES = ("simple", "extended", "prepared")
POINTS = 100_000
POINT_SELECT = f"\\set id random(1, {POINTS})\nSELECT v FROM points WHERE id = :id;\n"
PREPARED_SINCE = (1, 21)
"""PgBouncer's first version with prepared statements in transaction mode."""


class NotMeasured(RuntimeError):
    """pgbench did not finish; the text is what it said."""


@dataclass(frozen=True)
class Target:
    """What pgbench connects to, and the process whose CPU time counts (None for PostgreSQL itself)."""

    name: str
    port: int
    database: str
    pid: int | None


@dataclass(frozen=True)
class Work:
    """One row to measure: pgbench with these options, as this many clients, through each target."""

    name: str
    mode: str
    clients: int
    targets: tuple[Target, ...]
    options: tuple[str, ...]


@dataclass
class Sample:
    """All turns of one target in one row of the table."""

    tps: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    error: str | None = None

    @property
    def median_tps(self) -> float | None:
        return statistics.median(self.tps) if self.tps else None

    @property
    def median_cpu_us(self) -> float | None:
        return statistics.median(self.cpu_us) if self.cpu_us else None


@dataclass
class Row:
    work: str
    mode: str
    clients: int
    samples: dict[str, Sample]

    def as_json(self) -> dict[str, object]:
        return {
            "work": self.work,
            "mode": self.mode,
            "clients": self.clients,
            **{
                name: {"tps": s.median_tps, "cpu_us": s.median_cpu_us, "all_tps": s.tps, "error": s.error}
                for name, s in self.samples.items()
            },
        }


class Bench:
    """The servers and proxies of one run."""

    def __init__(self, workspace: Workspace, given: argparse.Namespace) -> None:
        self.workspace = workspace
        self.given = given
        self.pgbench = find_program("pgbench")
        if self.pgbench is None:
            raise NoPostgres("pgbench is neither on PATH nor in the wheel")
        self.folder = workspace.folder("bench")
        self.script = self.folder / "point.sql"
        self.script.write_text(POINT_SELECT)
        self.pgbouncer_version: tuple[int, ...] = ()

    def set_up(self) -> None:
        self.servers = [
            Server(self.workspace, f"server_{number}", settings={"shared_buffers": "'256MB'"}).start()
            for number in range(2 if self.given.sharded else 1)
        ]
        for server in self.servers:
            server.create_role(USER, PASSWORD)
            for database in (DATABASE, SHARDED) if self.given.sharded else (DATABASE,):
                server.create_database(database, USER)
        self._pgbench(self._direct, "--initialize", f"--scale={self.given.scale}", "--quiet")
        self.node = self._start_node()
        if self.given.sharded:
            self._set_up_points()
        for server in self.servers:
            for database in (DATABASE, SHARDED) if self.given.sharded else (DATABASE,):
                server.sql("VACUUM ANALYZE", database)
            server.sql("CHECKPOINT")

    def targets(self) -> list[Target]:
        found = [self._direct]
        pgbouncer = self._start_pgbouncer()
        if pgbouncer is not None:
            found.append(pgbouncer)
        return [*found, Target("node", self.node.port, DATABASE, self.node.pid)]

    def works(self) -> list[Work]:
        """What is to be measured, one row of the table each."""
        targets = self.targets()
        kinds = [("select", targets, ("--select-only",))]
        if self.given.sharded:
            sharded = [*targets, Target("sharded", self.node.port, SHARDED, self.node.pid)]
            kinds.append(("point", sharded, (f"--file={self.script}",)))
        return [
            Work(name, mode, clients, tuple(targets), options)
            for name, targets, options in kinds
            for mode in self.given.modes
            for clients in self.given.clients
        ]

    def measure(self, work: Work) -> Row:
        """The order of the targets turns with every repetition."""
        targets = work.targets
        row = Row(work.name, work.mode, work.clients, {target.name: Sample() for target in targets})
        for turn in range(self.given.repetitions):
            for target in (*targets[turn % len(targets) :], *targets[: turn % len(targets)]):
                sample = row.samples[target.name]
                if target.name == "pgbouncer" and work.mode == "prepared" and self.pgbouncer_version < PREPARED_SINCE:
                    sample.error = "this PgBouncer has no prepared statements in transaction mode"
                    continue
                try:
                    self._measure(target, sample, work)
                except NotMeasured as error:
                    sample.error = str(error)
        return row

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _direct(self) -> Target:
        return Target("direct", self.servers[0].port, DATABASE, None)

    def _measure(self, target: Target, sample: Sample, work: Work) -> None:
        before = cpu_s(target.pid)
        said = self._pgbench(
            target,
            *work.options,
            f"--protocol={work.mode}",
            f"--client={work.clients}",
            f"--jobs={min(work.clients, self.given.jobs)}",
            f"--time={self.given.duration}",
            "--no-vacuum",
        )
        after = cpu_s(target.pid)
        tps = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
        count = re.search(r"actually processed: (\d+)", said)
        failed = re.search(r"failed transactions: (\d+)", said)
        if tps is None or count is None or int(count.group(1)) == 0 or (failed and int(failed.group(1))):
            raise NotMeasured(said.strip()[-500:])
        sample.tps.append(float(tps.group(1)))
        if before is not None and after is not None:
            sample.cpu_us.append((after - before) * 1e6 / int(count.group(1)))

    def _pgbench(self, target: Target, *options: str) -> str:
        assert self.pgbench is not None
        done = subprocess.run(
            [
                self.pgbench,
                "--host=127.0.0.1",
                f"--port={target.port}",
                f"--username={USER}",
                *options,
                target.database,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={"PATH": os.environ.get("PATH", ""), "PGPASSWORD": PASSWORD},
            timeout=self.given.duration + 300,
        )
        if done.returncode != 0:
            raise NotMeasured(done.stdout.strip()[-500:])
        return done.stdout

    def _set_up_points(self) -> None:
        """One table of points for the direct connection, and one over two shards, filled through the node."""
        import psycopg

        create = "CREATE TABLE points (id bigint PRIMARY KEY, v bigint)"
        points = f"SELECT i, i FROM generate_series(1, {POINTS}) AS i"
        self.servers[0].sql(f"{create}; INSERT INTO points {points}", DATABASE, user=USER, password=PASSWORD)
        try:
            with self.node.connect(SHARDED, USER, PASSWORD) as connection:
                connection.execute(create.encode())
                connection.execute(f"INSERT INTO points (id, v) {points}".encode())
        except psycopg.Error as error:
            raise NotMeasured(f"the sharded table could not be made through the node: {error}") from error

    def _start_node(self) -> NodeProcess:
        config, users = self.folder / "pgdog.toml", self.folder / "users.toml"
        text = f'[general]\nhost = "127.0.0.1"\nport = 0\ndefault_pool_size = {self.given.pool_size}\n'
        databases = [(DATABASE, 0, self.servers[0])]
        if self.given.sharded:
            databases += [(SHARDED, number, server) for number, server in enumerate(self.servers)]
        for name, shard, server in databases:
            text += f'\n[[databases]]\nname = "{name}"\nhost = "{server.host}"\nport = {server.port}\nshard = {shard}\n'
        if self.given.sharded:
            text += f'\n[[sharded_tables]]\ndatabase = "{SHARDED}"\nname = "points"\ncolumn = "id"\n'
            text += 'data_type = "bigint"\n'
        config.write_text(text)
        users.write_text(
            "".join(
                f'[[users]]\nname = "{USER}"\npassword = "{PASSWORD}"\ndatabase = "{name}"\n\n'
                for name in dict.fromkeys(name for name, _, _ in databases)
            )
        )
        options = ["--no-mdns", "--flock", "bench", "--register", f"file:{self.folder / 'register'}"]
        started = NodeProcess(self.workspace, "node", config, users, self.folder / "node", options=options).start()
        self.workspace.on_close(lambda: _discard(started.stop()))
        return started

    def _start_pgbouncer(self) -> Target | None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        if program is None or self.given.no_pgbouncer:
            return None
        said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
        number = re.search(r"(\d+)\.(\d+)", said)
        self.pgbouncer_version = tuple(map(int, number.groups())) if number else ()
        folder = self.workspace.folder("pgbouncer", private_to_account=True)
        port = free_port()
        prepared = "max_prepared_statements = 200\n" if self.pgbouncer_version >= PREPARED_SINCE else ""
        for name, text in (
            ("userlist.txt", f'"{USER}" "{PASSWORD}"\n'),
            (
                "pgbouncer.ini",
                f"[databases]\n{DATABASE} = host=127.0.0.1 port={self.servers[0].port}\n\n"
                f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
                f"auth_type = scram-sha-256\nauth_file = {folder / 'userlist.txt'}\npool_mode = transaction\n"
                f"max_client_conn = 1000\ndefault_pool_size = {self.given.pool_size}\n"
                "ignore_startup_parameters = extra_float_digits\nlog_connections = 0\nlog_disconnections = 0\n"
                + prepared,
            ),
        ):
            (folder / name).write_text(text)
            self.workspace.give(folder / name)
        with (folder / "log").open("wb") as log:
            process = self.workspace.spawn([program, folder / "pgbouncer.ini"], output=log, as_account=True)
        self.workspace.on_close(lambda: _discard(self.workspace.end(process)))
        return Target("pgbouncer", port, DATABASE, process.pid)


def _discard(_: object) -> None:
    """Closers answer nothing."""


def cpu_s(pid: int | None) -> float | None:
    """User and system time the process has used, where /proc tells (Linux)."""
    stat = Path(f"/proc/{pid}/stat")
    if pid is None or not stat.exists():
        return None
    # The name in parentheses may hold spaces; what follows it is fields 3 and up (proc(5): utime 14, stime 15).
    values = stat.read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


def print_table(screen: Screen, rows: Sequence[Row]) -> None:
    """One line per row; a ratio says how the node's figure compares with the other's."""
    lines = []
    for row in rows:
        direct, pgbouncer = row.samples.get("direct", Sample()), row.samples.get("pgbouncer", Sample())
        for name in [name for name in ("node", "sharded") if name in row.samples]:
            ours = row.samples[name]
            lines.append(
                (
                    f"{row.work} ({name})" if row.work == "point" else row.work,
                    row.mode,
                    row.clients,
                    _number(direct.median_tps, 0),
                    _number(pgbouncer.median_tps, 0),
                    _number(ours.median_tps, 0),
                    _ratio(ours.median_tps, direct.median_tps),
                    _ratio(ours.median_tps, pgbouncer.median_tps),
                    _number(pgbouncer.median_cpu_us, 1),
                    _number(ours.median_cpu_us, 1),
                    _ratio(ours.median_cpu_us, pgbouncer.median_cpu_us),
                )
            )
    screen.table(
        lines,
        ("work", "protocol", "clients", "direct tps", "PgBouncer tps", "node tps", "÷ direct", "÷ PgBouncer")
        + ("PgBouncer µs", "node µs", "µs ÷ PgBouncer"),
    )
    errors = {f"{name}, {row.mode}: {s.error}" for row in rows for name, s in row.samples.items() if s.error}
    for error in sorted(errors):
        screen.say(f"   not measured: {error}", "yellow")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _ratio(ours: float | None, other: float | None) -> str:
    return "-" if not ours or not other else f"{ours / other:.2f}"


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def modes(text: str) -> list[str]:
    wrong = [part for part in text.split(",") if part not in MODES]
    if wrong:
        raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: not among {', '.join(MODES)}")
    return text.split(",")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--duration", type=int, default=5, metavar="S", help="seconds per measurement (5)")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="turns; the median counts (3)")
    parser.add_argument("--clients", type=numbers, default=[1, 16, 64], metavar="N,N", help="default 1,16,64")
    parser.add_argument("--modes", type=modes, default=list(MODES), metavar="M,M", help=f"default {','.join(MODES)}")
    parser.add_argument("--scale", type=int, default=10, metavar="N", help="pgbench's scale factor (10)")
    parser.add_argument("--pool-size", type=int, default=20, metavar="N", help="server connections of each proxy (20)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="pgbench's threads (2)")
    parser.add_argument("--sharded", action="store_true", help="also point selects on one and on two shards")
    parser.add_argument("--no-pgbouncer", action="store_true", help="leave PgBouncer out")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    screen = Screen(sys.stderr if given.json else sys.stdout)
    stop_on_signals()
    try:
        with Workspace(prefix="pgmurmur-bench-") as workspace:
            bench = Bench(workspace, given)
            with screen.waiting(f"servers, proxies and pgbench's tables at scale {given.scale}"):
                bench.set_up()
            rows: list[Row] = []
            for work in bench.works():
                with screen.waiting(f"{work.name}, {work.mode}, {work.clients} clients"):
                    rows.append(bench.measure(work))
    except Stopped:
        return 130
    except (NoPostgres, NotMeasured, RuntimeError) as error:
        print(f"pgmurmur: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps({"settings": vars(given), "rows": [row.as_json() for row in rows]}, indent=2))
    else:
        print_table(screen, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
