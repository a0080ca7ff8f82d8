"""One line per case: SQL, values, and where it goes. FOUR has four shards; ids 1..8 hash as H says."""

from __future__ import annotations

import pytest
from unit.routing.worlds import BY_COLUMN, FOUR, ONE, outcome, route

from node.routing import hashing
from node.routing.outcome import Plan, Refusal, Role

H = {n: hashing.bigint(n) % 4 for n in range(-20, 1000)}
S = {s: hashing.varchar(s.encode()) % 4 for s in ("123", "ada", "Ada", "it's", "", "é", "bob")}


def one(n: int) -> str:
    return f"{H[n]} direct one"


def some(*numbers: int) -> str:
    return ",".join(map(str, sorted({H[n] for n in numbers})))


EQUALITY = [
    ("SELECT * FROM orders WHERE id = 5", one(5)),
    ("SELECT * FROM orders WHERE 5 = id", one(5)),
    ("SELECT * FROM orders WHERE id = -5", one(-5)),
    ("SELECT * FROM orders WHERE id = - 5", one(-5)),
    ("SELECT * FROM orders WHERE id = 1 + 5", one(6)),
    ("SELECT * FROM orders WHERE id = 2 * 3 - 1", one(5)),
    ("SELECT * FROM orders WHERE id = '5'", one(5)),
    ("SELECT * FROM orders WHERE id = ' 5 '", one(5)),
    ("SELECT * FROM orders WHERE id = '5'::bigint", one(5)),
    ("SELECT * FROM orders WHERE id = CAST('5' AS int)", one(5)),
    ("SELECT * FROM orders WHERE id = bigint '5'", one(5)),
    ("SELECT * FROM orders WHERE id = 5.0", one(5)),
    ("SELECT * FROM orders WHERE id = 0x10", one(16)),
    ("SELECT * FROM orders WHERE id = 1_0", one(10)),
    ("SELECT * FROM orders WHERE id = (5)", one(5)),
    ("SELECT * FROM orders WHERE id IN (5)", one(5)),
    ("SELECT * FROM orders WHERE id IS NOT DISTINCT FROM 5", one(5)),
    ("SELECT * FROM orders WHERE (id, total) = (5, 1)", one(5)),
    ("SELECT * FROM orders WHERE total > 1 AND id = 5 AND customer = 'x'", one(5)),
    ("SELECT * FROM orders o WHERE o.id = 5", one(5)),
    ("SELECT * FROM public.orders WHERE public.orders.id = 5", one(5)),
    ("SELECT * FROM public.orders WHERE orders.id = 5", one(5)),
    ('SELECT * FROM "orders" WHERE "id" = 5', one(5)),
    ("SELECT * FROM ORDERS WHERE ID = 5", one(5)),
    ('SELECT * FROM odd."Odd Name" WHERE "Key Col" = 5', one(5)),
    ("SELECT * FROM orders WHERE id = ANY('{5}')", one(5)),
    ("SELECT * FROM orders WHERE id = ANY(ARRAY[5])", one(5)),
    ("SELECT * FROM orders WHERE id = ANY('{5}'::int[])", one(5)),
    ("SELECT * FROM orders WHERE id BETWEEN 5 AND 5", one(5)),
    ("SELECT * FROM orders WHERE id > 4 AND id < 6", one(5)),
    ("SELECT * FROM orders WHERE id = 5 OR id = 5", one(5)),
    ("SELECT * FROM orders WHERE id IN (5, 6) AND id = 5", one(5)),
    ("SELECT * FROM orders WHERE (id = 5 OR id = 6) AND id IN (6, 7)", one(6)),
    ("SELECT * FROM orders WHERE (id = 5 AND total > 1) OR (id = 5 AND total < 0)", one(5)),
    ("SELECT * FROM orders WHERE id IS NULL", "0 direct one"),
    ("SELECT count(*) FROM orders WHERE id = 5", one(5)),
    ("SELECT string_agg(customer, ',') FROM orders WHERE id = 5", one(5)),
    ("TABLE countries", "0 direct one"),
    ("SELECT * FROM orders WHERE id = 1.5", "0 direct one"),
    ("SELECT * FROM orders WHERE id = NULL", "0,1,2,3 pushdown concat"),
    ("SELECT * FROM orders WHERE id = 5 AND id = 6", "0 direct one"),
    ("SELECT * FROM orders WHERE id = 99999999999999999999", "0 direct one"),
    ("SELECT * FROM users WHERE name = 'ada'", f"{S['ada']} direct one"),
    ("SELECT * FROM users WHERE name = 'Ada'", f"{S['Ada']} direct one"),
    ("SELECT * FROM users WHERE name = '123'", f"{S['123']} direct one"),
    ("SELECT * FROM users WHERE name = 'it''s'", f"{S[chr(105) + chr(116) + chr(39) + chr(115)]} direct one"),
    ("SELECT * FROM users WHERE name = E'it\\'s'", f"{S[chr(105) + chr(116) + chr(39) + chr(115)]} direct one"),
    ("SELECT * FROM users WHERE name = $$ada$$", f"{S['ada']} direct one"),
    ("SELECT * FROM users WHERE name = ''", f"{S['']} direct one"),
    ("SELECT * FROM users WHERE name = 'é'", f"{S['é']} direct one"),
    ("SELECT * FROM users WHERE name = 'ada'::text", f"{S['ada']} direct one"),
    ("SELECT * FROM docs WHERE id = '11111111-1111-1111-1111-111111111111'", "0 direct one"),
    ("SELECT * FROM docs WHERE id = '{11111111111111111111111111111111}'", "0 direct one"),
    ("SELECT * FROM docs WHERE id = '11111111-1111-1111-1111-111111111111'::uuid", "0 direct one"),
    ("SELECT * FROM events WHERE at = 99", "0 direct one"),
    ("SELECT * FROM events WHERE at >= 100 AND at < 200", "1 direct one"),
    ("SELECT * FROM events WHERE at BETWEEN 100 AND 199", "1 direct one"),
    ("SELECT * FROM events WHERE at > 500", "2 direct one"),
    ("SELECT * FROM events WHERE 500 < at", "2 direct one"),
    ("SELECT * FROM events WHERE at < 100", "0 direct one"),
    ("SELECT * FROM regions WHERE code = 'de'", "0 direct one"),
    ("SELECT * FROM regions WHERE code IN ('de', 'at')", "0 direct one"),
    ("SELECT * FROM regions WHERE code = 'xx'", "0 direct one"),
    ("SELECT * FROM regions WHERE code IS NULL", "1 direct one"),
    ("SELECT * FROM mixed WHERE id = 15", "1 direct one"),
    ("SELECT * FROM mixed WHERE id = 15000", "2 direct one"),
    ("SELECT * FROM orders_2024 WHERE id = 5", one(5)),
]


@pytest.mark.parametrize(("sql", "expected"), EQUALITY)
def test_a_key_names_its_shard(sql: str, expected: str) -> None:
    assert route(sql) == expected


EVERYWHERE = [
    "SELECT * FROM orders WHERE id % 2 = 1",
    "SELECT * FROM orders WHERE id + 1 = 5",
    "SELECT * FROM orders WHERE id::text = '5'",
    "SELECT * FROM orders WHERE abs(id) = 5",
    "SELECT * FROM orders WHERE NOT id = 5",
    "SELECT * FROM orders WHERE id <> 5",
    "SELECT * FROM orders WHERE NOT (id <> 5)",
    "SELECT * FROM orders WHERE id = 5 OR total = 1",
    "SELECT * FROM orders WHERE id = 5 OR id IN (SELECT 7)",
    "SELECT id = 5 FROM orders",
    "SELECT CASE WHEN id = 5 THEN 1 END FROM orders",
    "SELECT * FROM orders WHERE CASE WHEN id = 5 THEN true ELSE total > 1 END",
    "SELECT * FROM orders WHERE (id = 5) IS NOT TRUE",
    "SELECT * FROM orders WHERE coalesce(id, 5) = 5",
    "SELECT * FROM orders WHERE id > 5",
    "SELECT * FROM orders WHERE id = total",
    "SELECT * FROM orders WHERE id OPERATOR(mine.=) 5",
    "SELECT * FROM orders WHERE id = ALL(ARRAY[5, 6])",
    "SELECT * FROM orders WHERE id IN (5, abs(6))",
    "SELECT * FROM orders WHERE customer = '5'",
]


@pytest.mark.parametrize("sql", EVERYWHERE)
def test_what_is_no_filter_on_the_key_goes_everywhere(sql: str) -> None:
    found = outcome(sql)
    if isinstance(found, Refusal):
        assert found.fault.sqlstate == "0A000"
    else:
        assert isinstance(found, Plan)
        assert found.shards == (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("sql", "shards"),
    [
        ("SELECT * FROM orders WHERE id IN (1, 2, 3)", some(1, 2, 3)),
        ("SELECT * FROM orders WHERE id = 1 OR id = 3", some(1, 3)),
        ("SELECT * FROM orders WHERE id = ANY('{1,3,NULL}')", some(1, 3)),
        ("SELECT * FROM orders WHERE id BETWEEN 1 AND 3", some(1, 2, 3)),
        ("SELECT * FROM events WHERE at > 150", "1,2"),
        ("SELECT * FROM events WHERE at IN (1, 250)", "0,2"),
        ("SELECT * FROM events", "0,1,2"),
        ("SELECT * FROM regions WHERE code > 'a'", "0,1"),
        ("SELECT * FROM mixed WHERE id < 12", "0,1,2"),
        ("SELECT o.* FROM orders o JOIN items i ON i.order_id = o.id", "0,1,2,3"),
        ("SELECT o.* FROM orders o JOIN items i ON i.order_id = o.id WHERE o.id IN (1, 3)", some(1, 3)),
        ("SELECT o.id FROM orders o JOIN countries c ON c.code = o.customer", "0,1,2,3"),
    ],
)
def test_several_keys_need_their_shards(sql: str, shards: str) -> None:
    found = outcome(sql)
    assert isinstance(found, Plan), found
    assert ",".join(map(str, found.shards)) == shards


JOINS = [
    ("SELECT * FROM orders o JOIN items i ON i.order_id = o.id WHERE o.id = 5", one(5)),
    ("SELECT * FROM orders o JOIN items i ON i.order_id = o.id WHERE i.order_id = 5", one(5)),
    ("SELECT * FROM orders o, items i WHERE i.order_id = o.id AND o.id = 5", one(5)),
    ("SELECT * FROM orders o JOIN items i ON i.order_id = o.id AND o.id = 5", one(5)),
    ("SELECT * FROM orders o LEFT JOIN items i ON i.order_id = o.id WHERE o.id = 5", one(5)),
    ("SELECT * FROM items i RIGHT JOIN orders o ON i.order_id = o.id WHERE o.id = 5", one(5)),
    ("SELECT * FROM orders o JOIN countries c ON c.code = o.customer WHERE o.id = 5", one(5)),
    ("SELECT * FROM orders a JOIN orders b USING (id) WHERE id = 5", one(5)),
    ("SELECT * FROM orders a JOIN orders b ON a.id = b.id WHERE b.id = 5", one(5)),
    ("SELECT * FROM orders a, orders b WHERE a.id = 5 AND b.id = 5", one(5)),
    ("SELECT * FROM orders o WHERE id = 5 AND EXISTS (SELECT 1 FROM items i WHERE i.order_id = o.id)", one(5)),
    ("SELECT (SELECT count(*) FROM items i WHERE i.order_id = o.id) FROM orders o WHERE id = 5", one(5)),
    ("SELECT * FROM orders WHERE id = 5 AND id IN (SELECT order_id FROM items)", one(5)),
    ("SELECT * FROM orders WHERE id IN (SELECT order_id FROM items WHERE order_id = 5)", "refused"),
    ("WITH x AS (SELECT * FROM orders WHERE id = 5) SELECT * FROM x", one(5)),
    ("WITH orders AS (SELECT * FROM orders WHERE id = 5) SELECT * FROM orders", one(5)),
    ("WITH orders AS (SELECT * FROM countries) SELECT * FROM orders", "0 direct one"),
    ("SELECT * FROM (SELECT * FROM orders WHERE id = 5) x", one(5)),
    ("SELECT 1 FROM orders WHERE id = 5 UNION SELECT 2 FROM orders WHERE id = 5", one(5)),
    ("SELECT 1 FROM orders WHERE id = 5 UNION SELECT 2 FROM orders WHERE id = 6", "refused"),
    ("SELECT * FROM orders a, orders b WHERE a.id = 1 AND b.id = 3", "refused"),
    ("SELECT * FROM orders o JOIN items i ON i.id = o.id", "refused"),
    ("SELECT * FROM orders o LEFT JOIN items i ON i.order_id = o.id AND o.id = 5", "many"),
    ("SELECT * FROM orders o LEFT JOIN items i ON i.order_id = o.id WHERE i.order_id IS NULL", "many"),
    ("SELECT * FROM orders WHERE total = (SELECT max(total) FROM orders)", "refused"),
    ("SELECT * FROM orders WHERE id = (SELECT max(id) FROM orders)", "refused"),
    ("WITH x AS (SELECT id FROM orders) SELECT count(*) FROM x", "refused"),
    ("SELECT * FROM orders o JOIN users u ON u.name = o.customer", "refused"),
    ("SELECT * FROM order_view WHERE id = 5", "refused"),
    ("SELECT * FROM orders o WHERE EXISTS (SELECT 1 FROM items i WHERE i.order_id = o.id AND o.id = 5)", "refused"),
    ("SELECT * FROM orders WHERE id NOT IN (SELECT order_id FROM items)", "refused"),
    ("SELECT * FROM orders o FULL JOIN items i ON i.order_id = o.id AND i.order_id = 5", "many"),
]


@pytest.mark.parametrize(("sql", "expected"), JOINS)
def test_joins_subqueries_and_unions_contribute_their_own_sets(sql: str, expected: str) -> None:
    found = outcome(sql)
    if expected == "refused":
        assert isinstance(found, Refusal), found
        assert found.fault.sqlstate == "0A000"
    elif expected == "many":
        assert not isinstance(found, Plan) or found.shards == (0, 1, 2, 3), found
    else:
        assert route(sql) == expected


def test_text_keys_of_another_encoding_are_refused() -> None:
    assert route("SELECT * FROM users WHERE name = $1", [b"gr\xfcn"]).startswith("refused 22021")
    assert route("INSERT INTO users (name) VALUES ($1)", [b"gr\xfcn"]).startswith("refused 22021")
    assert route("SELECT * FROM users WHERE name = $1", ["é".encode()]) == f"{S[chr(233)]} direct one"


def binary(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big", signed=True)


PARAMETERS = [
    ("SELECT * FROM orders WHERE id = $1", [b"5"], (), (), one(5)),
    ("SELECT * FROM orders WHERE id = $1", [b" -5 "], (), (), one(-5)),
    ("SELECT * FROM orders WHERE id = $1", [binary(5, 8)], (1,), (), one(5)),
    ("SELECT * FROM orders WHERE id = $1", [binary(-5, 8)], (1,), (20,), one(-5)),
    ("SELECT * FROM orders WHERE id = $1", [binary(5, 4)], (1,), (23,), one(5)),
    ("SELECT * FROM orders WHERE id = $1", [binary(5, 2)], (1,), (21,), one(5)),
    ("SELECT * FROM orders WHERE id = $1::bigint", [b"5"], (), (), one(5)),
    ("SELECT * FROM orders WHERE id = $1::int", [binary(5, 4)], (1,), (), one(5)),
    ("SELECT * FROM orders WHERE id = $1 + 1", [b"4"], (), (), one(5)),
    ("SELECT * FROM orders WHERE id = $1", [None], (), (), "0 direct one"),
    ("SELECT * FROM orders WHERE id IS NOT DISTINCT FROM $1", [None], (), (), "0 direct one"),
    ("SELECT * FROM orders WHERE id = ANY($1)", [b"{5}"], (), (), one(5)),
    ("SELECT * FROM orders WHERE id = ANY($1)", [b"{5,5}"], (), (1016,), one(5)),
    ("SELECT * FROM orders WHERE id = ANY($1)",
     [binary(1, 4) + binary(0, 4) + binary(20, 4) + binary(1, 4) + binary(1, 4) + binary(8, 4) + binary(5, 8)],
     (1,), (1016,), one(5)),
    ("SELECT * FROM orders WHERE total = $1 AND id = $2", [b"1", binary(5, 8)], (0, 1), (), one(5)),
    ("SELECT * FROM users WHERE name = $1", [b"ada"], (), (), f"{S['ada']} direct one"),
    ("SELECT * FROM users WHERE name = $1", [b"123"], (1,), (1043,), f"{S['123']} direct one"),
    ("SELECT * FROM docs WHERE id = $1", [bytes([0x11] * 16)], (1,), (2950,), "0 direct one"),
    ("SELECT * FROM docs WHERE id = $1", [b"11111111-1111-1111-1111-111111111111"], (), (), "0 direct one"),
    ("SELECT * FROM orders WHERE id = $1", [b"abc"], (), (),
     'refused 22P02 invalid input syntax for type bigint: "abc"'),
    ("SELECT * FROM orders WHERE id = $1", [b"99999999999999999999"], (), (),
     'refused 22003 value "99999999999999999999" is out of range for type bigint'),
    ("SELECT * FROM orders WHERE id = $1", [b"123"], (1,), (),
     "refused 22P03 incorrect binary data format in bind parameter 1"),
    ("SELECT * FROM docs WHERE id = $1", [b"xyz"], (), (), 'refused 22P02 invalid input syntax for type uuid: "xyz"'),
    ("SELECT * FROM orders WHERE id = $1", None, (), (), "0 direct one"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "parameters", "formats", "types", "expected"), PARAMETERS)
def test_parameters_in_both_formats(sql, parameters, formats, types, expected) -> None:  # type: ignore[no-untyped-def]
    assert route(sql, parameters, formats=formats, types=types) == expected


@pytest.mark.parametrize(
    ("sql", "role"),
    [
        ("SELECT 1", Role.ANY),
        ("SELECT * FROM orders WHERE id = 5", Role.ANY),
        ("SELECT * FROM orders WHERE id = 5 FOR UPDATE", Role.PRIMARY),
        ("SELECT * FROM orders WHERE id = 5 FOR KEY SHARE", Role.PRIMARY),
        ("WITH x AS (SELECT * FROM orders WHERE id = 5 FOR UPDATE) SELECT count(*) FROM x", Role.PRIMARY),
        ("SELECT nextval('s')", Role.PRIMARY),
        ("SELECT charge_card(5)", Role.PRIMARY),
        ("SELECT random(), now()", Role.ANY),
        ("SELECT pg_advisory_lock(5)", Role.PRIMARY),
        ("WITH d AS (DELETE FROM orders WHERE id = 5 RETURNING *) SELECT * FROM d", Role.PRIMARY),
        ("EXPLAIN ANALYZE INSERT INTO orders (id) VALUES (5)", Role.PRIMARY),
        ("EXPLAIN INSERT INTO orders (id) VALUES (5)", Role.ANY),
        ("EXPLAIN ANALYZE SELECT 1", Role.ANY),
        ("SELECT * INTO t FROM countries", Role.PRIMARY),
    ],
)
def test_role(sql: str, role: Role) -> None:
    for topology in (FOUR, ONE):
        found = outcome(sql, topology=topology)
        assert isinstance(found, Plan), found
        assert found.role == role


def test_role_hint_and_unbound_parameters() -> None:
    assert route("/* pgdog_shard: 2 */ SELECT * FROM orders") == "2 direct one"
    assert (
        route("SELECT * FROM orders /* pgmurmur_sharding_key: '5' */")
        == "refused 58000 a sharding key alone does not name a shard here"
    )  # noqa: E501
    assert route("/* pgdog_sharding_key: 5 */ SELECT * FROM whatever", topology=BY_COLUMN) == one(5)
    assert route("/* pgdog_shard: 9 */ SELECT 1") == "refused 22023 there is no shard 9"
    found = outcome("/* pgdog_role: primary */ SELECT 1")
    assert isinstance(found, Plan)
    assert found.role == Role.PRIMARY


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT * FROM tenants WHERE tenant_id = 5", one(5)),
        ("SELECT * FROM tenants t WHERE t.tenant_id = 5", one(5)),
        ("SELECT * FROM countries", "0 direct one"),
        ("SELECT * FROM brand_new WHERE tenant_id = 5", one(5)),
        ("SELECT * FROM brand_new", 'refused 42P01 relation "brand_new" is not known to this node'),
        ("SELECT * FROM tenants a JOIN serials b USING (tenant_id) WHERE tenant_id = 5", one(5)),
        ("SELECT * FROM padded WHERE tenant_id = 5", "many"),
        ("SELECT * FROM pg_class", "0 direct one"),
        ("SELECT * FROM information_schema.tables", "0 direct one"),
        ("INSERT INTO tenants VALUES (5, 'x')", one(5)),
        ("INSERT INTO brand_new (tenant_id) VALUES (5)", one(5)),
        ("UPDATE tenants SET name = 'x' WHERE tenant_id = 5", one(5)),
    ],
)
def test_rules_by_column_ask_the_catalog(sql: str, expected: str) -> None:
    found = route(sql, topology=BY_COLUMN)
    assert found.startswith("0,1,2,3") if expected == "many" else found == expected


def test_two_texts_of_one_shape_use_their_own_values() -> None:
    assert route("SELECT * FROM orders WHERE id = 5") == one(5)
    assert route("SELECT * FROM orders WHERE id = 11") == one(11)
    assert route("SELECT * FROM orders WHERE id = 1900000003") == f"{hashing.bigint(1900000003) % 4} direct one"


def test_one_shard_asks_nothing() -> None:
    assert route("SELECT * FROM order_view, orders, pg_class", topology=ONE) == "0 direct one"


def test_reasons_are_short_and_human() -> None:
    found = outcome("SELECT * FROM orders WHERE id = $1", [b"5"])
    assert isinstance(found, Plan)
    assert found.reasons == (f"orders: id = $1 → shard {H[5]}",)
