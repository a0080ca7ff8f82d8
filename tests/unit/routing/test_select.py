"""Which road a SELECT over several shards takes: SQL in, road and program out; or the construct that is refused."""

from __future__ import annotations

import pytest
from pglast import parse_sql

from node.routing.catalog import Catalog, CatalogColumn, CatalogTable
from node.routing.outcome import MergeProgram, Refusal, Road, SortKey, Values
from node.routing.select import SelectFacts, analyse, program

KEYS = {"t": "id", "o": "id"}
_COLUMNS = tuple(CatalogColumn(name, 23) for name in ("id", "g", "h")) + (
    CatalogColumn("c", 25, bytewise=True),
    CatalogColumn("s", 25, bytewise=False),
    CatalogColumn("ci", 25, bytewise=False, nondeterministic=True),
)
CATALOG = Catalog(
    {("public", name): CatalogTable("public", name, "r", _COLUMNS) for name in ("t", "o")}
    | {("public", "kind"): CatalogTable("public", "kind", "r", (CatalogColumn("g", 23), CatalogColumn("name", 25)))},
    functions={"mine": "i", "reads": "s", "total": "i", "lower": "i"},
    aggregates=frozenset(("total",)),
)


def _facts(sql: str) -> SelectFacts | Refusal:
    return analyse(parse_sql(sql)[0].stmt, lambda schema, table: KEYS.get(table), CATALOG)


def _program(sql: str, values: Values | None = None) -> MergeProgram:
    facts = _facts(sql)
    assert isinstance(facts, SelectFacts), facts
    made = program(facts, values or Values())
    assert isinstance(made, MergeProgram), made
    return made


@pytest.mark.parametrize(
    ("sql", "road"),
    [
        ("SELECT * FROM t", Road.PUSHDOWN),
        ("SELECT * FROM t WHERE g = 1 ORDER BY g", Road.PUSHDOWN),
        ("SELECT * FROM t LIMIT 5", Road.MERGE),
        ("SELECT id, count(*) FROM t GROUP BY id", Road.PUSHDOWN),
        ("SELECT id, string_agg(c, ',') FROM t GROUP BY id HAVING count(*) > 1", Road.PUSHDOWN),
        ("SELECT t.g, count(*) FROM t GROUP BY t.id, t.g", Road.PUSHDOWN),
        ("SELECT DISTINCT id, g FROM t", Road.PUSHDOWN),
        ("SELECT DISTINCT * FROM t", Road.PUSHDOWN),
        ("SELECT DISTINCT g FROM t", Road.MERGE),
        ("SELECT count(*) FROM t", Road.MERGE),
        ("SELECT g, avg(h) FROM t GROUP BY g", Road.MERGE),
        ("SELECT rank() OVER (PARTITION BY id ORDER BY g) FROM t", Road.PUSHDOWN),
        ("SELECT rank() OVER w FROM t WINDOW v AS (PARTITION BY id), w AS (v ORDER BY g)", Road.PUSHDOWN),
        ("SELECT id FROM t FOR UPDATE", Road.PUSHDOWN),
        ("SELECT mine(id) FROM t WHERE g < random()", Road.PUSHDOWN),
        ("SELECT t.id, count(o.id) FROM t LEFT JOIN o USING (id) GROUP BY t.id", Road.PUSHDOWN),
        ("SELECT o.id, count(*) FROM t LEFT JOIN o USING (id) GROUP BY o.id", Road.MERGE),
        ("SELECT DISTINCT o.id FROM t LEFT JOIN o USING (id)", Road.MERGE),
    ],
)
def test_roads(sql: str, road: Road) -> None:
    facts = _facts(sql)
    assert isinstance(facts, SelectFacts), facts
    assert facts.road == road
    assert facts.reasons


@pytest.mark.parametrize(
    ("sql", "construct"),
    [
        ("SELECT g FROM t GROUP BY g HAVING count(*) > 1", "HAVING"),
        ("SELECT rank() OVER (ORDER BY g) FROM t", "PARTITION BY"),
        ("SELECT count(*) OVER (PARTITION BY g) FROM t", "PARTITION BY"),
        ("SELECT g FROM t UNION SELECT g FROM t", "UNION"),
        ("WITH x AS (SELECT * FROM t) SELECT * FROM x", "WITH"),
        ("SELECT (SELECT max(id) FROM t)", "subquery"),
        ("SELECT * FROM t WHERE g = (SELECT max(g) FROM t)", "subquery"),
        ("SELECT * FROM t, (SELECT DISTINCT g FROM o) AS x", "DISTINCT in a subquery"),
        ("SELECT * FROM t, (SELECT count(*) FROM o) AS x", "subquery"),
        ("SELECT string_agg(c, ',') FROM t", "string_agg()"),
        ("SELECT total(g) FROM t", "total()"),
        ("SELECT sum(g) / count(*) FROM t", "expression over aggregates"),
        ("SELECT sum(g ORDER BY g) FROM t", "ORDER BY"),
        ("SELECT DISTINCT count(*) FROM t GROUP BY g", "DISTINCT with aggregates"),
        ("SELECT g, count(*) FROM t GROUP BY ROLLUP (g)", "ROLLUP"),
        ("SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE", "row lock"),
        ("SELECT id FROM t ORDER BY id FETCH FIRST 1 ROW WITH TIES", "WITH TIES"),
        ("SELECT id FROM t ORDER BY id USING <", "USING"),
        ("SELECT id FROM t LIMIT 1 + 1", "expression in LIMIT"),
        ("SELECT id, now() FROM t", "current time"),
        ("SELECT id FROM t ORDER BY current_date - g", "current time"),
        ("SELECT nextval('s') FROM t", "nextval()"),
        ("SELECT ctid FROM t", "ctid"),
        ("SELECT current_database() FROM t", "current_database()"),
        ("SELECT g FROM t ORDER BY random()", "random()"),
        ("SELECT reads(g) FROM t", "reads()"),
        ("SELECT unheard_of(g) FROM t", "unheard_of()"),
        ("SELECT kind.g FROM kind LEFT JOIN t USING (g)", "outer join"),
        ("SELECT kind.g FROM kind FULL JOIN t USING (g)", "FULL JOIN"),
        ("SELECT * FROM t TABLESAMPLE system (1)", "TABLESAMPLE"),
        ("SELECT DISTINCT ci FROM t", "nondeterministic"),
        ("SELECT DISTINCT x FROM (SELECT ci AS x FROM t) AS y", "nondeterministic"),
        ("SELECT count(DISTINCT ci) FROM t", "nondeterministic"),
        ("SELECT max(c), max(lower(c)) + count(*) FROM t", "expression over aggregates"),
    ],
)
def test_refusals_name_the_construct(sql: str, construct: str) -> None:
    refusal = _facts(sql)
    assert isinstance(refusal, Refusal), refusal
    assert refusal.fault.sqlstate == "0A000"
    assert construct in refusal.fault.message


def test_the_clients_own_text_goes_out_when_nothing_is_added() -> None:
    assert _program("SELECT * FROM t WHERE g = 1") == MergeProgram()
    assert _program("SELECT * FROM t LIMIT 3") == MergeProgram(limit=3)


def test_hidden_columns_follow_the_clients() -> None:
    made = _program("SELECT * FROM t ORDER BY g DESC, c NULLS FIRST, s LIMIT 2 OFFSET 3")
    assert made.sql == "SELECT *, g, c, s FROM t ORDER BY g DESC, c NULLS FIRST, s LIMIT 5"
    assert made.hidden == 3
    assert made.sort == (SortKey(-3, True, True, True), SortKey(-2, False, True, True), SortKey(-1))
    assert (made.limit, made.offset) == (2, 3)


def test_an_ordinal_behind_a_star_is_read_from_the_twins() -> None:
    made = _program("SELECT *, g FROM t ORDER BY 5")
    assert made.sql == "SELECT *, g, *, g FROM t ORDER BY 5"
    assert made.twins
    assert made.sort[0].column == 4


def test_an_alias_wins_in_order_by_and_a_column_in_group_by() -> None:
    assert _program("SELECT -id AS id FROM t ORDER BY id").sql == "SELECT - id AS id, - id FROM t ORDER BY id"
    made = _program("SELECT h AS g, count(*) FROM t GROUP BY g")
    assert made.sql == "SELECT h AS g, count(*), g, count(*) FROM t GROUP BY g"


def test_averages_bring_their_sum_and_count() -> None:
    made = _program("SELECT avg(g) FILTER (WHERE h > 0) FROM t")
    assert made.sql == (
        "SELECT avg(g) FILTER (WHERE h > 0), pg_catalog.sum(g) FILTER (WHERE h > 0), "
        "pg_catalog.count(g) FILTER (WHERE h > 0) FROM t"
    )
    assert made.group == ()
    assert (made.aggregates[0].output, made.aggregates[0].partials) == (0, (-2, -1))


def test_order_and_limit_of_groups_are_not_sent_to_the_shards() -> None:
    made = _program("SELECT g, count(*) FROM t GROUP BY g ORDER BY count(*) DESC LIMIT 1")
    assert "ORDER BY" not in made.sql
    assert "LIMIT" not in made.sql
    assert made.limit == 1


def test_parameters_of_limit_leave_no_gap() -> None:
    sql = "SELECT id FROM t WHERE g = $2 ORDER BY id LIMIT $1 OFFSET $3"
    made = _program(sql, Values(parameters=(b"2", b"7", b"1")))
    assert made.sql == "SELECT id, id FROM t WHERE g = $1 ORDER BY id LIMIT 3"
    assert made.parameters == (1,)
    unbound = _program(sql)
    assert (unbound.limit, unbound.offset) == (None, 0)


def test_a_sum_of_limit_and_offset_beyond_bigint_is_no_limit() -> None:
    made = _program("SELECT id FROM t ORDER BY id LIMIT 9223372036854775807 OFFSET 1")
    assert made.sql.endswith("ORDER BY id")
    assert (made.limit, made.offset) == (2**63 - 1, 1)


@pytest.mark.parametrize(
    ("clause", "parameter", "sqlstate"),
    [
        ("LIMIT $1", b"-1", "2201W"),
        ("OFFSET $1", b"-1", "2201X"),
        ("LIMIT $1", b"1.5", "22P02"),
        ("LIMIT $1", b"9223372036854775808", "22003"),
    ],
)
def test_bad_limits_have_postgresqls_codes(clause: str, parameter: bytes, sqlstate: str) -> None:
    facts = _facts(f"SELECT id FROM t ORDER BY id {clause}")
    assert isinstance(facts, SelectFacts)
    refusal = program(facts, Values(parameters=(parameter,)))
    assert isinstance(refusal, Refusal)
    assert refusal.fault.sqlstate == sqlstate


def test_binary_limits_have_the_width_of_their_type() -> None:
    facts = _facts("SELECT id FROM t ORDER BY id LIMIT $1")
    assert isinstance(facts, SelectFacts)
    for raw, types, good in ((b"\0\5", (21,), True), (b"\0\0\0\5", (20,), False), (b"\0\0\0\5", (), True)):
        made = program(facts, Values(parameters=(raw,), formats=(1,), types=types))
        assert isinstance(made, MergeProgram) == good
        if isinstance(made, MergeProgram):
            assert made.limit == 5


def test_a_very_deep_expression_is_refused_and_does_not_end_the_process() -> None:
    facts = _facts(f"SELECT id FROM t ORDER BY {' + '.join(['g'] * 3000)}")
    assert isinstance(facts, Refusal)
    assert facts.fault.sqlstate == "54001"


def test_a_renamed_column_is_not_the_key() -> None:
    catalog = Catalog({("public", "t"): CatalogTable("public", "t", "r", _COLUMNS[:3])})
    tree = parse_sql("SELECT DISTINCT id FROM t AS x (a, id)")[0].stmt
    facts = analyse(tree, lambda schema, table: KEYS.get(table), catalog)
    assert isinstance(facts, SelectFacts)
    assert facts.template.distinct == ()
