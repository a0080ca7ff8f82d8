"""A server that ends under a session which has it alone: what is sent again, what is told, and that it is told once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes.session_stage import Heard, Stage, rows_in
from hypothesis import given, settings
from hypothesis import strategies as st

from node.client.again import KEPT_BYTES, PIPELINED_BYTES
from node.client.parameters import parameters
from node.client.services import Limits
from node.client.session import Session
from node.client.slow import Slow
from node.client.states import CLOSED, RIDING
from node.pool.pool import PoolDown
from node.server.connection import ServerConnection
from node.wire import messages as m

LAST_WORDS = m.message(b"E", m.error_fields("FATAL", "57P01", "terminating connection due to administrator command"))
DESCRIBED = len(m.row_description([m.Column(b"said", 25)]))


def parts(heard: Heard) -> list[bytes]:
    """The whole messages."""
    found, at = [], 0
    while at + 5 <= len(heard):
        end = at + 1 + int.from_bytes(heard[at + 1 : at + 5], "big")
        if end > len(heard):
            break
        found.append(bytes(heard[at:end]))
        at = end
    return found


def rows(heard: Heard) -> list[bytes]:
    """What the rows say, or the SQLSTATE of an error."""
    return rows_in(parts(heard))


def read(who: str) -> bytes:
    return m.query(f"SELECT '{who}'")


def batch(who: str) -> bytes:
    return m.parse(b"", f"SELECT '{who}'".encode()) + m.bind(b"", b"") + m.describe_portal(b"") + m.execute() + m.SYNC


WRITE = m.query("INSERT INTO t VALUES ('w')")
NAMED = m.bind(b"", b"s") + m.execute() + m.SYNC
HUGE = "SELECT '" + "h" * KEPT_BYTES + "'"


class Deathbed:
    """A stage on which no read is known to be light, so that each runs alone; servers die with last words."""

    def __init__(self, servers: int = 2) -> None:
        self.stage = Stage(servers, lanes=1, limits=Limits(message_bytes=2 * KEPT_BYTES))
        self.written: list[bytes] = []  # by all servers
        fresh = self.stage.pool.fresh
        self.stage.pool.fresh = lambda: self.listened(fresh())  # type: ignore[method-assign]
        for server in self.stage.pool.core.idle:
            self.listened(server)
        self.session, self.heard = self.stage.client()

    def listened(self, server: ServerConnection) -> ServerConnection:
        hear = server.write

        def write(data: bytes) -> None:
            self.written.append(data)
            hear(data)

        server.write = write
        return server

    @property
    def server(self) -> ServerConnection:
        assert self.session.server is not None
        return self.session.server

    def tell(self, *units: bytes) -> None:
        self.session.from_client(b"".join(units))
        self.stage.settle()

    def start(self, *units: bytes) -> None:
        """The server has answered, and nobody has heard it."""
        self.session.from_client(b"".join(units))
        assert self.session.state != RIDING

    def speak_and_end(self, server: ServerConnection, heard_of_answer: int = 0, *, in_one_piece: bool = False) -> None:
        """So much of the answer arrives, then the server's last words."""
        answer = b"".join(data for owner, data in self.stage.said if owner is server)[:heard_of_answer]
        self.stage.said = [(owner, data) for owner, data in self.stage.said if owner is not server]
        pieces = [answer + LAST_WORDS] if in_one_piece else [piece for piece in (answer, LAST_WORDS) if piece]
        self.stage.said = [(server, piece) for piece in pieces] + self.stage.said
        self.stage.settle()
        if not server.gone:
            self.stage.end(server)
        self.stage.settle()


@pytest.mark.parametrize("unit", [read("a"), batch("a")])
@pytest.mark.parametrize("words", [True, False])
def test_a_read_that_runs_alone_is_sent_again(unit: bytes, words: bool) -> None:
    bed = Deathbed()
    bed.start(unit)
    if words:
        bed.speak_and_end(bed.server)
    else:
        bed.stage.lose(bed.server)
        bed.stage.settle()
    assert rows(bed.heard) == [b"SELECT 'a'"]
    assert not bed.heard.closed
    assert bed.stage.pool.counters.lane_resent_lost == 1
    assert bed.session.sent_again == 0
    assert bed.session.kept == b""


def test_a_beginning_that_came_with_the_last_words_was_not_delivered() -> None:
    bed = Deathbed()
    bed.start(batch("a"))
    bed.speak_and_end(bed.server, 10, in_one_piece=True)  # ParseComplete and BindComplete
    assert "".join(chr(message[0]) for message in parts(bed.heard)) == "12nDCZ"
    assert rows(bed.heard) == [b"SELECT 'a'"]


def test_who_has_heard_a_part_hears_the_servers_words_and_nothing_after_them() -> None:
    bed = Deathbed()
    bed.start(read("a"))
    bed.speak_and_end(bed.server, DESCRIBED)
    assert rows(bed.heard) == [b"57P01"]
    assert parts(bed.heard)[-1] == LAST_WORDS
    assert bed.heard.closed
    assert bed.stage.pool.counters.lane_resent_lost == 0


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("ends", ["lost", "shutdown"])
def test_an_error_is_never_read_as_the_rest_of_a_row(warm: bool, ends: str) -> None:
    bed = Deathbed()
    if warm:
        bed.tell(read("warm"))
        del bed.heard[:]
    bed.session.from_client(read("a"))
    assert (bed.session.state == RIDING) is warm
    bed.stage.turn()
    server = bed.stage.said[0][0]
    bed.stage.hear(DESCRIBED + 15)
    before = bytes(bed.heard)
    assert len(before) == DESCRIBED + 15
    if ends == "lost":
        bed.stage.lose(server)
    else:
        bed.session.say_goodbye()
    bed.stage.settle()
    assert bytes(bed.heard) == before
    assert bed.heard.closed


def test_a_named_statement_is_prepared_again_where_it_is_sent_again() -> None:
    bed = Deathbed()
    bed.tell(m.parse(b"s", b"SELECT 'named'"), m.SYNC)
    del bed.heard[:]
    bed.start(NAMED)
    bed.speak_and_end(bed.server)
    assert rows(bed.heard) == [b"SELECT 'named'"]


def test_a_batch_that_is_torn_between_messages_goes_on_elsewhere() -> None:
    unit = batch("torn")
    cuts, at = [], 0
    while at < len(unit):
        at += 1 + int.from_bytes(unit[at + 1 : at + 5], "big")
        cuts.append(at)
    for cut in cuts[:-1]:
        for more in (0, 3):
            bed = Deathbed()
            bed.start(unit[: cut + more])
            bed.speak_and_end(bed.server)
            bed.tell(unit[cut + more :])
            assert rows(bed.heard) == [b"SELECT 'torn'"], (cut, more)


@pytest.mark.parametrize("answered", [0, 1, 2])
@pytest.mark.parametrize("in_one_piece", [True, False])
def test_of_pipelined_reads_those_without_an_answer_are_sent_again(answered: int, in_one_piece: bool) -> None:
    names = ["a", "bb", "ccc"]
    bed = Deathbed()
    bed.start(*map(batch, names))
    (said,) = [data for _, data in bed.stage.said]
    size = 0
    for _ in range(answered):
        size = said.index(b"Z\0\0\0\5I", size) + 6
    bed.speak_and_end(bed.server, size, in_one_piece=in_one_piece)
    assert rows(bed.heard) == [f"SELECT '{name}'".encode() for name in names]
    assert bed.stage.pool.counters.lane_resent_lost == 3 - answered


def test_what_is_sent_behind_a_read_is_sent_again_behind_it() -> None:
    bed = Deathbed()
    bed.start(read("a"))
    bed.session.from_client(read("b"))
    bed.session.from_client(read("torn")[:7])
    bed.speak_and_end(bed.server)
    bed.tell(read("torn")[7:])
    assert rows(bed.heard) == [b"SELECT 'a'", b"SELECT 'b'", b"SELECT 'torn'"]


@pytest.mark.parametrize(
    "units",
    [
        [WRITE],
        [read("a"), WRITE],
        [WRITE, read("a")],
        [m.query("SELECT random()")],
        [m.query("SELECT 1; SELECT 2")],
        [m.query("SELECT 1 FOR UPDATE")],
        [m.query("SET x = 1"), read("a")],
        [m.query("BEGIN"), read("a"), m.query("COMMIT")],
        [m.query("COPY t FROM STDIN")],
        [m.parse(b"n", b"SELECT 'a'") + m.SYNC],
        [m.query(HUGE)],
        [read("a"), m.query("SELECT '" + "h" * PIPELINED_BYTES + "'")],
    ],
)
def test_what_is_never_sent_twice(units: list[bytes]) -> None:
    bed = Deathbed()
    server = None
    for unit in units:  # each in a write of its own
        bed.start(unit)
        server = server or bed.server
    assert server is not None
    before = len(bed.written)
    bed.speak_and_end(server)
    assert rows(bed.heard) == [b"57P01"]
    assert bed.heard.closed
    assert len(bed.written) == before


def test_a_read_in_a_transaction_is_not_sent_again() -> None:
    bed = Deathbed()
    bed.tell(m.query("BEGIN"))
    del bed.heard[:]
    bed.start(read("a"))
    bed.speak_and_end(bed.server)
    assert rows(bed.heard) == [b"57P01"]


def test_a_session_that_is_pinned_has_lost_more_than_a_reply() -> None:
    bed = Deathbed()
    bed.tell(m.query("CREATE TEMP TABLE x (a int)"))
    del bed.heard[:]
    bed.start(read("a"))
    bed.speak_and_end(bed.server)
    assert rows(bed.heard) == [b"57P01"]


def test_what_ends_two_servers_without_a_word_is_told_so() -> None:
    bed = Deathbed(3)
    bed.start(read("a"))
    bed.stage.lose(bed.server)
    bed.stage.lose(bed.server)
    bed.stage.settle()
    assert rows(bed.heard) == [b"08006"]
    assert bed.heard.closed


def test_a_server_that_ends_while_nothing_is_asked_of_it_is_told_of_once() -> None:
    bed = Deathbed()
    bed.tell(m.query("BEGIN"))
    del bed.heard[:]
    bed.speak_and_end(bed.server)
    assert rows(bed.heard) == [b"57P01"]
    assert bed.heard.closed


# --- the slow gear ---------------------------------------------------------------------------------------------------


class SlowBed(Deathbed):
    """With the real coroutines: those who start them go on before their first step."""

    def __init__(self) -> None:
        super().__init__()
        self.stage.services.slow = Slow()
        self.stage.services.spawn = asyncio.ensure_future  # type: ignore[assignment]

    async def settle_all(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
            self.stage.settle()


@pytest.mark.parametrize("unit", [read("a"), WRITE, m.query("BEGIN")])
async def test_last_words_before_the_settings_are_sent_are_nobodys(unit: bytes) -> None:
    """They went to the client, which then heard of the same server once more from the coroutine."""
    bed = SlowBed()
    bed.session.parameters = parameters({"work_mem": "64kB"})
    bed.session.from_client(unit)
    bed.speak_and_end(bed.server)
    await bed.settle_all()
    assert rows(bed.heard) == [unit[5:-1]]
    assert not bed.heard.closed
    assert bed.session.sent_again == 0
    bed.session.client_lost()


async def test_last_words_behind_a_set_are_told_once() -> None:
    bed = SlowBed()
    bed.session.from_client(m.query("SET work_mem = '64kB'"))
    server = bed.server
    (answer,) = [data for _, data in bed.stage.said]
    bed.speak_and_end(server, len(answer), in_one_piece=True)
    await bed.settle_all()
    assert rows(bed.heard)[1:] == [b"08006"]  # the loss is heard of before the words are read
    assert bed.heard.closed


# --- replicas ---------------------------------------------------------------------------------------------------------


def test_a_read_that_finds_its_replica_gone_goes_elsewhere() -> None:
    bed = Deathbed()
    wait = bed.stage.pool.wait
    refusals: list[Any] = []

    def down(borrower: Any) -> None:
        fault = PoolDown("connection pool is down", sqlstate="58000")
        fault.is_banned = len(refusals) < 2
        refusals.append(borrower)
        borrower.refused(fault)

    idle, bed.stage.pool.core.idle = bed.stage.pool.core.idle, []
    bed.stage.pool.wait = down  # type: ignore[assignment, method-assign]
    bed.tell(read("a"))
    assert rows(bed.heard) == [b"58000"], "the third one is not banned"
    assert len(refusals) == 3
    other, heard = bed.stage.client()
    refusals.clear()

    def down_once(borrower: Any) -> None:
        bed.stage.pool.wait = wait  # type: ignore[method-assign]
        bed.stage.pool.core.idle.extend(idle)
        down(borrower)

    bed.stage.pool.wait = down_once  # type: ignore[assignment, method-assign]
    other.from_client(read("b"))
    bed.stage.settle()
    assert rows(heard) == [b"SELECT 'b'"]


# --- anything, in any order ------------------------------------------------------------------------------------------

step = st.one_of(
    st.tuples(st.sampled_from(("read", "batch", "named", "write", "pair", "torn", "transaction")), st.integers(0, 3)),
    st.tuples(st.just("hear"), st.sampled_from((1, 7, 30, 100, 10_000))),
    st.tuples(st.sampled_from(("lose", "speak")), st.integers(0, 2)),
    st.tuples(st.just("turn"), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(step, max_size=60), st.booleans())
def test_whoever_loses_a_server_hears_one_error_or_none_and_no_write_runs_twice(
    steps: list[tuple[str, int]], light: bool
) -> None:
    bed = Deathbed(3)
    stage = bed.stage
    if light:
        bed.tell(read("warm"))
    clients: list[tuple[Session, Heard, list[bytes]]] = []
    for _ in range(4):
        session, heard = stage.client()
        session.from_client(m.parse(b"s", b"SELECT 'named'") + m.SYNC)
        stage.settle()
        del heard[:]
        clients.append((session, heard, []))
    servers = list(stage.pool.core.idle)
    rests: dict[int, bytes] = {}
    for number, (what, pick) in enumerate(steps):
        if what == "turn":
            stage.turn()
        elif what == "hear":
            if stage.said:
                stage.hear(pick)
        elif what in ("lose", "speak"):
            server = servers[pick]
            if server.closed_why is None:
                if what == "speak":
                    stage.said.append((server, LAST_WORDS))
                else:
                    stage.lose(server)
        else:
            session, _, wanted = clients[pick]
            if session.state == CLOSED:
                continue
            name = f"{pick} {number}"
            reads, write = f"SELECT '{name}'".encode(), f"INSERT INTO t VALUES ('{name}')".encode()
            data = rests.pop(pick, b"")
            if what == "read":
                data += read(name)
                wanted.append(reads)
            elif what == "batch":
                data += batch(name)
                wanted.append(reads)
            elif what == "named":
                data += NAMED
                wanted.append(b"SELECT 'named'")
            elif what == "write":
                data += m.query(write)
                wanted.append(write)
            elif what == "pair":
                data += read(name) + batch(name)
                wanted += [reads, reads]
            elif what == "torn":
                unit = batch(name)
                cut = number % len(unit)
                data, rests[pick] = data + unit[:cut], unit[cut:]
                wanted.append(reads)
            else:
                data += m.query("BEGIN") + read(name) + m.query(write) + m.query("COMMIT")
                wanted += [b"BEGIN", reads, write, b"COMMIT"]
            session.from_client(data)
    for pick, rest in rests.items():
        clients[pick][0].from_client(rest)
    for _ in range(5):
        stage.settle()
        stage.pass_time(0.3)
    for session, heard, wanted in clients:
        answers = rows(heard)
        if session.state == CLOSED:
            assert heard.closed
            if sum(map(len, parts(heard))) == len(heard):  # else it was in the middle of a row
                assert answers[-1] in (b"57P01", b"08006")
                del answers[-1]
            assert answers == wanted[: len(answers)]
        else:
            assert answers == wanted
    asked = b"".join(bed.written)
    for _, _, wanted in clients:
        for write in wanted:
            if write.startswith(b"INSERT"):
                assert asked.count(write) <= 1
    for session, _, _ in clients:
        session.client_lost()
    stage.settle()
    assert not stage.pool.core.lent
    assert stage.database.gate.running == 0
