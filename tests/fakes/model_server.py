"""A PostgreSQL without sockets: frontend bytes in, backend bytes out, at once. Sessions are tested against it.

It answers every statement with one row that holds its text, so that a byte that reaches the wrong client is seen. It
knows transactions, extended batches with their rule of errors, COPY FROM STDIN (any text that begins with COPY), and
what PostgreSQL does with messages that are malformed. "bad" anywhere in a text is an error.
"""

from __future__ import annotations

from collections.abc import Callable

from node.errors import ClientFault
from node.wire import messages as m

KNOWN = b"QPBDECHSFXdcf"
EXTENDED = b"PBDECH"


class ModelServer:
    """`tell` gets what it says; `gone` is called when it ends the connection."""

    def __init__(self, tell: Callable[[bytes], None], gone: Callable[[], None]) -> None:
        self._tell = tell
        self._gone = gone
        self.buffer = b""
        self.tx = ord("I")
        self.skipping = False
        self.copying = b""  # Q or E: what began it
        self.ended = False
        self.statements: dict[bytes, bytes] = {}
        self.portals: dict[bytes, bytes] = {}
        self._out: list[bytes] = []

    def hear(self, data: bytes) -> None:
        if self.ended:
            return
        self.buffer += data
        while len(self.buffer) >= 5 and not self.ended:
            length = int.from_bytes(self.buffer[1:5], "big")
            letter = self.buffer[:1]
            if letter not in KNOWN or length < 4 or length > 1 << 30:
                self._fatal(b"08P01", "protocol synchronization was lost")
                break
            if len(self.buffer) < 1 + length:
                break
            body = self.buffer[5 : 1 + length]
            self.buffer = self.buffer[1 + length :]
            self._message(letter, body)
        self._flush()

    def _flush(self) -> None:
        if self._out:
            out, self._out = b"".join(self._out), []
            self._tell(out)
        if self.ended:
            self._gone()

    def _message(self, letter: bytes, body: bytes) -> None:
        if self.copying:
            self._copy(letter)
            return
        if letter in b"dcf" or (self.skipping and letter not in b"SX"):
            return
        try:
            self._answer(letter, body)
        except ClientFault as fault:
            self._error(fault.sqlstate.encode(), fault.message, letter)

    def _answer(self, letter: bytes, body: bytes) -> None:
        reader = m.Reader(body, "a")
        if letter == b"X":
            self.ended = True
        elif letter == b"S":
            self.skipping = False
            reader.end()
            self._ready()
        elif letter == b"Q":
            sql = reader.cstring()
            reader.end()
            if self._run(sql, b"Q"):
                self._ready()
        elif letter == b"F":
            self._out.append(m.message(b"V", b"\xff\xff\xff\xff"))
            self._ready()
        elif letter == b"P":
            parsed = m.parse_parse(body)
            if b"bad" in parsed.sql:
                raise ClientFault("bad", sqlstate="42601")
            if parsed.name and parsed.name in self.statements:
                raise ClientFault("there already", sqlstate="42P05")
            self.statements[parsed.name] = parsed.sql
            self._out.append(m.PARSE_COMPLETE)
        elif letter == b"B":
            bound = m.parse_bind(body)
            if bound.statement not in self.statements:
                raise ClientFault("no such statement", sqlstate="26000")
            self.portals[bound.portal] = self.statements[bound.statement]
            self._out.append(m.BIND_COMPLETE)
        elif letter in b"DC":
            kind = reader.take(1)
            name = reader.cstring()
            reader.end()
            if kind not in b"SP":
                raise ClientFault("invalid", sqlstate="08P01")
            table = self.statements if kind == b"S" else self.portals
            if letter == b"C":
                table.pop(name, None)
                self._out.append(m.CLOSE_COMPLETE)
            elif name not in table:
                raise ClientFault("no such thing", sqlstate="26000")
            else:
                self._out.append((m.message(b"t", b"\0\0") if kind == b"S" else b"") + m.NO_DATA)
        elif letter == b"E":
            portal = reader.cstring()
            reader.int32()
            reader.end()
            if portal not in self.portals:
                raise ClientFault("no such portal", sqlstate="34000")
            self._run(self.portals[portal], b"E")
        elif letter == b"H" and body:
            raise ClientFault("invalid message format", sqlstate="08P01")

    def _run(self, sql: bytes, how: bytes) -> bool:
        """False: a COPY has begun."""
        word = sql.split(b" ", 1)[0].upper()
        if b"bad" in sql or (self.tx == ord("E") and word not in (b"COMMIT", b"ROLLBACK")):
            raise ClientFault("bad", sqlstate="42601")
        if word == b"COPY":
            self.copying = how
            self._out.append(m.message(b"G", b"\0\0\0"))
            return False
        if not sql.strip():
            self._out.append(m.EMPTY_QUERY)
            return True
        if word == b"BEGIN":
            self.tx = ord("T")
        elif word in (b"COMMIT", b"ROLLBACK"):
            self.tx = ord("I")
        if how == b"Q":
            self._out.append(m.row_description([m.Column(b"said", 25)]))
        self._out.append(m.data_row([sql]))
        self._out.append(m.command_complete("SELECT 1"))
        return True

    def _copy(self, letter: bytes) -> None:
        how = self.copying
        if letter in b"dHS":
            return
        self.copying = b""
        if letter == b"c":
            self._out.append(m.command_complete("COPY 1"))
            if how == b"Q":
                self._ready()
        elif letter == b"f":
            self._error(b"57014", "COPY failed", how)
        else:
            self._fatal(b"08P01", "unexpected message type during COPY")

    def _error(self, sqlstate: bytes, text: str, letter: bytes) -> None:
        self._out.append(m.message(b"E", m.error_fields("ERROR", sqlstate.decode(), text)))
        if self.tx == ord("T"):
            self.tx = ord("E")
        if letter in EXTENDED:
            self.skipping = True
        else:
            self._ready()

    def _fatal(self, sqlstate: bytes, text: str) -> None:
        self._out.append(m.message(b"E", m.error_fields("FATAL", sqlstate.decode(), text)))
        self.ended = True

    def _ready(self) -> None:
        if self.tx == ord("I"):
            self.portals.clear()
        self._out.append(m.ready_for_query(self.tx))
