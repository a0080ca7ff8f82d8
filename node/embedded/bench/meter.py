"""What processes used, and what kind of machine this is: read from /proc (Linux), absent elsewhere."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

MISSING_S = 0.05
"""The exact count lacks threads that ended; when it lacks so much, the coarse one is better."""

SPLIT_FROM_S = 0.1
"""Ten ticks: the proportion of fewer would be chance."""


class TooFewFiles(RuntimeError):
    """The limit of open files cannot be raised so far; the text says what to do."""


@dataclass(frozen=True)
class Cpu:
    """CPU time of some processes since they began, or (as a difference) in some time."""

    user_s: float
    system_s: float
    """These two are counted in ticks of usually 10 ms."""
    exact_s: float | None = None
    """What the scheduler counted in nanoseconds; None where it does not, or lost count because a thread ended."""

    def __add__(self, other: Cpu) -> Cpu:
        exact = None if self.exact_s is None or other.exact_s is None else self.exact_s + other.exact_s
        return Cpu(self.user_s + other.user_s, self.system_s + other.system_s, exact)

    def __sub__(self, other: Cpu) -> Cpu:
        exact = None if self.exact_s is None or other.exact_s is None else self.exact_s - other.exact_s
        return Cpu(self.user_s - other.user_s, self.system_s - other.system_s, exact)

    @property
    def total_s(self) -> float:
        ticked = self.user_s + self.system_s
        return ticked if self.exact_s is None or self.exact_s + MISSING_S < ticked else self.exact_s

    @property
    def user_share(self) -> float | None:
        """None when there are too few ticks to tell."""
        ticked = self.user_s + self.system_s
        return self.user_s / ticked if ticked >= SPLIT_FROM_S else None


def family_of(pid: int) -> list[int]:
    """The process and all that descend from it: a proxy may consist of several."""
    children: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        values = _stat(stat)
        if values is not None:
            children.setdefault(int(values[1]), []).append(int(stat.parent.name))
    found = [pid]
    for parent in found:  # grows while it is walked
        found += children.get(parent, [])
    return found


def cpu(pids: Iterable[int]) -> Cpu | None:
    """Of all of them; None where /proc does not tell."""
    total: Cpu | None = None
    for pid in pids:
        one = _cpu_of(pid)
        if one is not None:
            total = one if total is None else total + one
    return total


def resident_bytes(pids: Iterable[int]) -> int | None:
    """Memory that belongs to no file; what a forked process still shares with its parent counts once in all."""
    total: int | None = None
    for pid in pids:
        found = _kilobytes(PROC / str(pid) / "smaps_rollup", "Pss_Anon:")
        if found is None:  # older kernels, which count pages of a fork twice and in lots
            found = _kilobytes(PROC / str(pid) / "status", "RssAnon:")
        if found is not None:
            total = (total or 0) + found * 1024
    return total


def _kilobytes(path: Path, name: str) -> int | None:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(name)), None)


def _cpu_of(pid: int) -> Cpu | None:
    values = _stat(PROC / str(pid) / "stat")
    if values is None:
        return None
    tick = os.sysconf("SC_CLK_TCK")
    # proc(5): utime is field 14, stime 15; `values` begins with field 3.
    return Cpu(int(values[11]) / tick, int(values[12]) / tick, _exact_s(pid))


def _exact_s(pid: int) -> float | None:
    """Time on a CPU, of all threads that still live; None where the kernel does not count it."""
    total, threads = 0, 0
    for path in (PROC / str(pid) / "task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except (OSError, IndexError, ValueError):
            return None
        threads += 1
    return total / 1e9 if threads and total else None


def _stat(path: Path) -> list[str] | None:
    """Fields from the third on: the name in parentheses before them may hold spaces."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except OSError:
        return None


def load() -> float:
    """Load average of the last minute."""
    return round(os.getloadavg()[0], 2)


def machine() -> dict[str, object]:
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
    }


def _cpu_model() -> str:
    try:
        for line in (PROC / "cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def raise_open_files(wanted: int) -> None:
    """For us and for every process we start. Raises TooFewFiles."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (wanted, hard if hard == resource.RLIM_INFINITY else max(hard, wanted))
        )
    except (ValueError, OSError) as error:
        raise TooFewFiles(
            f"this many clients need {wanted} open files, allowed are {soft} (at most {hard}): raise it with ulimit -n,"
            " or ask for fewer clients"
        ) from error
