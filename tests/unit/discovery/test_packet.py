"""Packets: what was encoded comes back, and whatever else comes in raises PacketError and nothing else."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from discovery.member import Address, Member, State
from discovery.packet import (
    EXCHANGE_LIMIT_BYTES,
    PLAIN_LIMIT_BYTES,
    Ack,
    Alive,
    Cause,
    Challenge,
    Dead,
    Echo,
    Exchange,
    Gossip,
    Hello,
    Left,
    Message,
    Nack,
    News,
    PacketError,
    Ping,
    PingRequest,
    Rumor,
    Suspect,
    decode,
    decode_exchange,
    encode,
    encode_exchange,
    rumor_size_bytes,
)

MEMBER = Member(
    node="db1-6432",
    gossip=Address("192.0.2.7", 16432),
    client=Address("db1.example", 6432),
    boot=bytes(range(16)),
    incarnation=7,
    protocol=(1, 3),
    stamp=5,
    clients=812,
    version=4,
    digest="ab" * 32,
)
RUMORS: tuple[Rumor, ...] = (
    Alive(MEMBER),
    Suspect("a", 1, "b"),
    Dead("a", 2**40, "ü"),
    Left("a", 3, "a"),
    News("db1-6432", bytes(16), 7, 6, 1, 2, ""),
)
MESSAGES: list[Message] = [
    Ping(2**33, "b", RUMORS),
    Ack(1, RUMORS),
    PingRequest(0, "c"),
    Nack(2**64 - 1),
    Gossip(RUMORS),
    Hello(MEMBER),
    Challenge(b"12345678"),
    Echo(b"12345678", b"", MEMBER),
    Echo(b"12345678", b"87654321", MEMBER),
]
EXCHANGES = [
    Exchange(MEMBER, bytes(16), None),
    Exchange(MEMBER, bytes(16), tuple((state, MEMBER) for state in State)),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("exchange", EXCHANGES, ids=["digest", "full"])
def test_an_exchange_survives_the_wire(exchange: Exchange) -> None:
    assert decode_exchange(encode_exchange(exchange)) == exchange


def test_no_challenge_is_larger_than_the_smallest_message_that_provokes_it() -> None:
    smallest = min(len(encode(m)) for m in (Ping(2**32, "a"), Ack(2**32), Nack(2**32), Hello(MEMBER)))
    assert len(encode(Challenge(bytes(8)))) <= smallest


@pytest.mark.parametrize("host", ["fe80::1%eth0", "2001:db8::1", "::1", "10.0.0.1"])
def test_both_address_families_are_understood(host: str) -> None:
    member = Member(node="n", gossip=Address(host, 1), client=Address(host, 2), boot=bytes(16))
    assert decode(encode(Hello(member))) == Hello(member)


def record(**changes: Any) -> bytes:
    """A Hello whose record differs in single fields, by position name."""
    names = ["node", "host", "port", "chost", "cport", "boot", "incarnation"]
    names += ["low", "high", "stamp", "clients", "version", "digest"]
    fields = dict(zip(names, msgpack.unpackb(encode(Hello(MEMBER)))[1], strict=True))
    fields.update(changes)
    packed: bytes = msgpack.packb([6, list(fields.values())], use_bin_type=True)
    return packed


@pytest.mark.parametrize(
    "changes",
    [
        {"node": ""},
        {"node": "x" * 64},
        {"node": "a\nb"},
        {"node": b"raw"},
        {"node": 5},
        {"host": "db1.example"},
        {"host": "0.0.0.0"},
        {"host": "::"},
        {"host": "224.0.0.251"},
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"port": -1},
        {"chost": ""},
        {"cport": 1.5},
        {"boot": bytes(15)},
        {"boot": "x" * 16},
        {"incarnation": 2**63},
        {"incarnation": -1},
        {"incarnation": None},
        {"low": 4},
        {"high": 256},
        {"stamp": []},
        {"clients": "9"},
        {"digest": bytes(33)},
        {"digest": "ab"},
    ],
    ids=str,
)
def test_every_field_of_a_record_is_checked(changes: dict[str, Any]) -> None:
    assert decode(record()) == Hello(MEMBER)
    with pytest.raises(PacketError) as caught:
        decode(record(**changes))
    assert caught.value.cause is Cause.MALFORMED


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        "text",
        [],
        {},
        {1: 2},
        [0],
        [9, 1],
        [True, 1, "b", []],
        ["1", 1, "b", []],
        [1, 1, "b"],
        [1, 1, "b", [], 0],
        [1, -1, "b", []],
        [1, 1, "b", [[]]],
        [1, 1, "b", [[7, "a", 1, "b"]]],
        [1, 1, "b", [[None]]],
        [1, 1, "b", [[2, "a", 1]]],
        [1, 1, "b", [[2, "a", 1, "b"]] * 65],
        [1, 1, "b", {}],
        [5, [[1]]],
        [7, bytes(9)],
        [8, bytes(8), bytes(7), []],
        [6, [1.0] * 13],
        msgpack.ExtType(5, b"x"),
        [5, [msgpack.Timestamp(1, 1)]],
    ],
    ids=str,
)
def test_other_shapes_are_refused(value: Any) -> None:
    with pytest.raises(PacketError):
        decode(msgpack.packb(value, use_bin_type=True))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91" * 1000,  # nested deeper than anybody needs
        b"\xdd\xff\xff\xff\xff",  # an array of four billion
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\x94\x01\x01\xa1\xff\x90",  # not UTF-8
        encode(Ack(1)) + b"\x00",
        encode(Ack(1))[:-1],
    ],
    ids=lambda data: data[:8].hex(),
)
def test_torn_bombs_and_trailing_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(PacketError):
        decode(data)
    with pytest.raises(PacketError):
        decode_exchange(data)


def test_too_long_is_refused_before_it_is_read() -> None:
    for receive, size in ((decode, PLAIN_LIMIT_BYTES), (decode_exchange, EXCHANGE_LIMIT_BYTES)):
        with pytest.raises(PacketError) as caught:
            receive(bytes(size + 1))
        assert caught.value.cause is Cause.TOO_LONG


def test_ten_thousand_mutated_packets_raise_only_the_declared_error() -> None:
    seed = 20260801
    random = Random(seed)
    print(f"seed {seed}")
    originals = [encode(message) for message in MESSAGES]
    accepted = refused = 0
    for _ in range(10_000):
        data = bytearray(random.choice(originals))
        for _ in range(random.randint(1, 4)):
            at = random.randrange(len(data) + 1)
            kind = random.randrange(4)
            if kind == 0 and at < len(data):
                data[at] = random.randrange(256)
            elif kind == 1:
                data[at:at] = random.randbytes(random.randint(1, 6))
            elif kind == 2:
                del data[at : at + random.randint(1, 6)]
            else:
                data[at:] = random.choice(originals)[at:]
        try:
            decode(bytes(data))
            accepted += 1
        except PacketError:
            refused += 1
    assert accepted + refused == 10_000
    assert min(accepted, refused) > 100


@given(st.binary(max_size=PLAIN_LIMIT_BYTES))
def test_byte_soup_raises_only_the_declared_error(data: bytes) -> None:
    for receive in (decode, decode_exchange):
        try:
            receive(data)
        except PacketError:
            continue


structures = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=14) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=40,
)


@given(structures)
def test_any_well_formed_structure_raises_only_the_declared_error(value: Any) -> None:
    data = msgpack.packb(value, use_bin_type=True)
    for receive in (decode, decode_exchange):
        try:
            receive(data)
        except PacketError:
            continue


def test_a_full_packet_of_the_largest_rumors_fits() -> None:
    largest = Member(
        node="n" * 63,
        gossip=Address("fe80::1234:5678:9abc:def0%" + "e" * 15, 65535),
        client=Address("c" * 255, 65535),
        boot=b"b" * 16,
        incarnation=2**63 - 1,
        protocol=(255, 255),
        stamp=2**63 - 1,
        clients=2**63 - 1,
        version=2**63 - 1,
        digest="f" * 64,
    )
    assert rumor_size_bytes(Alive(largest)) < 600
    encode(Echo(bytes(8), bytes(8), largest))
    with pytest.raises(ValueError):
        encode(Gossip((Alive(largest),) * 3))
