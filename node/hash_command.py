"""`pgmurmur hash`: which shard a key lives on, VALUE<TAB>shard, by the same hash the router uses."""

from __future__ import annotations

import sys
from uuid import UUID

from node.options import HashOptions
from node.routing import hashing


def main(options: HashOptions) -> int:
    """0 when every value could be read; otherwise 1 and nothing on standard output."""
    try:
        lines = [f"{value}\t{shard_of(value, options)}" for value in options.values]
    except ValueError as error:
        print(f"pgmurmur hash: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def shard_of(value: str, options: HashOptions) -> int:
    """Raises `ValueError` for a value that is no `data_type`."""
    sha1 = options.hasher == "sha1"
    match options.data_type:
        case "bigint":
            number = _bigint(value)
            hashed = hashing.sha1(str(number).encode()) if sha1 else hashing.bigint(number)
        case "uuid":
            raw = _uuid(value)
            hashed = hashing.sha1(raw) if sha1 else hashing.uuid(raw)
        case "varchar":
            text = value.encode("utf-8", "surrogateescape")  # argv may hold bytes that are no UTF-8; hash those bytes
            hashed = hashing.sha1(text) if sha1 else hashing.varchar(text)
        case other:
            raise ValueError(f'unknown type "{other}"')
    return hashed % options.shards


def _bigint(text: str) -> int:
    try:
        number = int(text.replace("_", "x"))  # int() takes 1_000, PostgreSQL's bigint of older versions does not
    except ValueError:
        raise ValueError(f'invalid input syntax for type bigint: "{text}"') from None
    if not -(2**63) <= number < 2**63:
        raise ValueError(f'value "{text}" is out of range for type bigint')
    return number


def _uuid(text: str) -> bytes:
    try:
        return UUID(text).bytes
    except ValueError:
        raise ValueError(f'invalid input syntax for type uuid: "{text}"') from None
