"""One try lists everything: what is wrong between entries beside keys that failed, and nothing that only follows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.config.load import parse
from node.config.problems import ConfigError
from node.config.schema import ARRAYS, TABLES, brackets, file_keys

TWO = '[[databases]]\nname = "d"\nhost = "h0"\n[[databases]]\nname = "d"\nhost = "h1"\nshard = 1\n'
RULE = '[[sharded_tables]]\ndatabase = "d"\ncolumn = "id"\n'


def errors(config: str, users: str = "", environ: dict[str, str] | None = None) -> list[str]:
    """Without files and lines."""
    with pytest.raises(ConfigError) as caught:
        parse(config, users, environ or {})
    return [problem.message for problem in caught.value.problems]


def test_every_kind_of_error_comes_at_once() -> None:
    config = (
        "[general]\n"
        'prot = 1\ntls_certificate = "c"\nquery_timeout = "1s"\n'
        "[sync]\ndrain_timeout = 20000\n"
        "[replica_lag]\ncheck_interval = 5\n"
        + TWO
        + '[[databases]]\nname = "d"\nhost = "h2"\nport = "x"\n'
        + '[[databases]]\nname = "d"\nhost = "h3"\n'
        + RULE
        + "mapping = [\n{values = [1, 2.5], shard = 0},\n{values = [1], start = 2, shard = 0},\n"
        + '{values = ["a", "b"], shard = 1},\n{start = 5, end = 4, shard = 1},\n{shard = 9},\n]\n'
        + RULE
        + RULE.replace("id", "other")
        + 'data_type = "vector"\nlookup_result = "shard"\nhasher = 5\ncentroids_path = "p"\n'
        + '[[sharded_mappings]]\ndatabase = "d"\ncolumn = "id"\nkind = "list"\nstart = 7\nshard = 1\n'
        + '[[sharded_schemas]]\ndatabase = "d"\nshard = 7\nnam = "s"\n'
    )
    users = '[[users]]\nnam = "u"\nserver_auth = "rds_iam"\n[[users]]\nname = "v"\nserver_auth = "rds_iam"\n'
    with pytest.raises(ConfigError) as caught:
        parse(config, users, {"PGMURMUR_TLS_VERIFY": "disabled", "PGMURMUR_WORKERS": "many"})
    assert [str(problem) for problem in caught.value.problems] == [
        "environment: PGMURMUR_WORKERS cannot be read: input should be a valid integer, unable to parse string as an "
        "integer",
        'pgdog.toml:2: unknown key "prot" in [general]; did you mean "port"?',
        'pgdog.toml:3: "tls_certificate" needs "tls_private_key"',
        'pgdog.toml:4: "query_timeout" in [general] must be an integer, not a string',
        'pgdog.toml:6: "drain_timeout" must not be longer than "pause_max"',
        'pgdog.toml:7: "check_interval" in [replica_lag] needs "max_age"',
        'pgdog.toml:19: "port" in [[databases]] must be an integer, not a string',
        'pgdog.toml:20: shard 0 of "d" has 2 primaries; two servers that take writes would differ',
        'pgdog.toml:27: "values" in [[sharded_tables.mapping]] must be an integer or a string, not a float',
        'pgdog.toml:28: a mapping entry has either "values" or "start" and "end"',
        "pgdog.toml:29: mapping keys 'a', 'b' are not bigints",
        "pgdog.toml:30: range from 5 to 4 is empty",
        'pgdog.toml:31: database "d" has no shard 9; it has 0, 1',
        'pgdog.toml:33: "id" of any table has two rules',
        'pgdog.toml:40: lookup_result = "shard" excludes mapping, centroids and hasher',
        'pgdog.toml:40: lookup_result = "shard" needs a lookup_query',
        'pgdog.toml:41: "hasher" in [[sharded_tables]] must be one of postgres, sha1',
        'pgdog.toml:46: kind = "list" does not fit the keys given',
        'pgdog.toml:51: database "d" has no shard 7; it has 0, 1',
        'pgdog.toml:52: unknown key "nam" in [[sharded_schemas]]; did you mean "name"?',
        'users.toml:1: [[users]] needs "name"',
        'users.toml:2: unknown key "nam" in [[users]]; did you mean "name"?',
        'users.toml:3: server_auth = "rds_iam" needs TLS towards servers (tls_verify)',
        'users.toml:6: server_auth = "rds_iam" needs TLS towards servers (tls_verify)',
    ]


ALONE = {
    "a database without a name may be the one with the shard": (
        TWO + '[[databases]]\nname = 5\nhost = "h"\nshard = 2\n' + RULE + "mapping = [{shard = 2}]\n",
        1,
    ),
    "a shard that failed may be the one": (
        TWO.replace("shard = 1", "shard = true") + RULE + "mapping = [{shard = 1}]\n",
        1,
    ),
    "a misspelt shard may be the one": (TWO.replace("shard = 1", "shrad = 1") + RULE + "mapping = [{shard = 1}]\n", 1),
    "a misspelt table holds the entry": (
        TWO.replace('[[databases]]\nname = "d"\nhost = "h1"', '[[databses]]\nname = "d"\nhost = "h1"')
        + RULE
        + "mapping = [{shard = 1}]\n",
        1,
    ),
    "an entry that is no table": (
        'databases = [{name = "d", host = "h"}, 5]\n' + RULE + "mapping = [{shard = 1}]\n",
        1,
    ),
    "a table that is no array": ("databases = 5\n" + RULE + "mapping = [{shard = 1}]\n", 1),
    "a misspelt half of a pair": ('[general]\ntls_certificate = "c"\ntls_private_ky = "k"\n', 1),
    "half of a pair in a misspelt table": ('[general]\ntls_certificate = "c"\n[genral]\ntls_private_key = "k"\n', 1),
    "half of a pair of the wrong type": ('[general]\ntls_certificate = "c"\ntls_private_key = 5\n', 1),
    "a data type that failed": (TWO + RULE + 'data_type = "varchr"\nmapping = [{values = ["a"], shard = 0}]\n', 1),
    "a bound that failed": (TWO + RULE + "mapping = [{start = 5, end = 2.5, shard = 0}]\n", 1),
    "a lookup that failed": (TWO + RULE + 'lookup_result = "shard"\nlookup_query = 5\n', 1),
    "a schema whose shard failed": (TWO + '[[sharded_schemas]]\ndatabase = "d"\nshard = "x"\n', 1),
    "two rules whose columns failed": (TWO + 2 * RULE.replace('"id"', "5"), 2),
    "a longest pause that failed": ('[sync]\ndrain_timeout = 20000\npause_max = "1m"\n', 1),
    "a greatest lag that failed": ('[replica_lag]\ncheck_interval = 5\nmax_age = "1m"\n', 1),
    "a role that failed": (
        TWO + '[[databases]]\nname = "d"\nhost = "h2"\nrole = "replca"\n',
        1,
    ),
}


@pytest.mark.parametrize("name", ALONE)
def test_what_only_follows_is_not_said(name: str) -> None:
    config, count = ALONE[name]
    listed = errors(config)
    assert len(listed) == count, listed
    assert all("unknown" in one or "must be" in one for one in listed)


def test_a_broken_file_leaves_nothing_to_contradict() -> None:
    users = '[[users]]\nname = "u"\nserver_auth = "rds_iam"\n'
    assert len(errors("[general\n", users, {"PGMURMUR_TLS_VERIFY": "disabled"})) == 1
    assert len(errors('[general]\ntls_certificate = "c"\n', "[users\n")) == 2


def test_a_table_in_the_wrong_file_is_not_missed_in_its_own() -> None:
    assert errors('[general]\ntls_certificate = "c"\n', '[general]\ntls_private_key = "k"\n') == [
        "[general] belongs in pgdog.toml"
    ]
    wrong_place = '[[databases]]\nname = "d"\nhost = "h"\nshard = 2\n'
    assert errors(TWO + RULE + "mapping = [{shard = 2}]\n", wrong_place) == ["[[databases]] belongs in pgdog.toml"]


def test_a_variable_that_cannot_be_read_is_not_a_missing_key() -> None:
    listed = errors(
        "[sync]\ndrain_timeout = 20000\n[general]\ntls_client_required = true\n", "", {"PGMURMUR_PORT": "x"}
    )
    assert len(listed) == 3


def test_many_keys_of_one_entry_are_one_line() -> None:
    keys = ", ".join(f'"{number}"' for number in range(300))
    assert errors(TWO + RULE + f"mapping = [{{values = [{keys}], shard = 0}}]\n") == [
        "mapping keys '0', '1', '2', '3', '4' and 295 more are not bigints"
    ]


VALUES = st.one_of(
    st.integers(-1, 3),
    st.sampled_from(["", "d", "id", "list", "shard", "vector", "primary", "verify_full"]),
    st.booleans(),
    st.floats(0, 1),
    st.lists(st.one_of(st.integers(0, 2), st.text("ab", max_size=1)), max_size=2),
)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """One table of the files with some of its keys, some of them misspelt, with values of any type."""
    name = draw(st.sampled_from([name for name in TABLES if name != "sharded_tables.mapping"]))
    keys = [*file_keys(name), *(key[:-1] for key in file_keys(name) if len(key) > 4)]
    written = draw(st.dictionaries(st.sampled_from(keys), VALUES, max_size=8))
    if name == "sharded_tables" and draw(st.booleans()):
        written["mapping"] = []
        entry = st.dictionaries(st.sampled_from(["shard", "values", "start", "end", "star"]), VALUES, max_size=3)
        mapping = ", ".join(_inline(one) for one in draw(st.lists(entry, max_size=3)))
        return f"{brackets(name)}\n{_lines(written)}mapping = [{mapping}]\n".replace("mapping = []\n", "", 1)
    return f"{brackets(name if name in ARRAYS else name[: draw(st.integers(-1, 0)) or None])}\n{_lines(written)}"


def _lines(written: dict[str, object]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in written.items())


def _inline(written: dict[str, object]) -> str:
    return "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in written.items()) + "}"


def _header(text: str) -> str:
    """TOML refuses a plain table that stands twice; such a file would say nothing else."""
    return text if text.startswith("[[") else text.partition("\n")[0]


MIXTURE = st.lists(tables(), max_size=6, unique_by=_header)


@settings(max_examples=300, deadline=None)
@given(MIXTURE, MIXTURE)
def test_any_mixture_loads_or_is_refused_with_lines(config: list[str], users: list[str]) -> None:
    texts = {"pgdog.toml": "".join(config), "users.toml": "".join(users)}
    try:
        parse(texts["pgdog.toml"], texts["users.toml"])
    except ConfigError as error:
        lines = {one.file: one.line for one in error.problems if not one.message.startswith("and ")}
    else:
        lines = {}
    assert all(0 < line <= texts[file].count("\n") for file, line in lines.items())
