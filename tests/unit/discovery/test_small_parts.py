"""Suspicion, rumors, awareness, buckets, addresses: tables of what goes in and what comes out."""

from __future__ import annotations

import pytest

from discovery.awareness import Awareness
from discovery.buckets import Buckets, Complaints
from discovery.member import Address, check_name, sender_id
from discovery.rumors import PER_PACKET_LIMIT, RumorQueue, transmit_limit
from discovery.settings import LAN, LOCAL, WAN, DiscoverySettings
from discovery.sockets import for_socket, from_kernel
from discovery.suspicion import Suspicion, expected_confirmations, minimum_timeout_s


@pytest.mark.parametrize(
    ("multiplier", "members", "interval", "expected"),
    [(4, 1, 1.0, 4.0), (4, 10, 1.0, 4.0), (4, 100, 1.0, 8.0), (4, 1000, 1.0, 12.0), (6, 3, 0.2, 1.2)],
)
def test_the_least_suspicion_is_memberlists_formula(
    multiplier: int, members: int, interval: float, expected: float
) -> None:
    assert minimum_timeout_s(multiplier, members, interval) == pytest.approx(expected)


@pytest.mark.parametrize(("members", "expected"), [(2, 0), (3, 0), (4, 2), (100, 2)])
def test_confirmations_are_expected_only_where_there_are_enough_others(members: int, expected: int) -> None:
    assert expected_confirmations(2, members) == expected


def test_each_independent_accuser_shortens_a_suspicion_once() -> None:
    suspicion = Suspicion("a", 100.0, minimum_s=4.0, maximum_s=24.0, expected=2)
    assert suspicion.deadline() == 124.0
    assert not suspicion.confirm("a")
    assert suspicion.confirm("b")
    assert 104.0 < suspicion.deadline() < 124.0
    assert not suspicion.confirm("b")
    assert suspicion.confirm("c")
    assert suspicion.deadline() == pytest.approx(104.0)
    assert not suspicion.confirm("d"), "beyond K nobody needs to hear more"
    assert suspicion.deadline(stretch=2.0) == pytest.approx(108.0)
    suspicion.forgive(10.0)
    assert suspicion.deadline() == pytest.approx(114.0)


def test_without_confirmers_a_suspicion_is_short_at_once() -> None:
    assert Suspicion("a", 0.0, minimum_s=4.0, maximum_s=24.0, expected=0).deadline() == 4.0


@pytest.mark.parametrize(("members", "expected"), [(1, 8), (3, 8), (99, 8), (100, 12), (1000, 16)])
def test_the_transmit_limit_grows_with_the_logarithm(members: int, expected: int) -> None:
    assert transmit_limit(4, members) == expected


def test_fresh_rumors_go_first_and_each_is_sent_its_number_of_times() -> None:
    queue: RumorQueue[str] = RumorQueue(1)
    queue.add("a", "A", 10)
    assert queue.take(10, 3) == ("A",)
    queue.add("b", "B", 10)
    assert queue.take(10, 3) == ("B",)
    assert queue.take(20, 3) == ("B", "A")
    assert len(queue) == 0
    assert queue.take(20, 3) == ()


def test_newer_news_replace_older_ones_about_the_same_subject() -> None:
    queue: RumorQueue[str] = RumorQueue(4)
    queue.add("a", "old", 5)
    queue.add("a", "new", 5)
    assert queue.take(100, 3) == ("new",)


def test_a_rumor_that_does_not_fit_waits_and_a_smaller_one_goes() -> None:
    queue: RumorQueue[str] = RumorQueue(4)
    queue.add("small", "s", 5)
    queue.add("large", "l", 50)
    assert queue.take(20, 3) == ("s",)
    assert set(queue.take(60, 3)) == {"s", "l"}


def test_a_full_queue_forgets_what_most_have_heard() -> None:
    queue: RumorQueue[int] = RumorQueue(4, limit=3)
    for number in range(3):
        queue.add(str(number), number, 1)
    queue.take(1, 3)  # number 2, the freshest
    queue.add("3", 3, 1)
    assert set(queue.take(100, 3)) == {0, 1, 3}
    assert queue.dropped == 1


def test_a_packet_takes_a_bounded_number_of_rumors() -> None:
    queue: RumorQueue[int] = RumorQueue(4)
    for number in range(100):
        queue.add(str(number), number, 1)
    assert len(queue.take(1000, 3)) == PER_PACKET_LIMIT


def test_local_health_stays_between_0_and_its_limit() -> None:
    awareness = Awareness(8, calm_s=1.0)
    awareness.add(-1)
    assert (awareness.score, awareness.scale(1.0), awareness.stretch) == (0, 1.0, 1.0)
    awareness.add(100)
    assert (awareness.score, awareness.scale(1.0), awareness.stretch) == (8, 9.0, 3.0)


def test_lateness_counts_at_once_and_passes_with_time_while_failures_do_not() -> None:
    awareness = Awareness(8, calm_s=1.0)
    awareness.lag(0.09, 0.1, now=10.0)
    assert awareness.score == 0
    awareness.lag(0.45, 0.1, now=10.0)
    awareness.add(1)
    assert awareness.score == 5
    awareness.settle(12.0)
    assert awareness.score == 3
    awareness.settle(60.0)
    assert awareness.score == 1


def test_a_bucket_lets_a_burst_and_then_the_rate_through() -> None:
    buckets = Buckets(10.0, sources_limit=2)
    assert sum(buckets.take("a", 0.0) for _ in range(100)) == 20
    assert sum(buckets.take("a", 1.0) for _ in range(100)) == 10
    assert buckets.take("b", 1.0)
    assert buckets.take("c", 1.0)  # forgets a, the longest unheard
    assert len(buckets._levels) == 2


def test_complaints_come_once_per_cause_and_interval_with_the_number_kept_quiet() -> None:
    complaints = Complaints(10.0)
    assert complaints.due("seal", 0.0) == 0
    assert [complaints.due("seal", t) for t in (1.0, 5.0, 9.9)] == [None, None, None]
    assert complaints.due("rate", 5.0) == 0
    assert complaints.due("seal", 10.0) == 3
    assert complaints.due("seal", 20.0) == 0


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("db1:7000", None, ("db1", 7000)),
        ("[::1]:7000", None, ("::1", 7000)),
        ("[fe80::1%eth0]", 5, ("fe80::1%eth0", 5)),
        ("2001:db8::1", 5, ("2001:db8::1", 5)),
        ("db1", 5, ("db1", 5)),
        ("127.0.0.1:0", None, ("127.0.0.1", 0)),
    ],
)
def test_addresses_are_read_and_written(text: str, default: int | None, expected: tuple[str, int]) -> None:
    address = Address.parse(text, default)
    assert address == expected
    assert Address.parse(str(address)) == address


@pytest.mark.parametrize("text", ["", ":1", "db1", "db1:", "db1:x", "db1:65536", "[::1", "[::1]x", "db1:-1", "[]:1"])
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Address.parse(text)


def test_addresses_know_whether_they_are_loopback_or_wildcard() -> None:
    loopback = ["127.0.0.1", "127.9.9.9", "::1", "localhost"]
    assert [Address(host, 1).is_loopback for host in [*loopback, "10.0.0.1", "db1"]] == [True] * 4 + [False] * 2
    assert [Address(host, 1).is_wildcard for host in ["0.0.0.0", "::", "127.0.0.1", "db1"]] == [
        True,
        True,
        False,
        False,
    ]


def test_kernel_addresses_are_translated_both_ways() -> None:
    import socket

    assert from_kernel(("::ffff:192.0.2.1", 5, 0, 0)) == ("192.0.2.1", 5)
    assert from_kernel(("2001:db8::1", 5, 0, 0)) == ("2001:db8::1", 5)
    assert for_socket(Address("192.0.2.1", 5), socket.AF_INET) == ("192.0.2.1", 5)
    assert for_socket(Address("192.0.2.1", 5), socket.AF_INET6) == ("::ffff:192.0.2.1", 5, 0, 0)
    assert for_socket(Address("2001:db8::1", 5), socket.AF_INET) is None
    assert for_socket(Address("fe80::1%1", 5), socket.AF_INET6) == ("fe80::1", 5, 0, 1)
    assert for_socket(Address("fe80::1%no-such-link", 5), socket.AF_INET6) is None


def test_names_have_limits_and_ids_differ_by_flock() -> None:
    assert check_name("ü" * 31) == "ü" * 31
    for name in ("", "x" * 64, "ü" * 32, "a\tb"):
        with pytest.raises(ValueError):
            check_name(name)
    assert sender_id("a", "n") != sender_id("b", "n")


def test_profiles_are_chosen_by_address_and_keep_their_order() -> None:
    auto = DiscoverySettings()
    assert auto.swim_settings(Address("127.0.0.1", 1)) is LOCAL
    assert auto.swim_settings(Address("192.0.2.1", 1)) is LAN
    assert DiscoverySettings(profile="wan").swim_settings(Address("127.0.0.1", 1)) is WAN
    assert DiscoverySettings(swim=LOCAL).swim_settings(Address("192.0.2.1", 1)) is LOCAL
    with pytest.raises(ValueError, match="profile"):
        DiscoverySettings(profile="moon").swim_settings(Address("192.0.2.1", 1))
    for settings in (LAN, WAN, LOCAL):
        # The helper's nack must arrive before the prober's interval ends.
        assert settings.probe_timeout_s * 1.8 < settings.probe_interval_s
