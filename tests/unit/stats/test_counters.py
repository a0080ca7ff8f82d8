"""Counters carry PgDog's names, and averages divide by what they are an average of."""

from __future__ import annotations

import pytest

from node.stats.counters import EXPORTED, LANE_STATS, SHOWN, STATS, Averages, Periods, PoolCounters, totals

SHOW_STATS = [
    "xact_count",
    "xact_2pc_count",
    "query_count",
    "server_assignment_count",
    "received",
    "sent",
    "xact_time",
    "idle_xact_time",
    "query_time",
    "wait_time",
    "server_parse_count",
    "bind_count",
    "close_count",
    "errors",
    "cleaned",
    "rollbacks",
    "connect_time",
    "connect_count",
    "reads",
    "writes",
    "auth_attempts",
    "rows_inserted",
    "rows_updated",
    "rows_deleted",
]

METRICS = {
    "auth_attempts",
    "cleaned",
    "connect_count",
    "connect_time",
    "idle_xact_time",
    "prepared_evictions",
    "query_count",
    "query_time",
    "reads",
    "received",
    "rollbacks",
    "rows_deleted",
    "rows_inserted",
    "rows_updated",
    "sent",
    "server_errors",
    "writes",
    "xact_2pc_count",
    "xact_count",
    "xact_time",
}


def test_columns_of_show_stats_in_order() -> None:
    assert [stat.name for stat in SHOWN] == SHOW_STATS
    assert [name for name, _ in totals(PoolCounters())] == [f"total_{name}" for name in SHOW_STATS]
    assert [name for name, _ in Averages().values()] == [f"avg_{name}" for name in SHOW_STATS]


def test_names_of_metrics() -> None:
    assert {stat.name for stat in EXPORTED} == METRICS


def test_every_stat_has_its_own_attribute() -> None:
    attributes = [stat.attribute for stat in (*STATS, *LANE_STATS)]
    assert len(set(attributes)) == len(attributes)
    counters = PoolCounters()
    assert all(getattr(counters, name) == 0 for name in attributes)


def test_a_misspelt_counter_is_an_error() -> None:
    with pytest.raises(AttributeError):
        PoolCounters().querys = 1  # type: ignore[attr-defined]


def test_times_are_shown_in_milliseconds() -> None:
    counters = PoolCounters()
    counters.query_time_s = 1.5
    counters.queries = 2
    shown = dict(totals(counters))
    assert (shown["total_query_time"], shown["total_query_count"]) == (1500, 2)


def averages(**grown: float) -> dict[str, float]:
    counters = PoolCounters()
    found = Averages()
    for name, value in grown.items():
        setattr(counters, name, value)
    found.sample(counters, 10)
    return dict(found.values(STATS))


def test_counts_are_per_second() -> None:
    assert averages(queries=50)["avg_query_count"] == 5
    assert averages(bytes_sent=100)["avg_sent"] == 10


@pytest.mark.parametrize(
    ("grown", "name", "value"),
    [
        ({"query_time_s": 3, "queries": 6}, "avg_query_time", 500),
        ({"transaction_time_s": 3, "transactions": 2}, "avg_xact_time", 1500),
        ({"wait_time_s": 3, "assigned": 3}, "avg_wait_time", 1000),
        ({"connect_time_s": 1, "connects": 4}, "avg_connect_time", 250),
        ({"idle_transaction_time_s": 1, "queries": 5, "transactions": 1}, "avg_idle_xact_time", 250),
        ({"idle_transaction_time_s": 1, "queries": 1, "transactions": 1}, "avg_idle_xact_time", 1000),
        ({"reads": 6, "transactions": 3}, "avg_reads", 2),
        ({"writes": 6, "transactions": 3}, "avg_writes", 2),
        ({"query_time_s": 3}, "avg_query_time", 0),
        ({"reads": 5}, "avg_reads", 0),
    ],
)
def test_times_are_per_thing(grown: dict[str, float], name: str, value: float) -> None:
    assert averages(**grown)[name] == pytest.approx(value)


def test_an_average_is_of_the_last_period_only() -> None:
    counters = PoolCounters()
    found = Averages()
    counters.queries = 100
    found.sample(counters, 10)
    counters.queries = 130
    found.sample(counters, 10)
    assert dict(found.values())["avg_query_count"] == 3
    found.sample(counters, 10)
    assert dict(found.values())["avg_query_count"] == 0


def test_a_period_without_length_divides_by_nothing() -> None:
    found = Averages()
    found.sample(PoolCounters(), 0)
    assert dict(found.values())["avg_query_count"] == 0


@pytest.mark.parametrize(
    ("tag", "counted"),
    [
        (b"INSERT 0 5", (5, 0, 0)),
        (b"UPDATE 3", (0, 3, 0)),
        (b"DELETE 1", (0, 0, 1)),
        (b"MERGE 2", (0, 2, 0)),
        (b"SELECT 9", (0, 0, 0)),
        (b"INSERT", (0, 0, 0)),
        (b"UPDATE x", (0, 0, 0)),
        (b"", (0, 0, 0)),
    ],
)
def test_rows_are_counted_from_the_command_tag(tag: bytes, counted: tuple[int, int, int]) -> None:
    counters = PoolCounters()
    counters.count_rows(tag)
    assert (counters.rows_inserted, counters.rows_updated, counters.rows_deleted) == counted


def test_periods_follow_the_pools_there_are() -> None:
    one, two = PoolCounters(), PoolCounters()
    periods = Periods(now=100.0)
    one.queries = 20
    periods.tick({1: one, 2: two}, now=110.0)
    assert dict(periods.of(1).values())["avg_query_count"] == 2
    assert dict(periods.of(2).values())["avg_query_count"] == 0
    assert dict(periods.of(3).values())["avg_query_count"] == 0
    two.queries = 5
    periods.tick({2: two}, now=115.0)
    assert dict(periods.of(2).values())["avg_query_count"] == 1
    assert dict(periods.of(1).values())["avg_query_count"] == 0
