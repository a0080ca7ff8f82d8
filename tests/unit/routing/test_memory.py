"""What was found out about a statement is kept for each database that asks, for its last map, within a limit."""

from __future__ import annotations

import gc
from dataclasses import replace

from unit.routing.worlds import CATALOG, FOUR

from node.routing.catalog import Catalog
from node.routing.memory import DATABASES_MAX, ByCatalog, ByDatabase
from node.routing.topology import Topology


def test_databases_do_not_forget_for_each_other() -> None:
    kept = ByDatabase[str]()
    other = replace(FOUR, database="other")
    kept.keep(FOUR, CATALOG, "four")
    kept.keep(other, Catalog.EMPTY, "other")
    assert kept.find(FOUR, CATALOG) == "four"
    assert kept.find(other, Catalog.EMPTY) == "other"


def test_a_new_map_or_catalog_takes_the_place_of_the_old_one() -> None:
    kept = ByDatabase[str]()
    kept.keep(FOUR, CATALOG, "old")
    for topology, catalog in ((replace(FOUR), CATALOG), (FOUR, replace(CATALOG))):
        assert kept.find(topology, catalog) is None
        kept.keep(topology, catalog, "new")
        assert kept.find(topology, catalog) == "new"
        assert len(kept) == 1
    assert kept.find(FOUR, CATALOG) is None


def test_the_oldest_of_too_many_databases_goes_first() -> None:
    kept = ByDatabase[int]()
    topologies = [Topology(f"d{n}", 2) for n in range(DATABASES_MAX + 3)]
    for n, topology in enumerate(topologies):
        kept.keep(topology, CATALOG, n)
    assert len(kept) == DATABASES_MAX
    assert [kept.find(topology, CATALOG) for topology in topologies[:4]] == [None, None, None, 3]


def test_findings_of_a_catalog_are_told_apart_from_none_and_bounded() -> None:
    kept = ByCatalog[str | None]()
    catalogs = [replace(CATALOG) for _ in range(DATABASES_MAX + 2)]
    for at, catalog in enumerate(catalogs):
        kept.keep(catalog, None if at % 2 else str(at))
    assert len(kept) == DATABASES_MAX
    assert [kept.find(catalog) for catalog in catalogs[:4]] == [None, None, ("2",), (None,)]
    kept.keep(catalogs[5], "five")
    assert kept.find(catalogs[5]) == ("five",)
    assert len(kept) == DATABASES_MAX


def test_a_catalog_out_of_use_is_not_held() -> None:
    kept = ByCatalog[bool]()
    for _ in range(5):
        kept.keep(replace(CATALOG), True)
        gc.collect()
    kept.keep(CATALOG, True)
    assert len(kept) == 1
