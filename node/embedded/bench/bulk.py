"""Works that one client does with many bytes: a large result, COPY in, COPY out. MB/s, and CPU time per MB."""

from __future__ import annotations

import time

from node.auth.scram import KeyCache
from node.embedded.bench import meter
from node.embedded.bench.client import Wire
from node.embedded.bench.load import cpu_per
from node.embedded.bench.pgbench import NotMeasured
from node.embedded.bench.stage import ROW_BYTES, Stage
from node.embedded.bench.targets import Target
from node.wire import messages

WORKS = ("large", "copy-in", "copy-out")

MEGABYTE = 1 << 20
ROWS_PER_MEGABYTE = MEGABYTE // ROW_BYTES

ROWS_PER_MESSAGE = 8
"""CopyData of 8 KB, as psql sends it."""


def measure(stage: Stage, work: str, target: Target, megabytes: int) -> dict[str, float]:
    """One turn; logging in lies before it. Raises NotMeasured, also when not every row has arrived."""
    if work == "copy-in":
        stage.empty_taken()
    wire = Wire(target, KeyCache())
    try:
        pids = target.pids()
        before, started = meter.cpu(pids), time.perf_counter()
        _move(wire, work, megabytes)
        took_s, after = time.perf_counter() - started, meter.cpu(pids)
    finally:
        wire.close()
    if work == "copy-in" and stage.count_taken() != megabytes * ROWS_PER_MEGABYTE:
        raise NotMeasured(f"{stage.count_taken()} of {megabytes * ROWS_PER_MEGABYTE} rows are there after COPY")
    turn = {"mb_per_s": megabytes / took_s}
    if before is not None and after is not None:
        turn |= cpu_per(after - before, megabytes, "_per_mb")
    return turn


def _move(wire: Wire, work: str, megabytes: int) -> None:
    rows = megabytes * ROWS_PER_MEGABYTE
    if work == "large":
        moved = wire.drain("SELECT v FROM wide", f"SELECT {rows}")
    elif work == "copy-out":
        moved = wire.drain("COPY wide TO STDOUT", f"COPY {rows}")
    else:
        wire.copy_in("taken", chunk(), megabytes, f"COPY {rows}")
        return
    if moved < megabytes * MEGABYTE:
        raise NotMeasured(f"{moved} bytes arrived, {megabytes * MEGABYTE} were expected")


def chunk() -> bytes:
    """One megabyte of rows as CopyData messages."""
    message = messages.message(b"d", (b"x" * ROW_BYTES + b"\n") * ROWS_PER_MESSAGE)
    return message * (ROWS_PER_MEGABYTE // ROWS_PER_MESSAGE)
