"""Planning of what writes, other than INSERT: UPDATE, DELETE, MERGE, COPY FROM, DDL and the rest of the commands."""

from __future__ import annotations

from dataclasses import replace

from node.errors import ClientFault
from node.routing.keys import inserted
from node.routing.outcome import Combine, CopyProgram, Outcome, Plan, Refusal, Road, Role
from node.routing.placement import Place, Slot, Template, place, template
from node.routing.planning import (
    HINT_WAYS_OUT,
    Question,
    by_key,
    differing,
    direct,
    everywhere,
    moving_cte,
    reader,
    refuse,
    tables_reason,
    volatile_default,
)
from node.routing.reads import schema_shards
from node.routing.shard_map import shard_of
from node.routing.statement import Kind
from node.routing.stored import stored_key
from node.routing.topology import ShardedTable


def plan_modify(question: Question) -> Outcome:
    """UPDATE and DELETE; MERGE into tables that every shard has."""
    statement = question.statement
    built = template(statement, question.topology, question.catalog)
    if built.refusal is not None:
        return Refusal(built.refusal)
    target = statement.target
    slot = next((s for s in built.slots if target is not None and s.reference.index == target.index), None)
    if slot is None:
        return _modify_whole(question, built)
    if statement.kind == Kind.MERGE:
        return refuse(
            "MERGE into a sharded table is not supported across shards",
            hint=f"use INSERT ... ON CONFLICT, or {HINT_WAYS_OUT}",
        )
    if any(r.written for r in built.whole):
        return refuse("writing a table that every shard has together with sharded tables in WITH")
    shards = built.shards(question.values, question.topology)
    refused = _key_assignment(question, slot, shards) or moving_cte(question, built)
    if refused is not None:
        return refused
    if not shards:
        return direct(question, (0,), *tables_reason(built, shards), "no row can match", anywhere=True)
    if len(shards) == 1:
        if any(name == slot.rule.column for name, _ in statement.assigns):
            return direct(question, shards, *tables_reason(built, shards))  # another key may be assigned next time
        return by_key(question, built, shards)
    return _modify_several(question, built, shards)


def _modify_several(question: Question, built: Template, shards: tuple[int, ...]) -> Outcome:
    statement = question.statement
    if question.topology.cross_shard_disabled:
        return refuse("a write over several shards is disabled here", sqlstate="58000", hint="give the sharding key")
    if statement.modifying_ctes:
        return refuse("a data-modifying WITH is not supported across shards")
    refused = reader(question)
    if refused is not None:
        return refused
    if statement.system_columns:
        return refuse("a system column in a write is not supported across shards")
    if built.system:
        return refuse(f"{statement.tag} with system catalogs is not supported across shards")
    whole = any(level.whole for level in statement.levels)
    if not built.colocated or (whole and len(built.slots) > 1):
        return refuse(
            f"{statement.tag} with a subquery or join over sharded tables is not supported across shards",
            detail="rows that belong together may be on different shards",
            hint="join by the sharding keys, or give one value for all of them",
        )
    return Plan(shards, Road.DIRECT, Role.PRIMARY, True, Combine.SUM, tables_reason(built, shards))


def _modify_whole(question: Question, built: Template) -> Outcome:
    statement = question.statement
    fixed = schema_shards(question)
    if fixed is not None:
        return fixed
    name = statement.target.name if statement.target is not None else "?"
    if statement.target is not None and statement.target in built.system:
        return direct(question, (0,), "system catalog")
    if built.slots or built.system:
        return refuse(
            f'writing "{name}", which every shard has, from the rows of sharded tables is not supported across shards',
            detail="each shard would see only its own rows",
        )
    if len(statement.levels) > 1 and any(level.whole for level in statement.levels):
        return refuse(f'a subquery with LIMIT, DISTINCT or GROUP BY in a write to "{name}", which every shard has')
    refused = reader(question)
    if refused is None and statement.target is not None and statement.sets_default:
        refused = volatile_default(question, statement.target.schema, name, ())
    if refused is not None:
        return refused
    what = differing(statement, question.catalog)
    if what is not None:
        return refuse(
            f'{what} in a write to "{name}", which every shard has, is not supported across shards',
            detail="each shard would store another value",
            hint="pass the value as a parameter or a literal",
        )
    return everywhere(question, f"{name} is on every shard")


def _key_assignment(question: Question, slot: Slot, shards: tuple[int, ...]) -> Refusal | None:
    """An UPDATE may assign the key only what keeps the row where it is."""
    rule = slot.rule
    loose = template(question.statement, question.topology, question.catalog).loose
    for name, operand in question.statement.assigns:
        if name != rule.column or question.topology.rewrite_shard_key == "ignore":
            continue
        if operand is not None and len(shards) <= 1:
            try:
                values = replace(question.values, loose=loose)
                value = slot.stored.kept(inserted(operand, rule, values, slot.stored))
            except LookupError:
                value = None
            else:
                if not shards or shard_of(rule, value, question.topology.shards) == shards[0]:
                    continue
        return refuse(
            f'updating the sharding key "{rule.column}" of "{slot.reference.name}" is not supported across shards',
            detail="the row would have to move to another shard",
            hint="delete the row and insert it again in one transaction",
        )
    return None


def plan_copy_from(question: Question) -> Outcome:
    statement = question.statement
    reference, copy = statement.tables[0], statement.copy
    assert copy is not None
    if copy.server_file:
        return refuse("COPY from a file of the server is not supported across shards", hint="use COPY ... FROM STDIN")
    mentioned = frozenset(copy.columns or ())
    where, rule = place(reference.schema, reference.name, question.topology, question.catalog, mentioned)
    if rule is None:
        if where in (Place.OPAQUE, Place.UNKNOWN):
            return refuse(f'COPY into "{reference.name}" is not supported across shards')
        fixed = schema_shards(question)
        if fixed is not None:
            return fixed
        refused = volatile_default(question, reference.schema, reference.name, copy.columns)
        return refused or everywhere(question, f"{reference.name} is on every shard")
    columns = copy.columns or _columns(question, reference.schema, reference.name)
    if columns is None:
        return _unknown_columns(reference.name, "COPY")
    if rule.column not in columns:
        return refuse(
            f'COPY into "{reference.name}" without its sharding key "{rule.column}" is not supported across shards'
        )
    program = CopyProgram(
        reference.schema, reference.name, columns, columns.index(rule.column), rule, copy.format, copy.options,
        stored_key(question.catalog, reference.schema, reference.name, rule),
    )  # fmt: skip
    shards = question.every_shard
    reason = f"{reference.name}: rows go by {rule.column}"
    return Plan(shards, Road.SPLIT, Role.PRIMARY, True, Combine.SUM, (reason,), program)


def _columns(question: Question, schema: str | None, name: str) -> tuple[str, ...] | None:
    table = question.catalog.table(schema, name)
    return None if table is None else tuple(c.name for c in table.columns if not c.generated)


def _unknown_columns(name: str, what: str) -> Refusal:
    return refuse(
        f'{what} into sharded table "{name}" needs a column list',
        detail="the catalog of this node does not know the table's columns",
        hint="name the columns, or RELOAD to read the catalog again",
    )


def plan_ddl(question: Question) -> Outcome:
    statement = question.statement
    if statement.inner is not None:  # CREATE TABLE AS, CREATE MATERIALIZED VIEW
        built = template(statement, question.topology, question.catalog)
        if built.refusal is not None:
            return Refusal(built.refusal)
        what = differing(statement, question.catalog)
        if built.slots or built.system:
            shards = built.shards(question.values, question.topology) if built.slots else ()
            if statement.temporary and len(shards) == 1 and not built.system:
                return direct(question, shards, *tables_reason(built, shards))
            return refuse(
                f"{statement.tag} from sharded tables is not supported across shards",
                hint="create the table, configure its sharding key and use INSERT ... SELECT",
            )
        if what is not None:
            return refuse(f"{what} in {statement.tag} is not supported across shards")
        refused = reader(question)
        if refused is not None:
            return refused
    fixed = schema_shards(question)
    if isinstance(fixed, Plan) and fixed.single and not fixed.anywhere:
        return fixed
    return everywhere(question, f"{statement.tag} on every shard", road=Road.DDL)


def plan_command(question: Question) -> Outcome:
    """Everything without rows."""
    statement = question.statement
    match statement.kind:
        case Kind.PREPARE_TRANSACTION | Kind.COMMIT_PREPARED | Kind.ROLLBACK_PREPARED:
            return refuse(
                f"{statement.tag} is not supported across shards",
                detail="the node itself commits over several shards in two phases",
                hint=HINT_WAYS_OUT,
            )
        case Kind.SHOW | Kind.EMPTY:
            return direct(question, (0,), "any shard can tell", anywhere=True)
        case Kind.LISTEN | Kind.UNLISTEN | Kind.NOTIFY:
            return direct(question, (0,), "channels are on one shard")
        case Kind.FETCH | Kind.CLOSE:
            return direct(question, (0,), "the shard that has the cursor", anywhere=True)
        case Kind.CALL | Kind.DO | Kind.EXECUTE | Kind.OTHER:
            return refuse(
                f"{statement.tag or 'this statement'} is not supported across shards",
                detail="nothing tells which shards it needs",
                hint=HINT_WAYS_OUT,
            )
        case Kind.VACUUM | Kind.TRUNCATE | Kind.LOCK | Kind.CHECKPOINT | Kind.LOAD:
            return everywhere(question, f"{statement.tag} on every shard", road=Road.DDL)
    return everywhere(question, f"{statement.tag} on every shard", writes=False)


def unmapped(rule: ShardedTable, name: str, shown: str) -> ClientFault:
    return ClientFault(
        f'no shard for the sharding key "{rule.column}" of "{name}"',
        sqlstate="58000",
        detail=f"the mapping has no entry for {shown}",
        hint="add the value or a default to the mapping",
    )
