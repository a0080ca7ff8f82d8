"""The command line: `pgmurmur [--config F] [--users F] [run] [options]` and its smaller commands.

Every option has a twin in the environment, PGMURMUR_PORT for --port; the command line wins, then the environment, then
files. Exit status: 0 done, 1 refused or failed with nothing changed, 2 wrong usage. Imports are inside the commands:
`pgmurmur --help` must not wait for a SQL parser.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from node.options import Files, HashOptions, NodeOptions, RolloutOptions, RouteOptions, split_address

DONE, REFUSED, USAGE = 0, 1, 2

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_COMMANDS = ("run", "configcheck", "hash", "route", "rollout")
_LOG_LEVELS = ("trace", "debug", "info", "warn", "warning", "error", "off")  # node/config/words.py, not imported: slow
_DATA_TYPES = ("bigint", "varchar", "uuid")


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """The command. Returns its exit status; a wrong usage exits with 2 from inside argparse."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    variables = os.environ if environ is None else environ
    try:
        parsed = parser(variables).parse_args(with_command(given))
        command: Callable[[argparse.Namespace, Mapping[str, str]], int] = parsed.run_command
        return command(parsed, variables)
    except BrokenPipeError:  # `pgmurmur route ... | head`: nobody listens any more, which is no failure
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def with_command(arguments: list[str]) -> list[str]:
    """Puts `run` where it was left out, so that options of a node may stand directly after `pgmurmur`."""
    at = 0
    while at < len(arguments):
        word = arguments[at]
        if word in _COMMANDS or word in ("--version", "-h", "--help"):
            return arguments
        if word in ("--config", "-c", "--users", "-u"):
            at += 2
        elif word.startswith(("--config=", "--users=")):
            at += 1
        else:
            break
    if at < len(arguments) and not arguments[at].startswith("-"):
        return arguments  # an unknown command: argparse says which ones there are
    return [*arguments[:at], "run", *arguments[at:]]


# -- grammar ----------------------------------------------------------------------------------------------------------


class _Twins:
    """Adds options whose defaults come from the environment; a variable is read as if it stood on the command line."""

    def __init__(self, target: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
        self.target = target
        self.environ = environ

    def variable(self, option: str) -> tuple[str, str | None]:
        name = "PGMURMUR_" + option.removeprefix("--").replace("-", "_").upper()
        return name, self.environ.get(name) or None  # empty counts as absent

    def text(self, *options: str, read: Callable[[str], Any] = str, **rest: Any) -> None:
        name, value = self.variable(options[0])
        default = rest.pop("default", None)
        choices = rest.get("choices")
        if value is not None:
            try:
                default = read(value)
            except (ValueError, argparse.ArgumentTypeError) as error:
                self.target.error(f"{name}: {error}")
            if choices is not None and default not in choices:
                self.target.error(f"{name}: must be one of {', '.join(choices)}")
        rest["required"] = rest.get("required", False) and value is None
        self.target.add_argument(*options, type=read, default=default, **rest)

    def flag(self, option: str, text: str, *, negatable: bool = False) -> None:
        name, value = self.variable(option)
        default: bool | None = None if negatable else False
        if value is not None:
            if value.lower() not in _TRUE | _FALSE:
                self.target.error(f"{name}: must be true or false")
            default = value.lower() in _TRUE
        action: Any = argparse.BooleanOptionalAction if negatable else "store_true"
        self.target.add_argument(option, action=action, default=default, help=text)

    def many(self, option: str, text: str, metavar: str) -> None:
        """An option that may be repeated; its variable holds several, separated by commas."""
        name, value = self.variable(option)
        try:
            default = tuple(_address(one.strip()) for one in (value or "").split(",") if one.strip())
        except argparse.ArgumentTypeError as error:
            self.target.error(f"{name}: {error}")
        self.target.add_argument(option, action=_Repeated, type=_address, help=text, metavar=metavar, default=default)


class _Repeated(argparse.Action):
    """Collects values; the first one given replaces what the environment said instead of adding to it."""

    def __call__(
        self, parser: argparse.ArgumentParser, space: argparse.Namespace, value: Any, option: Any = None
    ) -> None:
        before = getattr(space, f"{self.dest}_given", ())
        setattr(space, f"{self.dest}_given", (*before, value))
        setattr(space, self.dest, (*before, value))


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f'"{text}" is not a port')
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number from 1 to 1024')
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number of seconds')
    return value


def _address(text: str) -> str:
    """A seed or an address to listen on; dns:// and srv:// seeds are resolved later."""
    if "://" not in text:
        try:
            split_address(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The whole grammar, with defaults from the environment."""
    top = argparse.ArgumentParser(prog="pgmurmur", description="A flock of PostgreSQL proxies.", allow_abbrev=False)
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    _files(top, environ)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _run_grammar(_command(commands, "run", "a node, in the foreground (the default)", _run, environ), environ)
    _command(commands, "configcheck", "read both files and list every error", _configcheck, environ)
    _hash_grammar(_command(commands, "hash", "which shard a key lives on", _hash, environ, files=False), environ)
    _route_grammar(_command(commands, "route", "how statements would be routed", _route, environ), environ)
    _rollout_grammar(_command(commands, "rollout", "give the flock a new configuration", _rollout, environ), environ)
    return top


def _files(target: argparse.ArgumentParser, environ: Mapping[str, str], *, again: bool = False) -> None:
    """Both files may be named before or after the command; what comes after must not be undone by a default."""
    for option, short, text in (
        ("--config", "-c", "pgmurmur.toml, or pgdog.toml, unless given"),
        ("--users", "-u", "users.toml unless given"),
    ):
        if again:
            target.add_argument(option, short, metavar="FILE", help=text, default=argparse.SUPPRESS)
        else:
            _Twins(target, environ).text(option, short, metavar="FILE", help=text)


def _command(
    commands: Any, name: str, text: str, action: Callable[..., int], environ: Mapping[str, str], *, files: bool = True
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    command.set_defaults(run_command=action)
    if files:
        _files(command, environ, again=True)
    return command


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"pgmurmur {version()}")
        parser.exit(DONE)


def version() -> str:
    """Of the installed distribution; a checkout that was never installed reads its own pyproject.toml."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("pgmurmur")
    except PackageNotFoundError:
        import tomllib
        from pathlib import Path

        text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
        return str(tomllib.loads(text)["project"]["version"])


# -- commands ---------------------------------------------------------------------------------------------------------


def _run_grammar(target: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = _Twins(target, environ)
    add.text("--host", metavar="H", help="client address, over [general]")
    add.text("--port", metavar="P", read=_port, help="client port, over [general]; 0 picks one")
    add.text("--node-id", metavar="NAME", help="default: host name and port")
    add.text("--state-dir", metavar="DIR", help="votes, journal, saved peers")
    add.text("--gossip", metavar="HOST:PORT", read=_address, help="gossip and control; default: port + 10000")
    add.many("--seed", "a member to start from; may be repeated", "HOST:PORT")
    add.text("--flock", metavar="NAME", help="flocks with other names are not seen")
    add.text("--key-file", metavar="FILE", help="the flock's secret; without one only loopback peers are accepted")
    add.text("--register", metavar="URL", help="file:DIR, postgres://... or etcd://..., over [sync]")
    add.flag("--mdns", "find members by multicast (default: on)", negatable=True)
    add.text("--http", metavar="HOST:PORT", read=_address, help="/metrics, /health, /ready and the console")
    add.text(
        "--workers",
        metavar="N",
        read=_positive,
        default=1,
        help="members on this host on one client port; limits are per worker",
    )
    add.text("--log-level", metavar="LEVEL", read=str.lower, choices=_LOG_LEVELS, help="debug, info, warning or error")
    add.text("--log-format", choices=("text", "json"), help="encoding of the log")
    add.flag("--adopt", "take the register's configuration where these files differ from it")


def node_options(parsed: argparse.Namespace) -> NodeOptions:
    return NodeOptions(
        files=_named_files(parsed),
        host=parsed.host,
        port=parsed.port,
        node_id=parsed.node_id,
        state_dir=parsed.state_dir,
        gossip=parsed.gossip,
        seeds=parsed.seed,
        flock=parsed.flock,
        key_file=parsed.key_file,
        register=parsed.register,
        mdns=parsed.mdns,
        http=parsed.http,
        workers=parsed.workers,
        log_level=parsed.log_level,
        log_format=parsed.log_format,
        adopt=parsed.adopt,
    )


def _named_files(parsed: argparse.Namespace) -> Files:
    return Files(config=parsed.config, users=parsed.users)


def _run(parsed: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from node.app import run

    return run(node_options(parsed))


def _configcheck(parsed: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from node.config.files import read
    from node.config.problems import ConfigError

    files = _named_files(parsed)
    try:
        loaded = read(files.config, files.users).parse(environ)
    except ConfigError as error:
        for problem in error.problems:
            print(problem)
        return REFUSED
    for warning in loaded.warnings:
        print(f"{warning} (warning)")
    return DONE


def _hash_grammar(target: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = _Twins(target, environ)
    add.text("--type", choices=_DATA_TYPES, required=True, help="data_type of the key")
    add.text("--shards", metavar="N", read=_positive, required=True, help="number of shards")
    add.text("--hasher", choices=("postgres", "sha1"), default="postgres", help="hash function")
    target.add_argument("values", metavar="VALUE", nargs="+", help="a key")


def _hash(parsed: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from node.hash_command import main as hash_main

    return hash_main(HashOptions(parsed.type, parsed.shards, tuple(parsed.values), parsed.hasher))


def _route_grammar(target: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    _Twins(target, environ).text("--database", "-d", metavar="DB", required=True, help="logical database")
    target.add_argument("source", metavar="FILE", nargs="?", default="-", help="SQL; - is standard input")


def _route(parsed: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from node.route_command import main as route_main

    return route_main(RouteOptions(_named_files(parsed), parsed.database, parsed.source), environ)


def _rollout_grammar(target: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    add = _Twins(target, environ)
    add.text("--host", metavar="H", default="127.0.0.1", help="any node of the flock")
    add.text("--port", metavar="P", read=_port, default=6432, help="its client port")
    add.text("--user", metavar="NAME", help="default: the [admin] user of the users file, or admin")
    add.flag("--dry-run", "validate on every node, change nothing")
    add.flag("--watch", "show progress")
    add.flag("--json", "print one JSON object")
    add.text("--timeout", metavar="S", read=_seconds, default=60.0, help="give up after so many seconds")


def _rollout(parsed: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from node.admin.rollout_command import main as rollout_main

    return rollout_main(
        RolloutOptions(
            files=_named_files(parsed),
            host=parsed.host,
            port=parsed.port,
            user=parsed.user,
            dry_run=parsed.dry_run,
            watch=parsed.watch,
            json=parsed.json,
            timeout_s=parsed.timeout,
        )
    )
