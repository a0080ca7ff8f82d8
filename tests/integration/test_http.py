"""The HTTP listeners, asked by a real client."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web

from node.http.console import View
from node.http.listeners import Answers, Listeners, up
from node.http.server import HttpServer, health_application, metrics_application, node_application


class Node:
    """What the listeners ask; a test turns the switches."""

    healthy = True
    ready = True

    def application(self) -> web.Application:
        return node_application(
            metrics=lambda: "clients 1\n",
            healthy=lambda: self.healthy,
            ready=lambda: self.ready,
            views=lambda: [View("peers", ["node"], [["n1"]])],
        )


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as found:
        yield found


async def get(session: aiohttp.ClientSession, application: web.Application, path: str) -> tuple[int, str, str]:
    server = HttpServer(application, "127.0.0.1", 0)
    port = await server.start()
    try:
        async with session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text(), response.headers["Content-Type"]
    finally:
        await server.stop()


async def test_metrics(session: aiohttp.ClientSession, node: Node) -> None:
    expected = (200, "clients 1\n", "text/plain; version=0.0.4")
    assert await get(session, node.application(), "/metrics") == expected
    assert await get(session, metrics_application(lambda: "clients 1\n"), "/any/path") == expected


async def test_health_says_up_or_down(session: aiohttp.ClientSession, node: Node) -> None:
    assert (await get(session, node.application(), "/health"))[:2] == (200, "up")
    assert (await get(session, health_application(lambda: True), "/"))[:2] == (200, "up")
    node.healthy = False
    assert (await get(session, node.application(), "/health"))[:2] == (502, "down")
    assert (await get(session, health_application(lambda: False), "/x"))[:2] == (502, "down")


async def test_ready_is_another_question_than_health(session: aiohttp.ClientSession, node: Node) -> None:
    node.healthy = False
    assert (await get(session, node.application(), "/ready"))[:2] == (200, "ready")
    node.ready = False
    assert (await get(session, node.application(), "/ready"))[:2] == (503, "not ready")


async def test_the_console_is_a_page(session: aiohttp.ClientSession, node: Node) -> None:
    status, body, kind = await get(session, node.application(), "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert "<td>n1</td>" in body


async def test_other_paths_and_methods_are_refused(session: aiohttp.ClientSession, node: Node) -> None:
    assert (await get(session, node.application(), "/other"))[0] == 404
    server = HttpServer(node.application(), "127.0.0.1", 0)
    port = await server.start()
    try:
        async with session.post(f"http://127.0.0.1:{port}/metrics", data=b"x" * 100_000) as response:
            assert response.status == 405
        async with session.get(f"http://127.0.0.1:{port}/metrics", headers={"X": "y" * 20_000}) as response:
            assert response.status == 400
    finally:
        await server.stop()


async def test_a_port_in_use_is_an_error(node: Node) -> None:
    first = HttpServer(node.application(), "127.0.0.1", 0)
    port = await first.start()
    second = HttpServer(node.application(), "127.0.0.1", port)
    try:
        with pytest.raises(OSError, match="address already in use"):
            await second.start()
    finally:
        await second.stop()
        await first.stop()


def answers(node: Node) -> Answers:
    return Answers(metrics=lambda: "m 1\n", healthy=lambda: node.healthy, ready=lambda: node.ready)


async def test_three_listeners_start_and_stop_together(session: aiohttp.ClientSession, node: Node) -> None:
    local = ("127.0.0.1", 0)
    listeners = Listeners(answers(node), http=local, openmetrics=local, healthcheck=local)
    await listeners.start()
    async with session.get(f"http://127.0.0.1:{listeners.http_port}/ready") as response:
        assert response.status == 200
    await listeners.stop()
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(f"http://127.0.0.1:{listeners.http_port}/ready")


async def test_one_taken_port_starts_nothing(node: Node, session: aiohttp.ClientSession) -> None:
    first = Listeners(answers(node), http=("127.0.0.1", 0))
    await first.start()
    assert first.http_port is not None
    second = Listeners(answers(node), http=("127.0.0.1", 0), healthcheck=("127.0.0.1", first.http_port))
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    with pytest.raises(aiohttp.ClientConnectorError):
        await session.get(f"http://127.0.0.1:{second.http_port}/ready")
    await first.stop()


async def test_no_listeners(node: Node) -> None:
    listeners = Listeners(answers(node))
    await listeners.start()
    assert listeners.http_port is None
    await listeners.stop()


@pytest.mark.parametrize(("pools", "expected"), [([], True), ([False], False), ([False, True], True)])
def test_down_means_no_pool_is_healthy(pools: list[bool], expected: bool) -> None:
    assert up(pools) is expected
