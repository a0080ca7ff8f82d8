"""Chosen queries, with parameters in both formats: PostgreSQL's answer, PostgreSQL's error, or a named refusal."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from integration.exactness import Asked, Spread, Wire
from integration.exactness_queries import DDL, random_rows
from integration.harness import start_server

from node.embedded.workspace import Workspace

_DDL = DDL + 'CREATE TABLE o (id bigint, k int, amount numeric, note text COLLATE "C");'


@pytest.fixture(scope="module")
def spread(workspace: Workspace) -> Iterator[Spread]:
    server = start_server(workspace, "exact_cases", auth="trust")
    made = Spread(lambda: Wire(server.host, server.port, server.superuser, "postgres"), _DDL, {"t": "id", "o": "id"}, 2)
    made.load("t", random_rows(random.Random(3), 40, made.whole.major()), lambda key: int(key) % 2)
    orders = [(str(n % 30), [str(n % 30), str(n % 5), f"{n}.5", f"n{n}"]) for n in range(50)]
    made.load("o", orders, lambda key: int(key) % 2)
    yield made
    made.close()
    server.stop()


def _int4(value: int) -> bytes:
    return struct.pack("!i", value)


def _int8(value: int) -> bytes:
    return struct.pack("!q", value)


def _compare(spread: Spread, asked: Asked, *, ordered: bool) -> None:
    right, ours = spread.direct(asked), spread.through(asked, random.Random(1))
    assert (ours.sqlstate, ours.text) == (right.sqlstate, right.text)
    assert (ours.shape, ours.tag) == (right.shape, right.tag)
    if ordered:
        assert ours.rows == right.rows
    else:
        assert sorted(ours.rows) == sorted(right.rows)


@pytest.mark.parametrize(
    ("sql", "parameters", "formats", "types"),
    [
        ("LIMIT $1", (b"5",), (), ()),
        ("LIMIT $1", (None,), (), ()),
        ("LIMIT $1 OFFSET $2", (b"5", b"3"), (), ()),
        ("LIMIT $1 OFFSET $2", (_int8(5), _int8(3)), (1,), ()),
        ("LIMIT $1 OFFSET $2", (_int4(5), b"3"), (1, 0), (23,)),
        ("LIMIT $1 OFFSET $2", (struct.pack("!h", 5), _int4(3)), (1, 1), (21, 23)),
        ("LIMIT $1 OFFSET $2", (_int8(2**63 - 1), _int8(2)), (1,), (20, 20)),
        ("LIMIT $1::int", (b"5",), (), ()),
        ("LIMIT $1", (b" +05 ",), (), ()),
        ("LIMIT 2.5", (), (), ()),
        ("LIMIT '3'", (), (), ()),
        ("LIMIT ALL OFFSET 9223372036854775807", (), (), ()),
    ],
)
def test_limit_and_offset_take_every_kind_of_value(
    spread: Spread, sql: str, parameters: tuple[bytes | None, ...], formats: tuple[int, ...], types: tuple[int, ...]
) -> None:
    _compare(spread, Asked(f"SELECT id FROM t ORDER BY id {sql}", parameters, formats, types), ordered=True)


@pytest.mark.parametrize("spelling", [" 0x5 ", "0B11", "1_0"])
def test_a_bound_that_only_newer_servers_can_read_is_refused(spread: Spread, spelling: str) -> None:
    for asked in (
        Asked("SELECT id FROM t ORDER BY id LIMIT $1", (spelling.encode(),)),
        Asked(f"SELECT id FROM t ORDER BY id OFFSET '{spelling}'"),
    ):
        assert spread.direct(asked).sqlstate == (None if spread.whole.major() >= 16 else "22P02")
        assert spread.through(asked, random.Random(1)).sqlstate == "0A000"


def test_parameters_around_a_cut_one_keep_their_meaning(spread: Spread) -> None:
    sql = "SELECT id, $4::text FROM t WHERE g = $3 ORDER BY id LIMIT $1 OFFSET $2"
    _compare(spread, Asked(sql, (b"3", b"1", b"1", b"x")), ordered=True)


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT id FROM t LIMIT $1", (b"-1",)),
        ("SELECT id FROM t OFFSET $1", (b"-1",)),
        ("SELECT id FROM t LIMIT -2 OFFSET -1", ()),
        ("SELECT count(*) FROM t LIMIT -1", ()),
        ("SELECT id FROM t LIMIT $1", (b"x",)),
        ("SELECT id FROM t LIMIT $1", (b"99999999999999999999",)),
        ("SELECT id, g FROM t ORDER BY 3", ()),
        ("SELECT id FROM t ORDER BY 'x'", ()),
        ("SELECT count(*) FROM t ORDER BY 'x'", ()),
        ("SELECT h AS g, count(*) FROM t GROUP BY g", ()),
        ("SELECT DISTINCT ON (g) g, id FROM t ORDER BY id", ()),
        ("SELECT count(*)::smallint FROM t, generate_series(1, 2000)", ()),
        ("SELECT sum(g)::boolean FROM t", ()),
        ("SELECT g, id, count(*) FROM t GROUP BY g", ()),
        ("SELECT (9 * sum(g))::numeric(1) FROM t", ()),
    ],
)
def test_errors_are_those_of_one_server(spread: Spread, sql: str, parameters: tuple[bytes | None, ...]) -> None:
    right = spread.direct(Asked(sql, parameters))
    ours = spread.through(Asked(sql, parameters), random.Random(1))
    assert right.sqlstate is not None
    assert ours.sqlstate in (right.sqlstate, "0A000")
    assert ours.text == right.text or ours.sqlstate == "0A000"


@pytest.mark.parametrize("formats", [(), (1,)])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT t.id, o.amount FROM t JOIN o ON t.id = o.id ORDER BY o.amount, t.id",
        "SELECT t.id, o.amount FROM t LEFT JOIN o USING (id) ORDER BY o.amount, t.id",
        "SELECT t.id, count(o.id) FROM t LEFT JOIN o USING (id) GROUP BY t.id ORDER BY 2 DESC, 1",
        "SELECT o.id, count(*) FROM t LEFT JOIN o USING (id) GROUP BY o.id ORDER BY 1",
        "SELECT kind.name, count(*) FROM t JOIN kind USING (g) GROUP BY kind.name ORDER BY 1",
        "SELECT g, count(*) FROM t GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 2",
        "SELECT h AS q, count(*) FROM t GROUP BY q ORDER BY q",
        "SELECT date_trunc('month', ts), count(*) FROM t GROUP BY date_trunc ORDER BY 1",
        "SELECT g + h, sum(b) FROM t GROUP BY g + h ORDER BY g + h",
        "SELECT sum(n), avg(n), max(n), min(n), variance(n) FROM t WHERE n IS NOT NULL",
        "SELECT *, id AS z FROM t ORDER BY 22, 1",
        "SELECT (o).*, note FROM o ORDER BY 3, 1",
        "SELECT id, g FROM t ORDER BY 2 NULLS FIRST, 1 DESC",
        'SELECT id FROM t ORDER BY upper(s) COLLATE "C" DESC, id',
        "SELECT g, CASE WHEN bool_and(bo) THEN 'all' ELSE 'some' END FROM t GROUP BY g ORDER BY g",
        "SELECT avg(g), sum(g), min(g), count(g), coalesce(sum(g), 0), coalesce(avg(g), 1.5) FROM t WHERE false",
        "SELECT DISTINCT g FROM t ORDER BY g DESC",
        "SELECT -id AS id FROM t ORDER BY id",
        'SELECT g FROM t ORDER BY g::text COLLATE "C", id::text COLLATE "C", g, id',
        "SELECT -g AS g FROM t ORDER BY t.g, g, id",
    ],
)
def test_chosen_queries(spread: Spread, sql: str, formats: tuple[int, ...]) -> None:
    _compare(spread, Asked(sql, result_formats=formats), ordered=True)


@pytest.mark.parametrize("sql", ["SELECT FROM t", "SELECT DISTINCT * FROM t", "SELECT id FROM t FOR UPDATE"])
def test_chosen_queries_without_order(spread: Spread, sql: str) -> None:
    _compare(spread, Asked(sql), ordered=False)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT sum(f) FROM t",
        "SELECT avg(f) FROM t",
        "SELECT stddev(f) FROM t",
        "SELECT stddev(f)::numeric FROM t",
        "SELECT count(DISTINCT (g, h)) FROM t",
        "SELECT count(DISTINCT ar) FROM t",
        "SELECT count(DISTINCT (CASE WHEN true THEN ar END)) FROM t WHERE ar = '{1}'",
        "SELECT id FROM t ORDER BY upper(s)",
        "SELECT max(name) FROM (SELECT upper(s) AS name FROM t) AS x",
    ],
)
def test_what_only_the_types_tell_is_refused_too(spread: Spread, sql: str) -> None:
    assert spread.through(Asked(sql), random.Random(1)).sqlstate == "0A000"
