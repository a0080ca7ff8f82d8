"""scripts/cluster: N nodes from one pair of files, each with its own ports and folder, sharing a `file` register."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from node.embedded.nodes import NodeProcess, Place, all_alive
from node.embedded.stopping import SIGNALS, Stopped, ignore_signals, stop_on_signals
from node.embedded.workspace import Workspace

GOSSIP_ABOVE_CLIENT = 10000
HTTP_ABOVE_CLIENT = 20000
ALIVE_TIMEOUT_S = 30.0
HIGHEST_PORT = 65535


@contextmanager
def own_workspace(prefix: str = "pgmurmur-") -> Iterator[Workspace]:
    """A workspace whose owner may be stopped at any time: SIGINT and SIGTERM become Stopped, once, inside the block.

    They wait while the workspace is made and while it is tidied up: neither must be cut short.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    stop_on_signals()
    with Workspace(prefix) as workspace:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            yield workspace
        finally:
            ignore_signals()


class Flock:
    """Nodes that find each other and share one register."""

    def __init__(
        self,
        workspace: Workspace,
        count: int,
        *,
        config: Path,
        users: Path,
        folder: Path,
        base_port: int = 0,
        flock: str = "default",
        seeds: bool = True,
        options: Sequence[str] = (),
    ) -> None:
        """`base_port` 0 lets every node choose its ports (and then there is no seed to name)."""
        self.workspace = workspace
        self.nodes: list[NodeProcess] = []
        for number in range(count):
            if base_port:
                port = base_port + number
                place = Place(
                    port=port,
                    gossip=f"127.0.0.1:{port + GOSSIP_ABOVE_CLIENT}",
                    http=f"127.0.0.1:{port + HTTP_ABOVE_CLIENT}",
                )
            else:
                place = Place()
            name = f"node-{number}"
            first = self.nodes[0].place if self.nodes and base_port and seeds else None
            self.nodes.append(
                NodeProcess(
                    workspace,
                    name,
                    config,
                    users,
                    folder / name,
                    place,
                    options=[
                        *("--register", f"file:{folder / 'register'}", "--flock", flock),
                        *(() if first is None else ("--seed", first.gossip)),
                        *options,
                    ],
                )
            )
        workspace.on_close(self.stop)

    def start(self) -> Flock:
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait_ready()
        return self

    def wait_all_alive(self, timeout_s: float = ALIVE_TIMEOUT_S, progress: Callable[[], None] = lambda: None) -> None:
        """Raises RuntimeError when some node does not list all of them as alive in time."""
        until = time.monotonic() + timeout_s
        while not all_alive(self.nodes):
            for node in self.nodes:
                if not node.running:
                    raise RuntimeError(f"node {node.name} ended:\n{node.log_text()[-4000:]}")
            if time.monotonic() > until:
                raise RuntimeError(f"after {timeout_s:.0f} s the nodes have not found each other")
            progress()
            time.sleep(0.1)

    def stop(self) -> None:
        """All at once: each takes leave while the others are still there to hear it."""
        for node in self.nodes:
            if node.process is not None and node.running:
                node.process.terminate()
        for node in self.nodes:
            node.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/cluster", description=__doc__)
    parser.add_argument("count", type=int, metavar="N", help="how many nodes")
    parser.add_argument("--config", type=Path, required=True, metavar="F", help="pgdog.toml")
    parser.add_argument("--users", type=Path, required=True, metavar="F", help="users.toml")
    parser.add_argument("--base-port", type=int, default=6432, metavar="P", help="client port of the first node (6432)")
    parser.add_argument(
        "--dir", type=Path, metavar="DIR", help="keeps DIR/<node>/{log,state}; default: a temporary one"
    )
    given = parser.parse_args(arguments)
    highest = HIGHEST_PORT - HTTP_ABOVE_CLIENT - given.count
    if given.count < 1 or not 1 <= given.base_port <= highest:
        parser.error(f"N must be positive and --base-port between 1 and {highest}")
    for path in (given.config, given.users):
        if not path.is_file():
            parser.error(f"{path} is not there")
    try:
        with own_workspace() as workspace:
            return _serve(workspace, given)
    except Stopped:
        return 0


def _serve(workspace: Workspace, given: argparse.Namespace) -> int:
    folder = (given.dir or workspace.folder("cluster")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    flock = Flock(
        workspace,
        given.count,
        config=given.config.resolve(),
        users=given.users.resolve(),
        folder=folder,
        base_port=given.base_port,
        flock=os.environ.get("PGMURMUR_FLOCK", "default"),
    )
    try:
        flock.start()
        for node in flock.nodes:
            print(node.name, f"{node.host}:{node.port}", node.pid, node.gossip, node.http, sep="\t", flush=True)
        flock.wait_all_alive()
        print("ready", flush=True)
        while all(node.running for node in flock.nodes):
            time.sleep(0.5)
        ended = [node.name for node in flock.nodes if not node.running]
        print(f"pgmurmur: {', '.join(ended)} ended by itself; see {folder}", file=sys.stderr)
        # The others stay: whoever kills one node on purpose wants to see how they take it.
        while True:
            signal.pause()
    except RuntimeError as error:
        print(f"pgmurmur: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
