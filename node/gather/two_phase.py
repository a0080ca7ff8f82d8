"""Two-phase commit: names of prepared transactions, a durable log of decisions, and what recovery does with both.

The rule is presumed abort. A transaction is committed exactly when its decision is in the log, on disk, before the
first COMMIT PREPARED is sent. Whatever is found prepared without a decision is rolled back, so nothing needs to be
written before that moment, and a crash at any point leaves one answer only:

    PREPARE TRANSACTION on every shard → log.decide() (fsync) → COMMIT PREPARED on every shard → log.forget()

A name carries the identity of the log that may decide about it. A log that was lost or replaced (a new state folder)
has another identity: transactions of the old one are then *nobody's*, and only reported, because rolling back what
another shard may have committed would break the promise.

File: records of length, CRC-32 and payload. The last record may be torn by a crash: it was never acted upon and is cut
off. A damaged record before good ones is something else; the log then refuses to open.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgpack  # type: ignore[import-untyped]

from node.errors import Bug, Fault

PREFIX: Final = "pgmurmur"
GID_LIMIT_BYTES: Final = 199  # PostgreSQL's limit for the name of a prepared transaction
NODE_LIMIT: Final = 100
RECORD_LIMIT_BYTES: Final = 1 << 20
COMPACT_BYTES: Final = 1 << 20  # a longer log is rewritten when it is opened and while nothing is undecided
_HEAD: Final = struct.Struct("!II")
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")
_GID = re.compile(rf"{PREFIX}_([A-Za-z0-9.%-]+)_([0-9a-f]{{16}})_(\d+)_(\d+)_(\d+)")


class LogDamaged(Fault):
    """The decision log has a damaged record that is not its last: somebody must look at it."""


class InDoubt(Fault):
    """Nobody knows whether a decision reached the disk: its parts stay prepared until a restart reads the log."""


@dataclass(frozen=True, slots=True)
class Gid:
    """A prepared transaction's name: who prepared it, in which log's life, at which start, which part."""

    node: str
    log: str
    boot: int
    transaction: int
    shard: int

    def __str__(self) -> str:
        node = _UNSAFE.sub(lambda found: "".join(f"%{byte:02x}" for byte in found[0].encode()), self.node)[:NODE_LIMIT]
        text = f"{PREFIX}_{node}_{self.log}_{self.boot}_{self.transaction}_{self.shard}"
        if len(text) > GID_LIMIT_BYTES:
            raise Bug("name of a prepared transaction is too long", detail=text)
        return text

    @property
    def key(self) -> tuple[int, int]:
        """What the log knows the transaction by."""
        return self.boot, self.transaction


def parse_gid(text: str) -> Gid | None:
    """None: prepared by somebody else."""
    found = _GID.fullmatch(text)
    if found is None:
        return None
    return Gid(found[1], found[2], int(found[3]), int(found[4]), int(found[5]))


class Verdict(StrEnum):
    COMMIT = "COMMIT PREPARED"
    ROLLBACK = "ROLLBACK PREPARED"


@dataclass(frozen=True, slots=True)
class Orphan:
    """A row of pg_prepared_xacts: `target` says where it was found."""

    target: str
    gid: str


@dataclass(frozen=True, slots=True)
class Resolution:
    target: str
    gid: str
    verdict: Verdict

    @property
    def sql(self) -> str:
        return f"{self.verdict} '{self.gid}'"  # our names have no quote in them


@dataclass(frozen=True, slots=True)
class Recovery:
    """`resolve` in order; `strangers` are ours by name but of another log; `done` decisions may be forgotten once
    every target was asked and `resolve` succeeded."""

    resolve: tuple[Resolution, ...]
    strangers: tuple[Orphan, ...]
    done: tuple[tuple[int, int], ...]


def recover(log: str, boot: int, decided: Iterable[tuple[int, int]], orphans: Sequence[Orphan]) -> Recovery:
    """What to do with every prepared transaction found on all targets, after a start.

    Transactions of this boot are still being worked on by this process and are left alone.
    """
    committed = set(decided)
    resolve: list[Resolution] = []
    strangers: list[Orphan] = []
    for orphan in orphans:
        gid = parse_gid(orphan.gid)
        if gid is None or (gid.log == log and gid.boot >= boot):
            continue
        if gid.log != log:
            strangers.append(orphan)
            continue
        verdict = Verdict.COMMIT if gid.key in committed else Verdict.ROLLBACK
        resolve.append(Resolution(orphan.target, orphan.gid, verdict))
    done = tuple(sorted(key for key in committed if key[0] < boot))
    return Recovery(tuple(resolve), tuple(strangers), done)


def encode_record(fields: Sequence[object]) -> bytes:
    payload: bytes = msgpack.packb(list(fields))
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def decode_records(data: bytes) -> tuple[list[list[object]], int]:
    """The records and how many bytes they take; the rest is a torn tail. Raises LogDamaged."""
    records: list[list[object]] = []
    at = 0
    while True:
        payload = _payload(data, at)
        if payload is None:
            break
        records.append(_fields(payload))
        at += _HEAD.size + len(payload)
    if len(data) - at >= _HEAD.size:
        # A torn write is the last thing in the file. If good records follow the bad one, it is not a torn write.
        length = _HEAD.unpack_from(data, at)[0]
        if length <= RECORD_LIMIT_BYTES and _payload(data, at + _HEAD.size + length) is not None:
            raise LogDamaged(
                "the log of two-phase commit decisions is damaged",
                sqlstate="XX001",
                detail=f"the record at byte {at} does not have its checksum, but records follow it",
                hint="restore the file, or resolve pg_prepared_xacts by hand and remove it",
            )
    return records, at


def _payload(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _HEAD.size:
        return None
    length, checksum = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    if not 0 < length <= RECORD_LIMIT_BYTES or length > len(data) - start:
        return None
    payload = data[start : start + length]
    return payload if zlib.crc32(payload) == checksum else None


def _fields(payload: bytes) -> list[object]:
    fields = msgpack.unpackb(payload)
    return fields if isinstance(fields, list) else []


class DecisionLog:
    """One file in the state folder; one process at a time (the folder's lock sees to that).

    `open` reads it, cuts a torn tail, and starts a new boot. Blocking: `decide` takes one fsync, call it in a thread
    or accept the pause; `forget` does not sync, since forgetting twice is harmless.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = ""
        self.boot = 0
        self.decided: dict[tuple[int, int], tuple[str, ...]] = {}  # (boot, transaction): names of its parts
        self._file = -1
        self._next = 0
        self._size = 0

    def open(self) -> None:
        """Raises LogDamaged, OSError."""
        data = self.path.read_bytes() if self.path.exists() else b""
        records, good = decode_records(data)
        for record in records:
            self._replay(record)
        if not self.identity:
            self.identity = os.urandom(8).hex()
        self.boot += 1
        self._rewrite() if not records or good > COMPACT_BYTES else self._continue(good)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def name(self, node: str, transaction: int, shard: int) -> Gid:
        return Gid(node, self.identity, self.boot, transaction, shard)

    def next_transaction(self) -> int:
        """Unique within this boot."""
        self._next += 1
        return self._next

    def decide(self, transaction: int, gids: Sequence[Gid]) -> None:
        """COMMIT. Returns once it is on disk; only then may COMMIT PREPARED be sent.

        Raises OSError: it is certainly not there, roll back. Raises InDoubt: do neither.
        """
        names = tuple(map(str, gids))
        self._append(("commit", self.boot, transaction, names), durable=True)
        self.decided[self.boot, transaction] = names

    def forget(self, key: tuple[int, int]) -> None:
        """Every part of it is committed."""
        if self.decided.pop(key, None) is None:
            return
        self._append(("done", *key), durable=False)
        if not self.decided and self._size > COMPACT_BYTES:
            self._rewrite()

    def _replay(self, record: list[object]) -> None:
        match record:
            case ["log", str(identity), int(boot)]:
                self.identity, self.boot = identity, max(self.boot, boot)
            case ["commit", int(boot), int(transaction), list(names)]:
                self.decided[boot, transaction] = tuple(map(str, names))
            case ["done", int(boot), int(transaction)]:
                self.decided.pop((boot, transaction), None)
            case _:
                raise LogDamaged(
                    "the log of two-phase commit decisions has a record of unknown kind",
                    sqlstate="XX001",
                    hint="it was written by a newer version",
                )

    def _continue(self, good: int) -> None:
        self._file = os.open(self.path, os.O_RDWR | os.O_APPEND)
        os.ftruncate(self._file, good)
        self._size = good
        self._append(("log", self.identity, self.boot), durable=True)

    def _rewrite(self) -> None:
        """A fresh file with what is still open, put in place of the old one in one step."""
        records = [encode_record(("log", self.identity, self.boot))]
        records += [encode_record(("commit", *key, names)) for key, names in self.decided.items()]
        data = b"".join(records)
        fresh = self.path.with_suffix(".new")
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            _write_all(file, data)
            os.fsync(file)
            os.replace(fresh, self.path)
            _sync_folder(self.path.parent)
        except OSError:
            os.close(file)
            raise
        self.close()
        self._file, self._size = file, len(data)

    def _append(self, record: Sequence[object], *, durable: bool) -> None:
        if self._file < 0:
            raise Bug("the decision log is not open")
        data = encode_record(record)
        try:
            _write_all(self._file, data)
            if durable:
                os.fsync(self._file)
        except OSError:
            # What reached the disk is not known. Cut it off, so that a later record does not follow half of this
            # one; if even that fails the file is not used again.
            try:
                os.ftruncate(self._file, self._size)
                os.fsync(self._file)
            except OSError as error:
                self.close()
                raise InDoubt(
                    "the decision to commit may or may not be on disk",
                    sqlstate="40003",
                    detail=str(error),
                    hint="the transaction is resolved when this node starts again",
                ) from error
            raise
        self._size += len(data)


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
