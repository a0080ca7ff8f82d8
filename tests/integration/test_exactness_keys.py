"""Which rows a key means, through a node over two shards as on one PostgreSQL: types that change or loosen values,
parameters whose type another place decides, names that mean several tables, rows that come and go unseen.

A script is statements divided by `;;`, asked by simple and by prepared statements. `!` before it: it is
refused, and must leave nothing behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.harness import Nodes, sharded_table
from integration.sharded import Answers, Talker, difference, shard_database, trusting_config, trusting_users

from node.embedded.workspace import Workspace
from node.wire import messages

TABLES = """
CREATE TABLE t (id bigint PRIMARY KEY, g int, n numeric, f float8, word text);
CREATE TABLE v (name varchar, x int);
CREATE TABLE s (name text, x int);
CREATE TABLE short (name varchar(3), x int);
CREATE TABLE padded (name char(5), x int);
CREATE TABLE cut (name name, x int);
CREATE TABLE k (id bigint, x int);
CREATE TABLE above (id bigint, x int);
CREATE TABLE below () INHERITS (above);
CREATE TABLE parted (id bigint, x int) PARTITION BY HASH (id);
CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE ruled (id bigint, x int);
CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO below VALUES (new.x, new.id);
"""
NUMBERED = ("t", "below", "part", "ruled")
NAMED = ("v", "s", "short", "padded", "cut")
SHARDED = dict.fromkeys(NUMBERED, "bigint") | dict.fromkeys(NAMED, "varchar")
LONG = "l" * 65
WORDS = ("one", "two", "three", "four", "five", "six")


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
    tables = "".join(sharded_table(name, "id" if kind == "bigint" else "name", kind) for name, kind in SHARDED.items())
    with shard_database(workspace, "keys") as (server, shards, plain):
        started = nodes(trusting_config(shards, tables=tables), trusting_users())
        made = Pair(
            Talker(started.host, started.port, "flock"),
            Talker(server.host, server.port, plain.name),
        )
        for sql in filter(None, map(str.strip, TABLES.split(";\n"))):
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


MOVES = """
!WITH x AS (UPDATE t SET id = 300 WHERE id = 3 RETURNING *) SELECT * FROM x
!WITH x AS (UPDATE t SET (g, id) = (1, 301) WHERE id = 4 RETURNING *) UPDATE t SET g = 1 WHERE id = 4
!WITH x AS (UPDATE t SET id = 302 WHERE id = 4) DELETE FROM t WHERE id = 4
!WITH x AS (MERGE INTO t USING k ON t.id = k.id WHEN MATCHED THEN UPDATE SET id = 303 RETURNING t.id) SELECT * FROM x
WITH x AS (UPDATE t SET g = 300 WHERE id = 3 RETURNING *) SELECT * FROM x
WITH x AS (UPDATE t SET g = 300 WHERE id = 4 RETURNING *) UPDATE t SET g = 301 WHERE id = 4 RETURNING g
"""


HEIRS = """
INSERT INTO below SELECT i, i FROM generate_series(1, 9) i ;; INSERT INTO part SELECT i, i FROM generate_series(1, 9) i
SELECT * FROM below WHERE id = 3 ;; SELECT * FROM part ORDER BY id
!SELECT * FROM above
!SELECT count(*) FROM above WHERE id = 3
!SELECT count(*) FROM parted WHERE id = 3
!UPDATE above SET x = 0
!INSERT INTO parted VALUES (10, 10)
!INSERT INTO ruled VALUES (3, 4)
!WITH x AS (INSERT INTO ruled VALUES (3, 4) RETURNING *) SELECT * FROM x
!BEGIN ;; DELETE FROM ruled ;; ROLLBACK
SELECT * FROM below ORDER BY id ;; SELECT count(*) FROM ruled
"""


def test_what_reads_or_writes_sharded_tables_unseen_is_refused(pair: Pair) -> None:
    for script in HEIRS.strip().splitlines():
        pair.check(script, "simple")


@pytest.mark.parametrize("mode", ["simple", "prepared"])
def test_no_row_moves_by_a_with(pair: Pair, mode: str) -> None:
    for script in MOVES.strip().splitlines():
        if "MERGE" not in script or pair.plain.major() >= 17:
            pair.check(script, mode)
    pair.check("SELECT * FROM t ORDER BY id", mode)


def test_a_copied_key_goes_where_the_column_keeps_it(pair: Pair) -> None:
    for table, ending, size in (("padded", b" ", 5), ("short", b"    ", 3), ("cut", b"c" * 70, 63)):
        words = [word.encode()[:3] for word in WORDS]
        rows = b"".join(word + ending + b"\t9\n" for word in words)
        for client in (pair.node, pair.plain):
            assert client.copy_in(f"COPY {table} FROM STDIN", [rows]).tag == f"COPY {len(WORDS)}"
        for word in words:
            kept = (word + ending)[:size].decode()
            pair.check(f"SELECT * FROM {table} WHERE name = '{kept}' AND x = 9", "simple")
