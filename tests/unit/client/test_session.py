"""A session on a stage: what it forwards, what it answers itself, and in which order the client hears it."""

from __future__ import annotations

from fakes.session_stage import Heard, Stage
from fakes.shell import FakeShell

from node.client.services import Limits
from node.client.session import Session
from node.client.states import CLOSED, READY, WAITING
from node.gate import Reason
from node.wire import messages as m


def letters(heard: Heard) -> str:
    found, at = "", 0
    while at < len(heard):
        found += chr(heard[at])
        at += 1 + int.from_bytes(heard[at + 1 : at + 5], "big")
    del heard[:]
    return found


def tell(stage: Stage, session: Session, *parts: bytes) -> None:
    session.from_client(b"".join(parts))
    stage.settle()


def test_a_fault_of_ours_does_not_overtake_what_is_owed() -> None:
    stage = Stage(limits=Limits(message_bytes=1 << 20, prepared_statements=1))
    session, heard = stage.client()
    tell(stage, session, m.parse(b"a", b"SELECT 1"), m.SYNC)
    assert letters(heard) == "1Z"
    tell(stage, session, m.parse(b"b", b"SELECT 2"), m.bind(b"", b"b"), m.execute(), m.SYNC)
    assert letters(heard) == "EZ", "nothing was owed: the session goes on"
    tell(stage, session, m.bind(b"", b"a"), m.execute(), m.SYNC)
    assert letters(heard) == "2DCZ"
    # behind statements that are under way it would leave them half done
    tell(stage, session, m.bind(b"", b"a"), m.execute(), m.parse(b"c", b"SELECT 3"), m.SYNC)
    assert letters(heard)[-1] == "E"
    assert heard.closed
    assert len(stage.pool.core.idle) == 1


def test_a_pinned_client_that_pipelines_behind_an_answer_of_ours_is_served() -> None:
    stage = Stage()
    session, heard = stage.client()
    tell(stage, session, m.query("CREATE TEMP TABLE x (a int)"), m.parse(b"s", b"SELECT 1"), m.SYNC)
    letters(heard)
    session.from_client(m.query("DEALLOCATE s") + m.query("SELECT 2"))
    stage.settle()
    assert letters(heard) == "CZTDCZ"
    session.client_lost()
    stage.settle()


def test_a_message_that_cannot_be_is_refused_at_its_header() -> None:
    for head in (b"!\0\0\0\x20", b"S\0\1\0\0", b"E\0\1\0\0", b"Q\xff\xff\xff\xff", b"Q\0\0\0\1"):
        for before in (b"", m.query("BEGIN")):
            stage = Stage()
            session, heard = stage.client()
            tell(stage, session, before, head, b"x")
            assert letters(heard)[-1] == "E"
            assert heard.closed
            assert session.state == CLOSED


def test_who_waits_is_served_in_order_and_may_leave() -> None:
    stage = Stage(servers=1)
    holder, heard = stage.client()
    tell(stage, holder, m.query("BEGIN"))
    waiters = [stage.client() for _ in range(3)]
    for session, _ in waiters:
        tell(stage, session, m.query("SELECT 1"))
        assert session.state == WAITING
    waiters[1][0].client_lost()
    tell(stage, holder, m.query("COMMIT"))
    assert letters(heard) == "TDCZTDCZ"
    assert [letters(said) for _, said in waiters] == ["TDCZ", "", "TDCZ"]


def test_a_closed_gate_holds_what_begins_and_not_what_runs() -> None:
    stage = Stage(servers=2)
    runner, said = stage.client()
    late, heard = stage.client()
    tell(stage, runner, m.query("BEGIN"))
    stage.database.gate.close(Reason.PAUSE)
    drained: list[bool] = []
    stage.database.gate.when_drained(lambda: drained.append(True))
    tell(stage, late, m.query("SELECT 1"))
    tell(stage, runner, m.query("SELECT 2"))
    assert (letters(heard), letters(said)) == ("", "TDCZTDCZ")
    assert not drained
    tell(stage, runner, m.query("COMMIT"))
    assert drained
    stage.database.gate.open(Reason.PAUSE)
    stage.settle()
    assert letters(heard) == "TDCZ"


def test_back_pressure_goes_both_ways() -> None:
    stage = Stage()
    session, _ = stage.client()
    tell(stage, session, m.query("BEGIN"))
    server = session.server
    assert server is not None
    switches: list[str] = []
    server.pause_reading = lambda: switches.append("pause server")
    server.resume_reading = lambda: switches.append("resume server")
    shell = FakeShell()
    shell.pause_reading = lambda: switches.append("pause client")  # type: ignore[method-assign]
    shell.resume_reading = lambda: switches.append("resume client")  # type: ignore[method-assign]
    session.shell = shell
    session.client_pause()
    session.server_pause()
    session.server_resume()
    session.client_resume()
    assert switches == ["pause server", "pause client", "resume client", "resume server"]


def test_a_client_paused_by_a_server_that_is_given_back_is_read_again() -> None:
    stage = Stage()
    session, _ = stage.client()
    server = stage.pool.core.idle[0]
    session.from_client(m.query("SELECT 1"))
    server.writing_paused = True
    session.server_pause()
    assert session.reading_paused
    stage.settle()  # the answer comes although our last bytes are still on their way out
    assert session.server is None
    assert not session.reading_paused


def test_refusals_answer_a_long_pipeline_without_depth() -> None:
    stage = Stage(servers=0)
    stage.services.drops_refused_clients = False
    session, heard = stage.client()

    def wait(borrower: Session) -> None:
        borrower.refused(RuntimeError("no server"))

    stage.pool.wait = wait  # type: ignore[assignment, method-assign]
    tell(stage, session, m.query("SELECT 1") * 5000)
    assert letters(heard) == "EZ" * 5000
    assert session.state == READY


def test_cancel_of_a_client_that_waits_is_answered_here() -> None:
    stage = Stage(servers=1)
    holder, _ = stage.client()
    tell(stage, holder, m.query("BEGIN"))
    session, heard = stage.client()
    tell(stage, session, m.query("SELECT 1"))
    assert session.cancellable() == []
    assert letters(heard) == "EZ"
    assert holder.cancellable() == [], "its server is idle: a cancel could only hit what comes later"
    assert session.state == READY
