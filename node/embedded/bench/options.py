"""The command line of scripts/bench."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from node.embedded.bench.load import MODES
from node.embedded.bench.results import FAMILIES

WORKS = {
    "select": "pgbench --select-only",
    "tpcb": "pgbench's default script: writes in transactions",
    "point": "a row by its key, on an unsharded and on a sharded database; literals in the simple protocol",
    "split": "INSERT of 200 rows with literals, on an unsharded and on a sharded database, which takes it apart",
    "connect": "pgbench --select-only --connect: a connection for each query",
    "large": "100 MB of 1 KB rows through one client",
    "copy-in": "100 MB of COPY FROM STDIN",
    "copy-out": "100 MB of COPY TO STDOUT",
    "idle": "10,000 idle clients: memory of each, and 64 busy ones without and beside them",
    "storm": "1,000 SCRAM logins at once",
}

DEFAULT_CLIENTS = (1, 16, 64, 256)

EPILOG = (
    "works:\n"
    + "".join(f"  {name:<9} {text}\n" for name, text in WORKS.items())
    + """
what is measured:
  Targets take turns, and another one begins each time; the table has medians, ± is half the distance from the
  smallest to the largest turn. CPU is user and system time of the proxy with all its child processes, per query,
  connection, MB or login, between pgbench's first and last line of progress (a second apart), so that logging in
  does not count; where there are not two such lines, from start to end. PostgreSQL's own CPU is not counted.
  Latencies come from pgbench --log with --sampling-rate; for `connect` there is pgbench's average connection time
  instead. Large results and COPY are moved by a small client of ours on one socket, which checks that every row
  came; idle clients and storms are sockets on one event loop, which derive their SCRAM keys once. Memory is Pss_Anon.
  All run with SCRAM on both sides, the same verifier everywhere, and transaction pooling; --verbose shows the
  configurations.

also:
  scripts/bench identity …   another load, which looks at each byte of the answers; it has a --help of its own
  scripts/bench --from FILE --picture PREFIX   table and picture of an earlier run
"""
)


def numbers(text: str) -> list[int]:
    """1,16,256: positive, ascending, each once."""
    try:
        found = sorted({int(part.replace("_", "")) for part in text.split(",")})
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 1,16,64") from error
    if found[0] < 1:
        raise argparse.ArgumentTypeError(f"{found[0]} is less than 1")
    return found


def positive(text: str) -> int:
    try:
        found = int(text.replace("_", ""))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if found < 1:
        raise argparse.ArgumentTypeError(f"{found} is less than 1")
    return found


def share(text: str) -> float:
    try:
        found = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0 < found <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return found


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A list of names, or all."""

    def read(text: str) -> list[str]:
        asked = list(known) if text == "all" else list(dict.fromkeys(text.split(",")))
        wrong = [part for part in asked if part not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: not among {', '.join(known)}")
        return asked

    return read


def lanes(text: str) -> list[str]:
    """auto,off,2: one node for each."""
    asked = list(dict.fromkeys(text.split(",")))
    wrong = [part for part in asked if part not in ("auto", "off") and not (part.isdigit() and int(part))]
    if wrong:
        raise argparse.ArgumentTypeError(f"{', '.join(wrong)}: lanes are auto, off or a number")
    return asked


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="scripts/bench",
        description="The same loads through PostgreSQL itself, PgBouncer, PgDog and a node of ours, on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    what = made.add_argument_group("what").add_argument
    what("--works", type=some_of(list(WORKS)), default=["select"], metavar="W,W", help="see below, or all (select)")
    what("--modes", type=some_of(MODES), default=list(MODES), metavar="M,M", help=f"default {','.join(MODES)}")
    what("--clients", type=numbers, default=list(DEFAULT_CLIENTS), metavar="N,N", help="default 1,16,64,256")
    what(
        "--targets",
        type=some_of(FAMILIES),
        default=list(FAMILIES),
        metavar="T,T",
        help=f"default {','.join(FAMILIES)}; PgBouncer if installed, PgDog if PGDOG_BIN names its program",
    )
    how = made.add_argument_group("how").add_argument
    how("--duration", type=positive, default=3, metavar="S", help="seconds per turn of pgbench, without its logins (3)")
    how("--repetitions", type=positive, default=3, metavar="N", help="turns of each target (3)")
    how("--scale", type=positive, default=10, metavar="N", help="pgbench's scale factor (10)")
    how("--jobs", type=positive, default=2, metavar="N", help="pgbench's threads (2)")
    how(
        "--latency-sampling", type=share, default=0.25, metavar="X", help="share of queries whose latency counts (0.25)"
    )
    how("--megabytes", type=positive, default=100, metavar="N", help="of large, copy-in, copy-out (100)")
    how("--idle-clients", type=positive, default=10_000, metavar="N", help="of idle (10000)")
    how("--storm-clients", type=positive, default=1_000, metavar="N", help="of storm (1000)")
    proxies = made.add_argument_group("proxies").add_argument
    proxies("--pool-size", type=positive, default=20, metavar="N", help="server connections of each proxy (20)")
    proxies(
        "--pgbouncer-pool-sizes",
        type=numbers,
        default=[],
        metavar="N,N",
        help="PgBouncer with each of these; the one with the most tps counts",
    )
    proxies("--lanes", type=lanes, default=[], metavar="L,L", help="auto, off or a number; one node of ours for each")
    proxies("--workers", type=numbers, default=[], metavar="N,N", help="--workers; one node of ours for each")
    out = made.add_argument_group("output").add_argument
    out("--json", type=Path, default=None, metavar="FILE", help="every turn as JSON; - is standard output")
    out("--picture", type=Path, default=None, metavar="PREFIX", help="PREFIX.svg and PREFIX.png (needs matplotlib)")
    out("--from", type=Path, default=None, dest="source", metavar="FILE", help="show an earlier --json, run nothing")
    out("--profile", action="store_true", help="watch the node by perf in one more turn of each row")
    add("--verbose", action="store_true", help="print the proxies' configurations")
    return made
