# cython: annotation_typing=False
"""The commonest of all statements: one value decides the shard, and nothing else. Compiled; see point.pxd.

A `Point` belongs to one statement under one topology and catalog. It reads that value (a literal of the text, or a
parameter's bytes) when it is written the way everybody writes it, and says which shard it hashes or maps to. Anything
unusual (NULL, blanks, signs other than one minus, hexadecimal, escapes, text beyond ASCII, types that are not the
column's own) is NOWHERE: to be asked again the general way (`plan`), which knows all rules and all errors.

Whether the statement may go to that shard is not decided here: a planner whose answer depended on the key's shard
alone says so with `learn`, once per shard; `known` remembers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.routing import hashing
from node.routing.lexed import INTEGER, STRING
from node.routing.operands import Literal, Parameter
from node.routing.outcome import Role
from node.routing.shard_map import shard_of
from node.routing.topology import DataType, Hasher

if TYPE_CHECKING:
    from node.routing.catalog import Catalog
    from node.routing.lexed import Lexed
    from node.routing.operands import Operand
    from node.routing.outcome import Plan, Values
    from node.routing.topology import ShardedTable, Topology

NOWHERE = _NOWHERE = -1

_INTEGER, _STRING = INTEGER, STRING
_BIGINT, _VARCHAR, _UUID = 1, 2, 3
_TYPES = {DataType.BIGINT: _BIGINT, DataType.VARCHAR: _VARCHAR, DataType.UUID: _UUID}
_DIGITS = 18  # as many always fit into an int8
_SMALL_DIGITS = 4  # as many always fit into an int2
_WORD = 0xFFFFFFFFFFFFFFFF
_NONE = 1 << 62  # no number of that many digits
_HEX = bytes(int(chr(c), 16) if chr(c) in "0123456789abcdefABCDEF" else 255 for c in range(256))


class Point:
    def __init__(
        self, operand: Literal | Parameter, rule: ShardedTable, topology: Topology, catalog: Catalog, *, bound: bool
    ) -> None:
        self.topology = topology
        self.catalog = catalog
        self.bound = bound  # the text has parameters: without a Bind it is only described
        self.number = 0  # of the parameter; 0: a literal
        self.known = bytearray(topology.shards)
        self.any_role = self.writes = False
        self._ordinal = 0
        self._negative = False
        if isinstance(operand, Parameter):
            self.number = operand.number
        else:
            self._ordinal, self._negative = operand.ordinal, operand.negative
        self._rule = rule
        self._shards = topology.shards
        self._type = _TYPES[rule.data_type]
        self._hashed = rule.mapping is None and not rule.lookup_is_shard and rule.hasher is Hasher.POSTGRES

    def learn(self, plan: Plan) -> None:
        """`plan` is the answer for every value that lives on its shard; role and writes are the statement's."""
        self.known[plan.shards[0]] = 1
        self.any_role = plan.role is Role.ANY
        self.writes = plan.writes

    def shard(self, values: Values) -> int:
        """The shard of the value, or NOWHERE."""
        if self.number == 0:
            return self.in_text(values.lexed) if values.lexed is not None else _NOWHERE
        index = self.number - 1
        parameters, formats = values.parameters, values.formats
        value = parameters[index] if parameters is not None and index < len(parameters) else None
        if value is None:
            return _NOWHERE
        code = formats[index if len(formats) > 1 else 0] if formats else 0
        if code not in (0, 1):
            return _NOWHERE
        oid = values.types[index] if index < len(values.types) else 0
        return self.in_value(value, 0, len(value), code == 1, oid)

    def in_text(self, lexed: Lexed) -> int:
        """The shard of the literal, or NOWHERE."""
        marks = lexed.marks
        at = 3 * self._ordinal
        if self.number or at + 2 >= len(marks):
            return _NOWHERE
        kind = marks[at]
        start = marks[at + 1]
        end = marks[at + 2]
        if kind == _INTEGER:
            if self._type != _BIGINT:
                return _NOWHERE
            value = _whole(lexed.sql, start, end, _DIGITS)
            if value == _NONE or value < 0:
                return _NOWHERE
            return self._of_integer(-value if self._negative else value)
        if kind != _STRING or self._negative or not _is_plain(lexed.sql, start, end, lexed.flags):
            return _NOWHERE
        return self._of_text(lexed.sql, start + 1, end - 1, _DIGITS)

    def in_value(self, data: bytes, start: int, end: int, binary: bool, oid: int) -> int:
        """The shard of the parameter data[start:end], or NOWHERE. `oid`: its declared type, 0 if left open."""
        if self._type == _BIGINT:
            if oid != 0 and oid != 20 and oid != 23 and oid != 21:
                return _NOWHERE
            if not binary:
                return self._of_text(data, start, end, _SMALL_DIGITS if oid == 21 or oid == 23 else _DIGITS)
            size = end - start
            if size != 4 and size != 8 and size != 2:
                return _NOWHERE
            return self._of_integer(_signed(data, start, size))
        if self._type == _VARCHAR:
            if oid != 0 and oid != 25 and oid != 1043:
                return _NOWHERE
        elif oid != 0 and oid != 2950:
            return _NOWHERE
        elif binary:
            return self._of_key(data[start:end]) if end - start == 16 else _NOWHERE
        return self._of_text(data, start, end, 0)

    def _of_text(self, data: bytes, start: int, end: int, digits: int) -> int:
        if self._type == _BIGINT:
            value = _whole(data, start, end, digits)
            return _NOWHERE if value == _NONE else self._of_integer(value)
        if self._type == _VARCHAR:
            return self._of_key(data[start:end]) if _is_ascii(data, start, end) else _NOWHERE
        key = _uuid(data, start, end)
        return self._of_key(key) if key is not None else _NOWHERE

    def _of_integer(self, value: int) -> int:
        if self._hashed:
            return int(hashing.word(value & _WORD) % self._shards)
        return self._of_rule(value)

    def _of_key(self, key: bytes) -> int:
        if self._hashed:
            return int(hashing.varchar(key) % self._shards)
        return self._of_rule(key)

    def _of_rule(self, key: int | bytes) -> int:
        found = shard_of(self._rule, key, self._shards)
        return _NOWHERE if found is None or found >= self._shards else found


def made(
    operand: Operand | str, rule: ShardedTable, topology: Topology, catalog: Catalog, *, bound: bool
) -> Point | None:
    """The point of a statement whose key is this operand; None where it takes more to know the key."""
    if not isinstance(operand, (Literal, Parameter)) or rule.data_type not in _TYPES:
        return None
    return Point(operand, rule, topology, catalog, bound=bound)


def _whole(data: bytes, start: int, end: int, most: int) -> int:
    """At most `most` decimal digits behind at most one minus; else _NONE."""
    d = data
    i = start
    if i < end and d[i] == 45:
        i += 1
    if i >= end or end - i > most:
        return _NONE
    value = 0
    while i < end:
        c = d[i]
        if c < 48 or c > 57:
            return _NONE
        value = value * 10 + (c - 48)
        i += 1
    return -value if d[start] == 45 else value


def _signed(data: bytes, start: int, size: int) -> int:
    """Two's complement in network order."""
    d = data
    value = d[start] - 256 if d[start] > 127 else d[start]
    i = start + 1
    while i < start + size:
        value = value * 256 + d[i]
        i += 1
    return value


def _is_ascii(data: bytes, start: int, end: int) -> bool:
    d = data
    while start < end:
        if d[start] > 127:
            return False
        start += 1
    return True


def _is_plain(sql: bytes, start: int, end: int, flags: int) -> bool:
    """'...' without a quote or, where it could escape something, a backslash inside."""
    d = sql
    if end - start < 2 or d[start] != 39:
        return False
    i = start + 1
    while i < end - 1:
        if d[i] == 39 or (d[i] == 92 and flags & 1):
            return False
        i += 1
    return True


def _uuid(data: bytes, start: int, end: int) -> bytes | None:
    """Thirty-two digits, hyphens after any group of four; braces are for the general way."""
    d = data
    hexadecimal = _HEX
    key = bytearray(16)
    o = key
    i = start
    k = 0
    while k < 16:
        if i + 1 >= end:
            return None
        high = hexadecimal[d[i]]
        low = hexadecimal[d[i + 1]]
        if high > 15 or low > 15:
            return None
        o[k] = high * 16 + low
        k += 1
        i += 2
        if k < 16 and k % 2 == 0 and i < end and d[i] == 45:
            i += 1
    return bytes(key) if i == end else None
