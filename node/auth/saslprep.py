"""SASLprep (RFC 4013) as PostgreSQL applies it to passwords: what cannot be prepared is used as it is."""

from __future__ import annotations

import stringprep
import unicodedata


def saslprep(password: str) -> bytes:
    """The password's bytes after SASLprep; its plain UTF-8 when SASLprep forbids it.

    ASCII is never touched, not even control characters, because PostgreSQL does not. Text that was not valid UTF-8
    arrives with surrogate escapes and leaves as the original bytes.
    """
    raw = password.encode("utf-8", "surrogateescape")
    if password.isascii():
        return raw
    # U+200B is in both tables; PostgreSQL asks for the space first.
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c
        for c in password
        if stringprep.in_table_c12(c) or not stringprep.in_table_b1(c)
    )
    prepared = unicodedata.normalize("NFKC", mapped)
    if not prepared or any(map(_prohibited, prepared)) or not _direction_allowed(prepared):
        return raw
    return prepared.encode()


_PROHIBITED = (
    stringprep.in_table_a1,  # unassigned in Unicode 3.2
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def _prohibited(character: str) -> bool:
    return any(table(character) for table in _PROHIBITED)


def _direction_allowed(text: str) -> bool:
    """RFC 3454 §6: with any right-to-left character, no left-to-right one, and right-to-left at both ends."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    if any(map(stringprep.in_table_d2, text)):
        return False
    return stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
