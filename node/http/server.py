"""The HTTP listeners of a node (aiohttp). Three kinds, because PgDog has two ports of its own:

- the node's own (`--http`): /metrics, /health, /ready, and the console at /;
- `openmetrics_port`: metrics at any path;
- `healthcheck_port`: 200 `up` or 502 `down` at any path.

Handlers only call the callables they were given and must not block. GET and HEAD; no request body is ever read.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from node.http.console import View, page
from node.stats.openmetrics import CONTENT_TYPE

log = logging.getLogger("pgmurmur.http")

Handler = Callable[[web.Request], Awaitable[web.Response]]

_METRICS_HEADERS = {"Content-Type": CONTENT_TYPE}
# the console is text and a style sheet: nothing may be loaded, nothing may embed it
_PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def node_application(
    *,
    metrics: Callable[[], str],
    healthy: Callable[[], bool],
    ready: Callable[[], bool],
    views: Callable[[], list[View]] = list,
    title: str = "pgmurmur",
) -> web.Application:
    """`ready` must stay true during a pause: otherwise a load balancer would drop the whole flock at once."""

    async def console(request: web.Request) -> web.Response:
        return web.Response(text=page(title, views()), headers=_PAGE_HEADERS)

    async def readiness(request: web.Request) -> web.Response:
        return web.Response(text="ready" if (now := ready()) else "not ready", status=200 if now else 503)

    application = _application()
    application.router.add_get("/", console)
    application.router.add_get("/metrics", _metrics(metrics))
    application.router.add_get("/health", _health(healthy))
    application.router.add_get("/ready", readiness)
    return application


def metrics_application(metrics: Callable[[], str]) -> web.Application:
    """`openmetrics_port`: any path."""
    application = _application()
    application.router.add_get("/{path:.*}", _metrics(metrics))
    return application


def health_application(healthy: Callable[[], bool]) -> web.Application:
    """`healthcheck_port`: any path."""
    application = _application()
    application.router.add_get("/{path:.*}", _health(healthy))
    return application


def _application() -> web.Application:
    return web.Application(client_max_size=1, handler_args={"max_line_size": 8190, "max_field_size": 8190})


def _metrics(metrics: Callable[[], str]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=metrics().encode(), headers=_METRICS_HEADERS)

    return handler


def _health(healthy: Callable[[], bool]) -> Handler:
    async def handler(request: web.Request) -> web.Response:
        up = healthy()
        return web.Response(text="up" if up else "down", status=200 if up else 502)

    return handler


class HttpServer:
    """One listener."""

    def __init__(self, application: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._host = host
        self._port = port

    async def start(self) -> int:
        """Listens; the port, which is a free one when 0 was asked for. Raises `OSError`."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        try:
            await site.start()
        except OSError:
            await self._runner.cleanup()
            raise
        port: int = self._runner.addresses[0][1]
        log.info("http_listening addr=%s:%s", self._host, port)
        return port

    async def stop(self) -> None:
        await self._runner.cleanup()
