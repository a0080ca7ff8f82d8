"""SASLprep as PostgreSQL does it (examples of RFC 4013 §3 and of its fallback)."""

from __future__ import annotations

import pytest

from node.auth.saslprep import saslprep


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("user", "user"),
        ("USER", "USER"),
        ("I\u00adX", "IX"),  # soft hyphen: mapped to nothing
        ("\u00aa", "a"),  # NFKC
        ("\u2168", "IX"),
        ("a\u00a0b", "a b"),  # a space is a space
        ("a\u200bb", "a b"),  # in both tables, the space wins
        ("\u0627\u0628", "\u0627\u0628"),  # right to left from end to end
    ],
)
def test_passwords_are_prepared(password: str, prepared: str) -> None:
    assert saslprep(password) == prepared.encode()


@pytest.mark.parametrize(
    "password",
    [
        "\x07bell",  # ASCII is never looked at
        "\u00aa\x07",  # a prohibited control character
        "\u0627\u0031",  # right to left must end so
        "a\u0627",  # mixed directions
        "\u00ad",  # nothing would be left
        "a\u0221",  # not assigned in Unicode 3.2
        "\ue000\u00aa",  # private use
    ],
)
def test_what_cannot_be_prepared_is_used_as_it_is(password: str) -> None:
    assert saslprep(password) == password.encode()


def test_bytes_that_are_no_utf8_stay_what_they_were() -> None:
    raw = b"caf\xe9\xaa"
    assert saslprep(raw.decode("utf-8", "surrogateescape")) == raw
