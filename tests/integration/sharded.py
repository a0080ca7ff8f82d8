"""The oracle of the sharded path: the same text through a node over two shards and on one PostgreSQL with all rows.

What is compared are the bytes a driver would read: columns with their types, rows in order, command tags, SQLSTATEs
and the transaction status; by every protocol. One server holds the shards' databases and the plain one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from integration.exactness import Wire
from integration.harness import USER, Database, config_toml, start_server, users_toml

from node.embedded.server import Server
from node.embedded.workspace import Workspace
from node.wire import messages

SETTINGS = {"max_prepared_transactions": "20", "max_connections": "100"}
USER_OID = 16384  # types of users have another OID in every database
AUTH = 'auth_type = "trust"\n'


@contextmanager
def shard_database(
    workspace: Workspace, name: str, **settings: str
) -> Iterator[tuple[Server, list[Database], Database]]:
    """A server that trusts, with two shards and the plain database."""
    server = start_server(workspace, name, auth="trust", settings={**SETTINGS, **settings})
    for made in ("s0", "s1", "plain"):
        server.create_database(made, USER)
    try:
        yield server, [Database(server, "s0"), Database(server, "s1")], Database(server, "plain")
    finally:
        server.stop()


def trusting_config(shards: Sequence[Database], **options: str) -> str:
    options["general"] = AUTH + options.get("general", "")
    return config_toml(shards, **options)


def trusting_users(**options: int) -> str:
    return users_toml(**options)


@dataclass
class Said:
    """One statement's answer: what a driver can see of it."""

    columns: list[tuple[bytes, int, int, int, int]] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)
    tag: str = ""
    sqlstate: str = ""
    text: str = ""

    def shown(self) -> tuple[object, ...]:
        return [] if self.sqlstate else self.columns, self.tag, self.sqlstate


@dataclass
class Answers:
    """Everything up to one ReadyForQuery."""

    said: list[Said]
    status: str
    severity: str = ""


class Talker(Wire):
    """One client. `MODES` are the ways a driver can ask."""

    MODES = ("simple", "extended", "binary", "prepared")
    _count = 0

    def __init__(self, host: str, port: int, database: str, user: str = USER) -> None:
        super().__init__(host, port, user, database)

    def read(self) -> Answers:
        said: list[Said] = []
        now = Said()
        any_answer = False
        severity = ""
        while True:
            letter, body = self._message()
            if letter == b"T":
                columns = messages.parse_row_description(body)
                now.columns = [
                    (c.name, min(c.type_oid, USER_OID), c.type_size, c.type_modifier, c.format) for c in columns
                ]
            elif letter == b"D":
                now.rows.append(body)
            elif letter in (b"C", b"I", b"s"):
                now.tag = {b"I": "(empty)", b"s": "(suspended)"}.get(letter) or body[:-1].decode()
                said.append(now)
                now, any_answer = Said(), True
            elif letter == b"E":
                fields = messages.parse_error(body)
                now.sqlstate, now.text = fields["C"], fields["M"]
                severity = fields["V"]
                said.append(now)
                now, any_answer = Said(), True
                if severity == "FATAL":
                    return Answers(said, "X", severity)
            elif letter == b"Z":
                if not any_answer:
                    said.append(now)
                return Answers(said, body.decode(), severity)

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def ask(
        self, sql: str, parameters: Sequence[bytes | None] = (), mode: str = "simple", types: Sequence[int] = ()
    ) -> Answers:
        if mode == "simple":
            self.send(messages.query(sql))
            return self.read()
        formats = (1,) if mode == "binary" else ()
        name = b""
        if mode == "prepared":
            type(self)._count += 1
            name = f"statement_{self._count}".encode()
            self.send(messages.parse(name, sql.encode(), types), messages.SYNC)
            prepared = self.read()
            if prepared.said[0].sqlstate:
                return prepared
            self.send(messages.bind(b"", name, (), parameters, formats))
        else:
            self.send(messages.parse(name, sql.encode(), types), messages.bind(b"", name, (), parameters, formats))
        self.send(messages.describe_portal(b""), messages.execute(), messages.SYNC)
        return self.read()

    def run(self, sql: str) -> Said:  # type: ignore[override]
        """A statement that must work."""
        answers = self.ask(sql)
        assert not answers.said[-1].sqlstate, f"{answers.said[-1].text}: {sql}"
        return answers.said[-1]


def difference(ours: Answers, right: Answers, *, ordered: bool) -> str | None:
    """None: the same. Rows without a total order are compared as multisets."""
    if len(ours.said) != len(right.said):
        return f"{len(ours.said)} answers, not {len(right.said)}: {ours.said} / {right.said}"
    for mine, theirs in zip(ours.said, right.said, strict=True):
        if mine.shown() != theirs.shown():
            return f"{mine.shown()} {mine.text!r}, not {theirs.shown()} {theirs.text!r}"
        if theirs.sqlstate:
            continue  # what came before the error is nobody's answer
        rows = (mine.rows, theirs.rows) if ordered else (sorted(mine.rows), sorted(theirs.rows))
        if rows[0] != rows[1]:
            return f"rows {rows[0]}, not {rows[1]}"
    if ours.status != right.status:
        return f"transaction status {ours.status}, not {right.status}"
    return None
