"""When the catalogue of a database is read in the background, and how long it is trusted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import pytest

from node.catalogs import IDLE_WAIT_S, REFRESH_S, RETRY_MAX_S, STALE_S, Catalogs
from node.database import Layout
from node.errors import ServerFault
from node.pool.core import PoolCore
from node.routing.catalog import Catalog


@dataclass
class StandInPool:
    core: PoolCore = field(default_factory=lambda: PoolCore(2))


@dataclass
class StandInBalancer:
    primary: StandInPool
    replicas: tuple[StandInPool, ...] = ()

    def write(self) -> StandInPool:
        return self.primary


@dataclass
class StandInDatabase:
    name: str = "shop"
    layout: Layout = field(default_factory=lambda: Layout(Catalog.EMPTY))
    balancers: tuple[StandInBalancer, ...] = field(default_factory=lambda: (StandInBalancer(StandInPool()),))

    @property
    def pools(self) -> list[StandInPool]:
        return [balancer.primary for balancer in self.balancers]

    @property
    def core(self) -> PoolCore:
        return self.balancers[0].primary.core


class World:
    """One database with an idle server; readings succeed unless `fault` is set."""

    def __init__(self) -> None:
        self.database = StandInDatabase()
        self.core.idle.append(object())  # type: ignore[arg-type]
        self.readings = 0
        self.fault: Exception | None = None
        self.now = 100.0
        listed: Any = [self.database]
        self.catalogs = Catalogs(lambda: listed, self._spawn, self._load)

    @property
    def core(self) -> PoolCore:
        return self.database.core

    @property
    def layout(self) -> Layout:
        return self.database.layout

    def want(self) -> None:
        database: Any = self.database
        self.catalogs.want(database)

    def tick(self, after_s: float = 0.3) -> int:
        """How many readings began."""
        before = self.readings
        self.now += after_s
        self.catalogs.tick(self.now)
        return self.readings - before

    def _spawn(self, work: Awaitable[None]) -> None:
        asyncio.run(work)  # type: ignore[arg-type]

    async def _load(self, database: Any, *, again: bool) -> None:
        assert again
        self.readings += 1
        if self.fault is not None:
            raise self.fault
        self.layout.loaded = self.layout.sharing = True
        self.layout.read_at = self.now


def test_nothing_is_read_until_somebody_wants_to_share() -> None:
    world = World()
    assert world.tick() == 0
    world.want()
    assert world.tick() == 1
    assert world.layout.sharing


def test_it_is_read_again_periodically_and_soon_after_ddl() -> None:
    world = World()
    world.want()
    assert [world.tick(), world.tick(), world.tick(REFRESH_S - 1), world.tick(2)] == [1, 0, 0, 1]
    world.layout.forget()
    assert not world.layout.sharing
    assert world.tick(2) == 1
    assert world.layout.sharing


def test_ddl_after_ddl_does_not_read_all_the_time() -> None:
    world = World()
    world.want()
    readings = 0
    for _ in range(100):
        world.layout.forget()
        readings += world.tick(0.1)
    assert 5 <= readings <= 11


def test_errors_are_told_once_and_tried_again_ever_more_rarely(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.want()
    world.fault = ServerFault("no", sqlstate="08006")
    with caplog.at_level(logging.INFO, "pgmurmur.catalog"):
        readings = sum(world.tick(0.5) for _ in range(1200))
        assert 6 <= readings <= 6 + 600 / RETRY_MAX_S
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert not world.layout.sharing
        world.fault = None
        assert world.tick(RETRY_MAX_S) == 1
    assert world.layout.sharing
    assert "attempts=" in caplog.records[-1].message


def test_an_old_catalogue_is_not_trusted_for_ever() -> None:
    world = World()
    world.want()
    world.tick()
    world.fault = ServerFault("no", sqlstate="08006")
    world.tick(REFRESH_S + 1)
    assert world.layout.sharing
    world.tick(STALE_S)
    assert not world.layout.sharing


def test_without_servers_nobody_is_disturbed_and_who_comes_back_waits_for_a_new_catalogue() -> None:
    world = World()
    world.want()
    world.tick()
    idle = world.core.idle.pop()
    assert world.tick(REFRESH_S + 1) == 0
    assert not world.layout.sharing
    world.core.lent[idle] = None
    world.core.idle.append(object())  # type: ignore[arg-type]
    assert world.tick() == 1


def test_the_last_server_is_left_to_its_client_for_a_while() -> None:
    world = World()
    world.want()
    world.core.lent[world.core.idle.pop()] = None
    assert world.tick() == 0
    assert world.tick(IDLE_WAIT_S / 2) == 0
    assert world.tick(IDLE_WAIT_S) == 1


def test_a_paused_pool_is_not_asked() -> None:
    world = World()
    world.want()
    world.core.paused = True
    assert world.tick() == 0
    world.core.paused = False
    assert world.tick() == 1
