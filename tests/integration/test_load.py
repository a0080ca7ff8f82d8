"""What the demo calls a proof can fail: each way in which a rollout could go wrong is seen in the rows."""

from __future__ import annotations

from integration.harness import USER, Database, wait_until

from node.embedded.load import TABLE, Writer, move, rows, sides, split_pairs
from node.embedded.server import Server

NODES = ["node-0", "node-1"]


def places(shards: list[Database]) -> list[tuple[Server, str]]:
    for shard in shards:
        shard.sql(f"{TABLE}; ALTER TABLE sightings OWNER TO {USER}")
    return [(shard.server, shard.name) for shard in shards]


def put(shard: Database, node: str, n: int, at: str, writer: int = 0, region: str = "south") -> None:
    shard.sql(f"INSERT INTO sightings VALUES ('{region}', '{node}', {writer}, {n}, '2026-01-01 00:00:{at}')")


def test_every_acknowledged_row_is_counted(plain: Database) -> None:
    (place,) = places([plain])
    writers = [Writer("node-0", number, plain.conninfo, ["north", "south"]) for number in range(2)]
    for writer in writers:
        writer.start()
    wait_until(lambda: all(writer.acknowledged >= 20 for writer in writers), "both have written")
    for writer in writers:
        writer.stop()
    assert [writer.errors for writer in writers] == [[], []]
    assert rows([place]) == [sum(writer.acknowledged for writer in writers)]
    assert split_pairs([place], writers) == 0
    assert all(writer.slowest_ms > 0 for writer in writers)


def test_a_writer_reports_what_its_client_saw(plain: Database) -> None:
    writer = Writer("node-0", 0, plain.conninfo, ["north"])  # there is no table
    writer.start()
    wait_until(lambda: writer.errors, "an error")
    writer.stop()
    assert "42P01" in writer.errors[0]


def test_a_transaction_torn_between_two_shards_is_seen(shards: list[Database]) -> None:
    where = places(shards)
    writers = [Writer("node-0", 1, "", [])]
    put(shards[0], "node-0", 1, "01", writer=1)
    put(shards[0], "node-0", 1, "01", writer=1)
    assert split_pairs(where, writers) == 0
    put(shards[0], "node-0", 2, "02", writer=1)
    put(shards[1], "node-0", 2, "03", writer=1)
    assert split_pairs(where, writers) == 2


def test_the_last_row_by_the_old_map_and_the_first_by_the_new_are_told_per_node(shards: list[Database]) -> None:
    where = places(shards)
    put(shards[0], "node-0", 1, "01")
    put(shards[0], "node-0", 2, "04")
    put(shards[0], "node-0", 2, "09", region="north")
    put(shards[1], "node-0", 3, "05")
    put(shards[1], "node-1", 1, "03")
    one, other = sides(where[0], where[1], "south", NODES)
    assert (one.by_old, one.by_new, other.by_old, other.by_new) == (2, 1, 0, 1)
    assert other.last_old is None
    assert one.last_old is not None
    assert one.first_new is not None
    assert other.first_new is not None
    assert one.last_old < one.first_new
    assert other.first_new < one.last_old, "node-1 turned before node-0 had stopped: what the demo must not overlook"


def test_moved_rows_are_on_the_new_shard_only(shards: list[Database]) -> None:
    where = places(shards)
    put(shards[0], "node-0", 1, "01")
    put(shards[0], "node-0", 2, "02", region="north")
    move(where[0], where[1], "south")
    assert shards[0].sql("SELECT region FROM sightings") == [("north",)]
    assert shards[1].sql("SELECT region, n FROM sightings") == [("south", "1")]
