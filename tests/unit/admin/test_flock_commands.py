"""Commands that reach beyond this node: ROLLOUT, EVICT, CLUSTER."""

from __future__ import annotations

import pytest
from unit.admin.asking import refused, rows, run
from unit.admin.fake_node import FakeNode, member

from discovery.member import State
from node.admin.cluster import pack_question
from node.admin.commands import serve
from node.admin.ports import RolloutReport, RolloutRequest
from node.errors import ClientFault
from sync.messages import MemberRow


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


async def test_rollout_carries_its_texts(node: FakeNode) -> None:
    text = "ROLLOUT USERS $u$it's$u$ CONFIG '[general]\nport = ''1'' -- no comment' DRY  RUN TIMEOUT 2.5"
    (row,) = await rows(node, text)
    assert node.calls == [RolloutRequest("[general]\nport = '1' -- no comment", "it's", dry_run=True, timeout_s=2.5)]
    assert (row["outcome"], row["id"], row["version"], row["node"]) == ("committed", 4, 2, "node-a")
    assert (row["node_version"], row["paused_ms"], row["drained_ms"], row["ack"]) == (2, 1.5, 0.25, True)


async def test_rollout_without_texts_is_of_the_nodes_files(node: FakeNode) -> None:
    await run(node, "rollout")
    await run(node, "ROLLBACK TO 3 REPORT")
    assert node.calls == [RolloutRequest(), RolloutRequest(to_version=3)]


@pytest.mark.parametrize(("outcome", "sqlstate"), [("aborted", "40000"), ("unknown", "40003")])
async def test_a_rollout_that_did_not_commit_is_an_error(node: FakeNode, outcome: str, sqlstate: str) -> None:
    row = MemberRow("node-b", "refused", False, None, 0.0, None, "cannot reach shard 2")
    node.outcome = RolloutReport(outcome, 5, None, None, "node-b refused", (row,))
    fault = (await run(node, "ROLLOUT")).fault
    assert fault is not None
    assert (fault.sqlstate, fault.detail) == (sqlstate, "node-b: cannot reach shard 2")
    answer = await run(node, "ROLLOUT REPORT")
    assert answer.fault is None
    assert answer.rows == [
        (outcome, 5, None, None, "node-b refused", "node-b", None, 0.0, None, False, "cannot reach shard 2")
    ]


async def test_a_dry_run_is_good_when_every_node_would_take_it(node: FakeNode) -> None:
    yes, no = MemberRow("node-a", "idle", True), MemberRow("node-b", "idle", False, reason="cannot reach shard 2")
    node.outcome = RolloutReport("aborted", 0, 1, "ab" * 32, "dry run: every member accepts", (yes,))
    assert (await run(node, "ROLLOUT DRY RUN")).fault is None
    node.outcome = RolloutReport("aborted", 0, 1, "ab" * 32, "dry run: node-b refuses", (yes, no))
    assert (await run(node, "ROLLOUT DRY RUN")).fault is not None


async def test_a_refused_document_lists_its_errors(node: FakeNode) -> None:
    node.outcome = ClientFault("configuration has 2 errors", sqlstate="F0000", detail="a:1: x\na:2: y")
    assert (await refused(node, "ROLLOUT")).detail == "a:1: x\na:2: y"
    (row,) = await rows(node, "ROLLOUT REPORT")
    assert (row["outcome"], row["id"], row["node"]) == ("aborted", None, None)
    assert row["reason"] == "configuration has 2 errors\na:1: x\na:2: y"


async def test_evict_names_a_node(node: FakeNode) -> None:
    assert (await run(node, 'EVICT NODE "Node B"')).tag == "EVICT"
    assert node.calls == [("evict", "Node B")]


async def peer(text: str, node: FakeNode) -> bytes:
    """What another node answers to this command."""
    return await serve(node, pack_question(text))


async def test_cluster_puts_the_node_before_every_row(node: FakeNode) -> None:
    other = FakeNode(name="node-b")
    other.session(3)
    node.session(1)
    node.others = [
        member("node-b"),
        member("node-c"),
        member("node-d", state=State.DEAD),
        member("node-e", state=State.LEFT),
    ]
    node.peers["node-b"] = await peer("SHOW CLIENTS id", other)
    node.peers["node-c"] = ClientFault("connection refused", sqlstate="08001")
    answer = await run(node, "CLUSTER  SHOW CLIENTS id")
    assert [f.name for f in answer.fields or ()] == ["node", "id", "user", "database", "addr", "port"]
    assert [tuple(row)[:3] for row in answer.rows] == [
        ("node-a", 1, "starling"),
        ("node-b", "3", "starling"),
        ("node-c", None, None),
        ("node-d", None, None),
    ]
    assert [notice.text for notice in answer.notices] == [
        "node-c: connection refused",
        "node-d: it is known to be dead",
    ]
    assert [name for name, _ in node.asked] == ["node-b", "node-c"]


async def test_cluster_of_a_command_without_rows_names_the_nodes(node: FakeNode) -> None:
    other = FakeNode(name="node-b")
    node.others = [member("node-b")]
    node.peers["node-b"] = await peer("MAINTENANCE ON birds", other)
    assert await rows(node, "CLUSTER MAINTENANCE ON birds") == [{"node": "node-a"}, {"node": "node-b"}]
    assert not other.databases.gates["birds"].is_open


async def test_a_members_error_is_its_notice_and_not_everybodys(node: FakeNode) -> None:
    node.others = [member("node-b")]
    node.peers["node-b"] = await peer("PAUSE eggs", FakeNode(name="node-b"))
    answer = await run(node, "CLUSTER PAUSE birds")
    assert [tuple(row) for row in answer.rows] == [("node-a",), ("node-b",)]
    assert [notice.text for notice in answer.notices] == ['node-b: database "eggs" does not exist']


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x93\x01\x02", b"\x92\x01\x02", b"\x95\x01\xa1x\x05\x90\x90"])
async def test_nonsense_on_the_channel_is_a_clean_error(node: FakeNode, payload: bytes) -> None:
    node.others = [member("node-b")]
    node.peers["node-b"] = payload
    answer = await run(node, "CLUSTER SHOW VERSION")
    assert [tuple(row)[0] for row in answer.rows] == ["node-a", "node-b"]
    assert len(answer.notices) == 1
    node.peers["node-b"] = await serve(node, payload)
    assert len((await run(node, "CLUSTER SHOW VERSION")).notices) == 1


@pytest.mark.parametrize("text", ["RELOAD; RELOAD", "", "CLUSTER RELOAD", "ROLLOUT"])
async def test_a_member_runs_one_command_of_one_node(node: FakeNode, text: str) -> None:
    node.others = [member("node-b")]
    node.peers["node-b"] = await peer(text, node)
    assert len((await run(node, "CLUSTER SHOW VERSION")).notices) == 1
    assert node.calls == []
