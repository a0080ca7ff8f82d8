"""What the clients connect to: a node of ours or PgBouncer, and what can be learned of it afterwards."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from node.embedded.identity.world import DATABASE, PASSWORD, USER
from node.embedded.nodes import NodeProcess
from node.embedded.server import Server
from node.embedded.workspace import Workspace, free_port

START_TIMEOUT_S = 10
PREPARES_SINCE = (1, 21)
"""PgBouncer's first version with prepared statements in transaction mode."""
LEDGER_SHOWN = 20
TELLING = ("lane", "shar", "coalesc", "resen", "sent_again", "again", "alone", "dropped", "slow", "wide")
"""Parts of names of columns that say what lanes did."""


def start_node(workspace: Workspace, servers: Sequence[Server], given: argparse.Namespace) -> NodeProcess:
    folder = workspace.folder("identity")
    config, users = folder / "pgdog.toml", folder / "users.toml"
    text = (
        f'[general]\nhost = "127.0.0.1"\nport = 0\ndefault_pool_size = {given.pool_size}\n'
        f"max_client_conn = {given.clients + 200}\ncheckout_timeout = 30000\n"
    )
    if given.lanes is not None:
        text += f"lanes = {given.lanes}\n" if given.lanes.isdigit() else f'lanes = "{given.lanes}"\n'
    for shard, server in enumerate(servers):
        text += f'\n[[databases]]\nname = "{DATABASE}"\nhost = "{server.host}"\nport = {server.port}\nshard = {shard}\n'
    if given.sharded:
        for table, column in (("own", "id"), ("ledger", "client"), ("hot", "id"), ("counters", "id"), ("locks", "id")):
            text += f'\n[[sharded_tables]]\ndatabase = "{DATABASE}"\nname = "{table}"\ncolumn = "{column}"\n'
            text += 'data_type = "bigint"\n'
    config.write_text(text)
    users.write_text(
        f'[admin]\npassword = "{PASSWORD}"\n\n'
        f'[[users]]\nname = "{USER}"\npassword = "{PASSWORD}"\ndatabase = "{DATABASE}"\n'
    )
    options = ["--no-mdns", "--flock", "identity", "--register", f"file:{folder / 'register'}"]
    started = NodeProcess(workspace, "node", config, users, folder / "node", options=options).start()
    workspace.on_close(lambda: _discard(started.stop()))
    return started


def start_pgbouncer(workspace: Workspace, server: Server, given: argparse.Namespace) -> tuple[int, bool]:
    """Its port, and whether it knows prepared statements in transaction mode. Raises RuntimeError without PgBouncer."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise RuntimeError("there is no pgbouncer on PATH")
    said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    number = re.search(r"(\d+)\.(\d+)", said)
    prepares = number is not None and tuple(map(int, number.groups())) >= PREPARES_SINCE
    folder, port = workspace.folder("pgbouncer", private_to_account=True), free_port()
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": folder / "users.txt",
        "pool_mode": "transaction",
        "max_client_conn": given.clients + 200,
        "default_pool_size": given.pool_size,
        "log_connections": 0,
        "log_disconnections": 0,
        "query_wait_timeout": 60,
        **({"max_prepared_statements": 500} if prepares else {}),
    }
    place = f"host=127.0.0.1 port={server.port}"
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    for name, content in (
        ("users.txt", f'"{USER}" "{PASSWORD}"\n'),
        ("pgbouncer.ini", f"[databases]\n{DATABASE} = {place}\n\n[pgbouncer]\n{lines}"),
    ):
        (folder / name).write_text(content)
        workspace.give(folder / name)
    with (folder / "log").open("wb") as log:
        process = workspace.spawn([program, folder / "pgbouncer.ini"], output=log, as_account=True)
    workspace.on_close(lambda: _discard(workspace.end(process)))
    until = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return port, prepares
        except OSError as error:
            if time.monotonic() > until or process.poll() is not None:
                raise RuntimeError(f"PgBouncer does not listen: {(folder / 'log').read_text()[-1000:]}") from error
            time.sleep(0.02)


def cpu_s(node: NodeProcess) -> float | None:
    """What the node has used, where /proc tells (proc(5): fields 14 and 15; the name before them may hold spaces)."""
    stat = Path(f"/proc/{node.pid}/stat") if node.running else None
    if stat is None or not stat.exists():
        return None
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def telling(node: NodeProcess, view: str) -> dict[str, int]:
    """The columns of SHOW POOLS or SHOW STATS that tell of lanes, summed."""
    if not node.running:
        return {}
    found: Counter[str] = Counter()
    for row in node.ask(f"SHOW {view}"):
        for name, value in row.items():
            if value is not None and value.isdigit() and any(part in name for part in TELLING):
                found[name] += int(value)
    return dict(found)


def _discard(_: object) -> None:
    """Closers answer nothing."""
