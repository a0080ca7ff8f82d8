"""Three real services on loopback: real files, real TCP, one event loop; only the proxy behind them is a fake."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fakes.waiting import wait_until

from sync.control import ControlChannel
from sync.identity import Identity
from sync.journal import FileJournal
from sync.outcome import COLUMNS, Outcome
from sync.ports import ApplyFailed, DrainFailed, JournalFailed, Report
from sync.rollout import ChangeClass
from sync.service import StartRefused, Sync
from sync.settings import SettingsError, SyncSettings
from sync.store import DocumentStore, StoreFailed
from sync.version import ConfigVersion, digest_of

FAST = SyncSettings(
    validate_timeout=5.0,
    drain_timeout=0.6,
    fence_timeout=1.0,
    takeover=0.4,
    takeover_jitter=0.2,
    resend=0.05,
    poll=0.5,
    busy_poll=0.05,
    confirm=2.0,
)
KEY = bytes(range(32))


@dataclass
class FakeProxy:
    """What a node would do with a document. Documents say their class: b"rolling …", anything else is exclusive."""

    events: list[str] = field(default_factory=list)
    document: bytes = b""
    version: int = 0
    paused: bool = False
    refuses: str = ""
    drain_hangs: bool = False
    drain_fails: str = ""
    apply_fails: str = ""
    validate_raises: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def validate(self, document: bytes) -> Report:
        self.events.append("validate")
        if self.validate_raises:
            raise RuntimeError("parser exploded")
        change = ChangeClass.ROLLING if document.startswith(b"rolling") else ChangeClass.EXCLUSIVE
        return Report(change, ("shop",), (self.refuses,) if self.refuses else (), ("2 sessions cannot drain",))

    def pause(self, scope: tuple[str, ...], rid: int) -> None:
        self.events.append(f"pause {','.join(scope)}")
        self.paused = True

    async def drain(self, scope: tuple[str, ...]) -> None:
        if self.drain_hangs:
            await asyncio.Event().wait()
        if self.drain_fails:
            raise DrainFailed(self.drain_fails)
        await self.gate.wait()
        self.events.append("drained")

    def resume(self, scope: tuple[str, ...]) -> None:
        self.events.append("resume")
        self.paused = False

    async def apply(self, document: bytes, version: ConfigVersion) -> None:
        if self.apply_fails:
            raise ApplyFailed(self.apply_fails)
        self.events.append(f"apply {version.n}")
        self.document, self.version = document, version.n


@dataclass
class Node:
    name: str
    sync: Sync
    control: ControlChannel
    proxy: FakeProxy
    address: str

    async def kill(self) -> None:
        """As kill -9 would: nothing is said to anybody, the port is closed."""
        await self.sync.stop()
        await self.control.stop()


class Flock:
    def __init__(self, folder: Path, *, key: bytes | None = None) -> None:
        self.folder = folder
        self.key = key
        self.nodes: dict[str, Node] = {}
        self.addresses: dict[str, str] = {}
        self.boots = 0
        self.left: list[str] = []  # what discovery would know from their goodbye

    async def boot(self, name: str, document: bytes = b"one", *, adopt: bool = False, **proxy: Any) -> Node:
        node = await self.prepare(name, **proxy)
        await self.begin(node, document, adopt=adopt)
        return node

    async def prepare(self, name: str, *, register: str | None = None, **proxy: Any) -> Node:
        self.boots += 1
        state = self.folder / name
        identity = None if self.key is None else Identity(name, [self.key], "default", state)
        control = ControlChannel(name, identity=identity)
        address = f"127.0.0.1:{await control.start('127.0.0.1', 0)}"
        target = FakeProxy(**proxy)
        try:
            sync = self.service(name, state, register, control, target, address)
        except BaseException:
            await control.stop()
            raise
        node = Node(name, sync, control, target, address)
        self.addresses[name] = address
        self.nodes[name] = node
        return node

    def service(
        self, name: str, state: Path, register: str | None, control: ControlChannel, target: FakeProxy, address: str
    ) -> Sync:
        return Sync(
            node=name,
            boot=f"{name}-{self.boots}",
            state_dir=state,
            register_url=register or f"file:{self.folder / 'register'}",
            control=control,
            peers=lambda: dict(self.addresses),
            reachable=lambda node: False if node in self.left else None,
            target=target,
            settings=FAST,
            address=address,
        )

    async def begin(self, node: Node, document: bytes = b"one", *, adopt: bool = False) -> bytes:
        try:
            return await asyncio.wait_for(node.sync.start(document, adopt), 10)
        except BaseException:
            await node.kill()
            del self.nodes[node.name], self.addresses[node.name]
            raise

    async def leave(self, name: str) -> None:
        self.left.append(name)
        await self.nodes[name].sync.leave()
        await self.kill(name)

    async def kill(self, name: str) -> None:
        await self.nodes.pop(name).kill()

    async def close(self) -> None:
        for name in list(self.nodes):
            await self.kill(name)


@pytest.fixture
async def flock(tmp_path: Path) -> AsyncIterator[Flock]:
    made = Flock(tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def three(flock: Flock) -> Flock:
    for name in ("a", "b", "c"):
        await flock.boot(name)
    return flock


def versions(flock: Flock) -> list[int]:
    return [node.proxy.version for node in flock.nodes.values()]


# ── boot ────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_first_boot_founds_version_1_and_the_others_join_it(three: Flock) -> None:
    assert versions(three) == [1, 1, 1]
    cell = three.nodes["c"].sync.cell
    assert cell is not None
    assert cell.roster.names == ("a", "b", "c")
    assert three.nodes["a"].sync.version == (1, digest_of(b"one"))
    assert three.nodes["a"].sync.drift is False
    await wait_until(lambda: len(three.nodes["a"].sync.status()) == 3)
    assert {row["phase"] for row in three.nodes["a"].sync.status()} == {"idle"}


async def test_a_stranger_with_other_files_is_refused_with_both_digests_and_both_documents(flock: Flock) -> None:
    await flock.boot("a", b"one")
    with pytest.raises(StartRefused) as refused:
        await flock.boot("b", b"two")
    assert digest_of(b"one") in str(refused.value)
    assert digest_of(b"two") in str(refused.value)
    assert refused.value.document == b"one"


async def test_adopting_takes_the_registers_version_and_shows_drift(flock: Flock) -> None:
    await flock.boot("a", b"one")
    b = await flock.boot("b", b"two", adopt=True)
    assert b.proxy.document == b"one"
    assert b.sync.drift is True


async def test_a_known_node_restarts_with_whatever_files_it_has(flock: Flock) -> None:
    await flock.boot("a", b"one")
    await flock.kill("a")
    a = await flock.boot("a", b"other files")
    assert a.proxy.document == b"one"
    assert a.sync.drift is True


async def test_two_processes_in_one_state_directory_are_refused(flock: Flock) -> None:
    first = await flock.boot("a")
    twin = await flock.prepare("a")
    with pytest.raises(StartRefused, match="another process uses the state directory"):
        await twin.sync.start(b"one")
    await twin.kill()
    flock.nodes["a"] = first


async def test_a_register_that_lost_its_memory_does_not_rule(flock: Flock) -> None:
    await flock.boot("a")
    await flock.kill("a")
    (flock.folder / "register" / "cell").unlink()
    with pytest.raises(StartRefused, match="the register is empty, but this node has applied version 1"):
        await flock.boot("a")


async def test_a_damaged_register_is_named(flock: Flock) -> None:
    (flock.folder / "register").mkdir()
    (flock.folder / "register" / "cell").write_bytes(b"something else, long enough to be looked at")
    with pytest.raises(StartRefused, match="damaged or not a register"):
        await flock.boot("a")


@pytest.mark.parametrize("url", ["postgres://u:secret@db/x", "postgresql://db/x", "etcd://10.0.0.1:2379"])
async def test_registers_of_later_issues_say_so(flock: Flock, url: str) -> None:
    with pytest.raises(SettingsError, match="is not built yet") as refused:
        await flock.prepare("a", register=url)
    assert "secret" not in str(refused.value)


# ── rollouts ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_exclusive_rollout_pauses_drains_votes_and_turns_everywhere(three: Flock) -> None:
    outcome = await three.nodes["b"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "committed"
    assert outcome.version == 2
    assert versions(three) == [2, 2, 2]
    for node in three.nodes.values():
        assert node.proxy.document == b"two"
        steps = [event for event in node.proxy.events if event != "validate"]
        assert steps == ["apply 1", "pause shop", "drained", "apply 2", "resume"]
    shown = outcome.as_json()
    assert [row["node"] for row in shown["nodes"]] == ["a", "b", "c"]
    assert all(row["version"] == 2 and row["ack"] and row["paused_ms"] > 0 for row in shown["nodes"])
    assert outcome.exit_status == 0


async def test_a_rolling_change_pauses_nobody(three: Flock) -> None:
    outcome = await three.nodes["a"].sync.rollout(b"rolling two", by="alice")
    assert outcome.outcome == "committed"
    assert versions(three) == [2, 2, 2]
    assert not any("pause" in event for node in three.nodes.values() for event in node.proxy.events)
    assert all(row["paused_ms"] == 0 for row in outcome.as_json()["nodes"])


async def test_show_rollout_reads_alike_on_every_node(three: Flock) -> None:
    await three.nodes["a"].sync.rollout(b"two", by="alice")
    await wait_until(lambda: all(row["state"] == "applied" for row in three.nodes["c"].sync.status()))
    here, there = three.nodes["a"].sync.status(), three.nodes["c"].sync.status()
    assert here == there
    assert tuple(here[0]) == COLUMNS
    assert {(row["id"], row["version"], row["phase"], row["coordinator"]) for row in here} == {(1, 2, "committed", "a")}


async def test_one_refusal_aborts_before_anybody_pauses(three: Flock) -> None:
    three.nodes["c"].proxy.refuses = "shard 7 does not exist"
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "aborted"
    assert outcome.reason is not None
    assert "c: shard 7 does not exist" in outcome.reason
    assert outcome.exit_status == 1
    assert not any("pause" in event for node in three.nodes.values() for event in node.proxy.events)
    assert versions(three) == [1, 1, 1]
    await wait_until(lambda: {row["phase"] for row in three.nodes["b"].sync.status()} == {"aborted"})


async def test_a_validation_that_crashes_is_a_refusal(three: Flock) -> None:
    three.nodes["b"].proxy.validate_raises = True
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "aborted"
    assert outcome.reason is not None
    assert "parser exploded" in outcome.reason


async def test_an_invalid_document_opens_nothing(three: Flock) -> None:
    three.nodes["a"].proxy.refuses = "line 3: unknown key"
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert (outcome.outcome, outcome.opened, outcome.errors) == ("aborted", False, ("line 3: unknown key",))
    assert {row["phase"] for row in three.nodes["a"].sync.status()} == {"idle"}


async def test_a_dry_run_asks_everybody_and_opens_nothing(three: Flock) -> None:
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice", dry_run=True)
    assert outcome.exit_status == 0
    assert outcome.opened is False
    three.nodes["b"].proxy.refuses = "no such role"
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice", dry_run=True)
    assert outcome.exit_status == 1
    assert outcome.reason == "dry run: b: no such role"
    assert {row["phase"] for row in three.nodes["a"].sync.status()} == {"idle"}


async def test_what_is_in_force_already_is_committed_already(three: Flock) -> None:
    outcome = await three.nodes["a"].sync.rollout(b"one", by="alice")
    assert (outcome.outcome, outcome.version, outcome.opened) == ("committed", 1, False)


async def test_a_second_rollout_is_refused_with_node_phase_and_age(three: Flock) -> None:
    three.nodes["c"].proxy.gate.clear()
    first = asyncio.create_task(three.nodes["a"].sync.rollout(b"two", by="alice"))
    await wait_until(lambda: three.nodes["c"].proxy.paused)
    second = await three.nodes["b"].sync.rollout(b"three", by="bob")
    assert second.outcome == "aborted"
    assert second.opened is False
    assert second.reason is not None
    assert second.reason.startswith("rollout 1 is open: node a, fencing for ")
    three.nodes["c"].proxy.gate.set()
    assert (await first).outcome == "committed"


async def test_a_drain_that_does_not_end_aborts_and_everybody_resumes(three: Flock) -> None:
    three.nodes["b"].proxy.drain_hangs = True
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "aborted"
    assert outcome.reason is not None
    assert "transactions did not end" in outcome.reason
    await wait_until(lambda: not any(node.proxy.paused for node in three.nodes.values()))
    assert versions(three) == [1, 1, 1]


async def test_a_drain_that_fails_says_why(three: Flock) -> None:
    three.nodes["b"].proxy.drain_fails = "backend 4711 of an older boot cannot be ended"
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.reason == "b: backend 4711 of an older boot cannot be ended"
    await wait_until(lambda: not any(node.proxy.paused for node in three.nodes.values()))


async def test_a_member_that_cannot_apply_is_listed_and_serves_nothing(three: Flock) -> None:
    three.nodes["c"].proxy.apply_fails = "out of memory"
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "committed"
    row = next(row for row in outcome.as_json()["nodes"] if row["node"] == "c")
    assert row["version"] is None
    assert row["reason"] == "out of memory"
    assert three.nodes["c"].proxy.paused is True


async def test_the_operators_abort_reaches_any_coordinator(three: Flock) -> None:
    three.nodes["c"].proxy.gate.clear()
    rollout = asyncio.create_task(three.nodes["a"].sync.rollout(b"two", by="alice"))
    await wait_until(lambda: three.nodes["c"].proxy.paused)
    assert await three.nodes["b"].sync.abort("bob")
    assert not await three.nodes["b"].sync.abort("bob")
    outcome = await rollout
    assert (outcome.outcome, outcome.reason) == ("aborted", "aborted by bob")


async def test_bugs_of_the_proxy_are_refusals_and_not_the_end_of_the_node(
    three: Flock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def explodes(*_: Any) -> None:
        raise ZeroDivisionError("oops")

    proxy = three.nodes["b"].proxy
    monkeypatch.setattr(proxy, "drain", explodes)
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert (outcome.outcome, outcome.reason) == ("aborted", "b: ZeroDivisionError('oops')")
    monkeypatch.undo()
    monkeypatch.setattr(proxy, "apply", explodes)
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "committed"
    assert [row.reason for row in outcome.nodes if row.node == "b"] == ["ZeroDivisionError('oops')"]


async def test_a_validation_that_hangs_is_a_refusal(three: Flock, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(document: bytes) -> Report:
        await asyncio.Event().wait()
        raise AssertionError

    b = three.nodes["b"]
    monkeypatch.setattr(b.proxy, "validate", hangs)
    b.sync.settings = replace(FAST, validate_timeout=0.05)
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.reason == "b: validation did not end within 0.05 s"


async def test_older_versions_can_be_fetched_and_drift_follows_the_files(three: Flock) -> None:
    a = three.nodes["a"]
    await a.sync.rollout(b"two", by="alice")
    assert a.sync.drift is True
    a.sync.local_files(b"two")
    assert a.sync.drift is False
    cell = a.sync.cell
    assert cell is not None
    assert [await a.sync.document(version.digest) for version in cell.history] == [b"one", b"two"]
    with pytest.raises(StoreFailed, match="no member has document"):
        await a.sync.document(digest_of(b"never"))


async def test_a_dry_run_and_a_rollout_on_one_node_do_not_meet(three: Flock, monkeypatch: pytest.MonkeyPatch) -> None:
    started, gate = asyncio.Event(), asyncio.Event()

    async def slow(document: bytes) -> Report:
        started.set()
        await gate.wait()
        return Report(ChangeClass.LOCAL)

    monkeypatch.setattr(three.nodes["b"].proxy, "validate", slow)
    dry = asyncio.create_task(three.nodes["a"].sync.rollout(b"two", by="alice", dry_run=True))
    await started.wait()
    refused = await three.nodes["a"].sync.rollout(b"three", by="bob")
    assert refused.reason == "a dry run is under way: node a runs it"
    gate.set()
    assert (await dry).exit_status == 0


async def test_the_operators_timeout_aborts(three: Flock) -> None:
    three.nodes["c"].proxy.gate.clear()
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice", timeout=0.2)
    assert outcome.outcome == "aborted"
    assert outcome.reason == "the operator's timeout was reached"


# ── members that come and go ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_killed_member_aborts_a_rollout_at_once_until_it_is_evicted(three: Flock) -> None:
    await three.kill("c")
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "aborted"
    assert outcome.reason is not None
    assert "c is unreachable" in outcome.reason
    assert await three.nodes["a"].sync.evict("c", "alice")
    three.left.append("c")
    assert (await three.nodes["a"].sync.rollout(b"two", by="alice")).outcome == "committed"
    assert await three.nodes["a"].sync.evict("a", "alice") is False


async def test_a_member_that_left_is_not_waited_for(three: Flock) -> None:
    await three.leave("c")
    assert (await three.nodes["a"].sync.rollout(b"two", by="alice")).outcome == "committed"


async def test_a_member_that_comes_back_catches_up_before_it_serves(three: Flock) -> None:
    await three.leave("c")
    await three.nodes["a"].sync.rollout(b"two", by="alice")
    for document in (three.folder / "register" / "documents").iterdir():
        document.unlink()  # so that it has to ask its peers
    three.left.clear()
    c = await three.boot("c", b"one")
    assert c.proxy.document == b"two"
    assert [event for event in c.proxy.events if "apply" in event] == ["apply 2"]
    assert c.sync.drift is True


async def test_a_dead_coordinator_is_succeeded_and_its_rollout_decided(three: Flock) -> None:
    three.nodes["c"].proxy.gate.clear()
    rollout = asyncio.create_task(three.nodes["a"].sync.rollout(b"two", by="alice"))
    await wait_until(lambda: three.nodes["b"].proxy.paused and three.nodes["c"].proxy.paused)
    await three.kill("a")
    assert (await rollout).outcome == "unknown"
    three.nodes["c"].proxy.gate.set()
    b, c = three.nodes["b"], three.nodes["c"]
    await wait_until(lambda: b.sync.cell is not None and b.sync.cell.roll is None and b.sync.cell.last is not None)
    await wait_until(lambda: not b.proxy.paused and not c.proxy.paused)
    assert b.proxy.version == c.proxy.version
    a = await three.boot("a")
    assert a.proxy.version == b.proxy.version
    assert (await a.sync.rollout(b"three", by="alice")).outcome == "committed"


async def test_a_member_killed_after_its_vote_stays_silent_until_it_knows_the_outcome(three: Flock) -> None:
    three.nodes["c"].proxy.gate.clear()
    rollout = asyncio.create_task(three.nodes["a"].sync.rollout(b"two", by="alice"))
    await wait_until(lambda: "drained" in three.nodes["b"].proxy.events and three.nodes["c"].proxy.paused)
    await three.kill("b")
    b = await three.prepare("b")
    starting = asyncio.create_task(three.begin(b))
    await rollout
    await starting
    await wait_until(lambda: len(set(versions(three))) == 1)
    assert not b.proxy.paused


async def test_a_full_disk_refuses_the_document_and_leaves_the_flock_healthy(
    three: Flock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DocumentStore.put
    full = three.folder / "c" / "documents"

    def put(self: DocumentStore, document: bytes) -> str:
        if self.folder == full:
            raise StoreFailed(f"could not write a document: {errno.errorcode[errno.ENOSPC]}")
        return real(self, document)

    monkeypatch.setattr(DocumentStore, "put", put)
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "aborted"
    assert outcome.reason is not None
    assert "ENOSPC" in outcome.reason
    monkeypatch.undo()
    assert (await three.nodes["a"].sync.rollout(b"two", by="alice")).outcome == "committed"


async def test_a_journal_that_fails_stops_its_node_from_promising(
    three: Flock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sync.journal import FileJournal

    c = three.nodes["c"]
    real = FileJournal.store

    def store(self: FileJournal, promise: Any) -> None:
        if self.folder == three.folder / "c":
            raise JournalFailed("could not write the journal: input/output error")
        real(self, promise)

    monkeypatch.setattr(FileJournal, "store", store)
    outcome = await three.nodes["a"].sync.rollout(b"two", by="alice")
    assert outcome.outcome == "aborted"
    with pytest.raises(JournalFailed):
        await c.sync.failed
    assert three.nodes["a"].proxy.version == three.nodes["b"].proxy.version == c.proxy.version == 1
    assert c.proxy.paused is True


async def test_a_member_that_shares_no_register_is_named_before_a_rollout(flock: Flock) -> None:
    a = await flock.boot("a")
    flock.addresses["far"] = "10.1.2.3:16432"
    outcome = await a.sync.rollout(b"two", by="alice")
    assert outcome.opened is False
    assert outcome.reason is not None
    assert outcome.reason.startswith("far has no seat in the register file:")
    assert "set register in [sync]" in outcome.reason


async def test_nodes_with_a_key_speak_tls(tmp_path: Path) -> None:
    flock = Flock(tmp_path, key=KEY)
    try:
        await flock.boot("a")
        await flock.boot("b")
        outcome = await flock.nodes["a"].sync.rollout(b"two", by="alice")
        assert outcome.outcome == "committed"
        assert versions(flock) == [2, 2]
    finally:
        await flock.close()


async def test_a_node_that_does_not_serve_yet_says_so(flock: Flock) -> None:
    node = await flock.prepare("a")
    outcome = await node.sync.rollout(b"two", by="alice")
    assert outcome.reason == "this node does not serve a configuration now; ask another one"
    assert node.sync.status() == []
    assert node.sync.version is None
    await node.sync.leave()


def test_the_exit_status_of_an_unknown_outcome_is_3() -> None:
    assert Outcome("unknown", None, digest_of(b"x"), "nobody knows").exit_status == 3


def test_isolation_pause_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match='isolation = "serve"'):
        SyncSettings(isolation="pause").check()
    with pytest.raises(SettingsError, match="must be"):
        SyncSettings(isolation="maybe").check()
    with pytest.raises(SettingsError, match="fence_timeout"):
        SyncSettings(fence_timeout=1.0).check()
    with pytest.raises(SettingsError, match="takeover must be over"):
        SyncSettings(takeover=0.5).check()
