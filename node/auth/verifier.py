"""Chooses how a client proves who it is, so that outsiders cannot tell a wrong user from a wrong password.

The salt of a user is a function of the node's secret and the user's name, for users who exist and for those who do
not: a name that is guessed twice gets the same salt twice, one salt serves all accepted passwords of a user, and PBKDF2
runs once per user and password, not once per login. Give every member of a flock the same secret and a client may
reuse its keys with any of them.

What remains measurable: the first login of a user whose keys are not derived yet takes 1.5 ms more (call `warm` with
new accounts), and a `password_hash` made with other iterations than ours shows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from node.auth.conversation import Conversation, Done, violated
from node.auth.md5 import MD5_SALT_BYTES, Md5Server
from node.auth.plain import PassthroughServer, PlainServer
from node.auth.scram import (
    DEFAULT_ITERATIONS,
    KEY_BYTES,
    NONCE_BYTES,
    SALT_BYTES,
    KeyCache,
    Keys,
    ScramServer,
    ScramVerifier,
    half_done,
    nonce_of,
)


class AuthType(StrEnum):
    """`auth_type` in the configuration."""

    SCRAM = "scram"
    MD5 = "md5"
    PLAIN = "plain"
    TRUST = "trust"


@dataclass(frozen=True, slots=True)
class Account:
    """One user as far as logging in goes. Texts from the configuration; secrets stay out of repr."""

    user: str
    auth_type: AuthType = AuthType.SCRAM
    passwords: tuple[str, ...] = field(default=(), repr=False)
    verifier: ScramVerifier | None = field(default=None, repr=False)  # users.password_hash
    database_exists: bool = True  # asked for together with the user; told only after authentication
    is_admin: bool = False
    identity: str | None = None  # client certificate identity that replaces a password
    certificate_required: bool = False  # only means something when the listener has a client CA
    passthrough: bool = False  # ask for the password and check it with the server


class Authenticator:
    """`secret` keys salts and decoys (at least 16 bytes); `token(n)` yields n unpredictable bytes."""

    def __init__(
        self,
        secret: bytes,
        token: Callable[[int], bytes],
        *,
        iterations: int = DEFAULT_ITERATIONS,
        cache: KeyCache | None = None,
    ) -> None:
        self._secret = secret
        self._token = token
        self._iterations = iterations
        # What a proof is held against where there is no password. Nobody can make a proof for a stored key that is not
        # a hash of anything known, and no proof that fails tells anything about it: one serves all such users.
        self._nobody = [Keys(token(KEY_BYTES), token(KEY_BYTES))]
        self.cache = cache if cache is not None else KeyCache()

    def converse(
        self, user: str, account: Account | None, auth_type: AuthType, *, binding: bytes | None
    ) -> Conversation | Done:
        """How this client must authenticate; `Done` when it need not. Raises ClientFault 28000.

        `account` None: nobody knows this user, and `auth_type` is the way it would be asked.
        """
        if account is not None and account.passthrough:
            return PassthroughServer(user)
        method = account.auth_type if account is not None else auth_type
        if method is AuthType.TRUST:
            if account is None:
                raise violated(f'role "{user}" does not exist', sqlstate="28000")
            return Done(b"", "trust")
        passwords = tuple(filter(None, account.passwords)) if account is not None else ()
        verifier = account.verifier if account is not None else None
        if method is AuthType.PLAIN:
            return PlainServer(user, passwords, verifier, decoy=self._token(SALT_BYTES))
        if method is AuthType.MD5 and verifier is None:  # a SCRAM verifier cannot be checked by MD5
            return Md5Server(user, passwords, salt=self._token(MD5_SALT_BYTES), decoy=self._token(SALT_BYTES))
        return self._scram(user, passwords, verifier, binding)

    def _scram(
        self, user: str, passwords: Sequence[str], verifier: ScramVerifier | None, binding: bytes | None
    ) -> ScramServer:
        salt, iterations = self._parameters(user, verifier)

        def keys() -> list[Keys]:
            known = [self.cache.get(password, salt, iterations).keys for password in passwords]
            if verifier is not None:
                known.append(verifier.keys)
            return known or self._nobody

        nonce = nonce_of(self._token(NONCE_BYTES))
        return ScramServer(user, keys, salt=salt, iterations=iterations, nonce=nonce, binding=binding)

    def _parameters(self, user: str, verifier: ScramVerifier | None) -> tuple[bytes, int]:
        if verifier is not None:
            return verifier.salt, verifier.iterations
        name = user.encode("utf-8", "surrogateescape")
        return half_done(self._secret)(b"salt of " + name)[:SALT_BYTES], self._iterations

    def to_derive(self, accounts: Iterable[Account]) -> list[tuple[str, bytes, int]]:
        """Arguments of `scram.derive` for all SCRAM passwords that are not in the cache yet."""
        wanted: dict[tuple[str, bytes, int], None] = {}
        for account in accounts:
            salt, iterations = self._parameters(account.user, account.verifier)
            scram = not account.passthrough and (account.auth_type is AuthType.SCRAM or account.verifier is not None)
            for password in account.passwords if scram else ():
                if password and not self.cache.holds(password, salt, iterations):
                    wanted[password, salt, iterations] = None
        return list(wanted)
