"""Where a proxy's CPU time goes: `perf` watches it during one more measurement, and its samples are put into groups."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FREQUENCY_HZ = 999
"""Not a round number: it would beat with timers of the kernel and of the program."""

TOP = 15
START_TIMEOUT_S = 10
END_TIMEOUT_S = 120

KERNEL, INTERPRETER, UVLOOP, STRIP, OPENSSL, LIBC, OTHER = (
    "kernel",
    "Python interpreter",
    "uvloop",
    "compiled strip",
    "OpenSSL",
    "C library",
    "other",
)
GROUPS = (KERNEL, INTERPRETER, UVLOOP, STRIP, OPENSSL, LIBC, OTHER)


class NoProfile(RuntimeError):
    """There is no perf, or it may not look; the text says what to do."""


@dataclass(frozen=True)
class Symbol:
    """Where samples fell: `share` of them in this function itself, not in what it calls."""

    share: float
    library: str
    name: str
    group: str


def group_of(library: str, in_kernel: bool, strip: Iterable[str]) -> str:
    """`strip` are the names of the compiled modules, such as pipeline and lexer."""
    name = Path(library).name
    if in_kernel or library.startswith("["):
        return KERNEL if in_kernel or "kernel" in library or "vdso" in library else OTHER
    if name.startswith("loop.") and ".so" in name:
        return UVLOOP
    if re.match(r"(libssl|libcrypto|_ssl\b|_hashlib\b|_rust\b)", name):
        return OPENSSL
    if name.split(".")[0] in strip and ".so" in name:
        return STRIP
    if re.match(r"(libpython|python[\d.]*$)", name):
        return INTERPRETER
    if re.match(r"(libc[.-]|ld-|ld\.|libm[.-]|libpthread)", name):
        return LIBC
    # Extension modules of Python's own library have been built into no interpreter, but belong to it.
    return INTERPRETER if ".cpython-" in name and "lib-dynload" in library else OTHER


def parse_report(text: str, strip: Iterable[str]) -> list[Symbol]:
    """Lines of `perf report` with the fields overhead, dso and symbol, separated by tabs; the largest first."""
    known = set(strip)
    found = []
    for line in text.splitlines():
        fields = [part.strip() for part in line.split("\t")]
        if line.startswith("#") or len(fields) < 3 or not fields[0].endswith("%"):
            continue
        marked = re.match(r"\[(.)\]\s*(.*)", fields[2])
        in_kernel = marked is not None and marked.group(1) in "kgH"
        name = marked.group(2) if marked else fields[2]
        share = float(fields[0].rstrip("%")) / 100
        found.append(Symbol(share, Path(fields[1]).name, name, group_of(fields[1], in_kernel, known)))
    return sorted(found, key=lambda symbol: -symbol.share)


def shares(symbols: Sequence[Symbol]) -> dict[str, float]:
    """Of the samples that were taken; every group is there, and together they are 1."""
    total = sum(symbol.share for symbol in symbols)
    sums: dict[str, float] = defaultdict(float)
    for symbol in symbols:
        sums[symbol.group] += symbol.share
    return {group: sums[group] / total if total else 0.0 for group in GROUPS}


class Perf:
    """One recording at a time. Raises NoProfile when it cannot work here."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which("perf")
        if found is None:
            raise NoProfile("--profile needs perf, which is not on PATH (Debian: apt install linux-perf)")
        self._perf = found
        self._data = folder / "perf.data"

    @contextmanager
    def watching(self, pids: Sequence[int]) -> Iterator[None]:
        """Samples these processes while the block runs."""
        process = subprocess.Popen(
            [self._perf, "record", "-g", "-F", str(FREQUENCY_HZ), "-o", self._data, "-p", ",".join(map(str, pids))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                said, _ = process.communicate(timeout=END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
        if not self._data.exists() or "rror" in said:
            raise NoProfile(
                f"perf could not watch the node: {said.strip()[-400:]}\n"
                "HINT: see the sysctl kernel.perf_event_paranoid; in a container perf needs CAP_PERFMON"
            )

    def summary(self, strip: Iterable[str]) -> dict[str, Any]:
        """Shares by group, and the functions with the most samples."""
        done = subprocess.run(
            [self._perf, "report", "-i", self._data, *_REPORT],
            capture_output=True,
            text=True,
            timeout=END_TIMEOUT_S,
        )
        symbols = parse_report(done.stdout, strip)
        if not symbols:
            raise NoProfile(f"perf took no samples: {done.stderr.strip()[-400:]}")
        return {
            "shares": shares(symbols),
            "top": [
                {"share": symbol.share, "group": symbol.group, "library": symbol.library, "symbol": symbol.name}
                for symbol in symbols[:TOP]
            ],
        }


_REPORT = ("--stdio", "--no-children", "-g", "none", "-F", "overhead,dso,symbol", "--field-separator", "\t")
