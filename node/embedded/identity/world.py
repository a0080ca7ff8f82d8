"""What the clients ask about: tables whose every value can be computed, and what PostgreSQL says word by word."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from node.embedded.identity import wire
from node.embedded.server import Server

USER, PASSWORD, DATABASE = "bench", "bench", "identity"
HOT_KEYS = 8
COUNTERS = 4
COUNTER_START = 10**11
LOCKS = 4
REPLY_TIMEOUT_S = 30

TABLES = {
    "own": "id bigint PRIMARY KEY, v text, n integer NOT NULL",
    "ledger": "client bigint NOT NULL, n bigint NOT NULL, v text NOT NULL",
    "hot": "id bigint PRIMARY KEY, v text NOT NULL",
    "counters": "id bigint PRIMARY KEY, n bigint NOT NULL",
    "locks": "id bigint PRIMARY KEY, n bigint NOT NULL",
}
"""The first column is the sharding key. The ledger's rows are not unique on purpose: a second write must show."""
LEDGER_INDEX = "CREATE INDEX ledger_of ON ledger (client, n)"
FUNCTIONS = (
    "CREATE FUNCTION tell(said text) RETURNS text STABLE LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE NOTICE '%', said; RETURN said; END $$",
    "CREATE FUNCTION nap(seconds float8, said text) RETURNS text STABLE LANGUAGE plpgsql AS "
    "$$ BEGIN IF seconds > 0 THEN PERFORM pg_sleep(seconds); END IF; RETURN said; END $$",
)
"""STABLE, so that a proxy takes them for reads: a notice on a shared connection, a shape that is slow at times."""

_MARKED = b"c1s1:learned"
_LEARNED = {
    "cast": wire.query(b"SELECT '%b'::int4" % _MARKED),
    "syntax": wire.query(b"SELECT 1 AS a '%b'" % _MARKED),
    "column": wire.query(b'SELECT "%b"' % _MARKED),
    "division": wire.query(b"SELECT 1/(g-1) FROM generate_series(1, 1) AS g"),
    "bind": wire.parse(b"SELECT $1::int4 AS a") + wire.bind([_MARKED]) + wire.SYNC,
    "bind named": wire.parse(b"SELECT $1::int4 AS a", name=b"p")
    + wire.SYNC
    + wire.bind([_MARKED], name=b"p")
    + wire.SYNC,
    "notice": wire.query(b"SELECT tell('%b') AS t" % _MARKED),
}
"""Errors and notices name source files and lines of the server's version, so they are asked for once, directly."""


def own_value(number: int) -> bytes | None:
    """The v of a client's own row."""
    return None if number % 7 == 6 else b"c%ds0:%b" % (number, b"own" * (number % 40))


def hot_value(key: int) -> bytes:
    return b"hot %d " % key + b"%d" % (key % 10) * (20 * key)


@dataclass
class World:
    """Everything that all clients of a run share."""

    seed: int
    clients: int
    said: dict[str, bytes]
    """The one ErrorResponse or NoticeResponse of each of `_LEARNED`."""
    oids: dict[str, tuple[int, ...]]
    """Per table its oid on each shard, without repetitions."""
    sharded: bool = False
    settings: bool = True
    """Does what is between us and the server keep every client's settings apart?"""
    prepares: bool = True
    """Does it know prepared statements?"""
    huge_bytes: int = 100 << 20
    text: bytes = b""
    """Random letters to cut payloads from."""
    counters: list[int] = field(default_factory=lambda: [COUNTER_START] * COUNTERS)
    """The last acknowledged value of each."""
    _descriptions: dict[tuple[str, bytes, int], tuple[bytes, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        letters = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;-_=+()[]<>"
        self.text = bytes(random.Random(self.seed).choices(letters, k=1 << 16))

    def message(self, name: str, mark: bytes) -> bytes:
        """The learned message with a client's own text in place of ours."""
        known = self.said[name]
        return wire.message(known[:1], known[5:].replace(_MARKED, mark))

    def description(self, table: str, columns: bytes, format_code: int = 0) -> tuple[bytes, ...]:
        """RowDescriptions of some of the table's own columns, one for each shard that may answer."""
        key = (table, columns, format_code)
        known = self._descriptions.get(key)
        if known is None:
            all_of_them = [column.split()[:2] for column in TABLES[table].split(", ")]
            types = {"bigint": wire.INT8, "text": wire.TEXT, "integer": wire.INT4}
            known = self._descriptions[key] = tuple(
                wire.row_description(
                    [
                        (name.encode(), types[kind], oid, number)
                        for wanted in columns.split(b", ")
                        for number, (name, kind) in enumerate(all_of_them, 1)
                        if name.encode() == wanted
                    ],
                    format_code,
                )
                for oid in self.oids[table]
            )
        return known


def create(servers: Sequence[Server], *, sharded: bool = False) -> None:
    """Tables and functions on every server; the rows come later, and by the way the clients go.

    Across shards only immutable functions are sure to read no table, and any shard may run them.
    """
    functions = [text.replace("STABLE", "IMMUTABLE") if sharded else text for text in FUNCTIONS]
    statements = [*(f"CREATE TABLE {name} ({columns})" for name, columns in TABLES.items()), LEDGER_INDEX, *functions]
    for server in servers:
        server.create_role(USER, PASSWORD)
        server.create_database(DATABASE, USER)
        server.sql("; ".join(statements), DATABASE, user=USER, password=PASSWORD)


def rows(clients: int) -> list[str]:
    """INSERT statements of all rows, each short enough for everybody."""
    own = []
    for number in range(clients):
        value = own_value(number)
        own.append(f"({number}, {'NULL' if value is None else repr(value.decode())}, {number * 3})")
    statements = [
        "INSERT INTO own (id, v, n) VALUES " + ", ".join(own[start : start + 500]) for start in range(0, len(own), 500)
    ]
    hot = ", ".join(f"({key}, '{hot_value(key).decode()}')" for key in range(HOT_KEYS))
    statements.append(f"INSERT INTO hot (id, v) VALUES {hot}")
    for table, count, start in (("counters", COUNTERS, COUNTER_START), ("locks", LOCKS, 0)):
        values = ", ".join(f"({key}, {start})" for key in range(count))
        statements.append(f"INSERT INTO {table} (id, n) VALUES {values}")
    return statements


def oids(servers: Sequence[Server]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {name: [] for name in TABLES}
    for server in servers:
        for name, oid in server.sql("SELECT relname, oid FROM pg_class WHERE relkind = 'r'", DATABASE):
            if name in found and int(oid) not in found[name]:
                found[name].append(int(oid))
    return {name: tuple(values) for name, values in found.items()}


def learn(server: Server) -> dict[str, bytes]:
    """Asks the server itself, past every proxy, what it says to each of `_LEARNED`."""
    said = {}
    for name, request in _LEARNED.items():
        with socket.create_connection((server.host, server.port), REPLY_TIMEOUT_S) as connection:
            scram = wire.Scram(PASSWORD, b"identity-learns")
            connection.sendall(wire.startup(USER, DATABASE, "identity"))
            _until(connection, b"R")
            connection.sendall(scram.first())
            connection.sendall(scram.final(_until(connection, b"R")[4:]))
            scram.verify(_until(connection, b"R")[4:])
            _until(connection, b"Z")
            connection.sendall(request)
            letter = b"N" if name == "notice" else b"E"
            said[name] = wire.message(letter, _until(connection, letter))
            connection.sendall(wire.TERMINATE)
    return said


def _until(connection: socket.socket, letter: bytes) -> bytes:
    """The body of the next message with this letter."""
    while True:
        head = _exactly(connection, 5)
        body = _exactly(connection, int.from_bytes(head[1:], "big") - 4)
        if head[:1] == letter:
            return body
        if head[:1] == b"E":
            raise RuntimeError(f"the server said {wire.error_fields(body)}")


def _exactly(connection: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        more = connection.recv(count - len(got))
        if not more:
            raise RuntimeError("the server closed the connection")
        got += more
    return got
