"""How a setting is declared: one line holds its name, type, default, unit, help and how a change takes effect.

Everybody who needs one of these facts (loader, SHOW CONFIG, admin SET, diff, documentation) reads it from the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_core import PydanticUndefined

INFINITE = 2**63 - 1  # PgDog's "never", in ms, bytes and counts alike

Milliseconds = Annotated[int, Field(ge=0, le=INFINITE)]
Bytes = Annotated[int, Field(ge=0, le=INFINITE)]
Count = Annotated[int, Field(ge=0, le=INFINITE)]
Port = Annotated[int, Field(ge=0, le=65535)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Secret = SecretStr


class Live(StrEnum):
    """How a changed value reaches a running node."""

    RELOAD = "reload"  # the next use reads it
    POOLS = "pools"  # pools whose settings changed are rebuilt; equal addresses keep their connections
    RESTART = "restart"  # only a new process


@dataclass(frozen=True, slots=True)
class About:
    """What a field says about itself beyond pydantic's name, type, default and description."""

    live: Live = Live.RELOAD
    unit: str | None = None
    variable: str | None = None  # full name of PgDog's environment twin
    settable: str | None = None  # its name in the admin command SET
    ours: bool = False  # not in PgDog


class Unread(Exception):
    """A value of a file with errors that failed itself: whatever depends on it cannot be decided."""


class Table(BaseModel):
    """A table of the files: strict types, unknown keys are errors, frozen once read."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    if not TYPE_CHECKING:  # a type checker would take it for permission to read any name

        def __getattr__(self, name: str) -> object:
            """Only asked for what is not there: values that `salvage` left out."""
            if name in type(self).model_fields:
                raise Unread(name)
            return super().__getattr__(name)


class Ignored(BaseModel):
    """A table of PgDog's enterprise edition: read so that the file stays valid, used by nothing."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


_REQUIRED = PydanticUndefined


def setting(
    default: Any = _REQUIRED,
    text: str = "",
    *,
    live: Live = Live.RELOAD,
    unit: str | None = None,
    variable: str | None = None,
    settable: str | None = None,
    ours: bool = False,
    lax: bool = False,
    alias: str | None = None,
) -> Any:
    """One setting. `lax` is for words and lists: TOML has neither enums nor tuples, so a str or list must do.
    `alias` is the key in the files where a field cannot have that name."""
    return Field(
        default,
        description=text,
        strict=False if lax else None,
        alias=alias,
        json_schema_extra=cast("dict[str, Any]", {"about": About(live, unit, variable, settable, ours)}),
    )


def about(model: type[BaseModel], name: str) -> About:
    """The declaration of a field; `KeyError` for a name the table does not have."""
    extra = model.model_fields[name].json_schema_extra
    found = extra.get("about") if isinstance(extra, dict) else None
    return found if isinstance(found, About) else About()


def seconds(milliseconds: int | None) -> float | None:
    """A wait in seconds; None means without end (PgDog writes that as 2^63 - 1)."""
    if milliseconds is None or milliseconds >= INFINITE:
        return None
    return milliseconds / 1000
