"""Which of a statement's tables are sharded, by which key, and what its conditions say about that key.

A `Template` depends on statement, topology and catalog only, so it is computed once per shape and configuration; what
remains per execution is to fill in values (`Template.shards`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from node.errors import ClientFault
from node.routing.catalog import Catalog, CatalogColumn, CatalogTable
from node.routing.conditions import AllOf, AnyOf, Column, Compare, Condition, IsNull, Member, OneOf, Same
from node.routing.inference import loose_parameters
from node.routing.keys import ALL, KeySet, intersection, keys_of, shards_of
from node.routing.operands import Operand, Parameter
from node.routing.outcome import Plan, Values
from node.routing.point import NOWHERE, Point, made
from node.routing.scopes import Level, Reference
from node.routing.statement import Statement
from node.routing.stored import AS_GIVEN, BPCHAR, NAME, Stored, stored
from node.routing.topology import DataType, ShardedTable, Topology

SYSTEM_SCHEMAS: Final = frozenset(("pg_catalog", "information_schema", "pg_toast"))
_TYPES: Final = {
    DataType.BIGINT: frozenset((20, 21, 23)),
    DataType.VARCHAR: frozenset((25, 1043, 1042, 19)),
    DataType.UUID: frozenset((2950,)),
}
VIEW_DEPTH_MAX: Final = 16


class Place(StrEnum):
    SHARDED = "sharded"
    WHOLE = "whole"  # every shard has all rows: omnisharded, or not configured at all
    SYSTEM = "system"  # catalogs: each shard has its own, one of them is shown
    OPAQUE = "opaque"  # a view over sharded tables, or a parent of some: its rows are spread, by a key nobody can name
    UNKNOWN = "unknown"  # may be sharded; the catalog would know


def place(
    schema: str | None, name: str, topology: Topology, catalog: Catalog, mentioned: frozenset[str] = frozenset()
) -> tuple[Place, ShardedTable | None]:
    """Where a table's rows are. `mentioned`: columns which the statement says it has."""
    if schema in SYSTEM_SCHEMAS or (schema is None and name.startswith("pg_") and catalog.table(None, name) is None):
        return Place.SYSTEM, None
    if schema is not None and schema.startswith("pg_temp"):
        return Place.WHOLE, None
    if schema is None and len(catalog.named(None, name)) > 1:
        found = catalog.table(None, name)
        schema = None if found is None else found.schema
    if topology.is_omnisharded(schema, name):
        return Place.WHOLE, None
    rule = topology.rule(schema, name)
    if rule is not None:
        return Place.SHARDED, rule
    return _by_catalog(schema, name, topology, catalog, mentioned, 0)


def _by_catalog(
    schema: str | None, name: str, topology: Topology, catalog: Catalog, mentioned: frozenset[str], depth: int
) -> tuple[Place, ShardedTable | None]:
    table = catalog.table(schema, name)
    if table is None:
        for rule in topology.column_rules:
            if rule.column in mentioned and (rule.schema is None or schema is None or rule.schema == schema):
                return Place.SHARDED, rule
        return (Place.UNKNOWN if topology.column_rules else Place.WHOLE), None
    if table.kind not in ("v", "m"):
        for rule in topology.column_rules:
            if (rule.schema is None or rule.schema == table.schema) and table.column(rule.column) is not None:
                return Place.SHARDED, rule
    if depth >= VIEW_DEPTH_MAX:
        return Place.OPAQUE, None
    for above, parent in table.parents:
        found = topology.rule(above, parent)
        at = (Place.SHARDED, found) if found else _by_catalog(above, parent, topology, catalog, frozenset(), depth + 1)
        if topology.is_omnisharded(above, parent) or at[0] in (Place.WHOLE, Place.SYSTEM):
            continue
        if table.kind in ("v", "m") or at[1] is None:
            return Place.OPAQUE, None
        return at  # a partition is placed as its table
    if _has_sharded_heir(table, topology, catalog, depth):
        return Place.OPAQUE, None
    return Place.WHOLE, None


def _has_sharded_heir(table: CatalogTable, topology: Topology, catalog: Catalog, depth: int) -> bool:
    """Reading a table reads its partitions and children, too."""
    for schema, name in table.heirs:
        heir = catalog.table(schema, name)
        if topology.rule(schema, name) is not None or depth >= VIEW_DEPTH_MAX:
            return True
        if heir is not None and _has_sharded_heir(heir, topology, catalog, depth + 1):
            return True
    return False


@dataclass(slots=True)
class Slot:
    """A mention of a sharded table, and the conditions on its key."""

    reference: Reference
    rule: ShardedTable
    conditions: list[Condition] = field(default_factory=list)
    stored: Stored = AS_GIVEN  # what the key's column makes of values


@dataclass(slots=True)
class Template:
    slots: list[Slot] = field(default_factory=list)
    whole: list[Reference] = field(default_factory=list)
    system: list[Reference] = field(default_factory=list)
    groups: list[list[int]] = field(default_factory=list)  # slots whose keys are equal in every row
    edges: list[tuple[int, int]] = field(default_factory=list)  # the second's keys are among the first's
    colocated: bool = True
    refusal: ClientFault | None = None
    reasons: dict[tuple[int, ...], tuple[str, ...]] = field(default_factory=dict)
    plans: dict[tuple[int, str | None], Plan] = field(default_factory=dict)
    merging: Any = None  # what reads.py knows of the statement over several shards
    loose: frozenset[int] = frozenset()  # see inference.py
    point: Point | None = None  # reads the one value that decides all keys; of an INSERT: the key of its only row

    def operand(self) -> Operand | None:
        """The value to which the conditions set every slot's key, as `keys` would find; None if there is more to it."""
        found: Operand | None = None
        set_to = [bool(slot.conditions) for slot in self.slots]
        for slot in self.slots:
            if slot.stored.type_oid in (BPCHAR, NAME) or slot.rule.function != self.slots[0].rule.function:
                return None
            for condition in slot.conditions:
                if not isinstance(condition, Compare) or condition.operator != "=":
                    return None
                if found is not None and condition.operand != found:
                    return None
                found = condition.operand
        for group in self.groups:
            if any(set_to[index] for index in group):
                for index in group:
                    set_to[index] = True
        for source, sink in self.edges:
            set_to[sink] = set_to[sink] or set_to[source]
        return found if all(set_to) else None

    def keys(self, values: Values) -> list[KeySet]:
        """Per slot. ClientFault for values that cannot be read."""
        found = []
        if self.loose:
            values = replace(values, loose=self.loose)
        for slot in self.slots:
            keys = ALL
            for condition in slot.conditions:
                keys = intersection(keys, keys_of(condition, slot.rule, values, slot.stored))
            found.append(keys)
        for group in self.groups:
            keys = ALL
            for index in group:
                keys = intersection(keys, found[index])
            for index in group:
                found[index] = keys
        for source, sink in self.edges:
            found[sink] = intersection(found[sink], found[source])
        return found

    def shards(self, values: Values, topology: Topology) -> tuple[int, ...]:
        """Every shard that some part of the statement needs, ascending; empty if no row can match."""
        if self.point is not None:
            shard = self.point.shard(values)
            if shard != NOWHERE:
                return (shard,)
        needed: set[int] = set()
        for slot, keys in zip(self.slots, self.keys(values), strict=True):
            needed.update(shards_of(slot.rule, keys, topology.shards))
        return tuple(sorted(needed))


def template(statement: Statement, topology: Topology, catalog: Catalog) -> Template:
    """The template, remembered in the statement for this topology and catalog."""
    found = statement.templates.find(topology, catalog)
    if found is None:
        found = _Builder(statement, topology, catalog).build()
        statement.templates.keep(topology, catalog, found)
    return found


def point_of(statement: Statement, topology: Topology, catalog: Catalog) -> Point | None:
    """The point of the template that is remembered in the statement."""
    found = statement.templates.find(topology, catalog)
    return None if found is None else found.point


class _Builder:
    def __init__(self, statement: Statement, topology: Topology, catalog: Catalog) -> None:
        self.statement = statement
        self.topology = topology
        self.catalog = catalog
        self.levels = statement.levels
        self.slot_at: dict[tuple[int, str], int] = {}  # (reference, key column) → slot
        self.rules: dict[int, ShardedTable] = {}
        self.built = Template()

    def build(self) -> Template:
        built = self.built
        built.loose = loose_parameters(self.statement, self.catalog)
        for reference in self.statement.tables:
            where, rule = place(
                reference.schema, reference.name, self.topology, self.catalog, self._mentioned(reference)
            )
            if rule is not None:
                self._slot(reference, rule)
            elif where == Place.SYSTEM:
                built.system.append(reference)
            elif where == Place.WHOLE:
                built.whole.append(reference)
            elif built.refusal is None:
                built.refusal = _no_place(reference, where, self.catalog)
        classes = _Classes()
        near = _Classes()  # for co-location: also where a join matches
        for level in self.levels:
            for part in _conjuncts(level.conditions):
                if isinstance(part, Same):
                    self._same(level.index, part.left, part.right, classes, near)
            for preserved, nullable, full in level.joined:
                self._joined(level.index, preserved, nullable, full, near)
        self._conditions(classes)
        self._groups(classes)
        self._colocation(near)
        operand = built.operand() if self.statement.insert is None else None
        if operand is not None and not (isinstance(operand, Parameter) and operand.number in built.loose):
            built.point = made(
                operand, built.slots[0].rule, self.topology, self.catalog, bound=self.statement.parameters > 0
            )
        return built

    def _slot(self, reference: Reference, rule: ShardedTable) -> None:
        column = self._catalog_column(reference, rule.column)
        self.slot_at[reference.index, rule.column] = len(self.built.slots)
        self.rules[reference.index] = rule
        self.built.slots.append(Slot(reference, rule, stored=stored(column)))

    def _catalog_column(self, reference: Reference, name: str) -> CatalogColumn | None:
        table = self.catalog.table(reference.schema, reference.name)
        return None if table is None else table.column(name)

    def _mentioned(self, reference: Reference) -> frozenset[str]:
        if not self.topology.column_rules:
            return frozenset()
        statement = self.statement
        found: set[str] = set()
        if reference.written and statement.insert is not None:
            found.update(statement.insert.columns or ())
        if statement.copy is not None:
            found.update(statement.copy.columns or ())
        alone = len(statement.tables) == 1
        for level in self.levels:
            pairs = [c for a, b, _ in level.joined for c in (a, b)]
            for column in [*pairs, *(c for part in level.conditions for c in _columns(part))]:
                if column.qualifier == reference.alias or (alone and column.qualifier is None):
                    found.add(column.name)
        return frozenset(found)

    # --- names -----------------------------------------------------------------------------------------------------

    def _resolve(self, column: Column) -> Reference | None:
        """The table a column belongs to; None where that is not certain."""
        at: int | None = column.level
        while at is not None:
            level = self.levels[at]
            if column.qualifier is not None:
                for reference in level.references:
                    if reference.alias == column.qualifier and column.schema in (None, reference.schema):
                        return None if reference.renamed else reference
                if column.qualifier in level.others:
                    return None
            else:
                if column.name in level.merged:
                    return self._resolve(level.merged[column.name])
                found, certain = self._unqualified(column.name, level)
                if certain:
                    return found
                if found is None and (level.others or level.references):
                    has = [self._has(r, column.name) for r in level.references]
                    if level.others or any(h is not False for h in has):
                        return None
            at = level.parent
        return None

    def _unqualified(self, name: str, level: Level) -> tuple[Reference | None, bool]:
        has = [self._has(reference, name) for reference in level.references]
        sure = [r for r, known in zip(level.references, has, strict=True) if known]
        if len(sure) == 1:
            return sure[0], True
        if len(level.references) == 1 and not level.others and level.parent is None and has[0] is None:
            return level.references[0], True
        return None, False

    def _has(self, reference: Reference, name: str) -> bool | None:
        if reference.renamed:
            return None
        table = self.catalog.table(reference.schema, reference.name)
        if table is not None:
            return table.column(name) is not None
        rule = self.rules.get(reference.index)
        return True if rule is not None and rule.column == name else None

    # --- conditions --------------------------------------------------------------------------------------------------

    def _same(self, at: int, left: Column, right: Column, classes: _Classes, near: _Classes) -> None:
        a, b = self._resolve(left), self._resolve(right)
        if a is None or b is None or not self._comparable(a, left.name, b, right.name):
            return
        if at not in (a.level, b.level):
            return  # a subquery compares columns of outer levels: that filters the subquery's rows, not theirs
        near.join((a.index, left.name), (b.index, right.name))
        if a.level == b.level:
            classes.join((a.index, left.name), (b.index, right.name))
            return
        # A subquery is asked only about rows the outer level keeps; it does not decide which those are.
        outer, inner = ((a, left), (b, right)) if a.level < b.level else ((b, right), (a, left))
        self._edge((outer[0].index, outer[1].name), (inner[0].index, inner[1].name))

    def _joined(self, at: int, preserved: Column, nullable: Column, full: bool, near: _Classes) -> None:
        a, b = self._resolve(preserved), self._resolve(nullable)
        if a is None or b is None or not self._comparable(a, preserved.name, b, nullable.name):
            return
        if a.level != at or b.level != at:
            return
        near.join((a.index, preserved.name), (b.index, nullable.name))
        if not full:
            self._edge((a.index, preserved.name), (b.index, nullable.name))

    def _edge(self, source: tuple[int, str], sink: tuple[int, str]) -> None:
        if source in self.slot_at and sink in self.slot_at:
            self.built.edges.append((self.slot_at[source], self.slot_at[sink]))

    def _comparable(self, a: Reference, left: str, b: Reference, right: str) -> bool:
        """Equal values of both columns are equal keys: same type, bytes compared as bytes."""
        one, two = self._catalog_column(a, left), self._catalog_column(b, right)
        if one is None or two is None:
            rules = self.rules.get(a.index), self.rules.get(b.index)
            return all(rules) and rules[0].data_type == rules[1].data_type  # type: ignore[union-attr]
        if one.nondeterministic or two.nondeterministic:
            return False
        if one.type_oid == two.type_oid:
            return True
        return any(one.type_oid in family and two.type_oid in family for family in _TYPES.values()) and (
            BPCHAR not in (one.type_oid, two.type_oid)
        )

    def _conditions(self, classes: _Classes) -> None:
        for (index, name), at in self.slot_at.items():
            slot = self.built.slots[at]
            column = self._catalog_column(slot.reference, name)
            types = _TYPES.get(slot.rule.data_type)
            if column is not None and (column.nondeterministic or types is None or column.type_oid not in types):
                # Equal values may hash apart (citext, nondeterministic collations): nothing narrows such a key. A
                # numeric or domain column under a bigint rule: its literals are not read as bigint.
                continue
            for level in self.levels:
                for condition in level.conditions:
                    for member in classes.members((index, name)):
                        kept = self._prune(condition, member, slot, column)
                        if kept is not None:
                            slot.conditions.append(kept)

    def _prune(
        self, condition: Condition, wanted: tuple[int, str], slot: Slot, column: CatalogColumn | None
    ) -> Condition | None:
        """What a condition says about one column of one table reference; None: nothing."""
        match condition:
            case AllOf():
                kept = tuple(
                    p for part in condition.parts if (p := self._prune(part, wanted, slot, column)) is not None
                )
                return AllOf(kept) if len(kept) > 1 else kept[0] if kept else None
            case OneOf():
                either = tuple(self._prune(part, wanted, slot, column) for part in condition.parts)
                known = tuple(p for p in either if p is not None)
                return OneOf(known) if len(known) == len(either) else None
            case Same():
                return None
        if condition.column.name != wanted[1]:
            return None
        reference = self._resolve(condition.column)
        if reference is None or reference.index != wanted[0] or reference.level != condition.column.level:
            return None  # (a subquery's condition on an outer column filters only the subquery's rows)
        if reference.nullable and (isinstance(condition, IsNull) or getattr(condition, "operator", "") == "is"):
            return None
        ordered = isinstance(condition, Compare) and condition.operator in ("<", "<=", ">", ">=")
        if (
            ordered
            and slot.rule.data_type == DataType.VARCHAR
            and (column is None or not column.bytewise or slot.stored.type_oid == BPCHAR)
        ):
            return None  # the order of the column's collation is not the order of the mapping's bytes
        return condition

    def _groups(self, classes: _Classes) -> None:
        for members in classes.sets():
            slots = [self.slot_at[m] for m in members if m in self.slot_at]
            if len(slots) > 1:
                self.built.groups.append(slots)

    def _colocation(self, near: _Classes) -> None:
        """All sharded tables must hang together by equal keys, placed by one function."""
        slots = list(self.slot_at.items())
        if len(slots) < 2:
            return
        first = slots[0]
        members = near.members(first[0])
        function = self.built.slots[first[1]].rule.function
        self.built.colocated = all(
            key in members and self.built.slots[at].rule.function == function for key, at in slots
        )


class _Classes:
    """Union-find over (reference, column)."""

    def __init__(self) -> None:
        self._sets: dict[tuple[int, str], list[tuple[int, str]]] = {}

    def join(self, a: tuple[int, str], b: tuple[int, str]) -> None:
        left, right = self._sets.setdefault(a, [a]), self._sets.setdefault(b, [b])
        if left is not right:
            left.extend(right)
            for member in right:
                self._sets[member] = left

    def members(self, a: tuple[int, str]) -> list[tuple[int, str]]:
        return self._sets.get(a, [a])

    def sets(self) -> Iterator[list[tuple[int, str]]]:
        seen: list[list[tuple[int, str]]] = []
        for found in self._sets.values():
            if not any(found is s for s in seen):
                seen.append(found)
                yield found


def _conjuncts(conditions: list[Condition] | tuple[Condition, ...]) -> Iterator[Condition]:
    for condition in conditions:
        if isinstance(condition, AllOf):
            yield from _conjuncts(condition.parts)
        else:
            yield condition


def _columns(condition: Condition) -> Iterator[Column]:
    match condition:
        case AllOf() | OneOf():
            for part in condition.parts:
                yield from _columns(part)
        case Same():
            yield condition.left
            yield condition.right
        case Compare() | Member() | AnyOf() | IsNull():
            yield condition.column


def _no_place(reference: Reference, where: Place, catalog: Catalog) -> ClientFault:
    name = reference.name if reference.schema is None else f"{reference.schema}.{reference.name}"
    if where == Place.OPAQUE:
        table = catalog.table(reference.schema, reference.name)
        if table is not None and table.heirs:
            return ClientFault(
                f'table "{name}", whose partitions or children are sharded, is not supported across shards',
                sqlstate="0A000",
                hint="configure the table itself as sharded, or query the others",
            )
        return ClientFault(
            f'view "{name}" over sharded tables is not supported across shards',
            sqlstate="0A000",
            hint="query its tables, or name the shard in a comment: /* pgmurmur_shard: 0 */",
        )
    return ClientFault(
        f'relation "{name}" is not known to this node',
        sqlstate="42P01",
        detail="tables are sharded by a column, and the catalog does not tell whether this one has it",
        hint="if the table was created a moment ago, repeat the statement; otherwise RELOAD reads the catalog again",
    )
