"""The configuration as the console shows and changes it: SHOW CONFIG, SET.

Names and spelling as PgDog's console: keys of [general] plain, then tcp_ and memory_; durations humanised.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, SecretStr, ValidationError

from node.config.problems import meant
from node.config.schema import TABLES, Config
from node.config.setting import INFINITE, About, about
from node.errors import ClientFault

_SHOWN = (("general", ""), ("tcp", "tcp_"), ("memory", "memory_"), ("discovery", "discovery_"), ("sync", "sync_"))
_DURATIONS = ("_timeout", "_interval", "_delay", "_time", "_lifetime")
_STEPS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"))


def shown(config: Config) -> Iterator[tuple[str, str]]:
    """(name, value) of every row of SHOW CONFIG, in PgDog's order; secrets and paths of keys stay as written."""
    for table, prefix in _SHOWN:
        values = getattr(config, table)
        for name, field in TABLES[table].model_fields.items():
            yield prefix + (field.alias or name), _text(prefix + name, getattr(values, name))


def _text(name: str, value: object) -> str:
    match value:
        case None:
            return "default"
        case bool():
            return "true" if value else "false"
        case SecretStr():
            return "(hidden)"
        case int() if name.endswith(_DURATIONS):
            return human(value)
        case tuple():
            return ", ".join(map(str, value))
    return str(value)


def human(milliseconds: int) -> str:
    """`5s`, `1m`, `500ms`: the largest unit that leaves no rest."""
    if milliseconds >= INFINITE:
        return "never"
    for size, unit in _STEPS:
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"


def settable() -> dict[str, tuple[str, str]]:
    """Admin SET's names -> (table, field)."""
    found: dict[str, tuple[str, str]] = {}
    for table in ("general", "rewrite"):
        for name in TABLES[table].model_fields:
            declared: About = about(TABLES[table], name)
            if declared.settable:
                found[declared.settable] = (table, name)
    return found


def with_setting(config: Config, name: str, text: str) -> Config:
    """The configuration after `SET name TO text`; in memory only, the files do not change.

    Raises `ClientFault` 42704 for a name SET does not know, 22023 for a value it cannot have. (PgDog answers an
    unknown name with success; a change that did not happen must not look like one.)
    """
    names = settable()
    if name not in names:
        raise ClientFault(
            f'unrecognized configuration parameter "{name}"',
            sqlstate="42704",
            hint=meant(name, names).removeprefix("; ") or None,
        )
    table, field = names[name]
    model: type[BaseModel] = TABLES[table]
    try:
        value = getattr(model.model_validate({field: text}, strict=False), field)
    except ValidationError as error:
        reason = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise ClientFault(
            f'invalid value for parameter "{name}"', sqlstate="22023", detail=reason[:1].lower() + reason[1:]
        ) from None
    changed = getattr(config, table).model_copy(update={field: value})
    return config.model_copy(update={table: changed})
