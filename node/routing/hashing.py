# cython: annotation_typing=False
"""The hash of PostgreSQL's `PARTITION BY HASH` on one column, and the sha1 hasher. Compiled; see hashing.pxd.

Bob Jenkins' lookup3 (public domain, 2006) with a 64-bit seed, as PostgreSQL documents it for its extended hash
functions; `satisfies_hash_partition` is the oracle. Results are unsigned 64-bit; the shard is `result % shards`.

The seed is HASH_PARTITION_SEED, 0x7A5B22367996DCFD; `plus` is what combining a hash into 0 adds.

Every step is masked to 32 bits, so that the interpreted and the compiled build compute the same: C wraps at 64 bits,
Python does not wrap at all.
"""

from __future__ import annotations

import hashlib

_FOUR = bytearray(4)  # an integer's bytes on their way into the hash


def bigint(v: int) -> int:
    """int2, int4 and int8 hash alike: the high half is folded into the low one, sign-symmetrically."""
    return word(v & 0xFFFFFFFFFFFFFFFF)


def word(v: int) -> int:
    """`bigint` of a number given as its 64 bits in two's complement."""
    m = 0xFFFFFFFF
    low = v & m
    high = (v >> 32) & m
    low ^= high if high < 0x80000000 else high ^ m
    four = _FOUR
    four[0] = low & 255
    four[1] = (low >> 8) & 255
    four[2] = (low >> 16) & 255
    four[3] = low >> 24
    return _hash(four, 4)


def varchar(raw: bytes) -> int:
    """Text of any length: its bytes in the server encoding, no terminator, no trimming, no collation."""
    return _hash(raw, len(raw))


def _hash(raw: bytes | bytearray, n: int) -> int:
    d = raw
    i = 0
    m = 0xFFFFFFFF  # typed locals: Cython takes wider constants for Python objects
    golden = 0x9E3779B9
    plus = 0x49A0F4DD15E5A8E3
    a = b = c = (golden + n + 3923095) & m
    a = (a + 0x7A5B2236) & m
    b = (b + 0x7996DCFD) & m
    while True:
        # mix: the first round takes in the seed, each further one the twelve bytes added below
        a = ((a - c) & m) ^ (((c << 4) | (c >> 28)) & m)
        c = (c + b) & m
        b = ((b - a) & m) ^ (((a << 6) | (a >> 26)) & m)
        a = (a + c) & m
        c = ((c - b) & m) ^ (((b << 8) | (b >> 24)) & m)
        b = (b + a) & m
        a = ((a - c) & m) ^ (((c << 16) | (c >> 16)) & m)
        c = (c + b) & m
        b = ((b - a) & m) ^ (((a << 19) | (a >> 13)) & m)
        a = (a + c) & m
        c = ((c - b) & m) ^ (((b << 4) | (b >> 28)) & m)
        b = (b + a) & m
        if n - i < 12:
            break
        a = (a + (d[i] | (d[i + 1] << 8) | (d[i + 2] << 16) | (d[i + 3] << 24))) & m
        b = (b + (d[i + 4] | (d[i + 5] << 8) | (d[i + 6] << 16) | (d[i + 7] << 24))) & m
        c = (c + (d[i + 8] | (d[i + 9] << 8) | (d[i + 10] << 16) | (d[i + 11] << 24))) & m
        i += 12
    shift = 0
    while i < n:  # the tail; the lowest byte of c is taken by the length, hence its shift of 8
        x = d[i]
        if shift < 32:
            a = (a + (x << shift)) & m
        elif shift < 64:
            b = (b + (x << (shift - 32))) & m
        else:
            c = (c + (x << (shift - 56))) & m
        shift += 8
        i += 1
    c = ((c ^ b) - (((b << 14) | (b >> 18)) & m)) & m
    a = ((a ^ c) - (((c << 11) | (c >> 21)) & m)) & m
    b = ((b ^ a) - (((a << 25) | (a >> 7)) & m)) & m
    c = ((c ^ b) - (((b << 16) | (b >> 16)) & m)) & m
    a = ((a ^ c) - (((c << 4) | (c >> 28)) & m)) & m
    b = ((b ^ a) - (((a << 14) | (a >> 18)) & m)) & m
    c = ((c ^ b) - (((b << 24) | (b >> 8)) & m)) & m
    return (((b << 32) | c) + plus) & ((m << 32) | m)


def uuid(raw16: bytes) -> int:
    """The sixteen bytes in network order."""
    return varchar(raw16)


def sha1(raw: bytes) -> int:
    """The last four bytes of SHA-1, big endian; `raw` is a bigint's decimal text, a uuid's bytes or the string."""
    return int.from_bytes(hashlib.sha1(raw, usedforsecurity=False).digest()[16:], "big")
