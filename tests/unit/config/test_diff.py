"""Differences by meaning: class, scope and lines for people."""

from __future__ import annotations

import random

import pytest

from node.config.diff import ChangeClass, Difference, diff, routing_digest
from node.config.load import parse
from node.config.schema import Config

BASE = """
[general]
default_pool_size = 5
log_level = "info"
[[databases]]
name = "d"
host = "h0"
[[databases]]
name = "d"
host = "h1"
shard = 1
[[databases]]
name = "d"
host = "r1"
shard = 1
role = "replica"
[[databases]]
name = "other"
host = "h9"
[[sharded_tables]]
database = "d"
name = "t"
column = "id"
mapping = [{values = [1, 2], shard = 0}, {values = [3], shard = 1}, {start = 10, end = 20, shard = 0},
  {start = 20, shard = 1}]
[[sharded_tables]]
database = "d"
name = "s"
column = "key"
data_type = "varchar"
[[omnisharded_tables]]
database = "d"
tables = ["x", "y"]
"""
USERS = '[[users]]\nname = "u"\npassword = "hush"\ndatabases = ["d", "other"]\n'


def load(text: str = BASE, users: str = USERS) -> Config:
    return parse(text, users).config


def changed(old: str, new: str, *, users: bool = False) -> Difference:
    text = USERS if users else BASE
    assert old in text
    after = text.replace(old, new, 1)
    return diff(load(), load(users=after) if users else load(after))


def test_equal_texts_do_not_differ() -> None:
    found = diff(load(), load())
    assert found.empty
    assert (found.change, found.scope) == (ChangeClass.LOCAL, ())


@pytest.mark.parametrize("seed", range(10))
def test_order_means_nothing(seed: int) -> None:
    print("seed", seed)
    blocks = [block for block in BASE.replace("\n[", "\n\0[").split("\0") if block.strip()]
    random.Random(seed).shuffle(blocks)
    reordered = load("".join(blocks))
    assert diff(load(), reordered).empty
    assert routing_digest(load(), "d") == routing_digest(reordered, "d")


def test_order_of_keys_in_a_mapping_means_nothing() -> None:
    mapping = (
        "[{start = 20, shard = 1}, {values = [2], shard = 0}, {start = 10, end = 20, shard = 0},"
        " {values = [3], shard = 1}, {values = [1], shard = 0}]"
    )
    start = BASE.index("[{values")
    end = BASE.index("}]") + 2
    assert diff(load(), load(BASE[:start] + mapping + BASE[end:])).empty


def test_order_of_overlapping_ranges_means_something() -> None:
    one = BASE.replace("start = 20, shard = 1", "start = 15, shard = 1")
    first, second = "{start = 10, end = 20, shard = 0}", "{start = 15, shard = 1}"
    other = one.replace(first, "@").replace(second, first).replace("@", second)
    assert diff(load(one), load(other)).change is ChangeClass.EXCLUSIVE


def test_order_of_rules_for_one_table_means_something() -> None:
    rule = '[[sharded_tables]]\ndatabase = "other"\ncolumn = "{}"\n'
    one = BASE + rule.format("a") + rule.format("b")
    other = BASE + rule.format("b") + rule.format("a")
    assert diff(load(one), load(other)).scope == ("other",)


LOCAL = {
    "log level": ('log_level = "info"', 'log_level = "debug"', "[general] log_level: info -> debug"),
    "namespace of metrics": (
        'log_level = "info"',
        'log_level = "info"\nopenmetrics_namespace = "x"',
        "[general] openmetrics_namespace: default -> x",
    ),
}


@pytest.mark.parametrize("name", LOCAL)
def test_what_nobody_else_notices_is_local(name: str) -> None:
    old, new, line = LOCAL[name]
    found = changed(old, new)
    assert (found.change, found.scope, found.lines) == (ChangeClass.LOCAL, (), (line,))


ROLLING = {
    "pool size": ("default_pool_size = 5", "default_pool_size = 6", "[general] default_pool_size: 5 -> 6"),
    "replica added": (
        '[[databases]]\nname = "other"',
        '[[databases]]\nname = "d"\nhost = "r0"\nrole = "replica"\n[[databases]]\nname = "other"',
        "[[databases]] d shard 0 replica r0 5432: added",
    ),
    "replica moved": ('host = "r1"', 'host = "r2"', "[[databases]] d shard 1 replica r1 5432: removed"),
    "weight": (
        'host = "r1"',
        'host = "r1"\nlb_weight = 5',
        "[[databases]] d shard 1 replica r1 5432 lb_weight: 255 -> 5",
    ),
    "marker": ('column = "id"', 'column = "id"\nprimary = true', "[[sharded_tables]] d t id primary: false -> true"),
    "timeout of sync": ("[general]", "[sync]\npause_max = 20000\n[general]", "[sync] pause_max: 10000 -> 20000"),
}


@pytest.mark.parametrize("name", ROLLING)
def test_what_may_coexist_is_rolling(name: str) -> None:
    old, new, line = ROLLING[name]
    found = changed(old, new)
    assert (found.change, found.scope) == (ChangeClass.ROLLING, ())
    assert line in found.lines


EXCLUSIVE = {
    "primary moved": ('host = "h1"', 'host = "h2"', "primaries"),
    "port of a primary": ('host = "h1"', 'host = "h1"\nport = 5433', "primaries"),
    "database on the server": ('host = "h1"', 'host = "h1"\ndatabase_name = "x"', "primaries"),
    "shard added": (
        '[[databases]]\nname = "other"',
        '[[databases]]\nname = "d"\nhost = "h2"\nshard = 2\n[[databases]]\nname = "other"',
        "shards 2 -> 3, primaries",
    ),
    "key of a list moved": ("values = [3], shard = 1", "values = [3], shard = 0", "shard map"),
    "bound of a range moved": ("start = 20, shard = 1", "start = 21, shard = 1", "shard map"),
    "hasher": ('column = "key"', 'column = "key"\nhasher = "sha1"', "shard map"),
    "column": ('column = "key"', 'column = "kez"', "shard map"),
    "omnisharded": ('tables = ["x", "y"]', 'tables = ["x"]', "omnisharded tables"),
    "schemas": (
        "[[omnisharded_tables]]",
        '[[sharded_schemas]]\ndatabase = "d"\nname = "s"\nshard = 1\n[[omnisharded_tables]]',
        "sharded schemas",
    ),
}


@pytest.mark.parametrize("name", EXCLUSIVE)
def test_what_moves_rows_is_exclusive(name: str) -> None:
    old, new, what = EXCLUSIVE[name]
    found = changed(old, new)
    assert (found.change, found.scope) == (ChangeClass.EXCLUSIVE, ("d",))
    assert found.lines[0] == f'routing of database "d" changes: {what}'


def test_an_omnisharded_list_in_two_entries_is_one_list() -> None:
    split = BASE.replace('tables = ["x", "y"]', 'tables = ["y"]\n[[omnisharded_tables]]\ndatabase="d"\ntables=["x"]')
    assert diff(load(), load(split)).scope == ()


def test_a_database_that_appears_or_goes_is_in_scope() -> None:
    more = BASE + '[[databases]]\nname = "new"\nhost = "h0"\n'
    assert diff(load(), load(more)).scope == ("new",)
    assert 'routing of database "new" changes: new, with 1 shard' in diff(load(), load(more)).lines
    gone = diff(load(more), load())
    assert (gone.change, gone.scope) == (ChangeClass.EXCLUSIVE, ("new",))


def test_secrets_show_only_that_they_changed() -> None:
    found = changed('password = "hush"', 'password = "hush2"', users=True)
    assert found.lines == ("[[users]] u d,other password: (hidden) -> (hidden)",)
    assert found.change is ChangeClass.ROLLING
    rotated = changed('password = "hush"', 'passwords = ["hush", "hush2"]', users=True)
    assert not any("hush" in line for line in rotated.lines)


def test_restart_only_keys_are_told() -> None:
    found = changed('log_level = "info"', "port = 1")
    assert "[general] port takes effect when a node restarts" in found.restart
    assert changed("default_pool_size = 5", "").restart == ()


def test_the_most_careful_change_decides() -> None:
    found = diff(load(), load(BASE.replace('"debug"', '"info"').replace("= 5\n", "= 6\n").replace('"h1"', '"h2"')))
    assert found.change is ChangeClass.EXCLUSIVE
    assert len(found.lines) >= 4


def test_tables_that_come_and_go() -> None:
    assert diff(load(), load(BASE + "[multi_tenant]\ncolumn = 'c'\n")).lines == ("[multi_tenant] added",)


def test_old_and_new_form_of_a_mapping_route_alike() -> None:
    old = BASE.replace("{start = 20, shard = 1}]", "]") + (
        '[[sharded_mappings]]\ndatabase = "d"\ntable = "t"\ncolumn = "id"\nkind = "range"\nstart = 20\nshard = 1\n'
    )
    assert routing_digest(load(), "d") == routing_digest(load(old), "d")


def test_no_database_has_no_digest() -> None:
    assert routing_digest(load(), "nowhere") == ""
    assert routing_digest(load(), "d") != routing_digest(load(), "other")
