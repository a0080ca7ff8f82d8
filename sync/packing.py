"""msgpack arrays with strict limits: bytes of a disk or a peer are checked field by field before they are believed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgpack  # type: ignore[import-untyped, unused-ignore]

from sync.roster import NAME_LIMIT
from sync.version import is_digest

T = TypeVar("T")

ITEMS_LIMIT = 4096  # of one array, before anything is allocated for it
REASON_LIMIT = 2000  # characters of one human-readable text
SCOPE_LIMIT = 256  # databases named by one rollout


class Malformed(ValueError):
    """Bytes which no member of this protocol version writes: dropped and counted, never half believed."""


def pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(data: bytes, limit_bytes: int) -> list[Any]:
    """One msgpack array of at most `limit_bytes`. Raises Malformed for anything else."""
    if len(data) > limit_bytes:
        raise Malformed(f"{len(data)} bytes exceed the limit of {limit_bytes}")
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_array_len=ITEMS_LIMIT,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=limit_bytes,
            max_bin_len=limit_bytes,
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Malformed(f"not msgpack of this protocol: {type(error).__name__}") from None
    if not isinstance(value, list):
        raise Malformed("not an array")
    return value


class Fields:
    """Reads an array's fields in order; the count must fit exactly. Every getter raises Malformed."""

    def __init__(self, values: Any, count: int) -> None:
        if not isinstance(values, list) or len(values) != count:
            raise Malformed(f"expected an array of {count} fields")
        self._values = iter(values)

    def raw(self) -> Any:
        return next(self._values)

    def integer(self, minimum: int = 0) -> int:
        value = self.raw()
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value < 2**63:
            raise Malformed("expected an integer in range")
        return value

    def number(self) -> float:
        value = self.raw()
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e15:
            raise Malformed("expected a finite number")
        return float(value)

    def flag(self) -> bool:
        value = self.raw()
        if not isinstance(value, bool):
            raise Malformed("expected true or false")
        return value

    def text(self, limit: int = NAME_LIMIT) -> str:
        value = self.raw()
        if not isinstance(value, str) or len(value) > limit:
            raise Malformed(f"expected a text of at most {limit} characters")
        return value

    def name(self) -> str:
        value = self.text()
        if not value:
            raise Malformed("expected a name")
        return value

    def digest(self, *, empty: bool = False) -> str:
        value = self.text()
        if not (is_digest(value) or (empty and not value)):
            raise Malformed("expected a sha-256 digest")
        return value

    def many(self, read: Callable[[Any], T], limit: int) -> tuple[T, ...]:
        value = self.raw()
        if not isinstance(value, list) or len(value) > limit:
            raise Malformed(f"expected a list of at most {limit}")
        return tuple(read(item) for item in value)

    def texts(self, limit: int, length: int = REASON_LIMIT) -> tuple[str, ...]:
        return self.many(lambda item: Fields([item], 1).text(length), limit)

    def optional(self, read: Callable[[Any], T]) -> T | None:
        value = self.raw()
        return None if value is None else read(value)
