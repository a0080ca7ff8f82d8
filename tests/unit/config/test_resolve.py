"""Precedence: users over databases over general; whose credentials a server sees."""

from __future__ import annotations

from node.config.load import parse
from node.config.resolve import (
    PoolSettings,
    databases_of,
    find_user,
    pool_settings,
    pooler_mode,
    rules,
    server_credentials,
    user_rules,
)
from node.config.schema import Config
from node.config.words import PoolerMode, PreparedStatements


def load(general: str = "", database: str = "", user: str = "", *, role: str = "primary") -> Config:
    return parse(
        f'[general]\n{general}\n[[databases]]\nname = "d"\nhost = "h"\nrole = "{role}"\n{database}\n',
        f'[[users]]\nname = "u"\npassword = "p"\ndatabase = "d"\n{user}\n',
    ).config


def settings(general: str = "", database: str = "", user: str = "", *, role: str = "primary") -> PoolSettings:
    config = load(general, database, user, role=role)
    return pool_settings(config, config.users[0], config.databases[0])


def test_general_is_the_ground() -> None:
    found = settings("default_pool_size = 7\nmin_pool_size = 2\nidle_timeout = 5")
    assert (found.pool_size, found.min_pool_size, found.idle_timeout) == (7, 2, 5)


def test_databases_go_over_general_and_users_over_both() -> None:
    general, database, user = "default_pool_size = 7", "pool_size = 8", "pool_size = 9"
    assert settings(general, database).pool_size == 8
    assert settings(general, database, user).pool_size == 9
    assert settings(general, "", user).pool_size == 9


def test_the_role_beats_the_generic_key_of_its_level() -> None:
    database = "pool_size = 8\npool_size_replica = 3\nidle_timeout_primary = 4"
    assert settings("", database).pool_size == 8
    assert settings("", database).idle_timeout == 4
    assert settings("", database, role="replica").pool_size == 3
    assert settings("", database, role="replica").idle_timeout == 60_000
    assert settings("", database, "pool_size = 9", role="replica").pool_size == 9
    assert settings("", database, "pool_size = 9\npool_size_replica = 1", role="replica").pool_size == 1


def test_a_minimum_is_never_above_the_pool() -> None:
    assert settings("default_pool_size = 3\nmin_pool_size = 5").min_pool_size == 3


def test_jitter_is_never_above_the_lifetime() -> None:
    assert settings("server_lifetime = 10\nserver_lifetime_jitter = 50").server_lifetime_jitter == 10


def test_optional_settings_come_from_the_nearest_level_that_has_them() -> None:
    assert settings().statement_timeout is None
    assert settings("", "statement_timeout = 5\nread_only = true", "lock_timeout = 6").statement_timeout == 5
    found = settings("", "statement_timeout = 5\nread_only = true", "statement_timeout = 6\nread_only = false")
    assert (found.statement_timeout, found.read_only) == (6, False)


def test_session_mode_disables_prepared_statements() -> None:
    assert settings().prepared_statements is PreparedStatements.EXTENDED
    assert settings("", "", 'pooler_mode = "session"').prepared_statements is PreparedStatements.DISABLED


def test_lanes_of_a_database_go_over_general() -> None:
    assert settings("lanes = 4").lanes == 4
    assert settings("lanes = 4", 'lanes = "off"').lanes == "off"


def test_one_mode_for_all_entries_of_a_database() -> None:
    config = parse(
        '[[databases]]\nname = "d"\nhost = "h"\npooler_mode = "session"\n'
        '[[databases]]\nname = "d"\nhost = "i"\nshard = 1\npooler_mode = "statement"\n',
        '[[users]]\nname = "u"\npassword = "p"\ndatabase = "d"\n',
    ).config
    assert {pool_settings(config, config.users[0], entry).pooler_mode for entry in config.databases} == {
        PoolerMode.SESSION
    }
    assert pooler_mode(config, config.users[0], "elsewhere") is PoolerMode.TRANSACTION


# -- credentials ------------------------------------------------------------------------------------------------------


def credentials(database: str = "", user: str = "") -> tuple[str, list[str]]:
    config = load("", database, user)
    found = server_credentials(config.users[0], config.databases[0])
    return found.user, [one.get_secret_value() for one in found.passwords]


def test_servers_see_the_clients_own_credentials_unless_told() -> None:
    assert credentials() == ("u", ["p"])
    assert credentials("", 'passwords = ["q", "r"]') == ("u", ["p", "q", "r"])


def test_server_credentials_of_users_go_over_them() -> None:
    assert credentials("", 'server_user = "s"\nserver_password = "t"') == ("s", ["t"])


def test_credentials_of_the_database_entry_go_over_everything() -> None:
    assert credentials('user = "x"\npassword = "y"', 'server_user = "s"\nserver_password = "t"') == ("x", ["y"])


def test_the_first_entry_may_have_credentials_and_the_second_none() -> None:
    config = parse(
        '[[databases]]\nname = "d"\nhost = "h"\nuser = "x"\npassword = "y"\n'
        '[[databases]]\nname = "d"\nhost = "i"\nshard = 1\n',
        '[[users]]\nname = "u"\npassword = "p"\ndatabase = "d"\n',
    ).config
    first, second = (server_credentials(config.users[0], entry) for entry in config.databases)
    assert (first.user, first.passwords[0].get_secret_value()) == ("x", "y")
    assert (second.user, second.passwords[0].get_secret_value()) == ("u", "p")


def test_credentials_are_not_shown() -> None:
    config = load()
    assert "'p'" not in repr(server_credentials(config.users[0], config.databases[0]))


# -- users ------------------------------------------------------------------------------------------------------------

THREE = "".join(f'[[databases]]\nname = "{name}"\nhost = "h"\n' for name in "abc")


def test_which_databases_a_user_may_enter() -> None:
    users = '[[users]]\nname = "u"\npassword = "p"\n'
    config = parse(
        THREE,
        users
        + 'all_databases = true\ndatabase = "a"\n'
        + users
        + 'databases = ["c", "b", "x"]\ndatabase = "a"\n'
        + users
        + 'database = "a"\n'
        + users,
    ).config
    assert [databases_of(config, user) for user in config.users] == [("a", "b", "c"), ("c", "b"), ("a",), ()]


def test_a_name_may_have_an_entry_per_database() -> None:
    entry = '[[users]]\nname = "u"\npassword = "p{0}"\ndatabase = "{0}"\n'
    config = parse(THREE, entry.format("a") + entry.format("b")).config
    found = find_user(config, "u", "b")
    assert found is config.users[1]
    assert find_user(config, "u", "c") is None
    assert find_user(config, "v", "a") is None


def test_rules_a_user_may_change() -> None:
    config = load("cross_shard_disabled = true\ntwo_phase_commit_auto = true", "", "cross_shard_disabled = false")
    found = user_rules(config, config.users[0])
    assert (found.cross_shard_disabled, found.two_phase_commit, found.two_phase_commit_auto) == (False, False, True)


# -- sharding rules ---------------------------------------------------------------------------------------------------


def test_old_mappings_join_their_table_in_the_order_of_kinds() -> None:
    mapping = '[[sharded_mappings]]\ndatabase = "d"\ncolumn = "id"\ntable = "t"\n'
    config = load(
        "",
        '[[sharded_tables]]\ndatabase = "d"\nname = "t"\ncolumn = "id"\nmapping = [{start = 5, shard = 0}]\n'
        '[[sharded_tables]]\ndatabase = "d"\nname = "other"\ncolumn = "id"\n'
        + mapping
        + 'kind = "default"\nshard = 0\n'
        + mapping
        + 'kind = "list"\nvalues = [1]\nshard = 0\n',
    )
    (first, entries), (second, none) = rules(config, "d")
    assert (first.name, second.name, none) == ("t", "other", ())
    assert [entry.kind for entry in entries] == ["list", "range", "default"]
    assert list(rules(config, "elsewhere")) == []


def test_a_looked_up_configuration_equals_a_fresh_one() -> None:
    config, fresh = load(), load()
    assert find_user(config, "u", "d") is not None
    assert config == fresh
    changed = config.model_copy(update={"users": ()})
    assert find_user(changed, "u", "d") is None
