"""A small report with everything that is awkward: a failed target, a half failed one, two nodes, several works."""

from __future__ import annotations

from node.embedded.bench.results import Report, Row, Sample

MODES = ("simple", "prepared")
CLIENTS = (1, 64, 1000)


def turn(tps: float, cpu_us: float = 0.0) -> dict[str, float]:
    found = {"tps": tps, "p50_ms": 1000 / tps, "p99_ms": 4000 / tps, "p999_ms": 9000 / tps}
    if cpu_us:
        found |= {"cpu_us": cpu_us, "cpu_user_us": cpu_us / 4, "cpu_system_us": cpu_us * 3 / 4}
    return found


def select(mode: str, clients: int) -> Row:
    pgbouncer = Sample([turn(3000.0, 12.0), turn(3200.0, 12.0)], [])
    if mode == "prepared":
        pgbouncer = Sample([], ["no prepared statements here"] * 2)
    return Row(
        "select",
        mode,
        clients,
        {
            "direct": Sample([turn(4000.0 + clients), turn(4000.0 + clients)]),
            "pgbouncer": pgbouncer,
            "ours": Sample([turn(5000.0, 6.0), turn(7000.0, 6.0)], [], "lanes=auto"),
            "ours:lanes=off": Sample([turn(2000.0, 15.0)], ["pgbench: error: broken"]),
        },
    )


def report() -> Report:
    rows = [select(mode, clients) for mode in MODES for clients in CLIENTS]
    rows.append(Row("tpcb", "simple", 16, {"direct": Sample([turn(900.0)]), "ours": Sample([turn(800.0, 90.0)])}))
    rows.append(Row("large", "simple", 1, {"ours": Sample([{"mb_per_s": 400.0, "cpu_us_per_mb": 1100.0}])}))
    rows.append(Row("storm", "simple", 1000, {"ours": Sample([{"all_in_s": 0.5, "cpu_us": 300.0}])}))
    return Report(
        settings={"duration": 1},
        machine={"cores": 2, "cpu": "a CPU", "versions": {"PostgreSQL": "18.4"}, "load_before": 0.5, "load_after": 2.0},
        rows=rows,
        profiles=[{"target": "ours", "what": "select", "shares": {"kernel": 1.0}, "top": []}],
    )
