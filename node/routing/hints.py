"""Where the client itself says where to go: comments, SET, startup parameters.

`/* pgdog_shard: 1 */`, `/* pgdog_sharding_key: "v" */`, `/* pgdog_role: replica */` and the same with pgmurmur_, in any
comment of the statement; the first of each kind wins. `SET pgdog.shard TO 1` and its kin last like any setting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from node.errors import ClientFault
from node.routing.lexed import Lexed

SETTINGS: Final = frozenset(f"{p}.{n}" for p in ("pgdog", "pgmurmur") for n in ("shard", "sharding_key", "role"))
_DIRECTIVE: Final = re.compile(
    rb"""pg(?:dog|murmur)_(shard|sharding_key|role)\s*:\s*(?:"([^"]*)"|'([^']*)'|([^\s,;*]+))"""
)
_ROLES: Final = {"primary": "primary", "replica": "replica", "auto": None}


@dataclass(frozen=True, slots=True)
class Hints:
    """`search_path` matters for sharding by schema only, and only `pgmurmur route` says it here."""

    shard: int | None = None
    sharding_key: str | None = None
    role: str | None = None
    search_path: tuple[str, ...] = ()

    @property
    def directs(self) -> bool:
        return self.shard is not None or self.sharding_key is not None

    def over(self, other: Hints) -> Hints:
        """These hints where they say something, else the other's. A shard here hides a key there."""
        mine = self.directs
        return Hints(
            self.shard if mine else other.shard,
            self.sharding_key if mine else other.sharding_key,
            self.role or other.role,
            self.search_path or other.search_path,
        )


NONE: Final = Hints()


def comment_hints(lexed: Lexed) -> Hints:
    """What the statement's comments say. ClientFault 22023 for a value that makes no sense."""
    if not lexed.comments:
        return NONE
    found: dict[str, str] = {}
    for comment in lexed.comment_texts():
        for match in _DIRECTIVE.finditer(comment):
            value = next(group for group in match.groups()[1:] if group is not None)
            found.setdefault(match[1].decode(), value.decode("utf-8", "replace"))
    return _hints(found) if found else NONE


def setting_hints(settings: Mapping[str, str]) -> Hints:
    """From session settings or startup parameters: keys like `pgdog.shard`."""
    found: dict[str, str] = {}
    for prefix in ("pgmurmur.", "pgdog."):
        for name in ("shard", "sharding_key", "role"):
            value = settings.get(prefix + name)
            if value:
                found.setdefault(name, value)
    path = settings.get("search_path", "")
    return _hints(found, search_path_names(path)) if found or path else NONE


def search_path_names(path: str) -> tuple[str, ...]:
    """`"$user", Public, "Odd"` → ("$user", "public", "Odd")."""
    names = re.findall(r'"((?:[^"]|"")*)"|([^\s,"]+)', path)
    return tuple(quoted.replace('""', '"') if quoted else bare.lower() for quoted, bare in names)


def _hints(found: Mapping[str, str], search_path: tuple[str, ...] = ()) -> Hints:
    shard: int | None = None
    if "shard" in found:
        if not found["shard"].isdecimal() or len(found["shard"]) > 6:
            raise _wrong("shard", found["shard"], "a shard number")
        shard = int(found["shard"])
    role = found.get("role")
    if role is not None:
        if role.lower() not in _ROLES:
            raise _wrong("role", role, "primary, replica or auto")
        role = _ROLES[role.lower()]
    return Hints(shard, None if shard is not None else found.get("sharding_key"), role, search_path)


def _wrong(name: str, value: str, wanted: str) -> ClientFault:
    return ClientFault(f'invalid value for "pgmurmur.{name}": "{value}"', sqlstate="22023", detail=f"expected {wanted}")
