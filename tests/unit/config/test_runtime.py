"""SHOW CONFIG and SET."""

from __future__ import annotations

import pytest

from node.config.load import parse
from node.config.runtime import human, settable, shown, with_setting
from node.config.words import ReadWriteSplit, Rewrite
from node.errors import ClientFault


def test_rows_of_show_config() -> None:
    rows = dict(shown(parse("[tcp]\ntime = 1500\n[general]\ntls_client_required = false", "").config))
    assert rows["checkout_timeout"] == "5s"
    assert rows["idle_timeout"] == "1m"
    assert rows["server_lifetime"] == "1d"
    assert rows["query_timeout"] == "never"
    assert rows["default_pool_size"] == "10"
    assert rows["pooler_mode"] == "transaction"
    assert rows["tls_certificate"] == "default"
    assert rows["tls_client_required"] == "false"
    assert rows["tcp_time"] == "1500ms"
    assert rows["memory_net_buffer"] == "4096"
    assert rows["sync_register"] == "default"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0ms"), (500, "500ms"), (1000, "1s"), (90_000, "90s"), (7_200_000, "2h"), (61_001, "61001ms")],
)
def test_durations_for_people(value: int, text: str) -> None:
    assert human(value) == text


def test_set_changes_one_thing() -> None:
    config = parse("", "").config
    changed = with_setting(config, "checkout_timeout", "7")
    assert changed.general.checkout_timeout == 7
    assert config.general.checkout_timeout == 5000
    assert changed.general.model_copy(update={"checkout_timeout": 5000}) == config.general


def test_set_reads_words_and_booleans() -> None:
    config = parse("", "").config
    assert with_setting(config, "read_write_split", "exclude_primary").general.read_write_split is (
        ReadWriteSplit.EXCLUDE_PRIMARY
    )
    assert with_setting(config, "cross_shard_disabled", "on").general.cross_shard_disabled is True
    assert with_setting(config, "rewrite_split_inserts", "rewrite").rewrite.split_inserts is Rewrite.REWRITE


def test_set_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ClientFault) as caught:
        with_setting(parse("", "").config, "querry_timeout", "1")
    assert caught.value.sqlstate == "42704"
    assert caught.value.hint == 'did you mean "query_timeout"?'


@pytest.mark.parametrize(("name", "text"), [("query_timeout", "x"), ("auth_type", "none"), ("query_timeout", "-1")])
def test_set_refuses_bad_values(name: str, text: str) -> None:
    with pytest.raises(ClientFault) as caught:
        with_setting(parse("", "").config, name, text)
    assert caught.value.sqlstate == "22023"


def test_every_settable_name_can_be_set() -> None:
    config = parse("", "").config
    for name, (table, field) in settable().items():
        value = getattr(getattr(config, table), field)
        text = "true" if value is None else str(value).lower()
        assert with_setting(config, name, text) is not None
