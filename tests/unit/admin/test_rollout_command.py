"""`pgmurmur rollout`: files, the command it sends, what it makes of the answer, its exit status."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from fakes.fake_postgres import FakePostgres, Reply

from node.admin.rollout_command import Documents, NotSent, command, literal, main, read, target
from node.admin.rollouts import FIELDS
from node.admin.tokens import statements
from node.options import Files, RolloutOptions

CONFIG = "[general]\nport = 6432  # it's new\n"
USERS = '[admin]\nuser = "boss"\npassword = "secret"\nname = "console"\n'


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.toml").write_text(CONFIG)
    (tmp_path / "who.toml").write_text(USERS)
    return Files("new.toml", "who.toml")


def test_both_files_are_sent_as_they_are(files: Files) -> None:
    documents = read(RolloutOptions(files))
    assert (documents.config, documents.users) == (CONFIG, USERS)
    sent = command(RolloutOptions(files, dry_run=True, timeout_s=2.5), documents)
    (statement,) = statements(sent)
    assert [token.text for token in statement] == [
        "ROLLOUT", "CONFIG", CONFIG, "USERS", USERS, "DRY", "RUN", "TIMEOUT", "2.5", "REPORT",
    ]  # fmt: skip


def test_without_a_users_file_the_one_in_force_stays(files: Files) -> None:
    options = RolloutOptions(Files("new.toml", None))
    assert "USERS" not in command(options, read(options))


def test_the_login_comes_from_the_environment_or_the_users_file(files: Files) -> None:
    options = RolloutOptions(files, host="h", port=1)
    login = read(options).login
    place = target(options, login, {})
    assert (place.user, place.database, place.passwords) == ("boss", "console", ("secret",))
    assert target(options, login, {"PGPASSWORD": "other"}).passwords == ("other",)
    assert target(RolloutOptions(files, user="me"), {}, {}).user == "me"
    assert target(options, {}, {}).passwords == ()


def test_a_users_file_that_is_not_sent_may_still_say_how_to_log_in(files: Files) -> None:
    Path("users.toml").write_text(USERS)
    documents = read(RolloutOptions(Files("new.toml", None)))
    assert documents.users is None
    assert documents.login["password"] == "secret"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("missing.toml", None, "cannot read missing.toml: no such file or directory"),
        ("bad.toml", b"\xff", "bad.toml is not UTF-8"),
        ("zero.toml", b"a\0b", "zero.toml has a zero byte"),
        ("big.toml", b"#" * ((4 << 20) + 1), "big.toml is larger than 4194304 bytes"),
    ],
)
def test_a_file_that_cannot_be_sent_is_no_empty_file(
    files: Files, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert main(RolloutOptions(Files(name, None), json=True), {}) == 1
    assert json.loads(capsys.readouterr().out) == {
        "outcome": "aborted", "version": None, "digest": None, "reason": reason, "nodes": [],
    }  # fmt: skip


def test_without_a_name_the_usual_files_are_looked_for(files: Files) -> None:
    with pytest.raises(NotSent, match="--config"):
        read(RolloutOptions(Files()))
    Path("pgdog.toml").write_text("# dog")
    assert read(RolloutOptions(Files())).config == "# dog"
    Path("pgmurmur.toml").write_text("# murmur")
    assert read(RolloutOptions(Files())).config == "# murmur"


def test_a_config_that_does_not_parse_is_for_the_node_to_judge(files: Files) -> None:
    Path("new.toml").write_text("[general")
    assert read(RolloutOptions(Files("new.toml", None))) == Documents("[general", None, {})


def test_a_literal_is_read_back_as_it_was() -> None:
    for text in ("", "it's", "''", "a\\'b\n$$;--"):
        (statement,) = statements("x " + literal(text))
        assert [token.text for token in statement] == ["x", text]


# --- against a node that answers as a test wants ---------------------------------------------------------------------


class Thereabouts:
    """A FakePostgres in a thread with its own loop: `main` runs one of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.server: FakePostgres | None = None

    def answer(self, sql: str, reply: Reply) -> FakePostgres:
        async def start() -> FakePostgres:
            server = FakePostgres(replies={sql: reply})
            await server.__aenter__()
            return server

        self.server = asyncio.run_coroutine_threadsafe(start(), self.loop).result(5)
        return self.server

    def close(self) -> None:
        if self.server is not None:
            asyncio.run_coroutine_threadsafe(self.server.__aexit__(None, None, None), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture
def node() -> Iterator[Thereabouts]:
    made = Thereabouts()
    yield made
    made.close()


COLUMNS = [(field.name, field.type.oid) for field in FIELDS]
DIGEST = "cd" * 32
COMMITTED = Reply.table(
    COLUMNS,
    ("committed", "4", "2", DIGEST, None, "node-a", "2", "1.500", "0.250", "t", None),
    ("committed", "4", "2", DIGEST, None, "node-b", None, None, None, "t", "it restarted"),
)
ABORTED = Reply.table(COLUMNS, ("aborted", None, None, None, "a:1: x\na:2: y", *([None] * 6)))
UNKNOWN = Reply.table(COLUMNS, ("unknown", "4", None, DIGEST, "register is unavailable", *([None] * 6)))


@pytest.mark.parametrize(
    ("reply", "status", "outcome"),
    [(COMMITTED, 0, "committed"), (ABORTED, 1, "aborted"), (UNKNOWN, 3, "unknown")],
)
def test_the_answer_decides_the_status(
    files: Files, node: Thereabouts, capsys: pytest.CaptureFixture[str], reply: Reply, status: int, outcome: str
) -> None:
    options = RolloutOptions(files, json=True)
    server = node.answer(command(options, read(options)), reply)
    assert main(RolloutOptions(files, port=server.port, json=True), {}) == status
    assert json.loads(capsys.readouterr().out)["outcome"] == outcome


def test_json_has_a_row_per_node(files: Files, node: Thereabouts, capsys: pytest.CaptureFixture[str]) -> None:
    server = node.answer(command(RolloutOptions(files), read(RolloutOptions(files))), COMMITTED)
    main(RolloutOptions(files, port=server.port, json=True), {})
    assert json.loads(capsys.readouterr().out) == {
        "outcome": "committed",
        "version": 2,
        "digest": DIGEST,
        "reason": None,
        "nodes": [
            {"node": "node-a", "version": 2, "paused_ms": 1.5, "drained_ms": 0.25, "ack": True, "reason": None},
            {"node": "node-b", "version": None, "paused_ms": 0, "drained_ms": 0, "ack": True, "reason": "it restarted"},
        ],
    }


def test_people_get_a_table(files: Files, node: Thereabouts, capsys: pytest.CaptureFixture[str]) -> None:
    server = node.answer(command(RolloutOptions(files), read(RolloutOptions(files))), COMMITTED)
    main(RolloutOptions(files, port=server.port), {})
    assert capsys.readouterr().out.splitlines() == [
        "committed: version 2 (cdcdcdcdcdcd)",
        "node    version  paused ms  drained ms  reason",
        "node-a        2        1.5         0.2",
        "node-b        -        0.0         0.0  it restarted",
    ]


def test_an_error_of_the_node_is_an_abort(files: Files, node: Thereabouts, capsys: pytest.CaptureFixture[str]) -> None:
    reply = Reply(error=("42501", "permission denied for command ROLLOUT"))
    server = node.answer(command(RolloutOptions(files), read(RolloutOptions(files))), reply)
    assert main(RolloutOptions(files, port=server.port), {}) == 1
    assert "permission denied" in capsys.readouterr().out


def test_a_connection_lost_after_sending_is_unknown(
    files: Files, node: Thereabouts, capsys: pytest.CaptureFixture[str]
) -> None:
    server = node.answer(command(RolloutOptions(files), read(RolloutOptions(files))), COMMITTED.but(die_after=10))
    assert main(RolloutOptions(files, port=server.port), {}) == 3
    said = capsys.readouterr().out
    assert "SHOW ROLLOUT" in said
    assert str(server.port) in said


def test_a_node_that_is_not_there_changed_nothing(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: refused at once
        assert main(RolloutOptions(files, port=taken.getsockname()[1], json=True), {}) == 1
    assert "could not connect" in json.loads(capsys.readouterr().out)["reason"]
