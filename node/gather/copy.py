# cython: annotation_typing=False
"""Splits the data of COPY FROM STDIN into rows without changing a byte, and finds each row's key.

Compiled (see copy.pxd); the same file runs interpreted. The rules are the server's own reading rules (documentation
of COPY, "File Formats"): a row here is what the server would call a row, so sending each shard its rows, each with the
same header before them, gives exactly the rows that one server would have stored.

States of a row (text and csv): bytes are looked at once, `_at` is the next one; `_row` is where the row began, `_field`
the number of the field being read, `_from` and `_to` the key field's raw bytes once known. Torn chunks may end
anywhere: inside quotes, after a backslash, between CR and LF, inside a length. What the server rejects about line
ends is rejected here too, because a shard sees only some lines and might not notice a mixture.

Limits: one row is held whole and may take `row_limit_bytes` (54000 otherwise).
"""

from __future__ import annotations

from node.errors import ClientFault, refused

TEXT, CSV, BINARY = 0, 1, 2
ROW_LIMIT_BYTES = 64 << 20
SIGNATURE = b"PGCOPY\n\xff\r\n\0"

_UNKNOWN, _LF, _CRLF, _CR = 0, 1, 2, 3  # line ends, decided by the first line
_MORE, _LINE, _END = 0, 1, 2  # how a scan stopped: out of bytes, after a row, after the end marker
_NOWHERE = -1
# In these encodings a byte of a multibyte character may look like a backslash, a quote or a delimiter.
_UNSAFE_ENCODINGS = frozenset(("SJIS", "SHIFTJIS2004", "SHIFTJIS", "MSKANJI", "BIG5", "WIN950", "GBK", "WIN936",
                               "GB18030", "UHC", "WIN949", "JOHAB"))  # fmt: skip


class CopyFormat:
    """What COPY's options say about the data. One-byte strings as the server demands; `key` counts from 0.

    `force_null` and `force_not_null` are about the key column. `end_marker`: a line of only `\\.` ends the data; true
    for text, and for csv before PostgreSQL 18. `marker_alone`: in text format it must have its line to itself; before
    PostgreSQL 18 what stands in front of it is one more row. Raises ClientFault 0A000 for encodings that cannot be
    split bytewise.
    """

    def __init__(
        self,
        kind: int = TEXT,
        key: int = 0,
        *,
        key_name: str = "",
        delimiter: bytes | None = None,
        null: bytes | None = None,
        header: bool = False,
        quote: bytes = b'"',
        escape: bytes | None = None,
        default: bytes | None = None,
        force_null: bool = False,
        force_not_null: bool = False,
        encoding: str = "",
        end_marker: bool | None = None,
        marker_alone: bool = True,
    ) -> None:
        if "".join(c for c in encoding.upper() if c.isalnum()) in _UNSAFE_ENCODINGS:
            raise refused(f"COPY FROM in encoding {encoding}")
        self.kind = kind
        self.key = key
        self.key_name = key_name
        self.delimiter = delimiter or (b"," if kind == CSV else b"\t")
        self.null = null if null is not None else (b"" if kind == CSV else b"\\N")
        self.header = header
        self.quote = quote
        self.escape = escape or quote
        self.default = default
        self.force_null = force_null
        self.force_not_null = force_not_null
        self.end_marker = kind == TEXT if end_marker is None else end_marker
        self.marker_alone = marker_alone


class CopySplitter:
    """Feed CopyData payloads, get rows.

    `feed` and `finish` return (key, row) pairs: the key field's value as the server would read it (None for NULL; in
    binary format the value's bytes), and the row's exact bytes. `prelude` goes to every shard before its first row and
    `trailer` after its last; both are complete once rows come, or the input ended.
    """

    def __init__(self, options: CopyFormat, row_limit_bytes: int = ROW_LIMIT_BYTES) -> None:
        self.prelude = b""
        self.trailer = b""
        self.ended = False  # the end marker or the trailer was read: the rest is ignored or wrong
        self._options = options
        self._limit = row_limit_bytes
        self._kind = options.kind
        self._key = options.key
        self._delimiter = options.delimiter[0]
        self._quote = options.quote[0] if self._kind == CSV else 256
        # An escape that is the quote itself needs no state: the pair closes and opens again.
        self._escape = options.escape[0] if self._kind == CSV and options.escape != options.quote else 256
        self._marker = options.end_marker
        self._alone = options.marker_alone
        self._header = options.header or self._kind == BINARY
        self._buffer = bytearray()
        self._at = 0
        self._row = 0
        self._field = 0
        self._from = 0
        self._to = _NOWHERE
        self._quoted = False
        self._escaped = False
        self._saw_quote = False  # in the key field
        self._saw_escape = False  # in the key field
        self._line_end = _UNKNOWN

    @property
    def held_bytes(self) -> int:
        """Bytes of the row that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[bytes | None, bytes]]:
        """Raises ClientFault 22P04 for what the server would call bad data, 54000 for a row over the limit."""
        if self.ended:
            if self._kind == BINARY and data:
                raise ClientFault("received copy data after EOF marker", sqlstate="22P04")
            return []
        self._buffer += data
        rows = self._tuples() if self._kind == BINARY else self._lines(False)
        if len(self._buffer) > self._limit:
            raise ClientFault(
                f"a row of COPY data is longer than {self._limit} bytes",
                sqlstate="54000",
                hint="split the data, or raise the limit",
            )
        return rows

    def finish(self) -> list[tuple[bytes | None, bytes]]:
        """CopyDone: the last line needs no line end."""
        if self.ended:
            return []
        self.ended = True
        if self._kind == BINARY:
            # The server takes the end of the data (or half a field count) for the trailer, but not inside a tuple.
            if len(self._buffer) > 1 or self._header:
                raise _bad("unexpected EOF in COPY data")
            return []
        return self._lines(True)

    # --- text and csv ------------------------------------------------------------------------------------------

    def _lines(self, last: bool) -> list[tuple[bytes | None, bytes]]:
        rows: list[tuple[bytes | None, bytes]] = []
        buffer = self._buffer
        while True:
            found = self._scan(buffer, len(buffer), last)
            if found == _MORE and last and self._at > self._row:
                if self._quoted and not self._header:  # the server does not look into a header
                    raise _bad("unterminated CSV quoted field")
                if self._field == self._key:
                    self._to = self._at
                found = _LINE
            if found != _LINE:
                break
            row = bytes(buffer[self._row : self._at])
            if self._header:
                self._header = False
                self.prelude = row
            else:
                rows.append((self._value(buffer), row))
            self._row = self._from = self._at
            self._field = 0
            self._to = _NOWHERE
            self._saw_quote = self._saw_escape = False
        if found == _END:
            self.ended = True
            buffer.clear()
        elif self._row:
            del buffer[: self._row]
            self._at -= self._row
            self._from -= self._row
            if self._to != _NOWHERE:
                self._to -= self._row
            self._row = 0
        return rows

    def _scan(self, buffer: bytearray, size: int, last: bool) -> int:
        """Reads on to the end of the row; `_at` is then the first byte after its line end."""
        data = buffer
        at = self._at
        field = self._field
        key = self._key
        quoted = self._quoted
        escaped = self._escaped
        csv = self._kind == CSV
        delimiter = self._delimiter
        quote = self._quote
        escape = self._escape
        found = _MORE
        while at < size:
            c = data[at]
            if c == 92 and not csv:  # a backslash takes the next byte with it, even a line end
                if at + 1 == size:
                    if last:  # a lone backslash at the very end means nothing
                        at += 1
                        if field == key:
                            self._saw_escape = True
                    break
                if data[at + 1] == 46 and self._marker:
                    if at == self._row:
                        self._at = at
                        return self._end_marker(at + 2, size, last)
                    if self._alone:
                        raise _bad("end-of-copy marker is not alone on its line")
                    if self._end_marker(at + 2, size, last) == _END:
                        if field == key:
                            self._to = at
                        found = _LINE  # the marker comes next, as if it began a line
                    break
                if field == key:
                    self._saw_escape = True
                at += 2
                continue
            if csv:
                if quoted and c == escape:
                    escaped = not escaped
                    if field == key:
                        self._saw_escape = True
                elif c == quote:
                    if not escaped:
                        quoted = not quoted
                        if field == key:
                            self._saw_quote = True
                    escaped = False
                else:
                    escaped = False
                if quoted:
                    at += 1
                    continue
                if c == 92 and self._marker and at == self._row:
                    if at + 1 == size and not last:
                        break
                    if at + 1 < size and data[at + 1] == 46:
                        # In csv only a line of exactly these two bytes is meant; anything else is data.
                        self._at = at
                        ended = self._csv_marker(at + 2, size, last)
                        if ended != _LINE:
                            return ended
            if c == 13 or c == 10:
                if c == 13 and self._line_end != _CR and self._line_end != _LF and at + 1 == size and not last:
                    break  # LF may follow
                width = self._line_width(c, at + 1 < size and data[at + 1] == 10)
                if field == key:
                    self._to = at
                at += width
                found = _LINE
                break
            if c == delimiter:
                if field == key:
                    self._to = at
                field += 1
                if field == key:
                    self._from = at + 1
            at += 1
        self._at = at
        self._field = field
        self._quoted = quoted
        self._escaped = escaped
        return found

    def _line_width(self, c: int, lf_follows: bool) -> int:
        """Length of this line end; all lines must end like the first."""
        style = self._line_end
        unquoted = "unquoted" if self._kind == CSV else "literal"
        if c == 10:
            if style in (_CR, _CRLF):
                raise _bad(f"{unquoted} newline found in data")
            self._line_end = _LF
            return 1
        if style == _LF or (style == _CRLF and not lf_follows):
            raise _bad(f"{unquoted} carriage return found in data")
        if style == _UNKNOWN:
            self._line_end = _CRLF if lf_follows else _CR
        return 2 if self._line_end == _CRLF else 1

    def _end_marker(self, at: int, size: int, last: bool) -> int:
        """After `\\.` in text format."""
        if at == size and not last:
            return _MORE
        c = self._buffer[at] if at < size else 0
        if c != 10 and c != 13:
            raise _bad("end-of-copy marker is not alone on its line")
        if c == 13 and at + 1 == size and not last and self._line_end != _CR:
            return _MORE
        lf_follows = c == 13 and at + 1 < size and self._buffer[at + 1] == 10
        style = _LF if c == 10 else _CRLF if lf_follows else _CR
        if self._line_end not in (_UNKNOWN, style) and not (self._line_end == _CR and c == 13):
            raise _bad("end-of-copy marker does not match previous newline style")
        return _END

    def _csv_marker(self, at: int, size: int, last: bool) -> int:
        """After `\\.` at the start of a csv line: _LINE says that it is data after all."""
        if at == size:
            return _LINE if last else _MORE
        c = self._buffer[at]
        if c not in (10, 13):
            return _LINE
        style = self._line_end
        if style == _CRLF:
            if c == 10:
                return _LINE
            if at + 1 == size:
                return _LINE if last else _MORE
            c = self._buffer[at + 1]
            if c not in (10, 13):
                return _LINE
        if (style in (_LF, _CRLF) and c != 10) or (style == _CR and c != 13):
            raise _bad("end-of-copy marker does not match previous newline style")
        return _END

    def _value(self, buffer: bytearray) -> bytes | None:
        """The key of the row that was just read."""
        options = self._options
        if self._to == _NOWHERE:
            raise _bad(f'missing data for column "{options.key_name}"')
        raw = bytes(buffer[self._from : self._to])
        if options.default is not None and raw == options.default and not self._saw_quote:
            raise refused("DEFAULT of the sharding key in COPY FROM")
        if self._kind == TEXT:
            if raw == options.null:
                return None
            return unescape(raw) if self._saw_escape else raw
        if self._saw_quote:
            value = _unquote(raw, self._quote, options.escape[0])
        elif raw == options.null:
            return options.null if options.force_not_null else None
        else:
            value = raw
        if options.force_null and value == options.null:
            return None
        return value

    # --- binary ------------------------------------------------------------------------------------------------

    def _tuples(self) -> list[tuple[bytes | None, bytes]]:
        rows: list[tuple[bytes | None, bytes]] = []
        buffer = self._buffer
        size = len(buffer)
        at = 0
        if self._header:
            at = self._binary_header(size)
            if not at:
                return rows
        while size - at >= 2:
            end = self._tuple(buffer, at, size)
            if end <= 0:
                if end < 0:
                    self.ended = True
                    self.trailer = bytes(buffer[at : at + 2])
                    if size > at + 2:
                        raise _bad("received copy data after EOF marker")
                    at = size
                break
            key = None if self._to == _NOWHERE else bytes(buffer[self._from : self._to])
            rows.append((key, bytes(buffer[at:end])))
            at = end
        if at:
            del buffer[:at]
        return rows

    def _tuple(self, buffer: bytearray, start: int, size: int) -> int:
        """The end of the tuple that begins at `start`; 0 if it is torn, -1 for the trailer."""
        data = buffer
        fields = data[start] << 8 | data[start + 1]
        if fields == 0xFFFF:
            return -1
        if fields >= 0x8000 or self._key >= fields:
            raise _bad(f"row field count is {fields}, which does not reach the sharding key")
        at = start + 2
        for n in range(fields):
            if size - at < 4:
                return 0
            if data[at] >= 128:
                if data[at] != 255 or data[at + 1] != 255 or data[at + 2] != 255 or data[at + 3] != 255:
                    raise _bad("invalid field size")
                at += 4
                if n == self._key:
                    self._to = _NOWHERE
                continue
            length = data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
            at += 4
            if length > size - at:
                return 0
            if n == self._key:
                self._from = at
                self._to = at + length
            at += length
        return at

    def _binary_header(self, size: int) -> int:
        """The header's length; 0 while it is incomplete."""
        buffer = self._buffer
        if bytes(buffer[:11]) != SIGNATURE[: min(size, 11)]:
            raise _bad("COPY file signature not recognized")
        if size < 19:
            return 0
        if buffer[12] & 1:
            raise _bad("invalid COPY file header (WITH OIDS)")
        if buffer[11] or buffer[12]:
            raise _bad("unrecognized critical flags in COPY file header")
        extension = int.from_bytes(buffer[15:19], "big", signed=True)
        if extension < 0:
            raise _bad("invalid COPY file header (missing length)")
        if size < 19 + extension:
            return 0
        self._header = False
        self.prelude = bytes(buffer[: 19 + extension])
        return 19 + extension


def unescape(raw: bytes) -> bytes:
    """A text-format field without its backslashes."""
    out = bytearray()
    at = 0
    size = len(raw)
    while at < size:
        c = raw[at]
        at += 1
        if c != 92:
            out.append(c)
            continue
        if at >= size:
            break  # a lone backslash at the end of the data means nothing
        c = raw[at]
        at += 1
        if 48 <= c <= 55:
            number = c - 48
            end = min(at + 2, size)
            while at < end and 48 <= raw[at] <= 55:
                number = number << 3 | raw[at] - 48
                at += 1
            out.append(number & 0xFF)
        elif c == 120 and at < size and raw[at] in _HEX:
            end = min(at + 2, size)
            digits = 0
            while at < end and raw[at] in _HEX:
                digits = digits << 4 | int(raw[at : at + 1], 16)
                at += 1
            out.append(digits)
        else:
            out.append(_ESCAPES.get(c, c))
    return bytes(out)


def _unquote(raw: bytes, quote: int, escape: int) -> bytes:
    """A csv field that contains quotes: they toggle, wherever they stand."""
    out = bytearray()
    inside = False
    at = 0
    size = len(raw)
    while at < size:
        c = raw[at]
        at += 1
        if inside and c == escape and at < size and raw[at] in (escape, quote):
            out.append(raw[at])
            at += 1
        elif c == quote:
            inside = not inside
        else:
            out.append(c)
    return bytes(out)


_HEX = b"0123456789abcdefABCDEF"
_ESCAPES = {98: 8, 102: 12, 110: 10, 114: 13, 116: 9, 118: 11}


def _bad(text: str) -> ClientFault:
    return ClientFault(text, sqlstate="22P04")
