"""A configuration's name: counter, digest and parent. Never a wall clock: two edits must conflict, not race."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

DOCUMENT_LIMIT_BYTES = 8 * 1024 * 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest_of(document: bytes) -> str:
    """SHA-256 in hex: the only name under which a document is stored, fetched, agreed on and shown."""
    return hashlib.sha256(document).hexdigest()


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class ConfigVersion:
    """One link of the chain: `parent` is the digest of version n-1 ("" for version 1).

    `barrier` is the newest version up to this one whose change was exclusive. Two versions with the same barrier route
    alike, so they may be served side by side; two barriers never (Inv1). `rid` is the rollout that made it, 0 for the
    first. `at_utc` is seconds since 1970, for people only.
    """

    n: int
    digest: str
    parent: str
    rid: int
    barrier: int
    by: str
    at_utc: float

    def successor(self, digest: str, *, rid: int, exclusive: bool, by: str, at_utc: float) -> ConfigVersion:
        n = self.n + 1
        return ConfigVersion(n, digest, self.digest, rid, n if exclusive else self.barrier, by, at_utc)


def first_version(digest: str, *, by: str, at_utc: float) -> ConfigVersion:
    return ConfigVersion(1, digest, "", 0, 1, by, at_utc)
