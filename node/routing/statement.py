"""What a statement is, learned from its parse tree once per shape. Nothing else in the program knows the parser.

(select.py and the INSERT rewriting work on trees too; they get them from `Statement.tree`.)
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum, auto
from typing import TYPE_CHECKING, Any, Final

import pglast
from pglast import ast
from pglast.parser import ParseError

from node.errors import ClientFault
from node.routing.lexed import BACKSLASH, Lexed
from node.routing.lexer import lex
from node.routing.memory import ByCatalog, ByDatabase
from node.routing.operands import Operand, marked

if TYPE_CHECKING:
    from node.routing.placement import Template
    from node.routing.scopes import Level, Reference
    from node.routing.sharing import Alone

SHAPE_LIMIT_BYTES: Final = 64 * 1024  # longer texts are parsed each time: they rarely come again
TREE_LIMIT: Final = 200  # exact trees of multi-shard statements


class Kind(StrEnum):
    SELECT = auto()
    INSERT = auto()
    UPDATE = auto()
    DELETE = auto()
    MERGE = auto()
    COPY_FROM = auto()
    COPY_TO = auto()
    DDL = auto()
    BEGIN = auto()
    COMMIT = auto()
    ROLLBACK = auto()
    SAVEPOINT = auto()
    RELEASE = auto()
    ROLLBACK_TO = auto()
    PREPARE_TRANSACTION = auto()
    COMMIT_PREPARED = auto()
    ROLLBACK_PREPARED = auto()
    SET = auto()
    RESET = auto()
    SHOW = auto()
    PREPARE = auto()
    EXECUTE = auto()
    DEALLOCATE = auto()
    DECLARE = auto()
    FETCH = auto()
    CLOSE = auto()
    LISTEN = auto()
    UNLISTEN = auto()
    NOTIFY = auto()
    DISCARD = auto()
    LOCK = auto()
    EXPLAIN = auto()
    CALL = auto()
    DO = auto()
    VACUUM = auto()
    TRUNCATE = auto()
    CHECKPOINT = auto()
    LOAD = auto()
    EMPTY = auto()
    OTHER = auto()


class Effects(IntFlag):
    """What outlives the transaction on the server connection."""

    NONE = 0
    SETS = auto()  # see set_names
    TEMP_TABLE = auto()
    HOLD_CURSOR = auto()
    LISTEN = auto()
    ADVISORY_LOCK = auto()
    SQL_PREPARE = auto()
    LOAD = auto()
    DISCARD = auto()
    OPAQUE = auto()  # DO, CALL: anything
    SEQUENCE = auto()  # currval and lastval speak of this session


DEFAULT: Final = "default"  # DEFAULT in a VALUES row
UNKNOWN: Final = "unknown"  # an expression that is not a constant
Cell = Operand | str


@dataclass(frozen=True, slots=True)
class Insert:
    """`columns` None: no list. `rows` None: INSERT ... SELECT; empty: DEFAULT VALUES."""

    columns: tuple[str, ...] | None
    rows: tuple[tuple[Cell, ...], ...] | None
    conflict: str | None  # nothing, update
    conflict_assigns: tuple[str, ...]
    returning: bool
    overriding: bool


@dataclass(frozen=True, slots=True)
class Copy:
    columns: tuple[str, ...] | None
    format: str
    options: tuple[tuple[str, str], ...]
    server_file: bool
    where: bool
    from_query: bool


@dataclass(frozen=True, slots=True)
class Statement:
    """Facts that hold for every text of the shape. Operands name literals by ordinal, never by value."""

    kind: Kind
    tag: str  # what PostgreSQL calls it, for messages: "CREATE INDEX", "SELECT"
    tables: tuple[Reference, ...] = ()
    levels: tuple[Level, ...] = ()
    target: Reference | None = None
    read_only: bool = False
    locks_rows: bool = False
    effects: Effects = Effects.NONE
    set_names: tuple[str, ...] = ()
    set_local: bool = False
    set_value: str | None = None
    transaction_options: tuple[str, ...] = ()
    chain: bool = False
    transactional: bool = True  # may run inside a transaction block
    functions: tuple[tuple[str | None, str], ...] = ()
    clock_keywords: bool = False  # CURRENT_TIMESTAMP and its kin
    sets_default: bool = False  # DEFAULT as a value somewhere
    system_columns: bool = False  # ctid, xmin ...: each server has its own
    operators: tuple[str, ...] = ()  # as written; those of BETWEEN, IN, USING and their kin are = < > <= >=
    types: tuple[tuple[str | None, str], ...] = ()  # of casts, typed literals, column definitions
    attributes: tuple[str, ...] = ()  # t.name: a column, or a function of t
    user_keywords: bool = False  # CURRENT_USER and its kin
    samples: bool = False  # TABLESAMPLE
    parameters: int = 0  # highest $n
    mentions: tuple[tuple[int, int], ...] = ()  # of each parameter, how many
    compared: tuple[tuple[int, str], ...] = ()  # those directly beside a column, by = and its kin or IN
    casts: tuple[tuple[int, str], ...] = ()  # those that are cast, and to what
    insert: Insert | None = None
    copy: Copy | None = None
    assigns: tuple[tuple[str, Operand | None], ...] = ()  # UPDATE SET and MERGE
    returning: bool = False
    modifying_ctes: int = 0
    cte_assigns: tuple[tuple[int, tuple[str, ...] | None], ...] = ()  # references these write, and which columns
    inner: Statement | None = None  # what EXPLAIN, PREPARE, DECLARE are about
    analyze: bool = False  # EXPLAIN ANALYZE runs it
    name: str | None = None  # of a savepoint, prepared statement, cursor, channel, global transaction
    temporary: bool = False
    drops_on_commit: bool = False  # a temporary table that its transaction takes with it
    part: int = 0  # which statement of the text
    is_marked: bool = False
    # what the planners have found out
    templates: ByDatabase[Template] = field(default_factory=ByDatabase, compare=False, repr=False)
    reads: ByCatalog[bool] = field(default_factory=ByCatalog, compare=False, repr=False)
    alone: ByCatalog[Alone | None] = field(default_factory=ByCatalog, compare=False, repr=False)

    def tree(self, lexed: Lexed) -> Any:
        """The parse tree of this very text, constants included. ClientFault if it cannot be had."""
        if _hides(lexed):
            raise ClientFault(
                "a backslash in a string is not supported across shards while standard_conforming_strings is off",
                sqlstate="0A000",
                hint="write E'...', turn standard_conforming_strings on, or pass the string as a parameter",
            )
        return self._unwrapped(_trees(lexed.sql)[self.part])

    def readable(self, lexed: Lexed) -> bool:
        """The literals of this text mean to PostgreSQL what the parser reads."""
        return not _hides(lexed) and (lexed.sql.isascii() or _is_utf8(lexed.sql))

    def marked_tree(self, lexed: Lexed, pinned: Collection[int] = ()) -> Any | None:
        """The parse tree of every text of the shape that has these `pinned` literals, with markers (operands.py) for
        all others; None: there is none."""
        text = marked(lexed, pinned) if self.is_marked else None
        return None if text is None else self._unwrapped(_parse(text)[self.part])

    def _unwrapped(self, node: Any) -> Any:
        while self.kind in _QUERIES and isinstance(node, _WRAPPERS):
            node = node.query  # this is what EXPLAIN, COPY, DECLARE ... are about
        return node


_QUERIES: Final = frozenset((Kind.SELECT, Kind.INSERT, Kind.UPDATE, Kind.DELETE, Kind.MERGE))
_WRAPPERS: Final = (ast.ExplainStmt, ast.CopyStmt, ast.DeclareCursorStmt, ast.PrepareStmt, ast.CreateTableAsStmt)
EMPTY: Final = Statement(Kind.EMPTY, "")
_tree_cache: OrderedDict[bytes, tuple[Any, ...]] = OrderedDict()


def _trees(sql: bytes) -> tuple[Any, ...]:
    # A cache of a pure function: bounded, and nobody can tell whether it was hit.
    found = _tree_cache.get(sql)
    if found is None:
        found = _parse(_decoded(sql))
        if len(sql) <= SHAPE_LIMIT_BYTES:
            _tree_cache[sql] = found
            if len(_tree_cache) > TREE_LIMIT:
                _tree_cache.popitem(last=False)
    return found


def _hides(lexed: Lexed) -> bool:
    """A backslash may be an escape where the parser takes it for itself."""
    return lexed.flags & BACKSLASH != 0 and b"\\" in lexed.sql


def _is_utf8(sql: bytes) -> bool:
    try:
        sql.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(sql: bytes) -> str:
    try:
        return sql.decode()
    except UnicodeDecodeError:
        # Not UTF-8: only structure can be learned. Any one-byte encoding keeps ASCII where it is.
        return sql.decode("latin-1")


def _parse(sql: str) -> tuple[Any, ...]:
    try:
        return tuple(raw.stmt for raw in pglast.parse_sql(sql))
    except ParseError as error:
        text = str(error.args[0]) if error.args else "syntax error"
        position = error.args[1] + 1 if len(error.args) > 1 and isinstance(error.args[1], int) else None
        raise ClientFault(text, sqlstate="42601", position=position) from None
    except RecursionError:
        raise ClientFault("stack depth limit exceeded", sqlstate="54001") from None


def parse(sql: str | bytes) -> tuple[Statement, ...]:
    """The statements of a text. ClientFault 42601 with PostgreSQL's words."""
    return parse_lexed(lex(sql.encode() if isinstance(sql, str) else sql))[0]


def parse_lexed(lexed: Lexed) -> tuple[tuple[Statement, ...], bool]:
    """The statements, and whether they hold for the whole shape (else only for this text)."""
    try:
        return _parse_lexed(lexed)
    except RecursionError:
        raise ClientFault("stack depth limit exceeded", sqlstate="54001") from None


def _parse_lexed(lexed: Lexed) -> tuple[tuple[Statement, ...], bool]:
    from node.routing.facts import facts  # facts builds Statements: they need each other

    text = None if lexed.broken else marked(lexed)
    if text is not None:
        try:
            nodes = _parse(text)
        except ClientFault:
            nodes = None  # markers do not fit everywhere (float(24)), or the text is wrong: its own error tells
        if nodes is not None:
            _same_count(nodes, lexed)
            return tuple(facts(node, part, True) for part, node in enumerate(nodes)), True
    nodes = _trees(lexed.sql)
    _same_count(nodes, lexed)
    return tuple(facts(node, part, False) for part, node in enumerate(nodes)), not lexed.marks and not lexed.broken


def _same_count(nodes: tuple[Any, ...], lexed: Lexed) -> None:
    """Lexer and parser must see the same statements, or one of them has misread a string (backslashes, dialects)."""
    if not lexed.broken and len(nodes) != lexed.statements:
        raise ClientFault("the statement could not be read with certainty", sqlstate="42601")
