"""The console as a client meets it: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest
from fakes.conversation import Message
from unit.admin.fake_node import FakeNode

from node.admin.commands import Role
from node.admin.console import Console, ConsoleLimits
from node.admin.ports import RolloutReport, RolloutRequest
from node.wire import messages

SHOW_VERSION = "PgDog v0.1.54 [pgmurmur v0.1.0]"


class Client:
    """A console without a socket."""

    def __init__(
        self, node: FakeNode | None = None, role: Role = Role.ADMIN, limits: ConsoleLimits | None = None
    ) -> None:
        self.node = node or FakeNode()
        self.out = bytearray()
        self.closed = False
        self.paused = 0
        self.console = Console(
            self.node,
            limits or ConsoleLimits(),
            role,
            write=self.out.extend,
            close=self._closed,
            pause_reading=lambda: self._paused(1),
            resume_reading=lambda: self._paused(-1),
        )

    def _closed(self) -> None:
        self.closed = True

    def _paused(self, by: int) -> None:
        self.paused += by

    async def say(self, *parts: bytes, torn: int = 0) -> list[Message]:
        """Everything that is answered once the console has nothing more to do."""
        data = b"".join(parts)
        for at in range(0, len(data), torn or max(1, len(data))):
            self.console.from_client(data[at : at + (torn or len(data))])
            if torn:
                await asyncio.sleep(0)
        await self.quiet()
        return self.heard()

    async def quiet(self) -> None:
        async with asyncio.timeout(5):
            while self.console._working:
                await asyncio.sleep(0)

    def heard(self) -> list[Message]:
        data, found = bytes(self.out), []
        self.out.clear()
        while data:
            (length,) = struct.unpack_from("!I", data, 1)
            found.append(Message(chr(data[0]), data[5 : length + 1]))
            data = data[length + 1 :]
        return found


def letters(heard: list[Message]) -> str:
    return "".join(message.letter for message in heard)


def ask(sql: str, *parameters: bytes | None, formats: tuple[int, ...] = (), types: tuple[int, ...] = ()) -> bytes:
    """Parse, Bind, Describe, Execute, Sync, as drivers do."""
    return b"".join(
        (
            messages.parse(b"", sql.encode(), types),
            messages.bind(b"", b"", (), parameters, formats),
            messages.describe_portal(b""),
            messages.execute(),
            messages.SYNC,
        )
    )


# --- simple ----------------------------------------------------------------------------------------------------------


async def test_a_query_answers_rows_and_is_ready() -> None:
    client = Client()
    heard = await client.say(messages.query("SHOW VERSION;"))
    assert letters(heard) == "TDCZ"
    assert messages.parse_data_row(heard[1].body) == [SHOW_VERSION.encode()]
    assert heard[2].body == b"SHOW VERSION\0"
    assert heard[3].body == b"I"
    (column,) = messages.parse_row_description(heard[0].body)
    assert (column.name, column.type_oid, column.format) == (b"version", 25, 0)


async def test_bytes_may_come_one_by_one() -> None:
    heard = await Client().say(messages.query("SHOW VERSION") + ask("SHOW VERSION"), torn=1)
    assert letters(heard) == "TDCZ" + "12TDCZ"


async def test_a_command_without_rows_has_only_a_tag() -> None:
    heard = await Client().say(messages.query("PAUSE; RESUME ; MAINTENANCE ON birds"))
    assert letters(heard) == "CCCZ"
    assert [m.body for m in heard[:3]] == [b"PAUSE\0", b"RESUME\0", b"MAINTENANCE ON birds\0"]


async def test_an_empty_query_is_an_empty_query() -> None:
    assert letters(await Client().say(messages.query(" ; -- nothing"))) == "IZ"


async def test_an_error_leaves_the_session_usable() -> None:
    client = Client()
    heard = await client.say(messages.query("SELECT 1"), messages.query("SHOW VERSION"))
    assert letters(heard) == "EZTDCZ"
    assert (heard[0].fields["S"], heard[0].fields["C"]) == ("ERROR", "08P01")
    assert heard[0].fields["M"] == "syntax error in admin command"
    assert heard[1].body == b"I"
    assert not client.closed


async def test_an_error_ends_its_query_but_not_what_was_done_before() -> None:
    client = Client()
    heard = await client.say(messages.query("PAUSE; BAN 999999; RESUME"))
    assert letters(heard) == "CEZ"
    assert not client.node.databases.gates["birds"].is_open


async def test_a_syntax_error_anywhere_runs_nothing() -> None:
    client = Client()
    heard = await client.say(messages.query("PAUSE; PUASE"))
    assert letters(heard) == "EZ"
    assert client.node.databases.gates["birds"].is_open


async def test_transactions_are_accepted_and_never_open() -> None:
    heard = await Client().say(*(messages.query(sql) for sql in ("BEGIN", "SHOW VERSION", "ROLLBACK")))
    assert letters(heard) == "CZTDCZCZ"
    assert {message.body for message in heard if message.letter == "Z"} == {b"I"}


async def test_notices_come_before_the_tag() -> None:
    heard = await Client().say(messages.query("RELOAD"))
    assert letters(heard) == "NCZ"
    assert heard[0].fields["S"] == "NOTICE"


async def test_an_aborted_rollout_is_an_error_after_its_notices() -> None:
    client = Client()
    client.node.outcome = RolloutReport("aborted", 3, None, None, "no", (), ("this would change",))
    heard = await client.say(messages.query("ROLLOUT"))
    assert letters(heard) == "NEZ"
    assert heard[1].fields["C"] == "40000"


async def test_bytes_that_are_no_text_are_an_error() -> None:
    client = Client()
    assert (await client.say(messages.query(b"SHOW \xff")))[0].fields["C"] == "22021"
    assert not client.closed


# --- extended --------------------------------------------------------------------------------------------------------


async def test_an_extended_query_answers_like_a_simple_one() -> None:
    heard = await Client().say(ask("SHOW VERSION"))
    assert letters(heard) == "12TDCZ"


async def test_a_statement_is_described_before_it_runs() -> None:
    client = Client()
    heard = await client.say(messages.parse(b"s", b"SHOW CLIENTS id"), messages.describe_statement(b"s"), messages.SYNC)
    assert letters(heard) == "1tTZ"
    assert heard[1].body == b"\0\0"
    assert [c.name for c in messages.parse_row_description(heard[2].body)] == [
        b"id",
        b"user",
        b"database",
        b"addr",
        b"port",
    ]
    heard = await client.say(messages.parse(b"r", b"RELOAD"), messages.describe_statement(b"r"), messages.SYNC)
    assert letters(heard) == "1tnZ"
    assert client.node.calls == []


async def test_binary_results_are_binary() -> None:
    client = Client()
    client.node.session(17)
    heard = await client.say(ask("SHOW CLIENTS id, locked, queries, state", formats=(1,)))
    columns = messages.parse_row_description(heard[2].body)
    values = dict(zip((c.name for c in columns), messages.parse_data_row(heard[3].body), strict=True))
    assert {c.format for c in columns} == {1}
    assert values[b"id"] == struct.pack("!q", 17)
    assert values[b"locked"] == b"\0"
    assert values[b"queries"] == struct.pack("!HhHH", 0, 0, 0, 0)
    assert values[b"state"] == b"idle"


async def test_formats_are_for_each_column_or_for_all() -> None:
    client = Client()
    client.node.session(17)
    heard = await client.say(ask("SHOW CLIENTS id", formats=(1, 0, 0, 0, 1)))
    assert [c.format for c in messages.parse_row_description(heard[2].body)] == [1, 0, 0, 0, 1]
    for wrong in ((1, 0), (2,), (0, 0, 0, 0, 7)):
        heard = await client.say(ask("SHOW CLIENTS id", formats=wrong))
        assert letters(heard) == "1EZ"


async def test_rows_are_fetched_in_pieces() -> None:
    client = Client()
    for number in range(5):
        client.node.session(number + 1)
    heard = await client.say(
        messages.parse(b"", b"SHOW CLIENTS"),
        messages.bind(b"p", b""),
        *(messages.execute(b"p", 2) for _ in range(3)),
        messages.SYNC,
        messages.execute(b"p", 2),
        messages.SYNC,
    )
    assert letters(heard) == "12" + "DDs" + "DDs" + "DC" + "Z" + "EZ"
    assert heard[-2].fields["C"] == "34000", "a portal ends at Sync"


async def test_a_command_runs_once_per_bind() -> None:
    client = Client()
    await client.say(
        messages.parse(b"", b"ROLLOUT"),
        messages.bind(b"", b""),
        messages.execute(),
        messages.execute(),
        messages.SYNC,
    )
    assert client.node.calls == [RolloutRequest()]


async def test_after_an_error_everything_up_to_sync_is_skipped() -> None:
    client = Client()
    heard = await client.say(
        messages.parse(b"", b"nonsense"),
        messages.bind(b"", b""),
        messages.execute(),
        messages.query("RELOAD"),
        messages.FLUSH,
        messages.SYNC,
        messages.query("SHOW VERSION"),
    )
    assert letters(heard) == "EZTDCZ"
    assert client.node.calls == []


async def test_parameters_are_texts_and_integers() -> None:
    client = Client()
    sql = "ROLLOUT CONFIG $1 USERS $2 TIMEOUT $3"
    heard = await client.say(
        messages.parse(b"s", sql.encode(), (25, 0, 23)),
        messages.describe_statement(b"s"),
        messages.bind(b"", b"s", (0, 1, 1), (b"it's", b"\xc3\xa9", struct.pack("!i", 9))),
        messages.execute(),
        messages.SYNC,
    )
    assert letters(heard) == "1tT2NDCZ"
    assert heard[1].body == struct.pack("!HIII", 3, 25, 25, 23)
    assert client.node.calls == [RolloutRequest("it's", "é", timeout_s=9.0)]


@pytest.mark.parametrize(
    ("message", "sqlstate"),
    [
        (ask("PAUSE $1"), "08P01"),
        (ask("PAUSE $1", None), "22004"),
        (ask("PAUSE $1", b"x", types=(1700,)), "0A000"),
        (ask("RELOAD; RELOAD"), "42601"),
        (messages.bind(b"", b"nobody") + messages.SYNC, "26000"),
        (messages.execute(b"nobody") + messages.SYNC, "34000"),
        (messages.describe_portal(b"nobody") + messages.SYNC, "34000"),
        (messages.describe_statement(b"nobody") + messages.SYNC, "26000"),
        (messages.query("PAUSE $1"), "42P02"),
        (messages.parse(b"a", b"RELOAD") * 2 + messages.SYNC, "42P05"),
        (messages.message(b"F", b"\0\0\0\1\0\0\0\0\0\0"), "0A000"),
    ],
)
async def test_what_is_wrong_is_an_error_and_then_ready(message: bytes, sqlstate: str) -> None:
    client = Client()
    heard = await client.say(message)
    assert heard[-2].fields["C"] == sqlstate
    assert letters(heard)[-2:] == "EZ"
    assert letters(await client.say(messages.query("SHOW VERSION"))) == "TDCZ"


async def test_an_empty_statement_has_no_data() -> None:
    assert letters(await Client().say(ask(""))) == "12nIZ"


async def test_statements_can_be_closed() -> None:
    client = Client()
    heard = await client.say(
        messages.parse(b"a", b"RELOAD"),
        messages.close_statement(b"a"),
        messages.message(b"C", b"Pnobody\0"),
        messages.parse(b"a", b"RELOAD"),
        messages.SYNC,
    )
    assert letters(heard) == "1331Z"


async def test_statements_and_portals_have_limits() -> None:
    client = Client(limits=ConsoleLimits(statements=2, portals=2))
    parts = [messages.parse(str(n).encode(), b"RELOAD") for n in range(3)]
    assert (await client.say(*parts, messages.SYNC))[-2].fields["C"] == "53400"
    parts = [messages.bind(str(n).encode(), b"0") for n in range(3)]
    assert (await client.say(*parts, messages.SYNC))[-2].fields["C"] == "53400"


# --- the socket ------------------------------------------------------------------------------------------------------


async def test_terminate_ends_the_session() -> None:
    client = Client()
    assert await client.say(messages.TERMINATE, messages.query("RELOAD")) == []
    assert client.closed
    assert client.node.calls == []


@pytest.mark.parametrize(
    "data",
    [
        b"Q\0\0\0\3",
        b"Q\xff\xff\xff\xff",
        b"Q\x7f\xff\xff\xff",
        b"y\0\0\0\4",
        messages.message(b"Q", b"no zero byte"),
        messages.message(b"B", b"\0\0\0\5"),
        messages.message(b"D", b"Xname\0"),
        messages.message(b"E", b"\0"),
    ],
)
async def test_malformed_messages_are_fatal(data: bytes) -> None:
    client = Client()
    heard = await client.say(data)
    assert [message.fields["S"] for message in heard] == ["FATAL"]
    assert heard[0].fields["C"] == "08P01"
    assert client.closed


async def test_commands_run_one_after_the_other_while_bytes_wait() -> None:
    client = Client(limits=ConsoleLimits(unread_bytes=100))
    gate = asyncio.Event()
    real = client.node.rollout

    async def slow(request: RolloutRequest) -> RolloutReport:
        await gate.wait()
        return await real(request)

    client.node.rollout = slow  # type: ignore[method-assign]
    client.console.from_client(messages.query("ROLLOUT"))
    await asyncio.sleep(0)
    for _ in range(10):
        client.console.from_client(messages.query("SHOW VERSION"))
    assert client.out == b""
    assert client.paused == 1, "a client that sends on and on is not read for ever"
    gate.set()
    await client.quiet()
    assert letters(client.heard()) == "TNDCZ" + "TDCZ" * 10
    assert client.paused == 0


async def test_a_command_goes_on_when_its_client_leaves() -> None:
    client = Client()
    gate = asyncio.Event()
    done = []

    async def slow(request: RolloutRequest) -> RolloutReport:
        await gate.wait()
        done.append(request)
        return RolloutReport("committed", 1, 2, "", None, ())

    client.node.rollout = slow  # type: ignore[method-assign]
    client.console.from_client(messages.query("ROLLOUT") + messages.query("RELOAD"))
    await asyncio.sleep(0)
    client.console.client_lost()
    gate.set()
    await client.quiet()
    assert done == [RolloutRequest()]
    assert client.out == b""
    assert client.node.calls == [], "what it sent behind is not begun"


async def test_a_client_that_does_not_read_is_waited_for() -> None:
    client = Client()
    for number in range(2000):
        client.node.session(number + 1)
    client.console.client_pause()
    client.console.from_client(messages.query("SHOW CLIENTS"))
    for _ in range(10):
        await asyncio.sleep(0)
    held = len(client.out)
    assert 0 < held < 100_000
    client.console.client_resume()
    await client.quiet()
    assert letters(client.heard()) == "T" + "D" * 2000 + "CZ"


async def test_a_bug_ends_the_session_and_not_the_node(caplog: pytest.LogCaptureFixture) -> None:
    client = Client()

    def broken() -> object:
        raise KeyError("oops")

    client.node.members = broken  # type: ignore[assignment,method-assign]
    heard = await client.say(messages.query("SHOW PEERS"))
    assert [(m.fields["S"], m.fields["C"]) for m in heard] == [("FATAL", "XX000")]
    assert client.closed
    assert "admin_failed" in caplog.text


async def test_a_viewer_is_refused_by_the_dispatcher() -> None:
    client = Client(role=Role.VIEWER)
    heard = await client.say(messages.query("RELOAD"), ask("RELOAD"), messages.query("SHOW VERSION"))
    assert letters(heard) == "EZEZTDCZ"
    assert {m.fields["C"] for m in heard if m.letter == "E"} == {"42501"}
    assert client.node.calls == []


async def test_mutated_streams_end_in_declared_errors_only(caplog: pytest.LogCaptureFixture) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    node = FakeNode()
    good = [
        messages.query("SHOW POOLS; BEGIN"),
        ask("SHOW CLIENTS id", formats=(1,)),
        ask("MAINTENANCE ON $1", b"birds"),
        messages.parse(b"a", b"SHOW VERSION") + messages.describe_statement(b"a") + messages.SYNC,
        messages.TERMINATE,
    ]
    sessions = 1500
    for _ in range(sessions):
        client = Client(node)
        data = bytearray(b"".join(chance.choices(good, k=3)))
        for _ in range(chance.randrange(6)):
            at = chance.randrange(len(data))
            if chance.random() < 0.7:
                data[at] = chance.randrange(256)
            else:
                del data[at : at + chance.randrange(1, 5)]
            if not data:
                break
        for message in await client.say(bytes(data)):
            assert message.letter in "TDCZEN123tnIs"
            if message.letter == "E":
                assert message.fields["C"] != "XX000"
    assert "admin_failed" not in caplog.text
