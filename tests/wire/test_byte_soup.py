"""Whatever a client sends is accepted or answered with a declared error, and nobody else hears of it."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from fakes.session_stage import Stage

from node.client.states import CLOSED, READY
from node.wire import messages as m

STREAMS = 100_000
LETTERS = b"QPBDECHSFXdcf"


def tearing(dice: random.Random, data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        size = dice.choice((7, 40, 1 << 20, 1 << 20))
        yield data[at : at + size]
        at += size


def good_stream(dice: random.Random) -> list[bytes]:
    """What a client may say, in one of many orders."""
    names = (b"", b"a", b"b")
    parts: list[bytes] = []
    for _ in range(dice.randrange(1, 5)):
        name, text = dice.choice(names), b"SELECT 'fuzz %d'" % dice.randrange(4)
        match dice.randrange(14):
            case 0:
                parts.append(m.query(text))
            case 1:
                parts.append(m.query(dice.choice((b"BEGIN", b"COMMIT", b"ROLLBACK", b"", b"bad fuzz"))))
            case 2 | 3:
                parts += [m.parse(name, text), m.bind(b"", name), m.describe_portal(b""), m.execute(), m.SYNC]
            case 4:
                parts += [m.bind(b"", name), m.execute(), m.SYNC]
            case 5:
                parts += [m.parse(name, b"bad fuzz"), m.bind(b"", name), m.execute(), m.SYNC]
            case 6:
                parts += [m.parse(name, text), m.describe_statement(name), m.FLUSH]
            case 7:
                parts += [m.close_statement(name), m.SYNC]
            case 8:
                parts += [
                    m.query("COPY fuzz"),
                    m.copy_data(b"fuzz" * dice.randrange(9)),
                    m.copy_data(b"fuzz"),
                    m.COPY_DONE,
                ]
            case 9:
                parts += [
                    m.parse(b"", b"COPY fuzz"),
                    m.bind(b"", b""),
                    m.execute(),
                    m.copy_data(b"f"),
                    m.COPY_DONE,
                    m.SYNC,
                ]
            case 10:
                parts.append(dice.choice((m.SYNC, m.FLUSH, m.COPY_DONE, m.copy_fail("x"), m.TERMINATE)))
            case 11:
                sql = dice.choice(
                    ("DEALLOCATE a", "DEALLOCATE ALL", "DISCARD ALL", "SET x = 1", "CREATE TEMP TABLE fuzz (x int)")
                )
                parts.append(m.query(sql))
            case 12:
                parts.append(m.message(b"F", b"\0\0\0\1\0\0\0\0\0\0"))
            case 13:
                parts += [
                    m.parse(b"", dice.choice((b"DEALLOCATE a", b"DEALLOCATE ALL"))),
                    m.bind(b"", b""),
                    m.execute(),
                    m.SYNC,
                ]
    return parts  # fmt: skip


def mutated(dice: random.Random, parts: list[bytes]) -> bytes:
    match dice.randrange(6):
        case 0:
            dice.shuffle(parts)
        case 1:
            at = dice.randrange(len(parts))
            parts[at] = m.message(
                LETTERS[(i := dice.randrange(len(LETTERS))) : i + 1], dice.randbytes(dice.randrange(12))
            )
        case 2:
            at = dice.randrange(len(parts))
            length = dice.choice((0, 3, 4, 5, 9, 20_000, 1 << 21, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1))
            parts[at] = parts[at][:1] + struct.pack("!I", length) + parts[at][5:]
        case _:
            pass
    data = bytearray(b"".join(parts))
    match dice.randrange(4):
        case 0:
            for _ in range(dice.randrange(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
        case 1:
            del data[dice.randrange(len(data)) :]
        case 2:
            at = dice.randrange(len(data))
            data[at : at + dice.randrange(4)] = dice.randbytes(dice.randrange(4))
        case _:
            pass
    return bytes(data)


def framed(data: bytes) -> list[bytes]:
    """Whole backend messages, nothing left over."""
    found = []
    at = 0
    while at < len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
        assert data[at] in b"123CDEGINSTVZcdnst"
        assert end <= len(data)
        found.append(data[at:end])
        at = end
    return found


def declared(message: bytes) -> bool:
    fields = m.parse_error(message[5:])
    return len(fields["C"]) == 5 and bool(fields["M"]) and fields["S"] in ("ERROR", "FATAL") and fields["C"] != "XX000"


VICTIM = [
    (m.query("SELECT 'victim'"), b"TDCZ"),
    (m.parse(b"a", b"SELECT 'victim 2'") + m.bind(b"", b"a") + m.execute() + m.SYNC, b"12DCZ"),
    (m.bind(b"", b"a") + m.execute() + m.close_statement(b"a") + m.SYNC, b"2DC3Z"),
]


def look_after(stage: Stage, data: bytes) -> None:
    """The next client on the same servers gets its answers, all of them, and nothing else."""
    victim, heard = stage.client()
    for sent, letters in VICTIM:
        del heard[:]
        victim.from_client(sent)
        stage.settle()
        assert bytes(x[0] for x in framed(bytes(heard))) == letters, data
        assert b"fuzz" not in heard, data
    victim.client_lost()
    stage.settle()


@pytest.mark.parametrize("lanes", [0, 1])
def test_byte_soup(lanes: int) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    stage = Stage(prepared_limit=3, lanes=lanes)
    for number in range(STREAMS // (1 + 3 * lanes)):
        data = mutated(dice, good_stream(dice))
        session, heard = stage.client()
        for chunk in tearing(dice, data):
            session.from_client(chunk)
            if dice.random() < 0.7:
                stage.settle()
        stage.settle()
        said = framed(bytes(heard))
        assert all(declared(x) for x in said if x[:1] == b"E"), data
        assert heard.closed == (session.state == CLOSED), data
        if session.state != CLOSED:
            assert session.state == READY, data
        session.client_lost()
        stage.settle()
        assert session.state == CLOSED
        assert len(stage.pool.core.idle) == 1, data
        assert stage.database.gate.running == 0, data
        if number % 50 == 0:
            look_after(stage, data)
    assert (stage.pool.counters.lane_units > 100) == bool(lanes)
