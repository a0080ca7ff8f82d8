"""Flocks of three real nodes, and `pgmurmur rollout` as operators call it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.harness import Nodes, wait_until

import node
from node.embedded.nodes import NodeProcess, all_alive

HOME = str(Path(node.__file__).resolve().parents[1])
FAST = '\n[discovery]\nprofile = "local"\n'


@dataclass(frozen=True)
class Rolled:
    """What a rollout command said."""

    status: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.out)
        return made

    @property
    def nodes(self) -> dict[str, dict[str, Any]]:
        return {one["node"]: one for one in self.report["nodes"]}


def rollout_command(node: NodeProcess, config: Path, *options: str) -> list[str]:
    place = ("--host", node.host, "--port", str(node.port), "--users", str(node.users))
    return [sys.executable, "-P", "-m", "node", "rollout", "--config", str(config), *place, *options]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PGMURMUR_", "PGDOG_", "PG"))}
    return {**kept, "PYTHONPATH": HOME}


def roll_out(node: NodeProcess, text: str, *options: str, timeout_s: float = 60) -> Rolled:
    """Gives the flock `text` as its configuration, through `node`."""
    config = node.folder / "new.toml"
    config.write_text(text)
    done = subprocess.run(
        rollout_command(node, config, *options),
        capture_output=True,
        text=True,
        env=environment(),
        cwd=node.folder,
        timeout=timeout_s,
    )
    return Rolled(done.returncode, done.stdout, done.stderr)


def start_flock(
    nodes: Nodes,
    flock: str,
    config: str,
    users: str | None = None,
    *,
    count: int = 3,
    options: Sequence[str] = (),
    names: Callable[[int], str] = lambda number: f"bird-{number}",
) -> list[NodeProcess]:
    """Nodes that share a register and know the first one; ready when each lists all as alive."""
    made = [nodes(config, users, name=names(0), flock=flock, options=("--no-mdns", *options))]
    for number in range(1, count):
        seed = ("--no-mdns", "--seed", made[0].gossip, *options)
        made.append(nodes(config, users, name=names(number), flock=flock, options=seed, wait=False))
    for one in made:
        one.wait_ready()
    wait_until(lambda: all_alive(made), "every node lists every node as alive", timeout_s=20, every_s=0.05)
    return made


def peers(node: NodeProcess) -> dict[str, dict[str, str | None]]:
    return {str(row["node"]): row for row in node.ask("SHOW PEERS")}


def states(node: NodeProcess) -> dict[str, str | None]:
    return {name: row["state"] for name, row in peers(node).items()}


def versions(nodes: Sequence[NodeProcess]) -> set[tuple[str | None, str | None]]:
    """(version, digest) as every node says of itself."""
    return {(row["version"], row["digest"]) for one in nodes for name, row in peers(one).items() if name == one.name}


def last_rollout(node: NodeProcess) -> tuple[str | None, str | None]:
    """(id, phase)."""
    row = node.ask("SHOW ROLLOUT")[0]
    return row["id"], row["phase"]
