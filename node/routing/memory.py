"""What was found out about one statement, under each map and catalogue that is in use. ◆

Databases share statements: two of them that say the same text must not forget for each other what was learned. A new
map or catalogue of a database takes the place of its old one.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from node.routing.catalog import Catalog
    from node.routing.topology import Topology

DATABASES_MAX: Final = 16  # whose findings are kept beside each other; the oldest go first

T = TypeVar("T")


class ByDatabase(Generic[T]):
    """Findings that depend on topology and catalogue."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Topology, Catalog, T]] = {}

    def find(self, topology: Topology, catalog: Catalog) -> T | None:
        kept = self._kept.get(topology.database)
        if kept is None or kept[0] is not topology or kept[1] is not catalog:
            return None
        return kept[2]

    def keep(self, topology: Topology, catalog: Catalog, found: T) -> None:
        self._kept.pop(topology.database, None)
        while len(self._kept) >= DATABASES_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[topology.database] = (topology, catalog, found)

    def __len__(self) -> int:
        return len(self._kept)


class ByCatalog(Generic[T]):
    """Findings that depend on the catalogue only, which does not tell its database: as long as it is in use."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: list[tuple[weakref.ref[Catalog], T]] = []

    def find(self, catalog: Catalog) -> tuple[T] | None:
        for kept, found in self._kept:
            if kept() is catalog:
                return (found,)
        return None

    def keep(self, catalog: Catalog, found: T) -> None:
        used = [pair for pair in self._kept if (known := pair[0]()) is not None and known is not catalog]
        self._kept = [*used[-(DATABASES_MAX - 1) :], (weakref.ref(catalog), found)]

    def __len__(self) -> int:
        return len(self._kept)
