"""What the console needs of a node; `app` implements it, tests have a small one of their own.

Only what no other package can do for a command is here: a pool is banned, a gate closed, by the command itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from discovery.service import MemberView
    from node.client.services import Services
    from node.database import Database
    from node.gate import Gate
    from node.pool.pool import Pool
    from node.stats.counters import Averages
    from sync.messages import MemberRow
    from sync.version import ConfigVersion


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """What to roll out: texts, the content of an older version, or (nothing given) this node's files as they are now.
    With only one of the texts the other one stays as it is in force. `timeout_s` ends an attempt whose commit was not
    tried yet."""

    config: str | None = None
    users: str | None = None
    to_version: int | None = None
    dry_run: bool = False
    timeout_s: float = 60.0


@dataclass(frozen=True, slots=True)
class RolloutReport:
    """How it ended. `outcome`: committed, aborted, unknown. A dry run is always aborted, with `rid` 0: nothing changed;
    the nodes' acks tell whether it would be accepted."""

    outcome: str
    rid: int
    version: int | None
    digest: str | None
    reason: str | None
    nodes: tuple[MemberRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Every node would take it."""
        return bool(self.nodes) and all(node.ack for node in self.nodes)


@dataclass(frozen=True, slots=True)
class RolloutStatus:
    """The open rollout or the last one; `version` is the one it makes or made. Before the first: phase idle, rid 0."""

    rid: int
    version: int | None
    phase: str
    coordinator: str
    started_utc: float | None
    nodes: tuple[MemberRow, ...]


class Databases(Protocol):
    """What of node/databases.py the console looks at."""

    @property
    def pools(self) -> list[Pool]: ...

    @property
    def by_user(self) -> Mapping[tuple[str, str], Database]: ...

    @property
    def gates(self) -> Mapping[str, Gate]: ...


class Node(Protocol):
    """One node, as its console sees it. Every method may raise a Fault; its text is shown to the operator."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Of this program: 0.1.0."""
        ...

    @property
    def services(self) -> Services: ...

    @property
    def databases(self) -> Databases: ...

    def clock(self) -> float:
        """Monotonic seconds, the ones that sessions, pools and servers note."""
        ...

    def utc(self, at: float) -> float:
        """Seconds since 1970 of a moment of `clock`."""
        ...

    def counters(self, pool: Pool) -> tuple[object, Averages]:
        """What SHOW STATS sums: an object with the attributes of PoolCounters, and the last period's averages."""
        ...

    def settings(self) -> Iterable[tuple[str, str]]:
        """Rows of SHOW CONFIG (config.runtime.shown)."""
        ...

    def members(self) -> Sequence[MemberView]:
        """Everybody in the flock, this node first; just this node when it is alone."""
        ...

    def drift(self) -> str | None:
        """A sentence when this node's files differ from what the flock applies."""
        ...

    def rollout_status(self) -> RolloutStatus: ...

    def history(self) -> Sequence[ConfigVersion]:
        """The versions the register remembers, oldest first."""
        ...

    # --- changes ---------------------------------------------------------------------------------------------------

    async def reload(self) -> Sequence[str]:
        """Reads this node's files again. What should be known about it, as notices."""
        ...

    def set_setting(self, name: str, value: str) -> None:
        """SET (config.runtime.with_setting): in memory, on this node."""
        ...

    async def rollout(self, request: RolloutRequest) -> RolloutReport:
        """Returns when it has ended. Raises ClientFault when nothing was opened: an invalid document (every error in
        the detail), another rollout open. The command goes on when its client leaves."""
        ...

    async def evict(self, member: str) -> None:
        """Takes a member that is gone for good off the roster."""
        ...

    def shutdown(self) -> None:
        """Begins a graceful stop and returns."""
        ...

    async def ask(self, member: str, payload: bytes, timeout_s: float) -> bytes:
        """Sends `payload` over the control channel to the handler of `admin` on another member (cluster.serve)."""
        ...
