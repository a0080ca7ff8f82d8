"""What the demo and the bench show: steps, tables, marks, and a sign of life while something takes its time.

With a terminal there is colour and a spinner; without one, plain lines that read well in a log.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}


class Screen:
    """Writes to one stream; remembers what went wrong."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.lively = self.out.isatty() and os.environ.get("TERM") != "dumb"
        self.coloured = self.lively and "NO_COLOR" not in os.environ
        self.wrongs: list[str] = []
        self._steps = itertools.count(1)

    def paint(self, text: str, *styles: str) -> str:
        if not self.coloured or not styles:
            return text
        return f"\x1b[{';'.join(CODES[style] for style in styles)}m{text}\x1b[0m"

    def say(self, text: str = "", *styles: str) -> None:
        print(self.paint(text, *styles), file=self.out, flush=True)

    def step(self, title: str) -> None:
        self.say()
        self.say(f"{next(self._steps)}. {title}", "bold", "cyan")

    def command(self, text: str) -> None:
        """Something the reader could type."""
        self.say(f"   $ {text}", "dim")

    def check(self, holds: bool, text: str) -> bool:
        """A promise, kept or not; one that is not ends the tour with a status other than 0."""
        if holds:
            self.say(f"   {self.paint('✓', 'green')} {text}")
        else:
            self.wrongs.append(text)
            self.say(f"   {self.paint('✗ ' + text, 'red', 'bold')}")
        return holds

    def table(self, rows: Sequence[Mapping[str, object] | Sequence[object]], head: Sequence[str] = ()) -> None:
        """Columns side by side; of mappings the keys are the heading."""
        names = list(head)
        lines: list[list[str]] = []
        for row in rows:
            if isinstance(row, Mapping):
                names = names or [str(name) for name in row]
                lines.append(["" if row.get(name) is None else str(row[name]) for name in names])
            else:
                lines.append(["" if value is None else str(value) for value in row])
        widths = [max(map(len, column)) for column in zip(*([names] if names else []), *lines, strict=True)]
        if names:
            self.say("   " + "  ".join(name.ljust(width) for name, width in zip(names, widths, strict=True)), "bold")
        for line in lines:
            cells = [
                value.rjust(width) if _is_number(value) else value.ljust(width)
                for value, width in zip(line, widths, strict=True)
            ]
            self.say("   " + "  ".join(cells).rstrip())

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A sign of life while the block runs; its line stays as a tick."""
        with _Spinner(self, text):
            yield
        self.say(f"   {self.paint('✓', 'green')} {text}")


class _Spinner:
    def __init__(self, screen: Screen, text: str) -> None:
        self._screen = screen
        self._text = text
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True) if screen.lively else None

    def __enter__(self) -> None:
        if self._thread is None:
            self._screen.say(f"   … {self._text}")
        else:
            self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._done.set()
            self._thread.join()
            self._screen.out.write("\r\x1b[K")

    def _spin(self) -> None:
        for sign in itertools.cycle(SPINNER):
            self._screen.out.write(f"\r   {self._screen.paint(sign, 'cyan')} {self._text}")
            self._screen.out.flush()
            if self._done.wait(0.1):
                return


def _is_number(text: str) -> bool:
    return bool(text) and text.lstrip("-").replace(".", "", 1).isdigit()
