"""The identity load: no client ever receives a byte that is not its own. See README.md here."""

from node.embedded.identity.command import main

__all__ = ["main"]
