"""Many at the door of a real node: all get in, nobody is held up by who is slow, silent, wrong or unknown."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from fakes.fake_client import FakeClient, LoginRefused
from integration.harness import PASSWORD, USER, Database, Nodes, config_toml, users_toml, wait_until

from node.embedded.nodes import NodeProcess
from node.wire.startup import sasl_initial_response, startup_message

AT_ONCE = 200
STARTUP = startup_message([(b"user", USER.encode()), (b"database", b"flock")])


def one_server(shards: list[Database], node_factory: Nodes, general: str = "") -> NodeProcess:
    return node_factory(config_toml(shards[:1], general=general), users_toml())


async def log_in(node: NodeProcess, user: str = USER, password: str = PASSWORD, **parameters: str) -> FakeClient:
    return await FakeClient.connect(node.host, node.port, user=user, database="flock", password=password, **parameters)


async def refusal(node: NodeProcess, user: str, password: str) -> dict[str, str]:
    with pytest.raises(LoginRefused) as caught:
        await log_in(node, user, password)
    return caught.value.fields


def test_two_hundred_come_at_once_and_each_gets_its_own_welcome(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)

    async def one(number: int) -> FakeClient:
        zone = f"Etc/GMT+{number % 3}"
        client = await log_in(node, application_name=f"client {number}", TimeZone=zone)
        assert client.parameters["application_name"] == f"client {number}"
        assert client.parameters["TimeZone"] == zone
        return client

    async def ask(client: FakeClient, number: int) -> None:
        shown = await client.query(f"SELECT {number}, current_setting('TimeZone')")
        assert shown.rows == [(str(number).encode(), f"Etc/GMT+{number % 3}".encode())]

    async def scene() -> None:
        clients = await asyncio.gather(*map(one, range(AT_ONCE)))
        assert len({client.key for client in clients}) == AT_ONCE
        await asyncio.gather(*(ask(client, number) for number, client in enumerate(clients)))
        await asyncio.gather(*(client.close() for client in clients))

    asyncio.run(scene())
    wait_until(lambda: node.ask("SHOW CLIENTS") == [], "nobody is left")


def test_the_welcome_says_what_the_server_would(shards: list[Database], node_factory: Nodes) -> None:
    """The statuses are prepared per kind of client: the first of a kind, the second, and one of another kind."""
    node = one_server(shards, node_factory)

    async def told(host: str, port: int, database: str, **parameters: str) -> dict[str, str]:
        client = await FakeClient.connect(host, port, user=USER, database=database, password=PASSWORD, **parameters)
        await client.close()
        return client.parameters

    async def scene() -> None:
        server = shards[0].server
        for parameters in (
            {"application_name": "a"},
            {"application_name": "b"},
            {"application_name": "a", "DateStyle": "German, DMY"},
            {"options": "-c IntervalStyle=iso_8601"},
            {},
        ):
            direct = await told(server.host, server.port, shards[0].name, **parameters)
            assert await told(node.host, node.port, "flock", **parameters) == direct, parameters

    asyncio.run(scene())


def test_wrong_passwords_and_unknown_users_get_the_same_refusal_in_a_storm(
    shards: list[Database], node_factory: Nodes
) -> None:
    node = one_server(shards, node_factory)

    async def scene() -> None:
        guests = [(USER, "wrong") if number % 2 else (f"nobody {number}", PASSWORD) for number in range(100)]
        for fields, (user, _) in zip(
            await asyncio.gather(*(refusal(node, *guest) for guest in guests)), guests, strict=True
        ):
            assert (fields["S"], fields["C"]) == ("FATAL", "28P01")
            assert fields["M"] == f'password authentication failed for user "{user}"'
            assert set(fields) == {"S", "V", "C", "M"}
        async with await log_in(node) as client:
            assert (await client.query("SELECT 1")).rows == [(b"1",)]

    asyncio.run(scene())


def test_who_is_silent_at_any_step_is_shown_out_in_time_and_holds_nobody(
    shards: list[Database], node_factory: Nodes
) -> None:
    node = one_server(shards, node_factory, "client_login_timeout = 700\n")

    async def until(said: bytes, answered: bool) -> FakeClient:
        client = await FakeClient.open(node.host, node.port)
        client.send(said)
        if answered:
            assert (await client.read()).letter == "R"
        return client

    async def scene() -> None:
        hello = sasl_initial_response(b"SCRAM-SHA-256", b"n,,n=,r=abcdefgh")
        silent = [
            await until(b"", False),
            await until(STARTUP[: len(STARTUP) // 2], False),
            await until(STARTUP, True),
            await until(STARTUP + hello[:-3], True),
            await until(STARTUP + hello, True),
        ]
        # while they stand there, others come and go
        for _ in range(5):
            async with await log_in(node) as client:
                assert (await client.query("SELECT 1")).rows == [(b"1",)]
        for client in silent:
            assert b"C28000\0Mclient login timeout\0" in await client.ended()
            await client.abort()
        async with await log_in(node) as client:  # whoever was in time is not timed out later
            for _ in range(3):
                assert (await client.query("SELECT pg_sleep(0.4)")).rows == [(b"",)]

    asyncio.run(scene())


def test_a_login_byte_by_byte_is_overtaken_and_succeeds(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory)

    async def scene() -> None:
        slow = await FakeClient.open(node.host, node.port)
        half = len(STARTUP) // 2
        await slow.send_torn(STARTUP[:half])
        async with await log_in(node) as quick:
            assert (await quick.query("SELECT 1")).rows == [(b"1",)]
        await slow.send_torn(STARTUP[half:])
        await slow.log_in(USER, PASSWORD)
        assert (await slow.query("SELECT 2")).rows == [(b"2",)]
        await slow.close()

    asyncio.run(scene())


def test_who_is_one_too_many_is_told_after_the_password(shards: list[Database], node_factory: Nodes) -> None:
    node = one_server(shards, node_factory, "max_client_conn = 2\n")

    async def scene() -> None:
        async with await log_in(node), await log_in(node):
            assert (await refusal(node, USER, PASSWORD))["C"] == "53300"
            assert (await refusal(node, USER, "wrong"))["C"] == "28P01"

    asyncio.run(scene())
    wait_until(lambda: node.ask("SHOW CLIENTS") == [], "nobody is left")
    with psycopg.connect(node.conninfo("flock", USER, PASSWORD)) as libpq:
        assert libpq.execute("SELECT 1").fetchone() == (1,)
