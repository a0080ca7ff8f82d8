"""FROM: which tables a SELECT reads, which of them are spread over the shards, and whether the join may be spread.

Rows of a join are *partitioned* when every one of them comes from exactly one shard. That needs a sharded table on
each side whose rows a join preserves: `omni LEFT JOIN sharded` run on every shard would return each unmatched row of
`omni` once per shard. Joins of two sharded tables are only brought here when routing proved them to be on the key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from node.errors import refused
from node.routing.select_trees import Tree, ast, enums, walk

# The key column of a table's sharding rule; None: the table is whole on every shard.
Placement = Callable[[str | None, str], str | None]


@dataclass(frozen=True, slots=True)
class Source:
    """A table in FROM. `key`: its key column, where grouping by it keeps groups on one shard; else None.

    `renamed`: an alias with a column list hides the table's own names.
    """

    alias: str
    schema: str | None
    table: str
    key: str | None
    renamed: bool = False


@dataclass(frozen=True, slots=True)
class From:
    sources: tuple[Source, ...]
    partitioned: bool


NOTHING = From((), False)


def reads_sharded(placement: Placement, *roots: object) -> bool:
    """Anything below reads a table that is spread over the shards."""
    return any(
        isinstance(node, ast.RangeVar) and placement(node.schemaname, node.relname) is not None for node in walk(*roots)
    )


def analyse_from(items: tuple[Tree, ...] | None, placement: Placement) -> From:
    """Raises ClientFault 0A000 for what cannot be spread."""
    found = NOTHING
    for item in items or ():
        found = _both(found, _item(item, placement))
    return found


def _both(left: From, right: From) -> From:
    return From(left.sources + right.sources, left.partitioned or right.partitioned)


def _item(item: Tree, placement: Placement) -> From:
    match item:
        case ast.RangeVar():
            key = placement(item.schemaname, item.relname)
            alias = item.alias.aliasname if item.alias else item.relname
            renamed = bool(item.alias and item.alias.colnames)
            source = Source(alias, item.schemaname, item.relname, None if renamed else key, renamed)
            return From((source,), key is not None)
        case ast.JoinExpr():
            return _join(item, placement)
        case ast.RangeSubselect():
            if not reads_sharded(placement, item.subquery):
                return NOTHING
            return From((), _rowwise(item.subquery, placement))
        case ast.RangeTableSample():
            raise refused("TABLESAMPLE")
        case _:
            if reads_sharded(placement, item):
                raise refused("a table function over sharded tables")
            return NOTHING


def _join(join: Tree, placement: Placement) -> From:
    left, right = _item(join.larg, placement), _item(join.rarg, placement)
    if join.alias is not None:
        left, right = _without_keys(left, renamed=True), _without_keys(right, renamed=True)
    kind = join.jointype
    if kind == enums.JoinType.JOIN_RIGHT:
        left, right, kind = right, left, enums.JoinType.JOIN_LEFT
    if kind == enums.JoinType.JOIN_INNER:
        return _both(left, right)
    if kind == enums.JoinType.JOIN_LEFT:
        if right.partitioned and not left.partitioned:
            raise refused("an outer join that keeps unmatched rows of a table which is whole on every shard")
        return _both(left, _without_keys(right))  # its key is NULL in unmatched rows, on any shard
    if left.partitioned != right.partitioned:
        raise refused("FULL JOIN of a sharded table with one which is whole on every shard")
    return _both(_without_keys(left), _without_keys(right))


def _without_keys(found: From, renamed: bool = False) -> From:
    sources = tuple(Source(s.alias, s.schema, s.table, None, s.renamed or renamed) for s in found.sources)
    return From(sources, found.partitioned)


def _rowwise(select: Tree, placement: Placement) -> bool:
    """A subquery in FROM that gives row by row what its tables have may run on each shard."""
    wrong = {
        "a set operation in a subquery": select.op != enums.SetOperation.SETOP_NONE,
        "WITH in a subquery": select.withClause,
        "DISTINCT in a subquery": select.distinctClause,
        "GROUP BY in a subquery": select.groupClause,
        "HAVING in a subquery": select.havingClause,
        "LIMIT or OFFSET in a subquery": select.limitCount or select.limitOffset,
        "a window in a subquery": select.windowClause,
        "FOR UPDATE in a subquery": select.lockingClause,
    }
    for what, present in wrong.items():
        if present:
            raise refused(what)
    return analyse_from(select.fromClause, placement).partitioned
