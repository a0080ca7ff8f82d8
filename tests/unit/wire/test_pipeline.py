"""What is owed, to whom, and when it is paid: the queue of replies against scripts and against a plain model."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.wire import messages as m
from node.wire.pipeline import Pipeline
from node.wire.reply_queue import FAKE_CLOSE_COMPLETE, FAKE_PARSE_COMPLETE, RING_ENTRIES
from node.wire.requests import CONTINUED, NOTHING, TOO_LONG, Requests

ME, YOU = "me", "you"
ROW, TAG, DESCRIPTION = m.data_row([b"1"]), m.command_complete("SELECT 1"), m.row_description([m.Column(b"a", 23)])
ERROR = m.message(b"E", m.error_fields("ERROR", "42601", "syntax error"))
COPY_IN = m.message(b"G", b"\0\0\0")
P1, B2, C3, NO_DATA = m.PARSE_COMPLETE, m.BIND_COMPLETE, m.CLOSE_COMPLETE, m.NO_DATA
Z = m.READY_IDLE


def walk(pipeline: Pipeline, data: bytes, size: int = 0) -> bytes:
    """All that passes, in chunks of `size`, going on where the walk stops."""
    out = b""
    for at in range(0, len(data), size or len(data) or 1):
        chunk = data[at : at + (size or len(data))]
        out += pipeline.replies(chunk, 0)
        while pipeline.stopped_at:
            out += pipeline.replies(chunk, pipeline.stopped_at)
    return out


# name → (what was forwarded, what the server says, what the client reads)
SCRIPTS: dict[str, tuple[str, bytes, bytes]] = {
    "a query": ("Q", DESCRIPTION + ROW + TAG + Z, DESCRIPTION + ROW + TAG + Z),
    "a query of two, the second fails": ("Q", TAG + ERROR + Z, TAG + ERROR + Z),
    "pipelined queries": ("QQQ", TAG + Z + ERROR + Z + m.EMPTY_QUERY + Z, TAG + Z + ERROR + Z + m.EMPTY_QUERY + Z),
    "a batch": ("xxxxS", P1 + B2 + DESCRIPTION + ROW + TAG + Z, P1 + B2 + DESCRIPTION + ROW + TAG + Z),
    "a batch fails": ("xxxxxxS", P1 + ERROR + Z, P1 + ERROR + Z),
    "a batch fails, the next does not": ("xxxSxxxS", ERROR + Z + P1 + B2 + TAG + Z, ERROR + Z + P1 + B2 + TAG + Z),
    "a Parse of ours": ("kxxS", P1 + B2 + TAG + Z, B2 + TAG + Z),
    "a Close and a Parse of ours": ("kkxxS", C3 + P1 + B2 + TAG + Z, B2 + TAG + Z),
    "a Parse of ours fails": ("kxxS", ERROR + Z, ERROR + Z),
    "a BEGIN of ours": ("bQ", TAG + m.READY_OPEN + TAG + m.READY_OPEN, TAG + m.READY_OPEN),
    "rows of a query of ours": ("bQ", DESCRIPTION + ROW * 3 + TAG + Z + TAG + Z, TAG + Z),
    "a Parse that is not sent": ("xxpxxS", B2 + TAG + B2 + TAG + Z, B2 + TAG + P1 + B2 + TAG + Z),
    "a Close that is not sent, at the end": ("xcS", P1 + Z, P1 + C3 + Z),
    "fakes behind an error": ("xxpcS", ERROR + Z, ERROR + Z),
    "notices anywhere": ("bQ", m.notice("a") + TAG + m.notice("b") + Z + TAG + Z, m.notice("a") + m.notice("b") + TAG + Z),
    "a COPY by Query": ("Q", COPY_IN, COPY_IN),
    "a COPY sent blindly": ("QeQ", COPY_IN + TAG + Z + TAG + Z, COPY_IN + TAG + Z + TAG + Z),
    "a COPY sent blindly that fails": ("QeQ", ERROR + Z + TAG + Z, ERROR + Z + TAG + Z),
    "an extended COPY sent blindly": ("xxxeSxxxS", P1 + B2 + COPY_IN + TAG + Z + P1 + B2 + TAG + Z, P1 + B2 + COPY_IN + TAG + Z + P1 + B2 + TAG + Z),
    "Sync swallowed by a blind COPY": ("xxxSeS", P1 + B2 + COPY_IN + TAG + Z, P1 + B2 + COPY_IN + TAG + Z),
    "a query ends a batch": ("xxxQ", P1 + B2 + TAG + TAG + Z, P1 + B2 + TAG + TAG + Z),
    "a query in a failed batch": ("xxxQS", ERROR + Z, ERROR + Z),
    "a portal in parts": ("xxxxS", P1 + B2 + ROW + m.PORTAL_SUSPENDED + ROW + TAG + Z, P1 + B2 + ROW + m.PORTAL_SUSPENDED + ROW + TAG + Z),
}  # fmt: skip


def forward(pipeline: Pipeline, script: str, owner: str = ME) -> None:
    for step in script:
        match step:
            case "Q":
                pipeline.owe_query(owner)
            case "b":
                pipeline.owe_skipped_query(owner)
            case "x":
                pipeline.owe()
            case "k":
                pipeline.owe_skipped(owner)
            case "p":
                assert not pipeline.owe_fake(FAKE_PARSE_COMPLETE, owner)
            case "c":
                assert not pipeline.owe_fake(FAKE_CLOSE_COMPLETE, owner)
            case "S":
                pipeline.owe_sync(owner)
            case "e":
                pipeline.copy_ended()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_reply_is_walked_the_same_whole_and_split_at_every_byte(name: str) -> None:
    script, replies, wanted = SCRIPTS[name]
    cuts: Iterator[int] = iter(range(len(replies) + 1))
    for cut in cuts:
        pipeline = Pipeline()
        forward(pipeline, script)
        assert walk(pipeline, replies[:cut]) + walk(pipeline, replies[cut:]) == wanted
        assert pipeline.broken == 0
        assert pipeline.idle() == (replies[-5:] == b"Z\0\0\0\5"[-5:] or wanted[-6:-5] == b"Z")
    pipeline = Pipeline()
    forward(pipeline, script)
    assert walk(pipeline, replies, 1) == wanted


TOO_MANY = (Z, P1, B2, C3, ROW, TAG, DESCRIPTION, NO_DATA, COPY_IN) + (
    *(b"?\0\0\0\4", b"T\0\0\0\3", b"S\xff\xff\xff\xff"),
)


@pytest.mark.parametrize("name", [name for name, (_, replies, _) in SCRIPTS.items() if replies[-6:-5] == b"Z"])
def test_a_reply_too_many_breaks_the_connection(name: str) -> None:
    script, replies, _ = SCRIPTS[name]
    for extra in TOO_MANY:
        pipeline = Pipeline()
        forward(pipeline, script)
        walk(pipeline, replies)
        assert pipeline.idle()
        walk(pipeline, extra)
        assert pipeline.broken == extra[0]
        assert not pipeline.idle()


def test_an_error_before_the_sync_fails_what_follows_it() -> None:
    pipeline = Pipeline()
    forward(pipeline, "xx")
    assert walk(pipeline, ERROR) == ERROR
    assert pipeline.failed
    assert not pipeline.idle()
    forward(pipeline, "xxQ")  # the server discards them all
    assert pipeline.owe_fake(FAKE_PARSE_COMPLETE, ME) is False
    assert pipeline.done == pipeline.sent
    forward(pipeline, "S")
    assert walk(pipeline, Z) == Z
    assert pipeline.idle()


def test_a_fake_with_nothing_before_it_is_answered_at_once() -> None:
    pipeline = Pipeline()
    assert pipeline.owe_fake(FAKE_PARSE_COMPLETE, ME)
    assert not pipeline.idle(), "a Sync must follow"
    forward(pipeline, "S")
    assert walk(pipeline, Z) == Z


def test_copy_in_swallows_sync_until_the_client_has_ended_it() -> None:
    pipeline = Pipeline()
    forward(pipeline, "xxxS")
    walk(pipeline, P1 + B2 + COPY_IN)
    assert pipeline.copy_in == 1
    forward(pipeline, "S")
    pipeline.copy_ended()
    forward(pipeline, "S")
    assert walk(pipeline, TAG + Z) == TAG + Z
    assert pipeline.idle()


def test_a_copy_by_query_swallows_sync_too() -> None:
    pipeline = Pipeline()
    forward(pipeline, "QS")
    walk(pipeline, COPY_IN)
    pipeline.copy_ended()
    assert walk(pipeline, TAG + Z) == TAG + Z
    assert pipeline.idle()


def test_two_owners_are_served_one_after_the_other() -> None:
    for size in (0, 1, 3, 7):
        pipeline = Pipeline()
        owed = [ME, ME, YOU, ME, YOU, YOU]
        for owner in owed:
            pipeline.owe_query(owner)
        replies = [m.data_row([owner.encode(), b"%d" % n]) + TAG + Z for n, owner in enumerate(owed)]
        data = b"".join(replies)
        heard: list[tuple[int, bytes]] = []
        for at in range(0, len(data), size or len(data)):
            chunk = data[at : at + (size or len(data))]
            at = 0
            while True:
                unit = pipeline.units  # how many ReadyForQuery came before: whose turn it is
                heard.append((unit, pipeline.replies(chunk, at)))
                at = pipeline.stopped_at
                if not at:
                    break
        assert b"".join(out for _, out in heard) == data
        for unit, out in heard:
            for other in {ME, YOU} - {owed[min(unit, 5)]}:
                assert other.encode() not in out, "bytes of one owner among those of the other"
        assert pipeline.idle()


def test_the_last_words_of_a_server_are_apart_from_the_answer_before_them() -> None:
    for cut in range(len(TAG + Z)):
        pipeline = Pipeline()
        forward(pipeline, "Q")
        data = TAG + Z + ERROR
        first = pipeline.replies(data[:cut], 0)
        rest = data[cut:]
        first += pipeline.replies(rest, 0)
        assert first == TAG + Z
        assert pipeline.idle()
        assert rest[pipeline.stopped_at :] == ERROR


def test_parameter_status_and_tx_status_are_noted() -> None:
    pipeline = Pipeline()
    forward(pipeline, "bQ")
    status = m.parameter_status(b"a", b"b")
    assert walk(pipeline, TAG + status + m.READY_OPEN + ERROR + m.READY_FAILED, 1) == status + ERROR + m.READY_FAILED
    assert pipeline.statuses == [b"a\0b\0"]
    assert pipeline.tx_status == ord("E")
    assert pipeline.last_error == ERROR[5:]


def test_the_error_of_a_query_of_ours_is_kept_and_not_passed() -> None:
    pipeline = Pipeline()
    forward(pipeline, "b")
    assert walk(pipeline, ERROR + Z) == b""
    assert pipeline.skip_error == ERROR


def test_a_row_passes_in_the_chunks_in_which_it_comes() -> None:
    pipeline = Pipeline()
    forward(pipeline, "Q")
    row = m.data_row([bytes(100_000)])
    for at in range(0, len(row), 1000):
        assert pipeline.replies(row[at : at + 1000], 0) == row[at : at + 1000]
        assert not pipeline.held
    assert walk(pipeline, TAG + Z) == TAG + Z


def test_the_ring_tells_its_room_and_goes_round() -> None:
    pipeline = Pipeline()
    for _ in range(3):
        while pipeline.room():
            pipeline.owe_query(ME)
        assert walk(pipeline, (TAG + Z) * RING_ENTRIES, 4096) == (TAG + Z) * RING_ENTRIES
        assert pipeline.room() == RING_ENTRIES


def test_garbage_never_does_more_than_break_it() -> None:
    dice = random.Random(7)
    for _ in range(3000):
        pipeline = Pipeline()
        forward(pipeline, "".join(dice.choices("QxkSb", k=dice.randrange(8))))
        walk(pipeline, dice.randbytes(dice.randrange(60)), dice.choice((0, 1, 5)))
        assert 0 <= pipeline.done <= pipeline.sent


# --- a model ----------------------------------------------------------------------------------------------------------


class Server:
    """PostgreSQL's side of a pipeline, message by message, in the plainest words: what it says, and what of it passes."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.passes: list[bytes] = []
        self.skipping = False
        self.tx = b"I"

    def say(self, message: bytes, passes: bool = True) -> None:
        self.said.append(message)
        if passes:
            self.passes.append(message)

    def hear(self, step: str, fails: bool) -> None:
        ready = b"Z\0\0\0\5" + self.tx
        if step in "Qb":
            if self.skipping and step == "Q":
                return
            visible = step == "Q"
            if fails:
                self.say(ERROR, visible)
            else:
                self.say(DESCRIPTION, visible)
                self.say(ROW, visible)
                self.say(TAG, visible)
            self.say(ready, visible)
        elif step == "S":
            self.skipping = False
            self.say(ready)
        elif self.skipping:
            return
        elif step in "pc":
            self.passes.append(P1 if step == "p" else C3)
        elif fails:
            self.skipping = True
            self.say(ERROR)
        else:
            self.say(P1, step == "x")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("QxxxkpcSSS"), st.integers(0, 5)), max_size=25),
    st.integers(0, 9),
    st.lists(st.integers(1, 9), max_size=25),
)
def test_any_pipeline_agrees_with_the_model(steps: list[tuple[str, int]], size: int, drains: list[int]) -> None:
    """Requests and replies interleave: after every few requests the server has caught up."""
    server, pipeline = Server(), Pipeline()
    heard = b""
    pause = iter(drains)
    left = next(pause, 99)
    for step, dice in [*steps, ("S", 1)]:
        server.hear(step, dice == 0)
        if step in "pc":
            kind = FAKE_PARSE_COMPLETE if step == "p" else FAKE_CLOSE_COMPLETE
            if pipeline.owe_fake(kind, ME):
                heard += P1 if step == "p" else C3
        else:
            forward(pipeline, step)
        left -= 1
        if left <= 0:
            heard += walk(pipeline, b"".join(server.said), size)
            server.said.clear()
            left = next(pause, 99)
    heard += walk(pipeline, b"".join(server.said), size)
    assert pipeline.broken == 0
    assert heard == b"".join(server.passes)
    assert pipeline.idle()


# --- the client's side ------------------------------------------------------------------------------------------------

STREAM = [
    m.query("SELECT 1"), m.parse(b"s", b"SELECT $1"), m.bind(b"", b"s", (), (b"x" * 300,)), m.execute(), m.SYNC, m.FLUSH,
    m.copy_data(b"a" * 50), m.copy_data(b""), m.COPY_DONE, m.TERMINATE,
]  # fmt: skip


def framed(requests: Requests, chunks: list[bytes]) -> list[bytes]:
    found: list[bytes] = []
    for chunk in chunks:
        requests.feed(chunk)
        while (letter := requests.next()) not in (NOTHING, TOO_LONG):
            data = requests.buffer[requests.start : requests.end]
            if letter == CONTINUED:
                found[-1] += data
            else:
                assert data[0] == letter
                found.append(data)
    return found


@pytest.mark.parametrize("hold_copy", [False, True])
def test_messages_are_framed_the_same_split_at_every_byte(hold_copy: bool) -> None:
    data = b"".join(STREAM)
    for cut in range(len(data) + 1):
        requests = Requests(1 << 20)
        requests.hold_copy = hold_copy
        assert b"".join(framed(requests, [data[:cut], data[cut:]])) == data
    requests = Requests(1 << 20)
    assert b"".join(framed(requests, [data[at : at + 1] for at in range(len(data))])) == data
    assert requests.waiting_bytes() == 0


@pytest.mark.parametrize("hold_copy", [False, True])
def test_every_letter_is_itself(hold_copy: bool) -> None:
    for letter in range(256):
        requests = Requests(1024)
        requests.hold_copy = hold_copy
        requests.feed(bytes([letter]) + (5).to_bytes(4, "big") + b"x")
        assert requests.next() == letter
        assert requests.next() == NOTHING


@pytest.mark.parametrize("length", [0, 3, 1025, 1 << 30, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_lengths_out_of_bounds_are_refused_at_the_header(length: int) -> None:
    requests = Requests(1024)
    requests.feed(b"Q" + length.to_bytes(4, "big"))
    assert requests.next() == TOO_LONG
    assert requests.length == length


def test_a_unit_ends_with_what_ends_in_one_answer() -> None:
    batch = m.parse(b"", b"SELECT 1") + m.bind(b"", b"") + m.execute() + m.SYNC
    data = batch + m.query("x") + batch
    ends = []
    for cut in range(len(data) + 1):
        requests = Requests(1 << 20)
        requests.feed(data[:cut])
        end = requests.unit()
        if end == 0:
            assert cut < len(batch)
            requests.feed(data[cut:])
            end = requests.unit()
        ends.append(end)
    assert set(ends) == {len(batch)}


def test_a_unit_too_long_as_a_whole_is_refused() -> None:
    requests = Requests(100)
    requests.feed(m.parse(b"", b"x" * 60) + m.bind(b"", b"") + m.parse(b"", b"y" * 60))
    assert requests.unit() == -1
