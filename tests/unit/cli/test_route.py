"""`pgmurmur route`: one line per statement, without a server."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from node import cli

CONFIG = """
[[databases]]
name = "shop"
host = "h0"
[[databases]]
name = "shop"
host = "h1"
shard = 1
[[databases]]
name = "shop"
host = "h2"
shard = 2
[[sharded_tables]]
database = "shop"
name = "customers"
column = "id"
[[sharded_tables]]
database = "shop"
name = "orders"
column = "customer_id"
[[omnisharded_tables]]
database = "shop"
tables = ["countries"]
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "c.toml").write_text(CONFIG)
    (tmp_path / "u.toml").write_text("")
    return ["--config", str(tmp_path / "c.toml"), "--users", str(tmp_path / "u.toml")]


def route(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], sql: str) -> list[list[str]]:
    (tmp_path / "q.sql").write_text(sql)
    assert cli.main(["route", "--database", "shop", *files, str(tmp_path / "q.sql")], {}) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return [line.split("\t") for line in captured.out.splitlines()]


# bigint 1 and 3 live on shards 2 and 1 of three (hashes in the reference)
CASES = [
    ("SELECT * FROM customers WHERE id = 1", "2", "direct"),
    ("SELECT * FROM customers WHERE id = 3", "1", "direct"),
    ("SELECT * FROM orders WHERE customer_id IN (1, 3)", "1,2", "pushdown"),
    ("SELECT * FROM orders", "all", "pushdown"),
    ("SELECT count(*) FROM orders", "all", "merge"),
    ("INSERT INTO customers (id) VALUES (3)", "1", "direct"),
    ("INSERT INTO customers (id) VALUES (1), (3)", "1,2", "split"),
    ("CREATE INDEX ON orders (customer_id)", "all", "ddl"),
    ("/* pgdog_shard: 1 */ SELECT 1", "1", "direct"),
    ("SELECT 'a;b' FROM customers WHERE id = 1 -- ; no", "2", "direct"),
    ("SELEC 1", "error", "refused"),
    ("/* pgdog_shard: 1 */ SELEC 1", "1", "direct"),
    ("/* pgdog_shard: x */ SELECT 1", "error", "refused"),
    ("/* pgdog_shard: 9 */ SELECT 1", "error", "refused"),
]


@pytest.mark.parametrize(("sql", "shards", "road"), CASES)
def test_where_a_statement_goes(
    sql: str, shards: str, road: str, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = route(files, tmp_path, capsys, sql)
    assert line[:2] == [shards, road]
    assert len(line) == 3
    assert line[2]


def test_one_line_per_statement_whatever_is_between(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = (
        "-- customers\nSELECT 1 FROM customers WHERE id = 1;\n\n;; /* nothing */ ;\nSELEC;SELECT $$;$$ FROM orders;\n--"
    )
    assert [line[0] for line in route(files, tmp_path, capsys, sql)] == ["2", "error", "all"]


def test_hints_that_were_set_count_until_reset(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = "SET pgdog.shard TO 1; SELECT 1 FROM orders; RESET pgdog.shard; SELECT 1 FROM orders;"
    lines = route(files, tmp_path, capsys, sql)
    assert (lines[1][0], lines[3][0]) == ("1", "all")
    lines = route(
        files, tmp_path, capsys, "SET pgmurmur.shard = 2; SELECT 1 FROM orders; RESET ALL; SELECT 1 FROM orders"
    )
    assert (lines[1][0], lines[3][0]) == ("2", "all")


BY_COLUMN = CONFIG.replace('name = "orders"\n', "")


def test_a_created_table_is_known(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.toml").write_text(BY_COLUMN)
    sql = (
        "CREATE TABLE orders (id bigserial PRIMARY KEY, customer_id bigint NOT NULL, note text DEFAULT 'x');"
        "INSERT INTO orders VALUES (7, 3, 'n'); SELECT count(*) FROM orders; SELECT 1 FROM orders WHERE id = 3"
    )
    lines = route(files, tmp_path, capsys, sql)
    assert [line[:2] for line in lines] == [["all", "ddl"], ["1", "direct"], ["all", "merge"], ["all", "pushdown"]]
    assert not any("assuming" in line[2] for line in lines)


def test_a_table_used_with_the_key_is_assumed_to_have_it(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text(BY_COLUMN)
    lines = route(files, tmp_path, capsys, "SELECT 1 FROM orders WHERE customer_id = 3; SELECT count(*) FROM orders")
    assert [line[:2] for line in lines] == [["1", "direct"], ["all", "merge"]]
    assert all("assuming that orders has customer_id" in line[2] for line in lines)


def test_an_insert_without_columns_is_not_guessed(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text(BY_COLUMN)
    sql = "INSERT INTO orders VALUES (1, 3); SELECT count(*) FROM orders; SELECT 1 FROM orders WHERE customer_id = 3"
    lines = route(files, tmp_path, capsys, sql)
    assert [line[1] for line in lines] == ["refused", "refused", "direct"]
    assert not any("assuming" in line[2] for line in lines)


def test_statements_may_come_from_standard_input(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"SELECT 1 FROM orders")))
    assert cli.main(["route", "--database", "shop", *files], {}) == 0
    assert capsys.readouterr().out.startswith("all\tpushdown\t")


def test_what_cannot_be_asked(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["route", "--database", "shopp", *files, "x"], {}) == 1
    assert 'there is no database "shopp"; did you mean "shop"?' in capsys.readouterr().err
    assert cli.main(["route", "--database", "shop", *files, str(tmp_path / "none.sql")], {}) == 1
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "c.toml").write_text("x = 1\n")
    assert cli.main(["route", "--database", "shop", *files], {}) == 1
    assert capsys.readouterr().err == f'{tmp_path}/c.toml:1: unknown key "x"\n'
