"""The smaller parts of the bench: options, configurations, perf's report, the turns, the lexer's texts, the client."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from node.auth.scram import KeyCache
from node.config.load import parse
from node.embedded.bench import bulk, configs, lexing, meter, options
from node.embedded.bench.__main__ import main
from node.embedded.bench.client import Login
from node.embedded.bench.load import cpu_per, in_turn
from node.embedded.bench.pgbench import NotMeasured
from node.embedded.bench.profile import GROUPS, group_of, parse_report, shares
from node.embedded.bench.results import Row, Sample
from node.embedded.bench.targets import Target, version_of
from node.wire import messages

SCRAM = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0$" + "A" * 43 + "=:" + "A" * 43 + "="

SETTINGS = configs.Settings(
    configs.Login("bench", "secret", SCRAM),
    [
        configs.Shard("bench", 0, "127.0.0.1", 5432),
        configs.Shard("sharded", 0, "127.0.0.1", 5432),
        configs.Shard("sharded", 1, "127.0.0.1", 5433),
    ],
    [configs.ShardedTable("sharded", "points", "id")],
    pool_size=7,
    clients_limit=1234,
)

REPORT = """# Samples: 453  of event 'cpu-clock:ppp'
# Overhead	Shared Object                       	Symbol
 30.00%  	[kernel.kallsyms]                   	[k] finish_task_switch
 40.00%  	libpython3.11.so.1.0                	[.] _PyEval_EvalFrameDefault
 10.00%  	loop.cpython-311-x86_64-linux-gnu.so	[.] uv__io_poll
  5.00%  	pipeline.cpython-311-x86_64-linux-gnu.so	[.] walk
  3.00%  	libcrypto.so.3                      	[.] SHA256_Update
  2.00%  	libc.so.6                           	[.] malloc
  1.00%  	libz.so.1                           	[.] inflate

"""


# -- configurations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [configs.node_toml(SETTINGS, "auto"), configs.pgdog_toml(SETTINGS, 6432)])
def test_our_own_reader_takes_the_files_without_a_complaint(text: str) -> None:
    loaded = parse(text, configs.users_toml(SETTINGS))
    assert loaded.warnings == ()
    config = loaded.config
    assert config.general.default_pool_size == 7
    assert [(entry.name, entry.shard, entry.port) for entry in config.databases] == [
        ("bench", 0, 5432),
        ("sharded", 0, 5432),
        ("sharded", 1, 5433),
    ]


def test_lanes_are_written_only_when_they_are_asked_for() -> None:
    assert "lanes" not in configs.node_toml(SETTINGS, None)
    assert 'lanes = "off"\n' in configs.node_toml(SETTINGS, "off")
    assert "lanes = 4\n" in configs.node_toml(SETTINGS, "4")


def test_pgbouncer_has_prepared_statements_from_its_1_21() -> None:
    old = configs.pgbouncer_ini(SETTINGS, 6432, 20, (1, 18, 0), Path("users"))
    new = configs.pgbouncer_ini(SETTINGS, 6432, 20, (1, 21), Path("users"))
    assert "max_prepared_statements" not in old
    assert "max_prepared_statements = 200\n" in new
    assert "default_pool_size = 20\n" in new
    assert "pool_mode = transaction\n" in new
    assert "sharded" not in new
    assert configs.pgbouncer_userlist(SETTINGS.login) == f'"bench" "{SCRAM}"\n'


def test_a_version_is_what_the_program_says(tmp_path: Path) -> None:
    program = tmp_path / "program"
    for said, expected in (
        ("PgBouncer 1.21.0", ("1.21.0", (1, 21, 0))),
        ("PgDog v0.1", ("0.1", (0, 1))),
        ("some", ("some", ())),
    ):
        program.write_text(f"#!/bin/sh\necho '{said}'\n")
        program.chmod(0o755)
        assert version_of(str(program)) == expected


# -- options -----------------------------------------------------------------------------------------------------------


def test_the_command_line_is_read() -> None:
    given = options.parser().parse_args(
        [
            "--works",
            "all",
            "--clients",
            "64,1,1_000",
            "--lanes",
            "auto,off,4",
            "--pgbouncer-pool-sizes",
            "20,4",
            "--workers",
            "2,1",
        ]
    )
    assert given.works == list(options.WORKS)
    assert given.clients == [1, 64, 1000]
    assert given.lanes == ["auto", "off", "4"]
    assert given.pgbouncer_pool_sizes == [4, 20]
    assert given.workers == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--works", "selekt"],
        ["--modes", "simple,binary"],
        ["--clients", "0,1"],
        ["--clients", "many"],
        ["--lanes", "some"],
        ["--lanes", "0"],
        ["--duration", "0"],
        ["--latency-sampling", "1.5"],
        ["--from", "a.json", "--json", "b.json"],
    ],
)
def test_what_is_wrong_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(wrong)
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_damaged_file_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--from", str(tmp_path / "none.json")]) == 1
    assert capsys.readouterr().err.startswith("pgmurmur: cannot read results from ")


# -- turns -------------------------------------------------------------------------------------------------------------


def test_every_target_is_first_once() -> None:
    targets = [Target(name, 1, "bench", None) for name in ("direct", "pgbouncer", "ours")]
    orders = [[target.name for target in in_turn(targets, turn)] for turn in range(4)]
    assert orders[0] == ["direct", "pgbouncer", "ours"]
    assert orders[1] == ["pgbouncer", "ours", "direct"]
    assert orders[3] == orders[0]


def test_cpu_time_is_split() -> None:
    assert cpu_per(meter.Cpu(1.0, 3.0), 1_000_000) == {"cpu_us": 4.0, "cpu_user_us": 1.0, "cpu_system_us": 3.0}
    assert list(cpu_per(meter.Cpu(1.0, 3.0), 1, "_per_mb")) == [
        "cpu_us_per_mb",
        "cpu_user_us_per_mb",
        "cpu_system_us_per_mb",
    ]


def test_cpu_time_is_exact_in_sum_and_split_in_proportion() -> None:
    used = meter.Cpu(2.0, 5.0, 7.5) - meter.Cpu(1.0, 2.0, 3.25)
    assert used.total_s == 4.25
    assert used.user_share == 0.25
    assert cpu_per(used, 4_250_000) == {"cpu_us": 1.0, "cpu_user_us": 0.25, "cpu_system_us": 0.75}


def test_a_few_ticks_are_not_split() -> None:
    assert cpu_per(meter.Cpu(0.01, 0.02, 0.0234), 1000) == {"cpu_us": pytest.approx(23.4)}


def test_an_exact_count_that_lost_threads_is_not_believed() -> None:
    assert meter.Cpu(1.0, 1.0, 0.5).total_s == 2.0
    assert (meter.Cpu(1.0, 1.0, 2.0) + meter.Cpu(1.0, 1.0)).exact_s is None


def test_our_own_cpu_time_and_memory_are_seen() -> None:
    before = meter.cpu([os.getpid()])
    assert before is not None
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    after = meter.cpu([os.getpid()])
    assert after is not None
    assert 0.05 < (after - before).total_s < 10
    assert (meter.resident_bytes([os.getpid()]) or 0) > 1 << 20
    assert os.getpid() in meter.family_of(os.getppid())
    assert meter.cpu([]) is None


# -- where time goes ---------------------------------------------------------------------------------------------------


def test_samples_are_put_into_groups() -> None:
    symbols = parse_report(REPORT, ["pipeline", "lexer"])
    assert [symbol.name for symbol in symbols][:2] == ["_PyEval_EvalFrameDefault", "finish_task_switch"]
    found = shares(symbols)
    assert tuple(found) == GROUPS
    assert sum(found.values()) == pytest.approx(1)
    assert found["kernel"] == pytest.approx(30 / 91)
    assert found["Python interpreter"] == pytest.approx(40 / 91)
    assert found["uvloop"] == pytest.approx(10 / 91)
    assert found["compiled strip"] == pytest.approx(5 / 91)
    assert found["OpenSSL"] == pytest.approx(3 / 91)
    assert found["C library"] == pytest.approx(2 / 91)
    assert found["other"] == pytest.approx(1 / 91)


def test_no_samples_are_no_shares() -> None:
    assert parse_report("# nothing\n", []) == []
    assert set(shares([]).values()) == {0.0}


@pytest.mark.parametrize(
    ("library", "group"),
    [
        ("/usr/bin/python3.11", "Python interpreter"),
        ("_struct.cpython-311-x86_64-linux-gnu.so", "other"),
        ("/usr/lib/python3.11/lib-dynload/_asyncio.cpython-311-x86_64-linux-gnu.so", "Python interpreter"),
        ("_rust.abi3.so", "OpenSSL"),
        ("[vdso]", "kernel"),
        ("[unknown]", "other"),
        ("lexer.cpython-311-x86_64-linux-gnu.so", "compiled strip"),
        ("lexer.py", "other"),
    ],
)
def test_libraries_have_groups(library: str, group: str) -> None:
    assert group_of(library, False, ["lexer"]) == group


# -- the lexer ---------------------------------------------------------------------------------------------------------


def test_the_lexers_share_is_told_of_sharded_point_selects() -> None:
    def row(mode: str) -> Row:
        samples = {"ours": Sample([{"cpu_us": 20.0}]), "ours-sharded": Sample([{"cpu_us": 25.0}])}
        return Row("point", mode, 16, samples)

    simple, prepared = lexing.shares([row("simple"), row("prepared"), Row("select", "simple", 16)])
    assert simple["ratio"] == pytest.approx(1.25)
    assert simple["lexer_share"] == pytest.approx(simple["lexer_us_per_query"] / 25.0)
    assert simple["lexer_us_per_query"] > 0
    assert prepared["lexer_us_per_query"] == 0
    assert prepared["lexer_us_per_text"] > 0


def test_texts_are_those_that_pgbench_sends() -> None:
    assert len(set(lexing.texts("simple"))) > 1000
    assert set(lexing.texts("extended")) == {b"SELECT v FROM points WHERE id = $1;"}


# -- the client --------------------------------------------------------------------------------------------------------


def test_a_login_tells_the_servers_error() -> None:
    login = Login("bench", KeyCache())
    assert b"database\0bench\0" in login.start()
    error = messages.message(b"E", b"SFATAL\0C53300\0Mno more connections allowed\0\0")
    assert login.receive(error[:7]) == b""
    with pytest.raises(NotMeasured, match="FATAL: no more connections allowed"):
        login.receive(error[7:])


def test_a_login_without_scram_is_not_what_was_configured() -> None:
    with pytest.raises(NotMeasured, match="authentication method 3"):
        Login("bench", KeyCache()).receive(messages.message(b"R", (3).to_bytes(4, "big")))


def test_a_nonsensical_login_is_not_measured() -> None:
    login = Login("bench", KeyCache())
    asked = messages.message(b"R", (10).to_bytes(4, "big") + b"SCRAM-SHA-256\0\0")
    assert login.receive(asked).startswith(b"p")
    with pytest.raises(NotMeasured, match="the login went wrong"):
        login.receive(messages.message(b"R", (11).to_bytes(4, "big") + b"r=wrong,s=c2FsdA==,i=4096"))


def test_a_chunk_is_a_megabyte_of_rows() -> None:
    chunk = bulk.chunk()
    assert chunk.count(b"\n") == bulk.ROWS_PER_MEGABYTE
    assert chunk[:1] == b"d"
    assert len(chunk) - chunk.count(b"d\0") * 5 == bulk.MEGABYTE + bulk.ROWS_PER_MEGABYTE
