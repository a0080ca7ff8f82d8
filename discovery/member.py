"""Who is in the flock: the values everybody passes around. No rules here, those are in `table.py`.

A *member* is one process with one event loop, named by its node name. A restart of the same node is another *boot*
of the same member. Which of two statements about a member is newer is decided by its incarnation, a number that only
the member itself raises (SWIM, Das et al. 2002, section 4.2).
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

# Limits on what a member may say about itself. A record must fit a datagram with room for others (packet.py).
NAME_LIMIT_BYTES = 63
HOST_LIMIT_BYTES = 255
DIGEST_LIMIT_CHARS = 64
INCARNATION_LIMIT = 2**63 - 1
COUNT_LIMIT = 2**63 - 1
BOOT_BYTES = 16


class State(StrEnum):
    """What this node believes about a member; the values are those of SHOW PEERS."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"

    @property
    def reachable(self) -> bool:
        """A suspect is still served: suspicion is a question, not an answer."""
        return self is State.ALIVE or self is State.SUSPECT


class Address(NamedTuple):
    """Host (an IP literal once it is in gossip) and port. A plain tuple, so asyncio takes it as it is."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Address:
        """`host:port`, `[v6]:port`, or `host` with a default port. Raises ValueError with what was expected."""
        host, port_text = text, ""
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f'address "{text}" must look like [host]:port')
            port_text = rest[1:]
        elif text.count(":") == 1:
            host, _, port_text = text.partition(":")
        if not port_text and default_port is not None:
            port = default_port
        elif port_text.isascii() and port_text.isdigit() and int(port_text) <= 65535:
            port = int(port_text)
        else:
            raise ValueError(f'address "{text}" must look like host:port')
        if not host or len(host.encode()) > HOST_LIMIT_BYTES:
            raise ValueError(f'address "{text}" has no usable host')
        return cls(host, port)

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def is_wildcard(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One boot of one node, as it described itself.

    `stamp` orders the changing facts (clients, version, digest) of one boot, so that they can spread without raising
    the incarnation: a raised incarnation refutes suspicions, and a busy member must not refute by accident.
    """

    node: str
    gossip: Address  # UDP; the control channel listens on the TCP port of the same number
    client: Address
    boot: bytes  # 16 random bytes, new at every start
    incarnation: int = 1
    protocol: tuple[int, int] = (1, 1)  # lowest and highest control protocol understood
    stamp: int = 0
    clients: int = 0
    version: int = 0  # configuration applied now
    digest: str = ""  # its SHA-256 (or the first bytes of it) in lower case hex; a hint, never a proof

    @property
    def order(self) -> tuple[int, bytes]:
        """Newer wins. The boot decides only between two processes that claim one name with one incarnation."""
        return (self.incarnation, self.boot)


def sender_id(flock: str, node: str) -> bytes:
    """The 16 bytes that stand for a node in packet headers; bound to its name when it introduces itself."""
    return hashlib.sha256(b"pgmurmur sender\0" + flock.encode() + b"\0" + node.encode()).digest()[:16]


def check_name(node: str) -> str:
    """Return the node name, or raise ValueError: names are shown in SHOW PEERS and used in mDNS instance names."""
    if not node or len(node.encode()) > NAME_LIMIT_BYTES or not node.isprintable():
        raise ValueError(f"node name must be 1 to {NAME_LIMIT_BYTES} bytes of printable text")
    return node
