# cython: annotation_typing=False
"""What a session must know of a statement before it passes on: cached by shape, so that literals do not matter.

A *plain* shape needs nothing: its bytes are forwarded. The others leave something on the server connection (settings,
temporary tables, locks), or are answered here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from node.errors import ClientFault
from node.routing.cache import Entry, StatementCache
from node.routing.hints import NONE as NO_HINTS
from node.routing.hints import SETTINGS as HINT_SETTINGS
from node.routing.hints import Hints, comment_hints
from node.routing.lexed import Lexed
from node.routing.point import Point
from node.routing.sharing import why_alone
from node.routing.statement import Effects, Kind, Statement

if TYPE_CHECKING:
    from node.client.weight import Weight, Weights
    from node.routing.catalog import Catalog


class Pin(StrEnum):
    """Why a client keeps its server connection after its transaction; SHOW CLIENTS says `locked`."""

    TEMPORARY_TABLE = "temporary table"
    LISTEN = "listen"
    ADVISORY_LOCK = "advisory lock"
    CURSOR = "cursor with hold"
    SQL_PREPARE = "prepared by SQL"
    SETTINGS = "settings that cannot be followed"
    LOAD = "loaded library"


_PINS = {
    Effects.TEMP_TABLE: Pin.TEMPORARY_TABLE,
    Effects.LISTEN: Pin.LISTEN,
    Effects.ADVISORY_LOCK: Pin.ADVISORY_LOCK,
    Effects.HOLD_CURSOR: Pin.CURSOR,
    Effects.SQL_PREPARE: Pin.SQL_PREPARE,
    Effects.LOAD: Pin.LOAD,
}

# DDL after which a prepared statement may have another result type.
_REDEFINE = ("ALTER", "DROP", "CREATE VIEW")

# What SET names is not always the setting that changes.
_SPELLED = {
    "session characteristics": (
        "default_transaction_isolation",
        "default_transaction_read_only",
        "default_transaction_deferrable",
    ),
    "timezone": ("timezone",),
    "time zone": ("timezone",),
    "names": ("client_encoding",),
    "session authorization": ("session_authorization", "role"),
    "session_authorization": ("session_authorization", "role"),
}


class Shape:
    """`statements` is None when the text does not parse: `fault` then says why."""

    def __init__(self, entry: Entry | None, fault: ClientFault | None = None) -> None:
        self.entry = entry
        self.statements: tuple[Statement, ...] | None = entry.statements if entry is not None else None
        self.fault = fault
        self.weight: Weight | None = None  # as the last one who asked found it among `weighed_in`
        self.weighed_in: Weights | None = None
        self.point: Point | None = None  # of a plain shape that was routed by one value, for the map asked for last
        self.pin: Pin | None = None
        self.sets: tuple[str, ...] = ()  # settings to ask for afterwards
        self.resets: tuple[str, ...] = ()
        self.resets_all = self.discards_all = self.forgets_statements = self.marks_dirty = self.redefines = False
        self.deallocates: bytes | None = None
        self.begins = self.begins_read_only = self.read_only = False
        self.alters = False  # the catalogue is to be read again afterwards
        for statement in self.statements or ():
            self._note(statement)
        if self.statements:
            self.read_only = all(s.read_only for s in self.statements)
            first = self.statements[0]
            self.begins = first.kind is Kind.BEGIN
            self.begins_read_only = self.begins and "transaction_read_only=1" in first.transaction_options
        self.plain = not (
            self.pin or self.sets or self.resets_all or self.forgets_statements or self.deallocates or self.begins
            or self.marks_dirty or self.redefines or self.alters
        )  # fmt: skip

    def why_alone(self, catalog: Catalog) -> str | None:
        """Why a unit of this text never shares a connection with other clients' units; None: it may."""
        if self.statements is None:
            return "the statement could not be read"
        if len(self.statements) != 1:
            return "not one statement"
        if not self.plain:
            return "it leaves something behind"
        alone = why_alone(self.statements[0], catalog)
        return None if alone is None else str(alone)

    def _note(self, s: Statement) -> None:
        effects = s.effects
        for effect, pin in _PINS.items():
            if effects & effect and self.pin is None and not (effect is Effects.TEMP_TABLE and s.drops_on_commit):
                self.pin = pin
        if effects & Effects.OPAQUE:
            self.marks_dirty = True
        if effects & Effects.SETS and not s.set_local:
            self._settings(s)
        # DO may hold DDL, as migrations write it; so may CALL, but that is too frequent in applications to assume it
        if (s.kind is Kind.DDL and not s.temporary) or s.kind is Kind.DO:
            self.alters = True
        if s.kind is Kind.DDL and not s.temporary and s.tag.startswith(_REDEFINE):
            self.redefines = True
        if s.kind is Kind.DISCARD:
            if s.tag == "DISCARD ALL":
                self.discards_all = self.resets_all = self.forgets_statements = True
            self.pin = None
        elif s.kind is Kind.DEALLOCATE:
            self.pin = None
            if s.name is None:
                self.forgets_statements = True
            elif self.statements is not None and len(self.statements) == 1:
                self.deallocates = s.name.encode()
        elif s.kind is Kind.UNLISTEN:
            self.pin = None

    def _settings(self, s: Statement) -> None:
        names: list[str] = []
        for name in s.set_names:
            low = name.lower()
            if low == "*":
                if s.kind is Kind.RESET:
                    self.resets_all = True
                else:
                    self.pin = Pin.SETTINGS  # set_config with a name that only the server knows
            elif low not in HINT_SETTINGS:
                names += _SPELLED.get(low, (low,))
        self.sets += tuple(names)
        if s.kind is Kind.RESET:
            self.resets += tuple(names)


class Shapes:
    """The statement cache as sessions use it."""

    def __init__(self, limit: int) -> None:
        self.cache = StatementCache(limit)
        self.lexed: Lexed | None = None  # of the text that was looked up last
        self._wrong = b"\0"  # the last text that does not parse
        self._wrong_shape = Shape(None)

    def find(self, sql: bytes) -> Shape:
        """Never raises: text that does not parse is for the server to judge (`fault` says what we think)."""
        if sql == self._wrong:
            self.lexed = None
            return self._wrong_shape
        try:
            entry = self.cache.find(sql)
        except ClientFault as fault:
            self.lexed = None
            self._wrong, self._wrong_shape = sql, Shape(None, fault)
            return self._wrong_shape
        self.lexed = self.cache.lexed
        found: Shape | None = entry.traits
        if found is None:
            found = entry.traits = Shape(entry)
        return found

    def hints(self) -> Hints:
        """What the comments of the last text say. Raises ClientFault 22023."""
        return comment_hints(self.lexed) if self.lexed is not None else NO_HINTS
