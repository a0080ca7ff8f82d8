"""What follows from the options."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.options import (
    NodeOptions,
    gossip_address,
    join_address,
    node_name,
    register_url,
    split_address,
    state_directory,
)


@pytest.mark.parametrize(
    ("text", "address"), [("h:1", ("h", 1)), ("[::1]:65535", ("::1", 65535)), ("1.2.3.4:0", ("1.2.3.4", 0))]
)
def test_addresses_go_both_ways(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address
    assert join_address(*address) == text


@pytest.mark.parametrize("text", ["", "h", ":1", "h:", "h:x", "h:65536", "::1:5", "h:-1", "h:1 "])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|needs brackets"):
        split_address(text)


def test_gossip_is_ten_thousand_above_the_client_port() -> None:
    assert gossip_address(NodeOptions(), "h", 6432, None) == ("h", 16432)
    assert gossip_address(NodeOptions(), "h", 60000, None) == ("h", 50000)
    assert gossip_address(NodeOptions(), "h", 0, None) == ("h", 0)
    assert gossip_address(NodeOptions(), "h", 6432, "g:5") == ("g", 5)
    assert gossip_address(NodeOptions(gossip="o:6"), "h", 6432, "g:5") == ("o", 6)


def test_a_node_is_named_after_host_and_port() -> None:
    assert node_name(NodeOptions(), "db1.example.org", 6432) == "db1-6432"
    assert node_name(NodeOptions(), "", 6432) == "node-6432"
    assert node_name(NodeOptions(node_id="x"), "db1", 6432) == "x"


def test_state_is_kept_per_node() -> None:
    user = {"HOME": "/home/u"}
    assert state_directory(NodeOptions(), "n", user, root=False) == Path("/home/u/.local/state/pgmurmur/n")
    assert state_directory(NodeOptions(), "n", user | {"XDG_STATE_HOME": "/s"}, root=False) == Path("/s/pgmurmur/n")
    assert state_directory(NodeOptions(), "n", user, root=True) == Path("/var/lib/pgmurmur/n")
    assert state_directory(NodeOptions(state_dir="/x"), "n", user, root=True) == Path("/x")


def test_nodes_of_one_flock_share_a_register() -> None:
    assert register_url(NodeOptions(), None, "f", {}, root=True) == "file:/var/lib/pgmurmur/registers/f"
    assert register_url(NodeOptions(), "etcd://e", "f", {}, root=True) == "etcd://e"
    assert register_url(NodeOptions(register="file:/r"), "etcd://e", "f", {}, root=True) == "file:/r"
