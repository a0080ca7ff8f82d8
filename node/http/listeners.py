"""Which HTTP listeners a node has: its own, PgDog's metrics port and PgDog's health port; any of them may be absent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiohttp import web

from node.http.console import View
from node.http.server import HttpServer, health_application, metrics_application, node_application


@dataclass(frozen=True, slots=True)
class Answers:
    """What the listeners ask the node; all plain calls that do not block."""

    metrics: Callable[[], str]
    healthy: Callable[[], bool]
    ready: Callable[[], bool]
    views: Callable[[], list[View]] = list
    title: str = "pgmurmur"


class Listeners:
    """Starts and stops them together."""

    def __init__(
        self,
        answers: Answers,
        *,
        http: tuple[str, int] | None = None,
        openmetrics: tuple[str, int] | None = None,
        healthcheck: tuple[str, int] | None = None,
    ) -> None:
        wanted: list[tuple[tuple[str, int], web.Application]] = []
        if http is not None:
            application = node_application(
                metrics=answers.metrics,
                healthy=answers.healthy,
                ready=answers.ready,
                views=answers.views,
                title=answers.title,
            )
            wanted.append((http, application))
        if openmetrics is not None:
            wanted.append((openmetrics, metrics_application(answers.metrics)))
        if healthcheck is not None:
            wanted.append((healthcheck, health_application(answers.healthy)))
        self._has_own = http is not None
        self._servers = [HttpServer(application, host, port) for (host, port), application in wanted]
        self._started: list[HttpServer] = []
        self.http_port: int | None = None

    async def start(self) -> None:
        """All or none; `http_port` is then the port of the node's own listener. Raises `OSError`."""
        try:
            for server in self._servers:
                port = await server.start()
                self._started.append(server)
                if self._has_own and self.http_port is None:
                    self.http_port = port
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        while self._started:
            await self._started.pop().stop()


def up(healthy: Iterable[bool]) -> bool:
    """PgDog's health: down only when there are pools and none is healthy."""
    found = list(healthy)
    return not found or any(found)
