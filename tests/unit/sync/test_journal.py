"""The promise on a real disk: torn, killed, full."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sync import files, journal
from sync.journal import SLOT_BYTES, FileJournal
from sync.ports import JournalFailed
from sync.promise import Applied, Promise, Vote
from sync.version import digest_of

A, B = digest_of(b"a"), digest_of(b"b")
ROOT = Path(__file__).resolve().parents[3]


def reopened(folder: Path) -> Promise:
    opened = FileJournal(folder)
    try:
        return opened.load()
    finally:
        opened.close()


def test_a_new_journal_draws_its_disk_once(tmp_path: Path) -> None:
    first = reopened(tmp_path / "state")
    assert first.vote is None
    assert reopened(tmp_path / "state") == first
    assert reopened(tmp_path / "other").disk != first.disk


def test_the_last_promise_is_found_again(tmp_path: Path) -> None:
    opened = FileJournal(tmp_path)
    promise = opened.load()
    for rid in range(1, 6):
        promise = Promise(promise.disk, Applied(rid, A, 1), Vote(rid, A, B))
        opened.store(promise)
        opened.close()
        assert reopened(tmp_path) == promise
        opened = FileJournal(tmp_path)
        assert opened.load() == promise
    opened.close()


def test_the_files_belong_to_the_owner_only(tmp_path: Path) -> None:
    reopened(tmp_path)
    for name in ("promise.a", "promise.b", "journal.lock"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0


def test_a_torn_write_leaves_the_promise_before_it(tmp_path: Path) -> None:
    opened = FileJournal(tmp_path)
    before = opened.load()
    opened.store(Promise(before.disk, None, Vote(1, A, B)))
    opened.close()
    newest = max(("promise.a", "promise.b"), key=lambda name: (tmp_path / name).read_bytes()[8:16])
    whole = (tmp_path / newest).read_bytes()
    # Everything from the generation to the checksum; the padding behind it means nothing.
    for cut in range(8, len(whole.rstrip(b"\0"))):
        (tmp_path / newest).write_bytes(whole[:cut] + bytes(SLOT_BYTES - cut))
        assert reopened(tmp_path) == before
    (tmp_path / newest).write_bytes(b"")
    assert reopened(tmp_path) == before
    (tmp_path / newest).write_bytes(whole)
    assert reopened(tmp_path).vote == Vote(1, A, B)


def test_two_damaged_slots_are_an_error_and_not_an_empty_journal(tmp_path: Path) -> None:
    opened = FileJournal(tmp_path)
    opened.store(opened.load())
    opened.close()
    for name in ("promise.a", "promise.b"):
        (tmp_path / name).write_bytes(b"\xff" * SLOT_BYTES)
    with pytest.raises(JournalFailed, match="is damaged"):
        reopened(tmp_path)


def test_a_crash_while_the_journal_was_laid_out_begins_again(tmp_path: Path) -> None:
    (tmp_path / "promise.b").write_bytes(bytes(SLOT_BYTES))
    assert reopened(tmp_path).vote is None


def test_a_journal_of_another_format_is_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "promise.a").write_bytes(journal._slot(5, b"\x92\x09\x01"))
    with pytest.raises(JournalFailed, match="another format"):
        reopened(tmp_path)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    first = FileJournal(tmp_path)
    with pytest.raises(JournalFailed, match="another process uses the state directory"):
        FileJournal(tmp_path)
    first.close()
    FileJournal(tmp_path).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalFailed, match="could not open the journal"):
        FileJournal(tmp_path / "file" / "state")


def test_a_failed_fsync_ends_all_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = FileJournal(tmp_path)
    before = opened.load()

    def broken(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(JournalFailed, match="Input/output error"):
        opened.store(Promise(before.disk, None, Vote(1, A, B)))
    monkeypatch.undo()
    # The kernel may have dropped the page and say "fine" now. It must not be believed.
    with pytest.raises(JournalFailed, match="promises nothing more"):
        opened.store(Promise(before.disk, None, Vote(1, A, B)))
    opened.close()


def test_a_journal_that_cannot_be_created_or_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = FileJournal(tmp_path)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(journal, "replace_file", full)
    with pytest.raises(JournalFailed, match="could not create the journal .*No space left"):
        opened.load()
    monkeypatch.setattr(FileJournal, "_read", full)
    with pytest.raises(JournalFailed, match="could not read the journal .*No space left"):
        opened.load()
    opened.close()


def test_a_full_disk_does_not_come_between_a_member_and_its_vote(tmp_path: Path) -> None:
    """Against the real thing: /dev/shm-like small file systems need root, so the disk is filled up to a file limit."""
    script = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from sync.journal import FileJournal, SLOT_BYTES
from sync.promise import Promise, Vote
from sync.store import DocumentStore, StoreFailed
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = FileJournal(Path({str(tmp_path)!r}))
promise = journal.load()
resource.setrlimit(resource.RLIMIT_FSIZE, (SLOT_BYTES, SLOT_BYTES))
journal.store(Promise(promise.disk, None, Vote(1, {A!r}, {B!r})))
try:
    DocumentStore(Path({str(tmp_path)!r}) / "documents").put(b"x" * 100_000)
except StoreFailed as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    assert "File too large" in ran.stdout
    assert reopened(tmp_path).vote == Vote(1, A, B)
    assert [path.name for path in (tmp_path / "documents").iterdir()] == []


WRITER = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from sync.journal import FileJournal
from sync.promise import Promise, Vote
journal = FileJournal(Path({folder!r}))
promise = journal.load()
rid = 0 if promise.vote is None else promise.vote.rid
while True:
    rid += 1
    journal.store(Promise(promise.disk, None, Vote(rid, {a!r}, {b!r})))
    print(rid, flush=True)
"""


def test_a_vote_that_was_said_survives_kill_9(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    script = WRITER.format(root=str(ROOT), folder=str(tmp_path), a=A, b=B)
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            said = 0
            for _ in range(chance.randint(1, 60)):
                said = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            said = max(said, *map(int, writer.stdout.read().split("\n")[:-1]), 0)
            writer.wait()
        vote = reopened(tmp_path).vote
        assert vote is not None
        assert vote.rid >= said


def test_replace_file_keeps_the_old_content_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cell"
    files.replace_file(path, b"old")

    def full(handle: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(OSError, match="No space left"):
        files.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["cell"]
