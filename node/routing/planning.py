"""What the planners share: roles, reasons, refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from node.errors import ClientFault
from node.routing.catalog import Catalog
from node.routing.conditions import AllOf, AnyOf, Compare, Condition, IsNull, Member, OneOf, Same
from node.routing.hints import Hints
from node.routing.operands import Arithmetic, ArrayOf, Cast, Constant, Literal, Operand, Parameter
from node.routing.outcome import Combine, Plan, Refusal, Road, Role, Values
from node.routing.placement import Template
from node.routing.select_names import CLOCKS, READERS, VOLATILE
from node.routing.statement import Statement, parse
from node.routing.topology import Topology

# Volatile, but they neither write nor need the primary.
HARMLESS_VOLATILE: Final = VOLATILE | frozenset(("pg_sleep", "pg_backend_pid", "pg_is_in_recovery"))
HINT_UTF8: Final = "set client_encoding to UTF8, or pass strings as parameters"
HINT_WAYS_OUT: Final = "name the shard in a comment, /* pgmurmur_shard: 0 */, or with SET pgmurmur.shard TO 0"


@dataclass(slots=True)
class Question:
    """The arguments of `plan`, together."""

    statement: Statement
    values: Values
    hints: Hints
    topology: Topology
    catalog: Catalog

    @property
    def every_shard(self) -> tuple[int, ...]:
        return tuple(range(self.topology.shards))


def lookup_refusal() -> Refusal:
    """Keys that a query must translate first: hashing them untranslated would be silently wrong."""
    return refuse("a table sharded through a lookup query is not supported", hint=HINT_WAYS_OUT)


def refuse(message: str, *, detail: str | None = None, hint: str | None = None, sqlstate: str = "0A000") -> Refusal:
    return Refusal(ClientFault(message, sqlstate=sqlstate, detail=detail, hint=hint))


def is_read(question: Question) -> bool:
    """May run on a replica: reads, locks nothing, calls nothing that is known to write or that nobody knows."""
    return reads_only(question.statement, question.catalog)


def reads_only(statement: Statement, catalog: Catalog) -> bool:
    """As `is_read`; remembered in the statement for this catalog."""
    known = statement.reads.find(catalog)
    if known is not None:
        return known[0]
    found = statement.read_only and not writing_function(statement, catalog)
    statement.reads.keep(catalog, found)
    return found


def writing_function(statement: Statement, catalog: Catalog) -> str | None:
    """A volatile function that is not known to be harmless."""
    for _, name in statement.functions:
        if catalog.volatility(name) == "v" and name not in HARMLESS_VOLATILE:
            return name
    return None


def role_of(question: Question) -> Role:
    if question.hints.role == "primary":
        return Role.PRIMARY
    if question.hints.role == "replica":
        return Role.ANY
    return Role.ANY if is_read(question) else Role.PRIMARY


def direct(question: Question, shards: tuple[int, ...], *reasons: str, anywhere: bool = False) -> Plan:
    """The client's bytes to one shard."""
    writes = not is_read(question)
    # What locks, counts or notifies must find the same server again.
    return Plan(shards, Road.DIRECT, role_of(question), writes, Combine.ONE, reasons, None, anywhere and not writes)


def by_key(question: Question, template: Template, shards: tuple[int, ...]) -> Plan:
    """`direct` to the one shard that the keys name; plans are values, so each is made once.

    Whoever calls this says that any other values that name this shard have the same answer.
    """
    role = question.hints.role
    known = template.plans.get((shards[0], role))
    if known is None:
        known = direct(question, shards, *tables_reason(template, shards))
        template.plans[shards[0], role] = known
        if template.point is not None and role is None:
            template.point.learn(known)
    return known


def everywhere(question: Question, *reasons: str, road: Road = Road.DIRECT, writes: bool = True) -> Plan:
    """The same statement on every shard, of which one answer is shown."""
    return Plan(question.every_shard, road, Role.PRIMARY, writes, Combine.FIRST, reasons)


def rules(question: Question) -> Refusal | None:
    """A written table with rules: what they do, and on which rows, nobody here knows."""
    for reference in question.statement.tables:
        found = question.catalog.named(reference.schema, reference.name) if reference.written else ()
        if any(table.rules for table in found):
            return refuse(
                f'a write to "{reference.name}", which has rules, is not supported across shards',
                detail="a rule may write rows that belong to other shards",
                hint=HINT_WAYS_OUT,
            )
    return None


def moving_cte(question: Question, template: Template) -> Refusal | None:
    """A data-modifying WITH that assigns a sharding key: the row might belong to another shard."""
    if question.topology.rewrite_shard_key == "ignore":
        return None
    assigned = dict(question.statement.cte_assigns)
    for slot in template.slots:
        columns = assigned.get(slot.reference.index, ())
        if columns is None:
            return refuse("MERGE into a sharded table is not supported across shards")
        if slot.rule.column in columns:
            return refuse(
                f'updating the sharding key "{slot.rule.column}" of "{slot.reference.name}" in WITH is not supported '
                "across shards",
                detail="the row would have to move to another shard",
            )
    return None


def reader(question: Question) -> Refusal | None:
    """A function that may read tables: on one shard, or on each for itself, it would see only a part."""
    catalog = question.catalog
    called = [name for _, name in question.statement.functions]
    for reference in question.statement.tables:
        for table in catalog.named(reference.schema, reference.name):
            called += table.calls or ()  # a view's
    for name in called:
        if name in catalog.readers or name in READERS:
            return refuse(
                f"{name}() may read tables, which is not supported across shards",
                detail="on one shard the function would not see the rows of the others",
                hint=f"declare it immutable if it reads none, give a sharding key, or {HINT_WAYS_OUT}",
            )
    return None


def differing(statement: Statement, catalog: Catalog) -> str | None:
    """Something in the statement that each shard would compute differently, by name."""
    for _, name in statement.functions:
        if name in VOLATILE or name in CLOCKS or name in ("nextval", "currval", "lastval", "set_config"):
            return f"{name}()"
        if catalog.volatility(name) == "v":
            return f"{name}()"
    if statement.system_columns:
        return "a system column"
    return "CURRENT_TIMESTAMP" if statement.clock_keywords else None


def tables_reason(template: Template, shards: tuple[int, ...]) -> tuple[str, ...]:
    """One line per sharded table: what its key said."""
    known = template.reasons.get(shards)
    if known is None:
        to = "no shard" if not shards else f"shard {shards[0]}" if len(shards) == 1 else "shards " + joined(shards)
        lines = []
        for slot in template.slots:
            said = " and ".join(describe(c) for c in slot.conditions)
            lines.append(f"{slot.reference.name}: {said} → {to}" if said else f"{slot.reference.name}: no key → {to}")
        known = tuple(dict.fromkeys(lines))
        if len(template.reasons) < 64:
            template.reasons[shards] = known
    return known


def joined(shards: tuple[int, ...]) -> str:
    return ",".join(map(str, shards))


def describe(condition: Condition) -> str:
    match condition:
        case Compare():
            operator = "is not distinct from" if condition.operator == "is" else condition.operator
            return f"{condition.column.name} {operator} {_operand(condition.operand)}"
        case Member():
            shown = ", ".join(_operand(o) for o in condition.operands[:4])
            return f"{condition.column.name} in ({shown}{', …' if len(condition.operands) > 4 else ''})"
        case AnyOf():
            return f"{condition.column.name} = any({_operand(condition.operand)})"
        case IsNull():
            return f"{condition.column.name} is null"
        case AllOf():
            return " and ".join(describe(p) for p in condition.parts)
        case OneOf():
            return "(" + " or ".join(describe(p) for p in condition.parts) + ")"
        case Same():
            return f"{condition.left.name} = {condition.right.name}"


def _operand(operand: Operand) -> str:
    match operand:
        case Literal():
            return "?"
        case Parameter():
            return f"${operand.number}"
        case Constant():
            value = operand.value
            return f"'{value.decode('utf-8', 'replace')}'" if isinstance(value, bytes) else str(value)
        case Cast():
            return f"{_operand(operand.operand)}::{operand.type}"
        case Arithmetic():
            return f"{_operand(operand.left)} {operand.operator} {_operand(operand.right)}"
        case ArrayOf():
            return "array[" + ", ".join(_operand(e) for e in operand.elements[:4]) + "]"


def volatile_default(
    question: Question, schema: str | None, name: str, columns: tuple[str, ...] | None
) -> Refusal | None:
    """A column that each shard would fill differently: serial, identity, now(), random()."""
    table = question.catalog.table(schema, name)
    if table is None or columns is None:
        return None
    for column in table.columns:
        if (columns is not None and column.name in columns) or column.generated:
            continue
        if column.identity or _differs(column.default, question):
            shown = "an identity" if column.identity else f"the default {column.default}"
            return refuse(
                f'a row of "{name}", which every shard has, without "{column.name}" is not supported across shards',
                detail=f"{shown} would give each shard another value",
                hint=f'give a value for "{column.name}"',
            )
    return None


def _differs(default: str, question: Question) -> bool:
    if not default:
        return False
    try:
        statement = parse(f"SELECT {default}")[0]
    except ClientFault:
        return True
    return differing(statement, question.catalog) is not None or bool(statement.tables)
