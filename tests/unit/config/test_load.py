"""Two texts become one configuration, or every error of both with its line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.config.load import Loaded, parse
from node.config.problems import ConfigError, Problem
from node.config.setting import INFINITE
from node.config.words import PoolerMode, Role


def errors(config: str, users: str = "", environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(config, users, environ or {})
    assert caught.value.sqlstate == "F0000"
    return [str(problem) for problem in caught.value.problems]


def warnings(loaded: Loaded) -> list[str]:
    return [str(problem) for problem in loaded.warnings]


DATABASE = '[[databases]]\nname = "a"\nhost = "h"\n'


def test_empty_files_are_the_defaults() -> None:
    config = parse("", "").config
    assert (config.general.port, config.general.query_timeout) == (6432, INFINITE)
    assert config.databases == ()
    assert config.admin.password is None


def test_both_files_make_one_configuration() -> None:
    loaded = parse(
        "[general]\nport = 7_000\n" + DATABASE + 'role = "replica"\npooler_mode = "session"\n',
        '[[users]]\nname = "u"\npassword = "p"\ndatabase = "a"\n',
    )
    assert loaded.warnings == ()
    assert loaded.config.general.port == 7000
    assert loaded.config.databases[0].role is Role.REPLICA
    assert loaded.config.databases[0].pooler_mode is PoolerMode.SESSION
    assert loaded.config.users[0].accepted[0].get_secret_value() == "p"


def test_secrets_are_in_no_repr() -> None:
    config = parse(
        DATABASE + 'password = "hush1"\n[admin]\npassword = "hush2"',
        '[[users]]\nname = "u"\npassword = "hush3"\npasswords = ["hush4"]\nserver_password = "hush5"\n'
        f'password_hash = "SCRAM-SHA-256$4096:hushhush${"a" * 43}=:{"a" * 43}="\ndatabase = "a"\n',
    ).config
    assert "hush" not in repr(config)
    assert "hush" not in str(config)


def test_secrets_are_in_no_error() -> None:
    listed = errors('[admin]\npassword = ["hush"]\n', '[[users]]\nname = "u"\npasword = "hush"\npasswords = "hush"\n')
    assert len(listed) == 3
    assert not any("hush" in line for line in listed)


def test_admin_of_the_users_file_wins_whole() -> None:
    config = parse('[admin]\nname = "x"\npassword = "a"\n', '[admin]\npassword = "b"\n').config
    assert config.admin.name == "admin"
    assert config.admin.password is not None
    assert config.admin.password.get_secret_value() == "b"


CASES = {
    "unknown key": ("[general]\nprot = 1\n", 'pgdog.toml:2: unknown key "prot" in [general]; did you mean "port"?'),
    "unknown key without a neighbour": ("[tcp]\nxyzzy = 1", 'pgdog.toml:2: unknown key "xyzzy" in [tcp]'),
    "unknown table": ("\n[genral]\n", 'pgdog.toml:2: unknown table "genral"; did you mean "general"?'),
    "unknown key at the top": ("prot = 1", 'pgdog.toml:1: unknown key "prot"'),
    "a key that only pgdog's docs know": (
        '[[mirroring]]\nsource_db = "a"\ndestination_db = "b"\nqueue_depth = 1',
        'pgdog.toml:4: unknown key "queue_depth" in [[mirroring]]; did you mean "queue_length"?',
    ),
    "wrong type": ('[general]\nport = "x"', 'pgdog.toml:2: "port" in [general] must be an integer, not a string'),
    "boolean for a number": (
        "[general]\nport = true",
        'pgdog.toml:2: "port" in [general] must be an integer, not a boolean',
    ),
    "number for a boolean": (
        "[general]\ndry_run = 1",
        'pgdog.toml:2: "dry_run" in [general] must be true or false, not an integer',
    ),
    "float for a number": (
        "[general]\nport = 1.0",
        'pgdog.toml:2: "port" in [general] must be an integer, not a float',
    ),
    "date": (
        "[general]\nhost = 1979-05-27",
        'pgdog.toml:2: "host" in [general] must be a string, not a date or time',
    ),
    "too small": ("[general]\nport = -1", 'pgdog.toml:2: "port" in [general] must be at least 0'),
    "too large": ("[general]\nport = 65536", 'pgdog.toml:2: "port" in [general] must be at most 65535'),
    "more than 63 bits": (
        "[general]\nquery_timeout = 9223372036854775808",
        'pgdog.toml:2: "query_timeout" in [general] must be at most 9223372036854775807',
    ),
    "wrong word": (
        '[general]\npooler_mode = "transactoin"',
        'pgdog.toml:2: "pooler_mode" in [general] must be one of transaction, session, statement, not "transactoin"; '
        'did you mean "transaction"?',
    ),
    "wrong lanes": ('[general]\nlanes = "of"', 'pgdog.toml:2: "lanes" in [general] must be "auto", "off" or a number'),
    "missing key": ("\n[[databases]]\nname = 'a'\n", 'pgdog.toml:2: [[databases]] needs "host"'),
    "empty name": ("[[databases]]\nname = ''\nhost = 'h'", 'pgdog.toml:2: "name" in [[databases]] must not be empty'),
    "table for an array": (
        "[databases]\n",
        'pgdog.toml:1: "databases" must be an array of tables: write [[databases]]',
    ),
    "array for a table": ("[[general]]\n", 'pgdog.toml:1: "general" must be a table: write [general]'),
    "value for a table": ("general = 5\n", 'pgdog.toml:1: "general" must be a table: write [general]'),
    "users in the wrong file": ("\n[[users]]\nname = 'u'", "pgdog.toml:2: [[users]] belong in users.toml"),
    "alias and name": (
        "[general]\nmax_pool_size = 1\ndefault_pool_size = 2",
        'pgdog.toml:2: "max_pool_size" is another name for "default_pool_size"; give one of them',
    ),
    "wrong type under an alias": (
        "[general]\nhost = 'h'\nmax_pool_size = 'x'",
        'pgdog.toml:3: "default_pool_size" in [general] must be an integer, not a string',
    ),
    "bad key in a mapping": (
        "[[sharded_tables]]\ndatabase = 'a'\ncolumn = 'id'\nmapping = [\n {values = [1], shard = 0},\n"
        " {vaules = [2], shard = 1},\n]",
        'pgdog.toml:6: unknown key "vaules" in [[sharded_tables.mapping]]; did you mean "values"?',
    ),
    "bad value in a mapping": (
        "[[sharded_tables]]\ndatabase = 'a'\ncolumn = 'id'\n[[sharded_tables.mapping]]\nshard = 0\nvalues = [\n1.5]",
        'pgdog.toml:7: "values" in [[sharded_tables.mapping]] must be an integer or a string, not a float',
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_an_error_names_file_line_and_way_out(name: str, newline: str) -> None:
    text, expected = CASES[name]
    listed = errors(text.replace("\n", newline))
    assert len(listed) == 1
    assert listed[0].startswith(expected)


def test_bad_toml_has_its_line_too() -> None:
    assert errors("[general]\nport = \n")[0].startswith("pgdog.toml:2: ")
    assert errors("a = 1\n[a\n")[0].startswith("pgdog.toml:2: ")
    assert errors("", "x = '''\n\n")[0].startswith("users.toml:")
    assert errors("[a]\nb = 1\nb = 2\n")[0].startswith("pgdog.toml:3: ")


def test_deep_nesting_is_an_error_not_a_crash() -> None:
    for depth in (200, 300, 330, 400, 500, 5000):
        assert len(errors("x = " + "[" * depth + "]" * depth)) == 1


def test_a_byte_order_mark_is_skipped() -> None:
    assert errors("\ufeff[general]\nprot = 1\n")[0].startswith("pgdog.toml:2: ")


def test_all_errors_of_both_files_come_at_once() -> None:
    listed = errors(
        "[general]\nprot = 1\nport = 'x'\n" + DATABASE + "shard = true\n",
        "[[users]]\nnam = 'u'\n[general]\n",
        {"PGMURMUR_MIN_POOL_SIZE": "many"},
    )
    assert [line.partition(": ")[0] for line in listed] == [
        "environment",
        "pgdog.toml:2",
        "pgdog.toml:3",
        "pgdog.toml:7",
        "users.toml:1",
        "users.toml:2",
        "users.toml:3",
    ]


def test_bad_toml_in_one_file_does_not_hide_the_other() -> None:
    listed = errors("[general\n", "[[users]]\npasswort = 'x'\n")
    assert {line.split(":")[0] for line in listed} == {"pgdog.toml", "users.toml"}


def test_errors_are_not_endless() -> None:
    listed = errors("[general]\n" + "".join(f"x{n} = 1\n" for n in range(500)))
    assert len(listed) == 100  # what a verdict carries to the node where ROLLOUT was said
    assert "401 more" in listed[-1]


def test_an_error_reads_as_its_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("x = 1\ny = 2\n", "")
    assert str(caught.value) == 'pgdog.toml:1: unknown key "x"\npgdog.toml:2: unknown key "y"'
    assert caught.value.message == "configuration has 2 errors"
    assert caught.value.detail == str(caught.value)


def test_names_of_the_files_can_be_told() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("x = 1", "", config_name="/etc/p.toml")
    assert str(caught.value.problems[0]).startswith("/etc/p.toml:1: ")


# -- warnings ---------------------------------------------------------------------------------------------------------


def test_a_key_without_a_feature_warns_once() -> None:
    text = DATABASE + "resharding_only = true\n" + DATABASE + "shard = 1\nresharding_only = true\n"
    assert [line for line in warnings(parse(text, "")) if "resharding_only" in line] == [
        'pgdog.toml:4: "resharding_only" in [[databases]] is accepted without effect: resharding is not built yet'
    ]


def test_a_default_that_is_written_out_does_not_warn() -> None:
    assert warnings(parse('[general]\npassthrough_auth = "disabled"\nmirror_queue = 128\n', "")) == []


def test_one_value_of_a_key_may_be_unbuilt() -> None:
    assert warnings(parse('[general]\nlog_format = "json"\n', "")) == []
    listed = warnings(parse('[general]\nlog_format = "json_flattened"\n', ""))
    assert listed == [
        'pgdog.toml:2: log_format = "json_flattened" in [general] is accepted without effect: json is written instead'
    ]


def test_tables_of_the_enterprise_edition_warn_and_load() -> None:
    loaded = parse(
        "[qos]\nenabled = true\nwhatever = 1\n[control]\ntoken = 't'\n[[autodiscovery.databases]]\nx=1\n", ""
    )
    assert len([line for line in warnings(loaded) if "enterprise" in line]) == 3


def test_every_unbuilt_key_exists() -> None:
    from node.config.not_built import NOT_BUILT
    from node.config.schema import TABLES

    for key in NOT_BUILT:
        table, _, rest = key.partition(".")
        assert table in TABLES
        name = rest.partition("=")[0]
        assert not name or name in TABLES[table].model_fields, key


# -- environment ------------------------------------------------------------------------------------------------------


def test_pgdog_variables_fill_only_what_the_files_leave_out() -> None:
    environ = {"PGDOG_PORT": "1", "PGDOG_MIN_POOL_SIZE": "2", "PGDOG_CLIENT_LOG_TIMEOUT": "3", "RUST_LOG": "debug"}
    general = parse("[general]\nport = 9\n", "", environ).config.general
    assert (general.port, general.min_pool_size, general.client_login_timeout) == (9, 2, 3)
    assert general.log_level == "debug"


@pytest.mark.parametrize(("text", "value"), [("YES", True), ("1", True), ("Off", False), ("no", False)])
def test_boolean_variables_take_pgdogs_words(text: str, value: bool) -> None:
    assert parse("", "", {"PGDOG_DRY_RUN": text}).config.general.dry_run is value


def test_an_unreadable_pgdog_variable_is_left_out_with_a_warning() -> None:
    loaded = parse("", "", {"PGDOG_WORKERS": "many"})
    assert loaded.config.general.workers == 2
    assert "PGDOG_WORKERS" in warnings(loaded)[0]


def test_environment_spelling_of_recovery() -> None:
    general = parse("", "", {"PGDOG_CONNECTION_RECOVERY": "rollbackonly"}).config.general
    assert general.connection_recovery == "rollback_only"


def test_own_variables_go_over_the_files() -> None:
    environ = {"PGMURMUR_PORT": "1", "PGMURMUR_LANES": "4", "PGMURMUR_POOLER_MODE": "session", "PGDOG_PORT": "5"}
    general = parse("[general]\nport = 9\n", "", environ).config.general
    assert (general.port, general.lanes, general.pooler_mode) == (1, 4, PoolerMode.SESSION)


def test_an_empty_variable_is_absent() -> None:
    assert parse("", "", {"PGMURMUR_PORT": "", "PGDOG_PORT": ""}).config.general.port == 6432


def test_an_unreadable_own_variable_is_an_error() -> None:
    assert errors("", "", {"PGMURMUR_PORT": "x"})[0].startswith("environment: PGMURMUR_PORT cannot be read")


def test_an_unknown_own_variable_is_a_warning() -> None:
    listed = warnings(parse("", "", {"PGMURMUR_PROT": "1", "PGMURMUR_SEED": "a:1", "PATH": "x"}))
    assert listed == ['environment: unknown variable PGMURMUR_PROT; did you mean "PGMURMUR_PORT"?']


def test_a_contradiction_made_by_a_variable_is_blamed_on_it() -> None:
    listed = errors("", "", {"PGMURMUR_TLS_CERTIFICATE": "c.pem"})
    assert listed == ['environment: PGMURMUR_TLS_CERTIFICATE: "tls_certificate" needs "tls_private_key"']


@pytest.mark.parametrize("name", ["PGDOG_ADMIN_PASSWORD", "PGMURMUR_ADMIN_PASSWORD"])
def test_admin_password_from_the_environment(name: str) -> None:
    password = parse("", "", {name: "s"}).config.admin.password
    assert password is not None
    assert password.get_secret_value() == "s"


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="[]{}=.,\"'#\n abdegilnoprstu_0123456789", max_size=80), st.text(max_size=20))
def test_any_text_loads_or_is_refused_with_lines(config: str, users: str) -> None:
    problems: tuple[Problem, ...] = ()
    try:
        parse(config, users)
    except ConfigError as error:
        problems = error.problems or (Problem("no problem was told", -1, ""),)
    assert all(0 <= one.line <= max(config.count("\n"), users.count("\n")) + 1 for one in problems)
