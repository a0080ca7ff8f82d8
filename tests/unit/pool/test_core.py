"""Lending without a socket: who gets a connection, who waits, how many are opened."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from node.client.parameters import NONE
from node.errors import ServerFault
from node.pool.balancer import Balancer
from node.pool.core import PoolCore, Waiter
from node.pool.health import HealthTracker
from node.pool.pool import Pool, PoolSettings, Surroundings
from node.server.connect import Target
from node.server.connection import Lost, ServerConnection


def server() -> ServerConnection:
    return ServerConnection(0, None, NONE, 0.0)


class Client:
    """Somebody who waits; `got` is what it was granted."""

    def __init__(self) -> None:
        self.got: list[ServerConnection] = []
        self.refusals: list[Exception] = []

    def granted(self, server: ServerConnection) -> None:
        self.got.append(server)

    def refused(self, fault: Exception) -> None:
        self.refusals.append(fault)


def stocked(size: int) -> tuple[PoolCore, list[ServerConnection]]:
    core = PoolCore(size)
    made = [server() for _ in range(size)]
    for one in made:
        core.connecting += 1
        assert core.opened(one) is None
    return core, made


def test_the_warmest_is_lent_first() -> None:
    core, made = stocked(3)
    assert [core.acquire() for _ in range(4)] == [made[2], made[1], made[0], None]
    assert core.released(made[1]) is None
    assert core.acquire() is made[1]


def test_nobody_overtakes_who_waits() -> None:
    core, made = stocked(1)
    assert core.acquire() is made[0]
    first, second = core.wait(Client(), 1.0), core.wait(Client(), 2.0)
    assert core.released(made[0]) is first
    assert core.acquire() is None
    core.forget(second)
    assert core.waiting() == 0
    assert core.released(made[0]) is None
    assert core.acquire() is made[0]


def test_a_paused_pool_lends_nothing() -> None:
    core, made = stocked(1)
    core.paused = True
    assert core.acquire() is None
    waiter = core.wait(Client(), 0.0)
    core.paused = False
    assert core.acquire() is None, "somebody came first"
    assert core.first_waiter() is waiter
    assert core.acquire() is made[0]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 4), st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=60))
def test_counts_are_right_whatever_happens(size: int, steps: list[tuple[int, int]]) -> None:
    core = PoolCore(size)
    waiters: list[Waiter] = []
    served: list[Waiter] = []
    for step, pick in steps:
        lent = list(core.lent)
        if step == 0:
            if core.acquire() is None:
                waiters.append(core.wait(Client(), 0.0))
        elif step == 1 and lent:
            if waiter := core.released(lent[pick % len(lent)]):
                served.append(waiter)
        elif step == 2:
            core.connecting += core.wanted(1, 2)
        elif step == 3 and core.connecting:
            if waiter := core.opened(server()):
                served.append(waiter)
        elif step == 4 and lent:
            core.removed(lent[pick % len(lent)])
        elif step == 5 and (there := [waiter for waiter in waiters if waiter not in served]):
            gone = there[pick % len(there)]
            waiters.remove(gone)
            core.forget(gone)
        assert core.total <= size
        assert not set(core.idle) & set(core.lent)
        assert not (core.idle and core.waiting()), "an idle connection beside a client that waits"
        assert not any(waiter.gone for waiter in served)
        assert core.waiting() == sum(not waiter.gone for waiter in core.waiters)
    left = [waiter for waiter in waiters if waiter not in served]
    assert core.waiting() == len(left)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=40))
def test_who_waits_is_counted_whoever_takes_him_out(steps: list[tuple[int, int]]) -> None:
    core = PoolCore(0)
    made: list[Waiter] = []
    for step, pick in steps:
        if step == 0 or not made:
            made.append(core.wait(Client(), 0.0))
        elif step == 1:
            core.forget(made[pick % len(made)])  # in the middle, again, or long after his turn
        elif step == 2:
            core.first_waiter()
        elif step == 3 and core.waiters:
            core.waiters.popleft().gone = True  # as a lane or a time-out does it
        elif step == 4 and (answered := core.first_waiter()) is not None:
            answered.gone = True
            core.forget(answered)
        assert core.waiting() == sum(not waiter.gone for waiter in core.waiters)


def test_bans_end_with_time_and_a_success() -> None:
    health = HealthTracker()
    health.failed("down", 10.0, 5.0, may_ban=True)
    assert health.banned(12.0)
    assert health.banned(16.0), "no success since"
    health.succeeded()
    assert health.banned(12.0)
    assert not health.banned(15.0)
    health.failed("down", 10.0, 5.0, may_ban=False)
    assert not health.banned(11.0), "a primary has no stand-in"
    health.ban_by_hand()
    health.succeeded()
    assert health.banned(1e9)
    health.unban()
    assert not health.banned(1e9)


def test_a_ban_asks_for_a_trial_once_its_time_is_up() -> None:
    health = HealthTracker()
    assert not health.trial_due(10.0)
    health.failed("refused", 10.0, 5.0, may_ban=True)
    assert not health.trial_due(14.9)
    assert health.trial_due(15.0)
    health.succeeded()
    assert not health.trial_due(15.0), "it may serve again"
    health.ban_by_hand()
    health.failed("refused", 20.0, 5.0, may_ban=True)
    assert not health.trial_due(1e9), "only UNBAN lifts it"


# --- the shell, with a clock and a spawn of our own -----------------------------------------------------------------


class House:
    """What a pool stands on in a test: nothing runs until `run` is called."""

    def __init__(self, **chosen: object) -> None:
        self.now = 0.0
        self.spawned = 0
        self.runs = True
        around = Surroundings(
            open=self._open,
            clock=lambda: self.now,
            random=random.Random(1),
            spawn=self._spawn,
            no_parameters=NONE,
            soon=lambda call: call(),
            later=lambda after_s, call: None,
        )
        target = Target(host="h", port=1, database="d", user="u")
        self.pool = Pool(target, PoolSettings(**chosen), around, user="u", database="d")  # type: ignore[arg-type]

    async def _open(self, target: Target, connection: ServerConnection, timeout_s: float) -> None:
        connection.write = lambda data: None
        connection.close_transport = lambda: None

    def _spawn(self, work: object) -> None:
        self.spawned += 1
        if not self.runs:
            work.close()  # type: ignore[attr-defined]
            return
        try:
            work.send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        work.close()  # type: ignore[attr-defined]


def test_waiting_ends_at_the_checkout_timeout_but_a_pause_does_not_count() -> None:
    house = House(size=1, checkout_timeout_s=5.0)
    pool, patient = house.pool, Client()
    pool.tick(0.0)
    holder = pool.acquire(pool.clock())
    assert holder is not None
    pool.wait(patient)
    house.now = 4.0
    pool.pause()
    house.now = 100.0
    pool.tick(house.now)
    assert not patient.refusals
    pool.resume()
    house.now = 104.0
    pool.tick(house.now)
    assert not patient.refusals
    house.now = 106.0
    pool.tick(house.now)
    (fault,) = patient.refusals
    assert isinstance(fault, ServerFault)
    assert fault.sqlstate == "58000"
    pool.release(holder)
    assert not patient.got, "never granted after it was refused"


def test_a_connection_that_is_closed_is_lent_to_nobody() -> None:
    house = House(size=2)
    house.pool.tick(0.0)
    (idle,) = house.pool.core.idle
    idle.close(Lost.SERVER_CLOSED)
    assert house.pool.acquire(house.pool.clock()) is None


def test_a_connection_with_a_cancel_request_on_its_way_is_lent_to_nobody() -> None:
    house = House(size=1)
    house.pool.tick(0.0)
    for give_back in (house.pool.release, lambda s: house.pool.take_back(s, 0.0)):
        lent = house.pool.acquire(house.pool.clock())
        assert lent is not None
        lent.cancelling += 1
        give_back(lent)
        assert house.pool.acquire(house.pool.clock()) is None
        lent.cancelling -= 1
        house.pool._held.clear()
        house.pool.release(lent)


def test_a_connection_long_unused_is_checked_before_it_is_lent() -> None:
    house = House(size=1, healthcheck_interval_s=30.0)
    house.pool.tick(0.0)
    house.now = 29.0
    lent = house.pool.acquire(house.pool.clock())
    assert lent is not None
    house.pool.release(lent)
    house.now = 60.0
    before, house.runs = house.spawned, False
    assert house.pool.acquire(house.pool.clock()) is None
    assert house.spawned == before + 1


def test_the_coldest_are_closed_when_idle_for_long_and_the_minimum_stays() -> None:
    house = House(size=4, min_size=3, idle_timeout_s=10.0)
    house.pool.tick(0.0)
    assert len(house.pool.core.idle) == 3
    house.pool.settings = PoolSettings(size=4, min_size=1, idle_timeout_s=10.0)
    warm = house.pool.core.idle[-1]
    house.now = 11.0
    lent = house.pool.acquire(house.pool.clock())
    assert lent is warm
    house.pool.release(lent)
    house.pool.tick(house.now)
    assert house.pool.core.idle == [warm]


def test_reads_are_spread_and_bans_respected() -> None:
    house, other, primary = House(), House(), House()
    replicas = [house.pool, other.pool]
    balancer = Balancer(
        primary.pool, replicas, strategy="round_robin", split="exclude_primary", random=random.Random(1)
    )
    assert {balancer.read(0.0) for _ in range(4)} == set(replicas)
    house.pool.health.ban_by_hand()
    assert {balancer.read(0.0) for _ in range(4)} == {other.pool}
    assert balancer.write() is primary.pool
    weighted = Balancer(
        None,
        replicas,
        strategy="weighted_round_robin",
        split="include_primary",
        random=random.Random(1),
        weights=[1, 3],
    )
    house.pool.health.unban()
    turns = [weighted.read(0.0) for _ in range(8)]
    assert turns.count(other.pool) == 6


def test_who_is_refused_may_wait_again_and_give_up_for_others() -> None:
    house = House(size=1)
    pool = house.pool
    pool.tick(0.0)
    assert pool.acquire(pool.clock()) is not None
    again, other = Client(), Client()

    class Stubborn(Client):
        def refused(self, fault: Exception) -> None:
            super().refused(fault)
            pool.wait(again)
            pool.forget(others)

    stubborn = Stubborn()
    pool.wait(stubborn)
    others = pool.wait(other)
    assert others is not None
    pool.refuse_waiters(ServerFault("gone", sqlstate="58000"))
    assert [len(client.refusals) for client in (stubborn, other, again)] == [1, 0, 0]
    assert pool.core.waiting() == 1
    assert [waiter.borrower for waiter in pool.core.waiters if not waiter.gone] == [again]
