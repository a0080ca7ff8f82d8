"""The same conversation held with PostgreSQL directly and through a node is the same conversation."""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass

import pytest
from fakes.fake_client import FakeClient
from integration.harness import PASSWORD, USER, Database, Nodes, config_toml, raw, users_toml
from integration.session_cases import CASES, ENDED, SETUP, SILENCE, hold
from wire.test_byte_soup import good_stream, mutated, tearing


@dataclass
class Speaker:
    """A raw client that comes back when its connection has ended."""

    host: str
    port: int
    database: str
    client: FakeClient | None = None

    async def hold(self, name: str, *, tear: int = 0) -> list[str]:
        if self.client is None:
            self.client = await FakeClient.connect(
                self.host, self.port, user=USER, database=self.database, password=PASSWORD
            )
        await self.client.query(SETUP)
        heard = await hold(self.client, CASES[name], tear=tear)
        if heard[-1] in (ENDED, SILENCE):
            await self.client.abort()
            self.client = None
        else:
            await self.client.query("ROLLBACK")
            await self.client.query("DISCARD ALL")
        return heard

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()


def difference(name: str, wanted: list[str], heard: list[str]) -> str:
    if wanted == heard:
        return ""
    return "\n".join([f"--- {name}", *difflib.unified_diff(wanted, heard, "direct", "through", lineterm="", n=1)])


@pytest.mark.parametrize("mode", ["transaction", "session"])
async def test_a_conversation_is_the_same_direct_and_through(
    mode: str, shards: list[Database], node_factory: Nodes
) -> None:
    node = node_factory(config_toml(shards[:1], general=f'pooler_mode = "{mode}"\n'), users_toml(pool_size=5))
    server = shards[0].server
    one = Speaker(server.host, server.port, shards[0].name)
    # in turns, so that what one leaves behind would be seen by the other
    other, third = (Speaker(node.host, node.port, "flock") for _ in range(2))
    found = []
    for number, name in enumerate(CASES):
        through = (other, third)[number % 2]
        found.append(difference(name, await one.hold(name), await through.hold(name)))
    for speaker in (one, other, third):
        await speaker.close()
    differences = "\n\n".join(filter(None, found))
    assert not differences, differences


TORN = [
    "named statements",
    "an error in a pipeline",
    "copy in without waiting",
    "DEALLOCATE",
    "the unnamed statement over a transaction",
]


async def test_a_conversation_torn_into_bytes_is_the_same(shards: list[Database], node_factory: Nodes) -> None:
    node = node_factory(config_toml(shards[:1]))
    whole, torn = (Speaker(node.host, node.port, "flock") for _ in range(2))
    for name in TORN:
        assert await torn.hold(name, tear=1) == await whole.hold(name), name
    await whole.close()
    await torn.close()


async def test_byte_soup_disturbs_nobody(shards: list[Database], node_factory: Nodes) -> None:
    """A few of the streams of tests/wire/test_byte_soup.py, against real servers; the house must be tidy afterwards."""
    node = node_factory(config_toml(shards[:1]), users_toml(pool_size=2))
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    victim = await raw(node)
    for _ in range(300):
        data = mutated(dice, good_stream(dice))
        client = await raw(node)
        for chunk in tearing(dice, data):
            client.send(chunk)
        assert (await victim.query("SELECT 'victim'")).rows == [(b"victim",)], data
        assert (await victim.extended("SELECT $1::text", b"x")).rows == [(b"x",)], data
        await client.abort()
    await victim.close()
