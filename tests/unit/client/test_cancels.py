"""Cancel requests: whose they are, who is asked, and what a flood of them costs."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from node.cancels import FORWARDING_LIMIT, PER_CLIENT_LIMIT, SERVICE, WAITING_LIMIT, Cancels
from node.errors import ServerFault
from node.reception import CLIENT_BITS, member_tag
from node.wire.startup import CancelRequest
from sync.ports import ControlUnreachable

SECRET = b"feathers"


def key_of(member: str, number: int = 1) -> int:
    return member_tag(member) << CLIENT_BITS | number


@dataclass
class Server:
    """A server connection with its pool; a cancel takes until `spent` is set."""

    owner: object
    busy: bool = True
    cancels: int = 0
    held: int = 0  # by requests that are still to leave
    spent: asyncio.Event = field(default_factory=asyncio.Event)
    fault: ServerFault | None = None

    def __post_init__(self) -> None:
        self.pipeline = SimpleNamespace(idle=lambda: not self.busy)
        self.pool = self
        self.target = SimpleNamespace(address="10.0.0.1:5432")

    async def cancel(self, server: object) -> None:
        assert server is self
        self.cancels += 1
        if self.fault is not None:
            raise self.fault
        await self.spent.wait()

    def hold(self, server: object) -> None:
        assert server is self
        self.held += 1

    def let_go(self, server: object) -> None:
        assert server is self
        self.held -= 1


@dataclass
class Client:
    servers: list[Server] = field(default_factory=list)
    secret: bytes = SECRET

    def cancellable(self) -> list[Server]:
        return [server for server in self.servers if server.busy]


@dataclass
class Channel:
    """The control channel: notes who was asked; `hold` keeps the answers back."""

    asked: list[tuple[str, str | None, bytes]] = field(default_factory=list)
    hold: asyncio.Event | None = None
    under_way: int = 0
    most: int = 0

    async def __call__(
        self, address: str, service: str, payload: bytes, timeout: float, *, node: str | None = None
    ) -> bytes:
        assert service == SERVICE
        self.asked.append((address, node, payload))
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if self.hold is not None:
                await self.hold.wait()
        finally:
            self.under_way -= 1
        return b""


PEERS = {"wren": "10.0.0.2:16432", "finch": "10.0.0.3:16432"}


def cancels(clients: dict[int, Any], ask: Any, peers: dict[str, str] = PEERS) -> Cancels:
    return Cancels(clients, lambda: peers, ask)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_right_key_reaches_the_server_and_is_waited_for() -> None:
    server = Server(owner="me")
    channel = Channel()
    asked = asyncio.create_task(cancels({7: Client([server])}, channel).request(CancelRequest(7, SECRET)))
    await turns()
    assert server.cancels == 1
    assert not asked.done()  # while it is under way it could still hit something
    server.spent.set()
    await asked
    assert channel.asked == []


async def test_a_wrong_secret_reaches_nobody() -> None:
    server = Server(owner="me")
    channel = Channel()
    of_us = cancels({key_of("robin"): Client([server])}, channel)
    for secret in (b"feather", b"feathers!", bytes(8), b"\0" * 256):
        await of_us.request(CancelRequest(key_of("robin"), secret))
    assert (server.cancels, channel.asked) == (0, [])


async def test_a_key_of_another_member_is_passed_on_once_to_that_member_alone() -> None:
    channel = Channel()
    pid = key_of("wren", 12)
    await cancels({}, channel).request(CancelRequest(pid, SECRET))
    assert channel.asked == [("10.0.0.2:16432", "wren", pid.to_bytes(4, "big") + SECRET)]


async def test_a_key_of_no_member_is_dropped() -> None:
    channel = Channel()
    tags = {member_tag(name) for name in PEERS}
    free = next(tag for tag in range(1 << 11) if tag not in tags)
    for pid in (free << CLIENT_BITS | 5, 0xFFFFFFFF, 0):
        await cancels({}, channel).request(CancelRequest(pid, SECRET))
    assert channel.asked == []


async def test_members_whose_names_share_their_bits_are_all_asked() -> None:
    """And a client here with the same process id is no reason not to ask: its secret is another one."""
    first: dict[int, str] = {}
    for name in map("bird-{}".format, itertools.count()):
        if member_tag(name) in first:
            twins = (first[member_tag(name)], name)
            break
        first[member_tag(name)] = name
    channel = Channel()
    server = Server(owner="me")
    here = cancels({key_of(twins[0]): Client([server])}, channel, {twins[1]: "10.0.0.9:1"})
    await here.request(CancelRequest(key_of(twins[1]), b"another"))
    assert [node for _, node, _ in channel.asked] == [twins[1]]
    assert server.cancels == 0


async def test_what_a_peer_passes_on_is_not_passed_on_again() -> None:
    channel = Channel()
    server = Server(owner="me")
    server.spent.set()
    of_us = cancels({key_of("robin"): Client([server])}, channel)
    for pid in (key_of("robin"), key_of("finch")):
        assert await of_us.for_peer("wren", pid.to_bytes(4, "big") + SECRET) == b""
    assert (server.cancels, channel.asked) == (1, [])


@pytest.mark.parametrize("payload", [b"", b"\0\0\0\7", b"\0\0", b"\0\0\0\7" + SECRET + bytes(256)])
async def test_a_peer_may_say_nonsense(payload: bytes) -> None:
    server = Server(owner="me")
    assert await cancels({7: Client([server])}, Channel()).for_peer("wren", payload) == b""
    assert server.cancels == 0


async def test_a_member_that_cannot_be_reached_is_no_error() -> None:
    async def ask(*_: object, **__: object) -> bytes:
        raise ControlUnreachable("no answer")

    await cancels({}, ask).request(CancelRequest(key_of("wren"), SECRET))


async def test_a_server_that_changed_hands_is_not_hit() -> None:
    """Of two shards: before the second request leaves, its server works for somebody else, or for nobody."""
    one, other, idle = Server(owner="me"), Server(owner="me"), Server(owner="me")
    asked = asyncio.create_task(cancels({7: Client([one, other, idle])}, Channel()).request(CancelRequest(7, SECRET)))
    await asyncio.sleep(0)  # the request was read; none has left yet
    assert one.cancels == 0
    other.owner, idle.busy = "somebody else", False
    one.spent.set()
    await asked
    assert (one.cancels, other.cancels, idle.cancels) == (1, 0, 0)


async def test_one_shard_that_cannot_be_reached_does_not_save_the_others() -> None:
    lost, well = Server(owner="me", fault=ServerFault("unreachable", sqlstate="08001")), Server(owner="me")
    well.spent.set()
    await cancels({7: Client([lost, well])}, Channel()).request(CancelRequest(7, SECRET))
    assert (lost.cancels, well.cancels) == (1, 1)


async def test_a_client_that_cancels_without_end_costs_few_connections() -> None:
    server = Server(owner="me")
    of_us = cancels({7: Client([server])}, Channel())
    asked = [asyncio.create_task(of_us.request(CancelRequest(7, SECRET))) for _ in range(50)]
    await turns()
    assert server.cancels == PER_CLIENT_LIMIT
    server.spent.set()
    await asyncio.gather(*asked)
    await of_us.request(CancelRequest(7, SECRET))  # afterwards it may again
    assert server.cancels == PER_CLIENT_LIMIT + 1


async def test_a_flood_of_forged_requests_is_held_back_and_then_dropped() -> None:
    channel = Channel(hold=asyncio.Event())
    of_us = cancels({}, channel)
    flood = [
        asyncio.create_task(of_us.request(CancelRequest(key_of("wren", number), b"guess")))
        for number in range(WAITING_LIMIT + 100)
    ]
    await turns()
    assert channel.most == FORWARDING_LIMIT
    assert of_us.dropped == 100
    assert channel.hold is not None
    channel.hold.set()
    await asyncio.gather(*flood)
    assert len(channel.asked) == WAITING_LIMIT  # one small question for each, never more
    assert channel.most == FORWARDING_LIMIT


async def test_a_member_that_does_not_answer_keeps_only_its_own_requests_waiting() -> None:
    answers = asyncio.Event()
    asked: list[str | None] = []

    async def ask(*_: object, node: str | None = None) -> bytes:
        asked.append(node)
        if node == "wren":
            await answers.wait()
        return b""

    of_us = cancels({}, ask)
    stuck = [asyncio.create_task(of_us.request(CancelRequest(key_of("wren", n), SECRET))) for n in range(100)]
    await turns()
    await of_us.request(CancelRequest(key_of("finch"), SECRET))
    assert asked == [*["wren"] * FORWARDING_LIMIT, "finch"]
    for one in stuck[:50]:  # clients that give up
        one.cancel()
    answers.set()
    await asyncio.gather(*stuck, return_exceptions=True)
    assert asked.count("wren") == FORWARDING_LIMIT + 50
