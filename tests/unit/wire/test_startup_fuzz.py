"""Mutated startup packets: accepted, incomplete, or a declared fault; never anything else."""

from __future__ import annotations

from random import Random

from node.errors import ClientFault
from node.wire.startup import cancel_request, parse_options, read_request, ssl_request, startup_message

ROUNDS = 10_000

SEEDS = (
    startup_message([(b"user", b"alice"), (b"database", b"shop"), (b"options", rb"-c a=b --c=d\ e -S 5")]),
    startup_message([(b"user", b"alice"), (b"_pq_.x", b"1"), (b"replication", b"database")], 2),
    ssl_request(),
    cancel_request(1, b"secret12"),
)
PIECES = (b"\0", b"\xff\xff\xff\xff", b"\0\3\0\0", b"-c ", b"--", b"\\", b"options\0", b"user\0", b"=", b"\x16")


def mutated(random: Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(out) + 1)
        match random.randrange(4):
            case 0 if at < len(out):
                out[at] = random.randrange(256)
            case 1:
                out[at:at] = random.choice(PIECES)
            case 2:
                del out[at : at + random.randint(1, 8)]
            case _:
                out += random.randbytes(random.randint(0, 20))
    if random.random() < 0.7 and len(out) >= 4:  # often a fitting length, so that the body is looked at
        out[:4] = len(out).to_bytes(4, "big")
    return bytes(out)


def test_mutated_packets_are_accepted_or_refused_by_a_declared_fault() -> None:
    seed = Random().randrange(1 << 32)
    print(f"seed={seed}")
    random = Random(seed)
    outcomes = {"accepted": 0, "incomplete": 0, "refused": 0}
    severities = set()
    for _ in range(ROUNDS):
        data = mutated(random, random.choice(SEEDS))
        try:
            read = read_request(data)
        except ClientFault as fault:
            severities.add(fault.severity)
            outcomes["refused"] += 1
        else:
            assert read is None or 0 <= read.consumed <= len(data), data
            outcomes["incomplete" if read is None else "accepted"] += 1
    assert severities == {"FATAL"}
    assert min(outcomes.values()) > ROUNDS // 100, outcomes  # the fuzz reaches all three


def test_any_options_are_settings_or_a_declared_fault() -> None:
    seed = Random().randrange(1 << 32)
    print(f"seed={seed}")
    random = Random(seed)
    sqlstates = set()
    for _ in range(ROUNDS):
        options = bytes(random.choice(b"-c=ab \\+S\t\xff") for _ in range(random.randint(0, 12)))
        try:
            settings = parse_options(options)
        except ClientFault as fault:
            sqlstates.add(fault.sqlstate)
        else:
            assert all(settings), options
    assert sqlstates == {"42601"}
