"""What one pool counts: plain attributes, only ever added to, lost when its pool is rebuilt (as in PgDog).

What each is called in SHOW STATS and in metrics is counters.py's table. Compiled: they are C numbers.
"""

from __future__ import annotations

_NAMES = (
    "transactions", "transactions_2pc", "queries", "assigned", "bytes_received", "bytes_sent",
    "transaction_time_s", "idle_transaction_time_s", "query_time_s", "wait_time_s", "parses", "binds",
    "closes", "errors", "prepared_evictions", "server_errors", "cleaned", "rollbacks",
    "connect_time_s", "connects", "reads", "writes", "auth_attempts", "rows_inserted",
    "rows_updated", "rows_deleted", "lane_units", "lane_shared", "lane_coalesced", "lane_heavy",
    "lane_full", "lane_slow", "lane_resent_slow", "lane_resent_lost", "lane_cancelled", "lane_left",
    "lane_unread", "force_closed", "out_of_sync", "re_synced",
)  # fmt: skip


class PoolCounters:
    """Times in seconds (`_s`)."""

    __slots__ = _NAMES

    transactions: int
    transactions_2pc: int
    queries: int
    assigned: int
    bytes_received: int
    bytes_sent: int
    transaction_time_s: float
    idle_transaction_time_s: float
    query_time_s: float
    wait_time_s: float
    parses: int
    binds: int
    closes: int
    errors: int
    prepared_evictions: int
    server_errors: int
    cleaned: int
    rollbacks: int
    connect_time_s: float
    connects: int
    reads: int
    writes: int
    auth_attempts: int
    rows_inserted: int
    rows_updated: int
    rows_deleted: int
    lane_units: int
    lane_shared: int
    lane_coalesced: int
    lane_heavy: int
    lane_full: int
    lane_slow: int
    lane_resent_slow: int
    lane_resent_lost: int
    lane_cancelled: int
    lane_left: int
    lane_unread: int
    force_closed: int
    out_of_sync: int
    re_synced: int

    def __init__(self) -> None:
        for name in _NAMES:
            setattr(self, name, 0.0 if name.endswith("_s") else 0)

    def count_rows(self, tag: bytes) -> None:
        """Adds what a CommandComplete says: `INSERT 0 5`, `UPDATE 3`, `DELETE 1`, `MERGE 2` (as updates)."""
        verb, _, rest = tag.partition(b" ")
        if verb not in _ROWS:
            return
        number = rest.rpartition(b" ")[2]
        if number.isdigit():
            attribute = _ROWS[verb]
            setattr(self, attribute, getattr(self, attribute) + int(number))


_ROWS = {b"INSERT": "rows_inserted", b"UPDATE": "rows_updated", b"DELETE": "rows_deleted", b"MERGE": "rows_updated"}
