"""scripts/demo: two PostgreSQL shards, three nodes that find each other, and a shard map that changes under load."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import secrets
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from node.embedded import load
from node.embedded.binaries import find_program
from node.embedded.cluster import GOSSIP_ABOVE_CLIENT, HTTP_ABOVE_CLIENT, Flock, own_workspace
from node.embedded.nodes import NodeProcess
from node.embedded.screen import Screen
from node.embedded.server import Server
from node.embedded.stopping import Stopped
from node.embedded.workspace import PORTS, Workspace

NODES = 3
USER, PASSWORD = "murmur", "starling"
SHOP, BIRDS = "shop", "birds"
"""Two databases over the same two servers: `orders` stays hashed over two shards when `birds` gets a third."""

MOVED = "south"
REGIONS = ("north", "east", "south", "west")
LOAD_BEFORE_S = LOAD_AFTER_S = 2.0
ROLLOUT_TIMEOUT_S = 90
START_ATTEMPTS = 3

USERS = "\n".join(
    [
        '[admin]\nname = "admin"\nuser = "admin"\npassword = "pgdog"\n',
        *(f'[[users]]\nname = "{USER}"\npassword = "{PASSWORD}"\ndatabase = "{name}"\n' for name in (SHOP, BIRDS)),
    ]
)

# Every word of orders is here so that a reader can compare the tables with it.
CUSTOMERS = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Leslie", "Tony")


def config(shards: Sequence[tuple[Server, str]], mapping: str) -> str:
    """`shards` of birds, in order; shop has its own database on each of the two servers."""
    servers = list(dict.fromkeys(server for server, _ in shards))
    entries = [*((SHOP, server, SHOP, n) for n, server in enumerate(servers))]
    entries += [(BIRDS, server, name, n) for n, (server, name) in enumerate(shards)]
    text = '[general]\nhost = "127.0.0.1"\nport = 6432\ndefault_pool_size = 10\n'
    for name, server, database, number in entries:
        text += (
            f'\n[[databases]]\nname = "{name}"\nhost = "{server.host}"\nport = {server.port}\n'
            f'database_name = "{database}"\nshard = {number}\n'
        )
    text += f'\n[[sharded_tables]]\ndatabase = "{SHOP}"\nname = "orders"\ncolumn = "id"\ndata_type = "bigint"\n'
    text += (
        f'\n[[sharded_tables]]\ndatabase = "{BIRDS}"\nname = "sightings"\ncolumn = "region"\ndata_type = "varchar"\n'
        f"mapping = [{mapping}]\n"
    )
    return text


class Tour:
    """The steps in order; each says what it does and checks what it promises."""

    def __init__(self, workspace: Workspace, screen: Screen, rollout_command: Sequence[str]) -> None:
        self.workspace = workspace
        self.screen = screen
        self.rollout_command = list(rollout_command)
        self.folder = workspace.folder("demo")
        self.old_map = self.folder / "pgdog.toml"
        self.new_map = self.folder / "new.toml"
        self.users = self.folder / "users.toml"

    def run(self) -> None:
        self.start_shards()
        self.start_nodes()
        self.orders()
        self.change_the_map()

    # -- servers and nodes -----------------------------------------------------------------------------------------

    def start_shards(self) -> None:
        self.screen.step("Two PostgreSQL servers, and the files that describe them")
        with self.screen.waiting("initdb and two servers on this machine"):
            self.servers = [Server(self.workspace, f"shard_{number}").start() for number in range(2)]
            for server in self.servers:
                server.create_role(USER, PASSWORD)
                server.create_database(SHOP, USER)
                server.create_database(BIRDS, USER)
        first, second = self.servers
        self.old_shards = [(first, BIRDS), (second, BIRDS)]
        self.new_shards = [*self.old_shards, (second, f"{BIRDS}_{MOVED}")]
        self.old_map.write_text(config(self.old_shards, '{values = ["north"], shard = 0}, {shard = 1}'))
        self.users.write_text(USERS)
        self.screen.table(
            [
                (server.name, f"{server.host}:{server.port}", f"PostgreSQL {server.binaries.version}")
                for server in self.servers
            ]
        )
        self.screen.say(f"   {self.old_map} and users.toml beside it", "dim")

    def start_nodes(self) -> None:
        self.screen.step("Three nodes that know nothing of each other, and find each other by mDNS")
        flock = self.start_flock()
        self.nodes = flock.nodes
        started = time.monotonic()
        with self.screen.waiting("each hears of the others"):
            flock.wait_all_alive()
        self.screen.say(f"   it took {time.monotonic() - started:.1f} s after the last was ready", "dim")
        self.screen.command(f'psql "{self.admin_url(self.nodes[0])}" -c "SHOW PEERS"')
        peers = self.nodes[0].ask("SHOW PEERS")
        self.screen.table(peers)
        alive = [peer["node"] for peer in peers if peer["state"] == "alive"]
        self.screen.check(len(alive) == NODES, f"every node lists all {NODES} as alive")

    def start_flock(self) -> Flock:
        name = f"demo-{secrets.token_hex(4)}"  # another demo in the same network is another flock
        for attempt in itertools.count(1):
            flock = Flock(
                self.workspace,
                NODES,
                config=self.old_map,
                users=self.users,
                folder=self.folder / f"flock-{attempt}",
                base_port=free_base(),
                flock=name,
                seeds=False,
            )
            try:
                with self.screen.waiting("three processes start, read the register and open their ports"):
                    return flock.start()
            except RuntimeError as error:
                # somebody else took a port between our look and the nodes' own
                if "in use" not in str(error) or attempt == START_ATTEMPTS:
                    raise
                flock.stop()
        raise AssertionError("unreachable")

    # -- orders ----------------------------------------------------------------------------------------------------

    def orders(self) -> None:
        screen = self.screen
        screen.step("A table over both shards, written through all three nodes in turn")
        self.execute(0, "CREATE TABLE orders (id bigint PRIMARY KEY, customer text NOT NULL, amount numeric NOT NULL)")
        for number, customer in enumerate(CUSTOMERS):
            values = (number + 1, customer, 10 * (number + 1))
            insert = "INSERT INTO orders (id, customer, amount) VALUES "
            self.execute(number % NODES, insert + "(%s, %s, %s)", values, show=f"{insert}{values}")
        self.execute(
            1,
            "INSERT INTO orders (id, customer, amount) VALUES (8, 'Ken', 80), (9, 'Dennis', 90), (10, 'Brian', 100), "
            "(11, 'Rob', 110), (12, 'Niklaus', 120)",
        )
        self.execute(
            2, "INSERT INTO orders (id, customer, amount) SELECT i, 'many', i FROM generate_series(13, 100) AS i"
        )
        screen.say()
        by_shard = [
            [int(row[0]) for row in server.sql("SELECT id FROM orders ORDER BY id", SHOP)] for server in self.servers
        ]
        for server, ids in zip(self.servers, by_shard, strict=True):
            shown = " ".join(map(str, ids[:20])) + (" …" if len(ids) > 20 else "")
            screen.say(f"   {server.name} itself: {len(ids)} rows, ids {shown}")
        wanted = list(range(1, 101))
        screen.check(sorted(by_shard[0] + by_shard[1]) == wanted, "every order is on exactly one shard")
        screen.check(all(by_shard), "both shards have some")
        ask = "SELECT id, customer, amount FROM orders ORDER BY amount DESC, id LIMIT 3"
        screen.command(ask)
        found = [self.fetch(number, ask) for number in range(NODES)]
        screen.table([(*map(str, row),) for row in found[0]], ("id", "customer", "amount"))
        screen.check(
            all([row[0] for row in answer] == [12, 11, 10] for answer in found),
            "through each node: one sorted answer over both shards",
        )
        ask = "SELECT count(*), sum(amount), avg(amount), min(id), max(id) FROM orders"
        screen.command(ask)
        total = self.fetch(0, ask)
        screen.table([(*map(str, row),) for row in total], ("count", "sum", "avg", "min", "max"))
        want = (100, sum(range(13, 101)) + sum(range(10, 121, 10)))
        screen.check(total[0][:2] == want, f"count and sum are those of one PostgreSQL: {want[0]} and {want[1]}")

    # -- the rollout -----------------------------------------------------------------------------------------------

    def change_the_map(self) -> None:
        screen = self.screen
        screen.step(f"A new map under load: region {MOVED!r} of `sightings` gets a shard of its own")
        new_server, new_database = self.new_shards[-1]
        new_server.create_database(new_database, USER)
        self.execute(0, load.TABLE, database=BIRDS)
        new_server.sql(load.TABLE, new_database, user=USER, password=PASSWORD)  # the old map does not know it yet
        self.new_map.write_text(
            config(
                self.new_shards,
                f'{{values = ["north"], shard = 0}}, {{values = ["{MOVED}"], shard = 2}}, {{shard = 1}}',
            )
        )
        screen.say(
            f"   old map: north → shard 0, default → shard 1      new map: {MOVED} → shard 2, the rest as before"
        )
        writers = [
            load.Writer(node.name, number, node.conninfo(BIRDS, USER, PASSWORD), REGIONS)
            for number, node in enumerate([node for node in self.nodes for _ in range(2)])
        ]
        for writer in writers:
            writer.start()
        with screen.waiting(f"{len(writers)} clients write through the three nodes, every other one in transactions"):
            time.sleep(LOAD_BEFORE_S)
        for writer in writers:
            writer.slowest_ms = 0  # from here on: the first statements of a client pay for connections and catalogs
        report = self.roll_out()
        with screen.waiting("they go on writing by the new map"):
            time.sleep(LOAD_AFTER_S)
        for writer in writers:
            writer.stop()
        if self.judge_rollout(report):
            self.judge_load(writers)

    def roll_out(self) -> dict[str, Any]:
        node = self.nodes[-1]
        options = ["--config", str(self.new_map), "--users", str(self.users), "--port", str(node.port)]
        self.screen.command(f"scripts/rollout {' '.join(options)}")
        done = self.workspace.run(
            [*self.rollout_command, *options, "--host", node.host, "--json"], timeout_s=ROLLOUT_TIMEOUT_S
        )
        try:
            report: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            report = {"outcome": "unknown", "reason": f"status {done.returncode}: {done.stderr.strip()}", "nodes": []}
        report["status"] = done.returncode
        return report

    def judge_rollout(self, report: dict[str, Any]) -> bool:
        committed = self.screen.check(
            report["outcome"] == "committed" and report["status"] == 0,
            f"the rollout says: {report['outcome']}" + (f" ({report['reason']})" if report.get("reason") else ""),
        )
        if not committed:
            return False
        self.screen.table(
            [(n["node"], n["version"], f"{n['paused_ms']:.1f}", f"{n['drained_ms']:.1f}") for n in report["nodes"]],
            ("node", "version", "paused ms", "drained ms"),
        )
        versions = {peer["node"]: (peer["version"], peer["digest"]) for peer in self.nodes[0].ask("SHOW PEERS")}
        return self.screen.check(
            len(versions) == NODES and len(set(versions.values())) == 1 and report["version"] is not None,
            f"all {NODES} nodes apply version {report['version']}",
        )

    def judge_load(self, writers: list[load.Writer]) -> None:
        screen = self.screen
        errors = [error for writer in writers for error in writer.errors]
        slowest = max(writer.slowest_ms for writer in writers)
        acknowledged = sum(writer.acknowledged for writer in writers)
        screen.check(not errors, f"no client saw an error; the slowest statement of that time took {slowest:.0f} ms")
        for error in errors[:5]:
            screen.say(f"     {error}", "red")
        on_shards = load.rows(self.new_shards)
        screen.check(
            sum(on_shards) == acknowledged,
            f"{acknowledged} rows were acknowledged and {' + '.join(map(str, on_shards))} are on the three shards",
        )
        screen.check(load.split_pairs(self.new_shards, writers) == 0, "no transaction was split between two maps")
        found = load.sides(self.new_shards[1], self.new_shards[2], MOVED, [node.name for node in self.nodes])
        screen.say(f"   rows of region {MOVED!r} by the clocks of the shards that stored them:")
        screen.table(
            [(side.node, side.by_old, _clock(side.last_old), _clock(side.first_new), side.by_new) for side in found],
            ("node", "by old map", "last by old map", "first by new map", "by new map"),
        )
        last = [side.last_old for side in found if side.last_old is not None]
        first = [side.first_new for side in found if side.first_new is not None]
        both = screen.check(len(last) == len(first) == NODES, "every node wrote by the old map and by the new one")
        if both:
            gap = (min(first) - max(last)).total_seconds() * 1000
            screen.check(
                gap > 0, f"no node wrote by the old map once any wrote by the new one: {gap:.1f} ms lie between them"
            )
        screen.say()
        screen.say(
            f"   A map moves no rows: those of {MOVED!r} from before still lie on shard 1, where nobody looks now."
        )
        load.move(self.new_shards[1], self.new_shards[2], MOVED)
        ask = f"SELECT count(*) FROM sightings WHERE region = '{MOVED}'"
        screen.command(ask)
        count = self.fetch(0, ask, database=BIRDS)[0][0]
        screen.check(
            count == sum(side.by_old + side.by_new for side in found),
            f"once moved by hand, shard to shard, all {count} answer through the proxy",
        )

    # -- small things ----------------------------------------------------------------------------------------------

    def execute(
        self, number: int, sql: str, values: Sequence[object] = (), *, database: str = SHOP, show: str | None = None
    ) -> None:
        node = self.nodes[number]
        self.screen.say(f"   {self.screen.paint(node.name, 'blue')}  {show or sql}")
        with node.connect(database, USER, PASSWORD) as connection:
            connection.execute(sql.encode(), values or None)

    def fetch(self, number: int, sql: str, *, database: str = SHOP) -> list[tuple[Any, ...]]:
        with self.nodes[number].connect(database, USER, PASSWORD) as connection:
            return connection.execute(sql.encode()).fetchall()

    def admin_url(self, node: NodeProcess) -> str:
        return f"postgres://admin:pgdog@{node.host}:{node.port}/admin"

    def farewell(self) -> None:
        psql = shutil.which("psql") or find_program("psql")
        node = self.nodes[0]
        self.screen.say()
        self.screen.say("Everything stays up. Try it:", "bold")
        for url in (f"postgres://{USER}:{PASSWORD}@{node.host}:{node.port}/{SHOP}", self.admin_url(node)):
            self.screen.say(f'   {psql or "psql"} "{url}"')
        self.screen.say(f"   the other nodes: {', '.join(f'{n.host}:{n.port}' for n in self.nodes[1:])}", "dim")
        self.screen.say("Ctrl-C stops and removes it all.", "bold")


def free_base() -> int:
    """6432 when a whole flock fits there, else a place in the range where nothing ephemeral lives."""
    for base in itertools.chain((6432,), PORTS[::10]):
        wanted = [base + n + above for n in range(NODES) for above in (0, GOSSIP_ABOVE_CLIENT, HTTP_ABOVE_CLIENT)]
        if all(_is_free(port) for port in wanted):
            return base
    raise RuntimeError("no free ports for three nodes")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def _clock(moment: object) -> str:
    return f"{moment:%H:%M:%S.%f}" if moment else "-"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument(
        "--exit", action="store_true", help="end after the tour; status 0 only if all was as it should be"
    )
    parser.add_argument("--rollout-command", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    rollout = [str(given.rollout_command)] if given.rollout_command else [sys.executable, "-m", "node", "rollout"]
    screen = Screen()
    try:
        with own_workspace("pgmurmur-demo-") as workspace:
            tour = Tour(workspace, screen, rollout)
            try:
                tour.run()
            except Stopped:
                raise
            except Exception as error:  # whatever went wrong is a step that did not hold, told without a traceback
                screen.check(False, f"{type(error).__name__}: {error}")
            screen.say()
            if screen.wrongs:
                screen.say(f"{len(screen.wrongs)} of the promises above did not hold", "red", "bold")
            else:
                screen.say("Every step was as it should be.", "green", "bold")
            if not given.exit and not screen.wrongs:
                tour.farewell()
                with contextlib.suppress(Stopped):
                    while True:
                        signal.pause()
            screen.say("stopping and removing what this tour started", "dim")
    except Stopped:
        screen.say()
        screen.say("stopped", "dim")
        return 130
    return 1 if screen.wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
