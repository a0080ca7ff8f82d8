"""Datagrams that only members of this flock can make, read or replay.

    magic "Pg" | version 1 | flags 1 | key id 4 | sender 16 | boot 16 | counter 8 | sealed message | tag 16

The key is derived (HKDF-SHA256, RFC 5869) per flock, sender and boot, so a counter is a nonce that never repeats: the
boot id is 128 random bits, and nothing has to be kept on disk. Random nonces under one shared key would reach NIST's
limit of 2^32 messages in days (SP 800-38D section 8.3). The header, the flock and the addressee are authenticated.

Without a key a packet is framed alike but plain; its tag is a checksum bound to the flock, which keeps flocks apart and
finds damage but stops no liar. Such packets are taken from and sent to loopback only (`envelope.py`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from discovery.packet import HEADER_BYTES, PACKET_LIMIT_BYTES, TAG_BYTES, Cause, PacketError

MAGIC = b"Pg"
VERSION = 1
SEALED = 1  # flag: AES-GCM, not plain
ADDRESSED = 2  # flag: the addressee's id is authenticated, nobody else accepts the packet
KEY_BYTES = 32
KEYS_LIMIT = 8
CIPHERS_LIMIT = 8192  # only of senders that proved to hold the key
WINDOW = 1024  # counters remembered behind the highest, as ESP and DTLS do it

_HEADER = struct.Struct("!2sBB4s16s16sQ")
_NOBODY = bytes(16)


class Keyring:
    """The flock's secrets: the first seals, all open. Rotation: add everywhere, move to the front, remove."""

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        """Raises ValueError for a key that is not 32 bytes, one given twice, or more than 8."""
        self._keys: dict[bytes, bytes] = {}
        for key in keys:
            if len(key) != KEY_BYTES:
                raise ValueError(f"a flock key must have {KEY_BYTES} bytes, not {len(key)}")
            self._keys[hashlib.sha256(b"pgmurmur key id\0" + key).digest()[:4]] = key
        if len(self._keys) > KEYS_LIMIT:
            raise ValueError(f"a key file must have at most {KEYS_LIMIT} keys")

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """A key file: one base64 key of 32 bytes per line; empty lines and `#` comments. Raises ValueError."""
        keys = []
        for number, line in enumerate(text.splitlines(), 1):
            stripped = line.strip()
            if not stripped or stripped.startswith("#"):
                continue
            try:
                keys.append(base64.b64decode(stripped, validate=True))
            except binascii.Error:
                raise ValueError(f"line {number} of the key file is not base64") from None
        if not keys:
            raise ValueError("the key file has no key")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The secrets, the one that seals first."""
        return tuple(self._keys.values())

    @property
    def primary_id(self) -> bytes:
        return next(iter(self._keys), bytes(4))

    def shares(self, other: Keyring) -> bool:
        """Could these two understand each other?"""
        return self.primary_id in other._keys and other.primary_id in self._keys if self else not other

    def find(self, key_id: bytes) -> bytes | None:
        return self._keys.get(key_id)


@dataclass(frozen=True, slots=True)
class Opened:
    """A packet whose seal held. Fresh it is only when the replay window or a challenge says so."""

    sender: bytes
    boot: bytes
    counter: int
    key_id: bytes
    plaintext: bytes


class Seal:
    """Seals this boot's packets and opens everybody's."""

    def __init__(self, keyring: Keyring, flock: str, sender: bytes, boot: bytes) -> None:
        self._keyring = keyring
        self._flock = hashlib.sha256(flock.encode()).digest()
        self._sender = sender
        self._boot = boot
        self._counter = 0
        self._ciphers: dict[tuple[bytes, bytes, bytes], AESGCM] = {}

    @property
    def sealed(self) -> bool:
        return bool(self._keyring)

    def seal(self, plaintext: bytes, addressee: bytes | None) -> bytes:
        """The datagram for this message; `addressee` is None while we do not know who listens there."""
        self._counter += 1
        key_id = self._keyring.primary_id
        flags = (SEALED if self._keyring else 0) | (ADDRESSED if addressee is not None else 0)
        header = _HEADER.pack(MAGIC, VERSION, flags, key_id, self._sender, self._boot, self._counter)
        known = header + self._flock + (addressee or _NOBODY)
        if not self._keyring:
            return header + plaintext + self._checksum(known, plaintext)
        cipher = self._ciphers.get((key_id, self._sender, self._boot))
        if cipher is None:
            cipher = self._cipher(key_id, self._sender, self._boot)
            self._remember((key_id, self._sender, self._boot), cipher)
        return header + cipher.encrypt(_nonce(self._counter), plaintext, known)

    def open(self, datagram: bytes) -> Opened:
        """Raises PacketError for everything that this flock did not seal for us."""
        if len(datagram) > PACKET_LIMIT_BYTES:
            raise PacketError(Cause.TOO_LONG)
        if len(datagram) < HEADER_BYTES + TAG_BYTES or not datagram.startswith(MAGIC):
            raise PacketError(Cause.FOREIGN)
        header = datagram[:HEADER_BYTES]
        _, version, flags, key_id, sender, boot, counter = _HEADER.unpack(header)
        if version != VERSION:
            raise PacketError(Cause.VERSION, str(version))
        if flags & ~(SEALED | ADDRESSED):
            raise PacketError(Cause.MALFORMED, "unknown flags")
        if bool(flags & SEALED) != self.sealed:
            raise PacketError(Cause.PLAIN, "sealed, but we have no key" if flags & SEALED else "not sealed")
        known = header + self._flock + (self._sender if flags & ADDRESSED else _NOBODY)
        body = datagram[HEADER_BYTES:]
        if not self.sealed:
            plaintext = body[:-TAG_BYTES]
            if self._checksum(known, plaintext) != body[-TAG_BYTES:]:
                raise PacketError(Cause.BROKEN_SEAL)
            return Opened(sender, boot, counter, key_id, plaintext)
        cipher = self._ciphers.get((key_id, sender, boot))
        fresh = cipher is None
        if cipher is None:
            cipher = self._cipher(key_id, sender, boot)
        try:
            plaintext = cipher.decrypt(_nonce(counter), body, known)
        except InvalidTag:
            raise PacketError(Cause.BROKEN_SEAL) from None
        if fresh:
            self._remember((key_id, sender, boot), cipher)
        return Opened(sender, boot, counter, key_id, plaintext)

    def _cipher(self, key_id: bytes, sender: bytes, boot: bytes) -> AESGCM:
        key = self._keyring.find(key_id)
        if key is None:
            raise PacketError(Cause.UNKNOWN_KEY, key_id.hex())
        info = b"gossip1" + self._flock + sender + boot
        return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(key))

    def _remember(self, who: tuple[bytes, bytes, bytes], cipher: AESGCM) -> None:
        if len(self._ciphers) >= CIPHERS_LIMIT:
            del self._ciphers[next(iter(self._ciphers))]
        self._ciphers[who] = cipher

    def _checksum(self, known: bytes, plaintext: bytes) -> bytes:
        return hashlib.blake2b(known + plaintext, digest_size=TAG_BYTES, person=b"pgmurmur plain").digest()


def _nonce(counter: int) -> bytes:
    return counter.to_bytes(12, "big")


class ReplayWindow:
    """Which counters of one boot were seen: the highest and the 1024 behind it."""

    def __init__(self, highest: int) -> None:
        """Everything up to `highest` counts as seen: what came before trust is not believed after it."""
        self._highest = highest
        self._seen = (1 << WINDOW) - 1

    def accept(self, counter: int) -> bool:
        """True once per counter; False for repeats and for what is older than the window."""
        ahead = counter - self._highest
        if ahead > 0:
            self._seen = ((self._seen << ahead) | 1) & ((1 << WINDOW) - 1) if ahead < WINDOW else 1
            self._highest = counter
            return True
        if -ahead >= WINDOW or self._seen >> -ahead & 1:
            return False
        self._seen |= 1 << -ahead
        return True
