"""Real drivers and tools, against one shard and against two: they work, and read what they read directly."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
from integration.harness import (
    PASSWORD,
    USER,
    Database,
    Nodes,
    assert_tidy,
    config_toml,
    connect,
    databases,
    sharded_table,
    users_toml,
)
from psycopg import sql

from node.embedded.nodes import NodeProcess
from node.embedded.server import Server
from node.embedded.workspace import Workspace

TABLE = "CREATE TABLE birds (id bigint PRIMARY KEY, name text, weight numeric, hatched date)"
INSERT = "INSERT INTO birds VALUES (%s, %s, %s, %s)"
ROWS = [(number, f"bird {number}", number * 10, f"2026-01-{number + 1:02}") for number in range(20)]


@pytest.fixture(scope="module", params=[1, 2], ids=["one shard", "two shards"])
def shared_node(
    request: pytest.FixtureRequest,
    workspace: Workspace,
    shard_servers: tuple[Server, Server],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[NodeProcess]:
    nodes = Nodes(workspace, tmp_path_factory.mktemp("drivers"))
    with databases(shard_servers) as shards:
        yield nodes(config_toml(shards[: request.param], tables=sharded_table("birds")), users_toml(pool_size=3))
        nodes.close()


@pytest.fixture
def node(shared_node: NodeProcess) -> Iterator[NodeProcess]:
    yield shared_node
    assert_tidy(shared_node)
    with connect(shared_node) as connection:
        connection.execute("DROP TABLE IF EXISTS birds")


def conninfo(where: NodeProcess | Database) -> str:
    return where.conninfo("flock", USER, PASSWORD) if isinstance(where, NodeProcess) else where.conninfo


def same(work: Callable[[str], Any], node: NodeProcess, plain: Database) -> None:
    """The same work, directly and through the node, sees the same."""
    assert work(conninfo(node)) == work(conninfo(plain))


def address(conninfo_text: str) -> dict[str, Any]:
    found = psycopg.conninfo.conninfo_to_dict(conninfo_text)
    return {
        "host": found["host"], "port": int(found["port"]), "user": found["user"], "password": found["password"],
        "database": found["dbname"],
    }  # fmt: skip


# --- psycopg 3 --------------------------------------------------------------------------------------------------------


def psycopg_tour(where: str) -> list[Any]:
    seen: list[Any] = []
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(TABLE)
        with connection.cursor() as cursor:
            cursor.executemany(INSERT, ROWS)
            seen.append(cursor.rowcount)
        for _ in range(8):  # over psycopg's threshold for preparing
            seen.append(connection.execute("SELECT name FROM birds WHERE id = %s", (7,)).fetchall())
        seen.append(connection.execute("SELECT * FROM birds ORDER BY id").fetchall())
        seen.append(connection.execute("SELECT count(*), sum(weight), avg(weight), max(hatched) FROM birds").fetchall())
        seen.append(
            connection.cursor(binary=True)
            .execute("SELECT id, weight FROM birds WHERE id IN (3, 4, 5) ORDER BY id DESC")
            .fetchall()
        )
        with connection.transaction():
            connection.execute("UPDATE birds SET weight = weight + 1")
            with connection.transaction():
                connection.execute("DELETE FROM birds WHERE id > 10")
                raise psycopg.Rollback
        seen.append(connection.execute("SELECT sum(weight) FROM birds").fetchall())
        try:
            with connection.transaction():
                connection.execute(INSERT, ROWS[0])
        except psycopg.errors.UniqueViolation as error:
            seen.append(error.sqlstate)
        with connection.cursor() as cursor, cursor.copy("COPY birds (id, name) FROM STDIN") as copy:
            for number in range(100, 200):
                copy.write_row((number, f"copied\t{number}\n"))
        with connection.cursor() as cursor, cursor.copy("COPY birds TO STDOUT") as copy:
            seen.append(sorted(copy.rows()))
        seen.append(connection.execute("DELETE FROM birds WHERE id >= 100").rowcount)
    with psycopg.connect(where) as connection:  # not in autocommit
        seen.append(connection.execute("SELECT count(*) FROM birds").fetchone())
        connection.execute("DELETE FROM birds")
        connection.rollback()
        seen.append(connection.execute("SELECT count(*) FROM birds").fetchone())
    return seen


def test_psycopg(node: NodeProcess, plain: Database) -> None:
    same(psycopg_tour, node, plain)


def psycopg_pipeline(where: str) -> list[Any]:
    seen: list[Any] = []
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(TABLE)
        with connection.pipeline() as pipeline:
            for row in ROWS:
                connection.execute(INSERT, row)
            cursors = [connection.execute("SELECT name FROM birds WHERE id = %s", (number,)) for number in range(10)]
            pipeline.sync()
            seen += [cursor.fetchall() for cursor in cursors]
        try:
            with connection.pipeline():
                connection.execute("SELECT name FROM birds WHERE id = %s", (1,))
                connection.execute("SELECT nonsense FROM birds WHERE id = %s", (1,))
                connection.execute("SELECT name FROM birds WHERE id = %s", (2,))
        except psycopg.Error as error:
            seen.append(error.sqlstate)
        seen.append(connection.execute("SELECT count(*) FROM birds").fetchall())
    return seen


def test_psycopg_in_pipeline_mode(node: NodeProcess, plain: Database) -> None:
    same(psycopg_pipeline, node, plain)


def test_psycopg_server_cursors_and_notifications(shards: list[Database], plain: Database, node_factory: Nodes) -> None:
    """What lives on one server connection: a database with one shard."""
    node = node_factory(config_toml(shards[:1]), users_toml(pool_size=2))

    def work(where: str) -> list[Any]:
        seen: list[Any] = []
        with psycopg.connect(where) as connection, psycopg.connect(where, autocommit=True) as other:
            with connection.cursor("c") as cursor:
                cursor.itersize = 7
                cursor.execute("SELECT generate_series(1, 30)")
                seen.append([row for (row,) in cursor])
            with connection.cursor("held", withhold=True, scrollable=True) as cursor:
                cursor.execute("SELECT generate_series(1, 30)")
                connection.commit()
                seen.append(cursor.fetchmany(3))
                cursor.scroll(10)
                seen.append(cursor.fetchmany(3))
            connection.commit()
            other.execute("LISTEN news")
            connection.execute("NOTIFY news, 'hello'")
            connection.commit()
            seen += [(n.channel, n.payload) for n in other.notifies(timeout=10, stop_after=1)]
        return seen

    same(work, node, plain)


def test_a_server_cursor_over_one_shard_of_several(node: NodeProcess, plain: Database) -> None:
    """psycopg DECLAREs it and describes the portal of that name. The transaction has used the other shard before."""

    def work(where: str) -> list[Any]:
        seen: list[Any] = []
        with psycopg.connect(where) as connection:
            connection.execute(TABLE)
            with connection.cursor() as cursor:
                cursor.executemany(INSERT, ROWS)
            connection.commit()
            for key in range(4):
                with connection.cursor(f"of_{key}") as cursor:
                    cursor.execute("SELECT id, name FROM birds WHERE id = %s", (key,))
                    assert cursor.description is not None
                    seen += [[column.name for column in cursor.description], cursor.fetchall()]
            with pytest.raises(psycopg.errors.InvalidCursorName) as caught:
                connection.execute("FETCH ALL FROM nobodys")
            seen.append(caught.value.diag.message_primary)
        return seen

    same(work, node, plain)


# --- psycopg 2 --------------------------------------------------------------------------------------------------------


def psycopg2_tour(where: str) -> list[Any]:
    seen: list[Any] = []
    connection = psycopg2.connect(where)
    with connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
    with connection, connection.cursor() as cursor:
        cursor.executemany(INSERT, ROWS)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM birds WHERE id = ANY(%s) ORDER BY id", ([1, 2, 3],))
        seen.append(cursor.fetchall())
        cursor.execute("SELECT count(*) FROM birds WHERE name LIKE 'bird 1%'")
        seen.append(cursor.fetchall())
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("UPDATE birds SET name = 'x'")
            cursor.execute("SELECT nonsense")
    except psycopg2.Error as error:
        seen.append(error.pgcode)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM birds WHERE name = 'x'")
        seen.append(cursor.fetchall())
    connection.close()
    return seen


def test_psycopg2(node: NodeProcess, plain: Database) -> None:
    same(psycopg2_tour, node, plain)


# --- asyncpg ----------------------------------------------------------------------------------------------------------


async def asyncpg_tour(where: str) -> list[Any]:
    seen: list[Any] = []
    connection = await asyncpg.connect(**address(where))
    await connection.execute(TABLE)
    await connection.executemany("INSERT INTO birds (id, name) VALUES ($1, $2)", [(n, f"bird {n}") for n in range(20)])
    statement = await connection.prepare("SELECT name FROM birds WHERE id = $1")
    seen.append([await statement.fetchval(number) for number in range(20)])
    seen.append([tuple(row) for row in await connection.fetch("SELECT id, name FROM birds ORDER BY id")])
    seen.append(tuple(await connection.fetchrow("SELECT id, name FROM birds ORDER BY id DESC")))  # asks for one row
    async with connection.transaction():
        await connection.execute("UPDATE birds SET name = 'robin' WHERE id = $1", 5)
        try:
            async with connection.transaction():
                await connection.execute("DELETE FROM birds")
                raise LookupError
        except LookupError:
            pass
    seen.append(await connection.fetchval("SELECT count(*) FROM birds WHERE name = 'robin'"))
    try:
        await connection.execute("INSERT INTO birds (id) VALUES (1)")
    except asyncpg.UniqueViolationError as error:
        seen.append(error.sqlstate)
    await connection.copy_records_to_table(
        "birds", records=[(n, "copied") for n in range(50, 90)], columns=["id", "name"]
    )
    seen.append(await connection.fetchval("SELECT count(*) FROM birds"))
    await connection.close()
    return seen


def test_asyncpg(node: NodeProcess, plain: Database) -> None:
    same(lambda where: asyncio.run(asyncpg_tour(where)), node, plain)


def test_asyncpg_cursors(shards: list[Database], plain: Database, node_factory: Nodes) -> None:
    node = node_factory(config_toml(shards[:1]), users_toml(pool_size=2))

    async def work(where: str) -> list[Any]:
        seen: list[Any] = []
        connection = await asyncpg.connect(**address(where))
        async with connection.transaction():
            async for row in connection.cursor("SELECT generate_series(1, 120) AS n", prefetch=50):
                seen.append(row["n"])
            cursor = await connection.cursor("SELECT generate_series(1, 10)")
            seen += [list(await cursor.fetch(3)), await cursor.forward(2), list(await cursor.fetch(3))]
        await connection.reset()
        await connection.close()
        return seen

    same(lambda where: asyncio.run(work(where)), node, plain)


# --- programs ---------------------------------------------------------------------------------------------------------


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here (Debian: apt install postgresql-client postgresql-contrib)")
    return found


def run(command: list[str], where: str, folder: Path) -> str:
    a = address(where)
    environment = {
        **os.environ, "PGHOST": a["host"], "PGPORT": str(a["port"]), "PGUSER": a["user"], "PGPASSWORD": a["password"],
        "PGDATABASE": a["database"], "LC_ALL": "C",
    }  # fmt: skip
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


SCRIPT = f"""
{TABLE};
INSERT INTO birds (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c');
SELECT id, name FROM birds ORDER BY id;
\\copy birds (id, name) FROM 'birds.txt'
SELECT count(*) FROM birds;
BEGIN;
UPDATE birds SET name = 'z' WHERE id = 2 RETURNING id, name;
ROLLBACK;
SELECT name FROM birds WHERE id = 2;
\\bind 3
SELECT name FROM birds WHERE id = $1;
SELECT nonsense;
SELECT 'still here';
"""


def test_psql(node: NodeProcess, plain: Database, tmp_path: Path) -> None:
    (tmp_path / "birds.txt").write_text("".join(f"{number}\tbird\n" for number in range(10, 60)))
    (tmp_path / "script.sql").write_text(SCRIPT.replace("\\bind 3\n", "").replace("$1", "3"))
    same(lambda where: run([program("psql"), "-X", "-f", "script.sql"], where, tmp_path), node, plain)


@pytest.mark.parametrize("how", [["-M", "simple"], ["-M", "extended"], ["-M", "prepared"], ["-C"]], ids=" ".join)
def test_pgbench(how: list[str], shards: list[Database], node_factory: Nodes, tmp_path: Path) -> None:
    # one server for each client: pgbench blocks in PQprepare, and its other clients with it
    node = node_factory(config_toml(shards[:1]), users_toml(pool_size=4))
    where = conninfo(node)
    pgbench = program("pgbench")
    run([pgbench, "-i", "-q", "-s", "1", "--no-vacuum"], where, tmp_path)
    number = "10" if how == ["-C"] else "100"
    said = run([pgbench, "-n", "-c", "4", "-t", number, *how], where, tmp_path)
    assert f"{4 * int(number)}/{4 * int(number)}" in said
    with connect(node) as connection:  # TPC-B's own invariant
        totals = [
            connection.execute(
                sql.SQL("SELECT sum({}) FROM {}").format(sql.Identifier(c), sql.Identifier(t))
            ).fetchone()
            for c, t in (
                ("abalance", "pgbench_accounts"),
                ("tbalance", "pgbench_tellers"),
                ("delta", "pgbench_history"),
            )
        ]
    assert len(set(totals)) == 1


def test_pgbench_on_two_shards(shards: list[Database], node_factory: Nodes, tmp_path: Path) -> None:
    node = node_factory(config_toml(shards, tables=sharded_table("birds")), users_toml(pool_size=4))
    where = conninfo(node)
    with connect(node) as connection:
        connection.execute(TABLE)
        connection.execute("INSERT INTO birds (id, weight) SELECT n, 0 FROM generate_series(1, 50) n")
    (tmp_path / "script").write_text(
        "\\set id random(1, 50)\nBEGIN;\nUPDATE birds SET weight = weight + 1 WHERE id = :id;\n"
        "SELECT weight FROM birds WHERE id = :id;\nEND;\n"
    )
    for how in ("simple", "extended", "prepared"):
        run([program("pgbench"), "-n", "-c", "4", "-t", "50", "-M", how, "-f", "script"], where, tmp_path)
    with connect(node) as connection:
        assert connection.execute("SELECT sum(weight)::int FROM birds").fetchone() == (600,)


NODE_SCRIPT = """
const { Client } = require('pg');
(async () => {
  const seen = [];
  const client = new Client(JSON.parse(process.argv[2]));
  await client.connect();
  await client.query(process.argv[3]);
  for (let n = 0; n < 20; n++) await client.query('INSERT INTO birds (id, name) VALUES ($1, $2)', [n, 'bird ' + n]);
  for (let n = 0; n < 5; n++)
    seen.push((await client.query({ name: 'by id', text: 'SELECT name FROM birds WHERE id = $1', values: [n] })).rows);
  seen.push((await client.query('SELECT id, name FROM birds ORDER BY id')).rows);
  try { await client.query('SELECT nonsense'); } catch (error) { seen.push(error.code); }
  await client.query('BEGIN');
  await client.query('DELETE FROM birds WHERE id < 10');
  await client.query('ROLLBACK');
  const counted = 'SELECT count(*) FROM birds WHERE id = $1';
  seen.push((await Promise.all([1, 2, 3].map(n => client.query(counted, [n])))).map(r => r.rows));
  await client.end();
  console.log(JSON.stringify(seen));
})().catch(error => { console.error(error); process.exit(1); });
"""


@pytest.fixture(scope="session")
def node_postgres(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which node.js finds node-postgres."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("node.js and npm are not installed here")
    folder = tmp_path_factory.mktemp("node-postgres")
    try:
        done = subprocess.run(
            [npm, "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(folder), "pg@8"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not install node-postgres (the package pg) within 60 s: no way to its registry from here")
    if done.returncode != 0:
        pytest.skip(f"npm could not install node-postgres (the package pg): {done.stderr.strip()[-200:]}")
    return folder


def test_node_postgres(node: NodeProcess, plain: Database, node_postgres: Path) -> None:
    script = node_postgres / "script.js"
    script.write_text(NODE_SCRIPT)
    same(lambda where: run(["node", str(script), json.dumps(address(where)), TABLE], where, node_postgres), node, plain)
