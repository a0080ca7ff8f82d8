"""The compiled strip: which modules are in it, and which of them run compiled in this process.

setup.py reads STRIP from here before anything is installed: nothing but the standard library may be imported.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

STRIP = (
    "node.loop.receiver",
    "node.loop.secure",
    "node.wire.requests",
    "node.wire.reply_queue",
    "node.wire.pipeline",
    "node.gate",
    "node.server.last_words",
    "node.server.connection",
    "node.stats.pool_counters",
    "node.pool.core",
    "node.pool.lending",
    "node.pool.rider",
    "node.pool.lane",
    "node.pool.lanes",
    "node.client.weight",
    "node.database",
    "node.client.services",
    "node.client.prepared",
    "node.client.statements",
    "node.client.riding",
    "node.client.linked",
    "node.client.forwarding",
    "node.client.borrowing",
    "node.client.session",
    "node.client.protocol",
    "node.server.protocol",
    "node.wire.batch",
    "node.routing.hashing",
    "node.routing.token_ends",
    "node.routing.lexed",
    "node.routing.lexer",
    "node.routing.point",
    "node.routing.cache",
    "node.client.shape",
    "node.client.routed",
    "node.gather.merge",
    "node.gather.copy",
    # What speaks to epoll, by C. Elsewhere uvloop does its work (node/loop/README.md).
    *(("node.loop.poller", "node.loop.stream", "node.loop.acceptor") if sys.platform == "linux" else ()),
)


def is_compiled(module: ModuleType) -> bool:
    return not str(module.__file__).endswith(".py")


def compiled() -> dict[str, bool]:
    """Module name → compiled? (else interpreted: the same behaviour, slower)."""
    return {name: is_compiled(import_module(name)) for name in STRIP}
