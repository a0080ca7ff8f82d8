"""What can still be said about files with errors.

A configuration that failed validation is put together again without the values that failed, so that the checks between
entries run on the rest and everything wrong is listed in one go. A missing value is not a default: whoever reads it
gets `Unread`, and a check that needs it stays silent instead of complaining about its absence.

A *lost* path names a value that failed or that nobody could read: a key, known or not, a whole entry, a whole table.
An index beyond the end of an array stands for an entry that was meant to be there (`[[databses]]`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from functools import cache
from typing import Any

from pydantic import BaseModel, create_model

from node.config.positions import Path
from node.config.schema import ARRAYS, TABLES, Config


def salvage(data: Mapping[str, Any], lost: Iterable[Path]) -> Config:
    """The merged tree `data` without what is lost. Everything else in it must be valid."""
    found = _Salvage(lost).table(Config, data, ())
    assert isinstance(found, Config)
    return found


class _Salvage:
    def __init__(self, lost: Iterable[Path]) -> None:
        self.lost = frozenset(lost)
        self.touched = {path[:length] for path in self.lost for length in range(1, len(path) + 1)}

    def table(self, model: type[BaseModel], raw: Mapping[str, Any], path: Path) -> BaseModel:
        kept: dict[str, Any] = {}
        unread = []
        for name, field in model.model_fields.items():
            key = field.alias or name
            here = (*path, key)
            table = ".".join(part for part in here if isinstance(part, str))
            if here in self.lost or (here in self.touched and table not in TABLES):
                unread.append(name)
            elif here in self.touched and table in ARRAYS:
                kept[key] = self.entries(TABLES[table], raw.get(key) or (), here)
            elif here in self.touched:
                kept[key] = self.table(TABLES[table], raw.get(key) or {}, here)
            elif key in raw:
                kept[key] = raw[key]
        return _without(_lenient(model).model_validate(kept), unread)

    def entries(self, model: type[BaseModel], raw: Iterable[Any], path: Path) -> tuple[Any, ...]:
        found: list[Any] = []
        for index, entry in enumerate(raw):
            here = (*path, index)
            if here in self.lost:
                found.append(_blank(model))
            else:
                found.append(self.table(model, entry, here) if here in self.touched else entry)
        meant = [part for part in self.lost if len(part) == len(path) + 1 and part[:-1] == path]
        found += [_blank(model) for one in meant if isinstance(one[-1], int) and one[-1] >= len(found)]
        return tuple(found)


def _blank(model: type[BaseModel]) -> BaseModel:
    """An entry of which nothing is known but that it is there."""
    return _without(_lenient(model)(), list(model.model_fields))


def _without(value: BaseModel, names: list[str]) -> BaseModel:
    for name in names:
        value.__dict__.pop(name, None)
    return value


@cache
def _lenient(model: type[BaseModel]) -> type[BaseModel]:
    """The same table with no key required."""
    free: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        if field.is_required():
            optional = copy(field)
            optional.default = None
            free[name] = (field.annotation, optional)
    return create_model(model.__name__, __base__=model, **free) if free else model
