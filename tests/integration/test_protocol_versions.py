"""Clients that ask for more of the protocol than there is, through the port of a real node."""

from __future__ import annotations

import asyncio
import struct

import pytest
from fakes.fake_client import FakeClient
from integration.harness import PASSWORD, USER, Database, Nodes, config_toml

from node.embedded.nodes import NodeProcess
from node.wire import messages as m
from node.wire.startup import PROTOCOL_3_0, startup_message

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


@pytest.mark.parametrize(
    ("minor", "options", "spoken"),
    [(9, OPTIONS, 2), (9, (), 2), (2, OPTIONS, 2), (0, OPTIONS, 0), (0xFFFF, OPTIONS[:1], 2)],
)
def test_a_client_that_asks_for_more_is_told_what_there_is(
    minor: int, options: tuple[str, ...], spoken: int, node: NodeProcess, shards: list[Database]
) -> None:
    """In the words of PostgreSQL itself, whose newest minor version is 0 before 18 and 2 since."""

    async def scene() -> None:
        server = shards[0].server
        client = await greeting(node.host, node.port, "flock", minor, *options)
        direct = await greeting(server.host, server.port, shards[0].name, minor, *options)
        heard, known = await client.read(), await direct.read()
        assert (heard.letter, heard.body) == ("v", negotiation(spoken, *options))
        assert (known.letter, known.body) == (
            "v",
            negotiation(spoken if server.binaries.major >= 18 else 0, *options),
        )
        await client.log_in(USER, PASSWORD)
        assert len(client.key[1]) == (32 if spoken >= 2 else 4)
        assert (await client.query("SELECT 1")).rows == [(b"1",)]
        assert (await client.extended("SELECT $1::int", b"2")).rows == [(b"2",)]
        client.send(m.query("SELECT pg_sleep(30)"))
        other = await FakeClient.open(node.host, node.port)
        process, secret = client.key
        other.send(struct.pack("!III", 12 + len(secret), 80877102, process) + secret)
        assert await other.ended() == b""
        assert [error["C"] for error in (await client.answer()).errors] == ["57014"]
        await client.close()
        for one in (direct, other):
            await one.abort()

    asyncio.run(scene())


def test_nothing_is_negotiated_with_a_client_that_asks_for_what_there_is(node: NodeProcess) -> None:
    async def scene() -> None:
        for minor in (0, 1, 2):
            client = await greeting(node.host, node.port, "flock", minor)
            assert (await client.read()).letter == "R"
            await client.abort()

    asyncio.run(scene())


def test_another_major_version_is_refused(node: NodeProcess) -> None:
    async def scene() -> None:
        for major in (1, 2, 4):
            client = await FakeClient.open(node.host, node.port)
            client.send(struct.pack("!IHH", 9, major, 0) + b"\0")
            error = await client.read()
            assert (error.letter, error.fields["S"], error.fields["C"]) == ("E", "FATAL", "0A000")
            assert f"unsupported frontend protocol {major}.0" in error.fields["M"]
            assert await client.ended() == b""
            await client.abort()

    asyncio.run(scene())
