"""The fixtures of the integration tests: real servers, real nodes."""

from __future__ import annotations

from integration.conftest import node_factory, own_server, shard_servers, shards, workspace

__all__ = ["node_factory", "own_server", "shard_servers", "shards", "workspace"]
