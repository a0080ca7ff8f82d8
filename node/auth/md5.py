"""MD5 password authentication: md5(md5(password + user) + salt), in hex (protocol chapter "Start-up").

Weak, kept for old clients: whoever reads the exchange may guess the password offline.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import md5

from node.auth.conversation import Done, rejected
from node.wire.startup import PASSWORD_LIMIT_BYTES, Authentication, authentication, parse_password, password_message

MD5_SALT_BYTES = 4


def _hex(data: bytes) -> bytes:
    return md5(data, usedforsecurity=False).hexdigest().encode()


def answer(user: bytes, password: bytes, salt: bytes) -> bytes:
    """What a client sends for this salt."""
    return b"md5" + _hex(_hex(password + user) + salt)


def client_message(user: bytes, password: bytes, salt: bytes) -> bytes:
    return password_message(answer(user, password, salt))


class Md5Server:
    """No passwords means an unknown user: the same work is done against `decoy`, which never fits."""

    limit_bytes = PASSWORD_LIMIT_BYTES

    def __init__(self, user: str, passwords: Sequence[str], *, salt: bytes, decoy: bytes) -> None:
        self._user = user
        self._salt = salt
        name = user.encode("utf-8", "surrogateescape")
        candidates = [password.encode("utf-8", "surrogateescape") for password in passwords]
        self._answers = [answer(name, candidate, salt) for candidate in candidates or [decoy]]
        self._known = bool(candidates)

    def start(self) -> bytes:
        return authentication(Authentication.MD5_PASSWORD, self._salt)

    def receive(self, body: bytes) -> bytes | Done:
        given = parse_password(body)
        fits = [hmac.compare_digest(given, expected) for expected in self._answers]
        if any(fits) and self._known:
            return Done(b"", "md5")
        raise rejected(self._user)
