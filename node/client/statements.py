"""A client's prepared statements, named and unnamed: what its Parse, Bind, Describe and Close become for a server.

In transaction mode a client's `s1` has a name of ours on every server (client/prepared.py), and is made known there
when it is used. The unnamed statement is PostgreSQL's, kept until the next Parse of it or the next Query; on another
server than the one that has it, it is parsed again first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from node.client.parameters import NONE, Parameters
from node.client.shape import Pin, Shape
from node.errors import ClientFault
from node.pool.rider import Rider
from node.wire import messages
from node.wire.codes import Frontend
from node.wire.reply_queue import FAKE_CLOSE_COMPLETE, FAKE_PARSE_COMPLETE

if TYPE_CHECKING:
    from node.client.prepared import Prepared
    from node.client.services import Services
    from node.database import Database
    from node.server.connection import ServerConnection

_BIND = int(Frontend.BIND)
_CLOSE = int(Frontend.CLOSE)
_DESCRIBE = int(Frontend.DESCRIBE)
_PARSE = int(Frontend.PARSE)

# Shared by all clients that have none of their own; never written to.
NO_STATEMENTS: dict[bytes, Prepared] = {}
NONE_OF_THEM: frozenset[bytes] = frozenset()


def _zero(p: bytes, at: int, end: int) -> int:
    """Where in p[at:end] the first zero is; negative: nowhere. (The like in wire/batch is C of that file alone.)"""
    while at < end:
        if p[at] == 0:
            return at
        at += 1
    return -1


class Statements(Rider):
    """The half of a Session (client/session.py) that rewrites extended-protocol messages."""

    def __init__(self, services: Services, database: Database, write: Callable[[bytes], None]) -> None:
        self.services = services
        self.database = database
        self.write = write
        self.managed = database.manages_statements
        self.parameters: Parameters = NONE
        self.pin: Pin | None = None
        # empty ones are shared: most clients are idle, and their number is what costs memory
        self.prepared: dict[bytes, Prepared] = NO_STATEMENTS  # replaced by an own one before it is written to
        self.doubtful: frozenset[bytes] = NONE_OF_THEM  # names whose Parse may have failed
        self.unit_names: Sequence[bytes] = ()  # named by this unit, which may fail
        self.unit_parsed: Sequence[int] = ()  # made known to its server
        self.forget_statements = 0  # 1: DEALLOCATE ALL is under way, 2: DISCARD ALL
        self.unnamed_parse = b""  # the whole message
        self.unnamed_on: ServerConnection | None = None

    def special(self, shape: Shape, letter: int) -> bool:
        """Takes note of what a statement does to the session. False: it was answered, or has to wait (given back)."""
        raise NotImplementedError

    def forget(self, server: ServerConnection) -> None:
        """DISCARD ALL or DEALLOCATE ALL has run on the server, or is about to: then it still may have some."""
        if self.forget_statements > 1:
            self.pin = None
        self.forget_statements = 0
        if server.pipeline.idle():
            server.prepared.clear()
        else:
            server.doubt_statements()
        for name in list(self.prepared):
            self.drop_statement(name)

    def on_parse(self, server: ServerConnection, buffer: bytes, start: int, end: int) -> bytes | None:
        """The Parse buffer[start:end]: what to send in its place; None: as it is."""
        raw = buffer
        name_end = _zero(raw, start + 5, end)
        sql_end = _zero(raw, name_end + 1, end) if name_end >= 0 else -1
        if sql_end < 0:
            raise messages.malformed("Parse")
        if self.forget_statements:
            self.forget(server)
        named = name_end > start + 5
        sql = raw[name_end + 1 : sql_end]
        shape = self.services.shapes.find(sql)
        if not shape.plain and not (named and self.managed):  # of a named one, when it is bound
            self.special(shape, _PARSE)
            if shape.deallocates is not None and shape.deallocates in self.prepared:
                return self.on_parse_deallocate(server, shape.deallocates)
        pipeline = server.pipeline
        pool = server.pool
        if pool is not None:
            counters = pool.counters
            counters.parses += 1
        if not named:
            self.unnamed_parse = raw[start:end]
            self.unnamed_on = server
            pipeline.owe()
            return None
        if not self.managed:
            pipeline.owe()
            return None
        name = raw[start + 5 : name_end]
        if name in self.prepared and name not in self.doubtful:
            # PostgreSQL says 42P05 here; so does the server, under the name that it knows
            prepared = self.prepared[name]
            ahead = self.ensure(server, prepared)
            pipeline.owe()
            return ahead + prepared.parse
        if len(self.prepared) >= self.services.limits.prepared_statements:
            raise ClientFault(
                "too many prepared statements",
                sqlstate="53400",
                detail=f"This client has prepared {len(self.prepared)} statements.",
                hint="close statements that are not used any more, or raise the limit",
            )
        self.drop_statement(name)
        prepared = self.services.prepared.use(
            sql, raw[sql_end + 1 : end], self.parameters.values.get("search_path", "")
        )
        if self.prepared is NO_STATEMENTS:
            self.prepared = {}
        self.prepared[name] = prepared
        self.unit_names = (*self.unit_names, name)
        number = prepared.number
        if server.prepared.get(number):
            if pipeline.owe_fake(FAKE_PARSE_COMPLETE, self):
                self.write(messages.PARSE_COMPLETE)
            return b""
        ahead = self.make_room(server, prepared)
        server.prepared[number] = True
        self.unit_parsed = (*self.unit_parsed, number)
        pipeline.owe()
        return ahead + prepared.parse

    def on_parse_deallocate(self, server: ServerConnection, name: bytes) -> bytes:
        """DEALLOCATE of a managed statement by the extended protocol: the server knows it by our name."""
        prepared = self.prepared[name]
        ahead = self.ensure(server, prepared)
        self.unnamed_parse = messages.parse(b"", b"DEALLOCATE " + prepared.name)
        self.unnamed_on = server
        server.prepared[prepared.number] = False
        self.drop_statement(name)
        server.pipeline.owe()
        return ahead + self.unnamed_parse

    def ensure(self, server: ServerConnection, prepared: Prepared) -> bytes:
        """What must be sent ahead so that the server knows the statement."""
        number = prepared.number
        known = server.prepared
        if known.get(number):
            if len(known) >= self.database.prepared_limit:
                known.move_to_end(number)  # room is made by closing the one unused for longest
            return b""
        ahead = self.make_room(server, prepared)
        server.pipeline.owe_skipped(self)
        server.prepared[number] = True
        self.unit_parsed = (*self.unit_parsed, number)
        self.unit_names = (*self.unit_names, b"")
        return ahead + prepared.parse

    def ensure_unnamed(self, server: ServerConnection) -> bytes:
        """The unnamed statement was parsed on another server, or never: this one must not use somebody else's."""
        self.unnamed_on = server
        server.pipeline.owe_skipped(self)
        return self.unnamed_parse or messages.close_statement(b"")

    def make_room(self, server: ServerConnection, prepared: Prepared) -> bytes:
        """Closes the statement if it may be there already, and the oldest ones above prepared_statements_limit."""
        ahead, closed = prepared.make_room(server, self.database.prepared_limit, self)
        self.unit_parsed = (*self.unit_parsed, *closed)  # if an error comes first, they are still there
        return ahead

    def on_bind(self, server: ServerConnection, buffer: bytes, start: int, end: int) -> bytes | None:
        raw = buffer
        portal_end = _zero(raw, start + 5, end)
        name_end = _zero(raw, portal_end + 1, end) if portal_end >= 0 else -1
        if name_end < 0:
            raise messages.malformed("Bind")
        pipeline = server.pipeline
        named = name_end > portal_end + 1
        if self.forget_statements:
            self.forget(server)
        prepared = self.prepared.get(raw[portal_end + 1 : name_end]) if named else None
        if prepared is None:
            ahead = b"" if named or self.unnamed_on is server else self.ensure_unnamed(server)
            pipeline.owe()
            return ahead + raw[start:end] if ahead else None
        shape = prepared.shape
        if shape is None:
            shape = prepared.shape = self.services.shapes.find(prepared.sql)
        if not shape.plain:
            self.special(shape, _BIND)
        ahead = self.ensure(server, prepared)
        pipeline.owe()
        length = end - start - 1 + len(prepared.name) - (name_end - portal_end - 1)
        return b"".join((
            ahead, b"B", length.to_bytes(4, "big"), raw[start + 5 : portal_end + 1], prepared.name, raw[name_end:end],
        ))  # fmt: skip

    def on_name(self, server: ServerConnection, letter: int, buffer: bytes, start: int, end: int) -> bytes | None:
        """Describe or Close, of a statement or a portal."""
        raw = buffer
        pipeline = server.pipeline
        if end - start < 7 or raw[end - 1] != 0:
            raise messages.malformed("Describe" if letter == _DESCRIBE else "Close")
        statement = raw[start + 5] == 83  # S
        named = end - start > 7
        if self.forget_statements:
            self.forget(server)
        prepared = self.prepared.get(raw[start + 6 : end - 1]) if statement and named else None
        if prepared is None:
            ahead = b""
            if statement and not named and self.unnamed_on is not server and letter == _DESCRIBE:
                ahead = self.ensure_unnamed(server)
            pipeline.owe()
            return ahead + raw[start:end] if ahead else None
        if letter == _CLOSE:
            self.drop_statement(raw[start + 6 : end - 1])
            if pipeline.owe_fake(FAKE_CLOSE_COMPLETE, self):
                self.write(messages.CLOSE_COMPLETE)
            return b""
        ahead = self.ensure(server, prepared)
        pipeline.owe()
        return ahead + prepared.describe

    def drop_statement(self, name: bytes) -> None:
        prepared = self.prepared.pop(name, None) if self.prepared else None
        if name in self.doubtful:
            self.doubtful -= {name}
        if prepared is not None:
            self.services.prepared.drop(prepared)
