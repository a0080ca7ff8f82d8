"""Multicast DNS: announce our gossip address on the local link and hear about others' (RFC 6762, RFC 6763).

It only suggests addresses. A record outlives its dead owner by up to 75 minutes, anybody on the link can forge one, and
many networks drop multicast: gossip decides who is a member, and seeds must work without this. For the same reason no
failure here is fatal. TXT is static and public: no counts, no versions, no secrets (each change would be multicast).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable

from zeroconf import InterfaceChoice, IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from discovery.member import Address, Member

SERVICE_TYPE = "_pgmurmur._udp.local."
RESOLVE_TIMEOUT_MS = 3000
RESOLVING_LIMIT = 64
INSTANCE_LIMIT_BYTES = 43  # of 63, with room for the flock's mark and a number after a name conflict

log = logging.getLogger("pgmurmur.discovery")


def flock_mark(flock: str) -> str:
    """What TXT says about the flock: enough to tell flocks apart, not its name."""
    return hashlib.sha256(flock.encode()).digest()[:8].hex()


def interfaces_for(gossip: Address) -> InterfaceChoice | list[str]:
    """Where to listen. A member on loopback announces itself on loopback only: no other host could reach it, and
    three members on a laptop must find each other without any network at all.
    """
    if gossip.is_loopback:
        return ["127.0.0.1"]
    if gossip.is_wildcard:
        return InterfaceChoice.All
    return [gossip.host]


class Mdns:
    """One announcement and one browser. `found` gets every address heard, again and again, ours included."""

    def __init__(self, me: Member, bound: Address, flock: str, found: Callable[[Address], None]) -> None:
        self._me = me
        self._bound = bound
        self._mark = flock_mark(flock)
        self._found = found
        self._zeroconf: AsyncZeroconf | None = None
        self._browser: AsyncServiceBrowser | None = None
        self._resolving: dict[str, asyncio.Task[None]] = {}
        self._announcing: asyncio.Task[None] | None = None
        self.problem: str | None = "not started"

    async def start(self) -> None:
        """Browse at once, announce in the background (probing a name takes half a second). Never raises OSError."""
        try:
            v6 = ":" in self._bound.host and not self._bound.is_loopback
            self._zeroconf = AsyncZeroconf(
                interfaces=interfaces_for(self._bound), ip_version=IPVersion.All if v6 else IPVersion.V4Only
            )
            await self._zeroconf.zeroconf.async_wait_for_start()
            self._browser = AsyncServiceBrowser(self._zeroconf.zeroconf, SERVICE_TYPE, handlers=[self._heard])
        except Exception as error:  # zeroconf raises many kinds; discovery goes on with seeds
            self._warn(error)
            await self.stop()
            return
        self.problem = None
        self._announcing = asyncio.create_task(self._announce(self._zeroconf), name="mdns announce")

    async def stop(self) -> None:
        """Say good-bye on the link and close."""
        tasks = list(self._resolving.values())
        if self._announcing is not None:
            tasks.append(self._announcing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._announcing = None
        browser, self._browser = self._browser, None
        zeroconf, self._zeroconf = self._zeroconf, None
        try:
            if browser is not None:
                await browser.async_cancel()
            if zeroconf is not None:
                await zeroconf.async_unregister_all_services()
                await zeroconf.async_close()
        except Exception as error:
            self._warn(error)

    async def _announce(self, zeroconf: AsyncZeroconf) -> None:
        try:
            await (await zeroconf.async_register_service(self._info(), allow_name_change=True))
        except Exception as error:
            self._warn(error)

    def _info(self) -> AsyncServiceInfo:
        node = self._me.node.encode()[:INSTANCE_LIMIT_BYTES].decode(errors="ignore").replace(".", "-")
        # The address makes it unique: two nodes that claim one name and probe for it in the same moment would both
        # keep it (a tie, RFC 6762 section 8.2), and then only one of them is ever heard.
        place = hashlib.sha256(str(self._me.gossip).encode()).hexdigest()[:6]
        instance = f"{node}-{self._mark[:6]}-{place}"
        lowest, highest = self._me.protocol
        properties = {
            "txtvers": "1",
            "cid": self._mark,
            "nid": self._me.node,
            "pv": f"{lowest}-{highest}",
            "cp": str(self._me.gossip.port),
        }
        return AsyncServiceInfo(
            SERVICE_TYPE,
            f"{instance}.{SERVICE_TYPE}",
            port=self._me.gossip.port,
            parsed_addresses=[self._me.gossip.host.partition("%")[0]],
            properties=properties,
            server=f"{instance}.local.",
        )

    def _heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """Called by zeroconf in the event loop, so it must not wait; a good-bye says nothing that gossip trusts."""
        if state_change is ServiceStateChange.Removed or name in self._resolving:
            return
        if len(self._resolving) < RESOLVING_LIMIT:
            task = asyncio.create_task(self._resolve(zeroconf, name), name="mdns resolve")
            self._resolving[name] = task
            task.add_done_callback(lambda _: self._resolving.pop(name, None))

    async def _resolve(self, zeroconf: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(SERVICE_TYPE, name)
        try:
            if not await info.async_request(zeroconf, RESOLVE_TIMEOUT_MS):
                return
        except Exception as error:
            self._warn(error)
            return
        if info.properties.get(b"cid") != self._mark.encode() or not info.port:
            return
        for host in info.parsed_scoped_addresses()[:4]:
            self._found(Address(host, info.port))

    def _warn(self, error: BaseException) -> None:
        self.problem = f"{type(error).__name__}: {error}"
        log.warning("mdns_unavailable reason=%r hint=%r", self.problem, "members are found by seeds and saved peers")
