"""The text of /metrics."""

from __future__ import annotations

import re

from node.stats.counters import Averages, PoolCounters
from node.stats.openmetrics import Kind, Metric, NodeSample, PoolSample, metrics, render

POOL_LABELS = 'user="u",database="d",host="h",port="5432",shard="1",role="primary"'

# PgDog's families without features that are not built (mirrors, lookups, pub/sub)
PLAIN = """clients clients_locked prepared_statements_limit query_cache_limit query_cache_hits query_cache_misses
    query_cache_direct query_cache_cross query_cache_parse_time query_cache_fingerprints query_cache_size
    prepared_statements prepared_statements_memory_used two_pc_recovered_total"""
OF_POOLS = "max_connections cl_waiting sv_active sv_idle sv_locked sv_idle_xact maxwait errors out_of_sync"


def sample(counters: PoolCounters | None = None, averages: Averages | None = None, *, user: str = "u") -> PoolSample:
    return PoolSample(
        user=user,
        database="d",
        host="h",
        port=5432,
        shard=1,
        role="primary",
        max_connections=10,
        cl_waiting=2,
        sv_active=3,
        sv_idle=4,
        sv_idle_xact=1,
        maxwait_s=0.25,
        counters=counters or PoolCounters(),
        averages=averages or Averages(),
    )


def text(*pools: PoolSample, namespace: str | None = None) -> str:
    return render(metrics(NodeSample(pools=pools)), namespace)


def test_pgdogs_families_are_there() -> None:
    families = set(re.findall(r"^# TYPE (\S+) ", text(sample()), re.MULTILINE))
    assert families >= {*PLAIN.split(), *OF_POOLS.split()}
    assert {"total_xact_count", "avg_xact_count", "total_query_time", "avg_query_time"} <= families


def test_totals_are_counters_and_averages_gauges() -> None:
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text(sample()), re.MULTILINE))
    assert {kind for name, kind in kinds.items() if name.startswith("total_")} == {"counter"}
    assert {kind for name, kind in kinds.items() if name.startswith("avg_")} == {"gauge"}
    assert (kinds["errors"], kinds["maxwait"], kinds["clients"]) == ("counter", "gauge", "gauge")


def test_samples_of_a_pool() -> None:
    counters, averages = PoolCounters(), Averages()
    counters.queries, counters.query_time_s, counters.out_of_sync, counters.lane_shared = 30, 0.0451, 1, 7
    averages.sample(counters, 10)
    lines = text(sample(counters, averages)).splitlines()
    for expected in (
        f"cl_waiting{{{POOL_LABELS}}} 2",
        f"maxwait{{{POOL_LABELS}}} 0.250",
        f"total_query_count{{{POOL_LABELS}}} 30",
        f"avg_query_count{{{POOL_LABELS}}} 3",
        f"total_query_time{{{POOL_LABELS}}} 45.100",
        f"avg_query_time{{{POOL_LABELS}}} 1.503",
        f"out_of_sync{{{POOL_LABELS}}} 1",
        f"total_lane_shared{{{POOL_LABELS}}} 7",
        "# UNIT maxwait seconds",
        "# UNIT total_query_time milliseconds",
    ):
        assert expected in lines


def test_one_family_holds_the_samples_of_all_pools() -> None:
    lines = text(sample(), sample(user="v")).splitlines()
    at = lines.index("# TYPE sv_idle gauge")
    assert lines[at + 2].startswith('sv_idle{user="u"')
    assert lines[at + 3].startswith('sv_idle{user="v"')


def test_every_line_is_well_formed() -> None:
    node = NodeSample(
        pools=[sample()], members={"alive": 3}, paused={"d": True}, gate_waiting={"d": 4}, rollouts={"committed": 1}
    )
    line = re.compile(r'^(# (TYPE|HELP|UNIT) \S+ .+|[a-z_0-9]+(\{([a-z_]+="[^"\n]*",?)+\})? -?\d+(\.\d{3})?)$')
    body = render(metrics(node))
    assert body.endswith("\n")
    for one in body.splitlines():
        assert line.match(one), one
    assert 'maintenance{database="d"} 1' in body
    assert 'members{state="alive"} 3' in body


def test_a_name_appears_once() -> None:
    names = [one.name for one in metrics(NodeSample(pools=[sample()], members={"alive": 1}))]
    assert len(names) == len(set(names))


def test_names_cannot_forge_samples() -> None:
    body = text(sample(user='x"} 1\nclients 5\\'))
    assert '\nsv_idle{user="x\\"} 1\\nclients 5\\\\",database' in body
    assert not any(line.startswith("clients 5") for line in body.splitlines())


def test_the_namespace_is_put_in_front_as_it_is() -> None:
    body = text(namespace="pgdog_")
    assert "# TYPE pgdog_clients gauge\n# HELP pgdog_clients connected clients\npgdog_clients 0\n" in body


def test_a_family_without_labels() -> None:
    one = Metric("a", Kind.COUNTER, "two\nlines", [((), 1.0)])
    assert render([one]) == "# TYPE a counter\n# HELP a two\\nlines\na 1\n"
