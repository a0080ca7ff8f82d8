"""What the lexer alone costs on the texts of the point selects, measured in this process.

The node reads the text of a simple query each time, that of an extended one at each Parse, that of a prepared one once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

from node.embedded.bench.results import OURS, Row
from node.embedded.bench.stage import POINTS
from node.routing import lexer
from node.strip import is_compiled

TEXTS = 5_000
ROUNDS = 7

SHARDED_NAME = f"{OURS}-sharded"


def texts(mode: str) -> list[bytes]:
    """As pgbench sends them."""
    if mode == "simple":
        dice = random.Random(1)
        return [b"SELECT v FROM points WHERE id = %d;" % dice.randint(1, POINTS) for _ in range(TEXTS)]
    return [b"SELECT v FROM points WHERE id = $1;"] * TEXTS


def time_us(mode: str) -> float:
    """µs per text, the best of some rounds: other processes can only make it longer."""
    given = texts(mode)
    best = min(_round_s(given) for _ in range(ROUNDS))
    return best * 1e6 / len(given)


def shares(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each row of point selects: sharded ÷ unsharded CPU time, and the lexer's part of the sharded one."""
    timed: dict[str, float] = {}
    found = []
    for row in rows:
        if row.work != "point" or SHARDED_NAME not in row.samples:
            continue
        if row.mode not in timed:
            timed[row.mode] = time_us(row.mode)
        sharded = row.samples[SHARDED_NAME].median("cpu_us")
        unsharded = row.samples[OURS].median("cpu_us") if OURS in row.samples else None
        per_query = 0.0 if row.mode == "prepared" else timed[row.mode]
        found.append(
            {
                "mode": row.mode,
                "clients": row.clients,
                "sharded_cpu_us": sharded,
                "unsharded_cpu_us": unsharded,
                "ratio": sharded / unsharded if sharded and unsharded else None,
                "lexer_us_per_text": timed[row.mode],
                "lexer_us_per_query": per_query,
                "lexer_share": per_query / sharded if sharded else None,
                "compiled": is_compiled(lexer),
            }
        )
    return found


def _round_s(given: Sequence[bytes]) -> float:
    lex = lexer.lex
    started = time.perf_counter()
    for text in given:
        lex(text)
    return time.perf_counter() - started
