"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, both sides (RFC 5802, RFC 7677; channel binding RFC 5929).

    client                                                          server
      gs2 header, n=user, r=client nonce                 ->
                                                         <-         r=both nonces, s=salt, i=iterations
      c=base64(gs2 header [+ binding]), r=…, p=proof     ->
                                                         <-         v=server signature

What costs is PBKDF2 (thousands of HMACs); everything else is a handful. So both sides ask a `KeyCache` for what PBKDF2
yields. PostgreSQL ignores the user name inside the messages (the startup packet names the user), and so do we.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import pbkdf2_hmac, sha256
from typing import NamedTuple

from node.auth.conversation import Done, rejected, violated
from node.auth.saslprep import saslprep
from node.errors import ClientFault, ServerFault
from node.wire.startup import (
    SASL_LIMIT_BYTES,
    Authentication,
    authentication,
    authentication_sasl,
    parse_sasl_initial_response,
    sasl_initial_response,
    sasl_response,
)

SCRAM = b"SCRAM-SHA-256"
SCRAM_PLUS = b"SCRAM-SHA-256-PLUS"
BINDING = b"tls-server-end-point"

DEFAULT_ITERATIONS = 4096  # PostgreSQL's scram_iterations
SALT_BYTES = 16
NONCE_BYTES = 18  # of randomness, as PostgreSQL; 24 characters in base64
KEY_BYTES = 32
# A server may ask for as much work as it likes; a million rounds is half a second and above every recommendation.
ITERATIONS_LIMIT = 1_000_000
# Derived keys that a cache remembers (about 400 bytes each); the ones unused for longest go first.
CACHE_LIMIT = 10_000
# Keys whose HMAC is kept half done (about 1 kB each): two per user who logs in, those unused for longest go first.
HALF_DONE_LIMIT = 2_048
_BLOCK_BYTES = 64  # of SHA-256

_PRINTABLE = re.compile(rb"[\x21-\x2b\x2d-\x7e]+")  # RFC 5802: printable ASCII except the comma
_EXTENSION = re.compile(rb"[A-Za-z]=[^,]*")


# --- keys ------------------------------------------------------------------------------------------------------


_INNER, _OUTER = (bytes(byte ^ pad for byte in range(256)) for pad in (0x36, 0x5C))


@lru_cache(maxsize=HALF_DONE_LIMIT)
def half_done(key: bytes) -> Callable[[bytes], bytes]:
    """HMAC-SHA-256 by one key (RFC 2104), as far as it can be computed without the data. OpenSSL 3 looks the algorithm
    up at every one-shot HMAC, which takes four times as long as the hashing; the same keys come with every login."""
    block = (key if len(key) <= _BLOCK_BYTES else sha256(key).digest()).ljust(_BLOCK_BYTES, b"\0")
    inner, outer = sha256(block.translate(_INNER)), sha256(block.translate(_OUTER))

    def finish(data: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(data)
        second.update(first.digest())
        return second.digest()

    return finish


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(KEY_BYTES, "big")


def _base64(text: bytes, *, length: int | None = None) -> bytes | None:
    """The bytes behind strict base64; None when it is not, or not of that length."""
    try:
        raw = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return None
    return raw if length is None or len(raw) == length else None


def nonce_of(token: bytes) -> bytes:
    """A nonce as it stands in messages: printable, no comma."""
    return b64encode(token)


class Keys(NamedTuple):
    """What a server needs to know about a password: enough to check it, not enough to log in with it."""

    stored: bytes
    server: bytes


class Derived(NamedTuple):
    """Everything PBKDF2 is needed for."""

    client: bytes
    keys: Keys


def derive(password: str, salt: bytes, iterations: int) -> Derived:
    """The expensive step: about 0.4 ms per thousand iterations, with the GIL released."""
    salted = pbkdf2_hmac("sha256", saslprep(password), salt, iterations)
    client = _hmac(salted, b"Client Key")
    return Derived(client, Keys(sha256(client).digest(), _hmac(salted, b"Server Key")))


class KeyCache:
    """Remembers `derive` per (password, salt, iterations), `limit` of them; a failed login stores nothing.

    Only passwords that we were configured with enter it, never one that a client sent.
    """

    def __init__(self, limit: int = CACHE_LIMIT) -> None:
        self._limit = limit
        self._derived: OrderedDict[tuple[str, bytes, int], Derived] = OrderedDict()

    def __len__(self) -> int:
        return len(self._derived)

    def holds(self, password: str, salt: bytes, iterations: int) -> bool:
        return (password, salt, iterations) in self._derived

    def get(self, password: str, salt: bytes, iterations: int) -> Derived:
        """Derives on a miss. To keep that off the event loop, `put(…, derive(…))` from an executor first."""
        key = (password, salt, iterations)
        found = self._derived.get(key)
        if found is None:
            found = derive(password, salt, iterations)
            self.put(password, salt, iterations, found)
        else:
            self._derived.move_to_end(key)
        return found

    def put(self, password: str, salt: bytes, iterations: int, derived: Derived) -> None:
        self._derived[password, salt, iterations] = derived
        if len(self._derived) > self._limit:
            self._derived.popitem(last=False)


@dataclass(frozen=True, slots=True, repr=False)
class ScramVerifier:
    """`SCRAM-SHA-256$iterations:salt$stored:server`, as in pg_authid.rolpassword and users.password_hash."""

    iterations: int
    salt: bytes
    keys: Keys

    @classmethod
    def parse(cls, text: str) -> ScramVerifier:
        """Raises ValueError naming what is wrong, never showing the secret."""
        shape = re.fullmatch(r"SCRAM-SHA-256\$([0-9]{1,9}):([^$:]+)\$([^$:]+):([^$:]+)", text, re.ASCII)
        if shape is None:
            raise ValueError("a SCRAM verifier looks like SCRAM-SHA-256$iterations:salt$stored key:server key")
        iterations = int(shape[1])
        if not 1 <= iterations <= ITERATIONS_LIMIT:
            raise ValueError(f"iterations of a SCRAM verifier must be between 1 and {ITERATIONS_LIMIT}")
        salt = _base64(shape[2].encode())
        stored = _base64(shape[3].encode(), length=KEY_BYTES)
        server = _base64(shape[4].encode(), length=KEY_BYTES)
        if not salt or stored is None or server is None:
            raise ValueError(f"salt and keys of a SCRAM verifier must be base64, the keys {KEY_BYTES} bytes long")
        return cls(iterations, salt, Keys(stored, server))

    @classmethod
    def derive(cls, password: str, salt: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramVerifier:
        return cls(iterations, salt, derive(password, salt, iterations).keys)

    def fits(self, derived: Derived) -> bool:
        """Whether what was derived with this salt and these iterations comes from the password behind this verifier."""
        return hmac.compare_digest(derived.keys.stored, self.keys.stored)

    def __str__(self) -> str:
        salt, stored, server = (b64encode(part).decode() for part in (self.salt, *self.keys))
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored}:{server}"

    def __repr__(self) -> str:
        return f"ScramVerifier(iterations={self.iterations})"  # logs must not show the keys


# --- the server's side -----------------------------------------------------------------------------------------


_OFFER = authentication_sasl([SCRAM])
_OFFER_PLUS = authentication_sasl([SCRAM_PLUS, SCRAM])


class ScramServer:
    """Authenticates one client. For an unknown user the caller passes made-up keys: the conversation is the same.

    `keys` is called once, when the client's proof is there; every key it yields is tried, always all of them.
    `nonce` comes from `nonce_of`. `binding` is the hash of our certificate when the client came over TLS and the
    certificate can be bound, else None.
    """

    __slots__ = (
        *("_binding", "_challenge", "_client_first", "_gs2", "_keys", "_mechanism", "_nonce", "_server_first"),
        "_user",
    )

    limit_bytes = SASL_LIMIT_BYTES

    def __init__(
        self,
        user: str,
        keys: Callable[[], Sequence[Keys]],
        *,
        salt: bytes,
        iterations: int,
        nonce: bytes,
        binding: bytes | None = None,
    ) -> None:
        self._user = user
        self._keys = keys
        self._challenge = b",s=" + b64encode(salt) + b",i=%d" % iterations
        self._nonce = nonce
        self._binding = binding
        self._mechanism = b""
        self._gs2 = b""
        self._client_first = b""
        self._server_first: bytes | None = None

    def start(self) -> bytes:
        return _OFFER if self._binding is None else _OFFER_PLUS

    def receive(self, body: bytes) -> bytes | Done:
        """Raises ClientFault FATAL: 28P01 wrong password, 28000 channel binding, 08P01 anything malformed."""
        if self._server_first is not None:
            return self._final(body, self._server_first)
        if not self._mechanism:
            self._mechanism, data = parse_sasl_initial_response(body)
            offered = self._mechanism == SCRAM or (self._mechanism == SCRAM_PLUS and self._binding is not None)
            if not offered:
                raise violated("client selected an invalid SASL authentication mechanism")
            if data is None:
                return authentication(Authentication.SASL_CONTINUE)
            body = data
        return self._first(body)

    def _first(self, data: bytes) -> bytes:
        """client-first-message = gs2 flag, authzid, [m=…], n=user, r=nonce, extensions."""
        parts = data.split(b",", 4)
        if len(parts) < 4:
            raise _malformed("client-first-message is incomplete")
        flag, authzid, name, nonce = parts[:4]
        self._judge_binding(flag)
        if authzid:
            if not authzid.startswith(b"a="):
                raise _malformed("client-first-message has no authorization identity where one may stand")
            raise violated("client uses authorization identity, but it is not supported", sqlstate="0A000")
        if name.startswith(b"m="):
            raise violated("client requires an unsupported SCRAM extension", sqlstate="0A000")
        if not name.startswith(b"n="):
            raise _malformed("client-first-message has no user name")
        if not nonce.startswith(b"r=") or not _PRINTABLE.fullmatch(nonce, 2):
            raise _malformed("client-first-message has no printable nonce")
        self._gs2 = flag + b",,"
        self._client_first = data[len(self._gs2) :]
        self._nonce = nonce[2:] + self._nonce
        self._server_first = b"r=" + self._nonce + self._challenge
        return authentication(Authentication.SASL_CONTINUE, self._server_first)

    def _judge_binding(self, flag: bytes) -> None:
        """The client's view of channel binding must fit ours, or somebody between us is lying to one side."""
        if flag == b"n":
            if self._mechanism == SCRAM_PLUS:
                raise _malformed("client selected SCRAM-SHA-256-PLUS without channel binding data")
        elif flag == b"y":
            if self._mechanism == SCRAM_PLUS:
                raise _malformed("client selected SCRAM-SHA-256-PLUS without channel binding data")
            if self._binding is not None:
                raise violated(
                    "SCRAM channel binding negotiation error",
                    "the client supports SCRAM channel binding but thinks the server does not; it does",
                    sqlstate="28000",
                )
        elif flag.startswith(b"p="):
            if self._mechanism != SCRAM_PLUS:
                raise _malformed("client selected SCRAM-SHA-256 with channel binding data")
            if flag[2:] != BINDING:
                shown = flag[2:].decode("ascii", "backslashreplace")
                raise violated(f'unsupported SCRAM channel-binding type "{shown}"')
        else:
            raise _malformed("client-first-message has no channel-binding flag")

    def _final(self, data: bytes, server_first: bytes) -> Done:
        """client-final-message = c=…, r=…, extensions, p=proof."""
        without_proof, comma, proof_text = data.rpartition(b",p=")
        parts = without_proof.split(b",")
        if not comma or len(parts) < 2 or not all(map(_EXTENSION.fullmatch, parts)):
            raise _malformed("client-final-message is incomplete")
        proof = _base64(proof_text, length=KEY_BYTES)
        if proof is None:
            raise _malformed("client-final-message has no proof of 32 bytes")
        bound = self._binding if self._mechanism == SCRAM_PLUS else b""
        if not hmac.compare_digest(parts[0], b"c=" + b64encode(self._gs2 + (bound or b""))):
            if self._mechanism == SCRAM_PLUS:
                raise violated("SCRAM channel binding check failed", sqlstate="28000")
            raise violated("unexpected SCRAM channel-binding attribute in client-final-message")
        if not hmac.compare_digest(parts[1], b"r=" + self._nonce):
            raise violated("invalid SCRAM response", "nonce does not match")
        said = b"%b,%b,%b" % (self._client_first, server_first, without_proof)
        server_key = self._prove(said, proof)
        if server_key is None:
            raise rejected(self._user)
        signature = b"v=" + b64encode(half_done(server_key)(said))
        return Done(authentication(Authentication.SASL_FINAL, signature), self._mechanism.decode().lower())

    def _prove(self, said: bytes, proof: bytes) -> bytes | None:
        """The server key of the password that made this proof; every candidate is tried, whichever fits."""
        found = None
        for keys in self._keys():
            client_key = _xor(proof, half_done(keys.stored)(said))
            if hmac.compare_digest(sha256(client_key).digest(), keys.stored):
                found = keys.server
        return found


def _malformed(detail: str) -> ClientFault:
    return violated("malformed SCRAM message", detail)


# --- the client's side -----------------------------------------------------------------------------------------


class Challenge(NamedTuple):
    """What the server wants PBKDF2 to be run with."""

    salt: bytes
    iterations: int


class ScramClient:
    """Proves a password to a server, and has the server prove that it knows it too.

    start → challenged → prove → verify, in this order. `mechanisms` is the server's offer; `binding` the hash of its
    certificate, None without TLS. Raises ServerFault: 08P01 for nonsense, 28000 when the server could not prove itself.
    """

    def __init__(
        self, password: str, mechanisms: Sequence[bytes], *, nonce: bytes, binding: bytes | None, cache: KeyCache
    ) -> None:
        if binding is not None and SCRAM_PLUS in mechanisms:
            self.mechanism, self._gs2 = SCRAM_PLUS, b"p=" + BINDING + b",,"
        elif SCRAM in mechanisms:
            # "y" tells an honest server that somebody removed its PLUS offer.
            self.mechanism, self._gs2 = SCRAM, b"n,," if binding is None else b"y,,"
        else:
            shown = b", ".join(mechanisms).decode("ascii", "backslashreplace")
            raise ServerFault(f"server offers no SASL mechanism that we know: {shown}", sqlstate="28000")
        self._password = password
        self._bound = self._gs2 + (binding if binding is not None and self.mechanism == SCRAM_PLUS else b"")
        self._nonce = nonce
        self._first = b"n=,r=" + self._nonce
        self._cache = cache
        self._server_first = b""
        self._challenge: Challenge | None = None
        self._signature: bytes | None = None

    def start(self) -> bytes:
        return sasl_initial_response(self.mechanism, self._gs2 + self._first)

    def challenged(self, data: bytes) -> Challenge:
        """Takes the data of AuthenticationSASLContinue."""
        if self._challenge is not None:
            raise _nonsense("a second challenge")
        parts = data.split(b",")
        if len(data) > SASL_LIMIT_BYTES or len(parts) < 3:
            raise _nonsense("server-first-message is incomplete")
        nonce, salt_text, count = parts[:3]
        if not nonce.startswith(b"r=" + self._nonce) or not _PRINTABLE.fullmatch(nonce, 2):
            raise _nonsense("server-first-message does not carry our nonce")
        if len(nonce) == len(self._nonce) + 2:
            raise _nonsense("server-first-message adds nothing to our nonce")
        salt = _base64(salt_text[2:]) if salt_text.startswith(b"s=") else None
        if not salt:
            raise _nonsense("server-first-message has no salt")
        if not re.fullmatch(rb"i=[0-9]{1,9}", count) or not 1 <= int(count[2:]) <= ITERATIONS_LIMIT:
            raise _nonsense(f"iterations must be between 1 and {ITERATIONS_LIMIT}")
        self._nonce = nonce
        self._server_first = data
        self._challenge = Challenge(salt, int(count[2:]))
        return self._challenge

    def prove(self) -> bytes:
        """The message with our proof; cheap when the cache holds the challenge's keys."""
        if self._challenge is None:
            raise _nonsense("no challenge yet")
        derived = self._cache.get(self._password, *self._challenge)
        without_proof = b"c=%b,%b" % (b64encode(self._bound), self._nonce)
        said = b"%b,%b,%b" % (self._first, self._server_first, without_proof)
        proof = _xor(derived.client, half_done(derived.keys.stored)(said))
        self._signature = b"v=" + b64encode(half_done(derived.keys.server)(said))
        return sasl_response(without_proof + b",p=" + b64encode(proof))

    def verify(self, data: bytes) -> None:
        """Takes the data of AuthenticationSASLFinal."""
        if self._signature is None:
            raise _nonsense("it ends before our proof")
        if not hmac.compare_digest(data.split(b",", 1)[0], self._signature):
            raise ServerFault("server could not prove that it knows the password", sqlstate="28000")


def _nonsense(detail: str) -> ServerFault:
    return ServerFault("invalid SCRAM message from server", sqlstate="08P01", detail=detail)
