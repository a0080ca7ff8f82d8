"""COPY FROM split by row stores what COPY of the same bytes into one table stores, or fails where that fails."""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from integration.exactness import Wire
from integration.harness import start_server

from node.embedded.workspace import Workspace
from node.errors import ClientFault
from node.gather import copy
from node.wire import messages

NAMES = "abc"
INPUTS = 700


@dataclass(frozen=True)
class Input:
    options: tuple[str, ...]
    format: copy.CopyFormat
    data: bytes

    @property
    def sql(self) -> str:
        return "COPY k FROM STDIN" + (f" WITH ({', '.join(self.options)})" if self.options else "")


@pytest.fixture(scope="module")
def wires(workspace: Workspace) -> Iterator[list[Wire]]:
    """Two shards and the whole table."""
    server = start_server(workspace, "exact_copy", auth="trust")
    made = [Wire(server.host, server.port, server.superuser, "postgres") for _ in range(3)]
    for number, wire in enumerate(made):
        wire.query(f"CREATE SCHEMA c{number}; SET search_path = c{number}; CREATE TABLE k (a text, b text, c text)")
    yield made
    for wire in made:
        wire.close()
    server.stop()


def _shard(key: bytes | None) -> int:
    return 0 if key is None else zlib.crc32(key) % 2


def _literal(value: bytes) -> str:
    return "E'" + "".join(f"\\x{byte:02x}" for byte in value) + "'"


def _binary(rng: random.Random) -> Input:
    key = rng.randrange(3)
    extension = rng.choice([0, 0, 3])
    data = copy.SIGNATURE + struct.pack("!ii", 0, extension) + b"x" * extension
    for _ in range(rng.randrange(5)):
        data += struct.pack("!h", 3)
        for _ in range(3):
            value = rng.choice([None, b"", b"a", b"\n", b"xyz\\."])
            data += struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value
    if rng.random() < 0.8:
        data += b"\xff\xff"
    if rng.random() < 0.1:
        data = data[: rng.randrange(len(data))]
    if rng.random() < 0.1:
        data += b"z"
    return Input(("FORMAT binary",), copy.CopyFormat(copy.BINARY, key, key_name=NAMES[key]), data)


def _lines(rng: random.Random, csv: bool, postgres: int) -> Input:
    """`postgres`: the server's major version."""
    key = rng.randrange(3)
    delimiter, null = rng.choice([None, None, b";", b"|"]), rng.choice([None, None, b"N", b"\\N", b""])
    quote, escape = rng.choice([b'"', b'"', b"'"]), rng.choice([None, None, b"\\", b"!"])
    header, loose, strict = rng.random() < 0.3, csv and rng.random() < 0.3, csv and rng.random() < 0.3
    options = [f"DELIMITER {_literal(delimiter)}"] if delimiter else []
    options += [f"NULL {_literal(null)}"] if null is not None else []
    options += ["HEADER"] if header else []
    if csv:
        options += ["FORMAT csv", f"QUOTE {_literal(quote)}"] + ([f"ESCAPE {_literal(escape)}"] if escape else [])
        options += [f"FORCE_NULL ({NAMES[key]})"] if loose else []
        options += [f"FORCE_NOT_NULL ({NAMES[key]})"] if strict else []
    between = delimiter or (b"," if csv else b"\t")
    marks = (
        [quote, quote, escape or quote, b"N", b" ", b"xy"] if csv else [b"N", b"n", b"1", b"01", b"x4", b"x", b"\\N"]
    )
    alphabet = [between, between, b"\\", b"\\", b"a", b".", b"\xc3\xa9", *marks]
    end = rng.choice([b"\n", b"\n", b"\r\n", b"\r"])
    data = b""
    for _ in range(rng.randrange(6)):
        draw = rng.random()
        if draw < 0.75:
            data += between.join(_field(rng, alphabet, between, quote, escape or quote, csv) for _ in range(3))
        else:
            data += rng.choice([b"\\.", b"", b"".join(rng.choices(alphabet, k=rng.randrange(8)))])
        data += end if rng.random() < 0.97 else rng.choice([b"\n", b"\r", b"\r\n"])
    if rng.random() < 0.4:
        data = data.removesuffix(end)
    if rng.random() < 0.1:
        data += b"\\." + rng.choice([b"", b"\n", b"\r\n", b"\r", b"x"])
    made = copy.CopyFormat(
        copy.CSV if csv else copy.TEXT,
        key,
        key_name=NAMES[key],
        delimiter=delimiter,
        null=null,
        header=header,
        quote=quote,
        escape=escape,
        force_null=loose,
        force_not_null=strict,
        end_marker=not csv or postgres < 18,
        marker_alone=postgres >= 18,
    )
    return Input(tuple(options), made, data)


def _field(rng: random.Random, alphabet: list[bytes], between: bytes, quote: bytes, escape: bytes, csv: bool) -> bytes:
    field = b"".join(rng.choices(alphabet, k=rng.randrange(4)))
    if csv and rng.random() < 0.5:
        inner = rng.choice([b"", b"\n", b"\r", between])
        return quote + field.replace(quote, escape + quote) + inner + quote
    if rng.random() < 0.8:
        field = field.replace(between, b"")
    if not csv and rng.random() < 0.9 and (len(field) - len(field.rstrip(b"\\"))) % 2:
        field += b"\\"
    return field


def _torn(rng: random.Random, data: bytes) -> Iterator[bytes]:
    while data:
        size = rng.choice([1, 1, 2, 3, 7, 1000])
        yield data[:size]
        data = data[size:]


def _parts(given: Input, rng: random.Random) -> tuple[list[list[bytes]], list[bytes | None]]:
    """CopyData for each shard, and the keys; raises ClientFault."""
    splitter = copy.CopySplitter(given.format)
    pairs = [pair for chunk in _torn(rng, given.data) for pair in splitter.feed(chunk)]
    pairs += splitter.finish()
    parts: list[list[bytes]] = [[splitter.prelude], [splitter.prelude]]
    for key, row in pairs:
        parts[_shard(key)].append(row)
    for part in parts:
        part.append(splitter.trailer)
    return parts, [key for key, _ in pairs]


@pytest.mark.parametrize("kind", ["text", "csv", "binary"])
def test_rows_and_keys_are_those_of_one_table(wires: list[Wire], kind: str) -> None:
    seed = 20
    rng = random.Random(seed)
    postgres = wires[2].major()
    seen: Counter[str] = Counter()
    for number in range(INPUTS):
        given = _binary(rng) if kind == "binary" else _lines(rng, kind == "csv", postgres)
        said = f"seed {seed}, input {number}: {given.sql} {given.data!r}"
        for wire in wires:
            wire.query("TRUNCATE k")
        right = wires[2].copy_in(given.sql, [given.data])
        try:
            parts, keys = _parts(given, rng)
        except ClientFault as fault:
            parts, keys, refusal = [], [], str(fault)
        else:
            refusal = ""
        if refusal:
            assert right.sqlstate is not None, f"we refuse ({refusal}); {said}"
            seen["refused"] += 1
            continue
        answers = [wire.copy_in(given.sql, [p for p in part if p]) for wire, part in zip(wires, parts, strict=False)]
        failed = [answer.text for answer in answers if answer.sqlstate]
        assert bool(failed) == (right.sqlstate is not None), f"{failed} but {right.text}; {said}"
        if failed:
            seen["failed"] += 1
            continue
        column = NAMES[given.format.key]
        whole = wires[2].query(f"SELECT a, b, c, {column} FROM k").rows
        spread = [row for wire in wires[:2] for row in wire.query(f"SELECT a, b, c, {column} FROM k").rows]
        assert sorted(spread) == sorted(whole), said
        stored = Counter(messages.parse_data_row(row)[3] for row in whole)
        assert Counter(keys) == stored, said
        seen["stored"] += 1
    assert min(seen["stored"], seen["refused"] + seen["failed"]) > INPUTS // 20, seen
