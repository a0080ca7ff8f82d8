"""The hash vectors were checked against satisfies_hash_partition of a real PostgreSQL."""

from __future__ import annotations

import uuid as uuids

import pytest

from node.routing import hashing

BIGINT = [
    (0, 0x0C8440B74FD699B0),
    (1, 0x9C7715E2970A8FB8),
    (2, 0xEB7B1343AF5EA17A),
    (3, 0xEF0D27B973EE34B9),
    (11, 0x786F5630E42BB621),
    (-1, 0x0400BC251F3BAFA5),
    (42, 0xAFD30D9A116A5A62),
    (2**63 - 1, 0x8E2A2EEC347A3A76),
    (-(2**63), 0xF5AA185B5E7FA17F),
]
VARCHAR = [
    ("", 0xFA8431E86A2568A6),
    ("a", 0xEC9335D598214F5E),
    ("one", 0xC1299EEEB63FD8F0),
    ("two", 0xB27BC691CD579909),
    ("test_value", 0xE9E7B7F8421C2955),
    ("hello world, this is long", 0x04769F5994653A2C),
]
UUID = [
    ("00000000-0000-0000-0000-000000000000", 0x0056C8A1C0433BA5),
    ("11111111-1111-1111-1111-111111111111", 0x4DFB780FEBABAD9C),
    ("f47ac10b-58cc-4372-a567-0e02b2c3d479", 0xB6834CC61BAD616A),
]


@pytest.mark.parametrize(("value", "expected"), BIGINT)
def test_bigint_hashes_as_postgresql(value: int, expected: int) -> None:
    assert hashing.bigint(value) == expected


@pytest.mark.parametrize(("value", "expected"), VARCHAR)
def test_varchar_hashes_as_postgresql(value: str, expected: int) -> None:
    assert hashing.varchar(value.encode()) == expected


@pytest.mark.parametrize(("value", "expected"), UUID)
def test_uuid_hashes_as_postgresql(value: str, expected: int) -> None:
    assert hashing.uuid(uuids.UUID(value).bytes) == expected


def test_ids_modulo_two() -> None:
    assert [hashing.bigint(i) % 2 for i in range(20)] == [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_sha1_of_decimal_text() -> None:
    shards = [hashing.sha1(str(i).encode()) % 12 for i in range(20)]
    assert shards == [4, 7, 8, 3, 6, 0, 0, 10, 3, 11, 1, 7, 4, 4, 11, 2, 5, 0, 8, 3]


def test_every_tail_length_differs() -> None:
    hashes = {hashing.varchar(b"\xff" * n) for n in range(40)}
    assert len(hashes) == 40
