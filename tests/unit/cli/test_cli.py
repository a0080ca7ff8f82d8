"""The command line, its twins in the environment, and the small commands."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from node import cli
from node.config.schema import General
from node.config.variables import OPTION_VARIABLES
from node.config.words import LOG_LEVELS
from node.options import NodeOptions

ROOT = Path(cli.__file__).parent.parent


def options(*arguments: str, **environ: str) -> NodeOptions:
    parsed = cli.parser(environ).parse_args(cli.with_command(list(arguments)))
    assert parsed.run_command is cli._run
    return cli.node_options(parsed)


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str, **environ: str) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments), environ)
    assert caught.value.code == 2
    return capsys.readouterr().err


# -- run --------------------------------------------------------------------------------------------------------------


def test_nothing_said_means_nothing_set() -> None:
    assert options() == NodeOptions()


def test_run_may_be_left_out() -> None:
    expected = options("--config", "c", "run", "--port", "5")
    assert options("--config", "c", "--port", "5") == expected
    assert options("--config=c", "--port=5") == expected
    assert options("--port", "5", "--config", "c") == expected
    assert options("run", "--port", "5", "-c", "c") == expected
    assert (expected.port, expected.files.config) == (5, "c")


def test_every_option_of_a_node() -> None:
    found = options(
        *("--users", "u", "--host", "h", "--port", "0", "--node-id", "n", "--state-dir", "s", "--gossip", "g:1"),
        *("--seed", "a:1", "--seed", "dns://b:2", "--flock", "f", "--key-file", "k", "--register", "file:/r"),
        *(
            "--no-mdns",
            "--http",
            "[::1]:80",
            "--workers",
            "3",
            "--log-level",
            "DEBUG",
            "--log-format",
            "json",
            "--adopt",
        ),
    )
    assert (found.files.users, found.host, found.port, found.node_id, found.state_dir) == ("u", "h", 0, "n", "s")
    assert (found.gossip, found.seeds, found.flock, found.key_file) == ("g:1", ("a:1", "dns://b:2"), "f", "k")
    assert (found.register, found.mdns, found.http, found.workers) == ("file:/r", False, "[::1]:80", 3)
    assert (found.log_level, found.log_format, found.adopt) == ("debug", "json", True)


def test_every_option_has_its_twin() -> None:
    found = options(
        PGMURMUR_CONFIG="c",
        PGMURMUR_PORT="7",
        PGMURMUR_NODE_ID="n",
        PGMURMUR_SEED="a:1, b:2",
        PGMURMUR_MDNS="off",
        PGMURMUR_ADOPT="yes",
        PGMURMUR_WORKERS="2",
        PGMURMUR_LOG_FORMAT="json",
    )
    assert (found.files.config, found.port, found.node_id, found.seeds) == ("c", 7, "n", ("a:1", "b:2"))
    assert (found.mdns, found.adopt, found.workers, found.log_format) == (False, True, 2, "json")


def test_the_command_line_goes_over_the_environment() -> None:
    found = options(
        *("--port", "8", "--seed", "c:3", "--mdns", "--config", "d"),
        PGMURMUR_PORT="7",
        PGMURMUR_SEED="a:1,b:2",
        PGMURMUR_MDNS="off",
        PGMURMUR_CONFIG="c",
    )
    assert (found.port, found.seeds, found.mdns, found.files.config) == (8, ("c:3",), True, "d")


def test_an_empty_variable_is_absent() -> None:
    assert options(PGMURMUR_PORT="", PGMURMUR_SEED="", PGMURMUR_MDNS="") == NodeOptions()


def _options_of(target: argparse.ArgumentParser) -> set[str]:
    found = set()
    for action in target._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                found |= _options_of(inner)
        found |= {name for name in action.option_strings if name.startswith("--") and not name.startswith("--no-")}
    return found


def test_the_list_of_variables_is_the_list_of_options() -> None:
    twins = {
        "PGMURMUR_" + name.removeprefix("--").replace("-", "_").upper()
        for name in _options_of(cli.parser({})) - {"--help", "--version"}
    }
    general = {"PGMURMUR_" + name.upper() for name in General.model_fields}
    assert twins - general == OPTION_VARIABLES


def test_levels_are_those_of_the_files() -> None:
    assert cli._LOG_LEVELS == LOG_LEVELS


WRONG = {
    "port": (("--port", "x"), "is not a port"),
    "port too large": (("--port", "65536"), "is not a port"),
    "address": (("--gossip", "nowhere"), "is not host:port"),
    "bare v6": (("--http", "::1:80"), "needs brackets"),
    "seed": (("--seed", "a"), "is not host:port"),
    "workers": (("--workers", "0"), "is not a number from 1 to 1024"),
    "format": (("--log-format", "xml"), "invalid choice"),
    "option": (("--prot", "5"), "unrecognized arguments"),
    "abbreviation": (("--por", "5"), "unrecognized arguments"),
    "command": (("rum",), "invalid choice"),
    "level": (("--log-level", "loud"), "invalid choice"),
    "type": (("hash", "--type", "float", "--shards", "2", "1"), "invalid choice"),
    "no type": (("hash", "--shards", "2", "1"), "required: --type"),
    "no value": (("hash", "--type", "bigint", "--shards", "2"), "required: VALUE"),
    "no database": (("route",), "required: --database"),
    "timeout": (("rollout", "--timeout", "-1"), "is not a number of seconds"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage_exits_with_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, expected = WRONG[name]
    assert expected in usage_error(capsys, *arguments)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("PORT", "x"), ("MDNS", "maybe"), ("SEED", "a"), ("LOG_FORMAT", "xml"), ("WORKERS", "0"), ("HTTP", "x")],
)
def test_a_wrong_variable_is_wrong_usage_and_named(
    variable: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"PGMURMUR_{variable}: " in usage_error(capsys, **{f"PGMURMUR_{variable}": value})


# -- smaller commands -------------------------------------------------------------------------------------------------


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("pgmurmur ")


def test_configcheck_of_good_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c").write_text("[general]\ndns_ttl = 5\n")
    (tmp_path / "u").write_text("")
    assert cli.main(["configcheck", "--config", str(tmp_path / "c"), "--users", str(tmp_path / "u")], {}) == 0
    output = capsys.readouterr().out.splitlines()
    assert len(output) == 1
    assert output[0].startswith(f"{tmp_path}/c:2: ")
    assert output[0].endswith("(warning)")


def test_configcheck_lists_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c").write_text('[general]\nprot = 5\ntls_certificate = "c"\ntls_verify = "disabled"\n')
    (tmp_path / "u").write_text('\n[[users]]\nserver_auth = "rds_iam"\n')
    assert cli.main(["--config", str(tmp_path / "c"), "--users", str(tmp_path / "u"), "configcheck"], {}) == 1
    assert capsys.readouterr().out.splitlines() == [
        f'{tmp_path}/c:2: unknown key "prot" in [general]; did you mean "port"?',
        f'{tmp_path}/c:3: "tls_certificate" needs "tls_private_key"',
        f'{tmp_path}/u:2: [[users]] needs "name"',
        f'{tmp_path}/u:3: server_auth = "rds_iam" needs TLS towards servers (tls_verify)',
    ]


HASHES = [
    (["--type", "bigint", "--shards", "12", "0", "1", "3", "-1"], "0\t8\n1\t8\n3\t1\n-1\t5\n"),
    (["--type", "varchar", "--shards", "3", "one", ""], "one\t2\n\t2\n"),
    (["--type", "uuid", "--shards", "12", "f47ac10b-58cc-4372-a567-0e02b2c3d479"], None),
    (["--type", "bigint", "--hasher", "sha1", "--shards", "12", "0", "1", "2"], "0\t4\n1\t7\n2\t8\n"),
]


@pytest.mark.parametrize(("arguments", "expected"), HASHES)
def test_hash_prints_value_and_shard(
    arguments: list[str], expected: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["hash", *arguments], {}) == 0
    assert capsys.readouterr().out == (expected or f"{arguments[-1]}\t6\n")


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("bigint", "x", "invalid input syntax for type bigint"),
        ("bigint", "1_0", "invalid input syntax for type bigint"),
        ("bigint", "9223372036854775808", "out of range"),
        ("uuid", "x", "invalid input syntax for type uuid"),
    ],
)
def test_hash_refuses_what_is_no_key(kind: str, value: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["hash", "--type", kind, "--shards", "2", "1" if kind == "bigint" else value, value], {}) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


def test_the_command_starts_without_slow_imports() -> None:
    code = (
        "import sys, node.cli\n"
        "node.cli.parser({})\n"
        "slow = {'pydantic', 'pglast', 'aiohttp', 'asyncio', 'zeroconf', 'uvloop'} & set(sys.modules)\n"
        "sys.exit(', '.join(slow) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
