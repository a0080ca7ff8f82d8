"""What the proxy knows about values: keys that sort and compare like PostgreSQL, and codecs of the types it computes.

A *key* is bytes: keys of two values compare as PostgreSQL's ORDER BY compares them, and are the same bytes exactly
when its `=` (and so GROUP BY and DISTINCT) says they are equal. Keys are made from the **binary** format, which the
proxy asks of the shards for its hidden columns, whatever the client wants to see. Each key is self-delimiting, so
keys of several columns can be joined.

A type that is missing here is refused by the caller: unknown types are never compared as raw bytes, because
`1.0 = 1.00`, `'1 day' = '24 hours'` and `-0 = 0` are equal without having the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from node.errors import ClientFault, refused
from node.gather import numeric

BOOL, BYTEA, CHAR, NAME, INT8, INT2, INT4, TEXT, OID, XID = 16, 17, 18, 19, 20, 21, 23, 25, 26, 28
FLOAT4, FLOAT8, MONEY, MACADDR8, MACADDR, INET, CIDR = 700, 701, 790, 774, 829, 869, 650
BPCHAR, VARCHAR, DATE, TIME, TIMESTAMP, TIMESTAMPTZ, INTERVAL, TIMETZ = 1042, 1043, 1082, 1083, 1114, 1184, 1186, 1266
BIT, VARBIT, NUMERIC, UUID, PG_LSN = 1560, 1562, 1700, 2950, 3220

INTEGERS: Final = frozenset((INT2, INT4, INT8))
INTEGER_NAMES: Final = {INT2: "smallint", INT4: "integer", INT8: "bigint"}
COLLATABLE: Final = frozenset((TEXT, VARCHAR, BPCHAR, NAME))
# Arrays whose equality is the equality of their elements' bytes: element type by array type.
ARRAYS: Final = {
    1000: BOOL, 1001: BYTEA, 1003: NAME, 1005: INT2, 1007: INT4, 1009: TEXT, 1015: VARCHAR, 1016: INT8, 1028: OID,
    1040: MACADDR, 1041: INET, 651: CIDR, 1115: TIMESTAMP, 1182: DATE, 1183: TIME, 1185: TIMESTAMPTZ, 2951: UUID,
}  # fmt: skip

Key = Callable[[bytes], bytes]
_FLIP: Final[list[bytes]] = [bytes((n ^ 0x80,)) for n in range(256)]


def _signed(raw: bytes) -> bytes:
    return _FLIP[raw[0]] + raw[1:]


def _plain(raw: bytes) -> bytes:
    return raw


def _string(raw: bytes) -> bytes:
    """Text holds no zero byte, so one ends it and sorts a prefix first."""
    return raw + b"\0"


def _padded(raw: bytes) -> bytes:
    """Trailing blanks of character(n) mean nothing."""
    return raw.rstrip(b" ") + b"\0"


def _bytes(raw: bytes) -> bytes:
    return raw.replace(b"\0", b"\0\xff") + b"\0\1"


def _float(raw: bytes) -> bytes:
    value: float = struct.unpack("!f" if len(raw) == 4 else "!d", raw)[0]
    if value != value:
        return b"\xff" * 9  # NaN equals NaN and is greater than everything
    image: bytes = struct.pack("!d", value + 0.0)  # + 0.0 makes -0 the 0 it equals
    return bytes(image.translate(numeric.INVERTED)) if image[0] & 0x80 else _signed(image)


def _interval(raw: bytes) -> bytes:
    """A month counts 30 days and a day 24 hours, as PostgreSQL compares intervals."""
    micros, days, months = struct.unpack("!qii", raw)
    total: int = micros + (days + months * 30) * 86_400_000_000
    return (total + (1 << 127)).to_bytes(16, "big")


def _timetz(raw: bytes) -> bytes:
    micros, zone = struct.unpack("!qi", raw)
    # Same instant first, then the zone; a zone is stored as seconds west of Greenwich.
    return struct.pack("!Q", micros + zone * 1_000_000 + (1 << 62)) + _signed(struct.pack("!i", zone))


def _network(raw: bytes) -> bytes:
    """inet, cidr: family, then the network part, then its length, then the whole address."""
    family, bits, address = raw[:1], raw[1], raw[4:]
    width = 8 * len(address)
    network = int.from_bytes(address, "big") >> (width - bits) << (width - bits)
    return family + network.to_bytes(len(address), "big") + bytes((bits,)) + address


def _bits(raw: bytes) -> bytes:
    """Equality only would do; the order is bytes first, then length."""
    return _bytes(raw[4:]) + raw[:4]


def _array(raw: bytes) -> bytes:
    """Equality only. The "contains nulls" flag may be set without a null, so it takes no part."""
    return _bytes(raw[:4] + raw[8:])


KEYS: Final[dict[int, Key]] = {
    BOOL: _plain,
    BYTEA: _bytes,
    CHAR: _plain,
    NAME: _string,
    INT8: _signed,
    INT2: _signed,
    INT4: _signed,
    TEXT: _string,
    OID: _plain,
    XID: _plain,
    FLOAT4: _float,
    FLOAT8: _float,
    MONEY: _signed,
    MACADDR8: _plain,
    MACADDR: _plain,
    INET: _network,
    CIDR: _network,
    BPCHAR: _padded,
    VARCHAR: _string,
    DATE: _signed,
    TIME: _signed,
    TIMESTAMP: _signed,
    TIMESTAMPTZ: _signed,
    INTERVAL: _interval,
    TIMETZ: _timetz,
    BIT: _bits,
    VARBIT: _bits,
    NUMERIC: numeric.order_key,
    UUID: _plain,
    PG_LSN: _plain,
    **dict.fromkeys(ARRAYS, _array),
}
UNORDERED: Final = frozenset((XID, *ARRAYS))  # equality is exact, order is not known here
# What the compiled loop may do itself, without a call per value.
INLINE_SIGNED: Final = frozenset((INT2, INT4, INT8, MONEY, DATE, TIME, TIMESTAMP, TIMESTAMPTZ))
INLINE_PLAIN: Final = frozenset((BOOL, CHAR, OID, XID, MACADDR, MACADDR8, UUID, PG_LSN))


def equality_key(type_oid: int, what: str) -> Key:
    """Raises 0A000 for a type whose equality the proxy does not know."""
    found = KEYS.get(type_oid)
    if found is None:
        raise _unknown(type_oid, what)
    return found


def ordering_key(type_oid: int, bytewise: bool, what: str) -> Key:
    """Raises 0A000 for a type, or for text under a collation, whose order the proxy does not know."""
    found = KEYS.get(type_oid)
    if found is None or type_oid in UNORDERED:
        raise _unknown(type_oid, what)
    if type_oid in COLLATABLE and not bytewise:
        raise ClientFault(
            f'{what} of text under a collation other than "C" is not supported across shards',
            sqlstate="0A000",
            hint='add COLLATE "C" (with client_encoding UTF8), or restrict the query to one shard by its sharding key',
        )
    return found


def _unknown(type_oid: int, what: str) -> ClientFault:
    return ClientFault(
        f"{what} of values of type OID {type_oid} is not supported across shards",
        sqlstate="0A000",
        detail="the proxy does not know how PostgreSQL compares values of this type",
    )


def int_of(raw: bytes) -> int:
    """A binary int2, int4 or int8."""
    return int.from_bytes(raw, "big", signed=True)


def int_out(type_oid: int, value: int, binary: bool) -> bytes:
    """An integer of that type in the client's format; 22003 when it does not fit, as PostgreSQL says it."""
    size = {INT2: 2, INT4: 4, INT8: 8}[type_oid]
    if not -(1 << 8 * size - 1) <= value < 1 << 8 * size - 1:
        raise ClientFault(f"{INTEGER_NAMES[type_oid]} out of range", sqlstate="22003")
    return value.to_bytes(size, "big", signed=True) if binary else b"%d" % value


def numeric_out(value: numeric.Numeric, binary: bool) -> bytes:
    return numeric.encode(value) if binary else numeric.text(value)


def bool_out(value: bool, binary: bool) -> bytes:
    if binary:
        return b"\1" if value else b"\0"
    return b"t" if value else b"f"


def array_elements(raw: bytes) -> tuple[int, list[bytes | None]]:
    """Element type OID and values of a binary array of at most one dimension. Raises ClientFault 22P03, 0A000."""
    try:
        dimensions, _, element = struct.unpack_from("!iiI", raw)
        if dimensions == 0:
            return element, []
        if dimensions != 1:
            raise refused("DISTINCT of arrays in an aggregate")  # the shards aggregated them into one
        (count,) = struct.unpack_from("!i", raw, 12)
        at, values = 20, []
        for _ in range(count):
            (size,) = struct.unpack_from("!i", raw, at)
            at += 4
            values.append(None if size < 0 else raw[at : at + size])
            at += max(size, 0)
    except struct.error as error:
        raise ClientFault("incorrect binary data format in an array from a shard", sqlstate="22P03") from error
    return element, values
