"""pgbench: how it is called, and what its output and its log of latencies mean."""

from __future__ import annotations

import math
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from node.embedded.bench.results import percentile
from node.embedded.bench.targets import PASSWORD, USER, Target

PATIENCE_S = 300
"""For connecting and leaving, on top of the measured time."""

FIRST_LOGIN_S, LEAST_LOGIN_S, LOGIN_MARGIN = 0.01, 0.002, 1.3
"""What a client is expected to need to log in: at first, at least, and by how much more than in the last turn."""

ENOUGH = 0.5
"""Share of the time asked for that must be left after logging in."""

LOG_PREFIX = "latency"

SAID_LIMIT = 500
"""Characters of its output that an error repeats."""

T = TypeVar("T")


class NotMeasured(RuntimeError):
    """A measurement did not come to its end; the text is what was said."""


@dataclass(frozen=True)
class Progress:
    """One line of --progress: so many transactions per second in the time since the line before, up to `at_s`."""

    at_s: float
    tps: float


@dataclass(frozen=True)
class Finished:
    """Its last words."""

    tps: float
    transactions: int
    connect_ms: float | None
    """Average time of a connection; only with --connect."""


def parse_progress(line: str) -> Progress | None:
    found = re.match(r"progress: ([\d.]+) s, ([\d.]+) tps", line)
    return Progress(float(found.group(1)), float(found.group(2))) if found else None


def parse_finished(said: str) -> Finished:
    """Raises NotMeasured with what was said when not every transaction was a success."""
    tps = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    count = re.search(r"actually processed: (\d+)", said)
    failed = re.search(r"failed transactions: (\d+)", said)
    connect = re.search(r"average connection time = ([\d.]+) ms", said)
    if tps is None or count is None or int(count.group(1)) == 0 or (failed and int(failed.group(1))):
        raise NotMeasured(last_words(said))
    return Finished(float(tps.group(1)), int(count.group(1)), float(connect.group(1)) if connect else None)


def all_connected_s(said: str) -> float | None:
    """Until its last client was in; not told with --connect."""
    found = re.search(r"initial connection time = ([\d.]+) ms", said)
    return float(found.group(1)) / 1000 if found else None


def last_words(said: str) -> str:
    """An error if there is one, else the end of the text, on one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and parse_progress(line) is None]
    wrong = [line for line in lines if "error" in line.lower() or "fatal" in line.lower() or "aborted" in line]
    return " / ".join(wrong[:2] or lines[-2:])[:SAID_LIMIT] or "pgbench said nothing"


def transactions_between(lines: Sequence[Progress]) -> float:
    """How many ended between the first line and the last."""
    return sum(line.tps * (line.at_s - before.at_s) for before, line in zip(lines, lines[1:], strict=False))


def parse_latencies(lines: Iterable[str]) -> list[float]:
    """Milliseconds, ascending, from lines of --log: client, number, latency in µs, script, seconds, µs."""
    found = []
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[2].isdigit():  # "failed" and "skipped" are no latencies
            found.append(int(fields[2]) / 1000)
    return sorted(found)


def percentiles(ordered: Sequence[float]) -> dict[str, float]:
    """None of them when nothing was logged."""
    if not ordered:
        return {}
    return {
        "p50_ms": percentile(ordered, 0.50),
        "p99_ms": percentile(ordered, 0.99),
        "p999_ms": percentile(ordered, 0.999),
    }


class Window(Generic[T]):
    """What `read` said when pgbench began, when its first and last line of progress came, and when it ended.

    Logins lie before the first line and farewells after the last, so between these two neither counts.
    """

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self.begin()

    def begin(self) -> None:
        """Also once more: what was before did not count."""
        self.start: T = self._read()
        self.first: T | None = None
        self.last: T | None = None

    def mark(self) -> None:
        if self.first is None:
            self.first = self._read()
        else:
            self.last = self._read()

    def end(self) -> None:
        self.finish: T = self._read()


class Pgbench:
    """Calls the program, always as the same user."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self._login_s = FIRST_LOGIN_S

    def initialize(self, target: Target, scale: int) -> None:
        self._call(target, ["--initialize", f"--scale={scale}", "--quiet"], 0, None)

    def run(
        self, target: Target, clients: int, options: Sequence[str], duration_s: int, window: Window[T] | None = None
    ) -> tuple[Finished, list[Progress]]:
        """The window is marked at each line of progress, one a second. Raises NotMeasured.

        pgbench's own --time begins before its clients log in, so it is given what that will take in addition; when
        that was far too little, it runs a second time.
        """
        for is_last in (False, True):
            time_s = duration_s + (0 if "--connect" in options else math.ceil(clients * self._login_s))
            asked = [*options, f"--client={clients}", f"--time={time_s}", "--no-vacuum", *_PROGRESS]
            if window is not None:
                window.begin()
            said, lines = self._call(target, asked, time_s, window)
            if window is not None:
                window.end()
            connected_s = all_connected_s(said)
            if connected_s is not None:
                self._login_s = max(LEAST_LOGIN_S, LOGIN_MARGIN * connected_s / clients)
            if is_last or connected_s is None or time_s - connected_s >= ENOUGH * duration_s:
                break
            self._forget_log()
        return parse_finished(said), lines

    def run_with_latencies(
        self,
        target: Target,
        clients: int,
        options: Sequence[str],
        duration_s: int,
        sampling: float,
        window: Window[T] | None = None,
    ) -> tuple[Finished, list[Progress], dict[str, float]]:
        """Also percentiles of a random `sampling` of the transactions, from a log that is removed afterwards."""
        prefix = self.folder / LOG_PREFIX
        logged = [*options, "--log", f"--log-prefix={prefix}", f"--sampling-rate={sampling}"]
        try:
            finished, lines = self.run(target, clients, logged, duration_s, window)
            latencies: list[float] = []
            for path in self.folder.glob(f"{LOG_PREFIX}.*"):
                with path.open() as log:
                    latencies += parse_latencies(log)
        finally:
            self._forget_log()
        return finished, lines, percentiles(sorted(latencies))

    def _forget_log(self) -> None:
        for path in self.folder.glob(f"{LOG_PREFIX}.*"):
            path.unlink()

    def _call(
        self, target: Target, options: Sequence[str], duration_s: int, window: Window[T] | None
    ) -> tuple[str, list[Progress]]:
        where = ["--host=127.0.0.1", f"--port={target.port}", f"--username={USER}"]
        process = subprocess.Popen(
            [self.program, *where, *options, target.database],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "PGPASSWORD": PASSWORD, "LC_ALL": "C"},
        )
        assert process.stdout is not None
        watch = threading.Timer(duration_s + PATIENCE_S, process.kill)
        watch.start()
        said, lines = [], []
        try:
            for line in process.stdout:
                progress = parse_progress(line)
                if progress is not None:
                    if window is not None:
                        window.mark()
                    lines.append(progress)
                said.append(line)
            process.wait()
        finally:
            watch.cancel()
            if process.poll() is None:  # we are interrupted
                process.kill()
            process.wait()
            process.stdout.close()
        if process.returncode != 0:
            if process.returncode < 0:
                said.append(f"error: it was ended by signal {-process.returncode}, at most after {PATIENCE_S} s more")
            raise NotMeasured(last_words("".join(said)))
        return "".join(said), lines


_PROGRESS = ("--progress=1", "--progress-timestamp")
