"""Fixtures over `harness.py`: servers live for the session, databases and nodes for one test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

# The folder of this file is not a package (importlib mode), so its neighbour is found by tests/ being on the path.
from integration.harness import Database, Nodes, databases, start_server

from node.embedded.server import Server
from node.embedded.workspace import Workspace


@pytest.fixture(scope="session")
def workspace() -> Iterator[Workspace]:
    with Workspace() as made:
        yield made


@pytest.fixture(scope="session")
def shard_servers(workspace: Workspace) -> tuple[Server, Server]:
    """Two servers for the whole session; a test that stops one starts it again."""
    return start_server(workspace, "shard_0"), start_server(workspace, "shard_1")


@pytest.fixture(scope="session")
def plain_server(workspace: Workspace) -> Server:
    """The oracle's server."""
    return start_server(workspace, "plain")


@pytest.fixture
def shards(shard_servers: tuple[Server, Server]) -> Iterator[list[Database]]:
    """Two empty databases, one per server."""
    with databases(shard_servers) as made:
        yield made


@pytest.fixture
def plain(plain_server: Server) -> Iterator[Database]:
    """One empty database that holds all rows: what it answers is right."""
    with databases([plain_server]) as made:
        yield made[0]


@pytest.fixture
def own_server(workspace: Workspace, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for this test alone, to be killed at will."""
    made = start_server(workspace, f"own_{abs(hash(request.node.nodeid))}")
    yield made
    made.stop()


@pytest.fixture
def node_factory(workspace: Workspace, tmp_path: Path) -> Iterator[Nodes]:
    """`node_factory(config_text, users_text, …)` starts a node; all stop with the test."""
    made = Nodes(workspace, tmp_path)
    yield made
    made.close()
