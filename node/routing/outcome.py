"""What routing answers: a Plan, a NeedLookup or a Refusal. Frozen values, no logic.

Vocabulary. *shards* are always ascending shard numbers. *Parameters* of rewritten SQL: `parameters[k]` is the index
(from 0) of the client's parameter that becomes `$k+1` in the rewritten text, so that each shard's statement binds
only what it uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from node.errors import ClientFault
from node.routing.stored import AS_GIVEN, Stored

if TYPE_CHECKING:
    from node.routing.lexed import Lexed
    from node.routing.topology import ShardedTable


class Road(StrEnum):
    """How the answer is made; the names are printed by `pgmurmur route` (with `refused` for a Refusal)."""

    DIRECT = "direct"  # the client's bytes go unchanged to the plan's shards
    PUSHDOWN = "pushdown"  # each shard's rows are final; they are concatenated or merged in order
    MERGE = "merge"  # partial answers are combined here
    EXCHANGE = "exchange"  # one PostgreSQL finishes the job over rows fetched from the others
    SPLIT = "split"  # rows are distributed: INSERT, INSERT ... SELECT, COPY FROM
    DDL = "ddl"  # every shard, all or nothing


class Role(StrEnum):
    PRIMARY = "primary"
    ANY = "any"  # a replica will do


class Combine(StrEnum):
    """How the shards' results become one."""

    ONE = "one"  # a single shard answers
    CONCAT = "concat"  # rows one after the other
    SUM = "sum"  # command tags are added up, RETURNING rows concatenated
    FIRST = "first"  # every shard says the same; one answer is shown


@dataclass(slots=True)  # not frozen: one is made for every routed statement, and freezing costs as much as a lookup
class Values:
    """What turns a shape into a statement: its literals, and parameters once a Bind brought them.

    `parameters` None: not bound yet (Parse, Describe). `formats` as in Bind: empty all text, one for all, or one each.
    `types`: declared type OIDs from Parse, 0 or missing where the client left it open.
    """

    lexed: Lexed | None = None
    parameters: Sequence[bytes | None] | None = None
    formats: Sequence[int] = ()
    types: Sequence[int] = ()
    start: int = 0  # ordinal of this statement's first literal within `lexed` (multi-statement queries)
    part: int = 0  # which statement of the text this is
    loose: frozenset[int] = frozenset()  # parameters whose type is not certain where the client left it open


@dataclass(frozen=True, slots=True)
class SortKey:
    """One merge column; `column` as in MergeProgram. `bytewise`: text here is ordered by its bytes (collation "C")."""

    column: int
    descending: bool = False
    nulls_first: bool = False
    bytewise: bool = False


@dataclass(frozen=True, slots=True)
class Aggregate:
    """Column `output` is `function` combined from the shards' columns `partials` (columns as in MergeProgram).

    `cast` is the name of the type the result is cast to ("" for none), `otherwise` says that a NULL result stays what
    the shards put there themselves: `coalesce(sum(x), 0)`. `digits`: the result is `round(…, digits)` before the cast.
    """

    output: int
    function: str
    partials: tuple[int, ...]
    bytewise: bool = False
    cast: str = ""
    otherwise: bool = False
    digits: int | None = None


@dataclass(frozen=True, slots=True)
class MergeProgram:
    """How rows of several shards become the client's rows.

    `sql` goes to each shard by the extended protocol (empty: the client's own text, its own parameters). The last
    `hidden` columns a shard returns are not the client's; with `twins` the client's columns come twice, the second
    time in binary, for comparing. Column numbers below 0 count from the end of the row.
    """

    sql: str = ""
    parameters: tuple[int, ...] | None = None
    hidden: int = 0
    twins: bool = False
    sort: tuple[SortKey, ...] = ()
    group: tuple[int, ...] | None = None
    aggregates: tuple[Aggregate, ...] = ()
    distinct: tuple[int, ...] | None = None
    limit: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class SplitPart:
    """One shard's piece of a multi-row INSERT. `rows` are the client's row numbers from 0, in order."""

    shard: int
    sql: str
    rows: tuple[int, ...]
    parameters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SplitProgram:
    parts: tuple[SplitPart, ...]
    returning: bool


@dataclass(frozen=True, slots=True)
class InsertSelectProgram:
    """INSERT ... SELECT: run `select_sql` by `select`, route each row by `columns[key_column]`, insert it there.

    `select_sql` binds the client's parameters unchanged in number (`parameters` as above). `insert_sql(rows)` builds
    the INSERT for that many rows, with parameters `$1..$n` row by row; values are sent as text.
    """

    select_sql: str
    parameters: tuple[int, ...]
    select: Plan
    schema: str | None
    table: str
    columns: tuple[str, ...]
    key_column: int
    rule: ShardedTable | None  # None: omnisharded, every row goes to every shard
    insert_head: str  # INSERT INTO … (…) VALUES
    insert_tail: str  # ON CONFLICT …, RETURNING …
    returning: bool
    key_stored: Stored = AS_GIVEN


@dataclass(frozen=True, slots=True)
class CopyProgram:
    """COPY table FROM STDIN, split by key. `columns` in the order of the data; options as PostgreSQL names them."""

    schema: str | None
    table: str
    columns: tuple[str, ...]
    key_column: int
    rule: ShardedTable
    format: str  # text | csv | binary
    options: tuple[tuple[str, str], ...]
    key_stored: Stored = AS_GIVEN


Program = MergeProgram | SplitProgram | InsertSelectProgram | CopyProgram


@dataclass(frozen=True, slots=True)
class Plan:
    shards: tuple[int, ...]
    road: Road
    role: Role
    writes: bool
    combine: Combine
    reasons: tuple[str, ...] = ()
    program: Program | None = None
    anywhere: bool = False  # any other single shard would answer the same: the caller may choose

    @property
    def single(self) -> bool:
        return len(self.shards) == 1


@dataclass(frozen=True, slots=True)
class NeedLookup:
    """Reserved for key lookups: run `query` with `value`, remember the answer, plan again."""

    query: str
    value: bytes
    rule: ShardedTable


@dataclass(frozen=True, slots=True)
class Refusal:
    """No: the fault goes to the client, the connection stays usable."""

    fault: ClientFault
    reasons: tuple[str, ...] = ()


Outcome = Plan | NeedLookup | Refusal
