"""`pgmurmur rollout`: gives the flock a new configuration through the console of any node.

Exit status: 0 committed, 1 aborted and nothing changed, 3 not known (printed: how to find out). Whatever happens before
the command was sent is 1; once it was sent, only an answer tells, so a connection that breaks then is 3. With --json
one object is printed in every case; progress and errors go to standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from node.errors import ServerFault
from node.options import RolloutOptions, join_address
from node.server.connect import Target
from node.server.simple import Result, SimpleClient
from node.tls import TlsVerify, client_tls

COMMITTED, ABORTED, UNKNOWN = 0, 1, 3
_STATUS = {"committed": COMMITTED, "aborted": ABORTED, "unknown": UNKNOWN}

CONNECT_TIMEOUT_S = 10.0
# The node keeps to --timeout itself and then says what it knows; it is given this much longer to say it.
ANSWER_GRACE_S = 30.0
WATCH_EVERY_S = 0.2
FILE_LIMIT_BYTES = 4 << 20
CONFIG_NAMES = ("pgmurmur.toml", "pgdog.toml")
USERS_NAME = "users.toml"


@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """`version` None: it did not apply the new one, and cannot serve the old one if that was replaced."""

    node: str
    version: int | None
    paused_ms: float
    drained_ms: float
    ack: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What --json prints."""

    outcome: str
    version: int | None
    digest: str | None
    reason: str | None
    nodes: tuple[NodeOutcome, ...] = ()

    def status(self, *, dry_run: bool = False) -> int:
        """A dry run is always aborted, since nothing changed; it was good when every node would take the document."""
        if dry_run and self.accepted:
            return COMMITTED
        return _STATUS[self.outcome]

    @property
    def accepted(self) -> bool:
        return bool(self.nodes) and all(one.ack for one in self.nodes)


class NotSent(Exception):
    """It failed before the flock heard of it."""


@dataclass(frozen=True, slots=True)
class Documents:
    """What is sent. `users` None: the users file in force stays. `login` is what its [admin] table says."""

    config: str
    users: str | None
    login: Mapping[str, str]


def main(options: RolloutOptions, environ: Mapping[str, str] | None = None) -> int:
    """The command; its exit status."""
    variables = os.environ if environ is None else environ
    notes: list[str] = []
    try:
        documents = read(options)
        outcome = asyncio.run(roll_out(options, documents, variables, notes))
    except NotSent as failed:
        outcome = Outcome("aborted", None, None, str(failed))
    except KeyboardInterrupt:
        outcome = Outcome("unknown", None, None, f"interrupted; {how_to_find_out(options)}")
    for note in notes:
        print(note, file=sys.stderr)
    if options.json:
        print(json.dumps(asdict(outcome)), flush=True)
    else:
        print(readable(outcome, dry_run=options.dry_run), flush=True)
    return outcome.status(dry_run=options.dry_run)


# --- files and login -------------------------------------------------------------------------------------------------


def read(options: RolloutOptions) -> Documents:
    """Raises NotSent: here a file that is missing is no empty file, or a slip would empty the flock's configuration."""
    named = options.files.config
    config_path = Path(named) if named is not None else next((p for p in map(Path, CONFIG_NAMES) if p.exists()), None)
    if config_path is None:
        raise NotSent(f"there is no {' and no '.join(CONFIG_NAMES)} here; name the new file with --config")
    config = _text(config_path)
    users = _text(Path(options.files.users)) if options.files.users is not None else None
    login: Mapping[str, str] = {}
    # without --users a file of the usual name may still say how to log in
    for text in (users if users is not None else _beside(), config):
        table = _admin_table(text)
        if table:
            login = table
            break
    return Documents(config, users, login)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_LIMIT_BYTES + 1)
        if len(raw) > FILE_LIMIT_BYTES:
            raise NotSent(f"{path} is larger than {FILE_LIMIT_BYTES} bytes")
        text = raw.decode()
    except OSError as error:
        raise NotSent(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise NotSent(f"{path} is not UTF-8") from None
    if "\0" in text:
        raise NotSent(f"{path} has a zero byte")
    return text


def _beside() -> str:
    try:
        return _text(Path(USERS_NAME))
    except NotSent:
        return ""


def _admin_table(text: str) -> Mapping[str, str]:
    """[admin] of a file. One that does not parse is for the node to judge: it lists every error with its line."""
    try:
        table: Any = tomllib.loads(text).get("admin")
    except tomllib.TOMLDecodeError:
        return {}
    return {name: value for name, value in table.items() if isinstance(value, str)} if isinstance(table, dict) else {}


def target(options: RolloutOptions, login: Mapping[str, str], environ: Mapping[str, str]) -> Target:
    password = environ.get("PGPASSWORD") or login.get("password")
    return Target(
        host=options.host,
        port=options.port,
        database=login.get("name", "admin"),
        user=options.user or login.get("user", "admin"),
        passwords=(password,) if password else (),
        tls=client_tls(TlsVerify.PREFER),
        application_name="pgmurmur rollout",
    )


# --- talking to the node ---------------------------------------------------------------------------------------------


def command(options: RolloutOptions, documents: Documents) -> str:
    parts = ["ROLLOUT CONFIG", literal(documents.config)]
    if documents.users is not None:
        parts += ["USERS", literal(documents.users)]
    if options.dry_run:
        parts.append("DRY RUN")
    return " ".join((*parts, f"TIMEOUT {options.timeout_s:.15g}", "REPORT"))


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def how_to_find_out(options: RolloutOptions) -> str:
    address = join_address(options.host, options.port)
    return (
        f"the rollout may still go on: SHOW ROLLOUT on the console of {address}, or of any other node, tells how it"
        " ends, and SHOW PEERS which version each node applies"
    )


async def roll_out(
    options: RolloutOptions, documents: Documents, environ: Mapping[str, str], notes: list[str]
) -> Outcome:
    """Raises NotSent."""
    place = target(options, documents.login, environ)
    try:
        client = await SimpleClient.connect(place, timeout_s=CONNECT_TIMEOUT_S)
    except ServerFault as fault:
        raise NotSent(_login_failed(fault)) from None
    watcher = asyncio.create_task(watch(place)) if options.watch else None
    try:
        results = await client.query(command(options, documents), timeout_s=options.timeout_s + ANSWER_GRACE_S)
        notes += [note.get("M", "") for note in client.notices]
        return outcome_of(results)
    except ServerFault as fault:
        if client.closed:
            return Outcome("unknown", None, None, f"{fault.message}; {how_to_find_out(options)}")
        return Outcome("aborted", None, None, str(fault))
    finally:
        client.close()
        if watcher is not None:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher


def _login_failed(fault: ServerFault) -> str:
    if fault.sqlstate.startswith("28"):
        return f"{fault}; set PGPASSWORD to the password of the admin in force now, or name the users file"
    return str(fault)


async def watch(place: Target) -> None:
    """Prints what changes in SHOW ROLLOUT, over a connection of its own; its failures are nobody's business."""
    seen: dict[str, str] = {}
    try:
        client = await SimpleClient.connect(place, timeout_s=CONNECT_TIMEOUT_S)
        try:
            while True:
                for row in rows((await client.query("SHOW ROLLOUT", timeout_s=CONNECT_TIMEOUT_S))[-1]):
                    state = f"{row['phase'] or ''}\t{row['state'] or ''}\t{row['reason'] or ''}".rstrip()
                    name = row["node"] or ""
                    if seen.get(name) != state:
                        seen[name] = state
                        print(f"rollout {row['id'] or '-'}\t{name}\t{state}", file=sys.stderr, flush=True)
                await asyncio.sleep(WATCH_EVERY_S)
        finally:
            client.close()
    except ServerFault as fault:
        print(f"cannot watch: {fault.message}", file=sys.stderr)


def rows(result: Result) -> list[dict[str, str | None]]:
    names = [column.name.decode() for column in result.columns]
    return [
        dict(zip(names, (None if value is None else value.decode() for value in row), strict=True))
        for row in result.rows
    ]


def outcome_of(results: Sequence[Result]) -> Outcome:
    """The answer of ROLLOUT … REPORT: every row says how the whole ended, then how its node did."""
    found = rows(results[-1]) if results else []
    if not found or found[0].get("outcome") not in _STATUS:
        return Outcome("unknown", None, None, "the node gave no report; its version may be another")
    first = found[0]
    nodes = tuple(
        NodeOutcome(
            node=row["node"] or "",
            version=_integer(row["node_version"]),
            paused_ms=float(row["paused_ms"] or 0),
            drained_ms=float(row["drained_ms"] or 0),
            ack=row["ack"] == "t",
            reason=row["node_reason"],
        )
        for row in found
        if row["node"] is not None
    )
    return Outcome(first["outcome"] or "", _integer(first["version"]), first["digest"], first["reason"], nodes)


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


# --- for people ------------------------------------------------------------------------------------------------------


def readable(outcome: Outcome, *, dry_run: bool = False) -> str:
    lines = []
    if dry_run and outcome.accepted:
        lines.append("accepted by every node; nothing changed")
    elif outcome.outcome == "committed":
        lines.append(f"committed: version {outcome.version} ({(outcome.digest or '')[:12]})")
    elif outcome.outcome == "aborted":
        lines.append("aborted: nothing changed")
    else:
        lines.append("unknown: whether the new configuration is in force is not known yet")
    if outcome.reason:
        lines += ["  " + line for line in outcome.reason.splitlines()]
    if outcome.nodes:
        lines += table(outcome.nodes)
    return "\n".join(lines)


def table(nodes: Sequence[NodeOutcome]) -> list[str]:
    cells = [("node", "version", "paused ms", "drained ms", "reason")]
    cells += [
        (
            one.node,
            "-" if one.version is None else str(one.version),
            f"{one.paused_ms:.1f}",
            f"{one.drained_ms:.1f}",
            one.reason or "",
        )
        for one in nodes
    ]
    widths = [max(len(row[at]) for row in cells) for at in range(4)]
    return [
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in cells
    ]
