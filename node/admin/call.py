"""One run of a command: what its handler gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.admin.tokens import Arguments

if TYPE_CHECKING:
    from node.admin.ports import Node


@dataclass(frozen=True, slots=True)
class Call:
    node: Node
    arguments: Arguments
    words: tuple[str, ...]

    @property
    def tag(self) -> str:
        return " ".join(self.words)
