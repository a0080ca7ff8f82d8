"""Planning of what reads: SELECT, COPY TO, EXPLAIN, cursors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from node.errors import ClientFault
from node.routing import select
from node.routing.outcome import Combine, MergeProgram, NeedLookup, Outcome, Plan, Refusal, Road
from node.routing.placement import Place, Template, place, template
from node.routing.planning import (
    HINT_UTF8,
    HINT_WAYS_OUT,
    Question,
    by_key,
    differing,
    direct,
    everywhere,
    joined,
    moving_cte,
    reader,
    refuse,
    role_of,
    rules,
    tables_reason,
    volatile_default,
)
from node.routing.select_bounds import unusual_number
from node.routing.shard_map import placed_shards
from node.routing.statement import Kind

if TYPE_CHECKING:
    from node.routing.lexed import Lexed
    from node.routing.select import SelectFacts
    from node.routing.select_sources import Placement
    from node.routing.select_trees import Tree

FACTS_MAX = 32  # texts of one shape whose multi-shard facts are kept
SHAPES_MAX = 16  # and how many facts for all texts, where some of their literals decide something
_DECIMALS = "write it in decimals"


def plan_select(question: Question) -> Outcome:
    built = template(question.statement, question.topology, question.catalog)
    if built.refusal is not None:
        return Refusal(built.refusal)
    if question.statement.modifying_ctes and any(
        r.written for r in (*built.whole, *(s.reference for s in built.slots))
    ):
        return _modifying(question, built)
    if question.statement.tag == "SELECT INTO":
        return _into(question, built)
    return _rows(question, built)


def _rows(question: Question, built: Template) -> Outcome:
    if not built.slots:
        fixed = schema_shards(question)
        if fixed is not None:
            return fixed
        if built.system:
            return direct(question, (0,), "system catalogs are read from one shard")
        refused = reader(question)
        if refused is not None:
            return refused
        reason = "every shard has these tables" if built.whole else "no table"
        return direct(question, (0,), reason, anywhere=True)
    shards = built.shards(question.values, question.topology)
    if not shards:
        return direct(question, (0,), *tables_reason(built, shards), "no row can match", anywhere=True)
    if len(shards) == 1:
        return by_key(question, built, shards)
    return _several(question, built, shards)


def _several(question: Question, built: Template, shards: tuple[int, ...]) -> Outcome:
    if question.topology.cross_shard_disabled:
        return refuse(
            "a query over several shards is disabled here",
            detail=f"it would need shards {joined(shards)}",
            hint="add the sharding key to WHERE, or allow it with cross_shard_disabled = false",
            sqlstate="58000",
        )
    refused = reader(question)
    if refused is not None:
        return refused
    if built.system:
        return refuse("a join of system catalogs with sharded tables is not supported across shards")
    if not built.colocated:
        names = ", ".join(dict.fromkeys(s.reference.name for s in built.slots))
        return refuse(
            "a join of sharded tables on anything but their keys is not supported across shards",
            detail=f"the rows of {names} that belong together may be on different shards",
            hint="join them by their sharding keys, or give one value for all of them",
        )
    if question.values.lexed is None:
        return refuse("a statement without its text is not supported across shards")
    found = _facts(question, built)
    if isinstance(found, Refusal):
        return found
    program = select.program(found, question.values)
    if isinstance(program, Refusal):
        return program
    reasons = (*tables_reason(built, shards), *found.reasons)
    return Plan(shards, found.road, role_of(question), question.statement.locks_rows, Combine.CONCAT, reasons, program)


@dataclass(slots=True)
class _Merging:
    """What is known of a statement's merging, under one map."""

    texts: dict[bytes, SelectFacts | Refusal] = field(default_factory=dict)
    telling: tuple[int, ...] | None = None  # literals that decide something; None: not known yet
    shapes: dict[tuple[bytes, ...], SelectFacts | None] = field(default_factory=dict)  # by what these say


def _facts(question: Question, built: Template) -> SelectFacts | Refusal:
    """Merging depends on constants, too. Where they only travel to the shards the facts are the shape's, which is
    found out when its second text comes; elsewhere they are kept per text, a few for each shape."""
    statement, lexed, catalog = question.statement, question.values.lexed, question.catalog
    assert lexed is not None
    known: _Merging | None = built.merging
    if known is None:
        known = built.merging = _Merging()
    if known.telling is not None and statement.readable(lexed):
        found = known.shapes.get(_said(known, lexed))
        if found is not None:
            return found
    kept = known.texts.get(lexed.sql)
    if kept is not None:
        return kept
    columns = {(slot.reference.schema, slot.reference.name): slot.rule.column for slot in built.slots}

    def placement(schema: str | None, name: str) -> str | None:
        return columns.get((schema, name))

    try:
        tree = statement.tree(lexed)
    except ClientFault as fault:
        return Refusal(fault)
    unusual = next((t for n in range(lexed.literal_count()) if (t := unusual_number(lexed, n))), None)
    if lexed.marks and (known.texts or known.shapes or unusual is not None) and statement.readable(lexed):
        made = _facts_of_shape(known, question, tree, placement)
        if made is not None:
            return made
    facts = select.analyse(tree, placement, catalog)
    if isinstance(facts, select.SelectFacts) and facts.template.sql:
        if unusual is not None:
            # servers before 16 do not know it, and rewritten it would be decimal
            return refuse(f"a number written as {unusual} is not supported in this query across shards", hint=_DECIMALS)
        if not statement.readable(lexed):
            return refuse("a text that is not UTF-8 is not supported in this query across shards", hint=HINT_UTF8)
    if len(known.texts) >= FACTS_MAX:
        known.texts.clear()
    known.texts[lexed.sql] = facts
    return facts


def _facts_of_shape(
    known: _Merging, question: Question, tree: Tree, placement: Placement
) -> SelectFacts | Refusal | None:
    """Made once for all texts in which the telling literals say the same; None: it was or is found impossible."""
    statement, lexed = question.statement, question.values.lexed
    assert lexed is not None
    if known.telling is None:
        marked = statement.marked_tree(lexed)
        known.telling = () if marked is None else select.telling(marked)
    said = _said(known, lexed)
    if said in known.shapes or len(known.shapes) >= SHAPES_MAX:
        return known.shapes.get(said)
    found: SelectFacts | Refusal | None = None
    marked = statement.marked_tree(lexed, known.telling)
    if marked is not None and not any(unusual_number(lexed, ordinal) for ordinal in known.telling):
        found = select.for_shape(marked, tree, lexed, placement, question.catalog)
    if not isinstance(found, Refusal):
        known.shapes[said] = found
    return found


def _said(known: _Merging, lexed: Lexed) -> tuple[bytes, ...]:
    return tuple(map(lexed.literal_text, known.telling or ()))


def _modifying(question: Question, built: Template) -> Outcome:
    refused = rules(question)
    if refused is not None:
        return refused
    written = [r for r in built.whole if r.written]
    if written and not built.slots:
        for reference in written:
            refused = volatile_default(question, reference.schema, reference.name, ())
            if refused is not None:
                return refused
        what = differing(question.statement, question.catalog)
        if what is not None:
            return refuse(
                f"{what} in a write to a table that every shard has is not supported across shards",
                detail="each shard would store another value",
                hint="pass the value as a parameter",
            )
        return everywhere(question, "the tables it writes are on every shard")
    if written:
        return refuse(f'writing "{written[0].name}", which every shard has, together with sharded tables in WITH')
    refused = moving_cte(question, built)
    if refused is not None:
        return refused
    shards = built.shards(question.values, question.topology)
    if len(shards) <= 1:
        return by_key(question, built, shards or (0,))
    return refuse("a data-modifying WITH is not supported across shards", hint="give one value for every sharding key")


def _into(question: Question, built: Template) -> Outcome:
    if not built.slots and not built.system:
        what = differing(question.statement, question.catalog)
        if what is None:
            return reader(question) or everywhere(question, "every shard has these tables", road=Road.DDL)
        return refuse(f"{what} in SELECT INTO is not supported across shards")
    return refuse(
        "SELECT INTO from sharded tables is not supported across shards",
        hint="create the table, configure its sharding key and use INSERT ... SELECT",
    )


def schema_shards(question: Question) -> Plan | Refusal | None:
    """Sharding by schema: the shard of the tables' schemas. None: it decides nothing here."""
    topology, statement = question.topology, question.statement
    if not topology.schemas or not statement.tables:
        return None
    fixed: set[int] = set()
    everywhere_written = False
    path = question.hints.search_path or question.catalog.search_path
    for reference in statement.tables:
        entry = None
        if reference.schema is None and question.catalog.uncertain:
            return refuse(
                f'the name "{reference.name}" without its schema is not supported across shards here',
                detail="search_path was changed in this transaction",
            )
        for schema in (reference.schema,) if reference.schema else path:
            entry = topology.schema_shard(schema)
            if entry is not None and entry.name is not None:
                break
        if entry is None:
            return None
        if entry.shard is not None:
            fixed.add(entry.shard)
        elif reference.written:
            everywhere_written = True
    if len(fixed) > 1 or (fixed and everywhere_written):
        return refuse("a statement over schemas of different shards is not supported across shards")
    if fixed:
        return direct(question, tuple(fixed), f"schema → shard {joined(tuple(fixed))}")
    if everywhere_written:
        return everywhere(question, "schema → every shard")
    return direct(question, (0,), "schema → every shard", anywhere=True)


def plan_inner(question: Question, what: str) -> Outcome:
    """EXPLAIN, DECLARE: where the inner statement goes, if that is one shard."""
    from node.routing.plan import plan

    statement = question.statement
    assert statement.inner is not None
    found = plan(statement.inner, question.values, question.hints, question.topology, question.catalog)
    if not isinstance(found, Plan):
        return found
    if found.single:
        return replace(direct(question, found.shards, *found.reasons), anywhere=found.anywhere)
    if statement.kind == Kind.EXPLAIN and not statement.analyze and found.combine == Combine.FIRST:
        return direct(question, (0,), *found.reasons, "shown for one of the shards", anywhere=True)
    return refuse(
        f"{what} is not supported across shards",
        detail=f"the statement would run on shards {joined(found.shards)}",
        hint=f"give one value for the sharding key, or {HINT_WAYS_OUT}",
    )


def plan_copy_to(question: Question) -> Outcome:
    from node.routing.plan import plan

    statement = question.statement
    assert statement.copy is not None
    if statement.copy.server_file:
        return refuse("COPY to a file of the server is not supported across shards", hint="use COPY ... TO STDOUT")
    if statement.inner is not None:
        found = plan(statement.inner, question.values, question.hints, question.topology, question.catalog)
        if isinstance(found, (Refusal, NeedLookup)) or found.single:
            return found
        program = found.program
        if found.road == Road.PUSHDOWN and isinstance(program, MergeProgram) and _is_plain(program):
            return replace(found, program=None)
        return refuse(
            "COPY of a query whose rows must be merged is not supported across shards",
            hint="run the query itself, or copy without ORDER BY, LIMIT and aggregates",
        )
    reference = statement.tables[0]
    mentioned = frozenset(statement.copy.columns or ())
    where, rule = place(reference.schema, reference.name, question.topology, question.catalog, mentioned)
    if rule is not None:
        shards = placed_shards(rule, question.topology.shards)
        reason = f"{reference.name}: all rows of shards {joined(shards)}"
        return Plan(shards, Road.PUSHDOWN, role_of(question), False, Combine.CONCAT, (reason,))
    if where in (Place.OPAQUE, Place.UNKNOWN):
        return refuse(f'COPY of "{reference.name}" is not supported across shards')
    return schema_shards(question) or direct(question, (0,), f"every shard has {reference.name}", anywhere=True)


def _is_plain(program: MergeProgram) -> bool:
    """The shards' rows one after the other are the answer."""
    merges = program.sort or program.group or program.aggregates or program.distinct is not None or program.hidden
    return not (merges or program.twins or program.limit is not None or program.offset)
