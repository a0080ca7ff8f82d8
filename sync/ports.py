"""The seams: where the package meets a register, a disk, its peers and the proxy. Each has a simulated twin."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from sync.promise import Promise
from sync.rollout import ChangeClass
from sync.version import ConfigVersion

Handler = Callable[[str, bytes], Awaitable[bytes]]  # (name of the sender, payload) -> answer


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a dry run. Any error refuses the document; notes are shown and change nothing."""

    change: ChangeClass
    scope: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class ConfigTarget(Protocol):
    """The proxy, as the rollout sees it. Documents are bytes; a scope is database names, or `("*",)` for all of them
    (an exclusive change that names none, and a member that lost its seat and must stop serving at once).

    No method may raise for a document or a database it does not like: `validate` reports, `drain` and `apply` raise
    DrainFailed and ApplyFailed."""

    async def validate(self, document: bytes) -> Report: ...

    def pause(self, scope: tuple[str, ...], rid: int) -> None: ...

    async def drain(self, scope: tuple[str, ...]) -> None: ...

    def resume(self, scope: tuple[str, ...]) -> None: ...

    async def apply(self, document: bytes, version: ConfigVersion) -> None: ...


class DrainFailed(Exception):
    """Transactions do not end, or backends of an older life cannot be ended."""


class ApplyFailed(Exception):
    """A validated document cannot be put into force on this node."""


class RegisterUnavailable(Exception):
    """No answer, or an answer that says nothing: a compare-and-set may or may not have happened."""


class RegisterBroken(Exception):
    """The register's value cannot be read by this version, or it went back in time. People must look."""


class Register(Protocol):
    """One linearizable compare-and-set cell. Every method raises RegisterUnavailable."""

    @property
    def one_host(self) -> bool:
        """True when only members on this machine can reach it."""
        ...

    @property
    def url(self) -> str: ...

    async def read(self) -> tuple[int, bytes | None]: ...

    async def cas(self, rev: int, value: bytes) -> int | None:
        """Write if the revision is still `rev` (0: never written). The new revision, or None for a conflict."""
        ...

    def watch(self, rev: int) -> AsyncIterator[int]:
        """Yield revisions that differ from `rev` as they appear. May miss some, may never yield: only a hint."""
        ...

    async def close(self) -> None: ...


class JournalFailed(Exception):
    """The promise may not be on the disk: the process must not say what it could not write."""


class Journal(Protocol):
    def load(self) -> Promise: ...

    def store(self, promise: Promise) -> None:
        """Durable when it returns. Raises JournalFailed."""
        ...


class ControlUnreachable(ConnectionError):
    """No answer; an OSError, since callers treat every broken peer alike. `refused` is True when the peer is known not
    to be there (connection refused), False when it just did not answer."""

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


class Control(Protocol):
    """The authenticated channel between nodes; sync and discovery both get it from the composition root."""

    def handle(self, service: str, handler: Handler) -> None: ...

    async def request(
        self, address: str, service: str, payload: bytes, timeout: float, *, node: str | None = None
    ) -> bytes:
        """Raises ControlUnreachable. With `node`, the peer must prove that name."""
        ...
