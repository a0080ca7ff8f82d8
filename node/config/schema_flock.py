"""`[discovery]` and `[sync]`: how members find each other and agree. Ours; PgDog has nothing like them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from node.config.setting import Live, Milliseconds, Table, setting
from node.config.words import Isolation, Profile

_RESTART = Live.RESTART

FlockName = Annotated[str, Field(min_length=1, max_length=63)]  # travels in mDNS, where a label has 63 bytes
Seconds = Annotated[int, Field(ge=0, le=86_400)]


class Discovery(Table):
    """Who is there. Seeds, saved peers and mDNS only suggest addresses; gossip decides who is alive."""

    flock: FlockName = setting("default", "flocks with other names are not seen", live=_RESTART, ours=True)
    seeds: tuple[str, ...] = setting(
        (), "members to start from: host:port, dns://name:port, srv://name", live=_RESTART, ours=True, lax=True
    )
    mdns: bool = setting(True, "find members by multicast on this network", live=_RESTART, ours=True)
    gossip: str | None = setting(
        None, "host:port of gossip (UDP) and control (TCP); absent = port + 10000", live=_RESTART, ours=True
    )
    key_file: str | None = setting(
        None, "one base64 key of 32 bytes per line; without one only loopback is accepted", live=_RESTART, ours=True
    )
    profile: Profile = setting(
        Profile.LAN, "gossip constants: faster detection against more packets", live=_RESTART, ours=True, lax=True
    )
    seed_interval: Milliseconds = setting(
        60_000, "how often names among the seeds are resolved again", unit="ms", live=_RESTART, ours=True
    )


class Sync(Table):
    """Which configuration is in force. Shorter timeouts abort sooner; longer ones pause clients longer."""

    register_url: str | None = setting(  # pydantic's classes have a method called register
        None,
        "where the decided version lives: file:DIR, postgres://..., etcd://...; absent = a folder on this host",
        alias="register",
        live=_RESTART,
        ours=True,
    )
    isolation: Isolation = setting(
        Isolation.SERVE,
        "serve: an unreachable member blocks changes, not traffic; pause: an isolated member stops by itself",
        live=_RESTART,
        ours=True,
        lax=True,
    )
    validate_timeout: Milliseconds = setting(
        30_000, "longest wait for every member's verdict on a document", unit="ms", live=_RESTART, ours=True
    )
    drain_timeout: Milliseconds = setting(
        5000, "longest wait for running transactions in scope", unit="ms", live=_RESTART, ours=True
    )
    pause_max: Milliseconds = setting(
        10_000, "a member that has not voted by then resumes and refuses", unit="ms", live=_RESTART, ours=True
    )
    fence_timeout: Milliseconds = setting(
        8000,
        "longest wait for every member's fence vote; then the rollout is aborted",
        unit="ms",
        live=_RESTART,
        ours=True,
    )
    apply_timeout: Milliseconds = setting(
        5000,
        "members that have not applied a decided version by then are reported",
        unit="ms",
        live=_RESTART,
        ours=True,
    )
    takeover_timeout: Milliseconds = setting(
        2000,
        "a fenced member without an outcome looks for it, or takes over, after this",
        unit="ms",
        live=_RESTART,
        ours=True,
    )
    client_wait: Milliseconds = setting(
        10_000, "a client waits this long for a paused database, then gets 57P03", unit="ms", ours=True
    )
    lease: Milliseconds = setting(
        10_000, "length of a serving lease; only with isolation = pause", unit="ms", live=_RESTART, ours=True
    )
