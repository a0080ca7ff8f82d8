"""COPY rows: exact bytes, exact keys, torn anywhere; tests/integration/test_exactness_copy.py asks the real server."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.errors import ClientFault
from node.gather.copy import BINARY, CSV, SIGNATURE, TEXT, CopyFormat, CopySplitter

Pairs = list[tuple[bytes | None, bytes]]


def _split(options: CopyFormat, *chunks: bytes) -> tuple[CopySplitter, Pairs]:
    splitter = CopySplitter(options)
    pairs: Pairs = []
    for chunk in chunks:
        pairs += splitter.feed(chunk)
    return splitter, pairs + splitter.finish()


TEXT_ROWS = b"1\ta\n\\N\tb\\\nc\n\\\\x\\x41\\101\\t\td\n\tempty"
CSV_ROWS = b'h1,h2\n1,a\n"2 ""q"" ,\n",b\n,null\n"",empty\n'


def test_text_keys_are_read_as_the_server_reads_them() -> None:
    _, pairs = _split(CopyFormat(TEXT, 0), TEXT_ROWS)
    assert pairs == [
        (b"1", b"1\ta\n"),
        (None, b"\\N\tb\\\nc\n"),
        (b"\\xAA\t", b"\\\\x\\x41\\101\\t\td\n"),
        (b"", b"\tempty"),
    ]


def test_before_postgresql_18_the_end_marker_may_follow_a_row() -> None:
    old = CopyFormat(TEXT, 1, marker_alone=False)
    assert _split(old, b"1\ta\n2\tb\\.\n3\tc\n")[1] == [(b"a", b"1\ta\n"), (b"b", b"2\tb")]
    assert _split(old, b"1\ta\n\\.\n3\tc\n")[1] == [(b"a", b"1\ta\n")]
    with pytest.raises(ClientFault, match="not alone on its line"):
        _split(old, b"1\ta\\.x\n")


def test_csv_tells_null_from_empty_and_keeps_the_header_apart() -> None:
    splitter, pairs = _split(CopyFormat(CSV, 0, header=True), CSV_ROWS)
    assert splitter.prelude == b"h1,h2\n"
    assert pairs == [
        (b"1", b"1,a\n"),
        (b'2 "q" ,\n', b'"2 ""q"" ,\n",b\n'),
        (None, b",null\n"),
        (b"", b'"",empty\n'),
    ]


@pytest.mark.parametrize(
    ("options", "data"),
    [
        (CopyFormat(TEXT, 1), b"1\ta\r\n2\tb\\\\\r\n\\N\t\\N\r\n"),
        (CopyFormat(TEXT, 0), TEXT_ROWS + b"\n\\.\nignored"),
        (CopyFormat(TEXT, 1, marker_alone=False), b"1\ta\r\n2\tb\\.\r\nignored\t\r\n"),
        (CopyFormat(CSV, 1, header=True), CSV_ROWS),
        (CopyFormat(CSV, 0, quote=b"'", escape=b"\\", delimiter=b";"), b"'a\\'b;\\\\';1\r'x';2\r"),
        (CopyFormat(BINARY, 1), SIGNATURE + bytes(8) + b"\0\2\0\0\0\1a\xff\xff\xff\xff\0\2\0\0\0\0\0\0\0\1b\xff\xff"),
    ],
)
def test_torn_anywhere_gives_the_same_rows(options: CopyFormat, data: bytes) -> None:
    whole, expected = _split(options, data)
    assert expected
    for cut in range(len(data) + 1):
        splitter, pairs = _split(options, data[:cut], data[cut:])
        assert (pairs, splitter.prelude, splitter.trailer) == (expected, whole.prelude, whole.trailer)
    splitter, pairs = _split(options, *(data[n : n + 1] for n in range(len(data))))
    assert (pairs, splitter.prelude, splitter.trailer) == (expected, whole.prelude, whole.trailer)


@given(st.sampled_from([TEXT, CSV]), st.lists(st.binary(max_size=12), max_size=6))
def test_no_byte_is_lost_or_made_up(kind: int, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    try:
        splitter, pairs = _split(CopyFormat(kind, 0, end_marker=False), *chunks)
    except ClientFault:
        return
    assert splitter.prelude + b"".join(row for _, row in pairs) == data


@given(st.lists(st.lists(st.one_of(st.none(), st.binary(max_size=5)), min_size=1, max_size=3), max_size=5), st.data())
def test_binary_rows_come_back(rows: list[list[bytes | None]], data: st.DataObject) -> None:
    encoded = [
        struct.pack("!h", len(row))
        + b"".join(struct.pack("!i", -1) if v is None else struct.pack("!i", len(v)) + v for v in row)
        for row in rows
    ]
    whole = SIGNATURE + bytes(8) + b"".join(encoded) + b"\xff\xff"
    cut = data.draw(st.integers(0, len(whole)))
    splitter, pairs = _split(CopyFormat(BINARY, 0), whole[:cut], whole[cut:])
    assert pairs == [(row[0], raw) for row, raw in zip(rows, encoded, strict=True)]
    assert (splitter.prelude, splitter.trailer) == (SIGNATURE + bytes(8), b"\xff\xff")


@pytest.mark.parametrize(
    ("options", "data", "text"),
    [
        (CopyFormat(TEXT, 0), b"a\nb\r\n", "literal carriage return found in data"),
        (CopyFormat(TEXT, 0), b"a\r\nb\n", "literal newline found in data"),
        (CopyFormat(CSV, 0), b"a\nb\r\n", "unquoted carriage return found in data"),
        (CopyFormat(CSV, 0), b'a\n"b\n', "unterminated CSV quoted field"),
        (CopyFormat(TEXT, 1, key_name="id"), b"a\n", 'missing data for column "id"'),
        (CopyFormat(TEXT, 0), b"a\\.\n", "end-of-copy marker is not alone on its line"),
        (CopyFormat(TEXT, 0), b"a\n\\.\r\n", "end-of-copy marker does not match previous newline style"),
        (CopyFormat(BINARY, 0), b"no signature, surely", "COPY file signature not recognized"),
        (CopyFormat(BINARY, 0), SIGNATURE + bytes(8) + b"\0\1\0\0", "unexpected EOF in COPY data"),
        (CopyFormat(BINARY, 0), SIGNATURE + bytes(8) + b"\xff\xff\0", "received copy data after EOF marker"),
        (CopyFormat(BINARY, 0), SIGNATURE + bytes(8) + b"\0\1\xff\xff\xff\xfe", "invalid field size"),
        (CopyFormat(BINARY, 1), SIGNATURE + bytes(8) + b"\0\1\xff\xff\xff\xff", "row field count is 1, which"),
    ],
)
def test_bad_data_is_named(options: CopyFormat, data: bytes, text: str) -> None:
    with pytest.raises(ClientFault) as caught:
        _split(options, data)
    assert caught.value.message.startswith(text)
    assert caught.value.sqlstate == "22P04"


def test_one_row_has_a_limit() -> None:
    splitter = CopySplitter(CopyFormat(TEXT, 0), row_limit_bytes=100)
    assert len(splitter.feed(b"short\n" * 50)) == 50
    with pytest.raises(ClientFault) as caught:
        splitter.feed(b"x" * 101)
    assert caught.value.sqlstate == "54000"


def test_encodings_that_hide_backslashes_are_refused() -> None:
    for name in ("SJIS", "Shift_JIS_2004", "gb18030", "BIG5"):
        with pytest.raises(ClientFault) as caught:
            CopyFormat(TEXT, 0, encoding=name)
        assert caught.value.sqlstate == "0A000"
    assert CopyFormat(TEXT, 0, encoding="LATIN1").key == 0


def test_options_about_nulls() -> None:
    for options, expected in (
        (CopyFormat(CSV, 0, force_not_null=True), b""),
        (CopyFormat(CSV, 0), None),
        (CopyFormat(CSV, 0, null=b"NUL"), b""),
    ):
        assert _split(options, b",x\n")[1][0][0] == expected
    assert _split(CopyFormat(CSV, 0, null=b"N", force_null=True), b'"N",x\n')[1][0][0] is None
    assert _split(CopyFormat(CSV, 0, null=b"N"), b'"N",x\n')[1][0][0] == b"N"


def test_a_key_left_to_its_default_is_refused() -> None:
    with pytest.raises(ClientFault) as caught:
        _split(CopyFormat(TEXT, 0, default=b"\\D"), b"\\D\tx\n")
    assert caught.value.sqlstate == "0A000"
