"""What follows from the options."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.options import (
    NodeOptions,
    following,
    gossip_address,
    idle_folders,
    join_address,
    node_name,
    of_worker,
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


def test_each_worker_has_a_name_and_a_folder_of_its_own() -> None:
    told = NodeOptions(port=0, workers=3, gossip="127.0.0.1:5", state_dir="/x", seeds=("a:1",))
    second = of_worker(told, "db1-6432", 2, 6432)
    assert (second.node_id, second.state_dir, second.port) == ("db1-6432-2", "/x/2", 6432)
    assert (second.gossip, second.seeds) == (told.gossip, told.seeds)
    unsaid = of_worker(NodeOptions(workers=2), "n", 1, 6432)
    assert unsaid.state_dir is None  # then it follows from the name
    assert state_directory(unsaid, "n-1", {"HOME": "/h"}, root=False) == Path("/h/.local/state/pgmurmur/n-1")


def test_ports_of_workers_follow_the_first() -> None:
    assert [following(16432, shift) for shift in range(3)] == [16432, 16433, 16434]
    assert following(0, 7) == 0  # each takes a free one
    assert following(65_535, 0) == 65_535
    with pytest.raises(ValueError, match="worker 2 would need 65536"):
        following(65_535, 1)


def test_folders_that_no_worker_uses_are_found(tmp_path: Path) -> None:
    """In them may lie decisions about transactions that a killed node left prepared."""

    def idle(workers: int, environ: dict[str, str] | None = None) -> list[str]:
        options = NodeOptions(workers=workers, state_dir=None if environ else str(tmp_path / "own"))
        found = idle_folders(options, "n", environ or {}, root=False)
        return [str(folder.relative_to(tmp_path)) for folder in found]

    assert idle(1) == idle(2) == []
    for name in ("own", "own/1", "own/2", "own/3", "own/10", "own/documents", "own/4"):
        (tmp_path / name).mkdir()
        if name != "own/4":  # nothing was ever prepared there
            (tmp_path / name / "decisions").touch()
    assert idle(2) == ["own", "own/3", "own/10"]
    assert idle(10) == ["own"]
    assert idle(1) == ["own/1", "own/2", "own/3", "own/10"]
    default = {"XDG_STATE_HOME": str(tmp_path)}
    for name in ("n", "n-1", "n-2", "n-3", "n-x", "nn-4"):
        (tmp_path / "pgmurmur" / name).mkdir(parents=True)
        (tmp_path / "pgmurmur" / name / "decisions").touch()
    assert idle(2, default) == ["pgmurmur/n", "pgmurmur/n-3"]
    assert idle(1, default) == ["pgmurmur/n-1", "pgmurmur/n-2", "pgmurmur/n-3"]
