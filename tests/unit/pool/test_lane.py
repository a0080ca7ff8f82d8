"""Who owns which byte of a lane: riders, model servers and everything that can go wrong, in any order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fakes.lane_riders import Client, Holder, Unit, without_notices
from fakes.lane_stage import HOSTILE, LAST_WORDS, ORDINARY, LaneServer, LaneStage, error
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from node.client.parameters import NONE, parameters
from node.client.prepared import PreparedStatements
from node.pool.lane import CROWD_MAX, Lane
from node.pool.lanes import ABANDONED_S, LOOK_EVERY_S, SLOW_S
from node.pool.rider import riders_of
from node.server.connection import Lost, ServerConnection
from node.wire import messages as m

RIDERS = 6
OTHERS = parameters({"search_path": "other"})


riders = st.integers(0, RIDERS - 1)
hows = st.sampled_from(("query", "query", "unnamed", "named", "named"))
kinds = st.sampled_from(ORDINARY * 4 + HOSTILE + LAST_WORDS)
statements = st.sampled_from((b"SELECT a", b"SELECT b", b"SELECT c", b"SELECT bad"))


class Lanes(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.stage = LaneStage(size=3, min_size=3, prepared_limit=2)
        self.prepared = PreparedStatements(10)
        self.clients = [Client(self.stage, number) for number in range(RIDERS)]
        self.holders = [Holder(), Holder()]
        self.cancelling: list[ServerConnection] = []
        self.units = 0

    def unit(self, who: bytes, how: str, text: bytes) -> Unit:
        prepared = self.prepared.use(text, b"\0\0", "")
        return Unit(who, how, prepared)

    def server(self, pick: int) -> LaneServer | None:
        return self.stage.servers[pick % len(self.stage.servers)] if self.stage.servers else None

    # --- clients ---------------------------------------------------------------------------------------------------

    @rule(number=riders, how=hows, kind=kinds, text=statements)
    def board(self, number: int, how: str, kind: str, text: bytes) -> None:
        client = self.clients[number]
        self.units += 1
        unit = self.unit(b"SELECT %d %d %s" % (number, self.units, kind.encode()), how, text)
        if client.unit is not None:
            client.next.append(unit)
        elif not client.writing_paused:
            client.take(unit)

    @rule(numbers=st.sets(riders, min_size=2), how=hows, kind=kinds, text=statements)
    def crowd(self, numbers: set[int], how: str, kind: str, text: bytes) -> None:
        """The same unit, by several."""
        self.units += 1
        who = b"SELECT hot %d %s" % (self.units % 2, kind.encode())
        for number in sorted(numbers):
            client = self.clients[number]
            if client.unit is None and not client.writing_paused:
                client.take(self.unit(who, how, text))

    @rule(number=riders)
    def leave(self, number: int) -> None:
        client = self.clients[number]
        if client.unit is not None:
            client.next.clear()
            client.leave()

    @rule(number=riders)
    def cancel(self, number: int) -> None:
        """As Session.cancellable."""
        client = self.clients[number]
        lane = client.lane
        if lane is None or client.unit is None:
            return
        if lane.is_alone_at_front(client):
            client.cancelled = True
            lane.make_way()
            lane.server.cancelling += 1
            self.cancelling.append(lane.server)
        elif lane.may_leave(client):
            assert without_notices(client.heard) == b"", "an error now would stand in the middle of an answer"
            client.leave()

    @rule()
    def the_cancel_request_arrives(self) -> None:
        if self.cancelling:
            server = self.cancelling.pop(0)
            if server.closed_why is None:
                self.stage.pool.model(server).cancel()
            self.stage.pool.end_cancel(server)

    @rule(number=riders)
    def stop_reading(self, number: int) -> None:
        self.clients[number].reads = False

    @rule(number=riders)
    def read_on(self, number: int) -> None:
        self.clients[number].resume()

    @rule(number=riders)
    def settings_change(self, number: int) -> None:
        client = self.clients[number]
        if client.unit is None:
            client.parameters = OTHERS if client.parameters is NONE else NONE

    @rule()
    def strand(self) -> None:
        """Who found no lane tries again."""
        for client in self.clients:
            if client.unit is not None and client.lane is None:
                client.ride()

    # --- servers and the loop --------------------------------------------------------------------------------------

    @rule()
    def turn(self) -> None:
        self.stage.turn()

    @rule(pick=st.integers(0, 3), size=st.sampled_from((1, 3, 5, 6, 9, 20, 60, 200, 1000, 10_000)))
    def deliver(self, pick: int, size: int) -> None:
        server = self.server(pick)
        if server is not None and server.reading:
            server.deliver(size)

    @rule(pick=st.integers(0, 3), how=st.sampled_from(("silent", "shut down", "closed by us")))
    @precondition(lambda self: self.units > 3)
    def die(self, pick: int, how: str) -> None:
        server = self.server(pick)
        if server is None:
            return
        if how == "silent":
            server.die()
        elif how == "shut down":
            server.shut_down()
        else:
            server.close()

    @rule(seconds=st.sampled_from((LOOK_EVERY_S, SLOW_S * 1.1, ABANDONED_S * 1.1)))
    def pass_time(self, seconds: float) -> None:
        self.stage.pass_time(seconds)

    @rule()
    def keep_house(self) -> None:
        self.stage.keep_house()
        self.stage.pool.tick(self.stage.now)

    @rule(pick=st.integers(0, 3), other=st.booleans())
    def settings_of_an_idle_server(self, pick: int, other: bool) -> None:
        idle = self.stage.pool.core.idle
        if idle:
            idle[pick % len(idle)].parameters = OTHERS if other else NONE

    # --- the pool --------------------------------------------------------------------------------------------------

    @rule(pick=st.integers(0, 1))
    def hold(self, pick: int) -> None:
        holder, pool = self.holders[pick], self.stage.pool
        if holder.server is None and holder.waiter is None:
            server = pool.acquire(pool.clock())
            if server is not None:
                holder.granted(server)
            else:
                holder.waiter = pool.wait(holder)

    @rule(pick=st.integers(0, 1))
    def let_go(self, pick: int) -> None:
        holder, pool = self.holders[pick], self.stage.pool
        if holder.server is not None:
            server, holder.server = holder.server, None
            pool.release(server)
        elif holder.waiter is not None:
            pool.forget(holder.waiter)
            holder.waiter = None

    @rule()
    def reconnect(self) -> None:
        self.stage.pool.reconnect()

    @rule()
    def doubt(self) -> None:
        self.stage.pool.doubt_statements()

    @rule(how=st.sampled_from((1, 2, 3, "auto", "off")), size=st.sampled_from((2, 3)), coalesce=st.booleans())
    def configure(self, how: int | str, size: int, coalesce: bool) -> None:
        pool = self.stage.pool
        pool.take_settings(replace(pool.settings, lanes=how, size=size, coalesce=coalesce))

    @rule()
    def pause(self) -> None:
        self.stage.pool.pause()

    @rule()
    def resume(self) -> None:
        self.stage.pool.resume()

    # --- what must always be so ------------------------------------------------------------------------------------

    @invariant()
    def books_are_right(self) -> None:
        pool = self.stage.pool
        for server in pool.core.idle:
            assert server.owner is None
            assert server.pipeline.idle()
            assert not server.pipeline.shared
            assert server not in pool.core.lent
        active = [] if pool.lanes is None else pool.lanes.active
        for lane in active:
            assert lane.server.owner is lane
            assert lane.server in pool.core.lent
            assert lane.pipeline.shared
            model = pool.model(lane.server)
            if not model.dead and not model.deaf and lane.server.closed_why is None:
                waiting = {id(said.run): said.run for said in model.said if said.run.ended}
                assert lane.depth >= 1
                if not any(run.who.endswith(b"twice") for run in waiting.values()):
                    assert lane.depth == len(waiting) + len(lane.outbox)
        for client in self.clients:
            lane = client.lane  # type: ignore[assignment]
            if lane is None or lane.server.closed_why is not None:
                continue
            owners = lane.pipeline.all_owners()
            places = [owner for owner in owners if owner is client or (isinstance(owner, list) and client in owner)]
            assert len(places) == 1, (client.number, owners)
            if lane.front is None or places[0] is not lane.front:
                assert client.heard == b""

    @invariant()
    def statements_believed_known_are_known(self) -> None:
        for server in self.stage.servers:
            if server.dead or server.deaf or server.connection.closed_why is not None:
                continue
            for number, surely in server.connection.prepared.items():
                assert not surely or b"__pgmurmur_%d" % number in server.statements

    def teardown(self) -> None:
        stage, pool = self.stage, self.stage.pool
        for holder in self.holders:
            if holder.server is not None:
                server, holder.server = holder.server, None
                pool.release(server)
        self.configure("auto", 3, True)
        pool.resume()
        for _ in range(200):
            stage.turn()
            while self.cancelling:
                self.the_cancel_request_arrives()
            for client in self.clients:
                client.resume()
            for model in list(stage.servers):
                if model.reading:
                    model.deliver(1 << 20)
            stage.pass_time(LOOK_EVERY_S)
            stage.keep_house()
            pool.tick(stage.now)
            for holder in self.holders:
                if holder.server is not None:
                    server, holder.server = holder.server, None
                    pool.release(server)
            for server in pool.core.idle:
                server.parameters = NONE
            for client in self.clients:
                if client.lane is None and client.unit is not None:
                    client.parameters = NONE
                    client.ride()
                elif client.unit is None and client.next:
                    client.take(client.next.pop(0))
            self.books_are_right()
            self.statements_believed_known_are_known()
        for client in self.clients:
            note(f"{client.number} {client.ends}")
            assert client.unit is None, (client.number, client.unit.who if client.unit else None, "never ended")
            assert len(client.ends) == client.boarded
        assert pool.lanes is not None
        assert pool.lanes.active == []
        assert not pool.core.lent
        assert not stage.tasks
        stage.stop()


Lanes.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLanes = Lanes.TestCase


# --- one thing at a time ---------------------------------------------------------------------------------------------


class Scene:
    """Riders on a pool of `size` servers, a fixed number of them lanes."""

    def __init__(self, size: int = 3, lanes: int = 1, **chosen: Any) -> None:
        self.stage = LaneStage(size=size, min_size=size, lanes=lanes, **chosen)
        self.prepared = PreparedStatements(100)
        assert self.stage.pool.lanes is not None
        self.lanes = self.stage.pool.lanes

    def rider(self, who: bytes, how: str = "query", text: bytes = b"SELECT a") -> Client:
        client = Client(self.stage, 0)
        client.take(Unit(who, how, self.prepared.use(text, b"\0\0", "")))
        return client

    def riders(self, *names: str) -> list[Client]:
        found = [self.rider(b"SELECT %s one" % name.encode()) for name in names]
        assert all(client.lane is not None for client in found)
        return found

    def lane(self, client: Client) -> Lane:
        assert client.lane is not None
        return client.lane

    def model(self, client: Client) -> LaneServer:
        return self.stage.pool.model(self.lane(client).server)

    def finish(self) -> None:
        for _ in range(3):
            self.stage.turn()
            for model in list(self.stage.servers):
                if model.reading:
                    model.deliver(1 << 20)
            self.stage.keep_house()

    def look(self) -> None:
        """Until a front counts as slow and was seen."""
        for _ in range(int(SLOW_S / LOOK_EVERY_S) + 2):
            self.stage.pass_time(LOOK_EVERY_S)


def test_a_crowd_has_a_limit_and_who_comes_then_is_another_unit() -> None:
    scene = Scene()
    clients = scene.riders(*["same"] * (1 + CROWD_MAX + 2))  # nobody waits for the turn's end before the first
    lane = scene.lane(clients[0])
    assert [len(riders_of(each)) for each in lane.pipeline.all_owners()] == [1, CROWD_MAX, 2]
    assert scene.stage.pool.counters.lane_coalesced == CROWD_MAX
    scene.finish()
    assert all(client.lane is None for client in clients)


def test_what_a_crowd_has_left_altogether_is_abandoned_as_any_other() -> None:
    scene = Scene()
    clients = scene.riders("same", "same")
    lane = scene.lane(clients[0])
    scene.stage.turn()
    for client in clients:
        client.leave()
    for _ in range(int(ABANDONED_S / LOOK_EVERY_S) + 2):
        scene.stage.pass_time(LOOK_EVERY_S)
    assert lane not in scene.lanes.active
    assert lane.server.owner is not lane


@pytest.mark.parametrize("close", ["for others", "for settings that changed"])
def test_nobody_waits_behind_a_slow_front_of_a_lane_that_is_closed(close: str) -> None:
    scene = Scene()
    slow, behind = scene.riders("slow", "behind")
    lane = scene.lane(slow)
    scene.stage.turn()
    if close == "for others":
        lane.server_pause()
    else:
        scene.lanes.close()
    scene.look()
    assert behind.lane is not None
    assert behind.lane is not lane
    scene.stage.turn()
    scene.model(behind).deliver(1 << 20)
    assert behind.ends == ["answered"]
    scene.finish()
    assert slow.ends == ["answered"]


def test_without_another_connection_they_stay_behind_a_slow_front() -> None:
    scene = Scene(size=1)
    slow, behind = scene.riders("slow", "behind")
    scene.stage.turn()
    scene.look()
    assert behind.lane is slow.lane is not None
    scene.finish()
    assert (slow.ends, behind.ends) == (["answered"], ["answered"])


@pytest.mark.parametrize("size", [40, 1 << 20])
def test_an_answer_to_what_was_not_sent_yet_is_none(size: int) -> None:
    for how in ("query", "unnamed"):
        scene = Scene()
        client = scene.rider(b"SELECT early one", how)
        lane = scene.lane(client)
        model = scene.model(client)
        scene.stage.turn()
        answer = b"".join(said.data for said in model.said)
        scene.finish()
        scene.lanes.watch()  # busy lanes send when the turn ends
        early = scene.rider(b"SELECT early one", how)
        assert early.lane is lane
        lane.server.receive(m.notice("at any time"))
        assert lane.server.closed_why is None
        lane.server.receive(answer[:size])
        assert early.ends == ["alone"]
        assert lane.server.closed_why is not None


def test_a_lane_begins_anew_with_what_its_connection_knows() -> None:
    scene = Scene()
    client = scene.rider(b"SELECT 1 one", "named", b"SELECT bad")
    lane = scene.lane(client)
    (number,) = lane.unsure
    scene.stage.turn()
    client.leave()
    lane.lanes.abandon(lane)
    scene.finish()
    assert lane.server in scene.stage.pool.core.idle
    lane.server.prepared[number] = False  # as after an error in somebody's transaction
    other = scene.rider(b"SELECT 2 one", "named", b"SELECT b")
    assert other.lane is lane
    scene.finish()
    assert other.ends == ["answered"]
    assert lane.server.prepared[number] is False


def test_doubts_that_come_while_a_statement_is_made_known_stay() -> None:
    scene = Scene()
    client = scene.rider(b"SELECT 1 one", "named", b"SELECT a")
    lane = scene.lane(client)
    scene.stage.turn()
    scene.stage.pool.doubt_statements()
    scene.finish()
    assert client.ends == ["answered"]
    assert list(lane.server.prepared.values()) == [False]
    again = scene.rider(b"SELECT 2 one", "named", b"SELECT a")
    scene.finish()
    assert again.ends == ["answered"]
    assert list(lane.server.prepared.values()) == [True]


def test_a_lower_limit_of_statements_does_not_fill_the_queue_of_replies() -> None:
    scene = Scene()
    texts = [b"SELECT p%d" % number for number in range(60)]
    for text in texts:
        scene.rider(b"SELECT 1 one", "named", text)
        scene.finish()
    lane = scene.lanes.pool.core.idle[-1].lane
    assert isinstance(lane, Lane)
    known = lane.server.prepared
    assert len(known) == 60
    scene.lanes.prepared_limit = 3
    room = lane.pipeline.room()
    for text in texts[:30]:
        client = scene.rider(b"SELECT 2 one", "named", text + b" more")
        assert client.lane is lane
        before, room = room, lane.pipeline.room()
        assert before - room <= 8
        scene.finish()
        room = lane.pipeline.room()
        assert client.ends == ["answered"]
    assert len(known) <= 3


@pytest.mark.parametrize(("code", "end"), [("57P01", "answered"), ("57P02", "answered"), ("XX000", "alone")])
def test_a_front_is_to_blame_for_last_words_unless_an_operator_is(code: str, end: str) -> None:
    scene = Scene()
    front, behind = scene.riders("a", "b")
    scene.stage.turn()
    scene.lane(front).server.receive(error("FATAL", code))
    scene.finish()
    assert front.ends == [end]
    assert behind.ends == ["answered"]


def test_a_pool_grows_to_as_many_connections_as_may_be_lanes() -> None:
    scene = Scene(size=3, lanes=2)
    for idle in list(scene.stage.pool.core.idle)[:2]:
        idle.close(Lost.IDLE_TIMEOUT)
    scene.stage.keep_house()
    first, second = scene.riders("a", "b")
    assert first.lane is second.lane
    scene.stage.pass_time(LOOK_EVERY_S)
    assert scene.stage.pool.core.total == 2
    (third,) = scene.riders("c")
    assert third.lane is not first.lane
    scene.stage.pass_time(LOOK_EVERY_S)
    assert scene.stage.pool.core.total == 2
    scene.finish()
    assert first.ends == second.ends == third.ends == ["answered"]


def test_a_lane_that_is_never_empty_ends_when_there_are_too_many() -> None:
    scene = Scene(size=3, lanes=3)
    clients = scene.riders(*"abcdef")
    scene.stage.turn()
    assert len(scene.lanes.active) == 3
    scene.lanes.count.limit(1, 3)
    scene.stage.pass_time(LOOK_EVERY_S)
    assert sum(lane.open for lane in scene.lanes.active) == 1
    more = scene.riders("x", "y")
    assert more[0].lane is more[1].lane
    scene.finish()
    assert all(client.ends == ["answered"] for client in (*clients, *more))


def test_a_lane_that_is_never_empty_ends_when_its_pool_shrinks() -> None:
    scene = Scene(size=3, lanes=3)
    scene.riders(*"abc")
    scene.stage.pool.core.size = 2
    scene.lanes.retire(scene.stage.now)
    assert sum(lane.open for lane in scene.lanes.active) == 2
    scene.lanes.retire(scene.stage.now)
    assert sum(lane.open for lane in scene.lanes.active) == 2, "one of them ends already"
    scene.finish()
    assert scene.stage.pool.core.total == 2


def test_who_waits_for_a_whole_connection_does_not_wait_for_a_slow_front() -> None:
    scene = Scene(size=2, lanes=2)
    slow, other = scene.riders("slow", "other")
    assert slow.lane is not other.lane
    scene.stage.turn()
    scene.lane(slow).open = False
    scene.stage.pass_time(SLOW_S * 2)
    holder = Holder()
    holder.waiter = scene.stage.pool.wait(holder)
    more = scene.rider(b"SELECT more one")
    assert more.lane is None, "it queues up behind the one who waits"
    scene.model(other).deliver(1 << 20)
    assert other.ends == ["answered"]
    assert holder.server is not None
    scene.stage.stop()


def test_who_leaves_while_a_crowd_is_told_hears_no_more() -> None:
    scene = Scene()
    clients = scene.riders("same", "same", "same")
    first, second, third = clients
    first.next.append(Unit(b"SELECT next one", "query", None))
    take = first.take

    def take_and_send_away(unit: Unit) -> None:
        second.leave()
        take(unit)

    first.take = take_and_send_away  # type: ignore[method-assign]
    scene.finish()
    assert first.ends == ["answered", "answered"]
    assert second.ends == ["left"]
    assert third.ends == ["answered"]


def test_who_leaves_while_others_are_put_off_is_not() -> None:
    for heard in (False, True):
        scene = Scene()
        front, second, third = scene.riders("a", "b", "c")
        ride = second.ride

        def ride_and_send_away(ride: Any = ride, third: Client = third) -> None:
            third.leave()
            ride()

        second.ride = ride_and_send_away  # type: ignore[method-assign]
        scene.stage.turn()
        if heard:
            scene.model(front).deliver(40)
        scene.model(front).die()
        scene.finish()
        assert front.ends == ["lost" if heard else "alone"]
        assert second.ends == ["answered"]
        assert third.ends == ["left"]


def test_who_leaves_a_crowd_between_last_words_and_the_end_is_not_put_off() -> None:
    scene = Scene()
    clients = [scene.rider(b"SELECT same late") for _ in range(3)]
    lane = scene.lane(clients[0])
    scene.stage.turn()
    scene.model(clients[0]).deliver(1 << 20)
    assert lane.server.closed_why is not None
    clients[1].leave()
    clients[1].take(Unit(b"SELECT next one", "query", None))
    scene.finish()
    assert clients[1].ends == ["left", "answered"]
    assert clients[0].sent_again == clients[2].sent_again > 0


def test_a_unit_that_boards_where_another_one_has_just_left_is_sent() -> None:
    scene = Scene()
    (one,) = scene.riders("same")
    one.leave()
    (two,) = scene.riders("same")
    scene.finish()
    assert two.ends == ["answered"]
