"""Reads what the shards of a database know about their tables and functions, and compares it between them."""

from __future__ import annotations

import logging

from node.database import Database
from node.errors import ServerFault
from node.pool.checkout import checkout
from node.routing.catalog import CATALOG_QUERIES, Catalog
from node.routing.hints import search_path_names
from node.server.conversation import Conversation

log = logging.getLogger("pgmurmur.catalog")

CATALOG_TIMEOUT_S = 30.0

_Rows = dict[str, list[list[str | None]]]


async def load_layout(database: Database) -> None:
    """Fills `database.layout` from the shards' primaries. Raises ServerFault when one cannot be asked."""
    read: list[_Rows] = []
    two_phase = True
    path: tuple[str, ...] = ("public",)
    for shard, balancer in enumerate(database.balancers):
        pool = balancer.write()
        server = await checkout(pool)
        talk = Conversation(server)
        try:
            rows: _Rows = {}
            for name, sql in CATALOG_QUERIES.items():
                (result,) = await talk.query(sql, CATALOG_TIMEOUT_S)
                rows[name] = [[None if v is None else v.decode("utf-8", "replace") for v in row] for row in result.rows]
            sql = "SELECT current_setting('max_prepared_transactions'), current_setting('search_path'), current_user"
            (result,) = await talk.query(sql, CATALOG_TIMEOUT_S)
            allowed, listed, user = (str(value, "utf-8") for value in result.rows[0] if value is not None)
            two_phase = two_phase and allowed != "0"
            if shard == 0:
                path = tuple(user if name == "$user" else name for name in search_path_names(listed))
        finally:
            talk.end()
            pool.release(server)
        read.append(rows)
    differing = [n for n, rows in enumerate(read) if rows["columns"] != read[0]["columns"]]
    if differing:
        log.warning("schemas_differ database=%s shards=0,%s", database.name, ",".join(map(str, differing)))
    layout = database.layout
    layout.catalog = Catalog.from_rows(_common(read), path)
    if not two_phase and not layout.loaded:
        log.warning(
            "no_two_phase_commit database=%s reason=%s", database.name, "max_prepared_transactions is 0 on a shard"
        )
    layout.two_phase = two_phase
    layout.loaded = True


def _common(read: list[_Rows]) -> _Rows:
    """What all shards agree on. A table that differs anywhere is not known: nothing exact is concluded from it."""
    first = read[0]
    if len(read) == 1:
        return first
    common: _Rows = {}
    for name, rows in first.items():
        if name in ("types",):
            common[name] = rows
            continue
        key = 2 if name in ("columns", "indexes", "dependencies") else 4
        by_table: list[dict[tuple[str | None, ...], list[list[str | None]]]] = []
        for shard in read:
            tables: dict[tuple[str | None, ...], list[list[str | None]]] = {}
            for row in shard[name]:
                tables.setdefault(tuple(row[:key]), []).append(row)
            by_table.append(tables)
        common[name] = [
            row
            for table, listed in by_table[0].items()
            if all(_same(name, other.get(table, []), listed) for other in by_table[1:])
            for row in listed
        ]
    return common


def _same(name: str, theirs: list[list[str | None]], ours: list[list[str | None]]) -> bool:
    if name != "columns":
        return theirs == ours
    # types made by users have other OIDs on other shards
    def plain(row: list[str | None]) -> list[str | None]:
        oid = row[4]
        return [*row[:4], "user" if oid is not None and int(oid) >= 16384 else oid, *row[5:]]

    return [plain(row) for row in theirs] == [plain(row) for row in ours]


def forget(database: Database) -> None:
    """After DDL: read it again before the next statement is planned."""
    database.layout.loaded = False


__all__ = ["ServerFault", "forget", "load_layout"]
