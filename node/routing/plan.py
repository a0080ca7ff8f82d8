"""Where does a statement go, and how does its answer come together: `plan`, a pure function of its arguments.

The questions, in order; the first that has an answer decides and leaves its reason in the plan:
one shard only → a hint → what kind of statement it is → which tables → which keys → which road.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from node.errors import ClientFault
from node.routing.catalog import Catalog
from node.routing.hints import Hints
from node.routing.insert import plan_insert
from node.routing.keys import TARGETS
from node.routing.outcome import (
    Aggregate,
    Combine,
    CopyProgram,
    InsertSelectProgram,
    MergeProgram,
    NeedLookup,
    Outcome,
    Plan,
    Program,
    Refusal,
    Road,
    Role,
    SortKey,
    SplitPart,
    SplitProgram,
    Values,
)
from node.routing.placement import template
from node.routing.planning import HINT_WAYS_OUT, Question, direct, lookup_refusal, reads_only, refuse, rules
from node.routing.reads import plan_copy_to, plan_inner, plan_select, schema_shards
from node.routing.remembered import Remembered
from node.routing.shard_map import KeyValue, shard_of
from node.routing.statement import Kind, Statement
from node.routing.topology import DataType, Topology
from node.routing.typed import text_value
from node.routing.writes import plan_command, plan_copy_from, plan_ddl, plan_modify, unmapped

__all__ = [
    "Aggregate",
    "Combine",
    "CopyProgram",
    "InsertSelectProgram",
    "MergeProgram",
    "NeedLookup",
    "Outcome",
    "Plan",
    "Program",
    "Refusal",
    "Road",
    "Role",
    "SortKey",
    "SplitPart",
    "SplitProgram",
    "Values",
    "plan",
    "plan_all",
    "plan_unparsed",
]

_ONE = (0,)
_SINGLE = {
    (role, writes): Plan(_ONE, Road.DIRECT, role, writes, Combine.ONE, ("one shard",))
    for role in Role
    for writes in (False, True)
}
_remembered = Remembered()
_ROWS = frozenset((Kind.SELECT, Kind.INSERT, Kind.UPDATE, Kind.DELETE, Kind.MERGE))


def plan(
    statement: Statement, values: Values, hints: Hints, topology: Topology, catalog: Catalog
) -> Plan | NeedLookup | Refusal:
    """Never raises for anything a client can send; unreadable key values are Refusals with PostgreSQL's SQLSTATE."""
    if topology.shards == 1 and not hints.shard:
        reads = reads_only(statement, catalog)
        any_role = reads if hints.role is None else hints.role == "replica"
        return _SINGLE[Role.ANY if any_role else Role.PRIMARY, not reads]
    key = _remembered.key(statement, values, hints, topology)
    if key is not None:
        known = _remembered.find(key[0], statement, topology, catalog)
        if known is not None:
            return known
    question = Question(statement, values, hints, topology, catalog)
    try:
        outcome = _plan(question)
        if key is not None and type(outcome) is Plan and (len(outcome.shards) > 1 or outcome.program is not None):
            _remembered.keep(*key, statement, topology, catalog, outcome)
        return outcome
    except ClientFault as fault:
        return Refusal(fault)
    except RecursionError:
        return Refusal(ClientFault("stack depth limit exceeded", sqlstate="54001"))


def plan_all(
    statements: Sequence[Statement], values: Values, hints: Hints, topology: Topology, catalog: Catalog
) -> list[Outcome]:
    """One outcome for a whole simple query if one shard serves all of it, else one for each statement."""
    outcomes: list[Outcome] = [
        plan(s, replace(values, part=at), hints, topology, catalog) for at, s in enumerate(statements)
    ]
    plans = [o for o in outcomes if isinstance(o, Plan)]
    if len(plans) < len(outcomes) or len(plans) < 2:
        return outcomes
    fixed = {p.shards for p in plans if not p.anywhere and not _follows(statements[plans.index(p)])}
    if len(fixed) > 1 or any(len(shards) != 1 for shards in fixed):
        return outcomes
    shards = next(iter(fixed), plans[0].shards if plans[0].single else _ONE)
    role = Role.PRIMARY if any(p.role == Role.PRIMARY for p in plans) else Role.ANY
    reasons = tuple(dict.fromkeys(r for p in plans for r in p.reasons))
    return [Plan(shards, Road.DIRECT, role, any(p.writes for p in plans), Combine.ONE, reasons)]


def _follows(statement: Statement) -> bool:
    """BEGIN, COMMIT and settings go where the rest goes."""
    control = (Kind.BEGIN, Kind.COMMIT, Kind.ROLLBACK, Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)
    return statement.kind in (*control, Kind.SET, Kind.RESET)


def plan_unparsed(fault: ClientFault, hints: Hints, topology: Topology) -> Outcome:
    """For text that the parser rejects: another dialect, or a mistake that PostgreSQL explains best."""
    if topology.shards == 1:
        return _SINGLE[Role.PRIMARY, True]
    if hints.shard is not None or hints.sharding_key is not None:
        question = Question(Statement(Kind.OTHER, ""), Values(), hints, topology, Catalog.EMPTY)
        try:
            found = _hinted(question)
        except ClientFault as wrong:
            return Refusal(wrong)
        return found if found is not None else Refusal(fault)
    return Refusal(
        ClientFault(
            fault.message,
            sqlstate=fault.sqlstate,
            position=fault.position,
            detail="the statement could not be read, so nothing tells which shards it needs",
            hint=f"if it is right for the server's dialect, {HINT_WAYS_OUT}",
        )
    )


def _plan(question: Question) -> Outcome:
    hinted = _hinted(question)
    if hinted is not None:
        return hinted
    statement = question.statement
    if statement.tables and question.topology.has_lookups:
        return lookup_refusal()
    if statement.parameters and question.values.parameters is None and statement.kind in _ROWS:
        fixed = schema_shards(question)
        if isinstance(fixed, Plan):
            return fixed
        return direct(question, _ONE, "parameters are not bound yet: any shard can describe it", anywhere=True)
    match statement.kind:
        case Kind.SELECT:
            return plan_select(question)
        case Kind.INSERT:
            return rules(question) or plan_insert(question)
        case Kind.UPDATE | Kind.DELETE | Kind.MERGE:
            return rules(question) or plan_modify(question)
        case Kind.COPY_FROM:
            return plan_copy_from(question)
        case Kind.COPY_TO:
            return plan_copy_to(question)
        case Kind.DDL:
            return plan_ddl(question)
        case Kind.EXPLAIN | Kind.DECLARE:
            return plan_inner(question, statement.tag)
    return plan_command(question)


def _hinted(question: Question) -> Outcome | None:
    hints, topology = question.hints, question.topology
    if hints.shard is None and hints.sharding_key is None:
        return None
    shard: int | None = hints.shard
    reason = f"hint: shard {shard}"
    if shard is None and hints.sharding_key is not None:
        found = _hinted_key(hints.sharding_key, topology)
        if isinstance(found, Refusal):
            return found
        shard = found
        reason = f"hint: sharding key {hints.sharding_key} → shard {shard}"
    if shard is None:
        return refuse("the hint names no shard", sqlstate="22023")
    if shard >= topology.shards:
        return refuse(
            f"there is no shard {shard}",
            detail=f'database "{topology.database}" has {topology.shards}',
            sqlstate="22023",
        )
    statement = question.statement
    writes = statement.kind in (Kind.INSERT, Kind.UPDATE, Kind.DELETE, Kind.MERGE, Kind.COPY_FROM)
    if writes and statement.target is not None and not topology.schemas:
        built = template(statement, topology, question.catalog)
        listed = topology.is_omnisharded(statement.target.schema, statement.target.name)
        if listed and statement.target in built.whole:
            return refuse("cannot write to an omnisharded table with a shard directive", sqlstate="58000")
    return direct(question, (shard,), reason)


def _hinted_key(key: str, topology: Topology) -> int | Refusal:
    rules = topology.sharding_functions
    if len(rules) != 1:
        detail = "config has more than one sharding function" if rules else "no table is sharded"
        return refuse("a sharding key alone does not name a shard here", detail=detail, sqlstate="58000")
    rule = rules[0]
    value: KeyValue
    if rule.data_type == DataType.VECTOR:
        value = tuple(float(part) for part in key.strip("[] ").split(","))
    elif rule.data_type == DataType.VARCHAR:
        value = key.encode()
    else:
        read = text_value(key.encode(), TARGETS[rule.data_type])
        assert read is not None
        assert isinstance(read.value, (int, bytes))
        value = read.value
    shard = shard_of(rule, value, topology.shards)
    return Refusal(unmapped(rule, "any table", key)) if shard is None else shard
