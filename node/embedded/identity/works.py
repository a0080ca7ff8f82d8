"""What is no fast read: writes and transactions, locks, slow statements, large answers."""

from __future__ import annotations

from node.embedded.identity import wire
from node.embedded.identity.judge import Unit
from node.embedded.identity.units import Author
from node.embedded.identity.wire import (
    BOUND,
    DESCRIBE_PORTAL,
    EXECUTE,
    PARSED,
    READY,
    READY_FAILED,
    READY_IN_TRANSACTION,
    SYNC,
    TEXT,
    data_row,
    row_description,
)
from node.embedded.identity.world import LOCKS

WIDE_ROWS = 2000

_one = wire.complete(b"SELECT 1")
_inserted = wire.complete(b"INSERT 0 1")
_begun, _committed = wire.complete(b"BEGIN"), wire.complete(b"COMMIT")
_rolled_back = wire.complete(b"ROLLBACK")
_text = row_description([(b"t", TEXT)])
_counted = row_description([(b"count", wire.INT8), (b"v", TEXT)])
_wide = row_description([(b"a", wire.INT4), (b"b", TEXT)])
_slept = row_description([(b"z", wire.VOID), (b"t", TEXT)])
_insert_parse = wire.parse(b"INSERT INTO ledger (client, n, v) VALUES ($1, $2, $3)")

ROLLBACK = wire.query(b"ROLLBACK")


def rollback() -> Unit:
    """The end of a transaction that failed."""
    return Unit("rollback", "simple", ROLLBACK, _rolled_back + READY, plain_read=False)


def chain(*steps: Unit) -> Unit:
    """One after the other, each sent when the one before it has been answered as it should."""
    for step, following in zip(steps, steps[1:], strict=False):
        step.then = following
    return steps[0]


def insert(author: Author) -> list[Unit]:
    """A row of the ledger, by one protocol or the other, and at once the question how many of it there are."""
    mark = author.mark()
    author.written += 1
    n = author.written
    if n & 1:
        sent, expected = wire.query(_insert(author, n, mark)), _inserted + READY
    else:
        values = [b"%d" % author.number, b"%d" % n, mark]
        sent = _insert_parse + wire.bind(values) + DESCRIBE_PORTAL + EXECUTE + SYNC
        expected = PARSED + BOUND + wire.NO_DATA + _inserted + READY
    protocol = "simple" if n & 1 else "extended"
    none = _counted + data_row(b"0", None) + _one + READY
    written = Unit("insert", protocol, sent, expected, plain_read=False, writes=n, if_failed=none)
    return [written, _count(author, n, mark)]


def transaction(author: Author) -> Unit:
    """A transaction in steps; or in one Query; or one that fails on purpose and must leave nothing."""
    mark, dice = author.mark(), author.dice.random()
    author.written += 1
    n = author.written
    if dice < 0.3:
        sql = b"BEGIN; %b; %b; COMMIT" % (_insert(author, n, mark), _count_sql(author, n))
        expected = _begun + _inserted + _counted + data_row(b"1", mark) + _one + _committed + READY
        return Unit(
            "transaction", "simple", wire.query(sql), expected, plain_read=False, opens_transaction=True, writes=n
        )
    begin = _step("begin", b"BEGIN", _begun)
    row = _step("insert", _insert(author, n, mark), _inserted)
    look = _step("look", _count_sql(author, n), _counted + data_row(b"1", mark) + _one)
    if dice < 0.9:
        return chain(begin, row, look, _step("commit", b"COMMIT", _committed, READY, writes=n))
    failed = author.world.message("cast", mark[:40])
    wrong = _step("cast", b"SELECT '%b'::int4" % mark[:40], failed, READY_FAILED)
    end = rollback()
    none = Unit(
        "look", "simple", wire.query(_count_sql(author, n)), _counted + data_row(b"0", None) + _one + READY, writes=-n
    )
    return chain(begin, row, wrong, end, none)


def locked(author: Author) -> Unit:
    """Holds a row for a while that others want too."""
    mark, key = author.mark(), int(author.dice.random() * LOCKS)
    answers = [one + data_row(b"%d" % key) + _one for one in author.world.description("locks", b"id")]
    lock = _step("lock", b"SELECT id FROM locks WHERE id = %d FOR UPDATE" % key, answers[0])
    lock.others = tuple(answer + READY_IN_TRANSACTION for answer in answers[1:])
    hold = _step("hold", b"SELECT nap(0.05, '%b') AS t" % mark, _text + data_row(mark) + _one)
    return chain(_step("begin", b"BEGIN", _begun), lock, hold, _step("commit", b"COMMIT", _committed, READY))


def tick(author: Author, key: int, value: int) -> Unit:
    """Raises a counter that others read; one that comes late, from a connection given up, must not lower it."""
    author.made += 1
    sql = b"UPDATE counters SET n = greatest(n, %d) WHERE id = %d" % (value, key)
    return Unit("tick", "simple", wire.query(sql), wire.complete(b"UPDATE 1") + READY, plain_read=False)


def sleeping(author: Author, seconds: float, kind: str = "sleep") -> Unit:
    mark = author.mark()
    if author.made & 1:
        sql, head = b"SELECT pg_sleep(%.3f) AS z, '%b'::text AS t" % (seconds, mark), _slept + data_row(b"", mark)
    else:
        sql, head = b"SELECT nap(%.3f, '%b') AS t" % (seconds, mark), _text + data_row(mark)
    return Unit(kind, "simple", wire.query(sql), head + _one + READY, plain_read=False)


def wide(author: Author) -> Unit:
    """Half a megabyte in rows that all carry the mark."""
    mark = author.mark(20)
    row = data_row(b"000000", b"%b%b" % (mark, b"." * 200))
    head, rest = row[:11], row[17:]
    assert row[11:17] == b"000000"
    rows = head + (rest + head).join([b"%06d" % n for n in range(100_000, 100_000 + WIDE_ROWS)]) + rest
    sql = b"SELECT g AS a, '%b' || repeat('.', 200) AS b FROM generate_series(%d, %d) AS g" % (
        mark,
        100_000,
        100_000 + WIDE_ROWS - 1,
    )
    expected = _wide + rows + wire.complete(b"SELECT %d" % WIDE_ROWS) + READY
    return Unit("wide", "simple", wire.query(sql), expected, plain_read=False)


def huge(author: Author) -> Unit:
    """One row of 100 MB."""
    mark = author.mark(40)
    count = author.world.huge_bytes // len(mark)
    sql = b"SELECT repeat('%b', %d) AS t" % (mark, count)
    return Unit("huge", "simple", wire.query(sql), _text + data_row(mark * count) + _one + READY, plain_read=False)


def _step(kind: str, sql: bytes, answer: bytes, ready: bytes = READY_IN_TRANSACTION, writes: int = 0) -> Unit:
    """One statement of a transaction; a failed BEGIN or COMMIT leaves no transaction behind."""
    inside = kind not in ("begin", "commit")
    return Unit(kind, "simple", wire.query(sql), answer + ready, plain_read=False, in_transaction=inside, writes=writes)


def _insert(author: Author, n: int, mark: bytes) -> bytes:
    return b"INSERT INTO ledger (client, n, v) VALUES (%d, %d, '%b')" % (author.number, n, mark)


def _count_sql(author: Author, n: int) -> bytes:
    return b"SELECT count(*) AS count, max(v) AS v FROM ledger WHERE client = %d AND n = %d" % (author.number, n)


def _count(author: Author, n: int, mark: bytes) -> Unit:
    """Right after the INSERT, in one write with it: it must not overtake."""
    author.made += 1
    sent = wire.query(_count_sql(author, n))
    return Unit("read own write", "simple", sent, _counted + data_row(b"1", mark) + _one + READY, plain_read=False)
