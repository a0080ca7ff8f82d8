"""Which modules of the compiled strip run compiled in this process."""

from __future__ import annotations

from importlib import import_module

STRIP = ("node.wire.pipeline", "node.routing.hashing", "node.routing.lexer", "node.gather.merge", "node.gather.copy")


def compiled() -> dict[str, bool]:
    """Module name → compiled? (else interpreted: the same behaviour, slower)."""
    return {name: not str(import_module(name).__file__).endswith(".py") for name in STRIP}
