"""May a statement share a server connection with those of other clients? ◆ Pure: facts and catalogue in, a reason out.

A *lane* carries the autocommit reads of several clients one behind the other, and sends them again, unseen, when its
server is lost. So only what neither asks about the session nor changes anything may travel there, and it must be
certain: whatever is not known runs alone. A name counts for everything it may mean under any search_path; a function
is what its declaration says, as for PostgreSQL's own planner.
"""

# ruff: noqa: SIM905 - a list of words reads better than a list of literals
from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from node.routing.catalog import Catalog, CatalogTable
from node.routing.select_names import READERS, VOLATILE
from node.routing.statement import Effects, Kind, Statement


class Why(StrEnum):
    """In an operator's words; `{}` is the name it is about."""

    NOT_READ = "the catalogue was not read yet"
    NOT_SELECT = "not a SELECT"
    CURSOR = "a cursor"
    WRITES = "it writes"
    LOCKS = "it locks rows"
    VOLATILE = "calls {}, which is volatile"
    SESSION = "{} is about the session"
    FUNCTION = "the function {} is not known"
    OPERATOR_VOLATILE = "the operator {} is volatile"
    OPERATOR = "the operator {} is not known"
    TYPE = "the type {} is not known"
    HIDDEN = "a cast, type or domain calls {}, which is not safe to repeat"
    SYSTEM = "reads {}, a system catalogue or view"
    TABLE = "the table {} is not known"
    FOREIGN = "reads the foreign table {}"
    ROW_SECURITY = "row-level security of {}"
    VIEW_VOLATILE = "the view {} calls a function that is volatile"
    VIEW_SESSION = "the view {} is about the session"
    VIEW_LOCKS = "the view {} locks rows"
    VIEW = "the view {} is not fully known"
    SAMPLES = "TABLESAMPLE"


@dataclass(frozen=True, slots=True)
class Alone:
    why: Why
    name: str = ""

    def __str__(self) -> str:
        return self.why.value.format(self.name)


# Not volatile for PostgreSQL, but the answer is of this session, its transaction, or of a text that nobody has read.
_SESSION: Final = (
    frozenset(
        """current_setting set_config nextval setval currval lastval setseed current_user session_user system_user user
    getpgusername current_schema current_schemas current_role current_query inet_client_addr inet_client_port
    inet_server_addr inet_server_port row_security_active version txid_current txid_current_if_assigned
    txid_current_snapshot txid_snapshot_xmin txid_snapshot_xmax txid_snapshot_xip txid_visible_in_snapshot txid_status
    loread lowrite show_limit set_limit""".split()
    )
    | READERS
)
_SESSION_PREFIXES: Final = ("pg_", "lo_", "dblink")
# PostgreSQL's own pg_ functions of their arguments only; every other one speaks of a server, or does something to it.
_PURE: Final = frozenset(
    """pg_typeof pg_size_pretty pg_size_bytes pg_column_size pg_column_compression pg_input_is_valid
    pg_input_error_info pg_char_to_encoding pg_encoding_to_char pg_collation_for pg_lsn""".split()
)
# Behind IN, BETWEEN, USING, DISTINCT, GROUP BY, ORDER BY, CASE, NULLIF, min() ...
_IMPLIED: Final = ("=", "<>", "<", ">", "<=", ">=")
_VIEWS_MAX: Final = 200  # relations below one table of the statement


def why_alone(statement: Statement, catalog: Catalog) -> Alone | None:
    """None: it may share. The answer is remembered in the statement for this catalog."""
    known = statement.alone.find(catalog)
    if known is not None:
        return known[0]
    found = _kind(statement) or _calls(statement, catalog) or _tables(statement, catalog)
    statement.alone.keep(catalog, found)
    return found


def described(alone: Alone | None) -> str:
    """As EXPLAIN and `route` show it."""
    return "shared" if alone is None else f"alone: {alone}"


def _kind(statement: Statement) -> Alone | None:
    if statement.kind in (Kind.DECLARE, Kind.FETCH, Kind.CLOSE):
        return Alone(Why.CURSOR)
    if statement.kind in (Kind.INSERT, Kind.UPDATE, Kind.DELETE, Kind.MERGE, Kind.COPY_FROM, Kind.TRUNCATE):
        return Alone(Why.WRITES)
    if statement.kind is not Kind.SELECT:
        return Alone(Why.NOT_SELECT)
    if statement.modifying_ctes or statement.tag != "SELECT":  # SELECT INTO
        return Alone(Why.WRITES)
    if statement.locks_rows:
        return Alone(Why.LOCKS)
    return Alone(Why.SAMPLES) if statement.samples else None


def _calls(statement: Statement, catalog: Catalog) -> Alone | None:
    """Everything the text runs."""
    for _, name in statement.functions:
        found = _function(name, catalog)
        if found is not None:
            return Alone(found, f"{name}()")
    if not catalog.known:
        return Alone(Why.NOT_READ)
    if statement.user_keywords:
        return Alone(Why.SESSION, "CURRENT_USER or its like")
    if not statement.read_only or statement.effects is not Effects.NONE:
        return Alone(Why.WRITES)  # whatever the facts saw that has no other name here
    for name in statement.attributes:
        if name in catalog.notations:
            found = _function(name, catalog)
            if found is not None:
                return Alone(found, f"{name}()")
    for name in (*statement.operators, *_IMPLIED):
        volatility = catalog.operators.get(name)
        if volatility is None or volatility == "v":
            return Alone(Why.OPERATOR if volatility is None else Why.OPERATOR_VOLATILE, name)
    for _, name in statement.types:
        if name not in catalog.type_names:
            return Alone(Why.TYPE, name)
    for name in sorted(catalog.hidden):
        if _function(name, catalog) is not None:
            return Alone(Why.HIDDEN, f"{name}()")
    return None


def _function(name: str, catalog: Catalog) -> Why | None:
    if name in VOLATILE:
        return Why.VOLATILE
    if name in _SESSION or (name.startswith(_SESSION_PREFIXES) and name not in _PURE):
        return Why.SESSION
    volatility = catalog.volatility(name)
    if volatility == "v":
        return Why.VOLATILE
    return Why.FUNCTION if volatility is None and catalog.known else None


def _tables(statement: Statement, catalog: Catalog) -> Alone | None:
    for reference in statement.tables:
        found = _relation(reference.schema, reference.name, catalog)
        if found is not None:
            return found
    return None


def _relation(schema: str | None, name: str, catalog: Catalog) -> Alone | None:
    """What a table or view, or anything below it, has against it."""
    # pg_catalog comes first on every search_path, and all its relations begin so
    if schema in ("pg_catalog", "information_schema") or (schema is None and name.startswith("pg_")):
        return Alone(Why.SYSTEM, name)
    stack = list(catalog.named(schema, name))
    if not stack:
        return Alone(Why.TABLE, name)
    seen = set()
    while stack:
        table = stack.pop()
        key = (table.schema, table.name)
        if key in seen:
            continue
        seen.add(key)
        if len(seen) > _VIEWS_MAX:
            return Alone(Why.VIEW, name)
        found = _itself(table, catalog)
        if found is not None:
            return found
        if table.kind == "v":
            for parent in table.parents:
                below = catalog.tables.get(parent)
                if below is None:  # a system view, a sequence, or nothing that all shards agree on
                    system = parent[0] in ("pg_catalog", "information_schema")
                    return Alone(Why.SYSTEM, parent[1]) if system else Alone(Why.VIEW, table.name)
                stack.append(below)
    return None


def _itself(table: CatalogTable, catalog: Catalog) -> Alone | None:
    if table.foreign or table.kind == "f":
        return Alone(Why.FOREIGN, table.name)
    if table.row_security:
        return Alone(Why.ROW_SECURITY, table.name)
    if table.locks:
        return Alone(Why.VIEW_LOCKS, table.name)
    if table.calls is None:
        return Alone(Why.VIEW if table.kind == "v" else Why.TABLE, table.name)
    for called in table.calls:
        match _function(called, catalog):
            case Why.VOLATILE:
                return Alone(Why.VIEW_VOLATILE, f"{table.name} ({called})")
            case Why.SESSION:
                return Alone(Why.VIEW_SESSION, f"{table.name} ({called})")
            case Why.FUNCTION:
                return Alone(Why.VIEW, table.name)
    return None
