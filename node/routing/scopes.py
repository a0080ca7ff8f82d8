"""Query levels of a statement: which tables each reads, under which conditions, and which names mean them.

A level is one SELECT (each side of a UNION is its own), UPDATE, DELETE, MERGE or INSERT. Every table reference
anywhere in the statement appears once, because every one of them needs its rows to be where the statement runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pglast import ast, enums

from node.errors import ClientFault
from node.routing.conditions import AllOf, Column, Condition, Reader, Same

DEPTH_MAX = 200  # query levels within each other; PostgreSQL's own limit is its stack


@dataclass(frozen=True, slots=True)
class Reference:
    """One mention of a table."""

    index: int
    level: int
    schema: str | None
    name: str
    alias: str
    nullable: bool  # on the side of an outer join that may be filled with NULLs: IS NULL says nothing about its rows
    written: bool = False
    renamed: bool = False  # alias(column, ...): its columns go by other names


@dataclass(slots=True)
class Level:
    index: int
    parent: int | None
    references: list[Reference] = field(default_factory=list)
    others: list[str] = field(default_factory=list)  # names of subqueries, functions, CTEs in FROM
    conditions: list[Condition] = field(default_factory=list)
    joined: list[tuple[Column, Column, bool]] = field(default_factory=list)  # outer joins: preserved, nullable, full
    merged: dict[str, Column] = field(default_factory=dict)  # USING
    # A LIMIT, aggregate, window, DISTINCT or set operation: the level's rows do not stand for themselves.
    whole: bool = False


class Scopes:
    """Walks a statement. `levels` and `references` are complete afterwards; `writes` counts data-modifying parts."""

    def __init__(self, is_marked: bool) -> None:
        self.is_marked = is_marked
        self.levels: list[Level] = []
        self.references: list[Reference] = []
        self.data_modifying_ctes = 0
        self.cte_assigns: list[tuple[int, tuple[str, ...] | None]] = []  # reference, columns; None: any (MERGE)

    # --- statements ----------------------------------------------------------------------------------------------

    def statement(self, node: Any, parent: int | None = None, names: frozenset[str] = frozenset()) -> Level | None:
        if len(self.levels) > DEPTH_MAX:
            raise ClientFault("stack depth limit exceeded", sqlstate="54001")
        match node:
            case ast.SelectStmt():
                return self.select(node, parent, names)
            case ast.UpdateStmt() | ast.DeleteStmt() | ast.InsertStmt() | ast.MergeStmt():
                return self.modify(node, parent, names)
        return None

    def select(self, node: Any, parent: int | None, names: frozenset[str]) -> Level:
        names = self._with(node.withClause, parent, names)
        if node.op != enums.SetOperation.SETOP_NONE:
            level = self._level(parent)
            level.whole = True
            self.statement(node.larg, parent, names)
            self.statement(node.rarg, parent, names)
            self._expressions((node.sortClause, node.limitCount, node.limitOffset), level.index, names)
            return level
        level = self._level(parent)
        level.whole = bool(
            node.groupClause or node.havingClause or node.distinctClause or node.limitCount or node.limitOffset
        )
        for item in node.fromClause or ():
            self._from(item, level, names, False, True)
        self._where(node.whereClause, level, names)
        clauses = (
            node.targetList, node.groupClause, node.havingClause, node.windowClause, node.sortClause,
            node.distinctClause, node.limitCount, node.limitOffset, node.valuesLists,
        )  # fmt: skip
        self._expressions(clauses, level.index, names)
        return level

    def modify(self, node: Any, parent: int | None, names: frozenset[str]) -> Level:
        names = self._with(node.withClause, parent, names)
        level = self._level(parent)
        self._table(node.relation, level, frozenset(), False, written=True)
        match node:
            case ast.UpdateStmt():
                for item in node.fromClause or ():
                    self._from(item, level, names, False, True)
                self._where(node.whereClause, level, names)
                self._expressions(node.targetList, level.index, names)
            case ast.DeleteStmt():
                for item in node.usingClause or ():
                    self._from(item, level, names, False, True)
                self._where(node.whereClause, level, names)
            case ast.MergeStmt():
                # Unmatched rows of either side count, so the join condition narrows nothing but it does co-locate.
                self._from(node.sourceRelation, level, names, False, False)
                condition = Reader(level.index, self.is_marked).read(node.joinCondition)
                self._outer(condition, level, frozenset(), full=True)
                self._expressions((node.joinCondition, node.mergeWhenClauses), level.index, names)
            case ast.InsertStmt():
                if node.selectStmt is not None:
                    self.statement(node.selectStmt, None, names)
                self._expressions(node.onConflictClause, level.index, names)
        self._expressions(node.returningClause, level.index, names)
        return level

    # --- parts ---------------------------------------------------------------------------------------------------

    def _level(self, parent: int | None) -> Level:
        level = Level(len(self.levels), parent)
        self.levels.append(level)
        return level

    def _with(self, clause: Any, parent: int | None, names: frozenset[str]) -> frozenset[str]:
        if clause is None:
            return names
        if clause.recursive:
            names |= {cte.ctename for cte in clause.ctes}
        for cte in clause.ctes:
            level = self.statement(cte.ctequery, parent, names)
            if level is not None and not isinstance(cte.ctequery, ast.SelectStmt):
                self.data_modifying_ctes += 1
                self.cte_assigns.append((level.references[0].index, _assigned(cte.ctequery)))
            names |= {cte.ctename}  # a CTE sees those before it; its own name still means the table
        return names

    def _where(self, clause: Any, level: Level, names: frozenset[str]) -> None:
        if clause is None:
            return
        reader = Reader(level.index, self.is_marked)
        condition = reader.read(clause)
        if condition is not None:
            level.conditions.append(condition)
        inside = {id(subselect): column for column, subselect in reader.semijoins}
        self._expressions(clause, level.index, names, inside)

    def _from(self, item: Any, level: Level, names: frozenset[str], nullable: bool, inner: bool) -> None:
        """`inner`: rows of this item that fail the enclosing join conditions vanish from the result."""
        match item:
            case ast.RangeVar():
                self._table(item, level, names, nullable)
            case ast.JoinExpr():
                self._join(item, level, names, nullable, inner)
            case ast.RangeSubselect():
                level.others.append((item.alias.aliasname if item.alias else None) or "")
                self.statement(item.subquery, level.index if item.lateral else level.parent, names)
            case ast.RangeTableSample():
                level.whole = True
                self._from(item.relation, level, names, nullable, inner)
            case _:
                alias = getattr(item, "alias", None)
                level.others.append(alias.aliasname if alias else "")
                self._expressions(item, level.index, names)

    def _join(self, join: Any, level: Level, names: frozenset[str], nullable: bool, inner: bool) -> None:
        kinds = enums.JoinType
        kind = join.jointype
        left_null = nullable or kind in (kinds.JOIN_RIGHT, kinds.JOIN_FULL)
        right_null = nullable or kind in (kinds.JOIN_LEFT, kinds.JOIN_FULL)
        self._from(join.larg, level, names, left_null, inner and kind == kinds.JOIN_INNER)
        first_right = len(level.references)
        self._from(join.rarg, level, names, right_null, inner and kind == kinds.JOIN_INNER)
        right = frozenset(r.alias for r in level.references[first_right:])
        condition: Condition | None = None
        if join.usingClause:
            condition = self._using(join, level)
        elif join.quals is not None:
            reader = Reader(level.index, self.is_marked)
            condition = reader.read(join.quals)
            inside = {id(s): c for c, s in reader.semijoins} if inner and kind == kinds.JOIN_INNER else {}
            self._expressions(join.quals, level.index, names, inside)
        if join.alias is not None:
            level.others.append(join.alias.aliasname)
        if condition is None:
            return
        if inner and kind == kinds.JOIN_INNER:
            level.conditions.append(condition)
        elif kind == kinds.JOIN_INNER:
            self._outer(condition, level, right, full=True)
        elif kind == kinds.JOIN_RIGHT:
            self._outer(condition, level, right, full=False, swapped=True)
        else:
            self._outer(condition, level, right, full=kind == kinds.JOIN_FULL)

    def _outer(
        self, condition: Condition | None, level: Level, right: frozenset[str], *, full: bool, swapped: bool = False
    ) -> None:
        """Equalities that hold where the join matches: they co-locate, and narrow the nullable side only."""
        parts = condition.parts if isinstance(condition, AllOf) else (condition,)
        for part in parts:
            if isinstance(part, AllOf):
                self._outer(part, level, right, full=full, swapped=swapped)
            elif isinstance(part, Same):
                a, b = part.left, part.right
                if a.qualifier in right and b.qualifier not in right:
                    a, b = b, a
                known = b.qualifier in right and a.qualifier is not None
                if swapped:
                    a, b = b, a
                level.joined.append((a, b, full or not known))

    def _using(self, join: Any, level: Level) -> Condition | None:
        parts = []
        for name in (part.sval for part in join.usingClause):
            left, right = _holder(join.larg, name), _holder(join.rarg, name)
            if left is None or right is None:
                continue
            a, b = Column(level.index, None, left, name), Column(level.index, None, right, name)
            parts.append(Same(a, b))
            if join.jointype == enums.JoinType.JOIN_RIGHT:
                level.merged[name] = b
            elif join.jointype != enums.JoinType.JOIN_FULL:
                level.merged[name] = a
        return AllOf(tuple(parts)) if parts else None

    def _table(self, item: Any, level: Level, names: frozenset[str], nullable: bool, written: bool = False) -> None:
        alias = item.alias.aliasname if item.alias else item.relname
        if item.schemaname is None and item.relname in names:
            level.others.append(alias)
            return
        renamed = bool(item.alias and item.alias.colnames)
        found = Reference(
            len(self.references), level.index, item.schemaname, item.relname, alias, nullable, written, renamed
        )
        self.references.append(found)
        level.references.append(found)

    def _expressions(
        self, roots: Any, level: int, names: frozenset[str], semijoins: dict[int, Column] | None = None
    ) -> None:
        """Finds the subqueries below any expressions. Explicit stack: long OR chains are deep trees."""
        stack = [roots]
        while stack:
            node = stack.pop()
            if isinstance(node, (tuple, list)):
                stack.extend(node)
            elif isinstance(node, ast.SelectStmt):
                self.statement(node, level, names)
            elif isinstance(node, ast.Node):
                if isinstance(node, ast.SubLink) and semijoins and id(node.subselect) in semijoins:
                    self._semijoin(node.subselect, semijoins[id(node.subselect)], level, names)
                    stack.append(node.testexpr)
                    continue
                stack.extend(getattr(node, name) for name in node)

    def _semijoin(self, select: Any, outer: Column, level: int, names: frozenset[str]) -> None:
        inner = self.statement(select, level, names)
        if inner is None or inner.whole or not select.targetList or len(select.targetList) != 1:
            return
        column = Reader(inner.index, self.is_marked).column(select.targetList[0].val)
        if column is not None:
            inner.conditions.append(Same(outer, column))


def _assigned(node: Any) -> tuple[str, ...] | None:
    """The columns that an UPDATE or an upsert sets; None: a MERGE, which may set any."""
    targets: Any = ()
    match node:
        case ast.UpdateStmt():
            targets = node.targetList
        case ast.InsertStmt():
            targets = node.onConflictClause.targetList if node.onConflictClause is not None else ()
        case ast.MergeStmt():
            return None
    return tuple(target.name for target in targets or ())


def _holder(item: Any, name: str) -> str | None:
    """The alias of the table that gives a USING column on this side of the join, if that is plain."""
    if isinstance(item, ast.RangeVar):
        return str(item.alias.aliasname if item.alias else item.relname)
    if isinstance(item, ast.JoinExpr) and item.alias is None and item.jointype == enums.JoinType.JOIN_INNER:
        shared = [part.sval for part in item.usingClause or ()]
        return _holder(item.larg, name) if name in shared else None
    return None
