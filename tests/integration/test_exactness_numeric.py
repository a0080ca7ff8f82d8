"""numeric's arithmetic, wire forms and order are the server's, over thousands of random values."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psycopg
import pytest
from integration.harness import start_server

from node.embedded.workspace import Workspace
from node.gather import numeric


@pytest.fixture(scope="module")
def connection(workspace: Workspace) -> Iterator[psycopg.Connection]:
    server = start_server(workspace, "exact_numeric")
    with psycopg.connect(server.conninfo(), autocommit=True) as made:
        yield made
    server.stop()


def _random_text(rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.06:
        return rng.choice(["NaN", "Infinity", "-Infinity"])
    digits = rng.choice([1, 2, 4, 5, 8, 9, 16, 17, 30, 60, 200, 6000 if draw < 0.08 else 3])
    scale = rng.randint(0, min(digits + 6, 1000))
    text = str(rng.randrange(10 ** min(digits, 4000))).rjust(scale + 1, "0")
    if scale:
        text = f"{text[:-scale]}.{text[-scale:]}"
    return rng.choice(["", "-"]) + text


@pytest.mark.parametrize("seed", [1, 2])
def test_values_and_quotients(connection: psycopg.Connection, seed: int) -> None:
    rng = random.Random(seed)
    pairs = [(_random_text(rng), _random_text(rng)) for _ in range(2000)]
    with connection.cursor(binary=True) as cursor:
        cursor.execute("DROP TABLE IF EXISTS v")
        cursor.execute("CREATE TEMP TABLE v (i int, a numeric, b numeric)")
        with cursor.copy("COPY v FROM STDIN") as copy:
            for number, (a, b) in enumerate(pairs):
                copy.write_row((number, a, b))
        cursor.execute(
            "SELECT numeric_send(a), numeric_send(b), a::text, numeric_send(a + b), "
            "CASE WHEN b = 0 OR b IN ('NaN', 'Infinity', '-Infinity') THEN NULL ELSE numeric_send(a / b) END, "
            "CASE WHEN a >= 0 AND a < 'Infinity' THEN numeric_send(sqrt(a)) END, a < b, a = b FROM v ORDER BY i"
        )
        rows = cursor.fetchall()
    assert len(rows) == len(pairs)
    for raw_a, raw_b, text, added, divided, root, less, equal in rows:
        a, b = numeric.decode(raw_a), numeric.decode(raw_b)
        assert numeric.encode(a) == raw_a
        assert numeric.text(a).decode() == text
        assert numeric.encode(numeric.add(a, b)) == added
        if divided is not None:
            assert numeric.encode(numeric.divide(a, b)) == divided, (text, numeric.text(b))
        if root is not None:
            wanted = numeric.decode(root)
            assert numeric.square_root(a, wanted.scale) == wanted
        key_a, key_b = numeric.order_key(raw_a), numeric.order_key(raw_b)
        assert ((key_a < key_b), (key_a == key_b)) == (less, equal), (text, numeric.text(b))
