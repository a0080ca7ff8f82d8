"""Three real processes on 127.0.0.1 with no seed and no file find each other by multicast DNS alone."""

from __future__ import annotations

import logging
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.waiting import wait_until
from zeroconf import InterfaceChoice

from discovery import mdns
from discovery.mdns import Mdns, flock_mark, interfaces_for
from discovery.member import Address, Member

ONE_NODE = Path(__file__).with_name("one_node.py")


def multicast_works_on_loopback() -> bool:
    group, port = "224.0.0.251", 5399
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hearer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaker,
    ):
        try:
            hearer.bind(("", port))
            request = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton("127.0.0.1"))
            hearer.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            hearer.settimeout(1.0)
            speaker.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            speaker.sendto(b"hello", (group, port))
            return hearer.recv(16) == b"hello"
        except OSError:
            return False


needs_multicast = pytest.mark.skipif(
    not multicast_works_on_loopback(), reason="this machine has no multicast on loopback"
)


class Flock:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str) -> None:
        with (self._directory / f"{name}.out").open("w") as out, (self._directory / f"{name}.log").open("w") as err:
            self.processes[name] = subprocess.Popen(
                [sys.executable, str(ONE_NODE), name, "127.0.0.1:0"], stdout=out, stderr=err, text=True
            )

    def lines(self, name: str) -> list[str]:
        return (self._directory / f"{name}.out").read_text().splitlines()

    def last_view(self, name: str) -> set[str]:
        views = [line.partition("| ")[2].split() for line in self.lines(name) if "| " in line]
        return {word for word in views[-1] if "health" not in word} if views else set()

    def wait(self, condition: str, *states: str, within: list[str], timeout: float = 20.0) -> float:
        """Seconds until all of `within` show exactly these states."""
        begun = time.monotonic()
        while not all(self.last_view(name) >= set(states) for name in within):
            shown = {name: self.lines(name) for name in within}
            assert time.monotonic() - begun < timeout, f"{condition}: {shown}"
            time.sleep(0.02)
        return time.monotonic() - begun


@pytest.fixture
def flock(tmp_path: Path) -> Iterator[Flock]:
    flock = Flock(tmp_path)
    yield flock
    for process in flock.processes.values():
        process.kill()
        process.wait()


@needs_multicast
def test_three_processes_meet_lose_one_and_part(flock: Flock, record_property: pytest.RecordProperty) -> None:
    names = ["m1", "m2", "m3"]
    for name in names:
        flock.start(name)
    everybody = [f"{name}=alive" for name in names]
    met = flock.wait("meeting", *everybody, within=names)
    record_property("met_s", met)
    flock.processes["m3"].send_signal(signal.SIGKILL)
    gone = flock.wait("death", "m3=dead", within=["m1", "m2"])
    record_property("death_seen_s", gone)
    flock.processes["m2"].send_signal(signal.SIGTERM)
    flock.wait("leaving", "m2=left", within=["m1"])
    assert flock.processes["m2"].wait(10) == 0
    print(f"met after {met:.2f} s, death seen by all after {gone:.2f} s")


def member(name: str, port: int, host: str = "127.0.0.1") -> Member:
    address = Address(host, port)
    return Member(node=name, gossip=address, client=address, boot=random.Random(port).randbytes(16))


@needs_multicast
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_same_names_get_along_and_other_flocks_are_not_heard(host: str) -> None:
    """Two nodes that claim one name both announce themselves; who is right is settled by gossip."""
    flock = f"test-{random.SystemRandom().getrandbits(32)}"
    heard: dict[str, set[Address]] = {"a": set(), "b": set(), "other": set()}
    parts = []
    for key, name, port, its_flock in (
        ("a", "db", 7001, flock),
        ("b", "db", 7002, flock),
        ("other", "x", 7003, "else"),
    ):
        me = member(name, port, host)
        parts.append(Mdns(me, me.gossip, its_flock, heard[key].add))
    for part in parts:
        await part.start()
    try:
        await wait_until(lambda: heard["a"] >= {(host, 7002)} and heard["b"] >= {(host, 7001)})
        assert all(port != 7003 for _, port in heard["a"] | heard["b"])
    finally:
        for part in parts:
            await part.stop()


@pytest.mark.parametrize("error", [OSError(98, "address in use"), RuntimeError("no adapter"), ValueError("?")])
async def test_without_mdns_there_is_a_warning_and_nothing_else(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(mdns, "AsyncZeroconf", fail)
    part = Mdns(member("a", 7001), Address("127.0.0.1", 7001), "default", lambda address: None)
    await part.start()
    assert part.problem is not None
    assert [record.levelno for record in caplog.records if "mdns_unavailable" in record.message] == [logging.WARNING]
    await part.stop()
    await part.stop()


def test_interfaces_follow_the_gossip_address() -> None:
    assert interfaces_for(Address("127.0.0.1", 1)) == ["127.0.0.1"]
    assert interfaces_for(Address("::1", 1)) == ["127.0.0.1"]
    assert interfaces_for(Address("0.0.0.0", 1)) is InterfaceChoice.All
    assert interfaces_for(Address("192.0.2.1", 1)) == ["192.0.2.1"]


def test_what_is_announced_is_short_static_and_tells_no_secret() -> None:
    part = Mdns(member("x" * 63, 7001), Address("127.0.0.1", 7001), "secret flock name", lambda address: None)
    info = part._info()
    assert len(info.text) <= 200
    assert set(info.properties) == {b"txtvers", b"cid", b"nid", b"pv", b"cp"}
    assert b"secret" not in info.text
    assert flock_mark("a") != flock_mark("b")
