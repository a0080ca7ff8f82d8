"""Names, the log of decisions through every crash, and what recovery does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.gather.two_phase import (
    DecisionLog,
    Gid,
    InDoubt,
    LogDamaged,
    Orphan,
    Verdict,
    decode_records,
    encode_record,
    parse_gid,
    recover,
)

LOG = "0123456789abcdef"


def _opened(path: Path) -> DecisionLog:
    log = DecisionLog(path)
    log.open()
    return log


@given(st.text(max_size=300), st.integers(0, 2**31), st.integers(0, 2**40), st.integers(0, 10_000))
def test_names_fit_postgresql_and_read_back(node: str, boot: int, transaction: int, shard: int) -> None:
    text = str(Gid(node, LOG, boot, transaction, shard))
    assert len(text.encode()) < 200
    assert "'" not in text
    again = parse_gid(text)
    if node:
        assert again is not None
        assert (again.log, again.key, again.shard) == (LOG, (boot, transaction), shard)


def test_names_of_others_are_not_ours() -> None:
    for text in ("", "pgmurmur", "__pgdog_2pc_1_2", "pgmurmur_a_b_1_2_3", f"x pgmurmur_n_{LOG}_1_2_3"):
        assert parse_gid(text) is None


def test_a_decision_survives_and_is_forgotten_when_done(tmp_path: Path) -> None:
    log = _opened(tmp_path / "log")
    first = log.next_transaction()
    parts = [log.name("db1", first, shard) for shard in range(2)]
    log.decide(first, parts)
    log.close()
    again = _opened(tmp_path / "log")
    assert again.identity == log.identity
    assert again.boot == log.boot + 1
    assert again.decided == {(1, first): tuple(map(str, parts))}
    again.forget((1, first))
    again.close()
    assert _opened(tmp_path / "log").decided == {}


def test_every_torn_tail_opens_with_what_was_durable(tmp_path: Path) -> None:
    log = _opened(tmp_path / "log")
    log.decide(1, [log.name("n", 1, 0)])
    durable = (tmp_path / "log").stat().st_size
    log.decide(2, [log.name("n", 2, 0)])
    log.close()
    whole = (tmp_path / "log").read_bytes()
    for cut in range(durable, len(whole)):
        path = tmp_path / f"cut{cut}"
        path.write_bytes(whole[:cut])
        opened = _opened(path)
        assert set(opened.decided) == {(1, 1)}
        opened.decide(1, [opened.name("n", 1, 0)])
        opened.close()
        assert set(_opened(path).decided) == {(1, 1), (2, 1)}


def test_a_flipped_bit_in_the_middle_is_damage_and_at_the_end_a_torn_tail() -> None:
    records = [encode_record(("log", LOG, 1)), encode_record(("commit", 1, 1, ["a"])), encode_record(("done", 1, 1))]
    for number, record in enumerate(records):
        for at in range(8, len(record)):
            broken = bytearray(record)
            broken[at] ^= 0x40
            data = b"".join([*records[:number], bytes(broken), *records[number + 1 :]])
            if number < 2:
                with pytest.raises(LogDamaged):
                    decode_records(data)
            else:
                assert len(decode_records(data)[0]) == 2


@given(st.binary(max_size=200))
def test_byte_soup_is_torn_or_damaged_never_an_accident(soup: bytes) -> None:
    try:
        records, good = decode_records(soup)
    except LogDamaged:
        return
    assert good <= len(soup)
    assert good or not records


def test_records_of_a_newer_version_are_not_guessed_at(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(encode_record(("log", LOG, 1)) + encode_record(("abort", 1)))
    with pytest.raises(LogDamaged):
        _opened(tmp_path / "log")


def test_a_write_that_fails_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _opened(tmp_path / "log")
    real = os.write

    def half(file: int, data: bytes) -> int:
        real(file, data[:5])
        raise OSError("disk full")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="disk full"):
        log.decide(1, [log.name("n", 1, 0)])
    monkeypatch.setattr(os, "write", real)
    log.decide(2, [log.name("n", 2, 0)])
    log.close()
    assert set(_opened(tmp_path / "log").decided) == {(1, 2)}


def test_when_nobody_knows_what_is_on_disk_it_is_in_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = _opened(tmp_path / "log")

    def broken(file: int) -> None:
        raise OSError("I/O error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(InDoubt):
        log.decide(1, [log.name("n", 1, 0)])
    assert log.decided == {}


def test_recovery_commits_what_was_decided_and_rolls_back_the_rest() -> None:
    def gid(boot: int, transaction: int, shard: int, log: str = LOG) -> str:
        return str(Gid("db1", log, boot, transaction, shard))

    orphans = [
        Orphan("s0", gid(1, 7, 0)),
        Orphan("s1", gid(1, 7, 1)),
        Orphan("s1", gid(1, 8, 1)),
        Orphan("s0", gid(2, 1, 0)),
        Orphan("s0", gid(1, 9, 0, "f" * 16)),
        Orphan("s0", "somebody else's"),
    ]
    found = recover(LOG, 2, [(1, 7), (1, 5), (2, 4)], orphans)
    assert [(r.target, r.verdict) for r in found.resolve] == [
        ("s0", Verdict.COMMIT),
        ("s1", Verdict.COMMIT),
        ("s1", Verdict.ROLLBACK),
    ]
    assert found.resolve[0].sql == f"COMMIT PREPARED '{gid(1, 7, 0)}'"
    assert found.strangers == (orphans[4],)
    assert found.done == ((1, 5), (1, 7))
