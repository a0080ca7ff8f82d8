"""Contradictions between entries: errors where routing could be wrong, warnings where PgDog warns."""

from __future__ import annotations

import pytest

from node.auth.scram import ScramVerifier
from node.config.load import parse
from node.config.problems import ConfigError

TWO = '[[databases]]\nname = "d"\nhost = "h0"\n[[databases]]\nname = "d"\nhost = "h1"\nshard = 1\n'  # lines 1-7
RULE = '[[sharded_tables]]\ndatabase = "d"\ncolumn = "id"\n'  # from line 8 when it follows TWO
USER = '[[users]]\nname = "u"\npassword = "p"\ndatabase = "d"\n'


def refused(config: str, users: str = "") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(config, users)
    return [str(problem) for problem in caught.value.problems]


def warned(config: str, users: str = "") -> list[str]:
    return [str(problem) for problem in parse(config, users).warnings]


def test_a_plain_sharded_configuration_is_quiet() -> None:
    assert warned(TWO + RULE, USER) == []


ERRORS = {
    "mapping to a shard nobody has": (
        TWO + RULE + "mapping = [{values = [1], shard = 0},\n{shard = 2}]",
        'pgdog.toml:12: database "d" has no shard 2; it has 0, 1',
    ),
    "old mapping to a shard nobody has": (
        TWO + RULE + '[[sharded_mappings]]\ndatabase = "d"\ncolumn = "id"\nkind = "default"\nshard = 7\n',
        'pgdog.toml:15: database "d" has no shard 7; it has 0, 1',
    ),
    "old mapping of another kind": (
        TWO + RULE + '[[sharded_mappings]]\ndatabase = "d"\ncolumn = "id"\nkind = "list"\nstart = 7\nshard = 1\n',
        'pgdog.toml:14: kind = "list" does not fit the keys given',
    ),
    "schema on a shard nobody has": (
        TWO + '[[sharded_schemas]]\ndatabase = "d"\nname = "s"\nshard = 5\n',
        'pgdog.toml:11: database "d" has no shard 5; it has 0, 1',
    ),
    "schema without a place": (
        TWO + '[[sharded_schemas]]\ndatabase = "d"\nname = "s"\n',
        'pgdog.toml:8: a sharded schema needs either "shard" or all = true',
    ),
    "list and range in one entry": (
        TWO + RULE + "mapping = [{values = [1], start = 2, shard = 0}]",
        'pgdog.toml:11: a mapping entry has either "values" or "start" and "end"',
    ),
    "text key in a bigint mapping": (
        TWO + RULE + 'mapping = [{values = ["1"], shard = 0}]',
        "pgdog.toml:11: mapping key '1' is not a bigint",
    ),
    "key beyond bigint": (
        TWO + RULE + "mapping = [{values = [9223372036854775808], shard = 0}]",
        "pgdog.toml:11: mapping key 9223372036854775808 is not a bigint",
    ),
    "no uuid": (
        TWO + RULE + 'data_type = "uuid"\nmapping = [{values = ["x"], shard = 0}]',
        "pgdog.toml:12: mapping key 'x' is not a uuid",
    ),
    "number in a varchar mapping": (
        TWO + RULE + 'data_type = "varchar"\nmapping = [{start = 1, shard = 0}]',
        "pgdog.toml:12: mapping key 1 is not a varchar",
    ),
    "empty range": (
        TWO + RULE + "mapping = [{start = 5, end = 5, shard = 0}]",
        "pgdog.toml:11: range from 5 to 5 is empty",
    ),
    "lookup that gives shards, with a mapping": (
        TWO + RULE + 'lookup_query = "SELECT 1"\nlookup_result = "shard"\nmapping = [{shard = 0}]',
        'pgdog.toml:12: lookup_result = "shard" excludes mapping, centroids and hasher',
    ),
    "lookup that gives shards, with a hasher": (
        TWO + RULE + 'lookup_query = "SELECT 1"\nlookup_result = "shard"\nhasher = "sha1"',
        'pgdog.toml:12: lookup_result = "shard" excludes mapping, centroids and hasher',
    ),
    "lookup that gives shards, without a query": (
        TWO + RULE + 'lookup_result = "shard"',
        'pgdog.toml:11: lookup_result = "shard" needs a lookup_query',
    ),
    "vector without centroids": (
        TWO + RULE + 'data_type = "vector"',
        'pgdog.toml:8: data_type = "vector" needs centroids or centroids_path',
    ),
    "two rules for one column": (TWO + RULE + RULE, 'pgdog.toml:11: "id" of any table has two rules'),
    "two primaries": (
        TWO + '[[databases]]\nname = "d"\nhost = "h2"\n',
        'pgdog.toml:8: shard 0 of "d" has 2 primaries; two servers that take writes would differ',
    ),
    "old replica lag": (
        "[replica_lag]\ncheck_interval = 5\n",
        'pgdog.toml:1: "check_interval" in [replica_lag] needs "max_age"',
    ),
    "certificate without key": (
        "[general]\ntls_certificate = 'c'\n",
        'pgdog.toml:2: "tls_certificate" needs "tls_private_key"',
    ),
    "TLS required but not possible": (
        "[general]\ntls_client_required = true\n",
        'pgdog.toml:2: "tls_client_required" needs "tls_certificate"',
    ),
    "drain longer than pause": (
        "[sync]\ndrain_timeout = 10001\n",
        'pgdog.toml:2: "drain_timeout" must not be longer than "pause_max"',
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_contradiction_is_an_error(name: str) -> None:
    text, expected = ERRORS[name]
    assert refused(text) == [expected]


@pytest.mark.parametrize("general", ['passthrough_auth = "enabled_plain"', 'tls_verify = "disabled"'])
def test_other_server_logins_need_tls_and_no_passthrough(general: str) -> None:
    listed = refused(TWO + f"[general]\n{general}\n", USER + 'server_auth = "rds_iam"\n')
    assert len(listed) == 1
    assert listed[0].startswith('users.toml:5: server_auth = "rds_iam" needs')


WARNINGS = {
    "gap": (
        '[[databases]]\nname = "d"\nhost = "h"\nshard = 2\n',
        'pgdog.toml:1: database "d" has no entry for shard 0, 1',
    ),
    "target twice": (TWO + TWO, 'pgdog.toml:8: database "d" lists h0:5432 twice as primary'),
    "auto beside fixed roles": (
        '[[databases]]\nname = "d"\nhost = "h"\n[[databases]]\nname = "d"\nhost = "i"\nrole = "auto"\n',
        'pgdog.toml:1: shard 0 of "d" mixes role = "auto" with fixed roles; roles are not detected there',
    ),
    "modes differ": (
        '[[databases]]\nname = "d"\nhost = "h"\n[[databases]]\nname = "d"\nhost = "i"\nshard = 1\n'
        'pooler_mode = "session"\n',
        'pgdog.toml:1: entries of "d" differ in pooler_mode; the first entry\'s mode is used',
    ),
    "rule of an unknown database": (
        TWO + '[[omnisharded_tables]]\ndatabase = "dd"\ntables = ["t"]\n',
        'pgdog.toml:9: there is no database "dd"; did you mean "d"?',
    ),
    "mapping without a table": (
        TWO + '[[sharded_mappings]]\ndatabase = "d"\ncolumn = "x"\nkind = "default"\nshard = 1\n',
        'pgdog.toml:8: no sharded table has the column "x"',
    ),
    "key with two homes": (
        TWO + RULE + "mapping = [{values = [1], shard = 0}, {values = [1], shard = 1}]",
        "pgdog.toml:11: key 1 is mapped to two shards; the first entry wins",
    ),
    "ranges overlap": (
        TWO + RULE + "mapping = [{start = 0, end = 10, shard = 0}, {start = 9, shard = 1}]",
        "pgdog.toml:11: ranges of shards 0 and 1 overlap; the first entry wins",
    ),
    "a wide range around a narrow one": (
        TWO + RULE + "mapping = [{end = 100, shard = 0}, {start = 1, end = 2, shard = 1}]",
        "pgdog.toml:11: ranges of shards 0 and 1 overlap; the first entry wins",
    ),
    "two defaults": (
        TWO + RULE + "mapping = [{shard = 0}, {shard = 1}]",
        "pgdog.toml:11: two default entries; the first one wins",
    ),
    "ban shorter than check": (
        "[general]\nban_timeout = 1000\n",
        "pgdog.toml:1: idle_healthcheck_interval should be shorter than ban_timeout: a ban is lifted by a good check",
    ),
    "session mode": (
        '[general]\npooler_mode = "session"\nprepared_statements = "full"\n',
        'pgdog.toml:3: pooler_mode = "session" disables prepared_statements',
    ),
    "log level": (
        '[general]\nlog_level = "loud"\n',
        'pgdog.toml:2: log_level "loud" is none of trace, debug, info, warn, warning, error, off; info is used',
    ),
    "filter expression": (
        '[general]\nlog_level = "debug,pgdog::net=trace"\n',
        'pgdog.toml:2: of log_level "debug,pgdog::net=trace" only "debug" is used',
    ),
    "console hides a database": (
        '[[databases]]\nname = "admin"\nhost = "h"\n',
        'pgdog.toml:1: database "admin" is hidden by the admin console of that name',
    ),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_something_odd_is_a_warning(name: str) -> None:
    text, expected = WARNINGS[name]
    assert expected in warned(text)


def test_ranges_that_touch_do_not_overlap() -> None:
    text = TWO + RULE + "mapping = [{start = 10, shard = 1}, {end = 0, shard = 0}, {start = 0, end = 10, shard = 0}]"
    assert warned(text) == []


def test_uuid_ranges_compare_as_bytes() -> None:
    low, high = "00000000-0000-0000-0000-00000000000A", "f47ac10b-58cc-4372-a567-0e02b2c3d479"
    text = TWO + RULE + f'data_type = "uuid"\nmapping = [{{start = "{low}", end = "{high}", shard = 0}}]'
    assert warned(text) == []


VERIFIER = str(ScramVerifier.derive("secret", b"0123456789abcdef"))
HASH = f'password_hash = "{VERIFIER}"\n'


def test_centroids_are_arrays_of_numbers_in_an_array() -> None:
    """They were refused as `must be an array, not an array`."""
    text = TWO + RULE + 'data_type = "vector"\ncentroids = [[1.0, 2], [3.5, -4]]\n'
    assert parse(text, "").config.sharded_tables[0].centroids == ((1.0, 2.0), (3.5, -4.0))
    assert all("vector sharding is not built yet" in line for line in warned(text))
    assert refused(text.replace("-4", '"-4"')) == [
        'pgdog.toml:12: "centroids" in [[sharded_tables]] must be a number, not a string'
    ]


USERS = {
    "unknown database": ('[[users]]\nname = "u"\npassword = "p"\ndatabase = "dx"\n', 'names the unknown database "dx"'),
    "no database": ('[[users]]\nname = "u"\npassword = "p"\n', "has no database"),
    "no password": ('[[users]]\nname = "u"\ndatabase = "d"\n', "has no password"),
    "hash only": ('[[users]]\nname = "u"\ndatabase = "d"\n' + HASH, "no server_password"),
    "twice": (USER + USER, 'has several entries for database "d"'),
}


@pytest.mark.parametrize("name", USERS)
def test_users_who_cannot_work_are_warnings(name: str) -> None:
    text, expected = USERS[name]
    assert any(expected in line and line.startswith("users.toml:") for line in warned(TWO, text))


@pytest.mark.parametrize(
    "text",
    [
        VERIFIER,
        "",
        "SCRAM-SHA-256",
        "md5a3556571e93b0d20722ba62be61e8c2d",
        VERIFIER.replace("4096", "0"),
        VERIFIER.replace("4096", "1000000"),
        VERIFIER.replace("4096", "1000001"),
        VERIFIER.replace("$4096", "$-1"),
        VERIFIER[:-4],
        VERIFIER + " ",
        VERIFIER.replace("=", "", 1),
        VERIFIER.replace("MDEyMzQ1Njc4OWFiY2RlZg==", "===="),
        VERIFIER.replace("MDEyMzQ1Njc4OWFiY2RlZg==", "é"),
        VERIFIER.replace("MDEyMzQ1Njc4OWFiY2RlZg==", "!"),
    ],
)
def test_a_hash_is_accepted_here_exactly_if_a_login_can_read_it(text: str) -> None:
    """Files with another one were accepted, and every login of its user ended in a traceback."""
    users = f'[[users]]\nname = "u"\ndatabase = "d"\nserver_password = "s"\npassword_hash = "{text}"\n'
    try:
        ScramVerifier.parse(text)
    except ValueError:
        (said,) = refused(TWO, users)
        assert said.startswith('users.toml:5: "password_hash" in [[users]] must be a SCRAM verifier')
        assert "$4096" not in said  # nor anything else of it
    else:
        assert warned(TWO, users) == []


def test_trust_needs_no_passwords() -> None:
    assert warned(TWO + '[general]\nauth_type = "trust"\n', '[[users]]\nname = "u"\ndatabase = "d"\n') == []
