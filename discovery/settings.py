"""The numbers of the membership protocol: unit, formula, and which way each one trades.

`LAN` has memberlist's defaults. `LOCAL` is for members that all sit on one host's loopback, where packets are neither
lost nor late and a demo wants to see a death within seconds. `WAN` is for links between sites.
"""

from __future__ import annotations

from dataclasses import dataclass

from discovery.member import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SwimSettings:
    """One profile. All members of a flock should use the same one; nothing breaks if they do not."""

    probe_interval_s: float = 1.0
    """One member is pinged per interval. Lower: deaths are found sooner, more packets (4 per interval and node)."""
    probe_timeout_s: float = 0.5
    """Wait for the answer before others are asked to try. Set it to the 99th percentile of a round trip, and less than
    the interval. Lower: sooner, but more indirect probes."""
    indirect_probes: int = 3
    """Members asked to try as well (SWIM's k). Higher: fewer false suspicions, more packets while somebody is ill."""
    suspicion_multiplier: int = 4
    """`suspicion = multiplier * max(1, log10 N) * probe interval`. Higher: fewer false deaths, later true ones."""
    suspicion_max_multiplier: int = 6
    """A lone accuser waits this many times longer. Higher: a sick observer does less harm."""
    confirmations: int = 2
    """Independent accusers that bring the wait down to the minimum; ignored in flocks too small to have them."""
    retransmit_multiplier: int = 4
    """Each rumor is sent `multiplier * ceil(log10(N + 1))` times by each member. Higher: surer, more traffic."""
    gossip_interval_s: float = 0.2
    """Rumors are sent at most this often. Lower: news spreads sooner, more packets while there is news."""
    gossip_fanout: int = 3
    """Members told per gossip interval. Higher: sooner, more packets."""
    push_pull_interval_s: float = 30.0
    """Views are compared over TCP this often, less often above 32 members. Lower: gaps close sooner, more bytes."""
    dead_retry_interval_s: float = 30.0
    """One dead member is tried this often, for ever: how a flock heals after a split. Lower: heals sooner."""
    gossip_to_the_dead_s: float = 30.0
    """A member is told of its own death this long, so that it can refute it at once."""
    news_interval_s: float = 1.0
    """Client counts spread at most this often. Lower: fresher SHOW PEERS, more packets."""
    awareness_limit: int = 8
    """Lifeguard's S: probes get up to 1 + S times slower while this node doubts itself."""
    left_keep_s: float = 600.0
    """A member that left stays listed this long; also how long old rumors about it can not bring it back."""
    leave_spread_s: float = 1.0
    """How long a leaving member keeps telling. Higher: surer, a slower stop."""


LAN = SwimSettings()
WAN = SwimSettings(
    probe_interval_s=5.0,
    probe_timeout_s=2.5,
    gossip_interval_s=0.5,
    gossip_fanout=4,
    push_pull_interval_s=60.0,
    gossip_to_the_dead_s=60.0,
    dead_retry_interval_s=60.0,
    leave_spread_s=3.0,
)
LOCAL = SwimSettings(
    probe_interval_s=0.2,
    probe_timeout_s=0.1,
    suspicion_multiplier=6,
    suspicion_max_multiplier=4,
    gossip_interval_s=0.05,
    push_pull_interval_s=10.0,
    dead_retry_interval_s=5.0,
    gossip_to_the_dead_s=10.0,
    news_interval_s=0.5,
    leave_spread_s=0.3,
)
PROFILES = {"lan": LAN, "wan": WAN, "local": LOCAL}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoverySettings:
    """Where to listen, whom to ask first, how much to take from strangers."""

    flock: str = "default"
    """Members of flocks with other names are never seen."""
    bind: Address | None = None
    """UDP address to bind; default: the member's gossip address. Port 0 picks one."""
    seeds: tuple[str, ...] = ()
    """`host:port`, `dns://name[:port]`, `srv://_service._udp.name`."""
    state_dir: str | None = None
    """Keeps `peers.json` and `incarnation`; None: nothing is kept."""
    mdns: bool = True
    """Announce and look for members by multicast DNS. Finds addresses only; gossip decides who is a member."""
    profile: str = "auto"
    """`lan`, `wan`, `local`; `auto`: local when our own gossip address is on loopback, else lan."""
    swim: SwimSettings | None = None
    """A profile of your own; overrides `profile`."""
    resolve_interval_s: float = 60.0
    """Seeds are resolved and tried again this often, plus up to a quarter. Lower: new addresses sooner, more DNS."""
    join_interval_s: float = 1.0
    """While nobody is known, seeds are tried this often."""
    source_rate_per_s: float = 500.0
    """Datagrams taken from one source per second, the rest is dropped unread. Twice that may come in one burst."""
    sources_limit: int = 4096
    """Sources counted at a time."""
    exchange_timeout_s: float = 10.0
    """For one push-pull over the control channel."""
    exchanges_limit: int = 16
    """Push-pulls under way at a time; more are skipped, the next one comes anyway."""

    def swim_settings(self, gossip: Address) -> SwimSettings:
        """Raises ValueError for a profile that does not exist."""
        if self.swim is not None:
            return self.swim
        if self.profile == "auto":
            return LOCAL if gossip.is_loopback else LAN
        if self.profile not in PROFILES:
            raise ValueError(f'discovery profile "{self.profile}" must be one of auto, {", ".join(PROFILES)}')
        return PROFILES[self.profile]
