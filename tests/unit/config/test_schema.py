"""The schema against PgDog's reference, which is data in `reference_keys`."""

from __future__ import annotations

import importlib.util
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from pydantic_core import PydanticUndefined

from node.config import schema
from node.config.environment import twins
from node.config.limits import LIMITS
from node.config.runtime import settable
from node.config.setting import Live, about


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_keys", Path(__file__).with_name("reference_keys.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _reference()
KEYS = [(table, key) for table, keys in REFERENCE.TABLES.items() for key in keys]


def field(table: str, key: str) -> Any:
    model = schema.TABLES[table]
    for name, found in model.model_fields.items():
        if schema.file_key(table, name) == key:
            return found
    raise AssertionError(f"{key} is missing in [{table}]")


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_key_of_the_reference_exists_with_its_default(table: str, key: str) -> None:
    expected = REFERENCE.TABLES[table][key]
    found = field(table, key)
    if expected is REFERENCE.REQUIRED:
        assert found.default is PydanticUndefined
    else:
        assert found.default == expected
        assert type(found.default) is type(expected) or isinstance(found.default, StrEnum)


def words_of(annotation: Any) -> tuple[str, ...]:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return tuple(annotation)
    return next((words for part in get_args(annotation) if (words := words_of(part))), ())


@pytest.mark.parametrize(("table", "key"), REFERENCE.WORDS)
def test_words_are_pgdogs_words(table: str, key: str) -> None:
    assert words_of(field(table, key).annotation) == REFERENCE.WORDS[table, key]


def test_keys_beyond_the_reference_are_marked_as_ours() -> None:
    beyond = {
        (table, schema.file_key(table, name))
        for table, model in schema.TABLES.items()
        if table not in ("discovery", "sync", "sharded_tables.mapping")
        for name in model.model_fields
    } - set(KEYS)
    assert beyond == {
        ("general", "lanes"),
        ("general", "coalesce"),
        ("general", "max_client_conn"),
        ("general", "unix_socket_dir"),
        ("general", "exchange_max_bytes"),
        ("databases", "lanes"),
        ("users", "max_client_conn"),
    }
    assert all(about(schema.TABLES[table], key).ours for table, key in beyond)


@pytest.mark.parametrize("table", schema.TABLES)
def test_every_setting_has_a_help_line(table: str) -> None:
    for name, found in schema.TABLES[table].model_fields.items():
        assert found.description, f"{name} in [{table}]"


def test_root_lists_every_table() -> None:
    assert set(schema.Config.model_fields) == {table for table in schema.TABLES if "." not in table}


def test_environment_twins_are_the_references() -> None:
    found = dict(twins("general"))
    expected = {
        key: REFERENCE.ODD_VARIABLES.get(key, "PGDOG_" + key.upper())
        for key in REFERENCE.GENERAL
        if key not in REFERENCE.NO_VARIABLE
    }
    assert found == expected
    assert dict(twins("admin")) == {"password": "PGDOG_ADMIN_PASSWORD"}


def test_admin_set_knows_pgdogs_names() -> None:
    assert set(settable()) == set(REFERENCE.ADMIN_SET)


def test_restart_only_keys_are_the_references() -> None:
    restart = {name for name in REFERENCE.GENERAL if about(schema.General, name).live is Live.RESTART}
    listed = {"host", "port", "workers", "openmetrics_host", "openmetrics_port", "healthcheck_port", "log_level"}
    assert listed <= restart
    assert "shutdown_timeout" not in restart


def test_every_limit_is_positive_and_explained() -> None:
    for name in LIMITS.__dataclass_fields__:
        assert getattr(LIMITS, name) > 0
