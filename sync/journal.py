"""The promise on disk: two slots of one block each, written in turn, the newest whole one counts.

A slot is `magic | generation u64 | length u32 | payload | crc32`, padded to its full size when the journal is created:
a later write needs no new block, so a full disk cannot come between a member and its vote. A torn write leaves the
other slot. After a failed write or fsync nothing is known about the file any more (the kernel may drop the dirty page
and report success next time), so the journal refuses for good and the process has to stop promising.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import zlib
from pathlib import Path

from sync import promise as codec
from sync.files import replace_file, sync_folder, write_all
from sync.packing import Malformed
from sync.ports import JournalFailed
from sync.promise import PROMISE_LIMIT_BYTES, Promise

_MAGIC = b"pgmurj01"
_HEADER = struct.Struct(">8sQI")
_CRC = struct.Struct(">I")
SLOT_BYTES = _HEADER.size + PROMISE_LIMIT_BYTES + _CRC.size
_SLOTS = ("promise.a", "promise.b")


class FileJournal:
    """One per state directory; a second process in the same directory is refused (two would vote as one).

    Raises JournalFailed from every method.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1
        self._failed = ""
        self._generation = 0
        self._next_slot = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(folder / "journal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise JournalFailed(f'another process uses the state directory "{folder}"') from None
        except OSError as error:
            self.close()
            raise JournalFailed(f'could not open the journal in "{folder}": {error.strerror}') from None

    def load(self) -> Promise:
        """The newest whole promise; a new journal (with a new disk id) when there is none yet."""
        try:
            slots = [self._read(name) for name in _SLOTS]
        except OSError as error:
            raise JournalFailed(f'could not read the journal in "{self.folder}": {error.strerror}') from None
        whole = [(generation, slot, data) for slot, (generation, data) in enumerate(slots) if generation]
        if whole:
            self._generation, slot, data = max(whole)
            self._next_slot = 1 - slot
            try:
                return codec.decode(data)
            except Malformed as error:
                raise JournalFailed(f'could not read the journal in "{self.folder}": {error}') from None
        if any(self._used(name) for name in _SLOTS):
            # Both slots unreadable is not "no vote": guessing so would let a fenced node serve.
            raise JournalFailed(
                f'the journal in "{self.folder}" is damaged; a vote may be lost with it'
                " (remove promise.a and promise.b once no rollout is open, the node then joins as a new one)"
            )
        return self._create()

    def store(self, promise: Promise) -> None:
        """On the disk when it returns."""
        if self._failed:
            raise JournalFailed(self._failed)
        slot = _slot(self._generation + 1, codec.encode(promise))
        path = self.folder / _SLOTS[self._next_slot]
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                write_all(handle, slot)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            self._failed = f'could not write the journal "{path}": {error.strerror}; this node promises nothing more'
            raise JournalFailed(self._failed) from None
        self._generation += 1
        self._next_slot = 1 - self._next_slot

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _create(self) -> Promise:
        promise = Promise(disk=secrets.token_hex(8))
        try:
            replace_file(self.folder / _SLOTS[1], bytes(SLOT_BYTES))
            replace_file(self.folder / _SLOTS[0], _slot(1, codec.encode(promise)))
            sync_folder(self.folder)
        except OSError as error:
            raise JournalFailed(f'could not create the journal in "{self.folder}": {error.strerror}') from None
        self._generation, self._next_slot = 1, 1
        return promise

    def _used(self, name: str) -> bool:
        """False for a slot that was only laid out: a crash during `_create` leaves one of zeros."""
        try:
            return any((self.folder / name).read_bytes())
        except OSError:
            return (self.folder / name).exists()

    def _read(self, name: str) -> tuple[int, bytes]:
        """(generation, payload); generation 0 when the slot is missing, torn or was never written."""
        try:
            data = (self.folder / name).read_bytes()[:SLOT_BYTES]
        except FileNotFoundError:
            return 0, b""
        if len(data) < _HEADER.size + _CRC.size:
            return 0, b""
        magic, generation, length = _HEADER.unpack_from(data)
        end = _HEADER.size + length
        if magic != _MAGIC or length > PROMISE_LIMIT_BYTES or end + _CRC.size > len(data):
            return 0, b""
        (crc,) = _CRC.unpack_from(data, end)
        return (generation, data[_HEADER.size : end]) if crc == zlib.crc32(data[:end]) else (0, b"")


def _slot(generation: int, payload: bytes) -> bytes:
    head = _HEADER.pack(_MAGIC, generation, len(payload)) + payload
    return (head + _CRC.pack(zlib.crc32(head))).ljust(SLOT_BYTES, b"\0")
