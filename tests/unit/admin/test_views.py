"""What SHOW shows."""

from __future__ import annotations

import pytest
from unit.admin.asking import refused, rows, run
from unit.admin.fake_node import FakeNode, member
from unit.admin.reference_columns import COLUMNS, TAGS

from discovery.member import State
from node.admin.commands import RESULT_ROWS_LIMIT
from node.admin.ports import RolloutStatus
from sync.messages import MemberRow
from sync.version import ConfigVersion


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.mark.parametrize("view", COLUMNS)
async def test_columns_are_those_of_the_reference(node: FakeNode, view: str) -> None:
    answer = await run(node, f"SHOW {view}")
    assert answer.fields is not None
    told = ", ".join(f"{field.name}:{field.type.name.lower()}" for field in answer.fields)
    assert told == COLUMNS[view]
    assert answer.tag == TAGS.get(view, f"SHOW {view}")


async def test_clients_show_who_they_are(node: FakeNode) -> None:
    session = node.session(17)
    session.query_time_s = 0.0125
    (row,) = await rows(node, "show clients")
    assert (row["id"], row["user"], row["database"]) == (17, "starling", "birds")
    assert (row["addr"], row["port"], row["state"]) == ("10.9.8.7", 5555, "idle")
    assert (row["locked"], row["application_name"]) == (False, "psql")
    assert row["query_time"] == pytest.approx(12.5)


async def test_a_filter_names_columns_and_keeps_who_it_is(node: FakeNode) -> None:
    node.session()
    (row,) = await rows(node, 'SHOW CLIENTS state, "id"')
    assert list(row) == ["id", "user", "database", "addr", "port", "state"]
    (row, *_) = await rows(node, "SHOW SERVERS age") or [{"age": 0}]
    assert list(row) == ["age"]
    fault = await refused(node, "SHOW CLIENTS stat")
    assert (fault.sqlstate, fault.hint) == ("42703", 'perhaps you meant "state"')


async def test_servers_belong_to_their_pool_and_client(node: FakeNode) -> None:
    pool = node.pool()
    server = node.idle_server(pool)
    (row,) = await rows(node, "SHOW SERVERS")
    assert (row["pool_id"], row["addr"], row["state"]) == (pool.id, "10.0.0.1", "idle")
    assert (row["client_id"], row["remote_pid"], row["age"]) == (None, 4711, 5)
    server.owner = node.session(9)
    assert pool.acquire(pool.clock()) is server
    (row,) = await rows(node, "SHOW SERVERS")
    assert row["client_id"] == 9


async def test_pools_count_what_they_hold(node: FakeNode) -> None:
    pool = node.pool(shard=1)
    node.idle_server(pool)
    shown = {row["id"]: row for row in await rows(node, "SHOW POOLS")}
    assert len(shown) == len(node.databases.pools) == 5
    row = shown[pool.id]
    assert (row["shard"], row["role"], row["sv_idle"], row["sv_active"], row["sv_total"]) == (1, "primary", 1, 0, 1)
    assert (row["pool_mode"], row["online"], row["paused"]) == ("transaction", True, False)


async def test_statistics_have_a_row_per_pool(node: FakeNode) -> None:
    node.pool().counters.queries = 7
    node.pool().counters.query_time_s = 0.5
    found = [row for row in await rows(node, "SHOW STATS") if row["total_query_count"] == 7]
    assert [(row["database"], row["user"], row["total_query_time"]) for row in found] == [("birds", "starling", 500.0)]


async def test_lists_count(node: FakeNode) -> None:
    node.session()
    node.idle_server(node.pool())
    answer = await run(node, "SHOW LISTS")
    assert list(answer.rows) == [[2, 2, 5, 1, 1, 1, 0]]


async def test_config_hides_secrets(node: FakeNode) -> None:
    shown = {str(row["name"]): row["value"] for row in await rows(node, "SHOW CONFIG")}
    assert shown["default_pool_size"] == "10"
    assert "feathers" not in str(shown)


async def test_peers_are_pgdogs_three_and_ours(node: FakeNode) -> None:
    node.others = [member("node-b", state=State.SUSPECT)]
    found = await rows(node, "SHOW PEERS")
    assert [(row["node"], row["state"]) for row in found] == [("node-a", "alive"), ("node-b", "suspect")]
    assert str(found[0]["last_seen"]).startswith("2023-11-1")
    node.drifting = "its files differ"
    (notice,) = (await run(node, "SHOW PEERS")).notices
    assert notice.text == "drift: its files differ"


async def test_rollout_shows_a_row_per_member(node: FakeNode) -> None:
    assert await rows(node, "SHOW ROLLOUT") == []
    member_row = MemberRow("node-b", "fenced", True, None, 3.5, 0.5, None)
    node.status = RolloutStatus(4, 2, "fencing", "node-a", 1_700_000_000.0, (member_row,))
    (row,) = await rows(node, "SHOW ROLLOUT")
    assert (row["id"], row["version"], row["phase"], row["coordinator"]) == (4, 2, "fencing", "node-a")
    assert (row["node"], row["state"], row["paused_ms"], row["reason"]) == ("node-b", "fenced", 3.5, None)


async def test_history_lists_versions(node: FakeNode) -> None:
    node.versions = [ConfigVersion(1, "ab" * 32, "", 0, 1, "node-a", 0.0)]
    (row,) = await rows(node, "SHOW CONFIG HISTORY")
    assert (row["version"], row["parent"], row["node"]) == (1, None, "node-a")


async def test_prepared_and_cached_statements_are_shown(node: FakeNode) -> None:
    node.services.prepared.use(b"SELECT $1", b"\0\0", "")
    (row,) = await rows(node, "SHOW PREPARED")
    assert (row["statement"], row["used_by"], row["rewrite"]) == ("SELECT $1", 1, None)
    for sql in (b"SELECT 1 FROM birds", b"SELECT 2 FROM birds", b"SELECT 2 FROM nests"):
        node.services.shapes.find(sql)
    first, second = await rows(node, "SHOW QUERY_CACHE")
    assert (first["hits"], second["hits"]) == (1, 0)
    assert "birds" in str(first["query"])
    assert await rows(node, "SHOW QUERY_CACHE BIRDS") == [first]
    assert await rows(node, "SHOW QUERY_CACHE 'from nests'") == [second]


async def test_version_begins_as_clients_expect(node: FakeNode) -> None:
    (row,) = await rows(node, "SHOW VERSION")
    assert row["version"] == "PgDog v0.1.54 [pgmurmur v0.1.0]"
    assert await rows(node, "SHOW INSTANCE_ID") == [{"instance_id": "node-a"}]


async def test_a_setting_nobody_knows_is_empty_and_said_so(node: FakeNode) -> None:
    answer = await run(node, "SHOW Nothing")
    assert (answer.tag, answer.rows, [f.name for f in answer.fields or ()]) == ("SHOW", [("",)], ["Nothing"])
    assert answer.notices
    answer = await run(node, "SHOW pool")
    assert answer.notices[0].hint == "perhaps you meant: SHOW POOLS [column, ...]"


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("SHOW server_version", "server_version", "18.0"),
        ("SHOW transaction isolation level", "transaction_isolation", "read committed"),
        ("SHOW standard_conforming_strings", "standard_conforming_strings", "on"),
        ("show TIME ZONE", "TimeZone", "UTC"),
    ],
)
async def test_settings_that_drivers_ask_for_have_values(node: FakeNode, text: str, name: str, value: str) -> None:
    answer = await run(node, text)
    assert await rows(node, text) == [{name: value}]
    assert answer.notices == []


async def test_a_result_has_a_limit(node: FakeNode) -> None:
    node.versions = [ConfigVersion(1, "ab" * 32, "", 0, 1, "node-a", 0.0)] * (RESULT_ROWS_LIMIT + 1)
    assert (await refused(node, "SHOW CONFIG HISTORY")).sqlstate == "53400"
