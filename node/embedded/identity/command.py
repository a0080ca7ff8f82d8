"""scripts/bench identity: thousands of clients that each know every byte they must receive."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import uvloop

from node.embedded.binaries import NoPostgres
from node.embedded.cluster import own_workspace
from node.embedded.identity.run import Run
from node.embedded.identity.targets import cpu_s, start_node, start_pgbouncer, telling
from node.embedded.identity.weather import FAULTS, NEEDS_CONSOLE
from node.embedded.identity.world import DATABASE, PASSWORD, USER, World, create, learn, oids, rows
from node.embedded.screen import Screen
from node.embedded.server import Server, SqlError
from node.embedded.stopping import Stopped
from node.embedded.workspace import Workspace

DIRECT_CLIENTS_LIMIT = 150
"""PostgreSQL's max_connections here is 200."""
QUIET_TIMEOUT_S = 60
LEDGER_SHOWN = 20


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench identity", description=__doc__)
    parser.add_argument("--replies", type=int, default=10_000_000, metavar="N", help="replies to check (10,000,000)")
    parser.add_argument("--clients", type=int, default=2000, metavar="N", help="connections (2,000)")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="of all dice (random)")
    parser.add_argument("--faults", default="all", metavar="LIST", help=f"all, none, or some of {','.join(FAULTS)}")
    parser.add_argument("--lanes", default=None, metavar="auto|off|N", help="[general] lanes of the node")
    parser.add_argument("--pool-size", type=int, default=20, metavar="N", help="server connections (20)")
    parser.add_argument("--sharded", action="store_true", help="two shards")
    parser.add_argument("--strict-reads", action="store_true", help="no fast read may see that a server died")
    parser.add_argument(
        "--through", choices=("node", "pgbouncer", "direct"), default="node", help="what the clients connect to (node)"
    )
    parser.add_argument("--huge-mb", type=int, default=100, metavar="N", help="the size of a huge row (100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there too")
    given = parser.parse_args(arguments)
    known = set(FAULTS)
    chosen = known if given.faults == "all" else set(filter(None, given.faults.replace("none", "").split(",")))
    if not chosen <= known:
        parser.error(f"there is no fault {', '.join(sorted(chosen - known))}; there are {', '.join(FAULTS)}")
    if given.through != "node":
        chosen -= NEEDS_CONSOLE
        if given.sharded:
            parser.error("only the node knows shards")
    if given.through == "direct":
        given.clients = min(given.clients, DIRECT_CLIENTS_LIMIT)
    given.faults = sorted(chosen)
    if given.seed is None:
        given.seed = random.SystemRandom().randrange(10**9)
    return given


def set_up(workspace: Workspace, given: argparse.Namespace, screen: Screen) -> Run:
    servers = [Server(workspace, f"server_{number}").start() for number in range(2 if given.sharded else 1)]
    create(servers, sharded=given.sharded)
    node, prepares = None, True
    if given.through == "node":
        node = start_node(workspace, servers, given)
        address = (node.host, node.port)
    else:
        address = ("127.0.0.1", servers[0].port)
        if given.through == "pgbouncer":
            port, prepares = start_pgbouncer(workspace, servers[0], given)
            address = ("127.0.0.1", port)
    statements = rows(given.clients)
    if node is not None and given.sharded:
        with node.connect(DATABASE, USER, PASSWORD) as connection:
            for statement in statements:
                connection.execute(statement.encode())
    else:
        servers[0].sql("; ".join(statements), DATABASE)
    for server in servers:
        server.sql("VACUUM ANALYZE", DATABASE)
    world = World(
        given.seed,
        given.clients,
        learn(servers[0]),
        oids(servers),
        given.sharded,
        settings=given.through != "pgbouncer",
        prepares=prepares,
        huge_bytes=given.huge_mb << 20,
    )
    return Run(
        world,
        address,
        servers,
        replies=given.replies,
        faults=frozenset(given.faults),
        strict_reads=given.strict_reads,
        node=node,
        say=lambda text: screen.say(f"   {text}"),
    )


def wait_until_quiet(servers: Sequence[Server]) -> None:
    """Statements of connections that were given up may still run, and write."""
    until = time.monotonic() + QUIET_TIMEOUT_S
    busy = f"SELECT count(*) FROM pg_stat_activity WHERE usename = '{USER}' AND state <> 'idle'"
    while any(server.sql(busy) != [("0",)] for server in servers):
        if time.monotonic() > until:
            raise RuntimeError(f"servers are still busy after {QUIET_TIMEOUT_S} s")
        time.sleep(0.1)


def perform(run: Run) -> list[str]:
    """Runs it, and afterwards what the ledger proves: its wrongs."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run.perform())
    wait_until_quiet(run.servers)
    return run.judge_ledger()


def summary(run: Run, given: argparse.Namespace, wrongs: Sequence[str]) -> dict[str, object]:
    protocols, kinds = Counter[str](), Counter[str]()
    for (protocol, kind), count in run.tally.items():
        protocols[protocol] += count
        kinds[kind] += count
    return {
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(given).items()},
        "replies": run.replies,
        "seconds": round(run.seconds, 1),
        "CPU s": {"clients": round(time.process_time(), 1), "node": None if run.node is None else cpu_s(run.node)},
        "by protocol": dict(protocols),
        "by kind": dict(kinds.most_common()),
        "faults": dict(run.happened),
        "explained errors": dict(run.errors),
        "foreign bytes": sum(failure.foreign_bytes for failure in run.failures),
        "failures": [asdict(failure) for failure in run.failures],
        "rows written": sum(client.author.written for client in run.clients),
        "rows uncertain": sum(len(client.uncertain) for client in run.clients),
        "wrong rows": list(wrongs),
        "herds": run.herds,
        "node": {} if run.node is None else {name: telling(run.node, name) for name in ("POOLS", "STATS")},
        "notes": run.notes,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    given = parse(arguments)
    screen = Screen(sys.stdout)
    screen.say(
        f"{given.clients} clients through {given.through}, {given.replies:,} replies, seed {given.seed}, "
        f"faults: {', '.join(given.faults) or 'none'}"
    )
    try:
        with own_workspace("pgmurmur-identity-") as workspace:
            run = set_up(workspace, given, screen)
            wrongs = perform(run)
            said = summary(run, given, wrongs)
            died = run.node is not None and not run.node.running
            log = run.node.log_text() if run.node is not None else ""
    except Stopped:
        return 130
    except (NoPostgres, RuntimeError, SqlError, subprocess.SubprocessError) as error:
        print(f"pgmurmur: {error}", file=sys.stderr)
        return 1
    for name, value in said.items():
        if name not in ("settings", "failures", "wrong rows") and value not in ({}, []):
            listed = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
            screen.say(f"   {name}: {listed}")
    rate = run.replies / max(run.seconds, 0.001)
    screen.say(f"   {rate:,.0f} replies per second")
    screen.check(not run.failures, f"{run.replies:,} replies, of which every byte is the client's own")
    screen.check(not wrongs, "every acknowledged row was written once, no row twice")
    for wrong in wrongs[:LEDGER_SHOWN]:
        screen.say(f"     {wrong}")
    screen.check(not died, "the node runs")
    screen.check("Traceback" not in log, "the node logged no traceback")
    if "Traceback" in log:
        screen.say(log[log.index("Traceback") : log.index("Traceback") + 3000])
    if screen.wrongs:
        screen.say(f"   again: scripts/bench identity {' '.join(again(given))}", "yellow")
    if given.json is not None:
        given.json.write_text(json.dumps(said, indent=2))
    return 1 if screen.wrongs else 0


def again(given: argparse.Namespace) -> list[str]:
    """The options of the same dice; what happens at which moment is up to the machine."""
    options = [f"--seed={given.seed}", f"--replies={given.replies}", f"--clients={given.clients}"]
    options += [f"--faults={','.join(given.faults) or 'none'}", f"--through={given.through}"]
    options += [f"--pool-size={given.pool_size}", f"--huge-mb={given.huge_mb}"]
    options += [f"--lanes={given.lanes}"] if given.lanes is not None else []
    return options + ["--sharded"] * given.sharded + ["--strict-reads"] * given.strict_reads
