"""The register for members on one host: a file, a lock and an atomic rename.

`cell` holds `magic | revision u64 | length u32 | value | crc32`. Writers hold an exclusive flock from their read to the
fsync of the folder, readers a shared one, so nobody sees a value that a power cut could still take back. A process
killed at any point leaves the old value or the new one; the kernel drops its lock.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from sync.files import replace_file
from sync.ports import RegisterBroken, RegisterUnavailable
from sync.rollout import CELL_LIMIT_BYTES
from sync.store import DocumentStore

_MAGIC = b"pgmurr01"
_HEADER = struct.Struct(">8sQI")
_CRC = struct.Struct(">I")
LOCK_TIMEOUT_S = 2.0  # somebody is stopped inside the lock (SIGSTOP, a dying disk)
LOCK_POLL_S = 0.002
WATCH_POLL_S = 0.1  # one stat() each; messages are faster, this is the net under them


class FileRegister:
    one_host = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.documents = DocumentStore(folder / "documents")
        self._cell = folder / "cell"

    @property
    def url(self) -> str:
        return f"file:{self.folder}"

    async def read(self) -> tuple[int, bytes | None]:
        return await asyncio.to_thread(self._read)

    async def cas(self, rev: int, value: bytes) -> int | None:
        return await asyncio.to_thread(self._cas, rev, value)

    async def watch(self, rev: int) -> AsyncIterator[int]:
        """Looks at the file's identity: each swap is a rename, so inode and time change together."""
        del rev
        known = self._identity()
        while True:
            await asyncio.sleep(WATCH_POLL_S)
            identity = self._identity()
            if identity != known:
                known = identity
                yield 0  # whoever watches reads anyway

    async def close(self) -> None:
        return None

    def _identity(self) -> tuple[int, int]:
        try:
            status = self._cell.stat()
        except OSError:
            return 0, 0
        return status.st_ino, status.st_mtime_ns

    def _read(self) -> tuple[int, bytes | None]:
        with self._locked(fcntl.LOCK_SH):
            return self._load()

    def _cas(self, rev: int, value: bytes) -> int | None:
        with self._locked(fcntl.LOCK_EX):
            found, _ = self._load()
            if found != rev:
                return None
            head = _HEADER.pack(_MAGIC, rev + 1, len(value)) + value
            try:
                replace_file(self._cell, head + _CRC.pack(zlib.crc32(head)))
            except OSError as error:
                # The rename may have happened and only the folder's fsync failed: that is "nobody knows".
                raise RegisterUnavailable(f'could not write "{self._cell}": {error.strerror}') from None
            return rev + 1

    def _load(self) -> tuple[int, bytes | None]:
        try:
            with self._cell.open("rb") as file:
                data = file.read(CELL_LIMIT_BYTES + 1024)
        except FileNotFoundError:
            return 0, None
        except OSError as error:
            raise RegisterUnavailable(f'could not read "{self._cell}": {error.strerror}') from None
        if len(data) < _HEADER.size + _CRC.size:
            raise RegisterBroken(f'"{self._cell}" is not a register')
        magic, rev, length = _HEADER.unpack_from(data)
        end = _HEADER.size + length
        if magic != _MAGIC or len(data) != end + _CRC.size or _CRC.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
            raise RegisterBroken(f'"{self._cell}" is damaged or not a register')
        return rev, data[_HEADER.size : end]

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RegisterUnavailable(f'could not open the register "{self.folder}": {error.strerror}') from None
        try:
            _lock(handle, kind, self.folder)
            yield
        finally:
            os.close(handle)


def _lock(handle: int, kind: int, folder: Path) -> None:
    """A blocking flock could not be given up: the thread, and with it the node's exit, would hang for ever."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RegisterUnavailable(f'the register "{folder}" stays locked by another process') from None
            time.sleep(LOCK_POLL_S)
        else:
            return
