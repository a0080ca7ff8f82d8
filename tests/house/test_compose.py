"""The compose files hang together: every file, service and volume that one names is there."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = Path(__file__).resolve().parents[2] / "compose"
ALONE = ["postgres.yaml", "ivorysql.yaml"]


def load(name: str) -> dict[str, Any]:
    content = yaml.safe_load((COMPOSE / name).read_text())
    assert isinstance(content, dict)
    return content


def merged(*names: str) -> dict[str, Any]:
    """As far as compose's own rules matter here: `extends`, then later files over earlier ones, service by service."""
    services: dict[str, Any] = {}
    volumes: dict[str, Any] = {}
    for name in names:
        content = load(name)
        volumes |= content.get("volumes") or {}
        for service, given in content["services"].items():
            base = services.get(service, {})
            if "extends" in given:
                base = load(given["extends"]["file"])["services"][given["extends"]["service"]]
            targets = {mount.split(":")[1]: mount for mount in (*base.get("volumes", ()), *given.get("volumes", ()))}
            depends = {**base.get("depends_on", {}), **given.get("depends_on", {})}
            services[service] = {**base, **given, "volumes": list(targets.values()), "depends_on": depends}
    return {"services": services, "volumes": volumes}


STACKS = [[name] for name in ALONE] + [["postgres.yaml", "chaos.yaml"]]


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_everything_named_is_there(names: list[str]) -> None:
    stack = merged(*names)
    services = stack["services"]
    assert {"shard-0", "shard-1", "node-0", "node-1", "node-2"} <= set(services)
    for service, given in services.items():
        assert "image" in given, service
        assert set(given["depends_on"]) <= set(services), service
        if "network_mode" in given:
            assert given["network_mode"].removeprefix("service:") in services, service
        for mount in given["volumes"]:
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (COMPOSE / source).is_file(), f"{service}: {source}"
            else:
                assert source in stack["volumes"], f"{service}: {source}"


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_the_nodes_reach_servers_that_exist(names: list[str]) -> None:
    services = merged(*names)["services"]
    ports = {(service, 5432) for service in services if service.startswith("shard-")}
    if "toxiproxy" in services:
        proxies = json.loads((COMPOSE / "toxiproxy.json").read_text())
        assert {tuple(proxy["upstream"].split(":")) for proxy in proxies} == {(host, str(port)) for host, port in ports}
        ports = {("toxiproxy", int(proxy["listen"].rpartition(":")[2])) for proxy in proxies}
    for node in ("node-0", "node-1", "node-2"):
        mounts = {mount.split(":")[1]: mount.split(":")[0] for mount in services[node]["volumes"]}
        config = tomllib.loads((COMPOSE / mounts["/etc/pgmurmur/pgdog.toml"]).read_text())
        assert {(entry["host"], entry["port"]) for entry in config["databases"]} == ports, node


def test_no_two_nodes_share_a_port() -> None:
    """They share one network: a port is one node's."""
    nodes = load("nodes.yaml")["services"].values()
    taken = [node["environment"]["PGMURMUR_PORT"] for node in nodes]
    taken += [
        node["environment"][name].rpartition(":")[2] for node in nodes for name in ("PGMURMUR_GOSSIP", "PGMURMUR_HTTP")
    ]
    assert len(taken) == len(set(taken)) == 9


def test_the_image_is_built_from_files_that_exist() -> None:
    copied = [
        source
        for line in (COMPOSE / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    assert [source for source in copied if not (COMPOSE.parent / source).exists()] == []
