"""A client's socket as its session sees it, without a socket."""

from __future__ import annotations

from collections.abc import Callable


class FakeShell:
    def __init__(self, hang_up: Callable[[], None] = lambda: None, at: tuple[str, int] = ("stage", 0)) -> None:
        self._hang_up = hang_up
        self._at = at
        self.reads = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True

    def hang_up(self) -> None:
        self._hang_up()

    def address(self) -> tuple[str, int]:
        return self._at
