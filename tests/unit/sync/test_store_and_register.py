"""Documents by digest, and the compare-and-set file: several processes, kill -9 at any point, locks, damage."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sync import store as store_module
from sync.ports import RegisterBroken, RegisterUnavailable
from sync.registers import file as file_module
from sync.registers import open_register
from sync.registers.file import FileRegister
from sync.rollout import HISTORY_LIMIT
from sync.settings import SettingsError
from sync.store import DocumentStore, StoreFailed
from sync.version import DOCUMENT_LIMIT_BYTES, digest_of

ROOT = Path(__file__).resolve().parents[3]


def test_a_document_is_found_by_its_digest_only(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path / "documents")
    digest = store.put(b"document")
    assert store.put(b"document") == digest == digest_of(b"document")
    assert store.get(digest) == b"document"
    assert store.get(digest_of(b"another")) is None
    assert store.get("../../etc/passwd") is None


def test_a_damaged_document_is_absent_and_written_again(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path)
    digest = store.put(b"document")
    (tmp_path / digest).write_bytes(b"docum")
    assert store.get(digest) is None
    store.put(b"document")
    assert store.get(digest) == b"document"


def test_documents_over_the_limit_and_full_disks_are_declared_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DocumentStore(tmp_path)
    with pytest.raises(StoreFailed, match=f"the limit is {DOCUMENT_LIMIT_BYTES}"):
        store.put(bytes(DOCUMENT_LIMIT_BYTES + 1))

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store_module, "replace_file", full)
    with pytest.raises(StoreFailed, match="No space left on device"):
        store.put(b"document")


def test_the_newest_ten_and_the_named_ones_are_kept(tmp_path: Path) -> None:
    store = DocumentStore(tmp_path)
    digests = [store.put(b"%d" % n) for n in range(HISTORY_LIMIT + 5)]
    for age, digest in enumerate(digests):
        os.utime(tmp_path / digest, (age, age))
    store.prune([digests[0]])
    kept = [digest for digest in digests if store.get(digest) is not None]
    assert kept == [digests[0], *digests[5:]]
    DocumentStore(tmp_path / "absent").prune([])


@pytest.mark.parametrize("url", ["file:", "file://", "consul://x", "nonsense", "ftp://user:secret@host/x"])
def test_an_unknown_register_is_refused_without_showing_secrets(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        open_register(url)
    assert "secret" not in str(refused.value)
    assert str(refused.value).startswith("register: ")


def test_a_file_register_may_be_written_as_a_path_or_a_url(tmp_path: Path) -> None:
    for url in (f"file:{tmp_path}/r", f"file://{tmp_path}/r"):
        register = open_register(url)
        assert isinstance(register, FileRegister)
        assert register.folder == tmp_path / "r"
        assert register.url == f"file:{tmp_path}/r"


async def test_a_swap_needs_the_revision_it_read(tmp_path: Path) -> None:
    register = FileRegister(tmp_path / "register")
    assert await register.read() == (0, None)
    assert await register.cas(0, b"one") == 1
    assert await register.cas(0, b"two") is None
    assert await register.read() == (1, b"one")
    assert await FileRegister(tmp_path / "register").cas(1, b"two") == 2
    assert await register.read() == (2, b"two")
    await register.close()


async def test_watching_tells_that_somebody_else_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "WATCH_POLL_S", 0.005)
    register = FileRegister(tmp_path)
    changes = register.watch(0)
    heard = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0.01)
    assert not heard.done()
    await FileRegister(tmp_path).cas(0, b"one")
    await asyncio.wait_for(heard, 5)
    await changes.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"pgmurr01" + bytes(30)])
async def test_a_damaged_cell_is_broken_and_never_overwritten(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cell").write_bytes(data)
    register = FileRegister(tmp_path)
    with pytest.raises(RegisterBroken):
        await register.read()
    with pytest.raises(RegisterBroken):
        await register.cas(0, b"one")
    assert (tmp_path / "cell").read_bytes() == data


async def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    register = FileRegister(tmp_path)
    await register.cas(0, b"value")
    whole = (tmp_path / "cell").read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        (tmp_path / "cell").write_bytes(bytes(changed))
        with pytest.raises(RegisterBroken):
            await register.read()


async def test_a_process_stopped_inside_the_lock_makes_it_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_module, "LOCK_TIMEOUT_S", 0.05)
    register = FileRegister(tmp_path)
    await register.cas(0, b"one")
    with (tmp_path / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RegisterUnavailable, match="stays locked"):
            await register.read()
    assert await register.read() == (1, b"one")


async def test_disks_that_fail_make_the_register_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RegisterUnavailable, match="could not open the register"):
        await FileRegister(tmp_path / "file").read()
    register = FileRegister(tmp_path / "register")
    await register.cas(0, b"one")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_module, "replace_file", full)
    with pytest.raises(RegisterUnavailable, match="No space left"):
        await register.cas(1, b"two")
    monkeypatch.undo()
    assert await register.read() == (1, b"one")
    (tmp_path / "register" / "cell").unlink()
    (tmp_path / "register" / "cell").mkdir()
    with pytest.raises(RegisterUnavailable, match="could not read"):
        await register.read()


COUNTER = """
import asyncio, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from sync.registers.file import FileRegister
register = FileRegister(Path({folder!r}))
async def count():
    while True:
        rev, value = await register.read()
        number = int(value or b"0")
        if await register.cas(rev, b"%d" % (number + 1)) is not None:
            print(number + 1, flush=True)
asyncio.run(count())
"""


def test_counters_of_several_processes_lose_no_step_under_kill_9(tmp_path: Path) -> None:
    """Each success must be seen once: the value counts the swaps, the revision too, whoever dies in between."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    script = COUNTER.format(root=str(ROOT), folder=str(tmp_path))
    heard: list[int] = []
    for _ in range(2):
        writers = [
            subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)
        ]
        for writer in writers:
            assert writer.stdout is not None
            heard += [int(writer.stdout.readline()) for _ in range(chance.randint(1, 20))]
            writer.send_signal(signal.SIGKILL)
            heard += [int(word) for word in writer.stdout.read().split("\n")[:-1]]
            writer.stdout.close()
            writer.wait()
    rev, value = asyncio.run(FileRegister(tmp_path).read())
    assert value is not None
    assert int(value) == rev
    assert len(heard) == len(set(heard))
    assert max(heard) <= rev
    # A killed process may have swapped without saying so, once each: six of them died.
    assert len(heard) >= rev - 6
