"""Clear-text passwords: only sensible inside TLS, and the one way to learn a password (passthrough)."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from node.auth.conversation import Done, Slow, rejected
from node.auth.scram import ScramVerifier
from node.wire.startup import PASSWORD_LIMIT_BYTES, Authentication, authentication, parse_password


class PlainServer:
    """No passwords and no verifier means an unknown user: the same comparison is made against `decoy`."""

    limit_bytes = PASSWORD_LIMIT_BYTES

    def __init__(self, user: str, passwords: Sequence[str], verifier: ScramVerifier | None, *, decoy: bytes) -> None:
        self._user = user
        self._verifier = verifier
        candidates = [password.encode("utf-8", "surrogateescape") for password in passwords]
        self._known = bool(candidates)
        self._candidates = candidates or [decoy]

    def start(self) -> bytes:
        return authentication(Authentication.CLEARTEXT_PASSWORD)

    def receive(self, body: bytes) -> bytes | Done | Slow:
        given = parse_password(body)
        fits = [hmac.compare_digest(given, candidate) for candidate in self._candidates]
        if any(fits) and self._known:
            return self._judged(True)
        verifier = self._verifier
        if verifier is None:
            return self._judged(False)
        wanted = given.decode("utf-8", "surrogateescape"), verifier.salt, verifier.iterations
        return Slow(wanted, lambda derived: self._judged(verifier.fits(derived)))

    def _judged(self, accepted: bool) -> Done:
        if accepted:
            return Done(b"", "password")
        raise rejected(self._user)


class PassthroughServer:
    """Asks for the password and believes it: the caller checks it by logging in to a server with it."""

    limit_bytes = PASSWORD_LIMIT_BYTES

    def __init__(self, user: str) -> None:
        self._user = user

    def start(self) -> bytes:
        return authentication(Authentication.CLEARTEXT_PASSWORD)

    def receive(self, body: bytes) -> bytes | Done:
        given = parse_password(body)
        if not given:
            raise rejected(self._user)
        return Done(b"", "passthrough", given.decode("utf-8", "surrogateescape"))
