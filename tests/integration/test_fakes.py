"""The fake PostgreSQL answers as the real one does, byte for byte, in the conversations it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fakes.conversation import Message
from fakes.fake_client import FakeClient
from fakes.fake_postgres import INT4, TEXT, FakePostgres, Mischief, Reply
from integration.harness import PASSWORD, USER, Database

from node.wire import messages

REPLIES = {
    "SELECT 1 AS one, 'x' AS letter": Reply.table([("one", INT4), ("letter", TEXT)], ["1", "x"]),
    "SELECT NULL::text AS nothing": Reply.table([("nothing", TEXT)], [None]),
    "SELECT 1/0": Reply(error=("22012", "division by zero")),
    "SET application_name = 'a'": Reply("SET"),
}

Conversation = Callable[[FakeClient], Awaitable[list[Message]]]


async def simple_queries(client: FakeClient) -> list[Message]:
    heard: list[Message] = []
    for sql in ("SELECT 1 AS one, 'x' AS letter", "SELECT NULL::text AS nothing", "", "SELECT 1/0", "nonsense"):
        heard += (await client.query(sql)).messages
    return heard


async def a_failed_transaction(client: FakeClient) -> list[Message]:
    heard: list[Message] = []
    for sql in ("BEGIN", "SELECT 1/0", "SELECT 1 AS one, 'x' AS letter", "COMMIT", "SELECT NULL::text AS nothing"):
        heard += (await client.query(sql)).messages
    return heard


async def an_extended_query(client: FakeClient) -> list[Message]:
    return list((await client.extended("SELECT 1 AS one, 'x' AS letter")).messages)


async def a_named_statement_used_twice(client: FakeClient) -> list[Message]:
    client.send(
        messages.parse(b"s", b"SELECT NULL::text AS nothing"),
        messages.describe_statement(b"s"),
        messages.bind(b"", b"s"),
        messages.execute(),
        messages.SYNC,
        messages.bind(b"", b"s"),
        messages.execute(),
        messages.SYNC,
    )
    return [*(await client.answer()).messages, *(await client.answer()).messages]


async def an_error_skips_to_sync(client: FakeClient) -> list[Message]:
    client.send(
        messages.bind(b"", b"missing"),
        messages.describe_portal(b""),
        messages.execute(),
        messages.SYNC,
        messages.parse(b"", b"SELECT NULL::text AS nothing"),
        messages.bind(b"", b""),
        messages.execute(),
        messages.SYNC,
    )
    return [*(await client.answer()).messages, *(await client.answer()).messages]


CONVERSATIONS = [
    simple_queries,
    a_failed_transaction,
    an_extended_query,
    a_named_statement_used_twice,
    an_error_skips_to_sync,
]


def comparable(message: Message) -> object:
    """Errors without the lines of PostgreSQL's own source and the position, which the fake does not count."""
    if message.letter != "E":
        return message
    return {letter: text for letter, text in message.fields.items() if letter in "SVCM"}


@pytest.mark.parametrize("conversation", CONVERSATIONS)
async def test_the_fake_says_what_the_real_one_says(plain: Database, conversation: Conversation) -> None:
    async with FakePostgres(REPLIES) as fake:
        with_fake = await FakeClient.connect(fake.host, fake.port, user=USER, database="any")
        with_real = await FakeClient.connect(
            plain.server.host, plain.server.port, user=USER, database=plain.name, password=PASSWORD
        )
        async with with_fake, with_real:
            from_fake, from_real = await conversation(with_fake), await conversation(with_real)
    assert list(map(comparable, from_fake)) == list(map(comparable, from_real))


@pytest.mark.parametrize("tear", [1, 2, 7])
async def test_torn_replies_arrive_whole(tear: int) -> None:
    sql = "SELECT 1 AS one, 'x' AS letter"
    async with (
        FakePostgres({sql: REPLIES[sql].but(tear=tear)}, login=Mischief(tear=tear)) as fake,
        await FakeClient.connect(fake.host, fake.port, user=USER, database="any") as client,
    ):
        assert (await client.query(sql)).rows == [(b"1", b"x")]


@pytest.mark.parametrize("after", [0, 1, 20])
async def test_a_server_that_dies_in_its_reply_is_seen_to_die(after: int) -> None:
    sql = "SELECT 1 AS one, 'x' AS letter"
    async with FakePostgres({sql: REPLIES[sql].but(die_after=after)}) as fake:
        client = await FakeClient.connect(fake.host, fake.port, user=USER, database="any")
        with pytest.raises(EOFError):
            await client.query(sql)
        await client.abort()


async def test_a_hanging_reply_never_ends() -> None:
    sql = "SELECT 1 AS one, 'x' AS letter"
    async with (
        FakePostgres({sql: REPLIES[sql].but(hang_after=10)}) as fake,
        await FakeClient.connect(fake.host, fake.port, user=USER, database="any") as client,
    ):
        client.send(messages.query(sql))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.answer(), 0.2)
