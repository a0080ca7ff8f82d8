"""What was said on the command line and in PGMURMUR_ variables: a node's own settings, no part of any rollout.

`None` (or an empty tuple) means nothing was said: the files or the default decide. Each command has its own frozen
value. Nothing here reads the environment or the clock, and nothing slow is imported: `pgmurmur --help` waits for this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

DEFAULT_FLOCK = "default"
GOSSIP_PORT_OFFSET = 10_000  # gossip is at the client port + this; without room above, below it


@dataclass(frozen=True, slots=True)
class Files:
    """Which files; None = the usual names (pgmurmur.toml, then pgdog.toml; users.toml)."""

    config: str | None = None
    users: str | None = None


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """`pgmurmur [run]`."""

    files: Files = Files()
    host: str | None = None
    port: int | None = None
    node_id: str | None = None
    state_dir: str | None = None
    gossip: str | None = None
    seeds: tuple[str, ...] = ()
    flock: str | None = None
    key_file: str | None = None
    register: str | None = None
    mdns: bool | None = None
    http: str | None = None
    workers: int = 1
    log_level: str | None = None
    log_format: str | None = None
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class HashOptions:
    """`pgmurmur hash`."""

    data_type: str
    shards: int
    values: tuple[str, ...]
    hasher: str = "postgres"


@dataclass(frozen=True, slots=True)
class RouteOptions:
    """`pgmurmur route`; `source` "-" is standard input."""

    files: Files
    database: str
    source: str = "-"


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """`pgmurmur rollout`; the password comes from PGPASSWORD or the users file."""

    files: Files
    host: str = "127.0.0.1"
    port: int = 6432
    user: str | None = None
    dry_run: bool = False
    watch: bool = False
    json: bool = False
    timeout_s: float = 60.0


def split_address(text: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port`. Raises `ValueError` with what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f'"{text}" is not host:port')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{text}" needs brackets around its address: [{host}]:{port}')
    if not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f'"{port}" is not a port')
    return host, int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def gossip_address(options: NodeOptions, host: str, port: int, configured: str | None) -> tuple[str, int]:
    """Where gossip and control listen: option, then [discovery], then the client's host and port + 10000."""
    text = options.gossip or configured
    if text is not None:
        return split_address(text)
    above = port + GOSSIP_PORT_OFFSET
    return host, above if port and above <= 65_535 else 0 if not port else port - GOSSIP_PORT_OFFSET


def following(port: int, shift: int) -> int:
    """Ports of the second worker and those after it: the next ones. 0, a free one, stays. Raises ValueError."""
    if port and port + shift > 65_535:
        raise ValueError(f"there are not so many ports after {port}: worker {shift + 1} would need {port + shift}")
    return port + shift if port else 0


def of_worker(options: NodeOptions, name: str, number: int, port: int) -> NodeOptions:
    """What worker `number` (from 1) of node `name` is told: a name and folder of its own, and the port of them all."""
    return replace(
        options,
        port=port,
        node_id=f"{name}-{number}",
        state_dir=None if options.state_dir is None else str(Path(options.state_dir) / str(number)),
    )


def idle_folders(options: NodeOptions, name: str, environ: Mapping[str, str], *, root: bool) -> list[Path]:
    """State of nodes that this number of workers does not start: what one of them left prepared on a server when it was
    killed, only a node with its folder finishes."""
    alone = state_directory(replace(options, node_id=name), name, environ, root=root)
    numbered = alone.glob("[0-9]*") if options.state_dir is not None else alone.parent.glob(f"{name}-[0-9]*")
    found = {} if options.workers == 1 else {0: alone}
    for folder in numbered:
        number = folder.name if options.state_dir is not None else folder.name.removeprefix(f"{name}-")
        if number.isdecimal() and int(number) > (options.workers if options.workers > 1 else 0):
            found[int(number)] = folder
    return [found[number] for number in sorted(found) if (found[number] / "decisions").exists()]


def node_name(options: NodeOptions, hostname: str, port: int) -> str:
    """`--node-id`, or host name and port: db1-6432. Only the first label: a node keeps its name in another domain."""
    return options.node_id or f"{hostname.partition('.')[0] or 'node'}-{port}"


def state_home(environ: Mapping[str, str], *, root: bool) -> Path:
    """The folder in which nodes of this user keep their state, and the default file register."""
    if root:
        return Path("/var/lib/pgmurmur")
    base = environ.get("XDG_STATE_HOME") or str(Path(environ.get("HOME") or ".") / ".local" / "state")
    return Path(base) / "pgmurmur"


def state_directory(options: NodeOptions, node: str, environ: Mapping[str, str], *, root: bool) -> Path:
    """This node's own folder: votes, journal, saved peers. Two nodes must not share one, so it ends in the name."""
    if options.state_dir is not None:
        return Path(options.state_dir)
    return state_home(environ, root=root) / node


def register_url(
    options: NodeOptions, configured: str | None, flock: str, environ: Mapping[str, str], *, root: bool
) -> str:
    """Option, then [sync], then a folder that nodes of this flock and this user share on this host."""
    shared = state_home(environ, root=root) / "registers" / flock
    return options.register or configured or f"file:{shared}"
