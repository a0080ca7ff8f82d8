"""Reads what the shards of a database know about their tables and functions, and compares it between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from node.database import Database, Layout
from node.pool.balancer import Balancer
from node.pool.checkout import checkout
from node.pool.pool import Pool
from node.routing.catalog import Catalog
from node.routing.catalog_queries import CATALOG_QUERIES
from node.routing.hints import search_path_names
from node.server.conversation import Conversation, Result

log = logging.getLogger("pgmurmur.catalog")

CATALOG_TIMEOUT_S = 30.0

# By name: what any shard has counts, so that a function which is volatile on one is volatile.
_UNITED = frozenset(("functions", "operators", "own_types", "hidden"))

_Rows = dict[str, list[list[str | None]]]
# what one shard knows; whether it allows prepared transactions; its search_path
_Known = tuple[_Rows, bool, tuple[str, ...]]


async def load_layout(database: Database, *, again: bool = False) -> None:
    """Fills `database.layout` from the shards' primaries; who asks meanwhile awaits the same reading.
    `again`: also when it is loaded.

    Raises ServerFault when a shard cannot be asked.
    """
    layout = database.layout
    while again or not layout.loaded:
        again = False
        if layout.loading is None:
            reading = asyncio.ensure_future(_load(database, layout))
            reading.add_done_callback(lambda done: _loaded(layout, done))
            layout.loading = reading
        # shielded: a client that leaves must not take away what others wait for
        await asyncio.shield(layout.loading)


def _loaded(layout: Layout, done: asyncio.Future[None]) -> None:
    layout.loading = None
    if not done.cancelled():
        done.exception()  # those who waited have it; without them nobody needs to hear


async def _load(database: Database, layout: Layout) -> None:
    generation = layout.generation
    began = asyncio.get_running_loop().time()
    asked = [_ask(catalog_pool(balancer)) for balancer in database.balancers]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    known = [answer for answer in answers if not isinstance(answer, BaseException)]
    read = [rows for rows, _, _ in known]
    two_phase = all(allowed for _, allowed, _ in known)
    # Thousands of functions, once per shard: beside the event loop, or every client would stand still meanwhile.
    differing, catalog = await asyncio.to_thread(_compared, read, known[0][2])
    if differing:
        log.warning("schemas_differ database=%s tables=%s", database.name, ",".join(differing[:10]))
    layout.learn(catalog)
    if not two_phase and not layout.two_phase_told:
        layout.two_phase_told = True
        log.warning(
            "no_two_phase_commit database=%s reason=%s", database.name, "max_prepared_transactions is 0 on a shard"
        )
    layout.two_phase = two_phase
    # DDL in the meantime: what was read may be from before it
    layout.loaded = layout.sharing = layout.generation == generation
    layout.read_at = began


def catalog_pool(balancer: Balancer) -> Pool:
    """Whom to ask what the shard knows. Raises ServerFault when there is nobody."""
    return balancer.replicas[0] if balancer.primary is None and balancer.replicas else balancer.write()


async def _ask(pool: Pool) -> _Known:
    server = await checkout(pool)
    talk = Conversation(server)
    try:
        return await _read(talk)
    finally:
        talk.end()
        pool.release(server)


async def read_catalog(talks: Sequence[Conversation]) -> Catalog:
    """As the transaction sees it that these conversations with all shards belong to. Raises ServerFault."""
    known = [await _read(talk) for talk in talks]
    return Catalog.from_rows(_common([rows for rows, _, _ in known]), known[0][2])


async def _read(talk: Conversation) -> _Known:
    settings = "SELECT current_setting('max_prepared_transactions'), current_setting('search_path'), current_user"
    results = await talk.query("; ".join((*CATALOG_QUERIES.values(), settings)), CATALOG_TIMEOUT_S)
    rows = await asyncio.to_thread(_decoded, results)
    allowed, listed, user = (str(value, "utf-8") for value in results[-1].rows[0] if value is not None)
    return rows, allowed != "0", tuple(user if name == "$user" else name for name in search_path_names(listed))


def _decoded(results: Sequence[Result]) -> _Rows:
    return {
        name: [[None if v is None else v.decode("utf-8", "replace") for v in row] for row in result.rows]
        for name, result in zip(CATALOG_QUERIES, results, strict=False)
    }


def _compared(read: list[_Rows], path: tuple[str, ...]) -> tuple[list[str], Catalog]:
    """The tables whose columns differ between shards; what all shards agree on."""
    differing = sorted({table for rows in read[1:] for table in _differing(read[0], rows)})
    return differing, Catalog.from_rows(_common(read), path)


def _differing(ours: _Rows, theirs: _Rows) -> set[str]:
    """Tables whose columns are not the same on both shards."""
    tables: list[dict[str, list[list[str | None]]]] = []
    for rows in (ours, theirs):
        by_name: dict[str, list[list[str | None]]] = {}
        for row in rows["columns"]:
            by_name.setdefault(f"{row[0]}.{row[1]}", []).append(row)
        tables.append(by_name)
    one, other = tables
    return {name for name in one.keys() | other.keys() if not _same("columns", one.get(name, []), other.get(name, []))}


def _common(read: list[_Rows]) -> _Rows:
    """What all shards agree on. A table that differs anywhere is not known: nothing exact is concluded from it."""
    first = read[0]
    if len(read) == 1:
        return first
    common: _Rows = {}
    for name, rows in first.items():
        if name == "types":
            common[name] = rows
            continue
        if name in _UNITED:
            common[name] = [row for shard in read for row in shard[name]]
            continue
        by_table: list[dict[tuple[str | None, ...], list[list[str | None]]]] = []
        for shard in read:
            tables: dict[tuple[str | None, ...], list[list[str | None]]] = {}
            for row in shard[name]:
                tables.setdefault(tuple(row[:2]), []).append(row)
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
    database.layout.forget()
