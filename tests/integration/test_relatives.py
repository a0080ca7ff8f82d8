"""Servers that are not quite PostgreSQL 18: what they say about themselves is passed on, whatever it is."""

from __future__ import annotations

import asyncio

from fakes.fake_client import FakeClient
from fakes.fake_postgres import INT4, FakePostgres, Reply
from integration.harness import PASSWORD, USER, Database, Nodes, config_toml, raw, users_toml

from node.wire import messages

# IvorySQL 5 is built on PostgreSQL 18 and reports settings of its own.
OF_ITS_OWN = {
    "server_version": "18.0 (IvorySQL 5.0)",
    "ivorysql.compatible_mode": "oracle",
    "nls_date_format": "YYYY-MM-DD",
    "Nls.Length_Semantics": "byte",
    "a setting nobody knows": "",
}
ONE = {"SELECT 1": Reply.table([("one", INT4)], ["1"])}
USERS = users_toml(lines='server_password = "other"\n')


def test_settings_that_only_a_relative_reports_reach_the_client(node_factory: Nodes) -> None:
    async def scene() -> None:
        async with FakePostgres(ONE, password="other", parameters=OF_ITS_OWN) as server:
            config = (
                '[general]\nhost = "127.0.0.1"\nport = 0\n'
                f'[[databases]]\nname = "flock"\nhost = "127.0.0.1"\nport = {server.port}\n'
            )
            node = await asyncio.to_thread(node_factory, config, USERS)
            async with await raw(node) as client, await raw(node, DateStyle="ISO") as other:
                assert client.parameters == {**client.parameters, **server.parameters}
                assert other.parameters == client.parameters
                assert (await client.query("SELECT 1")).rows == [(b"1",)]
                # what changes in the middle of a session is passed on too
                changed = messages.parameter_status(b"ivorysql.compatible_mode", b"pg")
                assert (await client.query("BEGIN")).status == "T"
                server.send_all(changed)
                assert (await client.read()).raw == changed
                assert (await client.query("COMMIT")).status == "I"
            await asyncio.to_thread(node.stop)

    asyncio.run(scene())


def test_a_server_says_the_same_through_a_node(shards: list[Database], node_factory: Nodes) -> None:
    """Of whatever version: search_path is reported since 18, scram_iterations since 16."""
    node = node_factory(config_toml(shards[:1]))

    async def scene() -> None:
        server = shards[0].server
        login = {"user": USER, "database": shards[0].name, "password": PASSWORD}
        async with await raw(node) as client, await FakeClient.connect(server.host, server.port, **login) as direct:
            assert direct.parameters["server_version"].startswith(str(server.binaries.major))
            # application_name is the client's own here and there
            assert {**client.parameters, "application_name": ""} == {**direct.parameters, "application_name": ""}

    asyncio.run(scene())
