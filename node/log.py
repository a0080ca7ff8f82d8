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
    """`worker` is the number of this process among --workers; lines of several end up in one file."""

    def __init__(self, worker: int | None = None) -> None:
        who = f"worker={worker} " if worker is not None else ""
        super().__init__(f"%(asctime)s.%(msecs)03d %(levelname)s %(name)s {who}%(message)s", "%Y-%m-%d %H:%M:%S")
        self.converter = time.localtime


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
    word = level.split(",")[0].split("=")[-1].strip().lower()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(worker) if form.startswith("json") else TextFormatter(worker))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS.get(word, "INFO"))
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
