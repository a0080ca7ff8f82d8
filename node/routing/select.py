"""Which road a SELECT over several shards takes, and the SQL its shards get. Pure; cached by the caller.

`analyse` decides everything that does not depend on parameter values; `program` adds LIMIT and OFFSET. `for_shape` does
it for all texts of a shape at once, where no literal decides anything: then `program` adds the literals, too.

* Rows are *final* when each shard's rows are rows of the answer: nothing is aggregated, or GROUP BY, DISTINCT and
  every PARTITION BY contain the sharding key of a table whose rows the join preserves. Then only order, duplicates
  and the cut are left to do.
* Otherwise aggregates are *decomposed*: each becomes hidden partial columns, the visible column stays what the client
  wrote, so that its name, type and modifier are PostgreSQL's own.

Whatever is not provably one of the two is refused (0A000) and named. The generated text is parsed again and compared
with the tree it came from: a deparser that loses something must not change an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pglast import parse_sql
from pglast.parser import ParseError

from node.errors import Bug, ClientFault, refused
from node.routing.lexed import Lexed
from node.routing.operands import ordinal_of
from node.routing.outcome import Aggregate, MergeProgram, Refusal, Road, SortKey, Values
from node.routing.outline import Outline, outline
from node.routing.select_bounds import BIGINT_MAX, Bound, bound, resolve, unusual_number
from node.routing.select_knowledge import Columns, Functions, Knowledge
from node.routing.select_names import MERGED, PER_SERVER, SYSTEM_COLUMNS
from node.routing.select_sources import Placement, analyse_from, reads_sharded
from node.routing.select_trees import (
    Tree,
    ast,
    changed,
    deparse,
    enums,
    function_name,
    is_star,
    last_name,
    output_name,
    parameters_of,
    partial_calls,
    schema_name,
    shown,
    speaks_of_server,
    system_name,
    tells_time,
    unwrap,
    walk,
)

_TRUE: Final = ast.A_Const(isnull=False, val=ast.Boolean(boolval=True))


@dataclass(frozen=True, slots=True)
class SelectFacts:
    """Everything about a SELECT but the values of its parameters. `template` misses only limit, offset and LIMIT.

    Facts of a whole shape have an `outline` instead of the template's text, and bounds that name literals.
    """

    road: Road
    template: MergeProgram
    limit: Bound
    offset: Bound
    push_limit: bool
    reasons: tuple[str, ...] = ()
    outline: Outline | None = None


def analyse(
    select: Tree, placement: Placement, knowledge: Knowledge, *, is_marked: bool = False, shares: bool = True
) -> SelectFacts | Refusal:
    """`select` must be routed to several shards; joins between its sharded tables are on the key. Never raises.

    `is_marked`: the tree has markers for literals. Without `shares` equal hidden columns are not made one.
    """
    try:
        return _Analysis(select, placement, knowledge, is_marked, shares).facts()
    except ClientFault as fault:
        return Refusal(fault)
    except RecursionError:
        return Refusal(ClientFault("stack depth limit exceeded", sqlstate="54001"))


def program(facts: SelectFacts, values: Values) -> MergeProgram | Refusal:
    """The program for these literals and parameters; with unbound parameters LIMIT and OFFSET are left out."""
    try:
        limit, offset = resolve(facts.limit, facts.offset, values)
    except ClientFault as fault:
        return Refusal(fault)
    template = facts.template
    sql = template.sql
    if facts.outline is not None and values.lexed is not None:
        sql = facts.outline.filled(values.lexed)
    if sql and facts.push_limit and limit is not None and limit + offset <= BIGINT_MAX:
        sql = f"{sql} LIMIT {limit + offset}"
    if sql and values.lexed is not None and (facts.limit.literal or facts.offset.literal):
        sql += _as_written(facts, values.lexed)
    return MergeProgram(
        sql=sql,
        parameters=template.parameters,
        hidden=template.hidden,
        twins=template.twins,
        sort=template.sort,
        group=template.group,
        aggregates=template.aggregates,
        distinct=template.distinct,
        limit=limit,
        offset=offset,
    )


def _as_written(facts: SelectFacts, lexed: Lexed) -> str:
    """LIMIT 0x1F means something to PostgreSQL since 16 only: the shards get to see it, where it counts for nothing."""
    literals = [b.literal.ordinal for b in (facts.limit, facts.offset) if b.literal is not None]
    texts = [text for ordinal in literals if (text := unusual_number(lexed, ordinal)) is not None]
    return f" OFFSET 0 * {' * '.join(texts)}" if texts else ""


def telling(marked: Tree) -> tuple[int, ...]:
    """The literals whose values the analysis reads, if there are any: how many digits round() keeps."""
    found = []
    for call in walk(marked):
        if isinstance(call, ast.FuncCall) and function_name(call) == "round" and len(call.args or ()) == 2:
            marker = ordinal_of(call.args[1].val) if isinstance(call.args[1], ast.A_Const) else None
            if marker is not None:
                found.append(marker[0])
    return tuple(sorted(found))


def for_shape(
    marked: Tree, select: Tree, lexed: Lexed, placement: Placement, knowledge: Knowledge
) -> SelectFacts | Refusal | None:
    """The facts of all texts that share a shape; None: some literal may decide something, or it is not certain.
    Refusal: this text is refused for what its own literals say, so nothing was learned from it.

    `marked` is the tree with markers, `select` the one of this text. What can be seen of a marker is that it is a
    literal of its kind. Where more is asked (a position in ORDER BY, a cast of LIMIT), a marker is no answer anybody
    takes for one, and the analysis refuses; the literals that are `telling` are no markers in it. In the end this text
    is the witness: analysed by itself it must come to the same, its SQL for the shards included.
    """
    if any(_is_number(item) for item in _positions(marked)):
        return None
    try:
        made = _with_outline(analyse(marked, placement, knowledge, is_marked=True), lexed)
        if made is None:
            return None
        alone = analyse(select, placement, knowledge)
        if isinstance(alone, Refusal):
            return alone
        if _same(made, alone, lexed):
            return made
        # equal literals of this text may have made one hidden column of two
        apart = _with_outline(analyse(marked, placement, knowledge, is_marked=True, shares=False), lexed)
        alone = analyse(select, placement, knowledge, shares=False)
    except ClientFault as fault:
        return Refusal(fault)
    except (Bug, ParseError, RecursionError):
        return None  # the deparser does not get along with markers
    return made if apart is not None and isinstance(alone, SelectFacts) and _same(apart, alone, lexed) else None


def _positions(select: Tree) -> list[Tree]:
    """Where a number would mean an output column."""
    sort = [item.node for item in select.sortClause or ()]
    return [*sort, *(select.groupClause or ()), *(select.distinctClause or ())]


def _is_number(node: Tree) -> bool:
    return isinstance(node, ast.A_Const) and isinstance(node.val, ast.Integer) and ordinal_of(node.val) is not None


def _with_outline(found: SelectFacts | Refusal, lexed: Lexed) -> SelectFacts | None:
    if isinstance(found, Refusal):
        return None
    if not found.template.sql:
        return found
    holes = outline(found.template.sql, lexed)
    return None if holes is None else replace(found, outline=holes)


def _same(made: SelectFacts, alone: SelectFacts, lexed: Lexed) -> bool:
    """Do the facts of the shape say of this text what its own say? Raises ClientFault for a LIMIT nobody may give."""
    filled = made.outline.filled(lexed) if made.outline is not None else ""
    if filled and alone.template.sql:
        text = parse_sql(filled)[0].stmt == parse_sql(alone.template.sql)[0].stmt
    else:
        text = filled == alone.template.sql
    bounds = [
        (*resolve(f.limit, f.offset, Values(lexed)), f.limit.parameter, f.offset.parameter) for f in (made, alone)
    ]
    rest = [(f.road, f.push_limit, f.reasons, replace(f.template, sql="")) for f in (made, alone)]
    return text and bounds[0] == bounds[1] and rest[0] == rest[1]


@dataclass
class _Analysis:
    select: Tree
    placement: Placement
    knowledge: Knowledge
    is_marked: bool = False
    shares: bool = True
    hidden: list[Tree] = field(default_factory=list)
    casts: dict[int, Tree] = field(default_factory=dict)  # visible columns that cast an aggregate
    aggregates: list[Aggregate] = field(default_factory=list)  # outputs: visible, or -1 - hidden
    reasons: list[str] = field(default_factory=list)
    columns: Columns = field(init=False)
    functions: Functions = field(init=False)
    twins: bool = False

    def __post_init__(self) -> None:
        self.functions = Functions(self.knowledge)
        self.columns = Columns((), self.knowledge)

    # --- the decision ------------------------------------------------------------------------------------------

    def facts(self) -> SelectFacts:
        select = self.select
        self._refuse_constructs()
        tables = tuple((n.schemaname, n.relname) for n in walk(select) if isinstance(n, ast.RangeVar))
        self.columns = Columns(analyse_from(select.fromClause, self.placement).sources, self.knowledge, tables)
        self._refuse_functions()
        offset = bound(select.limitOffset, "OFFSET", is_marked=self.is_marked)
        limit = bound(select.limitCount, "LIMIT", is_marked=self.is_marked)
        cut = select.limitCount is not None or select.limitOffset is not None
        if cut and select.lockingClause:
            raise refused("a row lock with LIMIT or OFFSET", detail="shards would lock rows that are not returned")
        if self._aggregated() and not self._grouped_by_key():
            return self._merged(limit, offset)
        return self._final(limit, offset, cut)

    def _refuse_constructs(self) -> None:
        select = self.select
        wrong: list[tuple[object, str]] = [
            (select.op != enums.SetOperation.SETOP_NONE, "a set operation (UNION, INTERSECT, EXCEPT)"),
            (select.withClause, "WITH"),
            (select.intoClause, "SELECT INTO"),
            (select.valuesLists, "VALUES"),
            (select.limitOption == enums.LimitOption.LIMIT_OPTION_WITH_TIES, "FETCH ... WITH TIES"),
            (any(isinstance(g, ast.GroupingSet) for g in select.groupClause or ()), "GROUPING SETS, ROLLUP or CUBE"),
            (any(s.useOp for s in select.sortClause or ()), "ORDER BY ... USING"),
        ]
        for present, what in wrong:
            if present:
                raise refused(what)
        outside_where = (*shown(select), select.windowClause)
        if any(isinstance(node, ast.SubLink) for node in walk(*outside_where)):
            raise refused("a subquery in the select list, GROUP BY, HAVING or ORDER BY")
        for node in walk(select.whereClause, select.fromClause):
            if isinstance(node, ast.SubLink) and reads_sharded(self.placement, node.subselect):
                raise refused("a subquery over sharded tables")
            if isinstance(node, ast.RangeSubselect) and reads_sharded(self.placement, node.subquery):
                self._refuse_in_subquery(node.subquery)

    def _refuse_in_subquery(self, subquery: Tree) -> None:
        for node in walk(subquery.targetList):
            if isinstance(node, ast.FuncCall) and (node.over or self.functions.is_aggregate(node)):
                raise refused("an aggregate or window function in a subquery")

    def _refuse_functions(self) -> None:
        select = self.select
        for node in walk(select):
            if isinstance(node, ast.ColumnRef) and node.fields[-1:] and last_name(node) in SYSTEM_COLUMNS:
                raise refused(f"the system column {last_name(node)}")
            if isinstance(node, ast.FuncCall):
                name = function_name(node)
                if name in PER_SERVER:
                    raise refused(f"{name}()", detail="every shard would answer for itself")
                if not self.functions.is_aggregate(node) and not node.over:
                    self.functions.volatility(name)  # refuses what nobody knows
            if speaks_of_server(node):
                raise refused(node.op.name[6:].lower())
        for node in walk(*shown(select)):
            if tells_time(node):
                raise refused(
                    "the current time in the select list, GROUP BY or ORDER BY",
                    detail="the clocks of the shards differ",
                    hint="pass the time as a parameter",
                )

    def _aggregated(self) -> bool:
        select = self.select
        return bool(
            select.groupClause
            or select.havingClause
            or any(self.functions.has_aggregate(part) for part in (select.targetList, select.sortClause))
        )

    def _grouped_by_key(self) -> bool:
        if any(self.columns.is_key(self._group_expression(item)) for item in self.select.groupClause or ()):
            self.reasons.append("GROUP BY contains the sharding key")
            return True
        return False

    # --- rows that are final on their shard --------------------------------------------------------------------

    def _final(self, limit: Bound, offset: Bound, cut: bool) -> SelectFacts:
        select = self.select
        self._check_windows()
        on: Sequence[Tree] = select.distinctClause or ()
        plain_distinct = bool(on) and on[0] is None
        distinct: tuple[int, ...] | None = None
        if plain_distinct and not self._shows_key():
            self.twins, distinct = True, ()
            self.columns.refuse_nondeterministic(select.targetList, "DISTINCT")
        elif on and not plain_distinct and not any(self.columns.is_key(self._output_expression(e)) for e in on):
            distinct = tuple(self._hide(self._output_expression(e), "DISTINCT ON") for e in on)
            self.columns.refuse_nondeterministic(on, "DISTINCT ON")
        elif on:
            self.reasons.append("DISTINCT contains the sharding key")
        sort = self._sort_keys()
        trivial = not sort and distinct is None and select.limitOffset is None
        if trivial:
            template = MergeProgram()
        else:
            order = select.sortClause
            template = self._template(order, sort, None, distinct)
        merged = distinct is not None or cut
        self.reasons.append(
            "rows are final on each shard" if not merged else "rows are cut or deduplicated after merging"
        )
        return SelectFacts(Road.MERGE if merged else Road.PUSHDOWN, template, limit, offset, True, tuple(self.reasons))

    def _check_windows(self) -> None:
        select = self.select
        calls = [n for n in walk(select.targetList, select.sortClause) if isinstance(n, ast.FuncCall) and n.over]
        named = {w.name: w for w in select.windowClause or ()}
        for call in calls:
            window = call.over
            seen = 0
            while window is not None and not window.partitionClause and (window.name or window.refname) and seen < 8:
                window, seen = named.get(window.refname or window.name), seen + 1
            parts = window.partitionClause if window is not None else None
            if not any(self.columns.is_key(part) for part in parts or ()):
                raise refused("a window function whose PARTITION BY lacks the sharding key")
        if calls:
            self.reasons.append("PARTITION BY contains the sharding key")

    def _shows_key(self) -> bool:
        for target in self.select.targetList or ():
            if isinstance(target.val, ast.ColumnRef) and is_star(target.val):
                fields = target.val.fields
                alias = fields[-2].sval if len(fields) > 1 else None
                if any(s.key and alias in (None, s.alias) for s in self.columns.sources):
                    return True
            elif self.columns.is_key(target.val):
                return True
        return False

    # --- partial aggregates ------------------------------------------------------------------------------------

    def _merged(self, limit: Bound, offset: Bound) -> SelectFacts:
        select = self.select
        wrong: list[tuple[object, str]] = [
            (select.havingClause, "HAVING without the sharding key in GROUP BY"),
            (select.distinctClause, "DISTINCT with aggregates"),
            (select.lockingClause, "a row lock with aggregates"),
            (any(n.over for n in walk(select.targetList, select.sortClause) if isinstance(n, ast.FuncCall)),
             "a window function over groups"),
        ]  # fmt: skip
        for present, what in wrong:
            if present:
                raise refused(what)
        groups = [self._group_expression(item) for item in select.groupClause or ()]
        self.columns.refuse_nondeterministic(groups, "GROUP BY")
        group = tuple(self._hide(expression, "GROUP BY") for expression in groups)
        for position, target in enumerate(select.targetList or ()):
            if is_star(target.val):
                raise refused("* with aggregates")
            if self.functions.has_aggregate(target.val):
                self._decompose(target.val, position)
        sort = []
        for item, expression in self._order():
            column = self._hide(expression, "ORDER BY")
            if self.functions.has_aggregate(expression):
                self._decompose(expression, column)
            sort.append(self._sort_key(item, column, expression))
        self.reasons.append("partial aggregates are combined")
        template = self._template(None, tuple(sort), group, None)
        return SelectFacts(Road.MERGE, template, limit, offset, False, tuple(self.reasons))

    def _decompose(self, expression: Tree, output: int) -> None:
        """Adds the partial columns of the aggregate in `expression`, which is the client's or a hidden column."""
        wrapped = unwrap(expression)
        calls = [n for n in walk(expression) if isinstance(n, ast.FuncCall) and self.functions.is_aggregate(n)]
        if any(isinstance(n, ast.GroupingFunc) for n in walk(expression)):
            raise refused("GROUPING()")
        call = calls[0]
        name = function_name(call)
        merged = MERGED.get(name)
        if merged is None or schema_name(call) not in (None, "pg_catalog") or call.agg_within_group:
            raise refused(f"the aggregate {name}()")
        if call.agg_order or call.func_variadic:
            raise refused(f"ORDER BY or VARIADIC inside {name}()")
        chosen = merged in ("min", "max")
        if len(calls) > 1 or (wrapped.inner is not call and not chosen):
            raise refused("an expression over aggregates", hint="select the aggregates and compute in the application")
        self.columns.refuse_nondeterministic(call.args, name)
        self.functions.refuse_volatile(expression, f"an aggregate expression with {name}()")
        if call.agg_distinct and not chosen:
            if merged not in ("count", "sum", "avg"):
                raise refused(f"{name}(DISTINCT ...)")
            if any(self.columns.is_array(argument) for argument in call.args or ()):
                raise refused(f"{name}(DISTINCT ...) of an array")
            parts = [changed(call, funcname=system_name("array_agg"))]
            merged = f"{merged} distinct"
        else:
            parts = partial_calls(call, merged)
        partials = tuple(self._hide(part, name) for part in parts)
        bytewise = chosen and bool(call.args) and self.columns.is_bytewise(call.args[0])
        if chosen:
            aggregate = Aggregate(output, merged, partials, bytewise)
        else:
            if wrapped.cast and not wrapped.otherwise and output >= 0:  # (what is otherwise is read from there)
                self.casts[output] = expression
            aggregate = Aggregate(
                output, merged, partials, cast=wrapped.cast, otherwise=wrapped.otherwise, digits=wrapped.digits
            )
        self.aggregates.append(aggregate)

    # --- expressions -------------------------------------------------------------------------------------------

    def _hide(self, expression: Tree, what: str) -> int:
        """Appends a hidden column and returns a provisional number, `-1 - index`; equal expressions share one."""
        self.functions.refuse_volatile(expression, what)
        for index, known in enumerate(self.hidden if self.shares else ()):
            if known == expression:
                return -1 - index
        self.hidden.append(expression)
        return -len(self.hidden)

    def _sort_keys(self) -> tuple[SortKey, ...]:
        keys = []
        for item, expression in self._order():
            if isinstance(expression, int):
                self.twins = True
                keys.append(self._sort_key(item, expression, None))
            else:
                keys.append(self._sort_key(item, self._hide(expression, "ORDER BY"), expression))
        return tuple(keys)

    def _order(self) -> list[tuple[Tree, Any]]:
        """ORDER BY items with their expressions; an int is an ordinal beyond a star. Constants order nothing."""
        items = []
        for item in self.select.sortClause or ():
            expression = self._ordinal(item.node, "ORDER BY")
            if expression is None:
                expression = self._output_expression(item.node)
            if isinstance(item.node, ast.A_Const) and not isinstance(item.node.val, ast.Integer):
                raise ClientFault("non-integer constant in ORDER BY", sqlstate="42601")
            if not isinstance(expression, ast.A_Const):
                items.append((item, expression))
        return items

    def _sort_key(self, item: Tree, column: int, expression: Tree | None) -> SortKey:
        descending = item.sortby_dir == enums.SortByDir.SORTBY_DESC
        nulls = item.sortby_nulls
        first = (
            descending
            if nulls == enums.SortByNulls.SORTBY_NULLS_DEFAULT
            else (nulls == enums.SortByNulls.SORTBY_NULLS_FIRST)
        )
        return SortKey(column, descending, first, expression is not None and self.columns.is_bytewise(expression))

    def _ordinal(self, node: Tree, what: str) -> Any:
        """The expression behind `ORDER BY 2`, or its index if a star hides it; None if `node` is no ordinal."""
        if not (isinstance(node, ast.A_Const) and isinstance(node.val, ast.Integer)):
            return None
        position = node.val.ival
        targets = self.select.targetList or ()
        starred = any(is_star(t.val) for t in targets[: max(position, 0)])
        if position < 1 or (position > len(targets) and not any(is_star(t.val) for t in targets)):
            raise ClientFault(f"{what} position {position} is not in select list", sqlstate="42P10")
        if starred or position > len(targets):
            return position - 1
        return targets[position - 1].val

    def _output_expression(self, node: Tree) -> Tree:
        """A bare name in ORDER BY or DISTINCT ON means an output column first, then an input column."""
        ordinal = self._ordinal(node, "SELECT DISTINCT ON")
        if ordinal is not None:
            if isinstance(ordinal, int):
                raise refused("an ordinal beyond *")
            return ordinal
        if isinstance(node, ast.ColumnRef) and len(node.fields) == 1 and not is_star(node):
            named = [t.val for t in self.select.targetList or () if output_name(t) == last_name(node)]
            if any(other != named[0] for other in named[1:]):
                raise ClientFault(f'ORDER BY "{last_name(node)}" is ambiguous', sqlstate="42702")
            if named:
                return named[0]
        return node

    def _group_expression(self, node: Tree) -> Tree:
        """A bare name in GROUP BY means an input column first, then an output column."""
        ordinal = self._ordinal(node, "GROUP BY")
        if ordinal is not None:
            if isinstance(ordinal, int):
                raise refused("an ordinal beyond *")
            return ordinal
        if not (isinstance(node, ast.ColumnRef) and len(node.fields) == 1):
            return node
        name = last_name(node)
        named = [t.val for t in self.select.targetList or () if output_name(t) == name and t.val != node]
        if not named or (isinstance(named[0], ast.ColumnRef) and last_name(named[0]) == name):
            return node
        known = [self.knowledge.columns_of(s.schema, s.table) for s in self.columns.sources]
        if any(columns is not None and name in columns for columns in known):
            return node
        if not known or any(columns is None for columns in known) or len(named) > 1:
            raise refused(f"GROUP BY {name}, which may be a column or an alias,")
        return named[0]

    # --- text --------------------------------------------------------------------------------------------------

    def _template(
        self,
        order: object,
        sort: tuple[SortKey, ...],
        group: tuple[int, ...] | None,
        distinct: tuple[int, ...] | None,
    ) -> MergeProgram:
        targets = tuple(self._masked(at, target) for at, target in enumerate(self.select.targetList or ()))
        listed = targets + (targets if self.twins else ())
        listed += self._hidden_targets(order, targets)
        tree = changed(self.select, targetList=listed, sortClause=order, limitCount=None, limitOffset=None)
        tree = changed(tree, limitOption=enums.LimitOption.LIMIT_OPTION_DEFAULT)
        sql, parameters = deparse(tree, parameters_of(self.select))
        return MergeProgram(
            sql=sql,
            parameters=parameters,
            hidden=len(self.hidden),
            twins=self.twins,
            sort=tuple(SortKey(self._at(k.column), k.descending, k.nulls_first, k.bytewise) for k in sort),
            group=None if group is None else tuple(map(self._at, group)),
            aggregates=tuple(
                replace(a, output=self._at(a.output), partials=tuple(map(self._at, a.partials)))
                for a in self.aggregates
            ),
            distinct=None if distinct is None else tuple(map(self._at, distinct)),
        )

    def _masked(self, output: int, target: Tree) -> Tree:
        """A cast of an aggregate shows name and type only: a part may be out of the range that the whole keeps."""
        cast = self.casts.get(output)
        if cast is None:
            return target
        nothing = changed(cast, arg=ast.A_Const(isnull=True))
        case = ast.CaseExpr(args=(ast.CaseWhen(expr=_TRUE, result=nothing),), defresult=cast)
        return ast.ResTarget(name=output_name(target) or "?column?", val=case)

    def _hidden_targets(self, order: Any, targets: tuple[Tree, ...]) -> tuple[Tree, ...]:
        """The hidden columns; one whose own name a bare name in ORDER BY could mean goes by another."""
        said = [item.node for item in order or ()] + list(self.select.distinctClause or ())
        bare = {last_name(node) for node in said if isinstance(node, ast.ColumnRef) and len(node.fields) == 1}
        listed = (*targets, *(ast.ResTarget(val=expression) for expression in self.hidden))
        found = []
        for number, target in enumerate(listed[len(targets) :]):
            name = output_name(target)
            meant = [other.val for other in listed if output_name(other) == name]
            clashes = name in bare and any(value != target.val for value in meant)
            found.append(changed(target, name=f"pgmurmur {number}") if clashes else target)
        return tuple(found)

    def _at(self, column: int) -> int:
        """A provisional number (-1 - index of the hidden column) becomes one from the end of the row."""
        return column if column >= 0 else -1 - column - len(self.hidden)
