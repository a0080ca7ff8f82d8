"""What the cores want done: small frozen values, performed in order by `service.py` or the simulator."""

from __future__ import annotations

from dataclasses import dataclass

from discovery.member import Address, State
from discovery.packet import Message


@dataclass(frozen=True, slots=True)
class Send:
    """One message. `node` is None while we do not know who listens at that address."""

    address: Address
    node: str | None
    message: Message


@dataclass(frozen=True, slots=True)
class SendDatagram:
    """The same, sealed."""

    address: Address
    data: bytes


@dataclass(frozen=True, slots=True)
class PushPull:
    """Compare views over the control channel; `full` sends ours at once instead of asking by digest first. `node` is
    empty while we do not know who listens there.
    """

    node: str
    address: Address
    full: bool


@dataclass(frozen=True, slots=True)
class Reach:
    """Try the member over the control channel (UDP may be what is broken); answer with `Swim.reached`."""

    node: str
    address: Address
    sequence: int


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """Something that SHOW PEERS shows. `before` is None for a new member, `after` for one that vanished."""

    node: str
    before: State | None
    after: State | None
    reason: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two live processes use one node name. `mine`: it is ours, and the other one is newer, so we stay quiet."""

    node: str
    mine: bool


Effect = Send | SendDatagram | PushPull | Reach | MemberChanged | Conflict
