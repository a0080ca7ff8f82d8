"""One table twice: whole in schema `direct`, and spread over schemas `s0`, `s1`, ... The oracle of exact gathering.

`Spread.through` asks the shards what `node.routing.select` says and combines their raw rows with `Gathering`, feeding
them in random order; `Spread.direct` asks the whole table. Both over a small blocking client, because what is compared
are bytes on the wire: drivers hide formats, type OIDs and modifiers.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pglast import parse_sql

from node.errors import ClientFault
from node.gather.gathering import Gathering, shard_formats
from node.routing.catalog import Catalog
from node.routing.catalog_queries import CATALOG_QUERIES
from node.routing.outcome import MergeProgram, Refusal, Values
from node.routing.select import analyse, program
from node.wire import messages

TIMEOUT_S = 30


@dataclass
class Answer:
    columns: list[messages.Column] = field(default_factory=list)
    rows: list[bytes] = field(default_factory=list)  # DataRow bodies
    tag: str = ""
    sqlstate: str | None = None
    text: str = ""

    @property
    def shape(self) -> list[tuple[bytes, int, int, int, int]]:
        return [(c.name, c.type_oid, c.type_size, c.type_modifier, c.format) for c in self.columns]


class Wire:
    """A connection to a server that trusts us."""

    def __init__(self, host: str, port: int, user: str, database: str) -> None:
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        body = struct.pack("!I", 3 << 16) + f"user\0{user}\0database\0{database}\0\0".encode()
        self.socket.sendall(struct.pack("!I", len(body) + 4) + body)
        self._until_ready()

    def close(self) -> None:
        self.socket.close()

    def _message(self) -> tuple[bytes, bytes]:
        while len(self.buffer) < 5 or len(self.buffer) < 1 + struct.unpack_from("!I", self.buffer, 1)[0]:
            data = self.socket.recv(1 << 18)
            assert data, "the server hung up"
            self.buffer += data
        end = 1 + struct.unpack_from("!I", self.buffer, 1)[0]
        letter, body, self.buffer = self.buffer[:1], self.buffer[5:end], self.buffer[end:]
        return letter, body

    def _until_ready(self) -> Answer:
        answer = Answer()
        while True:
            letter, body = self._message()
            if letter == b"T":
                answer.columns = messages.parse_row_description(body)
            elif letter == b"D":
                answer.rows.append(body)
            elif letter == b"C":
                answer.tag = body[:-1].decode()
            elif letter == b"E":
                fields = messages.parse_error(body)
                answer.sqlstate, answer.text = fields["C"], fields["M"]
            elif letter == b"Z":
                return answer

    def major(self) -> int:
        """The server's major version."""
        (row,) = self.query("SHOW server_version_num").rows
        (number,) = messages.parse_data_row(row)
        assert number is not None
        return int(number) // 10000

    def query(self, sql: str) -> Answer:
        self.socket.sendall(messages.query(sql))
        answer = self._until_ready()
        assert answer.sqlstate is None, f"{answer.text}: {sql}"
        return answer

    def copy_in(self, sql: str, chunks: Sequence[bytes]) -> Answer:
        """COPY FROM STDIN with these CopyData messages."""
        self.socket.sendall(messages.query(sql) + b"".join(map(messages.copy_data, chunks)) + messages.COPY_DONE)
        return self._until_ready()

    def describe(self, sql: str, types: Sequence[int]) -> Answer:
        self.socket.sendall(messages.parse(b"", sql.encode(), types) + messages.describe_statement(b"") + messages.SYNC)
        return self._until_ready()

    def run(
        self,
        sql: str,
        parameters: Sequence[bytes | None],
        parameter_formats: Sequence[int],
        types: Sequence[int],
        result_formats: Sequence[int],
    ) -> Answer:
        self.socket.sendall(
            messages.parse(b"", sql.encode(), types)
            + messages.bind(b"", b"", parameter_formats, parameters, result_formats)
            + messages.describe_portal(b"")
            + messages.execute()
            + messages.SYNC
        )
        return self._until_ready()


@dataclass(frozen=True)
class Asked:
    """A question in the extended protocol."""

    sql: str
    parameters: tuple[bytes | None, ...] = ()
    formats: tuple[int, ...] = ()
    types: tuple[int, ...] = ()
    result_formats: tuple[int, ...] = ()


def read_catalog(wire: Wire, schema: str) -> Catalog:
    """As a node reads it from a shard."""

    def texts(sql: str) -> list[list[str | None]]:
        rows = wire.query(sql).rows
        return [[None if v is None else v.decode() for v in messages.parse_data_row(body)] for body in rows]

    return Catalog.from_rows({name: texts(sql) for name, sql in CATALOG_QUERIES.items()}, (schema,))


class Spread:
    """`ddl` makes the tables, `keys` names the sharded ones; rows are spread by `spread(row key)`."""

    def __init__(self, connect: Any, ddl: str, keys: dict[str, str], shards: int) -> None:
        self.keys = keys
        self.whole = connect()
        self.shards = [connect() for _ in range(shards)]
        for name, wire in self.places:
            wire.query(f"DROP SCHEMA IF EXISTS {name} CASCADE; CREATE SCHEMA {name}; SET search_path = {name}")
            wire.query(ddl)
        self.known = read_catalog(self.whole, "direct")

    @property
    def places(self) -> list[tuple[str, Wire]]:
        return [("direct", self.whole), *((f"s{n}", wire) for n, wire in enumerate(self.shards))]

    def close(self) -> None:
        for _, wire in self.places:
            wire.close()

    def load(self, table: str, rows: Sequence[tuple[str, Sequence[str | None]]], shard_of: Any) -> None:
        """`rows` are (key, text values); text format is written by hand, without special characters."""
        for number, (_, wire) in enumerate(self.places):
            chosen = [values for key, values in rows if not number or shard_of(key) == number - 1]
            lines = "".join("\t".join("\\N" if v is None else v for v in values) + "\n" for values in chosen)
            answer = wire.copy_in(f"COPY {table} FROM STDIN", [lines.encode()])
            assert answer.sqlstate is None, answer.text

    def direct(self, asked: Asked) -> Answer:
        return self.whole.run(asked.sql, asked.parameters, asked.formats, asked.types, asked.result_formats)

    def plan(self, asked: Asked) -> MergeProgram | Refusal:
        facts = analyse(parse_sql(asked.sql)[0].stmt, self._placement, self.known)
        if isinstance(facts, Refusal):
            return facts
        return program(facts, Values(parameters=asked.parameters, formats=asked.formats, types=asked.types))

    def _placement(self, schema: str | None, table: str) -> str | None:
        return self.keys.get(table)

    def through(self, asked: Asked, rng: random.Random) -> Answer:
        """What a client of the proxy gets; a refusal is an answer with its SQLSTATE."""
        made = self.plan(asked)
        if isinstance(made, Refusal):
            return Answer(sqlstate=made.fault.sqlstate, text=made.fault.message)
        try:
            return self._gather(asked, made, rng)
        except ClientFault as fault:
            return Answer(sqlstate=fault.sqlstate, text=fault.message)

    def _gather(self, asked: Asked, made: MergeProgram, rng: random.Random) -> Answer:
        sql, parameters, formats, types = made.sql or asked.sql, asked.parameters, asked.formats, asked.types
        if made.parameters is not None:
            spelled = [0] * len(parameters) if not formats else list(formats)
            spelled = spelled * len(parameters) if len(spelled) == 1 else spelled
            parameters = tuple(asked.parameters[n] for n in made.parameters)
            formats = tuple(spelled[n] for n in made.parameters)
            types = tuple(asked.types[n] if n < len(asked.types) else 0 for n in made.parameters)
        answers = []
        gathering: Gathering | None = None
        for wire in self.shards:
            told = wire.describe(sql, types)
            if told.sqlstate:
                return told
            if gathering is None:
                gathering = Gathering(made, told.columns, asked.result_formats, len(self.shards))
            gathering.check(told.columns)
            wanted = shard_formats(made, len(told.columns), asked.result_formats)
            answer = wire.run(sql, parameters, formats, types, wanted)
            if answer.sqlstate:
                return answer
            answers.append(answer.rows)
        assert gathering is not None
        out = b""
        waiting = [n for n in range(len(answers)) for _ in range(len(answers[n]) + 1)]
        rng.shuffle(waiting)
        at = [0] * len(answers)
        for shard in waiting:
            if at[shard] < len(answers[shard]):
                body = answers[shard][at[shard]]
                if rng.random() < 0.5:
                    gathering.feed(shard, body)
                else:
                    gathering.feed_rows(shard, messages.message(b"D", body))
                at[shard] += 1
            else:
                gathering.finish(shard)
            out += gathering.take()
        result = Answer(messages.parse_row_description(gathering.row_description()[5:]))
        position = 0
        while position < len(out):
            end = position + 1 + struct.unpack_from("!I", out, position + 1)[0]
            result.rows.append(out[position + 5 : end])
            position = end
        assert gathering.rows == len(result.rows)
        result.tag = f"SELECT {gathering.rows}"
        return result
