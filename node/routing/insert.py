"""Planning of INSERT: each row goes to the shard of its key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pglast import ast, parse_sql

from node.errors import ClientFault
from node.routing.facts import facts
from node.routing.keys import inserted
from node.routing.operands import Parameter
from node.routing.outcome import (
    Combine,
    InsertSelectProgram,
    NeedLookup,
    Outcome,
    Plan,
    Refusal,
    Road,
    Role,
    SplitPart,
    SplitProgram,
    Values,
)
from node.routing.placement import Place, place, template
from node.routing.planning import (
    HINT_UTF8,
    Question,
    differing,
    direct,
    everywhere,
    joined,
    reader,
    refuse,
    volatile_default,
)
from node.routing.point import made
from node.routing.reads import schema_shards
from node.routing.rewrite import copy, nodes, render, renumbered
from node.routing.scopes import Reference
from node.routing.shard_map import KeyValue, shard_of
from node.routing.splice import rows_of
from node.routing.statement import DEFAULT, UNKNOWN, Cell, Insert
from node.routing.stored import AS_GIVEN, Stored, stored_key
from node.routing.topology import ShardedTable
from node.routing.writes import unmapped

ROWS_MAX = 100_000  # rows of one INSERT that are taken apart


def plan_insert(question: Question) -> Outcome:
    statement = question.statement
    target, insert = statement.target, statement.insert
    assert target is not None
    assert insert is not None
    mentioned = frozenset(insert.columns or ())
    where, rule = place(target.schema, target.name, question.topology, question.catalog, mentioned)
    if where == Place.OPAQUE:
        return refuse(f'INSERT into view "{target.name}" is not supported across shards')
    if where == Place.UNKNOWN:
        built = template(statement, question.topology, question.catalog)
        return Refusal(built.refusal) if built.refusal is not None else refuse("INSERT into an unknown table")
    if rule is None:
        return _whole(question, target, insert)
    if statement.modifying_ctes:
        return refuse("a data-modifying WITH is not supported across shards")
    if rule.column in insert.conflict_assigns:
        return refuse(
            f'updating the sharding key "{rule.column}" in ON CONFLICT is not supported across shards',
            detail=f'the row of "{target.name}" might have to move to another shard',
        )
    columns = insert.columns
    if columns is None:
        table = question.catalog.table(target.schema, target.name)
        if table is None:
            return refuse(
                f'INSERT into sharded table "{target.name}" needs a column list',
                detail="the catalog of this node does not know the table's columns",
                hint="name the columns, or RELOAD to read the catalog again",
            )
        columns = tuple(c.name for c in table.columns)
    if insert.rows is None:
        return _select(question, target, insert, columns, rule)
    if _subqueries(question, target):
        return refuse("a subquery in INSERT ... VALUES is not supported across shards", hint="use INSERT ... SELECT")
    return _rows(question, target, insert, columns, rule)


def _subqueries(question: Question, target: Reference) -> bool:
    """Tables other than the target, read by expressions of the rows, that are not on every shard."""
    for reference in question.statement.tables:
        if reference.index != target.index:
            where, _ = place(reference.schema, reference.name, question.topology, question.catalog)
            if where != Place.WHOLE:
                return True
    return False


# --- rows that are written out --------------------------------------------------------------------------------------


def _rows(
    question: Question, target: Reference, insert: Insert, columns: tuple[str, ...], rule: ShardedTable
) -> Outcome:
    at = columns.index(rule.column) if rule.column in columns else -1
    shards: list[int] = []
    cell: Cell = DEFAULT
    values = question.values
    stored = stored_key(question.catalog, target.schema, target.name, rule)
    loose = template(question.statement, question.topology, question.catalog).loose
    if loose:
        values = replace(values, loose=loose)
    for row in insert.rows or ((),):
        cell = row[at] if 0 <= at < len(row) else DEFAULT
        found = _row_shard(question, target, rule, cell, values, stored)
        if isinstance(found, Refusal):
            return found
        shards.append(found)
    needed = tuple(sorted(set(shards)))
    if len(needed) == 1:
        many = f"{len(shards)} rows" if len(shards) > 1 else "the row"
        plan = direct(question, needed, f"{target.name}: {rule.column} of {many} → shard {needed[0]}")
        if len(shards) == 1 and question.hints.role is None:
            _learn(question, target, rule, cell, plan)
        return plan
    if question.topology.cross_shard_disabled:
        return refuse("an INSERT over several shards is disabled here", sqlstate="58000", hint="insert row by row")
    refused = reader(question)
    if refused is not None:
        return refused
    return _split(question, target, insert, rule, shards, needed)


def _learn(question: Question, target: Reference, rule: ShardedTable, cell: Cell, plan: Plan) -> None:
    """Any other key of the only row that lives on this shard has the same answer."""
    statement = question.statement
    built = template(statement, question.topology, question.catalog)
    loose = isinstance(cell, Parameter) and cell.number in built.loose
    if built.point is None and not loose and not stored_key(question.catalog, target.schema, target.name, rule).changes:
        built.point = made(cell, rule, question.topology, question.catalog, bound=statement.parameters > 0)
    if built.point is not None:
        built.point.learn(plan)


def _row_shard(
    question: Question, target: Reference, rule: ShardedTable, cell: Cell, values: Values, stored: Stored
) -> int | Refusal:
    if cell == UNKNOWN:
        return refuse(
            f'an expression as sharding key "{rule.column}" of "{target.name}" is not supported across shards',
            detail="the node must know the key's value to find the shard",
            hint="pass the value as a parameter or a literal",
        )
    value: KeyValue | None = None
    if isinstance(cell, str):
        refused = _default_key(question, target, rule)
        if refused is not None:
            return refused
    else:
        try:
            value = stored.kept(inserted(cell, rule, values, stored))
        except LookupError:
            return refuse(
                f'the value of sharding key "{rule.column}" of "{target.name}" cannot be read',
                detail=f"it does not look like {rule.data_type}",
                hint="pass it as a plain parameter or literal of the column's type",
            )
    shard = shard_of(rule, value, question.topology.shards)
    if shard is None:
        return Refusal(unmapped(rule, target.name, "NULL" if value is None else repr(value)))
    return shard


def _default_key(question: Question, target: Reference, rule: ShardedTable) -> Refusal | None:
    """A row without its key: fine only if that surely means NULL."""
    table = question.catalog.table(target.schema, target.name)
    column = table.column(rule.column) if table is not None else None
    if column is not None and not column.default and not column.identity and not column.generated:
        return None
    return refuse(
        f'INSERT into "{target.name}" without its sharding key "{rule.column}" is not supported across shards',
        detail="a default would be computed by a shard, but it decides which shard that is",
        hint=f'give a value for "{rule.column}"',
    )


def _split(
    question: Question,
    target: Reference,
    insert: Insert,
    rule: ShardedTable,
    shards: list[int],
    needed: tuple[int, ...],
) -> Outcome:
    lexed = question.values.lexed
    if lexed is None or len(shards) > ROWS_MAX:
        return refuse(f"an INSERT of {len(shards)} rows is not supported across shards", hint="use COPY")
    if not question.statement.readable(lexed):
        return _other_encoding()
    written = rows_of(lexed)
    if written is None or len(written.spans) != len(shards):
        written = None
        tree = question.statement.tree(lexed)
        listed = tree.selectStmt.valuesLists
    parts = []
    for shard in needed:
        rows = tuple(row for row, at in enumerate(shards) if at == shard)
        if written is not None:
            text, parameters = written.only(rows)
        else:
            values = copy(tree.selectStmt, valuesLists=tuple(listed[row] for row in rows))
            part, parameters = renumbered(copy(tree, selectStmt=values))
            text = render(part)
        parts.append(SplitPart(shard, text, rows, parameters))
    reason = f"{target.name}: {len(shards)} rows by {rule.column} → shards {joined(needed)}"
    program = SplitProgram(tuple(parts), insert.returning)
    return Plan(needed, Road.SPLIT, Role.PRIMARY, True, Combine.SUM, (reason,), program)


# --- rows that a query gives ------------------------------------------------------------------------------------------


def _select(
    question: Question, target: Reference, insert: Insert, columns: tuple[str, ...], rule: ShardedTable | None
) -> Outcome:
    from node.routing.plan import plan

    lexed = question.values.lexed
    if lexed is None:
        return refuse("INSERT ... SELECT without its text is not supported across shards")
    tree = question.statement.tree(lexed)
    if not question.statement.readable(lexed):
        return _other_encoding()
    if tree.withClause is not None:
        return refuse(
            "WITH before INSERT ... SELECT is not supported across shards", hint="write WITH inside the SELECT"
        )
    source, parameters = renumbered(tree.selectStmt)
    width = len(source.targetList or ())
    if insert.columns is None and width and not _has_star(source):
        columns = columns[:width]
    inner = facts(source, 0, False)
    text = render(source)
    routed = plan(inner, _inner_values(question, text, parameters), question.hints, question.topology, question.catalog)
    if isinstance(routed, (Refusal, NeedLookup)):
        return routed
    if rule is not None and rule.column not in columns:
        refused = _default_key(question, target, rule)
        if refused is not None:
            return refused
    ending = _ending(tree, columns)
    if ending is None:
        return refuse("parameters in ON CONFLICT or RETURNING of INSERT ... SELECT are not supported across shards")
    program = InsertSelectProgram(
        text, parameters, routed, target.schema, target.name, columns,
        columns.index(rule.column) if rule is not None and rule.column in columns else -1,
        rule, *ending, insert.returning,
        AS_GIVEN if rule is None else stored_key(question.catalog, target.schema, target.name, rule),
    )  # fmt: skip
    reason = (
        f"{target.name}: rows of the query go by {rule.column}" if rule is not None else f"{target.name}: every shard"
    )
    reasons = (reason, *(f"query: {r}" for r in routed.reasons))
    combine = Combine.SUM if rule is not None else Combine.FIRST
    return Plan(question.every_shard, Road.SPLIT, Role.PRIMARY, True, combine, reasons, program)


def _other_encoding() -> Refusal:
    """What is rewritten is sent as UTF-8: in another encoding the server would store other characters."""
    return refuse("a text that is not UTF-8 is not supported in this INSERT across shards", hint=HINT_UTF8)


def _has_star(select: Any) -> bool:
    return any(isinstance(node, ast.A_Star) for node in nodes(select.targetList))


def _inner_values(question: Question, text: str, parameters: tuple[int, ...]) -> Values:
    from node.routing.lexer import lex

    values = question.values
    given, types, formats = values.parameters, values.types, values.formats
    every = formats[0] if len(formats) == 1 else 0
    return Values(
        lex(text.encode()),
        None if given is None else [given[p] if p < len(given) else None for p in parameters],
        [formats[p] if len(formats) > 1 and p < len(formats) else every for p in parameters],
        [types[p] if p < len(types) else 0 for p in parameters],
    )


def _ending(tree: Any, columns: tuple[str, ...]) -> tuple[str, str] | None:
    """What stands before and behind the rows: `INSERT INTO t (a, b) VALUES ` and ` ON CONFLICT ...`."""
    if any(isinstance(node, ast.ParamRef) for node in nodes(tree.onConflictClause, tree.returningClause)):
        return None
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    marker = "(" + ", ".join(f"${at + 1}" for at in range(len(columns))) + ")"
    pattern: Any = parse_sql(f"INSERT INTO t ({names}) VALUES {marker}")[0].stmt
    text = render(copy(tree, cols=pattern.cols if tree.cols is None else tree.cols, selectStmt=pattern.selectStmt))
    head, found, tail = text.partition(marker)
    if not found:
        raise ClientFault("INSERT ... SELECT of this form is not supported across shards", sqlstate="0A000")
    return head, tail


# --- tables that every shard has ------------------------------------------------------------------------------------


def _whole(question: Question, target: Reference, insert: Insert) -> Outcome:
    statement = question.statement
    fixed = schema_shards(question)
    if fixed is not None:
        return fixed
    if target.schema in ("pg_catalog", "information_schema"):
        return direct(question, (0,), "system catalog")
    what = differing(statement, question.catalog)
    if what is not None:
        return refuse(
            f'{what} in INSERT into "{target.name}", which every shard has, is not supported across shards',
            detail="each shard would store another value",
            hint="pass the value as a parameter or a literal",
        )
    refused = reader(question)
    if refused is not None:
        return refused
    table = question.catalog.table(target.schema, target.name)
    columns = insert.columns
    if columns is None and table is not None and insert.rows:
        columns = tuple(c.name for c in table.columns)[: len(insert.rows[0])]
    given = () if insert.rows == () else columns
    if insert.rows:  # DEFAULT in a row is as good as leaving the column out
        defaults = {i for row in insert.rows for i, cell in enumerate(row) if cell == DEFAULT}
        given = tuple(c for i, c in enumerate(columns or ()) if i not in defaults) if columns is not None else None
    if insert.conflict_assigns and statement.sets_default:
        given = ()
    refused = volatile_default(question, target.schema, target.name, given)
    if refused is not None:
        return refused
    if any(r.index != target.index for r in statement.tables):
        others = [r for r in statement.tables if r.index != target.index]
        places = {place(r.schema, r.name, question.topology, question.catalog)[0] for r in others}
        if places - {Place.WHOLE}:
            if insert.rows is None and insert.columns is not None and not statement.modifying_ctes:
                return _select(question, target, insert, insert.columns, None)
            return refuse(
                f'INSERT into "{target.name}", which every shard has, from sharded tables is not supported',
                hint="name the columns and use a plain INSERT ... SELECT",
            )
        if any(level.whole for level in statement.levels):
            return refuse("INSERT ... SELECT with LIMIT, DISTINCT or aggregates into a table that every shard has")
    return everywhere(question, f"{target.name} is on every shard")
