"""Clients that ask for more of the protocol than there is, through the port of a real node."""

from __future__ import annotations

import asyncio
import struct

import pytest
from fakes.fake_client import FakeClient
from integration.harness import PASSWORD, USER, Database, Nodes, config_toml

from node.embedded.nodes import NodeProcess
from node.wire import messages as m
from node.wire.startup import PROTOCOL_3_0, cancel_request, startup_message

OPTIONS = ("_pq_.compression", "_pq_.\u00fcnknown")


@pytest.fixture
def node(shards: list[Database], node_factory: Nodes) -> NodeProcess:
    return node_factory(config_toml(shards[:1]))


async def greeting(host: str, port: int, database: str, minor: int, *options: str) -> FakeClient:
    """A client that has said its StartupMessage and heard nothing yet."""
    client = await FakeClient.open(host, port)
    pairs = {"user": USER, "database": database, **dict.fromkeys(options, "on")}
    client.send(startup_message([(name.encode(), value.encode()) for name, value in pairs.items()], minor))
    return client


def negotiation(minor: int, *options: str) -> bytes:
    listed = b"".join(option.encode() + b"\0" for option in options)
    return struct.pack("!II", PROTOCOL_3_0 | minor, len(options)) + listed


ASKED = [(9, OPTIONS, 2), (9, (), 2), (2, OPTIONS, 2), (0, OPTIONS, 0), (0xFFFF, OPTIONS[:1], 2)]
"""Minor version and options asked for, minor version spoken."""


def test_a_client_that_asks_for_more_is_told_what_there_is(node: NodeProcess, shards: list[Database]) -> None:
    """In the words of PostgreSQL itself, whose newest minor version is 0 before 18 and 2 since."""
    server = shards[0].server

    async def scene(minor: int, options: tuple[str, ...], spoken: int) -> None:
        client = await greeting(node.host, node.port, "flock", minor, *options)
        direct = await greeting(server.host, server.port, shards[0].name, minor, *options)
        heard, known = await client.read(), await direct.read()
        assert (heard.letter, heard.body) == ("v", negotiation(spoken, *options))
        theirs = spoken if server.binaries.major >= 18 else 0
        assert (known.letter, known.body) == ("v", negotiation(theirs, *options))
        await client.log_in(USER, PASSWORD)
        assert len(client.key[1]) == (32 if spoken >= 2 else 4)
        assert (await client.query("SELECT 1")).rows == [(b"1",)]
        assert (await client.extended("SELECT $1::int", b"2")).rows == [(b"2",)]
        client.send(m.query("SELECT pg_sleep(30)"))
        answer = asyncio.ensure_future(client.answer())
        while not answer.done():  # the request may overtake the query, then it hits nothing
            other = await FakeClient.open(node.host, node.port)
            other.send(cancel_request(*client.key))
            assert await other.ended() == b""
            await other.abort()
        assert [error["C"] for error in (await answer).errors] == ["57014"]
        await client.close()
        await direct.abort()

    for asked in ASKED:
        asyncio.run(scene(*asked))


def test_what_there_is_needs_no_negotiation_and_other_versions_are_refused(node: NodeProcess) -> None:
    async def scene() -> None:
        for minor in (0, 1, 2):
            client = await greeting(node.host, node.port, "flock", minor)
            assert (await client.read()).letter == "R"
            await client.abort()
        for major in (1, 2, 4):
            client = await FakeClient.open(node.host, node.port)
            client.send(struct.pack("!IHH", 9, major, 0) + b"\0")
            error = await client.read()
            assert (error.letter, error.fields["S"], error.fields["C"]) == ("E", "FATAL", "0A000")
            assert f"unsupported frontend protocol {major}.0" in error.fields["M"]
            assert await client.ended() == b""
            await client.abort()

    asyncio.run(scene())
