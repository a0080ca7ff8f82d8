"""COPY both ways over two shards, against one PostgreSQL: the same rows, the same errors, nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from integration.harness import Database, Nodes, connect, sharded_table
from integration.sharded import shard_database, trusting_config, trusting_users

from node.embedded.nodes import NodeProcess
from node.embedded.workspace import Workspace

TABLES = sharded_table("t") + sharded_table("v", "name", "varchar")
DDL = (
    "CREATE TABLE t (id bigint PRIMARY KEY, s text COLLATE \"C\", n int)",
    "CREATE TABLE v (name varchar, x int)",
    "CREATE TABLE k (id int PRIMARY KEY, label text)",
)  # fmt: skip
MEGABYTES = 50


class Both:
    def __init__(self, node: NodeProcess, plain: Database, shards: list[Database]) -> None:
        self.node = node
        self.shards = shards
        self.clients = (connect(node), plain.connect())

    def run(self, sql: str) -> None:
        for client in self.clients:
            client.execute(sql)

    def copy_in(self, sql: str, chunks: list[bytes]) -> list[tuple[str | None, str | None]]:
        """Per client: command tag, SQLSTATE."""
        found = []
        for client in self.clients:
            cursor = client.cursor()
            try:
                with cursor.copy(sql) as copy:
                    for chunk in chunks:
                        copy.write(chunk)
                found.append((cursor.statusmessage, None))
            except psycopg.Error as error:
                found.append((None, error.sqlstate))
        return found

    def copy_out(self, sql: str) -> list[bytes]:
        """Per client: the data, or the SQLSTATE."""
        found = []
        for client in self.clients:
            try:
                with client.cursor().copy(sql) as copy:
                    found.append(b"".join(bytes(piece) for piece in copy))
            except psycopg.Error as error:
                found.append((error.sqlstate or "").encode())
        return found

    def same(self, table: str) -> None:
        ours, right = (
            sorted(map(str, client.execute(f"SELECT * FROM {table} x").fetchall())) for client in self.clients
        )
        assert ours == right


@pytest.fixture(scope="module")
def world(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder: Path = tmp_path_factory.mktemp("copy")
    nodes = Nodes(workspace, folder)
    with shard_database(workspace, "copying") as (_, shards, plain):
        made = Both(nodes(trusting_config(shards, tables=TABLES), trusting_users()), plain, shards)
        for sql in DDL:
            made.run(sql)
        yield made
        for client in made.clients:
            client.close()
        nodes.close()


@pytest.fixture
def both(world: Both) -> Both:
    for sql in ("DELETE FROM t", "DELETE FROM v", "DELETE FROM k"):
        world.run(sql)
    return world


@pytest.mark.parametrize(
    ("sql", "data"),
    [
        ("COPY t FROM STDIN", b"1\ta\t1\n3\t\\N\t2\n-5\tx\\ty\\\\z\t\\N\n"),
        ("COPY t (n, id) FROM STDIN", b"1\t1\n2\t3\n"),
        ("COPY t FROM STDIN", b""),
        ("COPY t FROM STDIN", b"1\ta\t1\n\\.\n"),
        ("COPY t FROM STDIN CSV", b'1,"a,b",1\n3,,2\n4,"",3\n11,"line\nbreak",4\n'),
        ("COPY t FROM STDIN (FORMAT csv, HEADER)", b"id,s,n\n1,a,1\n3,b,2\n"),
        ("COPY t FROM STDIN (FORMAT csv, HEADER false)", b"1,a,1\n3,b,2\n"),
        ("COPY t FROM STDIN (FORMAT csv, HEADER match)", b"id,s,n\n1,a,1\n3,b,2\n"),
        ("COPY t FROM STDIN (FORMAT csv, HEADER match)", b"id,wrong,n\n1,a,1\n"),
        ("COPY t FROM STDIN (FORMAT csv, DELIMITER ';', QUOTE '''', NULL 'nil')", b"1;'a;b';nil\n3;nil;1\n"),
        ("COPY t FROM STDIN (DELIMITER '|', NULL '-')", b"1|a|1\n3|-|-\n"),
        ("COPY t FROM STDIN", b"1\ta\t1\n3\tb\tx\n"),
        ("COPY t FROM STDIN", b"1\ta\t1\n3\tb\t2\n1\tc\t3\n"),
        ("COPY t FROM STDIN", b"x\ta\t1\n"),
        ("COPY t FROM STDIN", b"1\ta\n"),
        ("COPY t FROM STDIN", b"1\ta\t1\t2\n"),
        ("COPY t FROM STDIN", b"\\N\ta\t1\n"),
        ("COPY t FROM STDIN CSV", b'1,"never ends,1\n'),
        ("COPY t FROM STDIN (FORMAT nonsense)", b""),
        ("COPY t (id, nothing) FROM STDIN", b""),
        ("COPY v FROM STDIN", "é\t1\none\t2\n\t3\n123\t4\n".encode()),
        ("COPY v FROM STDIN (ENCODING 'LATIN1')", "é\t1\none\t2\n".encode("latin-1")),
        ("COPY v FROM STDIN", b"\xff\xfe\t1\n"),
        ("COPY k FROM STDIN", b"1\ta\n2\tb\n"),
        ("COPY k FROM STDIN", b"1\ta\n1\tb\n"),
    ],
)
@pytest.mark.parametrize("torn", [1, 1000])
def test_in(both: Both, sql: str, data: bytes, torn: int) -> None:
    chunks = [data[at : at + torn] for at in range(0, len(data), torn)]
    ours, right = both.copy_in(sql, chunks)
    if ours != right and ours[1] == "0A000":
        assert "LATIN1" in sql, f"newly refused: {sql}"
        return
    assert ours == right
    for table in ("t", "v", "k"):
        both.same(table)
    assert both.clients[0].execute("SELECT 1").fetchone() == (1,)


def test_binary_both_ways(both: Both) -> None:
    rows = [(n, f"row {n}" if n % 3 else None, n * 2) for n in range(200)]
    for client in both.clients:
        with client.cursor().copy("COPY t FROM STDIN BINARY") as copy:
            copy.set_types(["int8", "text", "int4"])
            for row in rows:
                copy.write_row(row)
    both.same("t")
    for client in both.clients:
        with client.cursor().copy("COPY t TO STDOUT BINARY") as copy:
            copy.set_types(["int8", "text", "int4"])
            assert sorted(copy.rows()) == rows
        client.execute("DELETE FROM t WHERE id <> 3")
        with client.cursor().copy("COPY t TO STDOUT BINARY") as copy:
            copy.set_types(["int8", "text", "int4"])
            assert list(copy.rows()) == [(3, None, 6)]
        client.execute("DELETE FROM t")
    ours, right = both.copy_out("COPY t TO STDOUT BINARY")
    assert ours == right


@pytest.mark.parametrize(
    "sql",
    [
        "COPY t TO STDOUT",
        "COPY t TO STDOUT CSV",
        "COPY t TO STDOUT (FORMAT csv, HEADER)",
        "COPY t TO STDOUT (FORMAT csv, HEADER false)",
        "COPY t (n, id) TO STDOUT (HEADER true)",
        "COPY (SELECT id, 'header' FROM t) TO STDOUT",
        "COPY (SELECT id FROM t WHERE id = 3) TO STDOUT",
        "COPY k TO STDOUT",
    ],
)
def test_out(both: Both, sql: str) -> None:
    both.run("INSERT INTO t SELECT n, 'row ' || n, n FROM generate_series(1, 20) n")
    both.run("INSERT INTO k VALUES (1, 'a'), (2, 'b')")
    ours, right = both.copy_out(sql)
    # HEADER in text format is refused before PostgreSQL 15
    assert (right == b"0A000") == ("(HEADER true)" in sql and both.shards[0].server.binaries.major < 15)
    assert sorted(ours.splitlines()) == sorted(right.splitlines())
    if "HEADER)" in sql or "HEADER true" in sql:
        assert ours.splitlines()[0] == right.splitlines()[0]


def test_a_client_that_gives_up_leaves_nothing(both: Both) -> None:
    client = both.clients[0]
    with pytest.raises(ValueError, match="enough"), client.cursor().copy("COPY t FROM STDIN") as copy:  # noqa: PT012
        copy.write(b"1\ta\t1\n3\tb\t1\n")
        raise ValueError("enough")
    assert client.execute("SELECT count(*) FROM t").fetchone() == (0,)
    with client.transaction():
        client.execute("INSERT INTO t VALUES (1, 'x', 1)")
        with client.cursor().copy("COPY t FROM STDIN") as copy:
            copy.write(b"3\tb\t1\n2\tc\t1\n")
        assert client.execute("SELECT count(*) FROM t").fetchone() == (3,)
    assert [len(shard.sql("SELECT id FROM t")) for shard in both.shards] == [2, 1]


def _memory(node: NodeProcess) -> int:
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_bounded(both: Both) -> None:
    """A COPY of many megabytes, in and out: the node holds a little of it at a time."""
    client = both.clients[0]
    before = _memory(both.node)
    row = b"\t" + b"x" * 1000 + b"\t1\n"
    with client.cursor().copy("COPY t FROM STDIN") as copy:
        for start in range(0, MEGABYTES * 1000, 100):
            copy.write(b"".join(b"%d" % n + row for n in range(start, start + 100)))
    size = 0
    with client.cursor().copy("COPY t TO STDOUT") as copy:
        for piece in copy:
            size += len(piece)
    assert size > MEGABYTES * 1000 * 1000
    assert client.execute("SELECT count(*) FROM t").fetchone() == (MEGABYTES * 1000,)
    assert _memory(both.node) - before < 24 * 1024
