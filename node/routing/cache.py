# cython: annotation_typing=False
"""Texts to statements, through shapes: the cache that every text goes through. Compiled; see cache.pxd.

Texts without literals are remembered themselves, too: a Parse, its Bind and the next client's Parse ask for the same
one, and need no walk to find its shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from node.routing.lexer import lex
from node.routing.statement import SHAPE_LIMIT_BYTES, parse_lexed

if TYPE_CHECKING:
    from node.routing.lexed import Lexed
    from node.routing.statement import Statement

CACHE_LIMIT = 1000  # shapes; query_cache_limit
TEXT_LIMIT_BYTES = _TEXT_LIMIT_BYTES = 4096  # longer ones are walked each time


class Entry:
    """One shape of the cache, with its counters for SHOW QUERY_CACHE."""

    def __init__(self, shape: bytes, statements: tuple[Statement, ...]) -> None:
        self.shape = shape
        self.statements = statements
        self.traits: Any = None  # what the client side makes of the statements, once it has
        self.hits = 0
        self.direct = 0
        self.multi = 0


class StatementCache:
    """Shapes to statements, least recently used out first. Per database; texts that do not parse are not kept."""

    def __init__(self, limit: int = CACHE_LIMIT, flags: int = 0) -> None:
        self.limit = limit
        self.flags = flags
        self.hits = 0
        self.misses = 0
        self.lexed: Lexed | None = None  # of the text that was found last
        self._entries: dict[bytes, Entry] = {}
        self._texts: dict[bytes, tuple[Entry, Lexed]] = {}  # without literals; no more than shapes
        self._text = b""
        self._entry: Entry | None = None  # of `_text`, the last one

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, sql: bytes) -> tuple[tuple[Statement, ...], Lexed]:
        """Raises ClientFault 42601 as `parse`."""
        entry = self.find(sql)
        assert self.lexed is not None
        return entry.statements, self.lexed

    def find(self, sql: bytes) -> Entry:
        """As `lookup`; `lexed` has the text's literals until the next one is looked up, and None where this fails."""
        entry = self._entry
        if entry is None or sql != self._text:
            known = self._texts.get(sql)
            if known is not None:
                entry, self.lexed = known
            else:
                self.lexed = self._entry = None
                lexed = lex(sql, self.flags)
                entry = self._entries.get(lexed.shape)
                if entry is None:
                    entry = self._miss(lexed)
                    self._keep(sql, entry, lexed)
                    return entry
                self._keep(sql, entry, lexed)
            self._text = sql
            self._entry = entry
        self.hits += 1
        entry.hits += 1
        if entry.hits & 15 == 0 and entry.shape in self._entries:
            # moving it on every hit would cost more than a slightly stale order
            self._entries[entry.shape] = self._entries.pop(entry.shape)
        return entry

    def _keep(self, sql: bytes, entry: Entry, lexed: Lexed) -> None:
        self._text = sql
        self._entry = entry
        self.lexed = lexed
        if not lexed.marks and len(sql) <= _TEXT_LIMIT_BYTES and self.limit > 0:
            if len(self._texts) >= self.limit:
                self._texts.clear()
            self._texts[sql] = (entry, lexed)

    def _forget_texts(self) -> None:
        self._texts.clear()
        self._entry = None

    def _miss(self, lexed: Lexed) -> Entry:
        exact = b"\0" + lexed.sql
        entry = self._entries.get(exact)
        if entry is not None:
            self.hits += 1
            entry.hits += 1
            return entry
        self.misses += 1
        statements, general = parse_lexed(lexed)
        entry = Entry(lexed.shape if general else exact, statements)
        if len(entry.shape) <= SHAPE_LIMIT_BYTES and self.limit > 0:
            while len(self._entries) >= self.limit:
                del self._entries[next(iter(self._entries))]
                self._forget_texts()
            self._entries[entry.shape] = entry
        return entry

    def resize(self, limit: int) -> None:
        self.limit = limit
        self._forget_texts()
        while len(self._entries) > limit:
            del self._entries[next(iter(self._entries))]

    def clear(self) -> None:
        self._entries.clear()
        self._forget_texts()

    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def rows(self) -> list[tuple[str, int, int, int]]:
        """(query, hits, direct, multi) for SHOW QUERY_CACHE; literals show as their kind."""
        readable = bytes.maketrans(b"\1\2\3", b"???")
        return [
            (e.shape.lstrip(b"\0").translate(readable).decode("utf-8", "replace"), e.hits, e.direct, e.multi)
            for e in self._entries.values()
        ]
