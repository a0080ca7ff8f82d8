"""Log lines: one event, one line, to standard error; as text or JSON."""

from __future__ import annotations

import json
import logging
import sys
import time

_LEVELS = {
    "trace": "DEBUG",
    "debug": "DEBUG",
    "info": "INFO",
    "warn": "WARNING",
    "warning": "WARNING",
    "error": "ERROR",
    "off": "CRITICAL",
}


class TextFormatter(logging.Formatter):
    """`worker` is the number of this process among --workers; lines of several end up in one file.

    A client that comes and goes is two lines: what is the same for all lines of a second is made once a second.
    """

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._who = f"worker={worker} " if worker is not None else ""
        self._second = -1
        self._time = ""

    def format(self, record: logging.LogRecord) -> str:
        second = int(record.created)
        if second != self._second:
            self._second = second
            self._time = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        text = f"{self._time}.{int(record.msecs):03d} {record.levelname} {record.name} {self._who}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class JsonFormatter(logging.Formatter):
    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = {} if worker is None else {"worker": worker}

    def format(self, record: logging.LogRecord) -> str:
        event = {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "target": record.name,
            "message": record.getMessage(),
            **self._worker,
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event)


def configure_logging(level: str, form: str, worker: int | None = None) -> None:
    """`level` is a word or PgDog's filter expression, of which the first word counts."""
    # Of each line the library finds out where in the code and by whom it was written, which no format here shows.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # the way its manual names (Logging HOWTO, "Optimization")
    word = level.split(",")[0].split("=")[-1].strip().lower()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(worker) if form.startswith("json") else TextFormatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS.get(word, "INFO"))
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
