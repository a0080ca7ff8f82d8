"""Reads the imports of every source file and compares them with the picture of the house (design, "Arrows").

A file thinks (sans-IO) unless it is listed in SHELLS: whoever writes a new shell says so here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREES = ("node", "discovery", "sync")

NEVER_IN_A_CORE = {"asyncio", "socket", "ssl", "time", "os", "random"} | {
    *("selectors", "signal", "subprocess", "threading", "secrets"),
    *("aiohttp", "uvloop", "zeroconf"),
}

SHELLS = {
    "node.__main__",
    "node.cli",
    "node.app",
    "node.cancels",
    "node.databases",
    "node.face",
    "node.farewell",
    "node.flock",
    "node.janitor",
    "node.layout",
    "node.catalogs",
    "node.reception",
    "node.resolver",
    "node.log",
    "node.tcp",
    "node.tls",
    "node.worker",
    "node.workers",
    "node.client.copying",
    "node.client.enlist",
    "node.client.listener",
    "node.client.protocol",
    "node.client.login",
    "node.client.ride",
    "node.client.slow",
    "node.server.protocol",
    "node.server.connect",
    "node.server.cancel",
    "node.server.conversation",
    "node.server.simple",
    "node.pool.checkout",
    "node.pool.drain",
    "node.pool.pool",
    "node.gather.exchange",
    "node.gather.two_phase",
    "node.config.files",
    "node.admin.cluster",
    "node.admin.console",
    "node.admin.consoles",
    "node.http.*",
    "node.loop.*",
    "node.embedded.*",
    "node.embedded.bench.*",
    "node.embedded.identity.client",
    "node.embedded.identity.command",
    "node.embedded.identity.run",
    "node.embedded.identity.targets",
    "node.embedded.identity.units",
    "node.embedded.identity.weather",
    "node.embedded.identity.world",
    "discovery.control",
    "discovery.mdns",
    "discovery.seeds",
    "discovery.service",
    "discovery.sockets",
    "sync.cell_client",
    "sync.control",
    "sync.files",
    "sync.identity",
    "sync.journal",
    "sync.library",
    "sync.store",
    "sync.service",
    "sync.registers.*",
}

CHAIN = ("client", "pool", "server", "auth", "wire", "errors")
"""Each may import those on its right."""

ABOVE_ALL = {
    "app",
    "cancels",
    "databases",
    "face",
    "farewell",
    "flock",
    "janitor",
    "catalogs",
    "layout",
    "reception",
    "resolver",
    "worker",
    "workers",
    "cli",
    "__main__",
}
"""The composition root with the files it is made of, and the command that starts it. Nobody below imports them."""

MAY_IMPORT = {
    **{name: set(CHAIN[place + 1 :]) for place, name in enumerate(CHAIN)},
    "gather": {"pool", "server", "auth", "wire", "routing", "errors"},
    "routing": {"errors"},
    "config": {"errors"},
    "snapshot": {"config", "routing", "errors"},
    "gate": {"errors"},
    "stats": {"errors"},
    "http": {"stats", "errors"},
    # The bench logs in as a client does, times the lexer, and tells compiled modules from others.
    "embedded": {"auth", "wire", "routing", "strip", "errors"},
    "log": set(),
    "options": {"errors"},
    # The list of compiled modules; setup.py runs the file before anything is installed.
    "strip": set(),
    "tcp": set(),
    # The event loop and its transports: they carry bytes and know nobody, but for whether they are compiled.
    "loop": {"strip"},
    "tls": {"wire", "errors"},
    # One logical database as a session sees it: where its gate, its map and its pools meet.
    "database": {"gate", "pool", "routing", "errors"},
}
# A client session plans by the map of its moment, asks the gate, and hands several shards' answers to gather.
MAY_IMPORT["client"] |= {"database", "routing", "gather", "snapshot", "gate", "stats", "tcp", "tls", "loop"}
MAY_IMPORT["server"] |= {"tcp", "tls", "stats", "loop"}
# Pools count; they know neither clients nor plans.
MAY_IMPORT["pool"] |= {"stats"}
MAY_IMPORT["admin"] = set(MAY_IMPORT) - {"config", "routing", "embedded", "http"}
"""The console looks at everything that runs; configuration reaches it through the snapshot only."""

NAMED_BUT_NOT_IMPORTED = {
    ("server", "pool"): "a connection belongs to a pool, and says so in its annotations",
    ("database", "client"): "a database keeps what its clients' statements taught it",
}
"""Arrows that exist under TYPE_CHECKING only, against the direction of the picture, each with its reason."""

COMPUTES_IMPORTS = {"node.strip"}
"""It asks each module of the compiled strip which build it is."""

PURE = {"wire", "auth", "routing", "gather", "config", "discovery", "sync"}
"""Here a core may not even import a shell. (In the fast gear cores hold their transport and their pool as objects.)"""


@dataclass(frozen=True)
class Import:
    module: str
    """Dotted and absolute, as far as it can be told: `from node.wire import codes` is node.wire.codes."""
    line: int
    for_types_only: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files() -> dict[str, Path]:
    return {module_name(path): path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py"))}


def imports_of(source: str, name: str, *, is_package: bool = False) -> Iterator[Import]:
    tree = ast.parse(source)
    for_types = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.If) and "TYPE_CHECKING" in ast.unparse(outer.test)
        for statement in outer.body
        for inner in ast.walk(statement)
    }
    package = name.split(".") if is_package else name.split(".")[:-1]
    for found in ast.walk(tree):
        match found:
            case ast.Import(names=names):
                for alias in names:
                    yield Import(alias.name, found.lineno, id(found) in for_types)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                prefix = ".".join([*base, *([module] if module else [])])
                for alias in names:
                    yield Import(f"{prefix}.{alias.name}", found.lineno, id(found) in for_types)
            case ast.Call(func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module")):
                yield Import("<computed>", found.lineno, False)


def is_shell(module: str) -> bool:
    if module.endswith("_command"):  # a subcommand reads files and prints
        return True
    return module in SHELLS or f"{module.rpartition('.')[0]}.*" in SHELLS or f"{module}.*" in SHELLS


def room(module: str) -> str:
    """node.wire.codes → wire, node.gate.Gate → gate."""
    return module.split(".")[1] if module.count(".") else ""


def own_module(imported: str, known: set[str]) -> str | None:
    """The file behind `imported`, which may name something inside it; None for other people's modules."""
    while imported:
        if imported in known:
            return imported
        imported = imported.rpartition(".")[0]
    return None


def follows_an_arrow(mine: str, other: str, *, for_types_only: bool) -> bool:
    if not mine or not other or mine == other or is_above_all(mine):
        return True
    if for_types_only and (mine, other) in NAMED_BUT_NOT_IMPORTED:
        return True
    return other in MAY_IMPORT.get(mine, set())


def is_above_all(name: str) -> bool:
    """Subcommands belong to the command."""
    return name in ABOVE_ALL or name.endswith("_command")


def complaints(name: str, imports: list[Import], known: set[str]) -> Iterator[str]:
    tree = name.split(".")[0]
    rooms: set[str] = set()
    for found in imports:
        where = f"{name}:{found.line} imports {found.module}"
        top = found.module.split(".")[0]
        if found.module == "<computed>" and name not in COMPUTES_IMPORTS:
            yield f"{where}, which nobody can check"
        if not is_shell(name) and not found.for_types_only:
            if top in NEVER_IN_A_CORE:
                yield f"{where}, which no sans-IO file may"
            behind = own_module(found.module, known)
            if behind is not None and is_shell(behind) and {tree, room(name)} & PURE:
                yield f"{where}, a shell: the core would do I/O through it"
        if tree == "discovery" and top in ("node", "sync"):
            yield f"{where}: discovery knows only itself"
        if tree == "sync" and top == "node":
            yield f"{where}: sync never imports node"
        if tree == "sync" and top == "discovery" and not found.module.startswith("discovery.member"):
            yield f"{where}: sync takes values of discovery.member only"
        if top == "node" and tree == "node":
            mine, other = room(name), room(found.module)
            rooms.add(other)
            if is_above_all(other) and not is_above_all(mine):
                yield f"{where}: nobody imports {other}"
            elif not follows_an_arrow(mine, other, for_types_only=found.for_types_only):
                yield f"{where}: there is no arrow from {mine} to {other}"
        if tree == "node" and top in ("discovery", "sync") and not is_above_all(room(name)) and room(name) != "admin":
            yield f"{where}: only app joins node with discovery and sync"
    if {"config", "routing"} <= rooms and not is_above_all(room(name)) and room(name) != "snapshot":
        yield f"{name} knows both config and routing; only snapshot does"


def test_every_import_follows_an_arrow() -> None:
    sources = files()
    known = set(sources)
    found = [
        complaint
        for name, path in sources.items()
        for complaint in complaints(
            name, list(imports_of(path.read_text(), name, is_package=path.name == "__init__.py")), known
        )
    ]
    assert found == []


def test_every_room_of_node_has_its_arrows() -> None:
    rooms = {room(name) for name in files() if name.startswith("node.")}
    assert [name for name in sorted(rooms - set(MAY_IMPORT)) if not is_above_all(name)] == []


def test_every_listed_shell_is_there_and_needs_its_listing() -> None:
    """A shell that became a core is one: it loses its entry here, and can be tested like one."""
    sources = files()
    known = set(sources)

    def touches_the_world(module: str) -> bool:
        imports = imports_of(sources[module].read_text(), module, is_package=sources[module].name == "__init__.py")
        return any(
            not found.for_types_only
            and (found.module.split(".")[0] in NEVER_IN_A_CORE or is_shell(own_module(found.module, known) or ""))
            for found in imports
        )

    idle = {entry for entry in SHELLS if not entry.endswith(".*") and not touches_the_world(entry)}
    assert idle == set()
    folders = {entry for entry in SHELLS if entry.endswith(".*")}
    assert {entry for entry in folders if not any(name.startswith(entry[:-1]) for name in sources)} == set()


def test_the_checker_catches_what_it_is_for() -> None:
    known = {"node.wire.codes", "node.pool.core", "node.app", "discovery.swim", "discovery.member", "discovery.service"}

    def caught(name: str, source: str) -> list[str]:
        return list(complaints(name, list(imports_of(source, name)), known))

    assert caught("node.wire.pipeline", "import asyncio")
    assert caught("node.wire.pipeline", "def f():\n    from time import monotonic")
    assert caught("node.wire.pipeline", "from node.pool import core")
    assert caught("discovery.swim", "from discovery.service import Service")
    assert caught("discovery.swim", "from .service import Service")
    assert caught("node.client.session", "import node.app")
    assert caught("node.client.protocol", "import discovery.swim")
    assert caught("node.admin.views", "from node.config import schema")
    assert caught("sync.service", "from node.errors import Fault")
    assert caught("sync.service", "from discovery.swim import Swim")
    assert caught("discovery.service", "import sync")
    assert caught("node.wire.codes", "from importlib import import_module\nimport_module('as' + 'yncio')")
    assert not caught("node.client.session", "from node.pool import core\nfrom node.wire import codes")
    assert not caught("sync.coordinator", "from discovery.member import Member")
    assert not caught(
        "discovery.swim", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from random import Random"
    )
