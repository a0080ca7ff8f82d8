"""What a column or a function in a SELECT is, as far as the catalog knows; not known is never taken for yes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from node.errors import refused
from node.routing.select_names import BYTEWISE_COLLATIONS, CLOCKS, HARMLESS, MERGED, OTHER_AGGREGATES, VOLATILE
from node.routing.select_sources import Source
from node.routing.select_trees import JSON_AGGREGATES, Tree, ast, function_name, is_star, last_name, walk


class Knowledge(Protocol):
    """What `analyse` asks of the catalog. None: not known."""

    def columns_of(self, schema: str | None, table: str) -> Sequence[str] | None: ...
    def is_bytewise(self, schema: str | None, table: str, column: str) -> bool | None: ...
    def is_nondeterministic(self, schema: str | None, table: str, column: str) -> bool | None: ...
    def is_array(self, schema: str | None, table: str, column: str) -> bool | None: ...
    def is_aggregate(self, function: str) -> bool | None: ...
    def volatility(self, function: str) -> str | None:
        """`i`, `s` or `v`; the most volatile of the functions with that name."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Questions about columns of the tables in FROM. `tables` (schema, name) are read anywhere in the statement."""

    sources: tuple[Source, ...]
    knowledge: Knowledge
    tables: tuple[tuple[str | None, str], ...] = ()

    def is_key(self, node: object) -> bool:
        if not isinstance(node, ast.ColumnRef) or is_star(node):
            return False
        alias = node.fields[-2].sval if len(node.fields) > 1 else None
        return any(
            s.key == last_name(node)
            and alias in (None, s.alias)
            # Equal values of different bytes live on different shards.
            and not self.knowledge.is_nondeterministic(s.schema, s.table, s.key)
            for s in self.sources
            if s.key
        )

    def owner(self, node: Tree) -> Source | None:
        """The table a column belongs to, if that is certain."""
        sources = self.sources
        if len(node.fields) > 1:
            named = [s for s in sources if s.alias == node.fields[-2].sval]
        else:
            columns = [(s, self.knowledge.columns_of(s.schema, s.table)) for s in sources]
            named = [s for s, known in columns if known is None or last_name(node) in known]
        if any(source.renamed for source in sources):
            return None
        return named[0] if len(named) == 1 else None

    def is_bytewise(self, node: Tree) -> bool:
        """Text of this expression is certainly ordered by its bytes."""
        if isinstance(node, ast.CollateClause):
            return node.collname[-1].sval in BYTEWISE_COLLATIONS
        if isinstance(node, ast.FuncCall) and function_name(node) in ("min", "max") and node.args:
            return self.is_bytewise(node.args[0])
        if not isinstance(node, ast.ColumnRef) or is_star(node):
            return False
        owner = self.owner(node)
        return owner is not None and bool(self.knowledge.is_bytewise(owner.schema, owner.table, last_name(node)))

    def is_array(self, node: object) -> bool:
        """This expression is certainly an array."""
        if isinstance(node, ast.ColumnRef) and not is_star(node):
            owner = self.owner(node)
            return owner is not None and bool(self.knowledge.is_array(owner.schema, owner.table, last_name(node)))
        return isinstance(node, ast.A_ArrayExpr) or (isinstance(node, ast.TypeCast) and bool(node.typeName.arrayBounds))

    def refuse_nondeterministic(self, roots: object, what: str) -> None:
        """Under a nondeterministic collation equal texts may differ in their bytes."""
        for node in walk(roots):
            if isinstance(node, ast.CollateClause) and node.collname[-1].sval not in (*BYTEWISE_COLLATIONS, "default"):
                raise refused(f"COLLATE in {what}")
            if not isinstance(node, ast.ColumnRef):
                continue
            owner = None if is_star(node) else self.owner(node)
            if owner is not None:
                loose = self.knowledge.is_nondeterministic(owner.schema, owner.table, last_name(node))
            else:
                loose = any(
                    self.knowledge.is_nondeterministic(schema, table, name)
                    for schema, table in self.tables
                    for name in self.knowledge.columns_of(schema, table) or ()
                )
            if loose:
                raise refused(f"{what} of a column with a nondeterministic collation")


@dataclass(frozen=True, slots=True)
class Functions:
    """Questions about function calls."""

    knowledge: Knowledge

    def refuse_volatile(self, roots: object, what: str) -> None:
        for node in walk(roots):
            if isinstance(node, ast.FuncCall) and not self.is_aggregate(node) and not node.over:
                name = function_name(node)
                if self.volatility(name) == "v":
                    raise refused(f"the volatile function {name}() in {what}")

    def volatility(self, name: str) -> str:
        """Refuses functions that may read tables: on a shard they would see its rows only."""
        if name in VOLATILE:
            return "v"
        if name in HARMLESS or name in CLOCKS:
            return "s"
        known = self.knowledge.volatility(name)
        if known is None:
            raise refused(f"the function {name}(), which the catalog does not know,")
        if known != "i":
            raise refused(
                f"the function {name}()",
                detail="it is not immutable, so it may read tables, of which every shard has only a part",
                hint="declare it IMMUTABLE if it depends on its arguments only",
            )
        return known

    def is_aggregate(self, call: Tree) -> bool:
        if call.over is not None:
            return False
        name = function_name(call)
        if call.agg_star or call.agg_distinct or call.agg_order or call.agg_filter or call.agg_within_group:
            return True
        return name in MERGED or name in OTHER_AGGREGATES or bool(self.knowledge.is_aggregate(name))

    def has_aggregate(self, roots: object) -> bool:
        return any(
            (isinstance(n, ast.FuncCall) and self.is_aggregate(n))
            or isinstance(n, (ast.GroupingFunc, *JSON_AGGREGATES))
            for n in walk(roots, into_subqueries=False)
        )
