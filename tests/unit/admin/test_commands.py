"""The table of commands, and what each command does to its own node."""

from __future__ import annotations

import random

import pytest
from unit.admin.asking import refused, rows, run
from unit.admin.fake_node import FakeNode, member

from node.admin.commands import BY_WORDS, COMMANDS, Role, perform, prepare
from node.errors import Bug, ClientFault, Fault, ServerFault
from node.gate import Reason


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


# --- the table -------------------------------------------------------------------------------------------------------


def test_every_command_has_a_role_a_grammar_and_a_word_of_help() -> None:
    for command in COMMANDS:
        assert command.role in Role, command.words
        assert command.grammar.upper().startswith(" ".join(command.words)), command.words
        assert command.text, command.words
    assert len(BY_WORDS) == len(COMMANDS), "two commands begin with the same words"


def test_whatever_changes_something_is_for_admins() -> None:
    harmless = {command.words[0] for command in COMMANDS if command.role is Role.VIEWER}
    drivers = {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "DISCARD", "RESET", "CLOSE", "UNLISTEN"}
    assert harmless == {"SHOW", "SELECT", "DEALLOCATE", *drivers}
    assert BY_WORDS[("RESET", "PREPARED")].role is Role.ADMIN


async def test_a_viewer_may_look_but_not_change(node: FakeNode) -> None:
    for command in COMMANDS:
        text = " ".join(command.words)
        if command.role is Role.ADMIN:
            fault = await refused(node, text, Role.VIEWER)
            assert fault.sqlstate == "42501", text
    assert node.calls == []


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("SELECT 1", "SHOW HELP lists the commands; for SQL connect to another database"),
        ("RELAOD", "perhaps you meant: RELOAD"),
        ("MAINTENANCE", "perhaps you meant: MAINTENANCE ON [database]"),
        ("RESET PREPARE", "perhaps you meant: RESET PREPARED"),
        ("'quoted'", "SHOW HELP lists the commands; for SQL connect to another database"),
        ("SELECT * FROM pg_class", "SHOW HELP lists the commands; for SQL connect to another database"),
    ],
)
async def test_an_unknown_command_is_08p01_with_the_nearest_one(node: FakeNode, text: str, hint: str) -> None:
    fault = await refused(node, text)
    assert (fault.sqlstate, fault.message) == ("08P01", "syntax error in admin command")
    assert fault.hint == hint


@pytest.mark.parametrize(
    "text",
    [
        "RELOAD now", "SHUTDOWN 5", "PAUSE a b c", "BAN birds", "BAN 1 2", "PROBE", "SET", "SET x", "SET x TO",
        "SET x TO 1 2", "MAINTENANCE ON a b", "RESET PREPARED now", "SHOW", "SHOW a b c d", "SHOW POOLS 'id'",
        "SHOW POOLS id,", "ROLLOUT CONFIG", "ROLLOUT CONFIG x", "ROLLOUT DRY", "ROLLOUT TIMEOUT -1",
        "ROLLOUT TIMEOUT nan", "ROLLOUT TIMEOUT 1 TIMEOUT 2", "ROLLBACK TO", "ROLLBACK TO savepoint",
        "ROLLBACK TO 1 CONFIG 'x'", "EVICT NODE", "CLUSTER", "CLUSTER CLUSTER SHOW POOLS", "CLUSTER ROLLOUT",
        "SHOW VERSION 'x",
    ],
)  # fmt: skip
async def test_a_command_that_is_not_as_its_grammar_is_08p01(node: FakeNode, text: str) -> None:
    assert (await refused(node, text)).sqlstate == "08P01"
    assert node.calls == []


@pytest.mark.parametrize("text", ["RESHARD a b c", "COPY_DATA a b c", "SETUP SCHEMA", "CUTOVER"])
async def test_what_does_not_exist_yet_says_so(node: FakeNode, text: str) -> None:
    assert (await refused(node, text)).sqlstate == "0A000"


async def test_help_lists_every_command(node: FakeNode) -> None:
    listed = {row["command"] for row in await rows(node, "SHOW HELP")}
    assert {"SHOW POOLS [column, ...]", "RELOAD", "CLUSTER command"} <= listed
    assert "BEGIN" not in listed


# --- what drivers say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("BEGIN", "BEGIN"), ("begin read only", "BEGIN"), ("START TRANSACTION", "START TRANSACTION"),
        ("COMMIT", "COMMIT"), ("END", "COMMIT"), ("ROLLBACK", "ROLLBACK"), ("ABORT", "ROLLBACK"),
        ("DISCARD ALL", "DISCARD ALL"), ("RESET ALL", "RESET"), ("UNLISTEN *", "UNLISTEN"),
        ('DEALLOCATE "_pg3_0"', "DEALLOCATE"), ("SET extra_float_digits = 3", "SET"),
        ("SET application_name = ''", "SET"), ("SET client_encoding TO 'UTF8'", "SET"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"), ("SET TIME ZONE 'UTC'", "SET"),
        ("SET DateStyle = ISO, MDY", "SET"), ("SELECT pg_advisory_unlock_all()", "SELECT 1"),
    ],
)  # fmt: skip
async def test_what_drivers_say_is_accepted(node: FakeNode, text: str, tag: str) -> None:
    before = node.config
    assert (await run(node, text)).tag == tag
    assert node.config is before


# --- changes ---------------------------------------------------------------------------------------------------------


async def test_reload_points_to_rollout_in_a_flock(node: FakeNode) -> None:
    alone = await run(node, "RELOAD")
    assert (alone.tag, node.calls) == ("RELOAD", ["reload"])
    assert [notice.text for notice in alone.notices] == ["[general] port takes effect when a node restarts"]
    node.others = [member("node-b")]
    hints = [notice.hint for notice in (await run(node, "RELOAD")).notices]
    assert hints[-1] == "ROLLOUT gives all nodes of the flock one configuration"


@pytest.mark.parametrize("text", ["SET query_timeout TO 5000", "set QUERY_TIMEOUT = '5000'"])
async def test_set_changes_a_setting(node: FakeNode, text: str) -> None:
    assert (await run(node, text)).tag == "SET"
    assert node.config.general.query_timeout == 5000


async def test_set_refuses_what_it_does_not_know(node: FakeNode) -> None:
    assert (await refused(node, "SET qwerty TO 1")).sqlstate == "42704"
    assert (await refused(node, "SET query_timeout TO soon")).sqlstate == "22023"


async def test_pause_closes_the_gate_and_then_the_pools(node: FakeNode) -> None:
    gate, pool, other = node.databases.gates["birds"], node.pool(), node.pool("Nests")
    assert gate.enter()  # a transaction is running
    assert (await run(node, "PAUSE birds")).tag == "PAUSE"
    assert (gate.is_open, gate.reasons) == (False, {Reason.PAUSE})
    assert not pool.core.paused, "a running transaction may still need a connection to another shard"
    gate.leave()
    assert pool.core.paused
    assert not other.core.paused
    assert [row["database"] for row in await rows(node, "SHOW POOLS") if row["paused"]] == ["birds"] * 4
    assert (await run(node, "RESUME birds")).tag == "RESUME"
    assert gate.is_open
    assert not pool.core.paused


async def test_resume_before_the_last_transaction_ended_leaves_the_pools_alone(node: FakeNode) -> None:
    gate = node.databases.gates["birds"]
    gate.enter()
    await run(node, "PAUSE")
    await run(node, "RESUME")
    gate.leave()
    assert not node.pool().core.paused


async def test_pause_without_a_name_is_for_all_and_names_keep_their_case(node: FakeNode) -> None:
    await run(node, "PAUSE")
    assert [gate.is_open for gate in node.databases.gates.values()] == [False, False]
    await run(node, 'RESUME "Nests"')
    assert node.databases.gates["Nests"].is_open
    assert (await refused(node, "RESUME nests")).sqlstate == "3D000"


async def test_pause_of_one_user_leaves_the_others_alone(node: FakeNode) -> None:
    await run(node, "PAUSE wren birds")
    assert node.databases.gates["birds"].is_open
    assert node.pool(user="wren").core.paused
    assert not node.pool(user="starling").core.paused
    await run(node, "RESUME wren birds")
    assert not node.pool(user="wren").core.paused
    assert (await refused(node, "PAUSE wren Nests")).sqlstate == "3D000"


async def test_maintenance_is_another_reason_than_pause(node: FakeNode) -> None:
    gate = node.databases.gates["birds"]
    assert (await run(node, "maintenance on")).tag == "MAINTENANCE ON"
    await run(node, "PAUSE birds")
    assert gate.reasons == {Reason.PAUSE, Reason.MAINTENANCE}
    await run(node, "RESUME")
    assert not gate.is_open
    assert (await run(node, "MAINTENANCE OFF birds")).tag == "MAINTENANCE OFF birds"
    assert gate.is_open
    assert not node.databases.gates["Nests"].is_open
    assert (await refused(node, "MAINTENANCE ON eggs")).sqlstate == "3D000"


async def test_ban_and_unban_one_pool_or_all(node: FakeNode) -> None:
    pool = node.pool("Nests")
    assert (await run(node, f"BAN {pool.id}")).tag == "BAN"
    (row,) = await rows(node, "SHOW BANS")
    assert (row["id"], row["database"], row["ban_reason"], row["ban_time_left"]) == (pool.id, "Nests", "admin", None)
    await run(node, "BAN")
    assert len(await rows(node, "SHOW BANS")) == 5
    await run(node, f"UNBAN {pool.id}")
    assert len(await rows(node, "SHOW BANS")) == 4
    await run(node, "UNBAN")
    assert await rows(node, "SHOW BANS") == []
    assert (await refused(node, "BAN 999999")).sqlstate == "42704"


async def test_an_automatic_ban_shows_the_time_left(node: FakeNode) -> None:
    node.pool("Nests").health.failed("no route to host", node.now, 30.0, may_ban=True)
    node.now += 10
    (row,) = await rows(node, "SHOW BANS")
    assert (row["ban_reason"], row["ban_time_left"]) == ("no route to host", 20_000)


async def test_reconnect_closes_idle_connections(node: FakeNode) -> None:
    pool = node.pool()
    server = node.idle_server(pool)
    assert (await run(node, "RECONNECT")).tag == "RECONNECT"
    assert server.closed_why is not None
    assert pool.core.idle == []


async def test_reset_prepared_keeps_what_is_used(node: FakeNode) -> None:
    prepared = node.services.prepared
    used, unused = prepared.use(b"SELECT 1", b"\0\0", ""), prepared.use(b"SELECT 2", b"\0\0", "")
    prepared.drop(unused)
    assert (await run(node, "RESET PREPARED")).tag == "RESET PREPARED"
    assert list(prepared.known.values()) == [used]


async def test_reset_query_cache_empties_it(node: FakeNode) -> None:
    node.services.shapes.find(b"SELECT 1")
    assert (await run(node, "RESET QUERY_CACHE")).tag == "RESET QUERY CACHE"
    assert await rows(node, "SHOW QUERY_CACHE") == []
    assert node.services.shapes.cache.misses == 0


async def test_shutdown_begins_a_stop(node: FakeNode) -> None:
    assert (await run(node, "SHUTDOWN")).tag == "SHUTDOWN"
    assert node.calls == ["shutdown"]


@pytest.mark.parametrize(
    ("url", "detail"),
    [
        ("http://u@h/db", "it must begin with postgres://"),
        ("postgres://h/db", "it names no user"),
        ("postgres://u@/db", "it names no host"),
        ("postgres://u@h:x/db", None),
        ("postgres://u@h:70000/db", None),
        ("postgres://u@[::1/db", None),
    ],
)
async def test_a_wrong_url_is_not_repeated(node: FakeNode, url: str, detail: str | None) -> None:
    fault = await refused(node, f"PROBE {url}")
    assert fault.sqlstate == "22023"
    assert detail in (None, fault.detail)
    assert url not in str(fault)


# --- robustness ------------------------------------------------------------------------------------------------------


async def test_a_server_that_fails_a_command_is_an_error_and_not_fatal(node: FakeNode) -> None:
    node.outcome = ServerFault("register is unavailable", sqlstate="08006", severity="FATAL")
    fault = await refused(node, "ROLLOUT")
    assert fault.severity == "ERROR"


SEEDS = [command.grammar for command in COMMANDS] + [
    "SHOW CLIENTS id, state", "PAUSE starling birds", "MAINTENANCE ON birds", "SET query_timeout TO 1000", "BAN 3",
    "ROLLOUT CONFIG 'a' USERS $$b$$ DRY RUN TIMEOUT 3 REPORT", "ROLLBACK TO 2", "CLUSTER SHOW POOLS", "SHOW a",
    "SHOW QUERY_CACHE 'x'", "SET a = E'b\\n'", "EVICT NODE node-b", "RELOAD; SHOW POOLS; PAUSE \"Nests\"",
]  # fmt: skip


async def test_mutated_commands_end_in_an_answer_or_a_declared_error(node: FakeNode) -> None:
    """PROBE and HEALTHCHECK are left out: they would knock at real addresses."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    letters = " \t\n;,='\"$\\-/*()E1aZ\0é\ud7ff\U0001f426"
    answered = 0
    faults: list[tuple[str, Fault]] = []
    for _ in range(10_000):
        text = chance.choice(SEEDS)
        for _ in range(chance.randrange(4)):
            at = chance.randrange(len(text) + 1)
            match chance.randrange(4):
                case 0:
                    text = text[:at] + chance.choice(letters) + text[at:]
                case 1:
                    text = text[:at] + text[at + chance.randrange(1, 4) :]
                case 2:
                    text = text[:at] + chance.choice(SEEDS) + text[at:]
                case _:
                    text = text[:at].swapcase() + text[at:]
        try:
            for prepared in prepare(text, Role.ADMIN):
                if {"PROBE", "HEALTHCHECK"} & set(prepared.source.upper().split()):
                    continue
                fields = prepared.fields()
                answer = await perform(node, prepared)
                assert answer.fields == fields
                answered += 1
        except Fault as fault:
            faults.append((text, fault))
    for text, fault in faults:
        assert not isinstance(fault, Bug), text
        assert len(fault.sqlstate) == 5, text
        assert fault.severity == "ERROR", text
    assert answered > 1000
    assert len(faults) > 1000


def test_parameters_become_strings() -> None:
    (prepared,) = prepare("ROLLOUT CONFIG $1 USERS $2", Role.ADMIN)
    assert prepared.parameters == 2
    assert [token.text for token in prepared.bound(["a", "b"]).rest] == ["CONFIG", "a", "USERS", "b"]
    with pytest.raises(ClientFault, match="null"):
        prepared.bound(["a", None])
