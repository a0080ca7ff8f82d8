"""Through a node over two shards, and on one PostgreSQL with all rows: the same answer, or a refusal that is listed."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration import sharded_cases as cases
from integration.harness import Nodes, sharded_table
from integration.sharded import Talker, difference, shard_database, trusting_config, trusting_users

from node.embedded.workspace import Workspace

REFUSED = ("0A000", "58000")
# Every script runs in every mode when asked to; else each in one of them, in turn.
ALL_MODES = bool(os.environ.get("PGMURMUR_ALL_MODES"))


class Oracle:
    """`node` is the client under test, `plain` the one that is right; `databases` are all three, each by itself."""

    def __init__(self, node: Talker, plain: Talker, databases: list[Talker]) -> None:
        self.node, self.plain, self.databases = node, plain, databases

    def restore(self) -> None:
        for database in self.databases:
            database.run(cases.RESTORE)

    def end(self) -> None:
        for client in (self.node, self.plain):
            client.ask("ROLLBACK")
            client.run("DISCARD ALL")

    def tidy(self) -> None:
        self.end()
        for client in (self.node, self.plain):
            for sql in cases.DROP:
                client.ask(sql)

    def check(self, script: str, mode: str, *, ordered: bool, refused: bool) -> None:
        """Runs the script; a refusal, which leaves nothing behind, ends it."""
        for sql in map(str.strip, script.split(";;")):
            ours, right = self.node.ask(sql, mode=mode), self.plain.ask(sql, mode=mode)
            failed = next((said for said in ours.said if said.sqlstate), None)
            found = difference(ours, right, ordered=ordered)
            if found is not None and failed is not None and failed.sqlstate in REFUSED:
                assert refused, f"newly refused, {failed.text}: {script}"
                self.node.ask("ROLLBACK")
                assert self.node.ask("SELECT 1").said[0].tag == "SELECT 1"
                return
            assert found is None, f"{mode}: {sql}\nof {script}\n{found}"
        assert not refused, f"not refused any more: {script}"

    def check_contents(self, script: str) -> None:
        for name in cases.CONTENTS:
            sql = f"SELECT * FROM {name} x"
            found = difference(self.node.ask(sql), self.plain.ask(sql), ordered=False)
            assert found is None, f"{name} after {script}\n{found}"


@pytest.fixture(scope="module")
def oracle(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    folder: Path = tmp_path_factory.mktemp("sharded")
    nodes = Nodes(workspace, folder)
    tables = "".join(sharded_table(name, column, kind, lines=lines) for name, column, kind, lines in cases.SHARDED)
    with shard_database(workspace, "sharded") as (server, shards, plain):
        started = nodes(trusting_config(shards, tables=tables), trusting_users())
        made = Oracle(
            Talker(started.host, started.port, "flock"),
            Talker(server.host, server.port, plain.name),
            [Talker(server.host, server.port, database.name) for database in (*shards, plain)],
        )
        for sql in (cases.TABLES + ";;" + cases.FILL).replace(";\n", ";;").split(";;"):
            if sql.strip():
                made.node.run(sql.strip())
                made.plain.run(sql.strip())
        for database in made.databases:
            database.run(cases.SAVE)
        yield made
        for client in (made.node, made.plain, *made.databases):
            client.close()
        nodes.close()


def _scripts(text: str) -> list[tuple[str, bool, bool]]:
    """Script, are its rows in order, is it refused."""
    found = []
    for line in filter(None, text.strip().splitlines()):
        refused = line.startswith("!")
        ordered = not line.lstrip("!").startswith("~")
        found.append((line.lstrip("!~"), ordered, refused))
    return found


def _modes(number: int) -> tuple[str, ...]:
    return Talker.MODES if ALL_MODES else (Talker.MODES[number % len(Talker.MODES)],)


def test_reads(oracle: Oracle) -> None:
    oracle.restore()
    for script, ordered, refused in _scripts(cases.READS):
        for mode in Talker.MODES:
            oracle.check(script, mode, ordered=ordered, refused=refused)
    oracle.check_contents("reads")


def test_writes_and_transactions(oracle: Oracle) -> None:
    for number, (script, ordered, refused) in enumerate(_scripts(cases.WRITES)):
        for mode in _modes(number):
            oracle.restore()
            oracle.check(script, mode, ordered=ordered, refused=refused)
            if not refused:
                oracle.check_contents(script)
            if "CREATE" in script or "ALTER" in script:
                oracle.tidy()
            else:
                oracle.end()


def test_several_statements_in_one_query(oracle: Oracle) -> None:
    for script, ordered, refused in _scripts(cases.SEVERAL):
        oracle.restore()
        oracle.check(script, "simple", ordered=ordered, refused=refused)
        oracle.node.ask("ROLLBACK")
        oracle.plain.ask("ROLLBACK")
        oracle.check_contents(script)
    oracle.tidy()


_INT8 = 20


@pytest.mark.parametrize("mode", ["extended", "prepared"])
@pytest.mark.parametrize(("sql", "parameters", "types"), cases.PARAMETERS)
def test_parameters(
    oracle: Oracle, sql: str, parameters: tuple[bytes | None, ...], types: tuple[int, ...], mode: str
) -> None:
    oracle.restore()
    ours = oracle.node.ask(sql, parameters, mode, types)
    right = oracle.plain.ask(sql, parameters, mode, types)
    found = difference(ours, right, ordered="ORDER BY" in sql)
    assert found is None, found
    oracle.check_contents(sql)


# {i}: an integer, {s}: a string, {n}: a number with a fraction
LITERALS = (
    "SELECT id, name FROM t WHERE id > {i} AND name <> {s} ORDER BY id LIMIT {i}",
    "SELECT line + {i}, {s}, amount * {n} FROM o ORDER BY 1 DESC, tid LIMIT {i} OFFSET {i}",
    "SELECT g, count(*), sum(g * {i}), max(name) FROM t WHERE name < {s} OR n > {n} GROUP BY g ORDER BY 1 LIMIT {i}",
    "SELECT coalesce(sum(amount), {n}), round(avg(amount), {i}) FROM o WHERE line < {i} AND note > {s}",
    "SELECT DISTINCT g + {i} FROM t WHERE id IN ({i}, {i}, 42, 11, 4) ORDER BY 1",
    "SELECT t.id, o.amount FROM t JOIN o ON t.id = o.tid WHERE o.amount < {n} ORDER BY t.id, o.line OFFSET {i}",
)


@pytest.mark.parametrize("template", LITERALS)
def test_one_shape_with_many_literals(oracle: Oracle, template: str) -> None:
    """Each text after the second is answered by what the first two taught."""
    oracle.restore()
    chosen = random.Random(template)
    pools = {
        "{i}": ("0", "1", "2", "3", "007", "42"),
        "{n}": ("0.5", "1.", ".25", "2e1"),
        "{s}": ("'a'", "''", "'it''s'", "E'\\t'", "$$x$$", "'é'"),
    }
    for turn in range(10):
        sql = "".join(chosen.choice(pools[part]) if part in pools else part for part in re.split(r"(\{.\})", template))
        for mode in Talker.MODES if turn < 2 else ("simple",):
            oracle.check(sql, mode, ordered=True, refused=False)


def test_what_only_newer_servers_read_is_for_them_to_judge(oracle: Oracle) -> None:
    oracle.restore()
    for bound in ("LIMIT 0x3", "LIMIT 0b11 OFFSET 1", "OFFSET 1_0", "LIMIT 0o7 OFFSET 0x1"):
        for query in ("SELECT id FROM t ORDER BY id", "SELECT g, count(*) FROM t GROUP BY g ORDER BY g"):
            for mode in Talker.MODES:
                oracle.check(f"{query} {bound}", mode, ordered=True, refused=False)
