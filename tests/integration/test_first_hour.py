"""What somebody who knows PostgreSQL and another pooler types in the first hour, against two shards and directly."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator

import psycopg
import psycopg2
import psycopg2.errors
import pytest
from integration.harness import PASSWORD, USER, Database, Nodes, config_toml, connect, databases, raw, sharded_table
from integration.session_cases import INT4PL_OID, function_call
from psycopg import Connection

from node.embedded.nodes import NodeProcess
from node.embedded.server import Server
from node.embedded.workspace import Workspace
from node.wire import messages as m

TABLE = (
    "CREATE TABLE birds (id bigint PRIMARY KEY, name text NOT NULL, weight int CONSTRAINT heavier CHECK (weight < 100))"
)


@pytest.fixture(scope="module")
def node(
    workspace: Workspace, shard_servers: tuple[Server, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NodeProcess]:
    nodes = Nodes(workspace, tmp_path_factory.mktemp("first-hour"))
    with databases(shard_servers) as shards:
        yield nodes(config_toml(shards, tables=sharded_table("birds")))
        nodes.close()


@pytest.fixture
def both(node: NodeProcess, plain: Database) -> Iterator[list[Connection]]:
    """One connection through the node, one to the PostgreSQL that has all rows."""
    with connect(node) as through, plain.connect() as direct:
        for connection in (through, direct):
            connection.execute(TABLE)
            connection.execute("INSERT INTO birds (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        yield [through, direct]
        through.execute("DROP TABLE birds")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO birds (id, name) VALUES (11, 'x'), (12, 'x'), (1, 'again'), (13, 'x')",
        "INSERT INTO birds (id, name) SELECT i, 'many' FROM generate_series(3, 30) AS i",
        "INSERT INTO birds (id, name) VALUES (11, 'x'), (12, NULL), (13, 'x'), (14, 'x')",
        "INSERT INTO birds (id, name, weight) VALUES (11, 'x', 1), (12, 'x', 100), (13, 'x', 1), (14, 'x', 1)",
        "UPDATE birds SET name = NULL WHERE id IN (1, 2, 3)",
    ],
)
def test_an_error_over_several_shards_names_table_column_and_constraint(both: list[Connection], statement: str) -> None:
    """Frameworks tell one unique violation from another by the constraint's name."""
    seen = []
    for connection in both:
        with pytest.raises(psycopg.errors.IntegrityError) as caught:
            connection.execute(statement.encode())
        diag = caught.value.diag
        seen.append(
            (diag.sqlstate, diag.message_primary, diag.schema_name, diag.table_name, diag.column_name)
            + (diag.constraint_name, diag.source_function)
        )
    assert seen[0] == seen[1]
    assert seen[0][3] == "birds"


def test_an_error_in_copied_rows_names_the_constraint_and_no_line_of_a_shard(both: list[Connection]) -> None:
    """A shard counts the lines that it gets."""
    through, direct = both
    names = []
    for connection in (through, direct):
        with (
            pytest.raises(psycopg.errors.UniqueViolation) as caught,
            connection.cursor().copy("COPY birds (id, name) FROM STDIN") as copy,
        ):
            for row in [(21, "x"), (22, "x"), (23, "x"), (2, "again")]:
                copy.write_row(row)
        names.append(caught.value.diag.constraint_name)
        context = caught.value.diag.context
        assert (context is None) if connection is through else (context is not None and "line 4" in context)
    assert names == ["birds_pkey"] * 2


def test_the_client_hears_of_settings_that_changed(both: list[Connection]) -> None:
    """Drivers decode text, times and dates by what ParameterStatus messages say. There were none."""
    seen = []
    for connection in both:
        heard = []
        for statement in (
            "SET timezone = 'Asia/Tokyo'",
            "SET client_encoding = 'LATIN1'",
            "SELECT 1",
            "SELECT count(*) FROM birds",
            "RESET timezone",
            "BEGIN",
            "SET LOCAL datestyle = 'german'",
            "UPDATE birds SET name = 'x'",
            "SAVEPOINT s",
            "SET LOCAL intervalstyle = 'iso_8601'",
            "ROLLBACK TO s",
            "COMMIT",
            "BEGIN",
            "UPDATE birds SET name = 'y' WHERE id = 1",
            "SET standard_conforming_strings = off",
            "ROLLBACK",
            "SET standard_conforming_strings = off; SELECT count(*) FROM birds; SET datestyle = 'sql'",
            "SELECT set_config('timezone', 'Asia/Tokyo', false)",
            "SET bytea_output = 'escape'",
            "RESET ALL",
        ):
            connection.execute(statement.encode())
            heard.append(
                [
                    connection.info.parameter_status(name)
                    for name in (
                        "TimeZone", "client_encoding", "DateStyle", "IntervalStyle", "standard_conforming_strings"
                    )
                ]
            )  # fmt: skip
        seen.append(heard)
    assert seen[0] == seen[1]
    assert seen[1][1][:2] == ["Asia/Tokyo", "LATIN1"]


def test_errors_come_in_the_clients_encoding(both: list[Connection]) -> None:
    """The bytes of a DETAIL were taken for UTF-8, and those of LATIN1 were not any more what the table holds."""
    seen = []
    for connection in both:
        connection.execute("CREATE UNIQUE INDEX ON birds (name, id)")
        connection.execute("ALTER TABLE birds ADD CONSTRAINT vowel CHECK (name <> 'é')")
        connection.execute("SET client_encoding = 'LATIN1'")
        said = []
        for statement in (
            "UPDATE birds SET name = 'é'",
            "SELECT nö FROM birds",
        ):
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(statement.encode("latin-1"))
            said.append((caught.value.diag.message_primary, caught.value.diag.constraint_name))
            said.append("é" in (caught.value.diag.message_detail or ""))
        with (
            pytest.raises(psycopg.errors.CheckViolation) as caught,
            connection.cursor().copy("COPY birds (id, name) FROM STDIN") as copy,
        ):
            copy.write("21\té\n22\té\n23\té\n24\té\n".encode("latin-1"))
        said.append("é" in (caught.value.diag.message_detail or ""))
        seen.append(said)
    assert seen[0] == seen[1]
    assert seen[0][1], "the rows themselves are shown"


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO birds (id, name) VALUES (11, 'é'), (12, 'ü'), (13, 'é'), (14, 'é')",
        "INSERT INTO birds (id, name) SELECT i, 'é' FROM generate_series(11, 20) AS i",
        "INSERT INTO birds (id, name) SELECT id + 10, 'é' || name FROM birds",
    ],
)
def test_an_insert_that_is_rewritten_is_refused_in_another_encoding(both: list[Connection], statement: str) -> None:
    """It was rewritten as UTF-8 and stored as Ã©, without a word."""
    through, _ = both
    through.execute("SET client_encoding = 'LATIN1'")
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="not UTF-8"):
        through.execute(statement.encode("latin-1"))
    through.execute("INSERT INTO birds (id, name) VALUES (11, 'é')".encode("latin-1"))  # goes as it is
    through.execute("UPDATE birds SET name = 'ü'".encode("latin-1"))
    through.execute("SET client_encoding = 'UTF8'")
    through.execute("INSERT INTO birds (id, name) VALUES (12, 'ü'), (13, 'ü'), (14, 'ü'), (15, 'ü')")
    assert through.execute("SELECT DISTINCT name FROM birds").fetchall() == [("ü",)]


def test_text_is_not_ordered_by_the_bytes_of_another_encoding(both: list[Connection]) -> None:
    """ё is behind я in UTF-8 and before а in WIN1251: min, max and ORDER BY of several shards were wrong."""
    through, direct = both
    for connection in both:
        connection.execute("INSERT INTO birds (id, name) VALUES (5, 'а'), (6, 'ё'), (7, 'б'), (8, 'я'), (9, 'Ё')")
    texts = [
        'SELECT name FROM birds ORDER BY name COLLATE "C"',
        'SELECT min(name COLLATE "C"), max(name COLLATE "C") FROM birds',
    ]
    for text in texts:
        assert through.execute(text).fetchall() == direct.execute(text).fetchall()
    for block in (False, True):
        for connection in both:
            connection.execute("BEGIN" if block else "SELECT 1")
            connection.execute("SET client_encoding = 'WIN1251'")
        assert through.execute("SELECT id, name FROM birds ORDER BY id DESC").fetchall() == (
            direct.execute("SELECT id, name FROM birds ORDER BY id DESC").fetchall()
        )
        for connection in both:
            connection.execute("COMMIT" if block else "SELECT 1")
        for text in texts:
            with pytest.raises(psycopg.errors.FeatureNotSupported, match="of text"):
                through.execute(text)
        for connection in both:
            connection.execute("SET client_encoding = 'UTF8'")
    for text in texts:
        assert through.execute(text).fetchall() == direct.execute(text).fetchall()


def test_large_objects_are_refused_and_the_session_goes_on(node: NodeProcess) -> None:
    """libpq uses FunctionCall messages for them; such a message ended the session as an invalid one."""
    where = node.conninfo("flock", USER, PASSWORD)
    with contextlib.closing(psycopg2.connect(where)) as connection, connection.cursor() as cursor:
        for statement in (None, "SELECT 1"):  # the transaction's first message, and one behind a statement
            if statement is not None:
                cursor.execute(statement)
            with pytest.raises(psycopg2.OperationalError, match="not supported on a sharded database"):
                connection.lobject(0, "wb")
            with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
                cursor.execute("SELECT 2")
            connection.rollback()
            cursor.execute("SELECT 3")
            assert cursor.fetchone() == (3,)
            connection.commit()
    asyncio.run(_function_calls(node))


async def _function_calls(node: NodeProcess) -> None:
    async with await raw(node) as client:
        call = function_call(INT4PL_OID, struct.pack("!i", 40), struct.pack("!i", 2))
        client.send(call)
        answer = await client.answer()
        assert [error["C"] for error in answer.errors] == ["0A000"]
        client.send(m.parse(b"", b"nonsense"), call, m.SYNC)  # skipped, as all before a Sync
        answer = await client.answer()
        assert [error["C"] for error in answer.errors] == ["42601"]
        assert (await client.query("SELECT 4")).rows == [(b"4",)]


@pytest.mark.parametrize(
    ("statement", "construct"),
    [
        ("CREATE TEMP TABLE t (i int)", "a temporary table"),
        ("SELECT 1 AS one INTO TEMP t", "a temporary table"),
        ("SELECT pg_advisory_lock(5)", "a session advisory lock"),
        ("SELECT pg_try_advisory_lock(5) FROM birds WHERE id = 1", "a session advisory lock"),
        ("DECLARE c CURSOR WITH HOLD FOR SELECT id FROM birds WHERE id = 1", "a cursor WITH HOLD"),
        ("PREPARE p AS SELECT 1", "PREPARE"),
        ("LISTEN news", "LISTEN"),
    ],
)
def test_what_belongs_to_one_connection_is_refused_by_its_name(
    both: list[Connection], statement: str, construct: str
) -> None:
    through, _ = both
    with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
        through.execute(statement.encode())
    assert caught.value.diag.message_primary == f"{construct} is not supported on a sharded database"
    assert through.execute("SELECT count(*) FROM birds").fetchone() == (3,)
