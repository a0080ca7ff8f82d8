"""What members say to each other: values, and the msgpack arrays they travel as.

Arrays, not maps: smaller, and no duplicate-key tricks. Numbers in an array are a wire format: only append. A decoder
here returns values of which every field was checked, or raises `PacketError`; nothing else, whatever comes in.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]  # ships no type hints

from discovery.member import (
    BOOT_BYTES,
    COUNT_LIMIT,
    DIGEST_LIMIT_CHARS,
    HOST_LIMIT_BYTES,
    INCARNATION_LIMIT,
    NAME_LIMIT_BYTES,
    Address,
    Member,
    State,
)

PACKET_LIMIT_BYTES = 1200  # IPv6 minimum MTU 1280 less 48 of headers, with room for a tunnel
HEADER_BYTES = 48
TAG_BYTES = 16
PLAIN_LIMIT_BYTES = PACKET_LIMIT_BYTES - HEADER_BYTES - TAG_BYTES
RUMOR_BUDGET_BYTES = PLAIN_LIMIT_BYTES - 100  # 100: type, sequence, the longest node name, array headers
RUMORS_LIMIT = 64  # a queue's 60 and those put before them
NONCE_BYTES = 8  # so that a challenge is never larger than the ping or ack that provoked it
EXCHANGE_VERSION = 1
EXCHANGE_LIMIT_BYTES = 4 * 1024 * 1024
MEMBERS_LIMIT = 4096
SEQUENCE_LIMIT = 2**64 - 1


class Cause(StrEnum):
    """Why something received was refused; the keys of the counters."""

    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    VERSION = "version"
    FOREIGN = "foreign"  # not ours at all, another flock, or not for us
    UNKNOWN_KEY = "unknown_key"
    BROKEN_SEAL = "broken_seal"
    PLAIN = "plain"  # plain where a seal is needed, sealed where we have no key, or plain off loopback
    REPLAY = "replay"
    UNPROVEN = "unproven"  # a challenge we did not provoke or an echo that does not fit
    OWN = "own"  # our own packet came back


class PacketError(Exception):
    """The one error for anything received that we do not accept."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else str(cause))
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Alive:
    member: Member


@dataclass(frozen=True, slots=True)
class Suspect:
    node: str
    incarnation: int
    accuser: str


@dataclass(frozen=True, slots=True)
class Dead:
    node: str
    incarnation: int
    accuser: str


@dataclass(frozen=True, slots=True)
class Left:
    node: str
    incarnation: int
    teller: str  # the member itself, or who evicted it


@dataclass(frozen=True, slots=True)
class News:
    """The changing facts of one boot; says nothing about being alive."""

    node: str
    boot: bytes
    incarnation: int
    stamp: int
    clients: int
    version: int
    digest: str


Rumor = Alive | Suspect | Dead | Left | News


@dataclass(frozen=True, slots=True)
class Ping:
    sequence: int
    target: str  # whoever now has the address of a former member must not answer for it
    rumors: tuple[Rumor, ...] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    sequence: int
    rumors: tuple[Rumor, ...] = ()


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Please ping this member for me. A name, never an address: we are nobody's packet cannon."""

    sequence: int
    target: str
    rumors: tuple[Rumor, ...] = ()


@dataclass(frozen=True, slots=True)
class Nack:
    """I asked as you wished, it did not answer so far: you and I are connected, the trouble is elsewhere."""

    sequence: int
    rumors: tuple[Rumor, ...] = ()


@dataclass(frozen=True, slots=True)
class Gossip:
    rumors: tuple[Rumor, ...]


@dataclass(frozen=True, slots=True)
class Hello:
    """The first word to an address that may be a member."""

    member: Member


@dataclass(frozen=True, slots=True)
class Challenge:
    """I do not know your boot: repeat this nonce, so that I know that you live now and not in a recording."""

    nonce: bytes


@dataclass(frozen=True, slots=True)
class Echo:
    """The nonce back, who I am, and (unless empty) a nonce for you."""

    nonce: bytes
    challenge: bytes
    member: Member


Message = Ping | Ack | PingRequest | Nack | Gossip | Hello | Challenge | Echo


@dataclass(frozen=True, slots=True)
class Exchange:
    """Anti-entropy over the control channel: who I am, the digest of my view, and my view itself or None."""

    member: Member
    digest: bytes
    entries: tuple[tuple[State, Member], ...] | None


class _Type(IntEnum):
    PING = 1
    ACK = 2
    PING_REQUEST = 3
    NACK = 4
    GOSSIP = 5
    HELLO = 6
    CHALLENGE = 7
    ECHO = 8


class _Kind(IntEnum):
    ALIVE = 1
    SUSPECT = 2
    DEAD = 3
    LEFT = 4
    NEWS = 5


_STATES = (State.ALIVE, State.SUSPECT, State.DEAD, State.LEFT)  # position is the code on the wire


def _record(member: Member) -> list[Any]:
    return [
        member.node,
        member.gossip.host,
        member.gossip.port,
        member.client.host,
        member.client.port,
        member.boot,
        member.incarnation,
        *member.protocol,
        member.stamp,
        member.clients,
        member.version,
        bytes.fromhex(member.digest),
    ]


def _rumor(rumor: Rumor) -> list[Any]:
    match rumor:
        case Alive(member):
            return [_Kind.ALIVE, *_record(member)]
        case Suspect(node, incarnation, who):
            return [_Kind.SUSPECT, node, incarnation, who]
        case Dead(node, incarnation, who):
            return [_Kind.DEAD, node, incarnation, who]
        case Left(node, incarnation, who):
            return [_Kind.LEFT, node, incarnation, who]
        case News():
            digest = bytes.fromhex(rumor.digest)
            facts = [rumor.incarnation, rumor.stamp, rumor.clients, rumor.version, digest]
            return [_Kind.NEWS, rumor.node, rumor.boot, *facts]


def _array(message: Message) -> list[Any]:
    match message:
        case Ping(sequence, target, rumors):
            return [_Type.PING, sequence, target, [_rumor(r) for r in rumors]]
        case Ack(sequence, rumors):
            return [_Type.ACK, sequence, [_rumor(r) for r in rumors]]
        case PingRequest(sequence, target, rumors):
            return [_Type.PING_REQUEST, sequence, target, [_rumor(r) for r in rumors]]
        case Nack(sequence, rumors):
            return [_Type.NACK, sequence, [_rumor(r) for r in rumors]]
        case Gossip(rumors):
            return [_Type.GOSSIP, [_rumor(r) for r in rumors]]
        case Hello(member):
            return [_Type.HELLO, _record(member)]
        case Challenge(nonce):
            return [_Type.CHALLENGE, nonce]
        case Echo(nonce, challenge, member):
            return [_Type.ECHO, nonce, challenge, _record(member)]


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def rumor_size_bytes(rumor: Rumor) -> int:
    return len(_pack(_rumor(rumor)))


def encode(message: Message) -> bytes:
    """The plain bytes of a message. Rumor budgets keep it under the limit; ValueError would be our bug."""
    packed = _pack(_array(message))
    if len(packed) > PLAIN_LIMIT_BYTES:
        raise ValueError(f"gossip message of {len(packed)} bytes exceeds {PLAIN_LIMIT_BYTES}")
    return packed


def encode_exchange(exchange: Exchange) -> bytes:
    entries = exchange.entries
    listed = None if entries is None else [[_STATES.index(state), *_record(member)] for state, member in entries]
    return _pack([EXCHANGE_VERSION, _record(exchange.member), exchange.digest, listed])


def _malformed(what: str) -> PacketError:
    return PacketError(Cause.MALFORMED, what)


def _unpack(data: bytes, longest_array: int) -> Any:
    """msgpack with every size bounded before anything is allocated; maps, extensions and floats have no use here."""
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=HOST_LIMIT_BYTES,
            max_bin_len=64,
            max_array_len=longest_array,
            max_map_len=0,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise _malformed(type(error).__name__) from None


def _list(value: Any, length: int | None = None, limit: int = RUMORS_LIMIT) -> list[Any]:
    if type(value) is not list or (len(value) != length if length is not None else len(value) > limit):
        raise _malformed("array expected")
    return value


def _int(value: Any, lowest: int, highest: int) -> int:
    if type(value) is not int or not lowest <= value <= highest:  # bool is an int elsewhere, not here
        raise _malformed("integer out of range")
    return value


def _blob(value: Any, *lengths: int) -> bytes:
    if type(value) is not bytes or len(value) not in lengths:
        raise _malformed("byte string of another length")
    return value


def _text(value: Any, limit_bytes: int) -> str:
    # Printable only: names end up in logs and terminals.
    if type(value) is not str or not value or len(value.encode()) > limit_bytes or not value.isprintable():
        raise _malformed("text expected")
    return value


def _name(value: Any) -> str:
    return _text(value, NAME_LIMIT_BYTES)


def _digest(value: Any) -> str:
    if type(value) is not bytes or len(value) > DIGEST_LIMIT_CHARS // 2:
        raise _malformed("digest expected")
    return value.hex()


def _gossip_address(host: Any, port: Any) -> Address:
    try:
        address = ipaddress.ip_address(_text(host, HOST_LIMIT_BYTES))
    except ValueError:
        raise _malformed("gossip host is no IP address") from None
    if address.is_unspecified or address.is_multicast:
        raise _malformed("gossip host is no unicast address")
    return Address(host, _int(port, 1, 65535))


def _to_member(fields: list[Any]) -> Member:
    _list(fields, 13)
    lowest = _int(fields[7], 0, 255)
    return Member(
        node=_name(fields[0]),
        gossip=_gossip_address(fields[1], fields[2]),
        client=Address(_text(fields[3], HOST_LIMIT_BYTES), _int(fields[4], 0, 65535)),
        boot=_blob(fields[5], BOOT_BYTES),
        incarnation=_int(fields[6], 0, INCARNATION_LIMIT),
        protocol=(lowest, _int(fields[8], lowest, 255)),
        stamp=_int(fields[9], 0, COUNT_LIMIT),
        clients=_int(fields[10], 0, COUNT_LIMIT),
        version=_int(fields[11], 0, COUNT_LIMIT),
        digest=_digest(fields[12]),
    )


def _to_rumor(value: Any) -> Rumor:
    fields = _list(value)
    kind = fields[0] if fields and type(fields[0]) is int else None
    if kind == _Kind.ALIVE:
        return Alive(_to_member(fields[1:]))
    if kind == _Kind.NEWS:
        _list(fields, 8)
        return News(
            node=_name(fields[1]),
            boot=_blob(fields[2], BOOT_BYTES),
            incarnation=_int(fields[3], 0, INCARNATION_LIMIT),
            stamp=_int(fields[4], 0, COUNT_LIMIT),
            clients=_int(fields[5], 0, COUNT_LIMIT),
            version=_int(fields[6], 0, COUNT_LIMIT),
            digest=_digest(fields[7]),
        )
    verdicts: dict[int, Callable[[str, int, str], Rumor]] = {
        _Kind.SUSPECT: Suspect,
        _Kind.DEAD: Dead,
        _Kind.LEFT: Left,
    }
    verdict = verdicts.get(kind) if kind is not None else None
    if verdict is None:
        raise _malformed("unknown rumor")
    _list(fields, 4)
    return verdict(_name(fields[1]), _int(fields[2], 0, INCARNATION_LIMIT), _name(fields[3]))


def _rumors(value: Any) -> tuple[Rumor, ...]:
    return tuple([_to_rumor(item) for item in _list(value)])


def _sequence(value: Any) -> int:
    return _int(value, 0, SEQUENCE_LIMIT)


_DECODERS: dict[int, tuple[int, Callable[[list[Any]], Message]]] = {
    _Type.PING: (4, lambda f: Ping(_sequence(f[1]), _name(f[2]), _rumors(f[3]))),
    _Type.ACK: (3, lambda f: Ack(_sequence(f[1]), _rumors(f[2]))),
    _Type.PING_REQUEST: (4, lambda f: PingRequest(_sequence(f[1]), _name(f[2]), _rumors(f[3]))),
    _Type.NACK: (3, lambda f: Nack(_sequence(f[1]), _rumors(f[2]))),
    _Type.GOSSIP: (2, lambda f: Gossip(_rumors(f[1]))),
    _Type.HELLO: (2, lambda f: Hello(_to_member(f[1]))),
    _Type.CHALLENGE: (2, lambda f: Challenge(_blob(f[1], NONCE_BYTES))),
    _Type.ECHO: (4, lambda f: Echo(_blob(f[1], NONCE_BYTES), _blob(f[2], 0, NONCE_BYTES), _to_member(f[3]))),
}


def decode(data: bytes) -> Message:
    """The message in these plain bytes. Raises PacketError and nothing else."""
    if len(data) > PLAIN_LIMIT_BYTES:
        raise PacketError(Cause.TOO_LONG)
    fields = _list(_unpack(data, RUMORS_LIMIT))
    decoder = _DECODERS.get(fields[0]) if fields and type(fields[0]) is int else None
    if decoder is None:
        raise _malformed("unknown message type")
    length, build = decoder
    return build(_list(fields, length))


def decode_exchange(data: bytes) -> Exchange:
    """One side of a push-pull. Raises PacketError and nothing else."""
    if len(data) > EXCHANGE_LIMIT_BYTES:
        raise PacketError(Cause.TOO_LONG)
    fields = _list(_unpack(data, MEMBERS_LIMIT))
    if not fields or fields[0] != EXCHANGE_VERSION:
        raise PacketError(Cause.VERSION)
    _list(fields, 4)
    entries = None
    if fields[3] is not None:
        entries = tuple([_entry(item) for item in _list(fields[3], limit=MEMBERS_LIMIT)])
    return Exchange(_to_member(fields[1]), _blob(fields[2], 16), entries)


def _entry(value: Any) -> tuple[State, Member]:
    fields = _list(value, 14)
    return _STATES[_int(fields[0], 0, len(_STATES) - 1)], _to_member(fields[1:])
