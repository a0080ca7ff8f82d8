"""Seals: only whole, fresh packets of this flock open."""

from __future__ import annotations

import base64
from random import Random

import pytest

from discovery.handshake import KNOWN_LIMIT, Handshake
from discovery.member import Address, Member, sender_id
from discovery.packet import PACKET_LIMIT_BYTES, Cause, PacketError
from discovery.seal import WINDOW, Keyring, Opened, ReplayWindow, Seal

KEY, OTHER = bytes(range(32)), bytes(range(1, 33))
ALICE, BOB, EVE = (sender_id("flock", name) for name in ("alice", "bob", "eve"))
BOOT = b"B" * 16


def seal(keys: tuple[bytes, ...] = (KEY,), flock: str = "flock", me: bytes = ALICE, boot: bytes = BOOT) -> Seal:
    return Seal(Keyring(keys), flock, me, boot)


def cause_of(receiver: Seal, datagram: bytes) -> Cause:
    with pytest.raises(PacketError) as caught:
        receiver.open(datagram)
    return caught.value.cause


@pytest.mark.parametrize("keys", [(KEY,), ()], ids=["sealed", "plain"])
@pytest.mark.parametrize("addressee", [BOB, None], ids=["addressed", "open"])
def test_what_alice_seals_bob_opens(keys: tuple[bytes, ...], addressee: bytes | None) -> None:
    opened = seal(keys).open(seal(keys, me=BOB).seal(b"hi", ALICE if addressee else None))
    assert (opened.sender, opened.boot, opened.counter, opened.plaintext) == (BOB, BOOT, 1, b"hi")


@pytest.mark.parametrize("keys", [(KEY,), ()], ids=["sealed", "plain"])
def test_a_flipped_bit_anywhere_is_refused(keys: tuple[bytes, ...]) -> None:
    """Plain packets are not safe from liars, but a damaged one must not be mistaken for a whole one either."""
    datagram = seal(keys).seal(b"some message", BOB)
    receiver = seal(keys, me=BOB)
    receiver.open(datagram)
    for at in range(len(datagram)):
        for bit in range(8):
            broken = bytearray(datagram)
            broken[at] ^= 1 << bit
            with pytest.raises(PacketError):
                receiver.open(bytes(broken))


def test_every_truncation_and_extension_is_refused() -> None:
    datagram = seal().seal(b"some message", BOB)
    for end in range(len(datagram)):
        cause_of(seal(me=BOB), datagram[:end])
    cause_of(seal(me=BOB), datagram + b"x")


def test_causes_are_told_apart() -> None:
    datagram = seal().seal(b"x", BOB)
    assert cause_of(seal(me=EVE), datagram) is Cause.BROKEN_SEAL  # addressed to somebody else
    assert cause_of(seal(flock="other", me=BOB), datagram) is Cause.BROKEN_SEAL
    assert cause_of(seal((OTHER,), me=BOB), datagram) is Cause.UNKNOWN_KEY
    assert cause_of(seal((), me=BOB), datagram) is Cause.PLAIN
    assert cause_of(seal(me=BOB), seal(()).seal(b"x", BOB)) is Cause.PLAIN
    assert cause_of(seal(me=BOB), b"Pg\x02" + datagram[3:]) is Cause.VERSION
    assert cause_of(seal(me=BOB), b"PG" + datagram[2:]) is Cause.FOREIGN
    assert cause_of(seal(me=BOB), bytes(PACKET_LIMIT_BYTES + 1)) is Cause.TOO_LONG


def test_plain_packets_of_another_flock_are_refused() -> None:
    assert cause_of(seal((), flock="other", me=BOB), seal(()).seal(b"x", None)) is Cause.BROKEN_SEAL


def test_a_packet_cannot_be_passed_off_as_another_boots() -> None:
    datagram = seal().seal(b"x", None)
    forged = datagram[:8] + EVE + datagram[24:]
    assert cause_of(seal(me=BOB), forged) is Cause.BROKEN_SEAL


def test_the_same_message_never_looks_the_same() -> None:
    sender = seal()
    assert len({sender.seal(b"x", None)[48:] for _ in range(100)}) == 100


def test_rotation_opens_with_every_key_and_seals_with_the_first() -> None:
    old, both, new = seal((KEY,)), seal((OTHER, KEY), me=BOB), seal((OTHER,), me=EVE)
    assert both.open(old.seal(b"1", None)).key_id == Keyring([KEY]).primary_id
    assert new.open(both.seal(b"2", None)).plaintext == b"2"
    assert cause_of(old, both.seal(b"3", None)) is Cause.UNKNOWN_KEY


def test_a_key_file_is_read_strictly() -> None:
    line = base64.b64encode(KEY).decode()
    ring = Keyring.parse(f"# flock\n\n{line}\n{base64.b64encode(OTHER).decode()}\n")
    assert ring.primary_id == Keyring([KEY]).primary_id
    assert ring.find(Keyring([OTHER]).primary_id) == OTHER
    for text in ("", "# nothing\n", "not base64!", base64.b64encode(KEY[:16]).decode(), f"{line}\n" * 1 + "x"):
        with pytest.raises(ValueError):
            Keyring.parse(text)
    with pytest.raises(ValueError, match="at most 8"):
        Keyring(bytes([n]) * 32 for n in range(9))


def test_the_window_takes_every_counter_once_in_any_order() -> None:
    random = Random(5)
    window = ReplayWindow(100)
    counters = list(range(101, 101 + 3000))
    for start in range(0, len(counters), 64):  # reordered, but within the window
        block = counters[start : start + 64]
        random.shuffle(block)
        counters[start : start + 64] = block
    assert all(window.accept(counter) for counter in counters)
    assert not any(window.accept(counter) for counter in counters)


def test_the_window_refuses_what_came_before_it_and_what_is_too_old() -> None:
    window = ReplayWindow(100)
    assert not any(window.accept(counter) for counter in range(101))
    assert window.accept(101 + WINDOW)
    assert not window.accept(101)
    assert window.accept(102)
    assert window.accept(2**64 - 1)
    assert not window.accept(101 + WINDOW)


SOURCE = Address("192.0.2.1", 7000)
RECORD = Member(node="alice", gossip=SOURCE, client=SOURCE, boot=BOOT)


def opened(counter: int = 1, sender: bytes = ALICE, boot: bytes = BOOT) -> Opened:
    return Opened(sender, boot, counter, bytes(4), b"")


def test_a_boot_is_believed_after_its_echo_and_each_counter_once() -> None:
    handshake = Handshake("flock", b"s" * 32)
    assert handshake.admit(opened(1)) is None
    nonce = handshake.nonce(opened(1), SOURCE, 100.0)
    handshake.confirm(opened(5), SOURCE, nonce, RECORD, 109.0)
    assert handshake.admit(opened(6)) == "alice"
    for counter in (1, 4, 5, 6):
        with pytest.raises(PacketError, match="replay"):
            handshake.admit(opened(counter))
    handshake.confirm(opened(7), SOURCE, nonce, RECORD, 109.0)  # again: must not reopen the window
    with pytest.raises(PacketError):
        handshake.admit(opened(6))


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"source": Address("192.0.2.2", 7000)}, 100.0),
        ({"source": Address("192.0.2.1", 7001)}, 100.0),
        ({"boot": b"C" * 16}, 100.0),
        ({"sender": BOB}, 100.0),
        ({}, 125.0),
        ({"secret": b"t" * 32}, 100.0),
    ],
    ids=["address", "port", "boot", "sender", "late", "other receiver"],
)
def test_an_echo_proves_one_boot_at_one_address_for_a_short_while(change: dict[str, object], at: float) -> None:
    asked = Handshake("flock", b"s" * 32)
    nonce = asked.nonce(opened(), SOURCE, 100.0)
    asker = Handshake("flock", b"t" * 32) if "secret" in change else asked
    packet = Opened(change.get("sender", ALICE), change.get("boot", BOOT), 2, bytes(4), b"")  # type: ignore[arg-type]
    with pytest.raises(PacketError) as caught:
        asker.confirm(packet, change.get("source", SOURCE), nonce, RECORD, at)  # type: ignore[arg-type]
    assert caught.value.cause is Cause.UNPROVEN
    assert len(asker) == 0


def test_nobody_can_introduce_itself_under_another_name() -> None:
    handshake = Handshake("flock", b"s" * 32)
    nonce = handshake.nonce(opened(sender=EVE), SOURCE, 0.0)
    with pytest.raises(PacketError, match="somebody else"):
        handshake.confirm(opened(sender=EVE), SOURCE, nonce, RECORD, 0.0)


def test_the_table_of_boots_is_bounded_and_forgets_the_quietest() -> None:
    handshake = Handshake("flock", b"s" * 32)

    def enter(number: int) -> Opened:
        boot = number.to_bytes(16, "big")
        record = Member(node="alice", gossip=SOURCE, client=SOURCE, boot=boot)
        packet = opened(boot=boot)
        handshake.confirm(packet, SOURCE, handshake.nonce(packet, SOURCE, 0.0), record, 0.0)
        return packet

    first, second = enter(0), enter(1)
    for number in range(2, KNOWN_LIMIT):
        enter(number)
    assert handshake.admit(opened(2, boot=first.boot)) == "alice"
    enter(KNOWN_LIMIT)
    assert len(handshake) == KNOWN_LIMIT
    assert handshake.admit(opened(3, boot=first.boot)) == "alice"
    assert handshake.admit(opened(3, boot=second.boot)) is None


def test_a_challenge_is_expected_only_from_where_we_just_spoke_to() -> None:
    handshake = Handshake("flock", b"s" * 32)
    handshake.spoke_to(SOURCE, 50.0)
    assert handshake.expects(SOURCE, 55.0)
    assert not handshake.expects(SOURCE, 61.0)
    assert not handshake.expects(Address("192.0.2.9", 7000), 55.0)
