"""The console as people and drivers use it, on a real node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import psycopg2
import pytest
from integration.harness import (
    ADMIN_PASSWORD,
    PASSWORD,
    USER,
    Database,
    Nodes,
    config_toml,
    connect,
    users_toml,
    wait_until,
)
from psycopg.rows import dict_row

from node.embedded.binaries import find_program
from node.embedded.nodes import NodeProcess


@pytest.fixture
def node(node_factory: Nodes, shards: list[Database]) -> NodeProcess:
    return node_factory(config_toml(shards[:1]))


@pytest.fixture
def admin(node: NodeProcess) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """psycopg 3 on the console, in autocommit, rows as dictionaries with Python values."""
    with psycopg.connect(conninfo(node), autocommit=True, connect_timeout=10, row_factory=dict_row) as connection:
        yield connection


def conninfo(node: NodeProcess, password: str = ADMIN_PASSWORD) -> str:
    return node.conninfo("admin", "admin", password)


def psql(node: NodeProcess, *commands: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    program = find_program("psql")
    assert program is not None
    url = f"postgres://admin:{ADMIN_PASSWORD}@{node.host}:{node.port}/admin"
    arguments = [part for command in commands for part in ("-c", command)]
    return subprocess.run([program, "-X", "-At", *options, url, *arguments], capture_output=True, text=True, timeout=30)


# --- psql ------------------------------------------------------------------------------------------------------------


def test_psql_shows_and_changes(node: NodeProcess) -> None:
    done = psql(node, "show version", "SHOW PEERS", "RELOAD", "PAUSE; RESUME")
    assert done.returncode == 0, done.stderr
    version, peer, *tags = done.stdout.splitlines()
    assert version.startswith("PgDog v")
    assert peer.split("|")[3:5] == [node.name, "alive"]
    assert tags == ["RELOAD", "PAUSE", "RESUME"]


def test_reload_names_what_only_a_restart_changes(shards: list[Database], node_factory: Nodes) -> None:
    """SHOW CONFIG shows the file's port from then on, and nothing listens there: silence would be a trap."""
    node = node_factory(config_toml(shards[:1]))
    node.config.write_text(config_toml(shards[:1], general='log_format = "json"\nquery_timeout = 5000\n'))
    done = psql(node, "RELOAD", "RELOAD")
    assert done.stdout.split() == ["RELOAD", "RELOAD"]
    assert done.stderr.splitlines() == ["NOTICE:  [general] log_format takes effect when a node restarts"]


@pytest.mark.parametrize("command", ["SELECT 1", "\\d", "\\l", "SHOW 'x"])
def test_psql_gets_a_clean_error_and_goes_on(node: NodeProcess, command: str) -> None:
    done = psql(node, command, "SHOW INSTANCE_ID")
    assert "syntax error in admin command" in done.stderr
    assert done.stdout.strip() == node.name


def test_psql_sees_the_columns_of_every_view(node: NodeProcess) -> None:
    views = ("CLIENTS", "SERVERS", "POOLS", "CONFIG", "STATS", "PEERS", "PREPARED", "QUERY_CACHE", "REPLICATION",
             "LISTS", "BANS", "ROLLOUT", "TRANSACTIONS", "MIRRORS", "LISTENERS", "TASKS")  # fmt: skip
    done = psql(node, *(f"SHOW {view}" for view in views), options=("-v", "ON_ERROR_STOP=1"))
    assert done.returncode == 0, done.stderr


# --- drivers ---------------------------------------------------------------------------------------------------------


def test_psycopg_gets_python_values(node: NodeProcess, admin: psycopg.Connection[dict[str, Any]]) -> None:
    with connect(node) as client:
        client.execute("SELECT 1")
        for binary in (False, True):
            (pool,) = admin.execute("SHOW POOLS", binary=binary).fetchall()
            assert (pool["database"], pool["user"], pool["shard"]) == ("flock", USER, 0)
            assert pool["healthy"] is True
            assert isinstance(pool["id"], int)
            (one,) = admin.execute("SHOW CLIENTS", binary=binary, prepare=True).fetchall()
            assert (one["user"], one["locked"]) == (USER, False)
            assert one["queries"] >= 1
            (server,) = admin.execute("SHOW SERVERS", binary=binary).fetchall()
            assert server["pool_id"] == pool["id"]
            assert server["application_name"].startswith(f"pgmurmur/{node.name}/")


def test_psycopg_needs_no_autocommit_and_may_use_parameters(node: NodeProcess) -> None:
    with psycopg.connect(conninfo(node), connect_timeout=10) as connection:
        connection.execute("SHOW QUERY_CACHE %s", ["nothing like this"])
        with pytest.raises(psycopg.errors.ProtocolViolation, match="syntax error in admin command"):
            connection.execute("SELECT %s", [1])
        connection.rollback()
        assert connection.execute("SHOW INSTANCE_ID").fetchone() == (node.name,)
        connection.commit()


def test_psycopg_hears_notices(node: NodeProcess, admin: psycopg.Connection[dict[str, Any]]) -> None:
    heard: list[str] = []
    admin.add_notice_handler(lambda notice: heard.append(notice.message_primary or ""))
    admin.execute("SHOW no_such_thing")
    assert heard == ['the console knows no setting "no_such_thing"']


def test_psycopg2_needs_no_autocommit(node: NodeProcess) -> None:
    connection = psycopg2.connect(conninfo(node), connect_timeout=10)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("SHOW VERSION")
            assert cursor.fetchone()[0].startswith("PgDog v")
            cursor.execute("SHOW QUERY_CACHE %s", ("it's",))
        with pytest.raises(psycopg2.Error) as caught, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        assert caught.value.pgcode == "08P01"
        connection.rollback()
        connection.set_client_encoding("UTF8")
    finally:
        connection.close()


async def test_asyncpg_fetches_and_pools(node: NodeProcess) -> None:
    options: dict[str, Any] = {
        "host": node.host, "port": node.port, "user": "admin", "password": ADMIN_PASSWORD, "database": "admin",
    }  # fmt: skip
    connection = await asyncpg.connect(**options)
    try:
        (pool,) = await connection.fetch("SHOW POOLS")
        assert (pool["database"], pool["paused"], pool["sv_active"]) == ("flock", False, 0)
        assert await connection.execute("MAINTENANCE ON") == "MAINTENANCE ON"
        assert await connection.execute("MAINTENANCE OFF") == "MAINTENANCE OFF"
        assert await connection.fetchval("SHOW INSTANCE_ID") == node.name
        assert await connection.fetch("SHOW QUERY_CACHE $1", "nothing") == []
        with pytest.raises(asyncpg.PostgresError, match="syntax error in admin command"):
            await connection.fetch("SELECT 1")
    finally:
        await connection.close()
    async with asyncpg.create_pool(**options, min_size=1, max_size=1) as consoles:
        for _ in range(2):
            assert await consoles.fetchval("SHOW server_version") == "18.0"


def test_a_wrong_password_and_a_wrong_user_are_told_alike(node: NodeProcess) -> None:
    said = set()
    for user, password in (("admin", "wrong"), ("nobody", "wrong")):
        with pytest.raises(psycopg.OperationalError) as caught:
            psycopg.connect(node.conninfo("admin", user, password), connect_timeout=10)
        said.add(str(caught.value).replace(user, "USER"))
    assert len(said) == 1


# --- what the commands do ---------------------------------------------------------------------------------------------


def asks_in_the_background(node: NodeProcess) -> tuple[threading.Thread, list[object]]:
    answers: list[object] = []

    def ask() -> None:
        with connect(node) as client:
            answers.append(client.execute("SELECT 42").fetchone())

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    return thread, answers


@pytest.mark.parametrize(("stop", "go"), [("PAUSE", "RESUME"), ("MAINTENANCE ON flock", "MAINTENANCE OFF flock")])
def test_a_pause_holds_new_transactions_and_lets_running_ones_end(
    node: NodeProcess, admin: psycopg.Connection[dict[str, Any]], stop: str, go: str
) -> None:
    with connect(node) as client, client.transaction():
        client.execute("SELECT 1")
        admin.execute(stop.encode())
        thread, answers = asks_in_the_background(node)
        wait_until(lambda: len(admin.execute("SHOW CLIENTS").fetchall()) == 2, "the second client is in")
        wait_until(lambda: "waiting" in {row["state"] for row in admin.execute("SHOW CLIENTS").fetchall()}, "it waits")
        assert client.execute("SELECT 2").fetchone() == (2,)
    assert answers == []
    admin.execute(go.encode())
    thread.join(10)
    assert answers == [(42,)]


def test_reconnect_replaces_server_connections(node: NodeProcess, admin: psycopg.Connection[dict[str, Any]]) -> None:
    with connect(node) as client:
        (before,) = client.execute("SELECT pg_backend_pid()").fetchone() or (0,)
        admin.execute("RECONNECT")
        (after,) = client.execute("SELECT pg_backend_pid()").fetchone() or (0,)
    assert before != after


def test_ban_healthcheck_and_probe(
    node: NodeProcess, admin: psycopg.Connection[dict[str, Any]], shards: list[Database]
) -> None:
    (pool,) = admin.execute("SHOW POOLS").fetchall()
    admin.execute(f"BAN {pool['id']}".encode())
    (ban,) = admin.execute("SHOW BANS").fetchall()
    assert (ban["id"], ban["ban_time_left"]) == (pool["id"], None)
    admin.execute("UNBAN")
    assert admin.execute("SHOW BANS").fetchall() == []
    assert admin.execute("HEALTHCHECK").statusmessage == "HEALTHCHECK"
    server = shards[0].server
    url = f"postgres://{USER}:{PASSWORD}@{server.host}:{server.port}/{shards[0].name}"
    row = admin.execute(f"PROBE {url}".encode()).fetchone()
    assert row is not None
    assert 0 <= row["latency"] < 5000
    with pytest.raises(psycopg.Error) as caught:
        admin.execute(f"PROBE {url.replace(PASSWORD, 'wrong')}".encode())
    assert caught.value.sqlstate == "28P01"
    assert admin.execute("SHOW INSTANCE_ID").fetchone() == {"instance_id": node.name}


def test_set_changes_what_show_config_shows(node: NodeProcess, admin: psycopg.Connection[dict[str, Any]]) -> None:
    admin.execute("SET default_pool_size TO 7")
    shown = {row["name"]: row["value"] for row in admin.execute("SHOW CONFIG").fetchall()}
    assert shown["default_pool_size"] == "7"
    with pytest.raises(psycopg.errors.UndefinedObject):
        admin.execute("SET defualt_pool_size TO 7")


def test_shutdown_ends_the_node(node: NodeProcess, admin: psycopg.Connection[dict[str, Any]]) -> None:
    admin.execute("SHUTDOWN")
    wait_until(lambda: not node.running, "the node has ended")


# --- the flock -------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(node_factory: Nodes, shards: list[Database]) -> list[NodeProcess]:
    text = config_toml(shards[:1])
    first = node_factory(text, name="north", flock="admin")
    others = [
        node_factory(text, name=name, flock="admin", options=("--seed", first.gossip)) for name in ("south", "west")
    ]
    nodes = [first, *others]
    wait_until(
        lambda: all([row["state"] for row in node.ask("SHOW PEERS")] == ["alive"] * 3 for node in nodes),
        "every node sees all three",
        20,
    )
    return nodes


def rollout(node: NodeProcess, config: Path, *options: str, users: Path | None = None) -> tuple[int, dict[str, Any]]:
    """`pgmurmur rollout --json`: its status and its object."""
    files = ["--config", str(config), *(("--users", str(users)) if users is not None else ())]
    done = subprocess.run(
        [sys.executable, "-m", "node", "rollout", *files, "--host", node.host, "--port", str(node.port), "--json",
         *options],
        capture_output=True, text=True, timeout=90,
        env={**os.environ, "PGPASSWORD": ADMIN_PASSWORD, "PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=config.parent,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_cluster_asks_every_node(three: list[NodeProcess]) -> None:
    found = three[1].ask("CLUSTER SHOW INSTANCE_ID")
    assert sorted((row["node"], row["instance_id"]) for row in found) == [
        (name, name) for name in ("north", "south", "west")
    ]
    assert [row["node"] for row in three[0].ask("CLUSTER MAINTENANCE ON")] == ["north", "south", "west"]
    waiting = [asks_in_the_background(node) for node in three]
    three[2].ask("CLUSTER MAINTENANCE OFF")
    for thread, answers in waiting:
        thread.join(10)
        assert answers == [(42,)]


def test_a_rollout_through_any_node_reaches_all(
    three: list[NodeProcess], shards: list[Database], tmp_path: Path
) -> None:
    new = tmp_path / "new.toml"
    new.write_text(config_toml(shards, general="query_timeout = 12345\n"))
    before = three[0].ask("SHOW ROLLOUT")[0]["id"]
    status, report = rollout(three[1], new, "--dry-run")
    assert status == 0, report
    assert three[0].ask("SHOW ROLLOUT")[0]["id"] == before
    status, report = rollout(three[1], new, users=None)
    assert (status, report["outcome"], report["version"]) == (0, "committed", 2), report
    assert [(one["node"], one["version"], one["ack"]) for one in report["nodes"]] == [
        (name, 2, True) for name in ("north", "south", "west")
    ]
    for node in three:
        shown = {row["name"]: row["value"] for row in node.ask("SHOW CONFIG")}
        assert shown["query_timeout"] == "12345ms"
        wait_until(
            lambda node=node: {row["version"] for row in node.ask("SHOW PEERS")} == {"2"}, "gossip has told everybody"
        )
        assert {(row["phase"], row["version"]) for row in node.ask("SHOW ROLLOUT")} == {("committed", "2")}


def test_a_document_that_does_not_validate_changes_nothing(
    three: list[NodeProcess], shards: list[Database], tmp_path: Path
) -> None:
    new = tmp_path / "new.toml"
    new.write_text(config_toml(shards, general="qurey_timeout = 1\npooler_mode = 'sometimes'\n"))
    before = wait_until(
        lambda: rows if len(rows := three[0].ask("SHOW ROLLOUT")) == len(three) else None, "every member has a seat", 20
    )
    status, report = rollout(three[2], new)
    assert (status, report["outcome"], report["nodes"]) == (1, "aborted", []), report
    assert "qurey_timeout" in report["reason"]
    assert "pooler_mode" in report["reason"], "all errors at once"
    assert three[0].ask("SHOW ROLLOUT") == before


def test_reload_in_a_flock_points_to_rollout(three: list[NodeProcess]) -> None:
    done = psql(three[0], "RELOAD")
    assert "ROLLOUT" in done.stderr
    assert done.stdout.strip() == "RELOAD"


def test_users_that_change_are_rolled_out_too(three: list[NodeProcess], shards: list[Database], tmp_path: Path) -> None:
    new, users = tmp_path / "new.toml", tmp_path / "new_users.toml"
    new.write_text(config_toml(shards[:1]))
    users.write_text(
        users_toml() + f'\n[[users]]\nname = "newcomer"\npassword = "nest"\ndatabase = "flock"\n'
        f'server_user = "{USER}"\nserver_password = "{PASSWORD}"\n'
    )
    status, report = rollout(three[0], new, "--watch", users=users)
    assert status == 0, report
    with psycopg.connect(three[2].conninfo("flock", "newcomer", "nest"), connect_timeout=10) as client:
        assert client.execute("SELECT current_user").fetchone() == (USER,)
