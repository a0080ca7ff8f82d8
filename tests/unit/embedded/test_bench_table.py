"""What the table shows of a report."""

from __future__ import annotations

import io

from unit.embedded.reports import report

from node.embedded.bench.results import Report, Row, Sample
from node.embedded.bench.table import COLUMNS, errors, head, lines, noise, print_report
from node.embedded.screen import Screen


def cell(line: tuple[str, ...], title: str, work: str = "select") -> str:
    return line[head(work).index(title)]


def row_of(clients: str, mode: str) -> dict[str, tuple[str, ...]]:
    """Its lines by target."""
    found: dict[str, tuple[str, ...]] = {}
    here = ("", "")
    for line in lines(report().rows, "select"):
        here = (line[0], line[1]) if line[0] else here
        if here == (mode, clients):
            found[line[2]] = line
    return found


def test_a_line_for_each_target_with_ratios() -> None:
    found = row_of("64", "simple")
    assert list(found) == ["PostgreSQL, direct", "PgBouncer", "pgmurmur (lanes=auto)", "pgmurmur, lanes=off"]
    ours = found["pgmurmur (lanes=auto)"]
    assert cell(ours, "tps") == "6000"
    assert cell(ours, "±") == "±17%"
    assert cell(ours, "÷direct") == "1.48"
    assert cell(ours, "÷PgB") == "1.94"
    assert cell(ours, "CPU µs") == "6.0"
    assert cell(ours, "user+system") == "1.5+4.5"
    assert cell(ours, "CPU÷PgB") == "0.50"
    assert cell(found["PostgreSQL, direct"], "CPU µs") == "-"


def test_what_failed_is_an_error_and_no_number() -> None:
    found = row_of("1", "prepared")
    assert cell(found["PgBouncer"], "tps") == "error"
    assert cell(found["pgmurmur (lanes=auto)"], "÷PgB") == "-"
    told = errors(report().rows)
    assert "PgBouncer, select, prepared, 1 clients: no prepared statements here (2 turns)" in told
    assert "pgmurmur, lanes=off, select, simple, 64 clients: pgbench: error: broken" in told


def test_a_target_that_failed_sometimes_keeps_its_numbers() -> None:
    assert cell(row_of("1", "simple")["pgmurmur, lanes=off"], "tps") == "2000"


def test_every_work_has_its_table_and_the_machine_its_line() -> None:
    out = io.StringIO()
    print_report(Screen(out), report())
    said = out.getvalue()
    for expected in ("select", "tpcb", "large", "storm", "MB/s", "all in s", "kernel 100.0 %"):
        assert expected in said
    assert "idle" not in said
    assert "noise: turns of one target differ by up to ±17%" in said
    assert "2 cores (a CPU), PostgreSQL 18.4, load 0.5 before, 2.0 after" in said


def test_quiet_turns_are_not_called_noise() -> None:
    assert noise([Row("select", "simple", 1, {"ours": Sample([{"tps": 100.0}, {"tps": 101.0}])})]) is None
    assert noise([]) is None


def test_pool_sizes_that_lost_are_not_shown() -> None:
    row = Row("select", "simple", 1, {"pgbouncer@4": Sample([{"tps": 1.0}]), "pgbouncer": Sample([{"tps": 2.0}])})
    assert [line[2] for line in lines([row], "select")] == ["PgBouncer"]


def test_a_lexer_share_is_printed_once_per_mode() -> None:
    found = {
        "mode": "simple",
        "clients": 16,
        "sharded_cpu_us": 20.0,
        "unsharded_cpu_us": 16.0,
        "ratio": 1.25,
        "lexer_us_per_text": 0.5,
        "lexer_share": 0.025,
        "compiled": True,
    }
    out = io.StringIO()
    print_report(Screen(out), Report(lexing=[found, {**found, "mode": "prepared", "compiled": False}]))
    said = out.getvalue()
    assert "1.25" in said
    assert "2 %" in said
    assert "once per statement" in said
    assert "0.50 (interpreted)" in said


def test_every_work_of_the_command_line_has_columns() -> None:
    from node.embedded.bench.options import WORKS

    assert set(COLUMNS) == set(WORKS)
