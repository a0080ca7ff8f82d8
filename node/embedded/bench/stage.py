"""The servers behind the proxies, with the tables that the works need."""

from __future__ import annotations

from collections.abc import Collection

from node.embedded.bench.configs import Login, Shard, ShardedTable
from node.embedded.bench.pgbench import NotMeasured, Pgbench
from node.embedded.bench.targets import DATABASE, PASSWORD, SHARDED, USER, Target, direct
from node.embedded.server import Server
from node.embedded.workspace import Workspace

POINTS = 100_000
POINT_SELECT = f"\\set id random(1, {POINTS})\nSELECT v FROM points WHERE id = :id;\n"

SPLIT_KEYS = 10
SPLIT_ROWS = 200
SPLIT_INSERT = (
    "".join(f"\\set k{number} random(1, 1000000000)\n" for number in range(SPLIT_KEYS))
    + "INSERT INTO parted (id, v) VALUES "
    + ", ".join(f"(:k{number % SPLIT_KEYS}, {number})" for number in range(SPLIT_ROWS))
    + ";\n"
)
"""Cheap for PostgreSQL and for pgbench, dear for who must find each row's shard: no statement is like another."""

ROW_BYTES = 1024
"""Of the wide rows that large results and COPY move, without the protocol's own bytes."""

RESERVED_CONNECTIONS = 50
"""For the superuser, for us, and for what the proxies look up."""


class Stage:
    """One server, a second one when something is sharded."""

    def __init__(self, workspace: Workspace, *, sharded: bool, connections: int) -> None:
        settings = {"shared_buffers": "'256MB'", "max_connections": str(connections + RESERVED_CONNECTIONS)}
        count = 2 if sharded else 1
        self.sharded = sharded
        self.servers = [Server(workspace, f"server_{number}", settings=settings).start() for number in range(count)]
        self.databases = (DATABASE, SHARDED) if sharded else (DATABASE,)
        for server in self.servers:
            server.create_role(USER, PASSWORD)
            for database in self.databases:
                server.create_database(database, USER)
        # One verifier everywhere: PgBouncer can only pass a SCRAM login on to servers that hold the same one.
        verifier = self.verifier()
        for server in self.servers[1:]:
            server.sql(f"ALTER ROLE {USER} PASSWORD '{verifier}'")

    @property
    def direct(self) -> Target:
        return direct(self.servers[0].port)

    @property
    def version(self) -> str:
        return self.servers[0].binaries.version

    def verifier(self) -> str:
        return self.servers[0].sql(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{USER}'")[0][0]

    def login(self) -> Login:
        return Login(USER, PASSWORD, self.verifier())

    def shards(self) -> list[Shard]:
        found = [Shard(DATABASE, 0, self.servers[0].host, self.servers[0].port)]
        if self.sharded:
            found += [Shard(SHARDED, number, server.host, server.port) for number, server in enumerate(self.servers)]
        return found

    def sharded_tables(self) -> list[ShardedTable]:
        return [ShardedTable(SHARDED, name, "id") for name in ("points", "parted")] if self.sharded else []

    def fill(self, works: Collection[str], pgbench: Pgbench, scale: int, megabytes: int) -> None:
        pgbench.initialize(self.direct, scale)
        if "point" in works:
            self._run(
                "CREATE TABLE points (id bigint PRIMARY KEY, v bigint);"
                f"INSERT INTO points SELECT i, i FROM generate_series(1, {POINTS}) AS i"
            )
        if "split" in works:
            self._run("CREATE UNLOGGED TABLE parted (id bigint, v bigint)")
        if {"large", "copy-out"} & set(works):
            self._run(
                f"CREATE TABLE wide AS SELECT repeat(chr(97 + (i % 26)::int), {ROW_BYTES}) AS v"
                f" FROM generate_series(1, {megabytes * 1024}) AS i"
            )
        if "copy-in" in works:
            self._run("CREATE UNLOGGED TABLE taken (v text)")

    def fill_sharded(self, through: Target) -> None:
        """Through a node, which knows what belongs where. Raises NotMeasured."""
        import psycopg

        conninfo = f"host=127.0.0.1 port={through.port} dbname={SHARDED} user={USER} password={PASSWORD}"
        try:
            with psycopg.connect(conninfo, autocommit=True, connect_timeout=10) as connection:
                connection.execute("CREATE TABLE points (id bigint PRIMARY KEY, v bigint)")
                connection.execute("CREATE UNLOGGED TABLE parted (id bigint, v bigint)")
                connection.execute(f"INSERT INTO points (id, v) SELECT i, i FROM generate_series(1, {POINTS}) AS i")
        except psycopg.Error as error:
            raise NotMeasured(f"the sharded table could not be made through the node: {error}") from error

    def settle(self) -> None:
        """What would otherwise happen in the middle of somebody's turn."""
        for server in self.servers:
            for database in self.databases:
                server.sql("VACUUM ANALYZE", database)
            server.sql("CHECKPOINT")

    def empty_taken(self) -> None:
        self._run("TRUNCATE taken")

    def count_taken(self) -> int:
        return int(self.servers[0].sql("SELECT count(*) FROM taken", DATABASE, user=USER, password=PASSWORD)[0][0])

    def _run(self, text: str) -> None:
        self.servers[0].sql(text, DATABASE, user=USER, password=PASSWORD)
