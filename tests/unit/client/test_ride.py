"""One shard's part of a read on a lane: what is handed on, what is sent again, and what is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from fakes.session_stage import Stage, StagePool

from node.client.enlist import Shards
from node.client.parameters import NONE
from node.client.ride import HELD_BYTES, Ride, Rides
from node.errors import ClientFault, Fault, ServerFault
from node.pool.lane_count import LaneCount
from node.pool.lanes import Lanes
from node.pool.pool import Pool
from node.server.connection import ServerConnection
from node.server.conversation import BUFFERED_BYTES, Conversation
from node.wire import messages as m


class Session:
    parameters = NONE


class OneShard:
    """As much of `Shards` as a ride needs: its session's settings, and whole connections."""

    def __init__(self, pool: StagePool) -> None:
        self.session = Session()
        self.pool = pool
        self.talks: dict[int, Conversation] = {}
        self.asked = asyncio.Event()
        self.given = asyncio.Event()

    async def get(self, shards: tuple[int, ...], *, read: bool) -> list[Conversation]:
        self.asked.set()
        await self.given.wait()
        server = self.pool.acquire(self.pool.clock())
        assert server is not None
        talk = self.talks[shards[0]] = Conversation(server)
        return [talk]

    def release(self, shard: int) -> None:
        self.pool.release(self.talks.pop(shard).end())


class Scene:
    """Lanes of a pool whose servers are models; `turn` ends a turn of the event loop and delivers what they say."""

    def __init__(self, servers: int = 2, lanes: int = 1) -> None:
        self.stage = Stage(servers)
        self.pool = self.stage.pool
        self.soon: list[Callable[[], None]] = []
        self.lanes = self.pool.lanes = Lanes(
            cast(Pool, self.pool), LaneCount(lanes, servers), soon=self.soon.append,
            later=lambda delay_s, call: None, clock=lambda: self.stage.now,
        )  # fmt: skip
        self.shards = OneShard(self.pool)

    def ride(self, sql: bytes = b"SELECT 1") -> Ride:
        lane = self.lanes.choose(NONE, self.lanes.clock())
        assert lane is not None
        ride = Ride(cast(Shards, self.shards), 0, cast(Pool, self.pool), lane, read=True)
        ride.send_extended(sql)
        return ride

    def flush(self) -> None:
        calls, self.soon[:] = list(self.soon), []
        for call in calls:
            call()

    def turn(self) -> None:
        self.flush()
        self.stage.settle()

    def cut(self, size: int) -> ServerConnection:
        """Only the first bytes of what a server has just said arrive."""
        self.flush()
        server, data = self.stage.said.pop(0)
        self.stage.said.insert(0, (server, data[:size]))
        self.stage.settle()
        return server

    def kill(self, server: ServerConnection) -> None:
        server.lost(ServerFault("server closed the connection unexpectedly", sqlstate="08006", severity="FATAL"))

    def assert_nothing_left(self) -> None:
        assert self.lanes.active == []
        assert not self.pool.core.lent


async def all_of(ride: Ride) -> list[tuple[str, bytes]]:
    async with asyncio.timeout(5):
        found = [await ride.next()]
        while found[-1][0] != ord("Z"):
            found.append(await ride.next())
    return [(chr(letter), body) for letter, body in found]


def row(sql: bytes) -> tuple[str, bytes]:
    return "D", m.data_row([sql])[5:]


async def test_two_ride_one_behind_the_other_and_each_hears_its_own() -> None:
    scene = Scene()
    first, second = scene.ride(b"SELECT 1"), scene.ride(b"SELECT 2")
    assert first.lane is second.lane
    scene.turn()
    for ride, sql in ((first, b"SELECT 1"), (second, b"SELECT 2")):
        said = await all_of(ride)
        assert "".join(letter for letter, _ in said) == "12nDCZ"
        assert said[3] == row(sql)
        assert ride.size > 0
    scene.assert_nothing_left()


async def test_half_a_reply_of_a_server_that_dies_is_forgotten() -> None:
    scene = Scene()
    ride = scene.ride()
    scene.kill(scene.cut(14))
    assert scene.pool.counters.lane_resent_lost == 1
    # it may have been the reason: it goes on alone
    reading = asyncio.ensure_future(all_of(ride))
    await scene.shards.asked.wait()
    scene.shards.given.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    scene.turn()
    assert [letter for letter, _ in await reading] == list("12nDCZ")
    scene.assert_nothing_left()


async def test_those_behind_a_server_that_dies_board_another_lane() -> None:
    scene = Scene(3)
    first, second = scene.ride(b"SELECT 1"), scene.ride(b"SELECT 2")
    before = second.lane
    assert before is not None
    scene.flush()
    scene.stage.said.clear()
    scene.kill(before.server)
    assert first.lane is None
    assert second.lane is not None
    assert second.lane.server is not before.server
    scene.turn()
    assert row(b"SELECT 2") in await all_of(second)
    first.hurry()
    scene.assert_nothing_left()


async def test_a_server_that_says_why_it_ends_blames_nobody() -> None:
    scene = Scene()
    ride = scene.ride()
    lane = ride.lane
    assert lane is not None
    scene.flush()
    scene.stage.said.clear()
    last = m.error_response(ServerFault("terminating connection", sqlstate="57P01", severity="FATAL"))
    lane.server.receive(m.PARSE_COMPLETE + last)
    scene.kill(lane.server)
    scene.turn()
    assert row(b"SELECT 1") in await all_of(ride)
    assert not scene.shards.asked.is_set()
    scene.assert_nothing_left()


async def test_a_ride_of_which_something_was_handed_on_hears_the_loss() -> None:
    scene = Scene()
    ride = scene.ride(b"SELECT '" + b"x" * HELD_BYTES + b"'")
    server = scene.cut(HELD_BYTES + 20)
    assert (await ride.next())[0] == ord("1")
    scene.kill(server)
    with pytest.raises(ServerFault, match="closed the connection"):
        await all_of(ride)
    scene.assert_nothing_left()


async def test_a_server_is_read_no_further_than_its_ride_is() -> None:
    scene = Scene()
    ride = scene.ride(b"SELECT 1")
    scene.flush()
    scene.stage.said.clear()
    assert ride.lane is not None
    server = ride.lane.server
    switches: list[str] = []
    server.pause_reading = lambda: switches.append("pause")
    server.resume_reading = lambda: switches.append("resume")
    many = m.data_row([b"x" * 1000])
    rows = BUFFERED_BYTES // len(many) + 1
    server.receive(m.PARSE_COMPLETE + m.BIND_COMPLETE + m.NO_DATA + many * rows)
    assert switches == ["pause"]
    for _ in range(3 + rows):
        await ride.next()
    assert switches == ["pause", "resume"]
    server.receive(m.command_complete("SELECT 1") + m.ready_for_query(ord("I")))
    assert [letter for letter, _ in await all_of(ride)] == ["C", "Z"]
    scene.assert_nothing_left()


async def test_a_cancelled_ride_at_the_front_leaves_it_to_the_server() -> None:
    scene = Scene()
    first, second = scene.ride(b"SELECT 1"), scene.ride(b"SELECT 2")
    lane = first.lane
    assert lane is not None
    scene.flush()
    assert first.cancel() is lane.server
    assert second.lane is not lane, "nobody is behind one that is about to be cancelled"
    assert not lane.open
    scene.turn()
    assert row(b"SELECT 1") in await all_of(first)
    assert row(b"SELECT 2") in await all_of(second)
    assert first.cancel() is None
    scene.assert_nothing_left()


async def test_a_cancelled_ride_behind_another_is_dropped() -> None:
    scene = Scene()
    first, second = scene.ride(b"SELECT 1"), scene.ride(b"SELECT 2")
    scene.flush()
    assert second.cancel() is None
    with pytest.raises(ClientFault, match="user request") as caught:
        await second.next()
    assert caught.value.sqlstate == "57014"
    scene.turn()
    assert row(b"SELECT 1") in await all_of(first)
    scene.assert_nothing_left()


async def test_a_ride_that_waits_for_a_connection_can_be_cancelled_and_hurried() -> None:
    def cancel(ride: Ride) -> None:
        ride.cancel()

    for end in (cancel, Ride.hurry):
        scene = Scene()
        ride = scene.ride()
        assert ride.lane is not None
        scene.flush()
        scene.stage.said.clear()
        scene.kill(ride.lane.server)
        reading = asyncio.ensure_future(all_of(ride))
        await scene.shards.asked.wait()
        end(ride)
        if end is cancel:
            with pytest.raises(Fault, match="user request"):
                await reading
        else:
            assert await reading == [("Z", b"I")]
        scene.assert_nothing_left()


async def test_a_hurried_ride_ends_and_its_late_reply_is_nobodys() -> None:
    scene = Scene()
    first, second = scene.ride(b"SELECT 1"), scene.ride(b"SELECT 2")
    first.hurry()
    assert await all_of(first) == [("Z", b"I")]
    scene.turn()
    assert row(b"SELECT 2") in await all_of(second)
    scene.assert_nothing_left()


async def test_lanes_are_given_back_when_one_shard_has_none() -> None:
    near, far = Scene(), Scene()
    while far.pool.acquire(far.pool.clock()) is not None:
        pass
    pools = {0: cast(Pool, near.pool), 1: cast(Pool, far.pool)}
    assert Rides.choose(cast(Shards, near.shards), pools, read=True) is None
    near.assert_nothing_left()
    assert len(near.pool.core.idle) == 2
    far.pool.core.lent.clear()
    assert await Rides.wait(cast(Shards, near.shards), pools, read=True) is None, "nobody will give a connection back"
    assert far.pool.counters.lane_full == 1


async def test_a_lane_that_others_leave_is_waited_for() -> None:
    scene = Scene(1)
    server = scene.pool.acquire(scene.pool.clock())
    assert server is not None
    pools = {0: cast(Pool, scene.pool)}
    waiting = asyncio.ensure_future(Rides.wait(cast(Shards, scene.shards), pools, read=True))
    await asyncio.sleep(0)
    assert not waiting.done()
    scene.pool.take_back(server, 0.0)
    chosen = await waiting
    assert chosen is not None
    chosen.end()
    scene.assert_nothing_left()


async def test_rides_that_never_began_leave_others_on_their_lane() -> None:
    scene = Scene()
    other = scene.ride()
    chosen = Rides.choose(cast(Shards, scene.shards), {0: cast(Pool, scene.pool)}, read=True)
    assert chosen is not None
    assert chosen.rides[0].lane is other.lane
    chosen.end()
    scene.turn()
    assert row(b"SELECT 1") in await all_of(other)
    scene.assert_nothing_left()
