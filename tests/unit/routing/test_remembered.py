"""Plans over several shards are kept for those who ask next, within limits."""

from __future__ import annotations

from unit.routing.test_many_literals import Router
from unit.routing.worlds import CATALOG, FOUR

from node.routing.hints import NONE, Hints
from node.routing.lexer import lex
from node.routing.outcome import Plan, Values
from node.routing.plan import plan
from node.routing.remembered import Remembered
from node.routing.statement import parse


def test_a_plan_is_made_once_for_all_who_ask() -> None:
    router = Router()
    sql = "SELECT id FROM orders WHERE total > 77 AND id > $1 ORDER BY id"
    made = router.plan(sql, b"1")
    assert router.plan(sql, b"1") is made
    assert router.plan(sql, b"2") is not made
    assert Router().plan(sql, b"1") is not made
    rows = "INSERT INTO orders (id, customer) VALUES (1, 'a'), (2, 'b'), (3, 'c')"
    assert router.plan(rows) is router.plan(rows)


def test_what_is_remembered_is_bounded_and_of_its_question_only() -> None:
    kept = Remembered(plans_max=3, limit_bytes=100, plan_bytes=60)
    (known,) = parse("SELECT 1")
    made = plan(known, Values(lex(b"SELECT 1")), NONE, FOUR, CATALOG)
    assert isinstance(made, Plan)
    keys = []
    for n in range(5):
        key = kept.key(known, Values(lex(b"SELECT %d" % n)), NONE, FOUR)
        assert key is not None
        kept.keep(*key, known, FOUR, CATALOG, made)
        keys.append(key[0])
    assert [kept.find(key, known, FOUR, CATALOG) is made for key in keys] == [False, False, True, True, True]
    assert kept.size == 24
    (other,) = parse("SELECT 1")
    assert kept.find(keys[4], other, FOUR, CATALOG) is None
    assert kept.find(keys[4], known, FOUR, type(CATALOG)()) is None
    hinted = kept.key(known, Values(lex(b"SELECT 4")), Hints(role="primary"), FOUR)
    assert hinted is not None
    assert kept.find(hinted[0], known, FOUR, CATALOG) is None
    big = kept.key(known, Values(lex(b"SELECT " + b"1" * 50)), NONE, FOUR)
    assert big is not None
    kept.keep(*big, known, FOUR, CATALOG, made)
    kept.keep(*big, known, FOUR, CATALOG, made)
    assert len(kept) == 3
    assert kept.size == 57 + 16
    assert kept.key(known, Values(lex(b"SELECT " + b"1" * 60)), NONE, FOUR) is None


def test_parameters_of_any_size_are_counted() -> None:
    kept = Remembered(plan_bytes=60)
    (known,) = parse("SELECT $1, $2")
    lexed = lex(b"SELECT $1, $2")
    assert kept.key(known, Values(lexed, (b"1" * 40, None)), NONE, FOUR) is not None
    assert kept.key(known, Values(lexed, (b"1" * 40, b"2" * 40)), NONE, FOUR) is None
