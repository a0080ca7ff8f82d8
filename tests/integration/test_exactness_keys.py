"""Which rows a key means, through a node over two shards as on one PostgreSQL: types that change or loosen values,
parameters whose type another place decides, names that mean several tables, rows that come and go unseen.

A script is statements divided by `;;`, asked by simple and by prepared statements. `!` before it: it is
refused, and must leave nothing behind.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration import key_cases as cases
from integration.harness import Nodes, sharded_table
from integration.sharded import Answers, Talker, difference, shard_database, trusting_config, trusting_users

from node.embedded.workspace import Workspace
from node.wire import messages

LONG = "l" * 65
WORDS = ("one", "two", "three", "four", "five", "six")


SCHEMAS = "".join(
    f'[[sharded_schemas]]\ndatabase = "flock"\nname = "{name}"\nshard = {shard}\n'
    for shard, name in enumerate(("east", "west"))
)


class Pair:
    def __init__(self, node: Talker, plain: Talker) -> None:
        self.node, self.plain = node, plain

    def check(self, script: str, mode: str) -> None:
        refused, script = script.startswith("!"), script.lstrip("!")
        for sql in map(str.strip, script.split(";;")):
            ours = self.node.ask(sql, mode=mode)
            failed = ours.said[-1]
            if refused and failed.sqlstate == "0A000":
                for client in (self.node, self.plain):
                    client.ask("ROLLBACK")
                    client.run("DISCARD ALL")
                return
            self.compare(sql, ours, self.plain.ask(sql, mode=mode), f"{mode}: {sql}\nof {script}")
        assert not refused, f"not refused any more: {script}"

    def compare(self, sql: str, ours: Answers, right: Answers, said: str) -> None:
        found = difference(ours, right, ordered="ORDER BY" in sql)
        assert found is None, f"{said}\n{found}"
        assert [one.text for one in ours.said] == [one.text for one in right.said], said

    def bound(self, sql: str, value: bytes, form: int, types: tuple[int, ...] = ()) -> None:
        """A statement with one parameter, in one format, whose type is declared or left open."""
        answers = []
        for client in (self.node, self.plain):
            client.send(
                messages.parse(b"", sql.encode(), types),
                *(messages.bind(b"", b"", (form,), (value,), ()), messages.describe_portal(b"")),
                *(messages.execute(), messages.SYNC),
            )
            answers.append(client.read())
        self.compare(sql, *answers, f"{sql} of {value!r}")


@pytest.fixture(scope="module")
def pair(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder: Path = tmp_path_factory.mktemp("keys")
    nodes = Nodes(workspace, folder)
    lines = {"own": 'schema = "other"'}
    tables = "".join(
        sharded_table(name, "id" if kind == "bigint" else "name", kind, lines=lines.get(name, ""))
        for name, kind in cases.SHARDED.items()
    )
    with shard_database(workspace, "keys") as (server, shards, plain):
        started = nodes(trusting_config(shards, tables=tables, lines=SCHEMAS), trusting_users())
        made = Pair(
            Talker(started.host, started.port, "flock"),
            Talker(server.host, server.port, plain.name),
        )
        for sql in filter(None, map(str.strip, cases.TABLES.split(";\n"))):
            made.check(sql, "simple")
        made.check("INSERT INTO t SELECT i, i, i, i, i::text FROM generate_series(0, 30) i", "simple")
        for word in WORDS:
            for table in ("v", "s"):
                made.check(f"INSERT INTO {table} VALUES ('{word}', 1), ('{word}  ', 2)", "simple")
        yield made
        made.node.close()
        made.plain.close()
        nodes.close()


@pytest.mark.parametrize("mode", ["simple", "prepared"])
@pytest.mark.parametrize("word", WORDS)
def test_char_n_compares_without_its_blanks(pair: Pair, word: str, mode: str) -> None:
    for table in ("v", "s"):
        for value in (
            f"= '{word}'::bpchar",
            f"= '{word}  '::bpchar",
            f"= '{word} '::bpchar::text",
            f"= '{word} '::text",
        ):
            pair.check(f"SELECT * FROM {table} WHERE name {value}", mode)
        pair.check(f"SELECT * FROM {table} WHERE name = ANY('{{{word},\"x \"}}'::bpchar[])", mode)
        pair.check(f"SELECT * FROM {table} WHERE name = ANY(ARRAY['{word} ', 'x']::bpchar[])", mode)
    pair.check(
        f"INSERT INTO v VALUES ('{word}{mode}  '::bpchar, 3) ;; SELECT * FROM v WHERE name = '{word}{mode}'", mode
    )


@pytest.mark.parametrize("word", [b"one", b"one  ", b"two ", b"three"])
def test_parameters_declared_as_char_n(pair: Pair, word: bytes) -> None:
    for table in ("v", "s", "padded"):
        pair.bound(f"SELECT * FROM {table} WHERE name = $1", word, 0, (1042,))
        pair.bound(f"INSERT INTO {table} VALUES ($1, 7)", word[:5], 0, (1042,))
        pair.bound(f"SELECT * FROM {table} WHERE name = $1", word.rstrip(), 0)


@pytest.mark.parametrize("mode", ["simple", "prepared"])
def test_a_key_goes_where_the_column_keeps_it(pair: Pair, mode: str) -> None:
    """VALUES, INSERT ... SELECT and UPDATE."""
    for table, spelled, kept in (
        *(("padded", f"{word[:4]} ", word[:4]) for word in WORDS),
        *(("short", f"{word[:3]}  ", word[:3]) for word in WORDS),
        *(("cut", word + LONG, (word + LONG)[:63]) for word in WORDS),
    ):
        pair.check(f"INSERT INTO {table} VALUES ('{spelled}', 1) ;; SELECT * FROM {table} WHERE name = '{kept}'", mode)
        pair.check(f"INSERT INTO {table} SELECT '{spelled}', 2 ;; SELECT * FROM {table} WHERE name = '{kept}'", mode)
        pair.check(f"SELECT * FROM {table} WHERE name = '{spelled}'", mode)
        pair.check(f"SELECT * FROM {table} WHERE name = '{kept}' AND name = '{spelled}'", mode)
        pair.check(f"SELECT * FROM {table} WHERE name = '{kept}' AND name IN ('{spelled}', 'x')", mode)
        pair.check(f"UPDATE {table} SET name = '{spelled}' WHERE name = '{kept}'", mode)
        pair.check(f"SELECT * FROM {table} WHERE name = '{kept}'", mode)


@pytest.mark.parametrize("mode", ["simple", "prepared"])
def test_a_name_in_two_schemas_means_what_search_path_says(pair: Pair, mode: str) -> None:
    for script in filter(None, (cases.TWICE + cases.EAST_AND_WEST).splitlines()):
        for client in (pair.node, pair.plain):
            client.run("DISCARD ALL")
        pair.check(script, mode)


def test_what_reads_or_writes_sharded_tables_unseen_is_refused(pair: Pair) -> None:
    for script in cases.HEIRS.strip().splitlines():
        pair.check(script, "simple")


@pytest.mark.parametrize("mode", ["simple", "prepared"])
def test_no_row_moves_by_a_with(pair: Pair, mode: str) -> None:
    for script in cases.MOVES.strip().splitlines():
        if "MERGE" not in script or pair.plain.major() >= 17:
            pair.check(script, mode)
    pair.check("SELECT * FROM t ORDER BY id", mode)


def _float8(value: float) -> bytes:
    return struct.pack("!d", value)


NUMBERS = range(12)


@pytest.mark.parametrize(
    ("sql", "values", "form"),
    [
        ("SELECT * FROM t WHERE f = $1 AND id = $1", [_float8(n) for n in NUMBERS], 1),
        ("SELECT $1::float8, id FROM t WHERE id = $1", [_float8(n) for n in NUMBERS], 1),
        ("SELECT * FROM t WHERE n = $1 AND id = $1", [b"%d.0" % n for n in NUMBERS], 0),
        ("SELECT * FROM t WHERE word = $1 AND id = $1::bigint", [b"%d" % n for n in NUMBERS], 1),
        ("SELECT * FROM t WHERE id = $1 + 0.5", [b"%d.5" % n for n in NUMBERS], 0),
        ("SELECT * FROM t WHERE id = $1 + 1", [b"%d" % n for n in NUMBERS], 0),
        ("SELECT * FROM t WHERE id IN ($1, 2.5)", [b"%d.0" % n for n in NUMBERS], 0),
        ("SELECT * FROM t WHERE id IN ('4.0', 2.5, $1)", [b"%d.0" % n for n in NUMBERS], 0),
        ("SELECT * FROM t WHERE id = ANY(ARRAY[$1, 2.5])", [b"%d.0" % n for n in NUMBERS], 0),
        ("SELECT * FROM t WHERE id = $1 AND g = $1", [b"%d" % n for n in NUMBERS], 0),
        ("SELECT * FROM t WHERE id = $1 AND g = $1", [struct.pack("!q", n) for n in NUMBERS], 1),
        ("UPDATE t SET f = $1 WHERE id = $1", [_float8(n) for n in NUMBERS], 1),
    ],
)
def test_a_parameter_has_the_type_of_its_first_mention(pair: Pair, sql: str, values: list[bytes], form: int) -> None:
    for value in values:
        pair.bound(sql, value, form)


def test_a_key_whose_value_another_column_gets_too(pair: Pair) -> None:
    for number in range(1001, 1009):
        pair.bound("INSERT INTO t (g, id) VALUES ($1, $1)", b"%d" % number, 0)
        pair.bound("SELECT * FROM t WHERE id = $1", b"%d" % number, 0)


def test_a_part_may_be_out_of_range_where_the_whole_is_not(pair: Pair) -> None:
    listed = []
    for shard, g in ((0, 30000), (1, -30000)):
        asked = f"/* pgmurmur_shard: {shard} */ SELECT string_agg(id::text, ',') FROM (SELECT id FROM t LIMIT 3) x"
        (ids,) = messages.parse_data_row(pair.node.run(asked).rows[0])
        assert ids is not None
        listed.append(ids.decode())
        pair.check(f"UPDATE t SET g = {g} WHERE id IN ({listed[-1]})", "simple")
    for cast in ("sum(g)::int2", "sum(g)::numeric(3, 0)", "CAST(avg(g) AS numeric(4, 1))", "sum(g)::int2 AS s"):
        for mode in Talker.MODES:
            sql = f"SELECT {cast}, count(*) FROM t WHERE id IN ({', '.join(listed)})"
            assert pair.node.ask(sql, mode=mode).said[-1].tag == "SELECT 1"
            pair.check(sql, mode)


@pytest.mark.parametrize("mode", ["simple", "prepared"])
@pytest.mark.parametrize("table", ["k", "own", "small", "smaller"])
def test_errors_name_the_type_of_the_column(pair: Pair, table: str, mode: str) -> None:
    name = "other.own" if table == "own" else table
    for script in cases.UNREADABLE.strip().splitlines():
        pair.check(script.format(name), mode)
    for value in (b"x", b"70000", b"99999999999999999999", b""):
        pair.bound(f"SELECT * FROM {name} WHERE id = $1", value, 0)
    for value in (b"x", b"70000", b"99999999999999999999"):
        ours, right = (
            client.copy_in(f"COPY {name} FROM STDIN", [value + b"\t1\n"]) for client in (pair.node, pair.plain)
        )
        assert (ours.tag, ours.sqlstate, ours.text) == (right.tag, right.sqlstate, right.text)


@pytest.mark.parametrize("rows", [(2, 2, 0, 0), (0, 0), (1, 0), (9, 1), (3, 1, 1)])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM t WHERE id IN (1, 2, 3, 4) ORDER BY id",
        "SELECT count(*) FROM t",
        "UPDATE t SET g = g + 1 WHERE id IN (1, 2, 3, 4)",
        "UPDATE t SET g = g + 1 WHERE id IN (1, 2, 3, 4) RETURNING 1",
        "INSERT INTO k VALUES (1, 1)",
        "INSERT INTO v VALUES ('new', 1), ('newer', 2), ('newest', 3)",
        "SET bytea_output = 'hex'",
    ],
)
def test_a_portal_that_is_executed_again(pair: Pair, sql: str, rows: tuple[int, ...]) -> None:
    heard = []
    for client in (pair.node, pair.plain):
        client.send(messages.parse(b"", sql.encode()), messages.bind(b"", b"", (), (), ()))
        client.send(*(messages.execute(b"", most) for most in rows), messages.SYNC)
        said: list[tuple[bytes, object]] = []
        while not said or said[-1][0] != b"Z":
            letter, body = client._message()
            told = messages.parse_error(body) if letter == b"E" else {}
            said.append((letter, (told["C"], told["M"]) if told else body))
        heard.append(said)
    assert heard[0] == heard[1]
    for table in ("k", "t", "v"):
        pair.check(f"SELECT * FROM {table}", "simple")


@pytest.mark.parametrize("mode", ["simple", "prepared"])
def test_backslashes_are_refused_while_they_escape(pair: Pair, mode: str) -> None:
    rows = ", ".join(rf"('\14{digit}', 1)" for digit in range(1, 8))
    for sql in (rf"INSERT INTO v VALUES {rows}", r"SELECT * FROM v WHERE name = 'o\156e'"):
        pair.check(f"!SET standard_conforming_strings = off ;; {sql}", mode)
        pair.check(f"!BEGIN ;; SET LOCAL standard_conforming_strings = off ;; {sql}", mode)
        pair.check(f"SET standard_conforming_strings = on ;; {sql}", mode)
    pair.check("SET standard_conforming_strings = off ;; SELECT * FROM v WHERE name = 'one' ;; RESET ALL", mode)


def test_null_may_be_equal_to_null(pair: Pair) -> None:
    pair.check("INSERT INTO v VALUES (NULL, 5)", "simple")
    for sql in ("SELECT * FROM v WHERE name = NULL", "SELECT * FROM v WHERE NULL = name OR name = 'one'"):
        pair.check(f"SET transform_null_equals = on ;; {sql} ;; SET transform_null_equals = off ;; {sql}", "simple")


def test_a_copied_key_goes_where_the_column_keeps_it(pair: Pair) -> None:
    for table, ending, size in (("padded", b" ", 5), ("short", b"    ", 3), ("cut", b"c" * 70, 63)):
        words = [word.encode()[:3] for word in WORDS]
        rows = b"".join(word + ending + b"\t9\n" for word in words)
        for client in (pair.node, pair.plain):
            assert client.copy_in(f"COPY {table} FROM STDIN", [rows]).tag == f"COPY {len(WORDS)}"
        for word in words:
            kept = (word + ending)[:size].decode()
            pair.check(f"SELECT * FROM {table} WHERE name = '{kept}' AND x = 9", "simple")
