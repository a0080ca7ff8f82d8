"""Works that pgbench does: one turn of one target gives transactions per second, CPU time of each, and latencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from node.embedded.bench import meter
from node.embedded.bench.pgbench import NotMeasured, Pgbench, Window, transactions_between
from node.embedded.bench.targets import Target

MODES = ("simple", "extended", "prepared")


@dataclass(frozen=True)
class Work:
    """What the options of pgbench make of it."""

    name: str
    options: tuple[str, ...]
    modes: tuple[str, ...] = MODES
    connects: bool = False
    """Each transaction on a connection of its own: logins are the work, and belong to the measured time."""


@dataclass(frozen=True)
class Job:
    """One row of the table before it is measured."""

    work: Work
    mode: str
    clients: int
    targets: tuple[Target, ...] = field(default=())


@dataclass(frozen=True)
class Pace:
    """How long, and how closely looked at."""

    duration_s: int
    threads: int
    sampling: float


def works(names: Sequence[str], point_script: str, split_script: str) -> list[Work]:
    known = {
        "select": Work("select", ("--select-only",)),
        "tpcb": Work("tpcb", ()),
        "point": Work("point", (f"--file={point_script}",)),
        "split": Work("split", (f"--file={split_script}",), modes=("simple",)),
        "connect": Work("connect", ("--select-only", "--connect"), modes=("simple",), connects=True),
    }
    return [known[name] for name in names if name in known]


def measure(pgbench: Pgbench, job: Job, target: Target, pace: Pace) -> dict[str, float]:
    """One turn. Raises NotMeasured."""
    if job.mode == "prepared" and target.without_prepared:
        raise NotMeasured(target.without_prepared)
    pids = target.pids()
    window = Window(lambda: meter.cpu(pids))
    options = [
        *job.work.options,
        f"--protocol={job.mode}",
        f"--jobs={min(job.clients, pace.threads)}",
    ]
    finished, lines, latencies = pgbench.run_with_latencies(
        target, job.clients, options, pace.duration_s, pace.sampling, window
    )
    turn = {"tps": finished.tps}
    if finished.connect_ms is not None and job.work.connects:
        turn["connect_ms"] = finished.connect_ms
    else:
        turn |= latencies
    before, after, count = window.start, window.finish, float(finished.transactions)
    if window.first is not None and window.last is not None and not job.work.connects:
        before, after, count = window.first, window.last, transactions_between(lines)
    if before is not None and after is not None and count:
        turn |= cpu_per(after - before, count)
    return turn


def cpu_per(used: meter.Cpu, count: float, unit: str = "") -> dict[str, float]:
    """CPU time in µs for each of `count` things; `unit` ends the metrics' names, as in cpu_us_per_mb.

    Without user and system time when it was too short to tell them apart.
    """
    total_us = used.total_s * 1e6 / count
    found = {f"cpu_us{unit}": total_us}
    if used.user_share is not None:
        found[f"cpu_user_us{unit}"] = total_us * used.user_share
        found[f"cpu_system_us{unit}"] = total_us * (1 - used.user_share)
    return found


def in_turn(targets: Sequence[Target], turn: int) -> list[Target]:
    """Another one begins each time, so that being first or after a certain neighbour helps nobody."""
    start = turn % len(targets)
    return [*targets[start:], *targets[:start]]
