"""SIGINT and SIGTERM for a program that has processes of its own: an exception, once, and never at a bad moment."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):
    """Somebody pressed Ctrl-C or sent SIGTERM."""


class _Moment:
    """How many blocks must not be cut short now, and the signal that came meanwhile."""

    depth = 0
    pending: int | None = None


def stop_on_signals() -> None:
    """Turns SIGINT and SIGTERM into Stopped, once: what follows is the tidying up, which must not be cut short."""

    def stopped(number: int, frame: FrameType | None) -> None:
        if _Moment.depth:
            _Moment.pending = number
            return
        ignore_signals()
        raise Stopped(signal.Signals(number).name)

    _Moment.pending = None
    for name in SIGNALS:
        signal.signal(name, stopped)


def ignore_signals() -> None:
    for name in SIGNALS:
        signal.signal(name, signal.SIG_IGN)


@contextmanager
def postponed() -> Iterator[None]:
    """Stopped is raised after this block instead of inside it.

    For the short time in which a process exists that nobody has noted yet: Stopped out of Popen itself would leave it
    behind for ever. Blocking the signals would not do, a child inherits that.
    """
    _Moment.depth += 1
    try:
        yield
    finally:
        _Moment.depth -= 1
    if _Moment.pending is not None and not _Moment.depth:
        number, _Moment.pending = _Moment.pending, None
        ignore_signals()
        raise Stopped(signal.Signals(number).name)
