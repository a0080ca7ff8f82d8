"""The judge of the identity load is judged: what is wrong with an answer it must say, what is right must pass."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from node.embedded.identity import wire
from node.embedded.identity.judge import Judge, Unit, Wrong, strangers
from node.embedded.identity.run import dump, ledger_wrongs
from node.embedded.identity.units import Author
from node.embedded.identity.weather import AWAY, GONE, Weather
from node.embedded.identity.works import insert, transaction, wide
from node.embedded.identity.world import COUNTER_START, World
from node.wire import messages as m

SAID = {
    name: wire.message(b"N" if name == "notice" else b"E", b"SERROR\0VERROR\0C22P02\0Mc1s1:learned\0\0")
    for name in ("cast", "syntax", "column", "division", "bind", "notice")
}
OIDS = dict.fromkeys(("own", "ledger", "hot", "counters", "locks"), (16384,))
ROW = wire.row_description([(b"t", wire.TEXT)])


def world(seed: int = 1) -> World:
    return World(seed, 100, SAID, OIDS)


def answer(*values: bytes, ready: bytes = wire.READY) -> bytes:
    rows = b"".join(wire.data_row(value) for value in values)
    return ROW + rows + wire.complete(b"SELECT %d" % len(values)) + ready


def unit(expected: bytes = answer(b"c1s1:a", b"c1s1:b"), **more: object) -> Unit:
    return Unit("test", "simple", b"", expected, **more)  # type: ignore[arg-type]


def error(sqlstate: str, severity: str = "ERROR") -> bytes:
    return wire.message(b"E", f"S{severity}\0V{severity}\0C{sqlstate}\0Mwhat\0\0".encode())


def judge(*units: Unit, explained: frozenset[str] = frozenset()) -> Judge:
    made = Judge(lambda unit, sqlstate, fatal: sqlstate in explained)
    made.owed.extend(units)
    return made


RIGHT = answer(b"c1s1:a", b"c1s1:b")
NOTICE = wire.message(b"N", b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0")
WRONGS = {
    "a foreign value": answer(b"c1s1:a", b"c2s9:b"),
    "a foreign value of another length": answer(b"c1s1:a", b"c2s99999:b"),
    "a missing row": answer(b"c1s1:a"),
    "a row too many": answer(b"c1s1:a", b"c1s1:b", b"c1s1:b"),
    "rows in another order": answer(b"c1s1:b", b"c1s1:a"),
    "no row description": RIGHT[len(ROW) :],
    "a doubled row description": ROW + RIGHT,
    "a doubled ReadyForQuery": RIGHT + wire.READY,
    "another transaction status": answer(b"c1s1:a", b"c1s1:b", ready=wire.READY_IN_TRANSACTION),
    "a notice before": NOTICE + RIGHT,
    "a notice in between": ROW + NOTICE + RIGHT[len(ROW) :],
    "a notice afterwards": RIGHT + NOTICE,
    "a notice before the end": RIGHT[:-6] + NOTICE + wire.READY,
    "a parameter status": wire.message(b"S", b"TimeZone\0UTC\0") + RIGHT,
    "NULL for a value": ROW + wire.data_row(None) + wire.data_row(b"c1s1:b") + wire.complete(b"SELECT 2") + wire.READY,
    "another count": RIGHT.replace(b"SELECT 2", b"SELECT 3"),
    "another tag": RIGHT.replace(b"SELECT 2", b"DELETE 2"),
    "no CommandComplete": ROW + wire.data_row(b"c1s1:a") + wire.data_row(b"c1s1:b") + wire.READY,
    "an answer of the extended protocol": wire.PARSED + wire.BOUND + RIGHT,
    "the answer of an empty query": wire.EMPTY + wire.READY,
    "the answer twice": RIGHT + RIGHT,
    "somebody else's answer first": answer(b"c2s1:x") + RIGHT,
    "an error nobody explains": error("57014") + wire.READY,
    "an error after a row": ROW + wire.data_row(b"c1s1:a") + error("XX000") + wire.READY,
    "a FATAL error nobody explains": error("57P05", "FATAL"),
    "letters that are no protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a length below four": b"D\0\0\0\0" + RIGHT,
}


@pytest.mark.parametrize("wrong", WRONGS.values(), ids=WRONGS.keys())
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_every_wrong_is_noticed_however_it_is_cut(wrong: bytes, size: int) -> None:
    judged = judge(unit(), explained=frozenset({"57P01"}))
    with pytest.raises(Wrong):
        for start in range(0, len(wrong), size):
            judged.receive(wrong[start : start + size])


@pytest.mark.parametrize("size", [1, 2, 5, 64, 10_000])
def test_right_answers_pass_in_every_cut(size: int) -> None:
    units = [unit(), unit(answer(b"c1s2:")), unit(wire.EMPTY + wire.READY), unit()]
    judged = judge(*units)
    data = b"".join(one.expected for one in units)
    over = [one for start in range(0, len(data), size) for one in judged.receive(data[start : start + size])]
    assert over == [(one, "") for one in units]
    assert not judged.owed


@pytest.mark.parametrize("at", range(len(RIGHT)))
def test_every_single_byte_counts(at: int) -> None:
    """A changed byte is wrong at once, unless it is in a length: then the judge may wait for what never comes."""
    changed = bytearray(RIGHT)
    changed[at] ^= 1
    judged = judge(unit())
    try:
        over = judged.receive(bytes(changed))
    except Wrong:
        return
    assert over == []
    lengths, start = set(), 0
    while start < len(RIGHT):
        lengths |= set(range(start + 1, start + 5))
        start += int.from_bytes(RIGHT[start + 1 : start + 5], "big") + 1
    assert at in lengths


def test_answers_of_pipelined_units_must_not_change_places() -> None:
    judged = judge(unit(answer(b"c1s1:")), unit(answer(b"c1s2:")))
    with pytest.raises(Wrong, match="differs"):
        judged.receive(answer(b"c1s2:") + answer(b"c1s1:"))


def test_bytes_that_nobody_asked_for() -> None:
    with pytest.raises(Wrong, match="nothing is owed"):
        judge().receive(wire.READY)


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_an_explained_error_ends_its_unit_only(size: int) -> None:
    first, second = unit(), unit(answer(b"c1s2:"))
    judged = judge(first, second, explained=frozenset({"57P01"}))
    data = ROW + wire.data_row(b"c1s1:a") + error("57P01") + wire.READY + second.expected
    over = [one for start in range(0, len(data), size) for one in judged.receive(data[start : start + size])]
    assert over == [(first, "57P01"), (second, "")]


def test_rows_before_an_explained_error_must_be_the_own_ones() -> None:
    judged = judge(unit(), explained=frozenset({"57P01"}))
    with pytest.raises(Wrong, match="differs"):
        judged.receive(ROW + wire.data_row(b"c2s1:a") + error("57P01") + wire.READY)


@pytest.mark.parametrize(
    ("in_transaction", "ready"), [(False, wire.READY_FAILED), (True, wire.READY), (False, RIGHT), (True, NOTICE)]
)
def test_after_an_error_comes_the_right_ready_for_query(in_transaction: bool, ready: bytes) -> None:
    judged = judge(unit(in_transaction=in_transaction), explained=frozenset({"57P01"}))
    with pytest.raises(Wrong):
        judged.receive(error("57P01") + ready)


@pytest.mark.parametrize("ready", [wire.READY, wire.READY_FAILED])
@pytest.mark.parametrize("size", [1, 1000])
def test_a_query_that_opens_a_transaction_may_leave_it_failed(ready: bytes, size: int) -> None:
    one = unit(opens_transaction=True)
    judged, data = judge(one, explained=frozenset({"57P01"})), error("57P01") + ready
    over = [was for start in range(0, len(data), size) for was in judged.receive(data[start : start + size])]
    assert over == [(one, "57P01")]
    assert one.in_transaction == (ready == wire.READY_FAILED)


def test_after_a_fatal_error_nothing_comes_but_one_more() -> None:
    judged = judge(unit(), explained=frozenset({"57P01", "08006"}))
    assert judged.receive(error("57P01", "FATAL")) == []
    assert judged.ended == "57P01"
    assert judged.receive(error("08006", "FATAL")) == []
    assert judged.ended == "57P01 then 08006"
    with pytest.raises(Wrong, match="after the FATAL"):
        judged.receive(error("08006", "FATAL"))


@pytest.mark.parametrize("more", [wire.READY, RIGHT, error("08006"), error("57014", "FATAL"), error("08006")[:9]])
def test_after_a_fatal_error_other_bytes_are_wrong(more: bytes) -> None:
    with pytest.raises(Wrong, match="after the FATAL"):
        judge(unit(), explained=frozenset({"57P01", "08006"})).receive(error("57P01", "FATAL") + more)


def test_answers_of_another_shard_are_as_right() -> None:
    other = answer(b"c1s1:a", b"c1s1:b").replace(b"\0\0\0\0\0\0\0\0", b"\0\0\x40\0\0\0\0\0", 1)
    one = unit(others=(other,))
    assert judge(one).receive(other) == [(one, "")]
    with pytest.raises(Wrong):
        judge(unit()).receive(other)


@pytest.mark.parametrize("size", [1, 11, 1000])
@pytest.mark.parametrize(("seen", "right"), [(0, True), (7, True), (-1, False), (-5 * 10**10, False)])
def test_a_counter_never_goes_back(seen: int, right: bool, size: int) -> None:
    made = world()
    made.counters = [2 * COUNTER_START] * 4
    counter = Author(made, 3).counter()
    data = counter.expected.replace(b"%d" % (2 * COUNTER_START), b"%d" % (2 * COUNTER_START + seen))
    judged, pieces = judge(counter), [data[start : start + size] for start in range(0, len(data), size)]
    if right:
        assert [one for piece in pieces for one in judged.receive(piece)] == [(counter, "")]
    else:
        with pytest.raises(Wrong):
            for piece in pieces:
                judged.receive(piece)


def test_a_counters_answer_is_judged_like_every_other() -> None:
    counter = Author(world(), 3).counter()
    for wrong in (counter.expected[:-6] + NOTICE + wire.READY, counter.expected.replace(b"SELECT 1", b"SELECT 2")):
        with pytest.raises(Wrong):
            judge(Author(world(), 3).counter()).receive(wrong)


def test_a_counters_answer_that_is_too_short_does_not_wait_for_more() -> None:
    counter = Author(world(), 3).counter()
    with pytest.raises(Wrong):
        judge(counter).receive(counter.expected.replace(b"%d" % COUNTER_START, b"7"))


def test_what_was_not_written_may_be_missed_only_after_an_error() -> None:
    written, look = insert(Author(world(), 3))
    missing = look.expected.replace(wire.data_row(b"1", look.expected), b"")
    none = written.if_failed
    assert missing != none
    with pytest.raises(Wrong):
        judge(written, look).receive(written.expected + none)
    written, look = insert(Author(world(), 3))
    judged = judge(written, look, explained=frozenset({"08006"}))
    assert judged.receive(error("08006") + wire.READY + none) == [(written, "08006"), (look, "")]


def test_strangers_are_named() -> None:
    assert strangers(b"..c1s2:abc..c17s3:..c9s4", 1) == {17}


def test_units_follow_from_the_seed() -> None:
    def sent(seed: int) -> list[bytes]:
        author = Author(world(seed), 7)
        return [author.draw().sent for _ in range(300)]

    assert sent(1) == sent(1)
    assert sent(1) != sent(2)


def test_no_two_clients_select_the_same_except_where_they_are_meant_to() -> None:
    shared = {"hot", "counter", "nothing", "sync", "close"}
    asked_by: dict[bytes, int] = {}
    for number in range(20):
        author = Author(world(), number)
        for drawn in [author.draw() for _ in range(300)]:
            if drawn.kind not in shared:
                assert asked_by.setdefault(drawn.sent, number) == number


def test_expected_answers_are_whole_messages() -> None:
    """Read by the proxy's own reader, which was written apart from the messages here."""
    author = Author(world(), 7)
    units = [author.draw() for _ in range(2000)] + [wide(author), *insert(author), transaction(author)]
    letters = set()
    for one in units:
        data, at, columns = one.expected, 0, 0
        while at < len(data):
            letter, size = data[at : at + 1], int.from_bytes(data[at + 1 : at + 5], "big")
            body = data[at + 5 : at + 1 + size]
            if letter == b"T":
                columns = len(m.parse_row_description(body))
            elif letter == b"D" and b"T" in data[:1] + data[5:6] + data[10:11]:
                assert len(m.parse_data_row(body)) == columns
            letters.add(letter)
            at += size + 1
        assert at == len(data)
        assert data.endswith((wire.READY, wire.READY_IN_TRANSACTION))
    assert letters >= {
        b"1",
        b"2",
        b"3",
        b"C",
        b"D",
        b"E",
        b"H",
        b"I",
        b"N",
        b"T",
        b"Z",
        b"c",
        b"d",
        b"n",
        b"s",
        b"t",
    } - {b"3"}


def test_a_fault_explains_what_was_under_way_and_nothing_else() -> None:
    weather = Weather()
    window = weather.begins(10.0, GONE)
    assert weather.explains("57P01", 9.0, 11.0)
    assert not weather.explains("57014", 9.0, 11.0)
    assert not weather.explains("57P01", 8.0, 9.0)
    window.end = 12.0
    assert weather.explains("57P01", 11.9, 30.0)
    assert not weather.explains("57P01", 12.1, 13.0)
    assert "57P03" in AWAY - GONE


def test_the_ledger_tells_lost_doubled_and_undead_rows() -> None:
    asked = {1: (4, {2, 3}, {4})}
    assert ledger_wrongs(asked, Counter({(1, 1): 1, (1, 2): 1})) == []
    assert ledger_wrongs(asked, Counter({(1, 2): 1})) == ["row 1 of client 1 was acknowledged and is not there"]
    assert ledger_wrongs(asked, Counter({(1, 1): 1, (1, 3): 2})) == ["row 3 of client 1 was written 2 times"]
    assert ledger_wrongs(asked, Counter({(1, 1): 2})) == ["row 1 of client 1 was written 2 times"]
    assert ledger_wrongs(asked, Counter({(1, 1): 1, (1, 4): 1})) == ["row 4 of client 1 was rolled back and is there"]
    assert ledger_wrongs(asked, Counter({(1, 1): 1, (9, 1): 1})) == ["row 1 of client 9 was never asked for"]


def test_messages_are_what_the_proxys_own_writer_makes() -> None:
    dice = random.Random(3)
    for _ in range(50):
        values = [None if dice.random() < 0.2 else dice.randbytes(dice.randrange(30)) for _ in range(dice.randrange(5))]
        assert wire.data_row(*values) == m.data_row(values)
        assert wire.bind(values, [], 0, b"p") == m.bind(b"", b"p", [], values)
    assert wire.query(b"SELECT 1") == m.query("SELECT 1")
    assert wire.parse(b"SELECT $1", [23], b"p") == m.parse(b"p", b"SELECT $1", [23])
    assert wire.execute(2) == m.execute(b"", 2)
    assert m.execute() == wire.EXECUTE
    assert wire.describe(b"p") == m.describe_statement(b"p")
    assert wire.close(b"p") == m.close_statement(b"p")
    assert m.describe_portal(b"") == wire.DESCRIBE_PORTAL


def test_a_dump_shows_bytes_and_letters() -> None:
    assert dump(b"Q\0ab") == "  000000  51 00 61 62                                      Q.ab"
    assert dump(b"") == "  nothing"
