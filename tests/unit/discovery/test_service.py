"""The shell with real sockets in one event loop; mDNS has its own file."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fakes.waiting import wait_until
from unit.discovery.plain_control import PlainControl
from zeroconf import DNSOutgoing, DNSQuestion, DNSService

from discovery import seeds
from discovery.control import SystemClock
from discovery.effects import MemberChanged
from discovery.member import Address, Member, State
from discovery.seal import Keyring
from discovery.service import SAVE_DELAY_S, Discovery, MemberView
from discovery.settings import LOCAL, DiscoverySettings
from discovery.sockets import advertised_host, bind_pair, bound_address

KEY = bytes(range(32))
QUICK = replace(LOCAL, push_pull_interval_s=1.0, dead_retry_interval_s=0.5)


class Node:
    """One member with its sockets and control channel."""

    def __init__(self, discovery: Discovery, control: PlainControl, udp: socket.socket) -> None:
        self.discovery = discovery
        self.control = control
        self.udp = udp
        self.gossip = bound_address(udp)

    def states(self) -> dict[str, State]:
        return {view.node: view.state for view in self.discovery.members()}

    async def stop(self) -> None:
        await self.discovery.stop()
        await self.control.stop()


class Nodes:
    def __init__(self) -> None:
        self.running: list[Node] = []

    async def start(
        self,
        name: str,
        *seeds: Node | str,
        host: str = "127.0.0.1",
        keys: tuple[bytes, ...] = (KEY,),
        state_dir: Path | None = None,
        flock: str = "default",
        control_fails: bool = False,
    ) -> Node:
        udp, tcp = bind_pair(Address(host, 0))
        control = PlainControl(name)
        control.failing = control_fails
        await control.start(tcp)
        boot = random.SystemRandom().randbytes(16)
        me = Member(node=name, gossip=Address(host, 0), client=Address(host, 6432), boot=boot)
        settings = DiscoverySettings(
            flock=flock,
            seeds=tuple(seed if isinstance(seed, str) else str(seed.gossip) for seed in seeds),
            mdns=False,
            state_dir=None if state_dir is None else str(state_dir),
            swim=QUICK,
            join_interval_s=0.1,
            resolve_interval_s=0.5,
        )
        discovery = Discovery(me, settings, control, Keyring(keys), SystemClock(), random.SystemRandom())
        node = Node(discovery, control, udp)
        self.running.append(node)
        await discovery.start(udp)
        return node


@pytest_asyncio.fixture
async def nodes() -> AsyncIterator[Nodes]:
    made = Nodes()
    yield made
    for node in made.running:
        await node.stop()
    leftover = [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("discovery")]
    assert leftover == []


def all_alive(*members: Node) -> bool:
    names = {node.discovery.me.node for node in members}
    return all({name for name, state in node.states().items() if state is State.ALIVE} == names for node in members)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("keys", [(KEY,), ()], ids=["key", "no key"])
async def test_three_members_meet_through_one_seed(nodes: Nodes, host: str, keys: tuple[bytes, ...]) -> None:
    a = await nodes.start("a", host=host, keys=keys)
    b = await nodes.start("b", a, host=host, keys=keys)
    c = await nodes.start("c", a, host=host, keys=keys)
    await wait_until(lambda: all_alive(a, b, c))
    views = c.discovery.members()
    assert [view.node for view in views] == ["c", "a", "b"]
    assert [view.me for view in views] == [True, False, False]
    assert views[1].gossip == a.gossip
    assert views[1].addr == str(Address(host, 6432))
    assert abs(views[1].last_seen_utc - time.time()) < 5.0


async def test_a_crash_is_shown_and_a_return_too(nodes: Nodes) -> None:
    a = await nodes.start("a")
    b = await nodes.start("b", a)
    c = await nodes.start("c", a)
    await wait_until(lambda: all_alive(a, b, c))
    seen: list[tuple[str, State]] = []
    a.discovery.on_change(lambda view: seen.append((view.node, view.state)))
    await c.stop()
    await wait_until(lambda: a.states()["c"] is b.states()["c"] is State.DEAD)
    again = await nodes.start("c", b)
    await wait_until(lambda: all_alive(a, b, again))
    states = [state for node, state in seen if node == "c"]
    assert states.index(State.SUSPECT) < states.index(State.DEAD) < len(states) - 1
    assert states[-1] is State.ALIVE


async def test_leaving_is_told_before_the_process_ends(nodes: Nodes) -> None:
    a = await nodes.start("a")
    b = await nodes.start("b", a)
    await wait_until(lambda: all_alive(a, b))
    await b.discovery.leave()
    await b.stop()
    await wait_until(lambda: a.states()["b"] is State.LEFT, timeout_s=1.0)


async def test_news_travel_and_bad_ones_are_refused(nodes: Nodes) -> None:
    a = await nodes.start("a")
    b = await nodes.start("b", a)
    await wait_until(lambda: all_alive(a, b))
    incarnation = b.discovery.me.incarnation
    b.discovery.update_meta(version=3, digest="ab" * 32)
    b.discovery.update_meta(clients=41)

    def heard() -> MemberView:
        return next(view for view in a.discovery.members() if view.node == "b")

    await wait_until(lambda: (heard().version, heard().digest, heard().clients) == (3, "ab" * 32, 41))
    assert b.discovery.me.incarnation == incarnation
    for bad in ({"digest": "xyz"}, {"digest": "AB"}, {"digest": "a" * 66}, {"clients": -1}, {"version": -1}):
        with pytest.raises(ValueError):
            b.discovery.update_meta(**bad)  # type: ignore[arg-type]


async def test_eviction_ends_a_dead_row_everywhere(nodes: Nodes) -> None:
    a = await nodes.start("a")
    b = await nodes.start("b", a)
    c = await nodes.start("c", a)
    await wait_until(lambda: all_alive(a, b, c))
    await c.stop()
    await wait_until(lambda: a.states()["c"] is b.states()["c"] is State.DEAD)
    assert a.discovery.evict("c")
    assert not a.discovery.evict("nobody")
    await wait_until(lambda: a.states()["c"] is b.states()["c"] is State.LEFT)


async def test_gossip_alone_is_enough_when_the_control_channel_is_down(nodes: Nodes) -> None:
    a = await nodes.start("a", control_fails=True)
    b = await nodes.start("b", a, control_fails=True)
    await wait_until(lambda: all_alive(a, b))


async def test_saved_peers_bring_a_restarted_member_back_without_seeds(nodes: Nodes, tmp_path: Path) -> None:
    a = await nodes.start("a")
    b = await nodes.start("b", a, state_dir=tmp_path)
    await wait_until(lambda: all_alive(a, b))
    await b.stop()
    assert json.loads((tmp_path / "peers.json").read_text())["peers"] == [str(a.gossip)]
    again = await nodes.start("b", state_dir=tmp_path)
    await wait_until(lambda: all_alive(a, again))
    assert again.discovery.me.incarnation > 1
    assert int((tmp_path / "incarnation").read_text()) >= 2


async def test_a_datagram_that_comes_during_the_start_is_dropped(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop reads the socket before create_datagram_endpoint returns; a node that restarts is spoken to at once."""
    loop = asyncio.get_running_loop()
    create = loop.create_datagram_endpoint

    async def eager(factory: Callable[[], asyncio.DatagramProtocol], **how: Any) -> object:
        transport, protocol = await create(factory, **how)
        protocol.datagram_received(b"early", ("127.0.0.1", 9))
        return transport, protocol

    monkeypatch.setattr(loop, "create_datagram_endpoint", eager)
    a = await nodes.start("a")
    assert a.discovery.counters == {"datagrams_received": 1}


async def test_refutations_in_a_row_save_the_last_incarnation(
    nodes: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = await nodes.start("a", state_dir=tmp_path)
    table = a.discovery._running().swim._table
    for _ in range(5):
        table.me = replace(table.me, incarnation=table.me.incarnation + 1)
        a.discovery._perform([MemberChanged("a", State.ALIVE, State.ALIVE, "refuted")])
    await wait_until(lambda: (tmp_path / "incarnation").read_text() == f"{table.me.incarnation}\n")
    assert "state_not_saved" not in caplog.text


async def test_the_first_peer_is_saved_at_once(nodes: Nodes, tmp_path: Path) -> None:
    """A node that was killed a second after it had met the others came back alone, for it was everybody's seed."""
    a = await nodes.start("a", state_dir=tmp_path)
    b = await nodes.start("b", a)
    await wait_until((tmp_path / "peers.json").exists, SAVE_DELAY_S / 2)
    assert json.loads((tmp_path / "peers.json").read_text())["peers"] == [str(b.gossip)]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"flock": "default", "peers": [5]}', '{"flock": "default"}'])
async def test_a_damaged_peers_file_is_a_warning(
    nodes: Nodes, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "peers.json").write_text(content)
    (tmp_path / "incarnation").write_text("garbage")
    a = await nodes.start("a", state_dir=tmp_path)
    await wait_until(lambda: "saved_peers_unreadable" in caplog.text)
    assert a.states() == {"a": State.ALIVE}


async def test_strangers_cost_a_count_and_one_log_line(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pgmurmur.discovery")
    a = await nodes.start("a")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(40):
            stranger.sendto(random.Random(1).randbytes(200), a.gossip)
        await wait_until(lambda: a.discovery.counters.get("refused_foreign", 0) == 40)
    assert caplog.text.count("cause=foreign") == 1
    assert a.states() == {"a": State.ALIVE}


async def test_a_flood_is_dropped_unread(nodes: Nodes) -> None:
    a = await nodes.start("a")
    a.discovery._buckets._rate = 10.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(100):
            stranger.sendto(b"x", a.gossip)
        await wait_until(lambda: a.discovery.counters.get("datagrams_received", 0) == 100)
    assert a.discovery.counters["refused_rate"] >= 75


async def test_other_flocks_and_other_keys_stay_apart(nodes: Nodes) -> None:
    a = await nodes.start("a")
    b = await nodes.start("b", a, flock="other")
    c = await nodes.start("c", a, keys=(bytes(32),), control_fails=True)  # the real channel's TLS would refuse it
    await wait_until(
        lambda: all(a.discovery.counters.get(f"refused_{c}", 0) >= 2 for c in ("broken_seal", "unknown_key"))
    )
    assert [list(node.states()) for node in (a, b, c)] == [["a"], ["b"], ["c"]]


async def test_a_wildcard_without_a_key_is_advertised_on_loopback(nodes: Nodes) -> None:
    a = await nodes.start("a", host="0.0.0.0", keys=())
    assert a.discovery.me.gossip == ("127.0.0.1", a.gossip.port)
    b = await nodes.start("b", str(a.discovery.me.gossip), keys=())
    await wait_until(lambda: all_alive(a, b))


async def test_a_failing_callback_does_not_end_discovery(nodes: Nodes) -> None:
    a = await nodes.start("a")
    a.discovery.on_change(lambda view: 1 / 0)  # type: ignore[arg-type,return-value]
    b = await nodes.start("b", a)
    await wait_until(lambda: all_alive(a, b))


async def test_lag_makes_a_node_slow_to_accuse(nodes: Nodes) -> None:
    a = await nodes.start("a")
    a.discovery.lag(0.5)
    assert a.discovery.health == 8


async def test_stopping_twice_and_before_starting_is_harmless() -> None:
    me = Member(node="a", gossip=Address("127.0.0.1", 0), client=Address("127.0.0.1", 1), boot=bytes(16))
    discovery = Discovery(
        me, DiscoverySettings(mdns=False), PlainControl("a"), Keyring(), SystemClock(), random.SystemRandom()
    )
    await discovery.stop()
    await discovery.start()
    assert discovery.me.gossip.port > 0
    await discovery.stop()
    await discovery.stop()


@pytest.mark.parametrize("settings", [{"seeds": ("http://x",)}, {"seeds": ("x",)}, {"profile": "moon"}])
def test_bad_settings_are_refused_at_once(settings: dict[str, object]) -> None:
    me = Member(node="a", gossip=Address("127.0.0.1", 0), client=Address("127.0.0.1", 1), boot=bytes(16))
    with pytest.raises(ValueError):
        Discovery(
            me,
            DiscoverySettings(**settings),  # type: ignore[arg-type]
            PlainControl("a"),
            Keyring(),
            SystemClock(),
            random.SystemRandom(),
        )


def test_a_pair_shares_one_port_and_a_taken_one_is_an_error() -> None:
    udp, tcp = bind_pair(Address("127.0.0.1", 0))
    with udp, tcp:
        assert udp.getsockname()[1] == tcp.getsockname()[1] > 0
        with pytest.raises(OSError):
            bind_pair(bound_address(udp))


def test_advertised_hosts_are_ip_literals() -> None:
    assert advertised_host("127.0.0.1") == "127.0.0.1"
    assert advertised_host("localhost") in ("127.0.0.1", "::1")
    assert not Address(advertised_host("0.0.0.0"), 1).is_wildcard


async def test_seeds_are_resolved_and_failures_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("127.0.0.1", 7000) in await seeds.resolve("localhost:7000", 1)
    assert ("127.0.0.1", 16432) in await seeds.resolve("dns://localhost", 16432)
    assert ("127.0.0.1", 5) in await seeds.resolve("dns://localhost:5", 16432)
    monkeypatch.setattr(seeds, "_name_servers", list)
    assert await seeds.resolve("srv://_pgmurmur._udp.example", 1) == []
    assert await seeds.resolve("no-such-host.invalid:1", 1) == []


async def test_srv_records_name_targets_and_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server of one answer, over real UDP."""
    name = "_pgmurmur._udp.flock.example."

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]

        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            answer = DNSOutgoing(0x8180, multicast=False, id_=int.from_bytes(data[:2], "big"))
            answer.add_question(DNSQuestion(name, 33, 1))
            for port in (7001, 7002):
                answer.add_answer_at_time(DNSService(name, 33, 1, 60, 0, 0, port, "localhost."), 0)
            right = answer.packets()[0]
            stale = bytes([right[0] ^ 1]) + right[1:]  # the answer to another question
            for packet in (b"garbage", stale, right):
                self.transport.sendto(packet, addr)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")[:2]
    monkeypatch.setattr(seeds, "_name_servers", lambda: [Address(host, port)])
    found = await seeds.resolve("srv://" + name, 1)
    transport.close()
    assert {port for _, port in found} == {7001, 7002}
    assert ("127.0.0.1", 7001) in found
