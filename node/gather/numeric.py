"""PostgreSQL's numeric as exact integers: wire forms, and the arithmetic whose *display scale* must be PostgreSQL's.

A finite value is `digits × 10^-scale`; scale is the display scale, so 1.50 and 1.5 are different values that compare
equal. NaN and the infinities are kinds. Rules follow the documentation chapter "Arbitrary Precision Numbers" and were
checked against a server (tests/integration/test_exactness_numeric.py).
"""

from __future__ import annotations

import struct
from math import isqrt
from typing import Final, NamedTuple

from node.errors import ClientFault

_HEAD = struct.Struct("!HhHH")  # digit count, weight, sign, display scale
_POSITIVE, _NEGATIVE, _NAN, _PLUS, _MINUS = 0x0000, 0x4000, 0xC000, 0xD000, 0xF000

FINITE, INFINITE, NOT_A_NUMBER = 0, 1, 2
DIGITS_PER_WORD = 4  # a wire word is a base-10000 digit
MIN_SIGNIFICANT = 16  # digits a quotient keeps at least
MAX_SCALE = 1000  # display scale of a computed result is never larger
MAX_WEIGHT = 0x7FFF  # in words: 131,072 digits before the point
_SAFE_TEXT_BITS = 12_000  # below Python's limit on int -> str, which exists because that is quadratic


class Numeric(NamedTuple):
    """`digits` carries the sign; for INFINITE it is +1 or -1."""

    kind: int
    digits: int
    scale: int


ZERO: Final = Numeric(FINITE, 0, 0)
NAN: Final = Numeric(NOT_A_NUMBER, 0, 0)


def of_int(value: int) -> Numeric:
    return Numeric(FINITE, value, 0)


def decode(raw: bytes) -> Numeric:
    """From the binary format. Raises ClientFault 22P03 on malformed input."""
    if len(raw) < 8:
        raise _malformed()
    count, weight, sign, scale = _HEAD.unpack_from(raw)
    if len(raw) != 8 + 2 * count:
        raise _malformed()
    if sign == _NAN:
        return NAN
    if sign in (_PLUS, _MINUS):
        return Numeric(INFINITE, 1 if sign == _PLUS else -1, 0)
    if sign not in (_POSITIVE, _NEGATIVE):
        raise _malformed()
    value = 0
    for word in struct.unpack_from(f"!{count}H", raw, 8):
        value = value * 10000 + word
    shift = scale + DIGITS_PER_WORD * (weight - count + 1)
    # Digits stored beyond the display scale are zeros by construction, so the division is exact.
    value = value * 10**shift if shift >= 0 else value // 10**-shift
    return Numeric(FINITE, -value if sign == _NEGATIVE else value, scale)


def encode(value: Numeric) -> bytes:
    """To the binary format. Raises ClientFault 22003 when PostgreSQL could not hold the value."""
    if value.kind == NOT_A_NUMBER:
        return _HEAD.pack(0, 0, _NAN, 0)
    if value.kind == INFINITE:
        # Servers send 32 as the scale of an infinity (flag bits of their short header); so do we, byte for byte.
        return _HEAD.pack(0, 0, _PLUS if value.digits > 0 else _MINUS, 32)
    words, weight = _words(value)
    if weight > MAX_WEIGHT:
        raise ClientFault("value overflows numeric format", sqlstate="22003")
    sign = _NEGATIVE if value.digits < 0 else _POSITIVE
    return _HEAD.pack(len(words), weight, sign, value.scale) + struct.pack(f"!{len(words)}H", *words)


def text(value: Numeric) -> bytes:
    """As numeric_out writes it."""
    if value.kind == NOT_A_NUMBER:
        return b"NaN"
    if value.kind == INFINITE:
        return b"Infinity" if value.digits > 0 else b"-Infinity"
    digits = _decimal(abs(value.digits)).rjust(value.scale + 1, "0")
    if value.scale:
        digits = f"{digits[: -value.scale]}.{digits[-value.scale :]}"
    return (f"-{digits}" if value.digits < 0 else digits).encode()


def order_key(raw: bytes) -> bytes:
    """Bytes that sort as PostgreSQL sorts numeric and are equal exactly when it says equal (1.0 = 1.00, NaN = NaN)."""
    value = decode(raw)
    if value.kind == NOT_A_NUMBER:
        return b"\x05"
    if value.kind == INFINITE:
        return b"\x04" if value.digits > 0 else b"\x00"
    if not value.digits:
        return b"\x02"
    words, weight = _words(value)
    # Every word is stored plus one: the closing zero then sorts a shorter number before its continuations.
    body = struct.pack(f"!H{len(words)}HH", weight + 0x8000, *[word + 1 for word in words], 0)
    return b"\x03" + body if value.digits > 0 else b"\x01" + body.translate(INVERTED)


INVERTED: Final = bytes(255 - n for n in range(256))


def add(left: Numeric, right: Numeric) -> Numeric:
    if left.kind or right.kind:
        if NOT_A_NUMBER in (left.kind, right.kind):
            return NAN
        if left.kind and right.kind and left.digits != right.digits:
            return NAN
        return left if left.kind else right
    scale = max(left.scale, right.scale)
    return Numeric(FINITE, _at_scale(left, scale) + _at_scale(right, scale), scale)


def multiply(left: Numeric, right: Numeric) -> Numeric:
    """Both finite; exact, the scales add up."""
    return Numeric(FINITE, left.digits * right.digits, left.scale + right.scale)


def divide(left: Numeric, right: Numeric) -> Numeric:
    """numeric / numeric for a finite, non-zero divisor, rounded to the scale PostgreSQL chooses."""
    if left.kind == NOT_A_NUMBER:
        return NAN
    if left.kind:
        return Numeric(INFINITE, left.digits if right.digits > 0 else -left.digits, 0)
    scale = division_scale(left, right)
    return Numeric(FINITE, _rounded(left.digits * 10 ** (scale + right.scale), right.digits * 10**left.scale), scale)


def division_scale(left: Numeric, right: Numeric) -> int:
    """At least 16 significant digits, and no fewer decimals than either input shows.

    The quotient's size is estimated from the first base-10000 words only, exactly as the server estimates it.
    """
    weight_left, first_left = _first_word(left)
    weight_right, first_right = _first_word(right)
    weight = weight_left - weight_right - (1 if first_left <= first_right else 0)
    scale = max(MIN_SIGNIFICANT - weight * DIGITS_PER_WORD, left.scale, right.scale, 0)
    return min(scale, MAX_SCALE)


def square_root(value: Numeric, scale: int) -> Numeric:
    """The root of a non-negative value, rounded half up to `scale`."""
    shifted = value.digits * 10 ** (2 * scale + 2)
    root = isqrt(shifted // 10**value.scale)  # one digit more than asked for
    # Half up needs no more than that digit: an exact tie would need a rational root, whose digits then end there.
    return Numeric(FINITE, (root + 5) // 10, scale)


def rescale(value: Numeric, scale: int) -> Numeric:
    """Rounded half away from zero to `scale` decimals (what a numeric(p, s) or integer cast does first)."""
    if value.kind or value.scale == scale:
        return value
    if value.scale < scale:
        return Numeric(FINITE, _at_scale(value, scale), scale)
    return Numeric(FINITE, _rounded(value.digits, 10 ** (value.scale - scale)), scale)


def _rounded(numerator: int, denominator: int) -> int:
    """Quotient rounded half away from zero."""
    quotient, rest = divmod(abs(numerator), abs(denominator))
    if 2 * rest >= abs(denominator):
        quotient += 1
    return -quotient if (numerator < 0) != (denominator < 0) else quotient


def _at_scale(value: Numeric, scale: int) -> int:
    shifted: int = value.digits * 10 ** (scale - value.scale)
    return shifted


def _words(value: Numeric) -> tuple[list[int], int]:
    """Base-10000 digits without leading and trailing zeros, and the weight of the first."""
    if not value.digits:
        return [], 0
    fraction = -(-value.scale // DIGITS_PER_WORD)
    number = _decimal(abs(value.digits) * 10 ** (fraction * DIGITS_PER_WORD - value.scale))
    number = number.rjust(-(-len(number) // DIGITS_PER_WORD) * DIGITS_PER_WORD, "0")
    words = [int(number[at : at + DIGITS_PER_WORD]) for at in range(0, len(number), DIGITS_PER_WORD)]
    weight = len(words) - 1 - fraction
    while words and not words[-1]:
        words.pop()
    return words, weight


def _first_word(value: Numeric) -> tuple[int, int]:
    words, weight = _words(value)
    return (weight, words[0]) if words else (0, 0)


def _decimal(value: int) -> str:
    """str() of a non-negative int of any size: halves are converted apart to stay below Python's digit limit."""
    if value.bit_length() <= _SAFE_TEXT_BITS:
        return str(value)
    half = value.bit_length() * 301 // 2000  # about half of the decimal digits
    high, low = divmod(value, 10**half)
    return _decimal(high) + _decimal(low).rjust(half, "0")


def _malformed() -> ClientFault:
    return ClientFault("incorrect binary data format in a numeric from a shard", sqlstate="22P03")
