"""Sessions on lanes: what rides, in which order a client is answered, and what is left of whom when something ends."""

from __future__ import annotations

from typing import cast

import pytest
from fakes.session_stage import Heard, Stage, rows_in
from hypothesis import given, settings
from hypothesis import strategies as st

from node.catalogs import Catalogs
from node.client.parameters import parameters
from node.client.session import Session
from node.client.states import CLOSED, READY, RIDING, WAITING
from node.client.weight import LIGHT_BYTES, LIGHT_S
from node.databases import Databases
from node.gate import Reason
from node.janitor import Janitor
from node.server.connection import ServerConnection
from node.wire import messages as m


def whole(heard: bytes) -> list[bytes]:
    """The messages; the last one may be torn."""
    found, at = [], 0
    while at < len(heard):
        end = at + 1 + int.from_bytes(heard[at + 1 : at + 5], "big")
        found.append(bytes(heard[at:end]))
        at = end
    return found


def letters(heard: Heard) -> str:
    said = whole(heard)
    del heard[:]
    return "".join(chr(x[0]) for x in said)


def rows(heard: Heard) -> list[bytes]:
    """What the rows say, or the SQLSTATE of an error; the rest is forgotten."""
    said = whole(heard)
    del heard[:]
    return rows_in(said)


def read(who: str) -> bytes:
    return m.query(f"SELECT '{who}'")


def said(who: str) -> list[bytes]:
    return [f"SELECT '{who}'".encode()]


def batch(who: str) -> bytes:
    return m.parse(b"", f"SELECT '{who}'".encode()) + m.bind(b"", b"") + m.describe_portal(b"") + m.execute() + m.SYNC


def tell(stage: Stage, session: Session, *parts: bytes) -> None:
    session.from_client(b"".join(parts))
    stage.settle()


def warm_stage(servers: int = 2, lanes: int = 1) -> Stage:
    """The reads of these tests are known to be light."""
    stage = Stage(servers, lanes=lanes)
    session, heard = stage.client()
    tell(stage, session, read("warm"))
    assert letters(heard) == "TDCZ"
    session.client_lost()
    return stage


def riders(stage: Stage, *names: str) -> list[tuple[Session, Heard]]:
    """Clients with a read on the lane, in this order; nothing was sent yet."""
    found = []
    for name in names:
        session, heard = stage.client()
        session.from_client(read(name))
        assert session.state == RIDING
        found.append((session, heard))
    return found


def lane_server(session: Session) -> ServerConnection:
    assert session.lane is not None
    return session.lane.server


def at_rest(stage: Stage) -> None:
    stage.settle()
    assert stage.pool.lanes is not None
    assert stage.pool.lanes.active == []
    assert not stage.pool.core.lent
    assert stage.database.gate.running == 0
    assert all(not server.pipeline.shared and server.owner is None for server in stage.pool.core.idle)


# --- what rides ------------------------------------------------------------------------------------------------------


def test_a_read_runs_alone_before_it_rides() -> None:
    stage = Stage(2, lanes=1)
    session, heard = stage.client()
    session.from_client(read("a"))
    assert session.state == READY
    assert session.server is not None
    stage.settle()
    session.from_client(read("b"))
    assert session.state == RIDING
    stage.settle()
    assert rows(heard) == said("a") + said("b")
    at_rest(stage)


@pytest.mark.parametrize(
    "unit",
    [
        m.query("INSERT INTO t VALUES (1)"),
        m.query("SELECT 1 FOR UPDATE"),
        m.query("SELECT random()"),
        m.query("SELECT 1; SELECT 2"),
        m.query("SELECT nextval('s')"),
        m.query("SELECT * FROM unknown"),
        m.query("SET x = 1"),
        m.query("WITH q AS (DELETE FROM t RETURNING 1) SELECT * FROM q"),
        m.parse(b"", b"SELECT 'a'") + m.bind(b"", b"") + m.execute(b"", 1) + m.SYNC,
        m.parse(b"", b"SELECT 'a'") + m.bind(b"p", b"") + m.execute(b"p") + m.SYNC,
        m.parse(b"", b"SELECT 'a'") + m.bind(b"", b"") + m.execute() + m.FLUSH + m.SYNC,
        m.parse(b"", b"SELECT 'a'") + m.bind(b"", b"") + m.execute() + m.execute() + m.SYNC,
        m.parse(b"s", b"SELECT 'a'") + m.bind(b"", b"s") + m.execute() + m.SYNC,
        read("a") + read("b"),
    ],
)
def test_what_never_rides(unit: bytes) -> None:
    stage = warm_stage()
    session, heard = stage.client()
    for _ in range(3):
        session.from_client(unit)
        assert session.state != RIDING
        stage.settle()
        assert whole(heard)[-1][:1] == b"Z"
        tell(stage, session, m.close_statement(b"s"), m.SYNC)
    session.client_lost()
    at_rest(stage)


def test_nothing_rides_in_a_transaction() -> None:
    stage = warm_stage()
    session, heard = stage.client()
    tell(stage, session, m.query("BEGIN"))
    session.from_client(read("a"))
    assert session.state != RIDING
    tell(stage, session, m.query("COMMIT"))
    letters(heard)
    session.from_client(read("a"))
    assert session.state == RIDING
    at_rest(stage)


def test_what_was_slow_runs_alone_until_it_was_quick_for_a_while() -> None:
    stage = Stage(2, lanes=1)
    session, _ = stage.client()
    session.from_client(read("a"))
    stage.pass_time(LIGHT_S * 2)
    stage.settle()
    alone = 0
    while True:
        session.from_client(read("a"))
        if session.state == RIDING:
            break
        stage.settle()
        alone += 1
        assert alone < 100
    assert alone > 3
    at_rest(stage)


def test_what_is_wide_runs_alone() -> None:
    stage = Stage(2, lanes=1)
    session, _ = stage.client()
    wide = m.query("SELECT '" + "w" * LIGHT_BYTES + "'")
    tell(stage, session, wide)
    session.from_client(wide)
    assert session.state != RIDING
    stage.settle()


def test_a_named_statement_rides_and_each_server_learns_it_once() -> None:
    stage = warm_stage(3, lanes=2)
    clients = [stage.client() for _ in range(4)]
    for number, (session, heard) in enumerate(clients):
        tell(stage, session, m.parse(b"s%d" % (number % 2), b"SELECT 'same'"), m.SYNC)
        assert letters(heard) == "1Z"
    for _ in range(3):
        for number, (session, _) in enumerate(clients):
            session.from_client(m.bind(b"", b"s%d" % (number % 2)) + m.execute() + m.SYNC)
            assert session.state == RIDING
        stage.settle()
        for _, heard in clients:
            assert rows(heard) == said("same")
    at_rest(stage)


def test_a_name_whose_parse_may_have_failed_does_not_ride() -> None:
    stage = warm_stage()
    session, heard = stage.client()
    tell(stage, session, m.parse(b"s", b"SELECT 'a'"), m.parse(b"", b"bad"), m.SYNC)
    assert letters(heard) == "1EZ"
    for _ in range(2):
        session.from_client(m.bind(b"", b"s") + m.execute() + m.SYNC)
        assert session.state != RIDING
        stage.settle()
        assert rows(heard) == said("a")


def test_an_unnamed_statement_outlives_its_batch_on_a_lane() -> None:
    stage = warm_stage()
    (one, heard), (other, _) = stage.client(), stage.client()
    for _ in range(2):
        one.from_client(batch("mine"))
        assert one.state == RIDING
        stage.settle()
        tell(stage, other, batch("other"))
        rows(heard)
        tell(stage, one, m.bind(b"", b""), m.execute(), m.SYNC)
        assert rows(heard) == said("mine")
    tell(stage, one, batch("mine"))
    tell(stage, one, read("x"))
    rows(heard)
    tell(stage, one, m.bind(b"", b""), m.execute(), m.SYNC)
    assert rows(heard) == [b"26000"], "a Query ends the unnamed statement"


def test_a_read_torn_at_any_byte_is_answered_once() -> None:
    for unit in (read("torn"), batch("torn")):
        for cut in range(1, len(unit)):
            stage = warm_stage()
            session, heard = stage.client()
            session.from_client(unit[:cut])
            stage.settle()
            tell(stage, session, unit[cut:])
            assert rows(heard) == said("torn")
            at_rest(stage)


def test_other_settings_ride_on_no_lane_of_ours() -> None:
    stage = warm_stage()
    ((one, _),) = riders(stage, "a")
    other, heard = stage.client()
    other.parameters = parameters({"search_path": "elsewhere"})
    other.from_client(read("a"))
    assert other.state != RIDING
    assert other.server is not lane_server(one)
    stage.settle()


# --- the order of one client's units ---------------------------------------------------------------------------------


def test_a_write_is_not_overtaken_by_the_next_read() -> None:
    stage = warm_stage()
    session, heard = stage.client()
    session.from_client(m.query("INSERT INTO t VALUES ('w')"))
    session.from_client(read("after"))
    assert session.state != RIDING
    stage.settle()
    assert rows(heard) == [b"INSERT INTO t VALUES ('w')", *said("after")]
    at_rest(stage)


def test_a_read_is_not_overtaken_by_the_next_write() -> None:
    stage = warm_stage()
    session, heard = stage.client()
    session.from_client(read("before"))
    session.from_client(m.query("INSERT INTO t VALUES ('w')") + read("after"))
    stage.turn()
    ((_, answer),) = stage.said
    assert b"before" in answer
    assert session.state == RIDING
    stage.settle()
    assert rows(heard) == [*said("before"), b"INSERT INTO t VALUES ('w')", *said("after")]
    at_rest(stage)


def test_a_read_sent_again_keeps_its_place_before_what_came_since() -> None:
    stage = warm_stage()
    session, heard = stage.client()
    session.from_client(read("before"))
    stage.turn()
    session.from_client(m.query("INSERT INTO t VALUES ('w')"))
    stage.lose(lane_server(session))
    stage.settle()
    assert rows(heard) == [*said("before"), b"INSERT INTO t VALUES ('w')"]
    at_rest(stage)


# --- those who leave -------------------------------------------------------------------------------------------------


def test_a_cancel_request_for_the_front_goes_to_the_server_and_nobody_stands_behind() -> None:
    stage = warm_stage()
    (front, _), (behind, heard) = riders(stage, "a", "b")
    stage.turn()
    server = lane_server(front)
    assert front.cancellable() == [server]
    assert behind.lane is None or behind.lane.server is not server
    server.cancelling += 1
    third, its = stage.client()
    third.from_client(read("c"))
    assert third.lane is None or third.lane.server is not server
    stage.settle()
    assert rows(heard) == said("b")
    assert rows(its) == said("c")
    assert front.state == READY


def test_a_cancel_request_for_one_behind_is_answered_here() -> None:
    stage = warm_stage()
    clients = riders(stage, "a", "b", "c")
    stage.turn()
    assert clients[1][0].cancellable() == []
    assert letters(clients[1][1]) == "EZ"
    assert clients[1][0].active_since == 0.0
    stage.settle()
    assert [rows(heard) for _, heard in clients] == [said("a"), [], said("c")]
    tell(stage, clients[1][0], read("next"))
    assert rows(clients[1][1]) == said("next")
    at_rest(stage)


def test_a_cancel_request_for_one_of_a_crowd_hits_nobody_else() -> None:
    stage = warm_stage()
    clients = riders(stage, "same", "same", "same")
    assert clients[1][0].cancellable() == []
    assert letters(clients[1][1]) == "EZ"
    stage.settle()
    assert [rows(heard) for _, heard in clients] == [said("same"), [], said("same")]
    at_rest(stage)


def test_a_cancel_request_in_the_middle_of_a_row_that_a_crowd_reads_comes_too_late() -> None:
    size = len(m.row_description([m.Column(b"said", 25)])) + 8
    stage = warm_stage()
    lanes = stage.pool.lanes
    assert lanes is not None
    lanes.watch()  # busy lanes send when the turn ends
    clients = riders(stage, "same", "same")
    stage.turn()
    stage.hear(size)
    assert len(clients[0][1]) > 0
    assert clients[0][0].cancellable() == []
    stage.settle()
    assert [rows(heard) for _, heard in clients] == [said("same"), said("same")]
    at_rest(stage)


@pytest.mark.parametrize("size", [0, 1, 7, 40, 60])
@pytest.mark.parametrize("names", [("a", "b", "c"), ("a", "a", "b"), ("b", "a", "a")])
def test_clients_go_in_the_middle_of_a_reply(size: int, names: tuple[str, ...]) -> None:
    for goes in ([0], [1], [0, 1], [0, 1, 2]):
        stage = warm_stage()
        clients = riders(stage, *names)
        stage.turn()
        if size:
            stage.hear(size)
        for number in goes:
            clients[number][0].client_lost()
        after, heard = stage.client()
        after.from_client(read("after"))
        stage.settle()
        for number, (_, its) in enumerate(clients):
            if number not in goes:
                assert rows(its) == said(names[number])
        assert rows(heard) == said("after")
        at_rest(stage)


def test_a_client_that_does_not_read_is_left_alone_on_its_lane() -> None:
    stage = warm_stage(3)
    clients = riders(stage, "a", "b")
    server = lane_server(clients[0][0])
    reading = []
    server.pause_reading = lambda: reading.append(False)
    server.resume_reading = lambda: reading.append(True)
    stage.turn()
    clients[0][0].client_pause()
    stage.hear(40)
    assert reading == [False]
    assert clients[1][0].lane is None or clients[1][0].lane.server is not server
    held, stage.said = [x for x in stage.said if x[0] is server], [x for x in stage.said if x[0] is not server]
    stage.settle()
    assert rows(clients[1][1]) == said("b")
    clients[0][0].client_resume()
    assert reading == [False, True]
    stage.said = held
    stage.settle()
    assert rows(clients[0][1]) == said("a")
    at_rest(stage)


def test_a_crowd_reads_on_when_the_one_that_does_not_has_gone() -> None:
    stage = warm_stage(3)
    clients = riders(stage, "a", "a")
    server = lane_server(clients[0][0])
    reading = []
    server.pause_reading = lambda: reading.append(False)
    server.resume_reading = lambda: reading.append(True)
    stage.turn()
    clients[0][0].client_pause()
    stage.hear(40)
    clients[0][0].client_lost()
    assert reading == [False, True]
    stage.settle()
    assert rows(clients[1][1]) == said("a")
    at_rest(stage)


# --- servers that end ------------------------------------------------------------------------------------------------


def test_nobody_notices_that_a_server_is_lost_before_it_has_answered() -> None:
    stage = warm_stage(3)
    clients = riders(stage, "a", "b", "c")
    stage.turn()
    stage.lose(lane_server(clients[0][0]))
    assert clients[0][0].state == READY, "it may be the reason: it runs alone"
    assert clients[1][0].state == clients[2][0].state == RIDING
    stage.settle()
    assert [rows(heard) for _, heard in clients] == [said("a"), said("b"), said("c")]
    clients[0][0].from_client(read("next"))
    assert clients[0][0].state == RIDING, "it was not"
    at_rest(stage)


def test_what_ends_two_servers_is_told_so() -> None:
    stage = warm_stage(3)
    clients = riders(stage, "a", "b")
    stage.turn()
    stage.lose(lane_server(clients[0][0]))
    server = clients[0][0].server
    assert server is not None
    stage.lose(server)
    stage.settle()
    assert rows(clients[0][1]) == [b"08006"]
    assert clients[0][1].closed
    assert rows(clients[1][1]) == said("b")
    at_rest(stage)


def test_who_has_heard_a_part_is_told_and_those_behind_notice_nothing() -> None:
    stage = warm_stage(3)
    clients = riders(stage, "a", "b")
    stage.turn()
    stage.hear(len(m.row_description([m.Column(b"said", 25)])))
    stage.lose(lane_server(clients[0][0]))
    stage.settle()
    assert letters(clients[0][1]) == "TE"
    assert clients[0][1].closed
    assert rows(clients[1][1]) == said("b")
    at_rest(stage)


def test_a_server_that_is_shut_down_ends_for_nobody() -> None:
    stage = warm_stage(3)
    clients = riders(stage, "a", "b")
    stage.turn()
    server = lane_server(clients[0][0])
    stage.said = [(server, m.message(b"E", m.error_fields("FATAL", "57P01", "terminating")))]
    stage.hear(1 << 20)
    stage.settle()
    assert [rows(heard) for _, heard in clients] == [said("a"), said("b")]
    at_rest(stage)


def test_an_error_that_looks_like_last_words_is_an_error() -> None:
    stage = warm_stage(3)
    clients = riders(stage, "a", "b")
    stage.turn()
    server = lane_server(clients[0][0])
    (_, first), *others = stage.said
    fields = m.error_fields("ERROR", "23514", "violates")[:-1] + b"nSFATAL\0tVFATAL\0\0"
    second = first[first.index(b"Z") + 6 :] if len(first[first.index(b"Z") + 6 :]) else b""
    stage.said = [(server, m.message(b"E", fields) + m.READY_IDLE + second), *others]
    stage.settle()
    assert [rows(heard) for _, heard in clients] == [[b"23514"], said("b")]
    assert not clients[0][1].closed
    at_rest(stage)


# --- PAUSE, shutdown -------------------------------------------------------------------------------------------------


def test_a_gate_is_drained_when_the_reply_has_come_even_if_it_was_sent_again() -> None:
    stage = warm_stage(3)
    clients = riders(stage, "a", "b")
    stage.turn()
    drained: list[bool] = []
    stage.database.gate.close(Reason.PAUSE)
    stage.database.gate.when_drained(lambda: drained.append(True))
    late, heard = stage.client()
    late.from_client(read("late"))
    assert late.state == WAITING
    stage.lose(lane_server(clients[0][0]))
    assert not drained
    stage.settle()
    assert drained == [True]
    assert [rows(its) for _, its in clients] == [said("a"), said("b")]
    stage.database.gate.open(Reason.PAUSE)
    stage.settle()
    assert rows(heard) == said("late")
    at_rest(stage)


def test_a_paused_pool_lets_those_arrive_who_ride() -> None:
    stage = warm_stage()
    clients = riders(stage, "a", "b")
    stage.pool.core.paused = True
    late, heard = stage.client()
    late.from_client(read("late"))
    assert late.state == WAITING
    stage.settle()
    assert [rows(its) for _, its in clients] == [said("a"), said("b")]
    assert late.state == WAITING
    stage.pool.core.paused = False
    waiter = stage.pool.core.first_waiter()
    server = stage.pool.core.idle.pop()
    assert waiter is not None
    stage.pool.core.lent[server] = None
    stage.pool.grant(waiter, server, 0.0)
    stage.settle()
    assert rows(heard) == said("late")
    at_rest(stage)


def test_a_shutdown_lets_those_arrive_who_ride() -> None:
    stage = warm_stage()
    clients = riders(stage, "a", "b", "b")
    stage.services.closing = True
    stage.settle()
    assert [rows(heard) for _, heard in clients] == [[*said(name), b"57P01"] for name in "abb"]
    assert all(heard.closed for _, heard in clients)
    at_rest(stage)


def test_who_rides_is_not_idle_in_a_transaction_and_has_its_time_limit() -> None:
    stage = warm_stage()
    stage.database.idle_in_transaction_timeout_s = 1.0
    stage.database.query_timeout_s = 5.0
    janitor = Janitor(stage.services, cast(Databases, None), cast(Catalogs, None), lambda lag_s: None)
    session, heard = stage.client()
    stage.now = 10.0  # idle since then
    session.from_client(read("a"))
    other = riders(stage, "b")
    stage.turn()
    stage.now = 12.0
    janitor._look_at(session, stage.now)
    assert session.state == RIDING
    stage.now = 16.0
    janitor._look_at(session, stage.now)
    assert session.state == CLOSED
    assert rows(heard) == [b"58000"]
    stage.settle()
    assert rows(other[0][1]) == said("b")
    at_rest(stage)


def test_the_time_of_a_unit_that_was_refused_is_not_the_next_ones() -> None:
    stage = warm_stage(1)
    session, heard = stage.client()
    holder, _ = stage.client()
    tell(stage, holder, m.query("BEGIN"))
    session.from_client(read("a"))
    assert session.state == WAITING
    session.cancellable()
    assert rows(heard) == [b"57014"]
    tell(stage, holder, m.query("COMMIT"))
    session.from_client(m.query("INSERT INTO t VALUES (1)"))
    stage.pass_time(LIGHT_S * 10)
    stage.settle()
    session.from_client(read("a"))
    assert session.state == RIDING
    at_rest(stage)


@pytest.mark.parametrize("size", [0, 60])
def test_a_session_ended_from_here_leaves_its_lane(size: int) -> None:
    stage = warm_stage()
    clients = riders(stage, "a", "b", "b")
    stage.turn()
    if size:
        stage.hear(size)
    clients[0][0].say_goodbye()
    clients[1][0].say_goodbye()
    assert [session.state for session, _ in clients] == [CLOSED, CLOSED, RIDING]
    stage.settle()
    assert rows(clients[2][1]) == said("b")
    at_rest(stage)


# --- anything, in any order ------------------------------------------------------------------------------------------

step = st.one_of(
    st.tuples(st.just("read"), st.integers(0, 4)),
    st.tuples(st.just("read"), st.integers(0, 4)),
    st.tuples(st.just("same"), st.integers(0, 4)),
    st.tuples(st.just("batch"), st.integers(0, 4)),
    st.tuples(st.just("named"), st.integers(0, 4)),
    st.tuples(st.just("write"), st.integers(0, 4)),
    st.tuples(st.just("error"), st.integers(0, 4)),
    st.tuples(st.just("transaction"), st.integers(0, 4)),
    st.tuples(st.just("go"), st.integers(0, 4)),
    st.tuples(st.just("turn"), st.just(0)),
    st.tuples(st.just("hear"), st.sampled_from((1, 7, 30, 100, 10_000))),
    st.tuples(st.just("hear"), st.sampled_from((1, 7, 30, 100, 10_000))),
    st.tuples(st.just("lose"), st.integers(0, 2)),
    st.tuples(st.just("time"), st.sampled_from((1, 30, 300))),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=60), st.booleans())
def test_every_client_hears_its_answers_in_its_order(steps: list[tuple[str, int]], with_losses: bool) -> None:
    stage = warm_stage(3, lanes=2)
    clients = []
    for number in range(5):
        session, heard = stage.client()
        tell(stage, session, m.parse(b"s", b"SELECT 'named %d'" % (number % 2)), m.SYNC)
        del heard[:]
        clients.append((session, heard, list[bytes]()))
    asked = lost = 0
    servers: list[ServerConnection] = list(stage.pool.core.idle)
    for what, pick in steps:
        asked += 1
        if what == "turn":
            stage.turn()
        elif what == "hear":
            if stage.said:
                stage.hear(pick)
        elif what == "time":
            stage.pass_time(pick / 1000)
        elif what == "lose":
            if with_losses and servers[pick].closed_why is None:
                lost += 1
                stage.lose(servers[pick])
        else:
            session, heard, wanted = clients[pick]
            if session.state == CLOSED:
                continue
            if what == "read":
                session.from_client(read(f"{pick} {asked}"))
                wanted += said(f"{pick} {asked}")
            elif what == "same":
                session.from_client(read("same"))
                wanted += said("same")
            elif what == "batch":
                session.from_client(batch(f"{pick} {asked}"))
                wanted += said(f"{pick} {asked}")
            elif what == "named":
                session.from_client(m.bind(b"", b"s") + m.execute() + m.SYNC)
                wanted += said(f"named {pick % 2}")
            elif what == "write":
                session.from_client(m.query(f"INSERT INTO t VALUES ('{pick} {asked}')"))
                wanted.append(f"INSERT INTO t VALUES ('{pick} {asked}')".encode())
            elif what == "error":
                session.from_client(read("bad"))
                wanted.append(b"42601")
            elif what == "transaction":
                session.from_client(m.query("BEGIN") + read(f"{pick} {asked}") + m.query("COMMIT"))
                wanted += [b"BEGIN", *said(f"{pick} {asked}"), b"COMMIT"]
            elif what == "go":
                session.client_lost()
                if heard:
                    done = rows(heard) if complete(heard) else []
                    assert done == wanted[: len(done)]
    for _ in range(5):
        stage.settle()
        stage.pass_time(0.3)
    for session, heard, wanted in clients:
        if session.state == CLOSED:
            assert heard.closed is False or lost
            continue
        assert rows(heard) == wanted
    for session, _, _ in clients:
        session.client_lost()
    stage.settle()
    at_rest(stage)


def complete(heard: Heard) -> bool:
    at = 0
    while at + 5 <= len(heard):
        at += 1 + int.from_bytes(heard[at + 1 : at + 5], "big")
    return at == len(heard)
