"""A SELECT over several shards is analysed for its shape: other literals travel to the shards, or count as such."""

from __future__ import annotations

from typing import Any

import pytest
from pglast import parse_sql
from unit.routing.worlds import CATALOG, FOUR

from node.routing import select, statement
from node.routing.cache import StatementCache
from node.routing.hints import NONE
from node.routing.lexer import lex
from node.routing.outcome import MergeProgram, Plan, Refusal, Values
from node.routing.outline import outline
from node.routing.plan import plan


class Router:
    """Plans texts through a cache of its own."""

    def __init__(self) -> None:
        self.cache = StatementCache()

    def plan(self, sql: str, *parameters: bytes) -> Plan | Refusal:
        (known,), lexed = self.cache.lookup(sql.encode())
        found = plan(known, Values(lexed, parameters), NONE, FOUR, CATALOG)
        assert isinstance(found, Plan | Refusal)
        return found

    def program(self, sql: str, *parameters: bytes) -> MergeProgram:
        found = self.plan(sql, *parameters)
        assert isinstance(found, Plan), found
        assert isinstance(found.program, MergeProgram)
        return found.program


@pytest.fixture
def router() -> Router:
    return Router()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What the parser and the analysis were asked."""
    asked: list[object] = []

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)

        def call(*given: Any, **named: Any) -> Any:
            asked.append(given[0])
            return real(*given, **named)

        monkeypatch.setattr(module, name, call)

    counted(select, "analyse")
    counted(select, "parse_sql")
    counted(statement, "_parse")
    return asked


@pytest.mark.parametrize(
    ("texts", "sql"),
    [
        (
            [f"SELECT id FROM orders WHERE total > {n} AND customer = 'c{n}' ORDER BY total, id" for n in range(5)],
            "SELECT id, total, id FROM orders WHERE total > 4 AND customer = 'c4' ORDER BY total, id",
        ),
        (
            [f"SELECT customer, sum(total * {n}.5) FROM orders WHERE id > -{n} GROUP BY customer" for n in range(5)],
            "SELECT customer, sum(total * 4.5), customer, sum(total * 4.5) FROM orders WHERE id > -4 GROUP BY customer",
        ),
        (
            [
                f"SELECT id FROM orders WHERE customer <> E'it\\'s {n}' ORDER BY id LIMIT {n} OFFSET '{n}'"
                for n in range(5)
            ],
            "SELECT id, id FROM orders WHERE customer <> E'it\\'s 4' ORDER BY id LIMIT 8",
        ),
        (
            [f"SELECT round(sum(total), 2), {n} FROM orders WHERE total < $${n}$$" for n in range(5)],
            "SELECT round(sum(total), 2), 4, sum(total) FROM orders WHERE total < $$4$$",
        ),
        ([f"SELECT * FROM orders WHERE total > {n}" for n in range(5)], ""),
    ],
)
def test_the_third_text_of_a_shape_needs_no_parser(
    router: Router, parsed: list[object], texts: list[str], sql: str
) -> None:
    for text in texts[:2]:
        router.program(text)
    parsed.clear()
    for text in texts[2:]:
        made = router.program(text)
    assert parsed == []
    assert made.sql == sql


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id, {0}, '{1}' FROM orders WHERE total > {1}.5 ORDER BY customer || '{0}', id LIMIT {0} OFFSET {1}",
        "SELECT DISTINCT total + {0} FROM orders WHERE customer IN ('a', '{1}') ORDER BY 1",
        "SELECT customer, coalesce(max(total), {0}) FROM orders GROUP BY customer ORDER BY max(total + {1})",
        "SELECT o.id, i.sku FROM orders o JOIN items i ON o.id = i.order_id WHERE i.sku > '{0}' ORDER BY 2, {1} - o.id",
        "SELECT id FROM orders WHERE id IN ({0}, {1}, 7, 8) ORDER BY id",
        "SELECT id FROM orders WHERE total > {0} LIMIT {1}",
    ],
)  # fmt: skip
def test_each_text_gets_what_it_would_get_alone(router: Router, text: str) -> None:
    for first, second in ((1, 2), (2, 2), (3, 1), (40, 5), (6, 0), (5, 40)):
        sql = text.format(first, second)
        ours, alone = router.plan(sql), Router().plan(sql)
        assert isinstance(ours, Plan)
        assert isinstance(alone, Plan)
        assert (ours.shards, ours.road, ours.reasons, ours.role) == (
            alone.shards, alone.road, alone.reasons, alone.role
        )  # fmt: skip
        assert isinstance(ours.program, MergeProgram)
        assert isinstance(alone.program, MergeProgram)
        assert (ours.program.limit, ours.program.offset) == (alone.program.limit, alone.program.offset)
        assert _tree(ours.program.sql) == _tree(alone.program.sql)


def _tree(sql: str) -> object:
    return parse_sql(sql)[0].stmt if sql else None


def test_digits_of_round_stay_with_their_text(router: Router) -> None:
    for digits in (1, 2, 1, 2, 3, 0, 2):
        made = router.program(f"SELECT round(avg(total), {digits}) FROM orders WHERE id > {digits + 5}")
        assert [a.digits for a in made.aggregates] == [digits]


def test_positions_in_order_by_stay_with_their_text(router: Router) -> None:
    for position, column in ((1, "id"), (2, "customer"), (1, "id"), (2, "customer")):
        made = router.program(f"SELECT id, customer FROM orders WHERE total > {position} ORDER BY {position}")
        assert made.sql.startswith(f"SELECT id, customer, {column} FROM")
    refused = router.plan("SELECT id, customer FROM orders WHERE total > 1 ORDER BY 3")
    assert isinstance(refused, Refusal)
    assert refused.fault.sqlstate == "42P10"


@pytest.mark.parametrize(
    ("clause", "sqlstate"),
    [
        ("LIMIT 99999999999999999999", "22003"),
        ("LIMIT 1e999999999", "22003"),
        ("LIMIT -1", "2201W"),
        ("OFFSET -1", "2201X"),
        ("LIMIT 1 OFFSET -1e0", "2201X"),
        ("LIMIT 'x'", "22P02"),
        ("LIMIT '0x5'", "0A000"),
        ("LIMIT 3::smallint", None),
        ("LIMIT 3000000000::int", "0A000"),
    ],
)
def test_a_wrong_bound_is_wrong_by_itself_and_spoils_nothing(router: Router, clause: str, sqlstate: str | None) -> None:
    sql = "SELECT id FROM orders WHERE total > {} ORDER BY id {}"
    for n in range(4):
        found = router.plan(sql.format(n, clause))
        assert (found.fault.sqlstate if isinstance(found, Refusal) else None) == sqlstate
    assert router.program(sql.format(1, "LIMIT 4 OFFSET 2")).limit == 4


def test_a_shape_is_learned_though_its_first_texts_were_refused(router: Router, parsed: list[object]) -> None:
    for n in range(3):
        too_many = router.plan(f"SELECT id FROM orders WHERE total > {n} ORDER BY id LIMIT 99999999999999999999")
        assert isinstance(too_many, Refusal)
    router.program("SELECT id FROM orders WHERE total > 1 ORDER BY id LIMIT 1")
    parsed.clear()
    assert router.program("SELECT id FROM orders WHERE total > 8 ORDER BY id LIMIT 2").limit == 2
    assert parsed == []


@pytest.mark.parametrize(
    ("clause", "sql"),
    [
        ("LIMIT 0x5", "LIMIT 5 OFFSET 0 * 0x5"),
        ("LIMIT 1_0 OFFSET 0b11", "LIMIT 13 OFFSET 0 * 1_0 * 0b11"),
        ("OFFSET 0o17", "OFFSET 0 * 0o17"),
        ("LIMIT 5 OFFSET 5e0", "LIMIT 10"),
    ],
)
def test_a_number_that_only_newer_servers_read_is_seen_by_the_shards(router: Router, clause: str, sql: str) -> None:
    for _ in range(2):
        assert router.program(f"SELECT id FROM orders ORDER BY id {clause}").sql == (
            f"SELECT id, id FROM orders ORDER BY id {sql}"
        )
    assert router.program("SELECT id FROM orders WHERE total = 0x1F ORDER BY id").sql == (
        "SELECT id, id FROM orders WHERE total = 0x1F ORDER BY id"
    )


def test_where_it_would_be_made_decimal_it_is_refused(router: Router) -> None:
    for _ in range(2):
        found = router.plan("SELECT round(sum(total), 0x2) FROM orders WHERE id > 5")
        assert isinstance(found, Refusal)
        assert "0x2" in found.fault.message


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT extract('year' FROM at) FROM orders ORDER BY id",  # printed as a word
        "SELECT id, current_timestamp(3) FROM orders",
        "SELECT id FROM orders ORDER BY id LIMIT 3::int",
    ],
)
def test_what_is_not_certain_is_analysed_text_by_text(router: Router, parsed: list[object], sql: str) -> None:
    for n in range(4):
        parsed.clear()
        router.plan(sql.replace("FROM orders", f"FROM orders WHERE total > {n}"))
        assert parsed


def test_an_outline_is_made_of_whole_markers_only() -> None:
    lexed = lex(b"SELECT 1, 'a', 2.5")
    made = outline("SELECT 1900000000, '\x02pgmurmur:1', 1900000002.5", lexed)
    assert made is not None
    assert made.ordinals == (0, 1, 2)
    assert made.filled(lex(b"SELECT 0x7, E'\\'', .5")) == "SELECT 0x7, E'\\'', .5"
    for wrong in (
        "SELECT 1900000001, '\x02pgmurmur:1'",  # a number where the text has a string
        "SELECT 1900000000.5",
        "SELECT 1900000003",  # no such literal
        "SELECT a1900000000",
        "SELECT 1900000000 AS \"'\x02pgmurmur:1'\"",
        "SELECT E'\x02pgmurmur:1'",
    ):
        assert outline(wrong, lexed) is None, wrong


def test_a_text_that_is_no_utf8_is_not_rewritten(router: Router) -> None:
    for n in range(3):
        router.program(f"SELECT id FROM orders WHERE customer = 'a{n}' ORDER BY id")
    for sql, sqlstate in (
        (b"SELECT id FROM orders WHERE customer = '\xff' ORDER BY id", "0A000"),
        (b"SELECT id FROM orders WHERE customer = '\xff'", None),
    ):
        (known,), lexed = router.cache.lookup(sql)
        found = plan(known, Values(lexed), NONE, FOUR, CATALOG)
        assert (found.fault.sqlstate if isinstance(found, Refusal) else None) == sqlstate
