"""Random queries over two and three shards answer what one table with all rows answers, byte for byte, or refuse."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest
from integration.exactness import Asked, Spread, Wire
from integration.exactness_queries import DDL, KEYS, random_query, random_rows
from integration.harness import start_server

from node.embedded.workspace import Workspace

QUERIES = int(os.environ.get("PGMURMUR_EXACTNESS_QUERIES", "120"))
Connect = Callable[[], Wire]


@pytest.fixture(scope="module")
def connect(workspace: Workspace) -> Iterator[Connect]:
    server = start_server(workspace, "exact", auth="trust")
    yield lambda: Wire(server.host, server.port, server.superuser, "postgres")
    server.stop()


@pytest.mark.parametrize("seed", [1, 2, 3, "random"])
def test_random_queries_answer_as_one_table_would(connect: Connect, seed: int | str) -> None:
    chosen = random.SystemRandom().getrandbits(32) if seed == "random" else seed
    rng = random.Random(chosen)
    shards = rng.choice((2, 3))
    spread = Spread(connect, DDL, KEYS, shards)
    rows = random_rows(rng, 60, spread.whole.major())
    places = {key: rng.randrange(shards if rng.random() < 0.7 else 1) for key, _ in rows}
    spread.load("t", rows, places.__getitem__)
    answered = 0
    for _ in range(QUERIES):
        query = random_query(rng)
        asked = Asked(query.sql, result_formats=rng.choice([(), (0,), (1,)]))
        right, ours = spread.direct(asked), spread.through(asked, rng)
        said = f"seed {chosen}, formats {asked.result_formats}: {query.sql}\n{spread.plan(asked)}"
        if ours.sqlstate is not None:
            assert ours.sqlstate in ("0A000", right.sqlstate), f"{ours.sqlstate} {ours.text}; {said}"
            continue
        answered += 1
        assert right.sqlstate is None, f"should fail with {right.text}; {said}"
        assert ours.shape == right.shape, said
        assert ours.tag == right.tag, said
        if query.ordered:
            assert ours.rows == right.rows, said
        else:
            assert sorted(ours.rows) == sorted(right.rows), said
    spread.close()
    assert answered > QUERIES * 0.8, f"seed {chosen}: only {answered} of {QUERIES} were answered"
