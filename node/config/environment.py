"""Settings from the environment.

PGDOG_X only fills a key that the files leave out, as in PgDog, odd names included. PGMURMUR_X goes over the files,
since in a container it is the nearest thing to a command line; pydantic-settings knows how it is called and read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from node.config.positions import Path
from node.config.problems import meant
from node.config.schema import TABLES, General
from node.config.setting import about
from node.config.variables import OPTION_VARIABLES, OTHER_VARIABLES, OWN_PREFIX, PGDOG_PREFIX

ENVIRONMENT = "environment"  # what stands for the file's name in a problem

# PgDog reads these words only; see the reference: the environment knows fewer and other spellings than the file
_SPELLINGS: dict[str, dict[str, str]] = {"connection_recovery": {"rollbackonly": "rollback_only"}}
_SPELLINGS["client_connection_recovery"] = _SPELLINGS["connection_recovery"]


class OwnVariables(General, BaseSettings):
    """[general] as pydantic-settings sees it: PGMURMUR_PORT and so on."""

    model_config = SettingsConfigDict(strict=False, env_prefix=OWN_PREFIX, extra="ignore", frozen=True)


def own_values(environ: Mapping[str, str]) -> dict[str, Any]:
    """Raw values of [general] from PGMURMUR_ variables; an empty variable counts as absent."""
    source = EnvSettingsSource(OwnVariables)
    source.env_vars = {name.lower(): value for name, value in environ.items() if value != ""}
    found: dict[str, Any] = source()
    return found


def twins(table: str) -> Iterator[tuple[str, str]]:
    """(field, PgDog's variable) of a table."""
    for name in TABLES[table].model_fields:
        declared = about(TABLES[table], name)
        if declared.variable:
            yield name, declared.variable
        elif table == "general" and declared.variable is None and not declared.ours:
            yield name, PGDOG_PREFIX + name.upper()


class Applied:
    """Outcome of laying the environment over the tables; `origin` tells which variable set a key, `lost` which keys
    have no value because their variable cannot be read."""

    def __init__(self) -> None:
        self.lost: set[Path] = set()
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.origin: dict[tuple[str, str], str] = {}


def apply(data: dict[str, Any], environ: Mapping[str, str]) -> Applied:
    """Puts what the environment says into the raw tables (changed in place)."""
    applied = Applied()
    for table in ("general", "admin", "otel"):
        given = data.get(table, {})
        if not isinstance(given, dict):
            continue  # `general = 5`: validation says so
        for name, variable in twins(table):
            text = environ.get(variable, "")
            if text and name not in given:
                word = _SPELLINGS.get(name, {}).get(text.lower(), text)
                _put(data, table, name, variable, word, applied, required=False)
    password = environ.get(OWN_PREFIX + "ADMIN_PASSWORD")
    if password:
        _put(data, "admin", "password", OWN_PREFIX + "ADMIN_PASSWORD", password, applied, required=True)
    for name, value in own_values(environ).items():
        _put(data, "general", name, OWN_PREFIX + name.upper(), value, applied, required=True)
    applied.warnings.extend(_unknown(environ))
    return applied


def _put(
    data: dict[str, Any], table: str, name: str, variable: str, value: Any, applied: Applied, *, required: bool
) -> None:
    """One value, read leniently: a variable is always text. Ours must be right; a wrong one of PgDog's is left out."""
    model: type[BaseModel] = TABLES[table]
    try:
        read = getattr(model.model_validate({name: value}, strict=False), name)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        message = f"{variable} cannot be read: {reason[:1].lower()}{reason[1:]}"
        if required:
            applied.errors.append(message)
            applied.lost.add((table, name))
        else:
            applied.warnings.append(f"{message}; the default is used")
        return
    target = data.get(table)
    if not isinstance(target, dict):
        target = data[table] = {}
    target[name] = read
    applied.origin[table, name] = variable


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    """Warnings about PGMURMUR_ variables that nothing reads: a typing error would pass unseen."""
    known = OPTION_VARIABLES | OTHER_VARIABLES | {OWN_PREFIX + name.upper() for name in General.model_fields}
    suggestions = {name.lower(): name for name in known}
    for name in sorted(environ):
        if name.startswith(OWN_PREFIX) and name not in known:
            hint = meant(name, suggestions)
            for lower, written in suggestions.items():
                hint = hint.replace(f'"{lower}"', f'"{written}"')
            yield f"unknown variable {name}{hint}"
