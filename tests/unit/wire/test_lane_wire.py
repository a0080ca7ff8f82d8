"""Of both walks what lanes ask: which batches are one statement's, what a read is answered with, whose each byte is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.wire import messages as m
from node.wire.pipeline import Pipeline
from node.wire.requests import NOTHING, Requests

SQL = b"SELECT $1"
PARSE, BIND, DESCRIBE, EXECUTE = m.parse(b"", SQL), m.bind(b"", b"", (), (b"x",)), m.describe_portal(b""), m.execute()
NAMED = m.bind(b"", b"name", (), (b"x" * 300,))
CLOSE_PORTAL = m.message(b"C", b"P\0")

# what is accepted → (the text of its Parse, the name in its Bind, messages before the Sync)
ACCEPTED: dict[str, tuple[list[bytes], tuple[bytes | None, bytes, int]]] = {
    "all of it": ([PARSE, m.describe_statement(b""), BIND, DESCRIBE, EXECUTE, CLOSE_PORTAL, m.SYNC], (SQL, b"", 6)),
    "asyncpg, unnamed": ([PARSE, BIND, DESCRIBE, EXECUTE, m.SYNC], (SQL, b"", 4)),
    "libpq": ([PARSE, BIND, DESCRIBE, EXECUTE, m.SYNC], (SQL, b"", 4)),
    "no Describe": ([PARSE, BIND, EXECUTE, m.SYNC], (SQL, b"", 3)),
    "named": ([NAMED, EXECUTE, m.SYNC], (None, b"name", 2)),
    "named, described": ([NAMED, DESCRIBE, EXECUTE, m.SYNC], (None, b"name", 3)),
    "types declared": ([m.parse(b"", SQL, (25,)), BIND, EXECUTE, m.SYNC], (SQL, b"", 3)),
    "an empty text": ([m.parse(b"", b""), m.bind(b"", b""), EXECUTE, m.SYNC], (b"", b"", 3)),
}
REFUSED: dict[str, list[bytes]] = {
    "nothing": [],
    "a Sync": [m.SYNC],
    "a Query": [m.query(SQL)],
    "no Sync": [PARSE, BIND, EXECUTE],
    "a Flush": [PARSE, BIND, EXECUTE, m.FLUSH],
    "a Flush within": [PARSE, BIND, EXECUTE, m.FLUSH, m.SYNC],
    "something behind it": [PARSE, BIND, EXECUTE, m.SYNC, m.SYNC],
    "half a message behind it": [PARSE, BIND, EXECUTE, m.SYNC, b"Q\0\0"],
    "a named Parse": [m.parse(b"s", SQL), m.bind(b"", b"s"), EXECUTE, m.SYNC],
    "a named Parse, the unnamed bound": [m.parse(b"s", SQL), BIND, EXECUTE, m.SYNC],
    "a Parse, another statement bound": [PARSE, NAMED, EXECUTE, m.SYNC],
    "the unnamed statement of an earlier batch": [BIND, EXECUTE, m.SYNC],
    "a named portal": [PARSE, m.bind(b"p", b""), m.execute(b"p"), m.SYNC],
    "another portal executed": [PARSE, BIND, m.execute(b"p"), m.SYNC],
    "another portal described": [PARSE, BIND, m.describe_portal(b"p"), EXECUTE, m.SYNC],
    "a named statement described": [m.describe_statement(b"name"), NAMED, EXECUTE, m.SYNC],
    "the unnamed statement described, which is not of this batch": [m.describe_statement(b""), NAMED, EXECUTE, m.SYNC],
    "some rows": [PARSE, BIND, m.execute(b"", 1), m.SYNC],
    "executed twice": [PARSE, BIND, EXECUTE, EXECUTE, m.SYNC],
    "bound twice": [PARSE, BIND, BIND, EXECUTE, m.SYNC],
    "parsed twice": [PARSE, PARSE, BIND, EXECUTE, m.SYNC],
    "parsed after it was bound": [NAMED, PARSE, EXECUTE, m.SYNC],
    "not executed": [PARSE, BIND, DESCRIBE, m.SYNC],
    "not bound": [PARSE, EXECUTE, m.SYNC],
    "described before it is bound": [PARSE, DESCRIBE, BIND, EXECUTE, m.SYNC],
    "described after it was executed": [PARSE, BIND, EXECUTE, DESCRIBE, m.SYNC],
    "closed before it is executed": [PARSE, BIND, CLOSE_PORTAL, EXECUTE, m.SYNC],
    "a statement closed": [NAMED, EXECUTE, m.close_statement(b"name"), m.SYNC],
    "a function call": [m.message(b"F", b"\0\0\0\1\0\0\0\0\0\0")],
    "copy data": [PARSE, BIND, EXECUTE, m.copy_data(b"x"), m.SYNC],
    "the end": [PARSE, BIND, EXECUTE, m.TERMINATE],
    "a Sync with a body": [PARSE, BIND, EXECUTE, m.message(b"S", b"x")],
    "a text without an end": [m.message(b"P", b"\0SELEC"), BIND, EXECUTE, m.SYNC],
    "a name without an end": [m.message(b"B", b"\0namenamename"), EXECUTE, m.SYNC],
}


def found(requests: Requests) -> tuple[bytes | None, bytes, int]:
    buffer = requests.buffer
    text = buffer[requests.text_at : requests.text_end] if requests.text_at else None
    return text, buffer[requests.name_at : requests.name_end], requests.count


def fed(data: bytes, limit: int = 1 << 20) -> Requests:
    requests = Requests(limit)
    requests.feed(data)
    return requests


@pytest.mark.parametrize("name", ACCEPTED)
def test_batches_that_drivers_send(name: str) -> None:
    parts, wanted = ACCEPTED[name]
    data = b"".join(parts)
    requests = fed(data)
    assert requests.batch(0)
    assert found(requests) == wanted
    assert requests.buffer[requests.bind_at : requests.bind_at + 1] == b"B"
    for cut in range(len(data)):
        assert not fed(data[:cut]).batch(0), f"torn at {cut}"
    assert not fed(data, limit=3).batch(0)
    ahead = m.query(b"before")
    behind = fed(ahead + data)
    assert behind.batch(len(ahead))
    assert found(behind) == wanted


@pytest.mark.parametrize("name", REFUSED)
def test_batches_of_any_other_shape_go_alone(name: str) -> None:
    assert not fed(b"".join(REFUSED[name])).batch(0)


def test_what_is_torn_already_is_no_batch() -> None:
    requests = fed(PARSE[:-1])
    assert requests.next() == NOTHING
    assert requests.need
    assert not requests.batch(0)


def meaning(data: bytes) -> tuple[bytes | None, bytes, int] | None:
    """The same question, asked slowly: of whole messages, one after the other."""
    parts, at = [], 0
    while at < len(data):
        if len(data) - at < 5:
            return None
        length = int.from_bytes(data[at + 1 : at + 5], "big")
        if length < 4 or at + 1 + length > len(data):
            return None
        parts.append((data[at : at + 1], data[at + 5 : at + 1 + length]))
        at += 1 + length
    letters = b"".join(letter for letter, _ in parts).decode("latin-1")
    if not letters.endswith("S") or letters.count("B") != 1 or letters.count("E") != 1 or "S" in letters[:-1]:
        return None
    if letters.strip("PDBECS") or letters.count("P") > 1 or ("P" in letters and letters[0] != "P"):
        return None
    text, name = None, b""
    for number, (letter, body) in enumerate(parts):
        before = letters[:number]
        try:
            if letter == b"P":
                statement, text, _ = body.split(b"\0", 2)
                if statement:
                    return None
            elif letter == b"B":
                portal, name, _ = body.split(b"\0", 2)
                if portal or (name == b"") != (text is not None):
                    return None
            elif letter == b"D":
                ready = text is not None if body == b"S\0" else body == b"P\0" and "B" in before
                if not ready or "E" in before:
                    return None
            elif letter == b"E":
                if body != b"\0\0\0\0\0" or "B" not in before:
                    return None
            elif letter == b"C" and (body != b"P\0" or "E" not in before):
                return None
        except ValueError:
            return None
        if letter == b"S" and body:
            return None
    return text, name, len(parts) - 1


def test_a_mutated_batch_is_refused_or_means_what_it_says() -> None:
    dice = random.Random(3)
    accepted = 0
    for _ in range(30_000):
        data = bytearray(b"".join(dice.choice(list(ACCEPTED.values()))[0]))
        if dice.random() < 0.3:
            data = bytearray(b"".join(dice.choice(list(REFUSED.values())))) or data
        for _ in range(dice.choice((1, 1, 2, 5))):
            match dice.randrange(4):
                case 0:
                    data[dice.randrange(len(data))] = dice.choice((0, 4, 6, 9, 80, 66, 83, 255, dice.randrange(256)))
                case 1:
                    del data[(at := dice.randrange(len(data))) : at + dice.randrange(3)]
                case 2:
                    at = dice.randrange(len(data))
                    data[at:at] = dice.randbytes(1)
                case 3:
                    at = dice.randrange(len(data))
                    data[at:at] = dice.choice((m.SYNC, m.FLUSH, EXECUTE, b"\0", b"\0\0\0\0"))
            if not data:
                break
        requests = fed(bytes(data))
        if requests.batch(0):
            accepted += 1
            assert found(requests) == meaning(bytes(data)), bytes(data)
    assert accepted > 500


def test_the_slow_question_agrees_about_the_table() -> None:
    for parts, wanted in ACCEPTED.values():
        assert meaning(b"".join(parts)) == wanted
    for name, parts in REFUSED.items():
        assert meaning(b"".join(parts)) is None, name


def test_a_unit_given_back_comes_first_again() -> None:
    for unit in (m.query("SELECT 1"), PARSE + BIND + EXECUTE + m.SYNC):
        for since in (b"", m.query("INSERT"), m.query("INSERT")[:7], b"Q"):
            requests = fed(unit)
            requests.at = len(requests.buffer)
            if since:
                requests.feed(since)
            requests.give_back(unit)
            assert requests.waiting_bytes() == len(unit + since)
            seen = b""
            while requests.next() != NOTHING:
                seen += requests.buffer[requests.start : requests.end]
            assert seen == (unit + since)[: len(seen)]
            requests.feed(m.query("INSERT")[len(since) :] if since else b"")
            while requests.next() != NOTHING:
                seen += requests.buffer[requests.start : requests.end]
            assert seen == unit + (m.query("INSERT") if since else b"")


# --- replies on a lane -----------------------------------------------------------------------------------------------

ROW, TAG, DESCRIPTION = m.data_row([b"1"]), m.command_complete("SELECT 1"), m.row_description([m.Column(b"a", 23)])
ERROR = m.message(b"E", m.error_fields("ERROR", "42601", "syntax error"))
UNFIT = {
    "CopyIn": m.message(b"G", b"\0\0\0"), "CopyOut": m.message(b"H", b"\0\0\0"), "CopyBoth": m.message(b"W", b"\0\0\0"),
    "CopyData": m.copy_data(b"x"), "CopyDone": m.COPY_DONE, "suspended": m.PORTAL_SUSPENDED,
    "notification": m.message(b"A", b"\0\0\0\1a\0\0"), "function": m.message(b"V", b"\xff\xff\xff\xff"),
    "in a transaction": m.READY_OPEN, "failed": m.READY_FAILED, "authentication": m.message(b"R", b"\0\0\0\0"),
    "key": m.message(b"K", b"12345678"), "unknown": b"?\0\0\0\4", "no length": b"D\0\0\0\3",
    "too long a ready": m.message(b"Z", b"II"),
}  # fmt: skip


def lane() -> Pipeline:
    pipeline = Pipeline()
    pipeline.shared = True
    return pipeline


@pytest.mark.parametrize("name", UNFIT)
def test_what_no_read_is_answered_with_breaks_a_lane(name: str) -> None:
    for batch in (False, True):
        before = m.PARSE_COMPLETE + m.BIND_COMPLETE + ROW if batch else DESCRIPTION + ROW
        for at in (0, len(before)):
            for size in (1, 1 << 20):
                pipeline = lane()
                for _ in range(2):
                    if batch:
                        pipeline.owe_unit(3, "me")
                    else:
                        pipeline.owe_query("me")
                said = before[:at] + UNFIT[name]
                for start in range(0, len(said), size):
                    if not pipeline.broken:
                        pipeline.replies(said[start : start + size], 0)
                assert pipeline.broken == UNFIT[name][0]
                assert pipeline.units == 0


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, DESCRIPTION + ROW + TAG), (0, TAG), (0, m.EMPTY_QUERY), (0, ERROR), (0, DESCRIPTION + ROW + ERROR),
        (3, m.PARSE_COMPLETE + m.BIND_COMPLETE + TAG), (3, m.PARSE_COMPLETE + ERROR), (3, ERROR),
        (5, m.PARSE_COMPLETE + m.message(b"t", b"\0\0") + DESCRIPTION + m.BIND_COMPLETE + DESCRIPTION + ROW * 3 + TAG),
        (3, m.BIND_COMPLETE + TAG + m.CLOSE_COMPLETE), (2, m.notice("x") + m.BIND_COMPLETE + m.notice("x") + TAG),
    ],
)  # fmt: skip
def test_what_a_read_is_answered_with_fits(count: int, said: bytes) -> None:
    said += m.READY_IDLE
    for size in (1, 4, 1 << 20):
        pipeline = lane()
        if count:
            pipeline.owe_unit(count, "me")
        else:
            pipeline.owe_query("me")
        heard = b"".join(pipeline.replies(said[at : at + size], 0) for at in range(0, len(said), size))
        assert heard == said
        assert (pipeline.broken, pipeline.units) == (0, 1)
        assert pipeline.idle()


@pytest.mark.parametrize(
    ("count", "said"), [(0, b""), (0, DESCRIPTION), (0, ROW), (3, b""), (3, m.BIND_COMPLETE), (3, m.BIND_COMPLETE * 4)]
)
def test_too_little_and_too_much_do_not_fit(count: int, said: bytes) -> None:
    pipeline = lane()
    if count:
        pipeline.owe_unit(count, "me")
    else:
        pipeline.owe_query("me")
    pipeline.replies(said + m.READY_IDLE, 0)
    assert pipeline.broken
    assert pipeline.units == 0


unit = st.tuples(st.sampled_from(("query", "batch", "batch with a Parse ahead", "error")), st.integers(0, 3))


@settings(max_examples=300, deadline=None)
@given(st.lists(unit, min_size=1, max_size=12), st.sets(st.integers(0, 11)), st.integers(1, 80), st.integers(0, 11))
def test_each_owner_hears_its_own(units: list[tuple[str, int]], gone: set[int], size: int, when: int) -> None:
    """Owners leave before and during the replies."""
    pipeline = lane()
    said = b""
    wanted: dict[object, bytes] = {}
    owners = []
    for number, (kind, _) in enumerate(units):
        owner = [number]
        row = m.data_row([b"%d" % number])
        if kind == "query":
            pipeline.owe_query(owner)
            reply = DESCRIPTION + row + TAG + m.READY_IDLE
            said += reply
        elif kind == "error":
            pipeline.owe_unit(3, owner)
            reply = m.PARSE_COMPLETE + ERROR + m.READY_IDLE
            said += reply
        else:
            if kind != "batch":
                pipeline.owe_skipped(owner)
                said += m.PARSE_COMPLETE
            pipeline.owe_unit(2, owner)
            reply = m.BIND_COMPLETE + row + TAG + m.READY_IDLE
            said += reply
        owners.append(owner)
        wanted[number] = reply
    for number in gone:
        if number < len(owners) and number % 2:
            assert pipeline.change_owner(owners[number], None)
    left = [owner for number, owner in enumerate(owners) if not (number in gone and number % 2)]
    assert pipeline.all_owners() == left
    heard: dict[object, bytes] = {}
    ended = 0
    for at in range(0, len(said), size):
        chunk, start = said[at : at + size], 0
        while True:
            head = pipeline.head_owner()
            data = pipeline.replies(chunk, start)
            if head is not None:
                heard[head[0]] = heard.get(head[0], b"") + data
            assert not pipeline.broken
            if pipeline.units > ended:
                ended = pipeline.units
                if ended == when:
                    for number in gone:
                        if number < len(owners):
                            pipeline.change_owner(owners[number], None)
            start = pipeline.stopped_at
            if not start:
                break
    assert pipeline.idle()
    assert pipeline.units == len(units)
    for number in range(len(units)):
        if number not in gone:
            assert heard[number] == wanted[number]
        else:
            assert wanted[number].startswith(heard.get(number, b""))


def test_an_owner_changes_hands_with_all_its_entries() -> None:
    pipeline = lane()
    one, two = object(), object()
    pipeline.owe_skipped(one)
    pipeline.owe_skipped(one)
    pipeline.owe_unit(2, one)
    pipeline.owe_query(two)
    crowd = [one]
    assert pipeline.change_owner(one, crowd)
    assert not pipeline.change_owner(one, None)
    assert [id(owner) for owner in pipeline.all_owners()] == [id(crowd), id(two)]
    assert pipeline.head_owner() is crowd
