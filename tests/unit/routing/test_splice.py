"""INSERTs cut apart as text, against the same ones taken apart as trees."""

from __future__ import annotations

import random

import pytest
from pglast import parse_sql

from node.routing.lexed import BACKSLASH, ORACLE
from node.routing.lexer import lex
from node.routing.rewrite import copy, renumbered
from node.routing.splice import rows_of

CELLS = [
    "1", "-2.5", "NULL", "DEFAULT", "'a'", "'it''s (here)'", "E'\\')'", "$$), ('$$", "$x$ ,( $x$", "$1", "$2", "now()",
    "$3 + $1", "(1, 2) = (1, 2)", "ARRAY[1, 2]", "(SELECT count(*) FROM (VALUES (1), (2)) AS v)", "f($2, ')')",
    "B'101'", "'x'::text", '"a,b"', "/* ), ( */ 5", "U&'\\0041'", "-- )\n 7",
    "CASE WHEN true THEN 'y' END", "1::numeric(10, 2)",
]  # fmt: skip
HEADS = [
    "INSERT INTO t VALUES",
    "INSERT INTO t (id, v, w) VALUES",
    'insert  into s."values" AS x (id, "a(b") /* VALUES (0) */ Values',
    "INSERT INTO t (id) OVERRIDING SYSTEM VALUE VALUES",
    "/* shard ( */ INSERT INTO t -- (\n VALUES",
]
TAILS = [
    "",
    ";",
    " ; ",
    " ON CONFLICT DO NOTHING",
    " ON CONFLICT (id) DO UPDATE SET v = excluded.v || $1 WHERE (t.id) IN (1, 2)",
    " RETURNING id, (v), 'values (1)'",
    " -- the end (",
    " ON CONFLICT (id) DO NOTHING RETURNING $3",
]


def by_tree(sql: str, rows: list[int]) -> tuple[object, tuple[int, ...]]:
    tree = parse_sql(sql)[0].stmt
    listed = tree.selectStmt.valuesLists
    return renumbered(copy(tree, selectStmt=copy(tree.selectStmt, valuesLists=tuple(listed[row] for row in rows))))


def test_random_ones_say_what_their_trees_say() -> None:
    for _ in range(400):
        seed = random.randrange(1 << 32)
        rng = random.Random(seed)
        count, width = rng.randint(2, 6), rng.randint(1, 4)
        rows = [", ".join(rng.choice(CELLS) for _ in range(width)) for _ in range(count)]
        between = rng.choice((", ", ",", " ,\n", ", /* ( */ ", " -- ),\n , "))
        space = rng.choice((" ", "", "\n"))
        sql = rng.choice(HEADS) + space + between.join(f"({space}{row}\n)" for row in rows) + rng.choice(TAILS)
        found = rows_of(lex(sql.encode()))
        assert found is not None, (seed, sql)
        assert len(found.spans) == count, (seed, sql)
        chosen = sorted(rng.sample(range(count), rng.randint(1, count)))
        text, parameters = found.only(chosen)
        expected, numbers = by_tree(sql, chosen)
        assert parameters == numbers, (seed, sql, text)
        assert parse_sql(text)[0].stmt == expected, (seed, sql, text)


def test_names_and_strings_beyond_ascii_stay_what_they_are() -> None:
    found = rows_of(lex("INSERT INTO \"täble\" (id, \"ö\") VALUES (1, 'ä('), (2, 'ß')".encode()))
    assert found is not None
    assert found.only([1]) == ('INSERT INTO "täble" (id, "ö") VALUES (2, \'ß\')', ())


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "VALUES (1), (2)",
        "INSERT INTO t SELECT 1",
        "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t VALUES (1), (2) + 1",
        "INSERT INTO t VALUES (1), (2) UNION SELECT 3, (4)",
        "INSERT INTO t VALUES (1), (2) ORDER BY 1 LIMIT 1",
        "INSERT INTO t VALUES (1),",
        "INSERT INTO t VALUES (1) (2)",
        "INSERT INTO t VALUES (1, (2)",
        "INSERT INTO t VALUES (1)), (2)",
        "INSERT INTO t VALUES (1), (2); SELECT 1",
        "EXPLAIN INSERT INTO t VALUES (1), (2)",
        "WITH x AS (SELECT 1) INSERT INTO t VALUES (1), (2)",
        "INSERT INTO t VALUES (1), ('2)",
        "",
    ],
)
def test_what_is_not_surely_rows_is_left_to_the_parser(sql: str) -> None:
    assert rows_of(lex(sql.encode())) is None


@pytest.mark.parametrize("flags", [BACKSLASH, ORACLE])
def test_other_dialects_are_left_to_the_parser(flags: int) -> None:
    assert rows_of(lex(b"INSERT INTO t VALUES (1), (2)", flags)) is None


def test_an_alias_that_is_called_values_is_no_row() -> None:
    found = rows_of(lex(b"INSERT INTO t AS values (id) VALUES (1), (2)"))
    assert found is None or len(found.spans) != 2
