"""The table and the random queries of the exactness tests: one grammar, one seed, every query printable."""

from __future__ import annotations

import random
from dataclasses import dataclass

DDL = """
CREATE TABLE t (
    id bigint, g int, h smallint, b bigint, n numeric, m numeric(12, 2), f double precision,
    s text COLLATE "C", v varchar(12) COLLATE "C", c char(4) COLLATE "C", ts timestamp, tz timestamptz, d date,
    ti time, tt timetz, iv interval, u uuid, bo boolean, by bytea, ar int[], ip inet
);
CREATE TABLE kind (g int, name text COLLATE "C");
INSERT INTO kind VALUES (0, 'zero'), (1, 'one'), (2, 'two'), (NULL, 'none'), (77, 'unused');
"""
KEYS = {"t": "id"}
COLUMNS = "id g h b n m f s v c ts tz d ti tt iv u bo by ar ip".split()  # noqa: SIM905
_INTS = ("g", "h", "b", "id")
_NUMBERS = (*_INTS, "n", "m")
_SORTABLE = tuple(name for name in COLUMNS if name != "ar")
# Grouped columns whose equal values look alike, so that any representative is the right one.
_GROUPABLE = ("g", "h", "s", "v", "c", "d", "bo", "m", "ar")
# min and max may show any of several equal values: those that look different (-0 and 0, 24 hours and 1 day) become one.
_CHOOSABLE = tuple({"f": "abs(f)", "iv": "justify_interval(iv)"}.get(name, name) for name in _SORTABLE[:17])
_SPREADS = ("variance", "var_pop", "var_samp", "stddev", "stddev_pop", "stddev_samp")


def random_rows(rng: random.Random, count: int, postgres: int) -> list[tuple[str, list[str | None]]]:
    """Rows as COPY text, thick with ties, NULLs, infinities and extremes. `postgres`: the server's major version."""
    return [(str(number), _row(rng, number, postgres)) for number in range(count)]


def _row(rng: random.Random, number: int, postgres: int) -> list[str | None]:
    pick = rng.choice
    word = "".join(pick("abAB é_") for _ in range(rng.randrange(4))).strip() or pick(["", "z"])
    day = f"20{rng.randrange(10, 13)}-0{rng.randrange(1, 10)}-1{rng.randrange(10)}"
    moment = f"{day} 1{rng.randrange(10)}:00:0{rng.randrange(10)}.{pick(['9', '000009', '919160', '5'])}"
    longest = "infinity" if postgres >= 17 else "9999 years"
    drawn: list[str | None] = [
        str(number),
        str(rng.randrange(4)),
        str(rng.randrange(-3, 3)),
        pick([str(rng.randrange(-9, 9)), "9223372036854775807", "-9223372036854775808", str(rng.getrandbits(60))]),
        pick([str(rng.randrange(100)), f"{rng.randrange(10**12)}.{rng.randrange(10**9)}", "0", "-0.000001", "1e40"]),
        f"{rng.randrange(-500, 500)}.{rng.randrange(10, 100)}",
        pick(["0", "-0", "NaN", "Infinity", "-Infinity", repr(rng.uniform(-5, 5)), "1.5"]),
        word,
        word[:3],
        pick(["a", "ab", "b"]),
        pick([moment, moment, "infinity", "-infinity"]),
        pick([moment + "+02", moment, "infinity", "-infinity"]),
        pick([day, day, "infinity", "0044-03-15 BC"]),
        f"1{rng.randrange(10)}:30:00.{pick(['1', '000001'])}",
        f"1{rng.randrange(10)}:30:00{pick(['+00', '+02', '-05'])}",
        pick(["1 day", "24 hours", "1 mon", "30 days", "-1 day", "1 year -3 days", longest]),
        f"00000000-0000-0000-0000-00000000000{rng.randrange(10)}",
        pick(["t", "f"]),
        "\\\\x" + bytes(rng.randrange(3) for _ in range(rng.randrange(4))).hex(),
        pick(["{}", "{1}", "{1,2}", "{NULL}", "{{1,2},{3,4}}"]),
        pick(["10.0.0.0/8", "10.0.0.0/16", "10.1.2.3", "::1", "10.1.0.0/16"]),
    ]
    return [value if n == 0 or rng.random() > 0.15 else None for n, value in enumerate(drawn)]


@dataclass(frozen=True)
class Query:
    sql: str
    ordered: bool  # the order is total: compare lists, not bags


def random_query(rng: random.Random) -> Query:
    return rng.choice((_rows, _rows, _grouped, _grouped, _grouped, _distinct, _distinct_on, _by_key, _windowed))(rng)


def _rows(rng: random.Random) -> Query:
    listed = rng.choice(["*", "t.*", "id, *", ", ".join(rng.sample(COLUMNS, 3)), "g + 1 AS x, id", "s AS id2, v"])
    keys = _order_items(rng, _SORTABLE, rng.randrange(3))
    total = rng.random() < 0.8
    if total:
        keys.append(f"{'t.' if rng.random() < 0.5 else ''}id{_direction(rng)}")
    cut = _cut(rng) if total else ""
    return Query(f"SELECT {listed} FROM {_source(rng)}{_where(rng)}{_order(keys)}{cut}", total)


def _grouped(rng: random.Random) -> Query:
    groups = rng.sample(_GROUPABLE, rng.randrange(3))
    aggregates = [_aggregate(rng) for _ in range(rng.randrange(1, 4))]
    shown = [name for name in groups if rng.random() < 0.7]
    listed = [*shown, *(f"{text} AS a{n}" for n, text in enumerate(aggregates))]
    rng.shuffle(listed)
    clause = f" GROUP BY {', '.join(groups)}" if groups else ""
    keys = [name + _direction(rng) for name in groups if name != "ar"]
    total = len(keys) == len(groups)
    if rng.random() < 0.3:
        keys.insert(0, rng.choice(["count(*)", "a0" if not _unsortable(aggregates[0]) else "count(id)", "max(id)"]))
    cut = _cut(rng) if total else ""
    return Query(f"SELECT {', '.join(listed)} FROM {_source(rng)}{_where(rng)}{clause}{_order(keys)}{cut}", total)


def _unsortable(aggregate: str) -> bool:
    return aggregate.startswith(("min(", "max("))  # of any type; those of arrays have no order here


def _aggregate(rng: random.Random) -> str:
    number = rng.choice(_NUMBERS)
    wholes = rng.choice(("g", "h", "b"))
    small = rng.choice(("g", "h", "m"))
    kept = rng.choice(["", "", f" FILTER (WHERE {_condition(rng)})"])
    return rng.choice(
        [
            f"count(*){kept}",
            f"count({rng.choice(COLUMNS)}){kept}",
            f"sum({number}){kept}",
            f"avg({number}){kept}",
            f"avg({number} / 3.0)",
            f"sum({small} * 2)",
            f"min({rng.choice(_CHOOSABLE)}){kept}",
            f"max({rng.choice(_CHOOSABLE)}){kept}",
            f"bool_and(bo){kept}",
            f"bool_or(g > {rng.randrange(4)})",
            "every(bo)",
            f"{rng.choice(['bit_and', 'bit_or', 'bit_xor'])}({wholes}){kept}",
            f"count(DISTINCT {rng.choice(_SORTABLE)}){kept}",
            f"sum(DISTINCT {small})",
            f"avg(DISTINCT {small}){kept}",
            f"{rng.choice(_SPREADS)}({number}){kept}",
            f"count(*)::{rng.choice(['int', 'smallint', 'numeric', 'text', 'float8', 'numeric(9,2)'])}",
            f"sum({small})::{rng.choice(['int', 'bigint', 'numeric(20,1)', 'text'])}",
            f"coalesce(sum({small}), {rng.choice(['0', '-1', '0.50'])})",
            f"coalesce(avg({small}), 0)::numeric(10,{rng.randrange(4)})",
            f"round(avg({number}), {rng.randrange(5)}){rng.choice(['', '::text', '::numeric(60,1)'])}",
            f"round(sum({small})::numeric, 2)",
            f"coalesce(round(avg({small})::numeric, 1), 0)",
            f"round(coalesce(sum({small}), 0), 3)",
            "coalesce(max(s) || 'x', 'none')",
            "upper(min(s))",
        ]
    )


def _distinct(rng: random.Random) -> Query:
    names = rng.sample(_GROUPABLE, rng.randrange(1, 3))
    keys = [name + _direction(rng) for name in names if name != "ar"]
    rng.shuffle(keys)
    total = len(keys) == len(names)
    cut = _cut(rng) if total else ""
    return Query(f"SELECT DISTINCT {', '.join(names)} FROM {_source(rng)}{_where(rng)}{_order(keys)}{cut}", total)


def _distinct_on(rng: random.Random) -> Query:
    names = [name for name in rng.sample(_GROUPABLE, rng.randrange(1, 3)) if name != "ar"] or ["g"]
    keys = [name + _direction(rng) for name in names]
    keys.append("id" + _direction(rng))
    listed = rng.choice(["*", "id, g", "s, id, h"])
    return Query(f"SELECT DISTINCT ON ({', '.join(names)}) {listed} FROM t{_where(rng)}{_order(keys)}{_cut(rng)}", True)


def _by_key(rng: random.Random) -> Query:
    having = rng.choice(["", " HAVING count(g) > 0", " HAVING max(b) > 3"])
    order = rng.choice(["", " ORDER BY 2 DESC, id", " ORDER BY max(m) NULLS FIRST, id DESC"])
    cut = _cut(rng) if order else ""
    return Query(
        f"SELECT id, count(g), string_agg(s, ',') FROM t{_where(rng)} GROUP BY id{having}{order}{cut}", bool(order)
    )


def _windowed(rng: random.Random) -> Query:
    order = rng.choice(["", " ORDER BY g NULLS FIRST, id", " ORDER BY r, id DESC"])
    cut = _cut(rng) if order else ""
    sql = "SELECT id, g, row_number() OVER (PARTITION BY id ORDER BY g) AS r, sum(h) OVER w FROM t"
    return Query(f"{sql}{_where(rng)} WINDOW w AS (PARTITION BY id){order}{cut}", bool(order))


def _source(rng: random.Random) -> str:
    return rng.choice(["t", "t", "t", "t", "ONLY t", "(SELECT * FROM t) AS t"])


def _where(rng: random.Random) -> str:
    return rng.choice(["", "", f" WHERE {_condition(rng)}", f" WHERE {_condition(rng)} OR {_condition(rng)}"])


def _condition(rng: random.Random) -> str:
    return rng.choice(
        [
            f"g = {rng.randrange(5)}",
            f"h > {rng.randrange(-3, 3)}",
            "s LIKE 'a%'",
            "bo",
            "m IS NULL",
            f"id % {rng.randrange(2, 9)} = 1",
            "id < 0",
            "g IN (SELECT g FROM kind WHERE name < 'two')",
            "ts > '2011-01-01' AND n BETWEEN 1 AND 1e12",
        ]
    )


def _direction(rng: random.Random) -> str:
    return rng.choice(["", " ASC", " DESC"]) + rng.choice(["", "", " NULLS FIRST", " NULLS LAST"])


def _order_items(rng: random.Random, names: tuple[str, ...], count: int) -> list[str]:
    return [name + _direction(rng) for name in rng.sample(names, count)]


def _order(keys: list[str]) -> str:
    return f" ORDER BY {', '.join(keys)}" if keys else ""


def _cut(rng: random.Random) -> str:
    limit = rng.choice(
        ["", "", f" LIMIT {rng.randrange(12)}", " LIMIT 9223372036854775807", " LIMIT ALL", " LIMIT NULL"]
    )
    return limit + rng.choice(["", "", f" OFFSET {rng.randrange(9)}", " OFFSET 1000000", " OFFSET 9223372036854775807"])
