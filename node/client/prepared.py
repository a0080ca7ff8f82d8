"""Named prepared statements in transaction mode: what a client calls `s1` has one name of ours on every server.

Two clients that prepare the same text with the same parameter types share one server-side statement. The name is
`__pgmurmur_N`; a server connection learns it when a client first uses it there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from node.wire import messages

if TYPE_CHECKING:
    from node.client.shape import Shape
    from node.server.connection import ServerConnection

PREFIX = b"__pgmurmur_"
# Statements that are closed ahead of one message; after the limit was lowered the rest goes with the next ones.
CLOSED_AT_ONCE = 4


class Prepared:
    """One statement text with parameter types, shared by every client that prepared it."""

    __slots__ = ("describe", "key", "name", "number", "parse", "shape", "sql", "type_oids", "types", "used_by")

    def __init__(self, key: tuple[bytes, bytes, str], number: int) -> None:
        self.key = key
        self.sql, types, _ = key
        self.types = types
        self.number = number
        self.shape: Shape | None = None  # found when it is first bound
        self.name = PREFIX + str(number).encode()
        # the Parse message that makes it known to a server
        self.parse = messages.message(b"P", self.name + b"\0" + self.sql + b"\0" + types)
        self.describe = messages.describe_statement(self.name)
        self.type_oids = messages.parse_parse(self.parse[5:]).types  # the parameter types that its Parse declared
        self.used_by = 0

    def make_room(self, server: ServerConnection, limit: int, owner: object) -> tuple[bytes, list[int]]:
        """What to send before `parse`: closes the statement if the server may have it already, and the oldest ones
        above `limit`, a few at a time: each takes a place in the server's queue of replies. Their completions are cut
        out; the numbers of the oldest ones are returned."""
        ahead = b""
        closed: list[int] = []
        known = server.prepared
        if known.pop(self.number, None) is not None:
            server.pipeline.owe_skipped(owner)
            ahead = messages.close_statement(self.name)
        while len(known) >= limit and len(closed) < CLOSED_AT_ONCE:
            number, _ = known.popitem(last=False)
            closed.append(number)
            server.pipeline.owe_skipped(owner)
            ahead += messages.close_statement(PREFIX + str(number).encode())
        return ahead, closed

    @property
    def memory_bytes(self) -> int:
        return len(self.parse) + len(self.sql) + 200


class PreparedStatements:
    """Every named statement of this node. At most `limit` that no client uses are remembered (LRU)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.known: dict[tuple[bytes, bytes, str], Prepared] = {}
        self.unused: OrderedDict[tuple[bytes, bytes, str], Prepared] = OrderedDict()
        self.numbered = 0

    def use(self, sql: bytes, types: bytes, search_path: str) -> Prepared:
        """`types` is the tail of the Parse message: a count and the type OIDs. The caller owes a `drop`."""
        key = (sql, types, search_path)
        found = self.known.get(key)
        if found is None:
            self.numbered += 1
            found = self.known[key] = Prepared(key, self.numbered)
        elif found.used_by == 0:
            self.unused.pop(key, None)
        found.used_by += 1
        return found

    def drop(self, prepared: Prepared) -> None:
        prepared.used_by -= 1
        if prepared.used_by == 0:
            self.unused[prepared.key] = prepared
            while len(self.unused) > self.limit:
                key, _ = self.unused.popitem(last=False)
                del self.known[key]

    def reset(self) -> None:
        """RESET PREPARED: forgets what no client uses."""
        for key in self.unused:
            del self.known[key]
        self.unused.clear()
