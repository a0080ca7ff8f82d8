"""Clients that write without pause while the map changes, and what their rows prove afterwards.

Every row carries the node it went through, its writer's number, and `clock_timestamp()` of the server that stored it.
All servers of the demo are on one machine, so their clocks are one clock.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from node.embedded.server import Server

if TYPE_CHECKING:
    import psycopg

TABLE = (
    "CREATE TABLE sightings (region text NOT NULL, node text NOT NULL, writer int NOT NULL, n int NOT NULL, "
    "seen_at timestamptz NOT NULL)"
)
INSERT = "INSERT INTO sightings (region, node, writer, n, seen_at) VALUES (%s, %s, %s, %s, clock_timestamp())"
PAUSE_BETWEEN_S = 0.002
"""Leaves a small machine room for the nodes themselves."""


@dataclass
class Writer:
    """One client of one node. Odd writers use transactions of two rows, which must end up side by side."""

    node: str
    number: int
    conninfo: str
    regions: Sequence[str]
    acknowledged: int = 0
    slowest_ms: float = 0
    """Since it was last set to 0."""
    errors: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"writer {self.number}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        if self._thread.is_alive():
            self.errors.append("did not get an answer within 30 s")

    @property
    def in_pairs(self) -> bool:
        return self.number % 2 == 1

    def _run(self) -> None:
        import psycopg

        dice = random.Random(self.number)
        try:
            with psycopg.connect(self.conninfo, autocommit=True, connect_timeout=10) as connection:
                for n in itertools.count():
                    if self._stop.wait(PAUSE_BETWEEN_S):
                        return
                    before = time.monotonic()
                    self._write(connection, dice.choice(self.regions), n)
                    self.slowest_ms = max(self.slowest_ms, (time.monotonic() - before) * 1000)
        except psycopg.Error as error:
            self.errors.append(f"{self.node}: {error.sqlstate or type(error).__name__}: {error}".strip())

    def _write(self, connection: psycopg.Connection, region: str, n: int) -> None:
        values = (region, self.node, self.number, n)
        if self.in_pairs:
            with connection.transaction():
                connection.execute(INSERT, values)
                connection.execute(INSERT, values)
            self.acknowledged += 2
        else:
            connection.execute(INSERT, values)
            self.acknowledged += 1


@dataclass(frozen=True)
class Sides:
    """When one node wrote the moved region's rows, by the old map and by the new one."""

    node: str
    by_old: int
    last_old: datetime | None
    first_new: datetime | None
    by_new: int


def sides(old: tuple[Server, str], new: tuple[Server, str], region: str, nodes: Sequence[str]) -> list[Sides]:
    """Looks at the shards themselves, past every proxy."""
    query = (
        "SELECT node, count(*), extract(epoch FROM min(seen_at)), extract(epoch FROM max(seen_at)) "
        f"FROM sightings WHERE region = '{region}' GROUP BY node"
    )
    by_old, by_new = ({row[0]: row[1:] for row in server.sql(query, name)} for server, name in (old, new))
    nothing = ("0", "", "")
    return [
        Sides(
            node,
            int(by_old.get(node, nothing)[0]),
            _time(by_old.get(node, nothing)[2]),
            _time(by_new.get(node, nothing)[1]),
            int(by_new.get(node, nothing)[0]),
        )
        for node in nodes
    ]


def split_pairs(shards: Sequence[tuple[Server, str]], writers: Sequence[Writer]) -> int:
    """Transactions of two rows that left one row here and the other there (or only one anywhere)."""
    in_pairs = ",".join(str(writer.number) for writer in writers if writer.in_pairs) or "-1"
    query = (
        "SELECT count(*) FROM (SELECT 1 FROM sightings "
        f"WHERE writer IN ({in_pairs}) GROUP BY writer, n HAVING count(*) <> 2) AS lonely"
    )
    return sum(int(server.sql(query, name)[0][0]) for server, name in shards)


def rows(shards: Sequence[tuple[Server, str]]) -> list[int]:
    """Rows per shard."""
    return [int(server.sql("SELECT count(*) FROM sightings", name)[0][0]) for server, name in shards]


def move(old: tuple[Server, str], new: tuple[Server, str], region: str) -> None:
    """Carries the region's rows over, directly between the servers; a death half-way leaves them twice, not never."""
    import psycopg

    (old_server, old_name), (new_server, new_name) = old, new
    with (
        psycopg.connect(old_server.conninfo(old_name)) as source,
        psycopg.connect(new_server.conninfo(new_name)) as target,
    ):
        with (
            source.cursor().copy("COPY (SELECT * FROM sightings WHERE region = %s) TO STDOUT", (region,)) as rows_out,
            target.cursor().copy("COPY sightings FROM STDIN") as rows_in,
        ):
            for data in rows_out:
                rows_in.write(data)
        target.commit()
        source.execute("DELETE FROM sightings WHERE region = %s", (region,))


def _time(epoch: str) -> datetime | None:
    return datetime.fromtimestamp(float(epoch)) if epoch else None
