"""What pgbench says, read back: its last words, its progress, its log of latencies."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.embedded.bench.pgbench import (
    Finished,
    NotMeasured,
    Pgbench,
    Progress,
    Window,
    all_connected_s,
    last_words,
    parse_finished,
    parse_latencies,
    parse_progress,
    percentiles,
    transactions_between,
)
from node.embedded.bench.results import percentile
from node.embedded.bench.targets import Target

SAID = """pgbench (15.18 (Debian 15.18-0+deb12u1), server 18.4)
progress: 1764192000.500 s, 1000.0 tps, lat 0.1 ms stddev 0.0, 0 failed
transaction type: <builtin: select only>
number of transactions actually processed: 20931
number of failed transactions: 0 (0.000%)
latency average = 0.095 ms
initial connection time = 12.500 ms
tps = 10466.234567 (without initial connection time)
"""

CONNECTS = """number of transactions actually processed: 88
number of failed transactions: 0 (0.000%)
average connection time = 8.123 ms
tps = 101.5 (including reconnection times)
"""


def test_the_last_words_are_read() -> None:
    assert parse_finished(SAID) == Finished(10466.234567, 20931, None)
    assert parse_finished(CONNECTS) == Finished(101.5, 88, 8.123)
    assert all_connected_s(SAID) == 0.0125
    assert all_connected_s(CONNECTS) is None


@pytest.mark.parametrize(
    "said",
    [
        "",
        SAID.replace("processed: 20931", "processed: 0"),
        SAID.replace("failed transactions: 0", "failed transactions: 3"),
        SAID.replace("tps = ", "tps: "),
    ],
)
def test_what_is_no_full_success_is_not_measured(said: str) -> None:
    with pytest.raises(NotMeasured):
        parse_finished(said)


def test_an_error_is_told_rather_than_the_end() -> None:
    said = (
        "progress: 1.0 s, 9.0 tps\npgbench: error: client 3 aborted in command 0: FATAL:  sorry\nRun was aborted\nbye\n"
    )
    assert last_words(said) == "pgbench: error: client 3 aborted in command 0: FATAL:  sorry / Run was aborted"
    assert last_words("one\ntwo\nthree\n") == "two / three"
    assert last_words("\n") == "pgbench said nothing"


def test_transactions_are_those_after_the_first_line_of_progress() -> None:
    said = [
        "progress: 100.25 s, 50.0 tps, lat 1 ms",
        "progress: 101.25 s, 1000.0 tps",
        "progress: 101.75 s, 2000.0 tps",
    ]
    lines = [line for line in map(parse_progress, said) if line is not None]
    assert lines[0] == Progress(100.25, 50.0)
    assert transactions_between(lines) == 1000 + 1000
    assert transactions_between(lines[:1]) == 0
    assert parse_progress("tps = 5.0") is None


def test_a_window_reaches_from_the_first_mark_to_the_last() -> None:
    numbers = iter(range(10))
    window = Window(lambda: next(numbers))
    window.mark()
    assert (window.start, window.first, window.last) == (0, 1, None)
    window.mark()
    window.mark()
    window.end()
    assert (window.start, window.first, window.last, window.finish) == (0, 1, 3, 4)
    window.begin()
    assert (window.start, window.first, window.last) == (5, None, None)


PRETENDER = """#!/bin/sh
# Says that its clients needed 10 s the first time and a millisecond the second.
echo "progress: 1.5 s, 100.0 tps" >&2
for argument in "$@"; do echo "$argument" >> asked; done
if [ -e second ]; then connected=1; else connected=10000; fi
touch second
echo "0 1 ${connected}000 0 1764192000 1" > "latency.$connected"
echo "number of transactions actually processed: $((10001 - connected))"
echo "initial connection time = $connected.0 ms"
echo "tps = 5.0 (without initial connection time)"
"""


def test_when_logging_in_took_the_whole_time_it_runs_again(tmp_path: Path) -> None:
    program = tmp_path / "pgbench"
    program.write_text(PRETENDER)
    program.chmod(0o755)
    marks: list[int] = []
    window = Window(lambda: marks.append(1))
    pgbench = Pgbench(program, tmp_path)
    finished, lines, latencies = pgbench.run_with_latencies(
        Target("ours", 1, "bench", None), 100, ["--select-only"], 2, 1.0, window
    )
    assert finished == Finished(5.0, 10000, None)
    assert lines == [Progress(1.5, 100.0)]
    assert latencies["p50_ms"] == 1.0, "the log of the first time counts"
    asked = [line for line in (tmp_path / "asked").read_text().splitlines() if line.startswith("--time=")]
    assert asked == ["--time=3", "--time=15"]
    assert list(tmp_path.glob("latency*")) == []


def test_latencies_are_milliseconds_in_order_without_failures() -> None:
    lines = [
        "0 1 1500 0 1764192000 123456",
        "1 1 250 0 1764192000 123999",
        "0 2 failed 0 1764192000 124000",
        "0 3 skipped",
    ]
    assert parse_latencies(lines) == [0.25, 1.5]


def test_percentiles_are_values_that_occurred() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert percentiles(hundred) == {"p50_ms": 50.0, "p99_ms": 99.0, "p999_ms": 100.0}
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([1.0, 2.0], 0.5) == 1.0
    assert percentiles([]) == {}
