"""What one client asks, unit after unit, each with the answer that must come; all of it follows from the seed."""

from __future__ import annotations

import random
import struct
from bisect import bisect
from collections.abc import Callable
from itertools import accumulate

from node.embedded.identity import wire
from node.embedded.identity.judge import DIGITS, Unit
from node.embedded.identity.wire import (
    BOUND,
    DESCRIBE_PORTAL,
    EXECUTE,
    INT4,
    INT8,
    PARSED,
    READY,
    SYNC,
    TEXT,
    data_row,
    row_description,
)
from node.embedded.identity.world import COUNTERS, HOT_KEYS, World, hot_value, own_value

STATEMENTS = 6
"""Prepared statements of one client; all clients use the same names for different texts."""
SETTLERS = 32
"""One client in so many has a setting of its own."""

_one = wire.complete(b"SELECT 1")
_tail = _one + READY
_constants = [row_description([(b"n", INT8), (b"t", TEXT), (b"z", INT4)], code) for code in (0, 1)]
_mine = [row_description([(b"n", INT8), (b"t", TEXT), (b"mine", TEXT)], code) for code in (0, 1)]
_mine_types = wire.parameter_description([INT8, TEXT])
_pair = row_description([(b"a", INT4), (b"b", TEXT)])
_text = row_description([(b"t", TEXT)])
_typed = row_description([(b"a", INT8), (b"b", wire.BOOL), (b"c", wire.BYTEA)], 1)
_int8 = struct.Struct("!q").pack
_CONSTANTS_SQL = b"SELECT $1::int8 AS n, $2::text AS t, $3::int4 AS z"
_constants_parse = (wire.parse(_CONSTANTS_SQL), wire.parse(_CONSTANTS_SQL, [INT8, TEXT, INT4]))
_constants_types = wire.parameter_description([INT8, TEXT, INT4])
_unnest_parse = wire.parse(b"SELECT * FROM unnest($1::int4[], $2::text[]) AS u (a, b)")
_typed_parse = wire.parse(b"SELECT $1::int8 AS a, $2::bool AS b, $3::bytea AS c")
_series_parse = wire.parse(b"SELECT g AS a, $1::text || g AS b FROM generate_series(1, $2::int4) AS g")
_own_parse = wire.parse(b"SELECT id, v, n FROM own WHERE id = $1")
_hot_parse = wire.parse(b"SELECT id, v FROM hot WHERE id = $1")
_cast_parse = wire.parse(b"SELECT $1::int4 AS a")

Maker = Callable[[], Unit]


class Author:
    """Writes one client's units. `made` of them exist; the number is part of every value."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.dice = random.Random(f"{world.seed}-{number}")
        self.made = 0
        self.written = 0
        """Rows of the ledger asked for so far, acknowledged or not."""
        self.generation = [0] * STATEMENTS
        """A statement of which nobody knows whether it exists gets a new name."""
        self.prepared: set[int] = set()
        self.preparing: set[int] = set()
        self._makers = [
            (16, self.constants),
            (14, self.constants_extended),
            (14, self.prepared_statement),
            (8, self.own_row),
            (5, self.values),
            (5, self.series),
            (4, self.unnest),
            (3, self.typed),
            (4, self.hot),
            (2, self.counter),
            (2, self.several),
            (1, self.nothing),
            (1, self.own_name),
            (2, self.suspended),
            (1, self.copy),
            (2, self.failing),
            (1, self.failing_late),
            (1, self.failing_bind),
            (1, self.notice),
            (2, self.napping),
        ]
        self._reach = list(accumulate(weight for weight, _ in self._makers))

    def draw(self) -> Unit:
        """A unit that may travel with others."""
        return self._makers[bisect(self._reach, self.dice.random() * self._reach[-1])][1]()

    def reconnected(self) -> None:
        """Prepared statements end with their session."""
        self.prepared.clear()
        self.preparing.clear()

    def mark(self, longest: int = 60) -> bytes:
        """The text that proves whose answer it is."""
        self.made += 1
        dice = self.dice.random()
        length = int(dice * longest) if dice < 0.97 or longest < 60 else int((dice - 0.97) * 100_000)
        start = int(self.dice.random() * 60_000)
        return b"c%ds%d:%b" % (self.number, self.made, self.world.text[start : start + length])

    @property
    def large(self) -> int:
        """A number that nobody else selects."""
        return self.number * 10**10 + self.made

    # -- reads -----------------------------------------------------------------------------------------------------

    def constants(self) -> Unit:
        mark, large = self.mark(), self.large
        sql = b"SELECT %d::int8 AS n, '%b'::text AS t, NULL::int4 AS z" % (large, mark)
        return Unit("constants", "simple", wire.query(sql), _constants[0] + data_row(b"%d" % large, mark, None) + _tail)

    def constants_extended(self) -> Unit:
        """Parse, Bind and so on in the order of one driver or another."""
        mark, large = self.mark(), self.large
        choice = int(self.dice.random() * 6)
        parse, binary = _constants_parse[choice & 1], choice in (2, 3)
        value = _int8(large) if binary else b"%d" % large
        row = data_row(value, mark, None) + _tail
        bind = wire.bind([value, mark, None], [1, 0, 1] if binary else (), int(binary))
        if choice == 4:
            sent, expected = parse + bind + EXECUTE + SYNC, PARSED + BOUND + row
        elif choice == 5:
            sent = parse + wire.describe(b"") + bind + EXECUTE + SYNC
            expected = PARSED + _constants_types + _constants[0] + BOUND + row
        else:
            sent = parse + bind + DESCRIBE_PORTAL + EXECUTE + SYNC
            expected = PARSED + BOUND + _constants[binary] + row
        return Unit("constants", "extended", sent, expected)

    def prepared_statement(self) -> Unit:
        number = int(self.dice.random() * STATEMENTS)
        if number in self.preparing or not self.world.prepares:
            return self.constants_extended()
        name = b"p%dg%d" % (number, self.generation[number])
        mine = b"c%ds0:p%d" % (self.number, number)
        if number not in self.prepared:
            self.preparing.add(number)
            self.made += 1
            sql = b"SELECT $1::int8 AS n, $2::text AS t, '%b'::text AS mine" % mine
            sent = wire.parse(sql, name=name) + wire.describe(name) + SYNC
            expected = PARSED + _mine_types + _mine[0] + READY
            return Unit("prepare", "prepared", sent, expected, plain_read=False, prepares=number)
        dice = self.dice.random()
        if dice < 0.02:
            self.made += 1
            self.prepared.discard(number)
            self.preparing.add(number)
            sent = wire.close(name) + SYNC
            return Unit("close", "prepared", sent, wire.CLOSED + READY, plain_read=False, closes=number)
        mark, large, binary = self.mark(), self.large, dice < 0.4
        value = _int8(large) if binary else b"%d" % large
        sent = wire.bind([value, mark], [1] if binary else (), int(binary), name)
        row = data_row(value, mark, mine) + _tail
        if dice < 0.7:
            return Unit("constants", "prepared", sent + EXECUTE + SYNC, BOUND + row)
        return Unit("constants", "prepared", sent + DESCRIBE_PORTAL + EXECUTE + SYNC, BOUND + _mine[binary] + row)

    def own_row(self) -> Unit:
        self.made += 1
        number, dice = self.number, self.dice.random()
        if dice < 0.5:
            row = data_row(b"%d" % number, own_value(number), b"%d" % (number * 3)) + _tail
            sent = wire.query(b"SELECT id, v, n FROM own WHERE id = %d" % number)
            answers = [described + row for described in self.world.description("own", b"id, v, n")]
            return Unit("own row", "simple", sent, answers[0], tuple(answers[1:]))
        binary = int(dice < 0.75)
        key, third = b"%d" % number, b"%d" % (number * 3)
        if binary:
            key, third = _int8(number), struct.pack("!i", number * 3)
        row = data_row(key, own_value(number), third) + _tail
        sent = _own_parse + wire.bind([key], [1] if binary else (), binary) + DESCRIBE_PORTAL + EXECUTE + SYNC
        answers = [PARSED + BOUND + described + row for described in self.world.description("own", b"id, v, n", binary)]
        return Unit("own row", "extended", sent, answers[0], tuple(answers[1:]))

    def values(self) -> Unit:
        mark, count = self.mark(), 1 + int(self.dice.random() * 10)
        pairs = [(b"%d" % (n * self.made % 1000), b"%b#%d" % (mark, n)) for n in range(count)]
        listed = b", ".join([b"(%b, '%b')" % pair for pair in pairs])
        sql = b"SELECT * FROM (VALUES %b) AS v (a, b)" % listed
        answer = b"".join([data_row(*pair) for pair in pairs])
        return Unit("values", "simple", wire.query(sql), _pair + answer + wire.complete(b"SELECT %d" % count) + READY)

    def series(self) -> Unit:
        mark, count = self.mark(), int(self.dice.random() * 30)
        answer = b"".join([data_row(b"%d" % n, b"%b%d" % (mark, n)) for n in range(1, count + 1)])
        answer += wire.complete(b"SELECT %d" % count) + READY
        if self.made & 1:
            sql = b"SELECT g AS a, '%b' || g AS b FROM generate_series(1, %d) AS g" % (mark, count)
            return Unit("series", "simple", wire.query(sql), _pair + answer)
        sent = _series_parse + wire.bind([mark, b"%d" % count]) + DESCRIBE_PORTAL + EXECUTE + SYNC
        return Unit("series", "extended", sent, PARSED + BOUND + _pair + answer)

    def unnest(self) -> Unit:
        mark, count = self.mark(1), 1 + int(self.dice.random() * 8)
        numbers = [b"%d" % (self.made + n) for n in range(count)]
        sent = wire.bind([b"{%b}" % b",".join(numbers), b"{%b}" % b",".join([b"%b%b" % (mark, n) for n in numbers])])
        answer = b"".join([data_row(n, b"%b%b" % (mark, n)) for n in numbers])
        sent = _unnest_parse + sent + DESCRIBE_PORTAL + EXECUTE + SYNC
        return Unit(
            "unnest", "extended", sent, PARSED + BOUND + _pair + answer + wire.complete(b"SELECT %d" % count) + READY
        )

    def typed(self) -> Unit:
        """Binary both ways."""
        mark = self.mark() + bytes(range(256))[: self.made % 256]
        values = [_int8(self.large), b"\1" if self.made & 1 else b"\0", mark if self.made % 5 else None]
        sent = _typed_parse + wire.bind(values, [1], 1) + DESCRIBE_PORTAL + EXECUTE + SYNC
        return Unit("typed", "extended", sent, PARSED + BOUND + _typed + data_row(*values) + _tail)

    def hot(self, key: int | None = None) -> Unit:
        """The same bytes as many others send: the one unit that may be answered for several at once."""
        self.made += 1
        key = int(self.dice.random() ** 2 * HOT_KEYS) if key is None else key
        row = data_row(b"%d" % key, hot_value(key)) + _tail
        described = self.world.description("hot", b"id, v")
        if key & 1:
            sent = _hot_parse + wire.bind([b"%d" % key]) + DESCRIBE_PORTAL + EXECUTE + SYNC
            answers = [PARSED + BOUND + one + row for one in described]
            return Unit("hot", "extended", sent, answers[0], tuple(answers[1:]))
        answers = [one + row for one in described]
        sent = wire.query(b"SELECT id, v FROM hot WHERE id = %d" % key)
        return Unit("hot", "simple", sent, answers[0], tuple(answers[1:]))

    def counter(self) -> Unit:
        """What was acknowledged before this is asked must be seen: nobody is answered with what others read earlier."""
        self.made += 1
        key = int(self.dice.random() * COUNTERS)
        seen = self.world.counters[key]
        row = data_row(b"%0*d" % (DIGITS, seen)) + _tail
        answers = [described + row for described in self.world.description("counters", b"n")]
        sent = wire.query(b"SELECT n FROM counters WHERE id = %d" % key)
        at = len(answers[0]) - len(_tail) - DIGITS
        return Unit("counter", "simple", sent, answers[0], tuple(answers[1:]), at_least=seen, value_at=at)

    def several(self) -> Unit:
        """Statements in one Query, sometimes followed by one that is empty."""
        one, two = self.mark(), self.mark()
        sql = b"SELECT '%b'::text AS t; SELECT '%b'::text AS t;" % (one, two)
        expected = _text + data_row(one) + _one + _text + data_row(two) + _tail
        return Unit("several", "simple", wire.query(sql), expected, plain_read=False)

    def nothing(self) -> Unit:
        self.made += 1
        dice = self.dice.random()
        if dice < 0.4:
            sent = wire.query(b" ;" if dice < 0.2 else b"")
            return Unit("nothing", "simple", sent, wire.EMPTY + READY, plain_read=False)
        if dice < 0.6:
            return Unit("sync", "extended", SYNC, READY, plain_read=False)
        sent = wire.parse(b"") + wire.bind([]) + DESCRIBE_PORTAL + EXECUTE + SYNC
        expected = PARSED + BOUND + wire.NO_DATA + wire.EMPTY + READY
        return Unit("nothing", "extended", sent, expected, plain_read=False)

    def own_name(self) -> Unit:
        """A column named after the client: a shape that nobody has met."""
        mark = self.mark(30)
        sent = wire.query(b'SELECT %d AS "%b"' % (self.made, mark))
        expected = row_description([(mark, INT4)]) + data_row(b"%d" % self.made) + _tail
        return Unit("own name", "simple", sent, expected, plain_read=False)

    def suspended(self) -> Unit:
        """One portal read in two parts, in one batch."""
        mark = self.mark()
        count = 3 + int(self.dice.random() * 5)
        rows = [data_row(b"%d" % n, b"%b%d" % (mark, n)) for n in range(1, count + 1)]
        sent = _series_parse + wire.bind([mark, b"%d" % count]) + wire.execute(2) + EXECUTE + SYNC
        expected = PARSED + BOUND + rows[0] + rows[1] + wire.SUSPENDED + b"".join(rows[2:])
        expected += wire.complete(b"SELECT %d" % (count - 2)) + READY
        return Unit("suspended", "extended", sent, expected, plain_read=False)

    def copy(self) -> Unit:
        mark, count = self.mark(), int(self.dice.random() * 6)
        sql = b"COPY (SELECT g, '%b' || g FROM generate_series(1, %d) AS g) TO STDOUT" % (mark, count)
        lines = b"".join([wire.copy_line(b"%d\t%b%d\n" % (n, mark, n)) for n in range(1, count + 1)])
        expected = wire.copy_out(2) + lines + wire.COPY_DONE + wire.complete(b"COPY %d" % count) + READY
        return Unit("copy", "simple", wire.query(sql), expected, plain_read=False)

    def napping(self) -> Unit:
        """A read that is fast nearly always: whoever stands behind it when it is not must not suffer."""
        mark = self.mark()
        slow = self.dice.random() < 0.02
        seconds = b"%.3f" % (0.05 + self.dice.random() * 0.45) if slow else b"0"
        sent = wire.query(b"SELECT nap(%b, '%b') AS t" % (seconds, mark))
        return Unit("nap" if slow else "no nap", "simple", sent, _text + data_row(mark) + _tail, plain_read=not slow)

    # -- errors and notices on purpose -----------------------------------------------------------------------------

    def failing(self) -> Unit:
        mark, dice = self.mark(40), self.dice.random()
        if dice < 0.4:
            name, sql = "cast", b"SELECT '%b'::int4"
        elif dice < 0.7:
            name, sql = "syntax", b"SELECT 1 AS a '%b'"
        else:
            name, sql = "column", b'SELECT "%b"'
        said = self.world.message(name, mark)
        unit = Unit(name, "simple", wire.query(sql % mark), said + READY, plain_read=False)
        if self.world.sharded and name == "syntax":
            unit.others = (wire.without_source(said) + READY,)  # PostgreSQL's parser, but not in PostgreSQL
        return unit

    def failing_late(self) -> Unit:
        """Rows, and then an error."""
        mark, count = self.mark(), int(self.dice.random() * 6)
        sql = b"SELECT 60/(%d-g) AS a, '%b'::text AS b FROM generate_series(1, 9) AS g" % (count + 1, mark)
        rows = b"".join([data_row(b"%d" % (60 // (count + 1 - n)), mark) for n in range(1, count + 1)])
        expected = _pair + rows + self.world.said["division"] + READY
        return Unit("division", "simple", wire.query(sql), expected, plain_read=False)

    def failing_bind(self) -> Unit:
        """What follows the failed Bind in its batch must be left out by the server."""
        mark = self.mark(40)
        sent = _cast_parse + wire.bind([mark]) + DESCRIBE_PORTAL + EXECUTE + EXECUTE + SYNC
        return Unit("bind", "extended", sent, PARSED + self.world.message("bind", mark) + READY, plain_read=False)

    def notice(self) -> Unit:
        mark = self.mark()
        told, row = self.world.message("notice", mark), data_row(mark) + _tail
        sent = wire.query(b"SELECT tell('%b') AS t" % mark)
        return Unit("notice", "simple", sent, _text + told + row, (told + _text + row,), plain_read=False)

    # -- settings --------------------------------------------------------------------------------------------------

    @property
    def is_settler(self) -> bool:
        return self.world.settings and self.number % SETTLERS == 5

    def settle(self) -> Unit:
        """A setting of this client, odd so that PostgreSQL shows it in milliseconds."""
        sent = wire.query(b"SET lock_timeout = %d" % self._setting)
        return Unit("settle", "simple", sent, wire.complete(b"SET") + READY, plain_read=False)

    def setting(self) -> Unit:
        self.made += 1
        shown = b"%dms" % self._setting if self.is_settler else b"0"
        sent = wire.query(b"SELECT current_setting('lock_timeout') AS t")
        # what a setting is depends on the connection: such a read never travels with others
        return Unit("setting", "simple", sent, _text + data_row(shown) + _tail, plain_read=False)

    @property
    def _setting(self) -> int:
        return 100_001 + 2 * self.number
