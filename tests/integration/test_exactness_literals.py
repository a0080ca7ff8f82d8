"""What was learned from one text of a shape answers for its other texts as one table with all rows would.

The facts of every query come from a *witness*: a text of the same shape in which other literals stand, wherever a
literal may be another one.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest
from integration.exactness import Asked, Spread, Wire
from integration.exactness_queries import DDL, KEYS, random_query, random_rows
from integration.harness import start_server

from node.embedded.workspace import Workspace
from node.routing.lexed import NUMERIC, STRING, Lexed
from node.routing.lexer import lex
from node.routing.outcome import MergeProgram, Refusal, Values
from node.routing.select import for_shape, program, telling
from node.routing.statement import parse_lexed

QUERIES = int(os.environ.get("PGMURMUR_EXACTNESS_QUERIES", "120"))
Connect = Callable[[], Wire]


class Learned(Spread):
    """A `Spread` that plans by what witnesses taught; `learned` and `alone` count its queries."""

    learned = 0
    alone = 0

    def plan(self, asked: Asked) -> MergeProgram | Refusal:
        lexed = lex(asked.sql.encode())
        (statement,), general = parse_lexed(lexed)
        marked = statement.marked_tree(lexed) if general else None
        if marked is not None:
            pinned = telling(marked)
            witness = other_literals(lexed, pinned)
            assert witness.shape == lexed.shape
            marked = statement.marked_tree(witness, pinned)
            facts = for_shape(marked, statement.tree(witness), witness, self._placement, self.known)
            if facts is not None and not isinstance(facts, Refusal):
                self.learned += 1
                return program(facts, Values(lexed, asked.parameters, asked.formats, asked.types))
        self.alone += 1
        return super().plan(asked)


def other_literals(lexed: Lexed, pinned: tuple[int, ...]) -> Lexed:
    """Another text of the shape; all its literals differ from each other."""
    parts, at = [], 0
    for ordinal, (kind, start, end) in enumerate(lexed.literals):
        if ordinal in pinned:
            continue
        other = b"'%d'" if kind == STRING else b"%d.25" if kind == NUMERIC else b"%d"
        parts += [lexed.sql[at:start], other % (7 + ordinal)]
        at = end
    return lex(b"".join((*parts, lexed.sql[at:])))


@pytest.fixture(scope="module")
def connect(workspace: Workspace) -> Iterator[Connect]:
    server = start_server(workspace, "literals", auth="trust")
    yield lambda: Wire(server.host, server.port, server.superuser, "postgres")
    server.stop()


@pytest.fixture(scope="module")
def learned(connect: Connect) -> Iterator[Learned]:
    made = Learned(connect, DDL, KEYS, 2)
    made.load("t", random_rows(random.Random(5), 60, made.whole.major()), lambda key: int(key) % 2)
    yield made
    made.close()


def _same(spread: Spread, asked: Asked, rng: random.Random, *, ordered: bool) -> bool:
    """Was it answered, and then as one table would? A refusal is no answer."""
    right, ours = spread.direct(asked), spread.through(asked, rng)
    said = f"{asked.sql}\n{spread.plan(asked)}\n{ours.text}\n{right.text}"
    if ours.sqlstate is not None:
        assert ours.sqlstate in ("0A000", right.sqlstate), said
        return right.sqlstate is not None
    assert right.sqlstate is None, said
    assert (ours.shape, ours.tag) == (right.shape, right.tag), said
    if ordered:
        assert ours.rows == right.rows, said
    else:
        assert sorted(ours.rows) == sorted(right.rows), said
    return True


@pytest.mark.parametrize("seed", [1, 2, "random"])
def test_random_queries_answer_by_what_other_texts_taught(learned: Learned, seed: int | str) -> None:
    chosen = random.SystemRandom().getrandbits(32) if seed == "random" else seed
    print(f"seed {chosen}")
    rng = random.Random(chosen)
    answered = 0
    learned.learned = learned.alone = 0
    for _ in range(QUERIES):
        query = random_query(rng)
        asked = Asked(query.sql, result_formats=rng.choice([(), (0,), (1,)]))
        answered += _same(learned, asked, rng, ordered=query.ordered)
    assert answered > QUERIES * 0.8
    assert learned.learned > 4 * learned.alone


# {i}, {j}: integers, {n}: a number with a fraction, {s}, {z}: strings
TEMPLATES = (
    "SELECT id, g FROM t WHERE g < {i} AND n > {n} ORDER BY id LIMIT {j}",
    "SELECT id, {s}, {i}, {n} FROM t WHERE s > {z} ORDER BY s, id LIMIT {i} OFFSET {j}",
    "SELECT id, g + {i} AS x FROM t WHERE (s || {s}) <> {z} ORDER BY x DESC, id",
    "SELECT {i} + id FROM t ORDER BY lower({s} || s), id FETCH FIRST {j} ROWS ONLY",
    "SELECT g, count(*), sum(h * {i}), min(s || {s}) FROM t WHERE b <> {j} GROUP BY g ORDER BY g NULLS FIRST LIMIT {i}",
    "SELECT coalesce(sum(g), {i}), coalesce(avg(h), {n}) FROM t WHERE id > {j} AND s = {s}",
    "SELECT round(avg(n), 3), round(coalesce(sum(m), {n}), 1)::text FROM t WHERE id > {i}",
    "SELECT left(s, {i}), count(*) FROM t GROUP BY left(s, {i}) ORDER BY left(s, {i}), 2",
    "SELECT DISTINCT g + {i}, {s} FROM t WHERE id < {j} ORDER BY 1",
    "SELECT DISTINCT ON (g) g, id, {s} FROM t WHERE h < {i} ORDER BY g, id",
    "SELECT id, CASE WHEN s = {s} THEN {z} ELSE s END FROM t WHERE ts > '2011-01-01' ORDER BY 2, 1",
    "SELECT id, s LIKE {s}, date '2011-02-03' - d, id * {i} FROM t WHERE id BETWEEN {i} AND {j} ORDER BY 1",
    "SELECT id FROM t WHERE g = -{i} OR h > - {j} OR n > -{n} ORDER BY id OFFSET {i}",
    "SELECT count(*) FILTER (WHERE g > {i}), count(DISTINCT h + {j}) FROM t OFFSET {i}",
    "SELECT id, ar[{i}], ARRAY[{i}, {j}], m::numeric(12, 1), f::text || {s} FROM t ORDER BY id LIMIT {j}",
)  # fmt: skip
INTEGERS = ("0", "1", "2", "3", "7", "30", "2147483648", "007")
NUMBERS = ("0.5", ".5", "5.", "1e1", "12.50")
STRINGS = ("''", "'a'", "'b%'", "'it''s'", "E'a\\nb'", "$$a$$", "$x$'b'$x$", "'é'", "'a'\n 'b'", "'a\\b'", "E'\\'a'")


@pytest.mark.parametrize("template", TEMPLATES)
def test_one_shape_with_many_literals(learned: Learned, template: str) -> None:
    rng = random.Random(template)
    learned.learned = learned.alone = 0
    for _ in range(12):
        filled = {"i": INTEGERS, "j": INTEGERS, "n": NUMBERS, "s": STRINGS, "z": STRINGS}
        sql = template.format(**{name: rng.choice(pool) for name, pool in filled.items()})
        _same(learned, Asked(sql), rng, ordered="ORDER BY" in sql)
    assert learned.learned
    assert not learned.alone


@pytest.mark.parametrize("bound", ["0x5", "0b11", "0o7", "1_0", "2.5", "'3'", "' 4 '", "0", "9223372036854775807"])
@pytest.mark.parametrize("clause", ["LIMIT {}", "OFFSET {}", "LIMIT {0} OFFSET {0}"])
@pytest.mark.parametrize("query", ["SELECT id FROM t ORDER BY id", "SELECT g, count(*) FROM t GROUP BY g ORDER BY g"])
def test_a_bare_bound_is_what_the_server_takes_it_for(learned: Learned, query: str, clause: str, bound: str) -> None:
    asked = Asked(f"{query} {clause.format(bound)}")
    right, ours = learned.direct(asked), learned.through(asked, random.Random(1))
    assert (ours.sqlstate, ours.text) == (right.sqlstate, right.text)
    assert (ours.shape, ours.tag, ours.rows) == (right.shape, right.tag, right.rows)


@pytest.mark.parametrize("bound", ["-1", "9223372036854775808", "1e30", "1e999999999", "'x'", "'99999999999999999999'"])
def test_a_bound_that_nobody_takes_is_refused_in_the_same_words(learned: Learned, bound: str) -> None:
    asked = Asked(f"SELECT id FROM t ORDER BY id LIMIT {bound}")
    right, ours = learned.direct(asked), learned.through(asked, random.Random(1))
    assert right.sqlstate is not None
    assert (ours.sqlstate, ours.text) == (right.sqlstate, right.text)
