"""Time-outs of clients: punctual for everybody, and looked for only where one can be over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from fakes.session_stage import Heard, Stage

from node.catalogs import Catalogs
from node.client.session import Session
from node.client.states import CLOSED, READY
from node.databases import Databases
from node.gate import Reason
from node.janitor import LOOK_AGAIN_S, TICK_S, Janitor
from node.wire import messages as m


class House:
    """A stage whose clients a janitor watches; time passes tick by tick."""

    def __init__(self, servers: int = 1) -> None:
        self.stage = Stage(servers)
        databases = SimpleNamespace(
            by_user={("me", "stage"): self.stage.database}, gates={"stage": self.stage.database.gate}, pools=[]
        )
        self.janitor = Counting(
            self.stage.services, cast(Databases, databases), cast(Catalogs, None), lambda lag_s: None
        )
        self.janitor.tick(self.stage.now)

    def client(self) -> tuple[Session, Heard]:
        session, heard = self.stage.client()
        session.connected_at = session.last_request = self.stage.now
        self.stage.services.sessions[session.id] = session
        self.janitor.watch(session)
        return session, heard

    def say(self, session: Session, sql: str) -> None:
        session.from_client(m.query(sql))
        self.stage.settle()

    def configure(self, **timeouts_s: float) -> None:
        for name, value in timeouts_s.items():
            setattr(self.stage.database, name, value)
        self.stage.services.epoch += 1
        self.stage.database.epoch += 1

    def passes(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.stage.now += TICK_S
            self.janitor.tick(self.stage.now)


class Counting(Janitor):
    looks = 0

    def _look_at(self, session: Session, now: float) -> None:
        self.looks += 1
        super()._look_at(session, now)


def test_without_time_outs_nobody_is_looked_at() -> None:
    house = House()
    clients = [house.client() for _ in range(100)]
    house.passes(60)
    assert house.janitor.looks == 0
    assert all(session.state == READY for session, _ in clients)


def test_idle_clients_end_in_time_and_those_that_speak_stay() -> None:
    house = House()
    house.configure(client_idle_timeout_s=25.0)
    house.passes(1)
    clients = []
    for _ in range(40):
        clients.append(house.client())
        house.passes(0.3)
    speaker, _ = house.client()
    ended = {}
    for _ in range(600):
        house.passes(TICK_S)
        if round(house.stage.now * 10) % 100 == 0:
            house.say(speaker, "SELECT 1")
        for session, heard in clients:
            if session.state == CLOSED and session.id not in ended:
                assert b"C57P05\0Mterminating connection due to client idle timeout\0" in heard
                ended[session.id] = house.stage.now - session.connected_at
    assert len(ended) == len(clients)
    assert all(25.0 < after_s < 25.0 + 3 * TICK_S for after_s in ended.values()), ended
    assert speaker.state == READY


def test_a_transaction_that_stands_still_ends_in_time_however_short_its_time_out() -> None:
    house = House()
    house.configure(client_idle_timeout_s=600.0, idle_in_transaction_timeout_s=2.0)
    house.passes(1)
    session, heard = house.client()
    house.passes(LOOK_AGAIN_S * 0.7)
    house.say(session, "BEGIN")
    house.passes(1.8)
    assert session.state == READY
    house.passes(0.5)
    assert session.state == CLOSED
    assert b"C25P03\0" in heard


def test_another_configuration_counts_at_once() -> None:
    house = House()
    session, _ = house.client()
    house.passes(30)
    assert session.state == READY
    house.configure(client_idle_timeout_s=5.0)
    house.passes(0.2)
    assert session.state == CLOSED, "idle for longer already"
    other, _ = house.client()
    house.passes(3)
    house.configure(client_idle_timeout_s=60.0)
    house.passes(30)
    assert other.state == READY
    house.configure(client_idle_timeout_s=float("inf"))
    house.passes(1)
    looks = house.janitor.looks
    house.passes(60)
    assert (other.state, house.janitor.looks) == (READY, looks)


def test_ten_thousand_idle_clients_are_looked_at_seldom_and_never_all_at_once() -> None:
    house = House()
    house.configure(client_idle_timeout_s=3600.0)
    house.passes(1)
    for _ in range(10_000):
        house.client()
    most, before = 0, house.janitor.looks
    for _ in range(600):
        house.passes(TICK_S)
        most = max(most, house.janitor.looks - before)
        before = house.janitor.looks
    assert most <= 1_250
    assert house.janitor.looks <= 10_000 * 60 / (LOOK_AGAIN_S / 2)


def test_clients_that_left_are_forgotten() -> None:
    house = House()
    house.configure(client_idle_timeout_s=3600.0)
    house.passes(1)
    for _ in range(100):
        session, _ = house.client()
        del house.stage.services.sessions[session.id]
    house.passes(LOOK_AGAIN_S + 1)
    assert house.janitor._due == {}


def test_whoever_waits_too_long_for_a_rollout_is_told_and_may_try_again() -> None:
    house = House()
    waiting, heard = house.client()
    idle, _ = house.client()
    house.stage.database.gate.close(Reason.ROLLOUT)
    house.passes(1)
    house.say(waiting, "SELECT 1")
    house.passes(house.janitor.client_wait_s - 0.5)
    assert heard == b""
    house.passes(1)
    assert b"C57P03\0Mcannot begin a transaction now: a configuration rollout is in progress\0" in heard
    assert waiting.state == idle.state == READY
    house.stage.database.gate.open(Reason.ROLLOUT)
    del heard[:]
    house.say(waiting, "SELECT 1")
    assert heard[:1] == b"T"
