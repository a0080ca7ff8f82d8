"""Addresses to start from: the peers of last time, names in DNS, and what the operator wrote.

    host:port                     one address, or all addresses of a name
    dns://name[:port]             all addresses of a name (for a headless service); default port: our own gossip port
    srv://_service._udp.name      targets and ports from DNS SRV records (RFC 2782)

All are resolved again from time to time, never only once: the address of today is another pod's tomorrow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import Iterable
from pathlib import Path

from zeroconf import (  # type: ignore[attr-defined]  # public by its documentation, not by its __all__
    DNSIncoming,
    DNSOutgoing,
    DNSQuestion,
    DNSService,
)

from discovery.member import COUNT_LIMIT, Address

SEEDS_LIMIT = 256
PEERS_LIMIT = 256
FILE_LIMIT_BYTES = 1024 * 1024
RESOLVE_TIMEOUT_S = 5.0
DNS_RESPONSE_LIMIT_BYTES = 4096
_QUERY_RECURSION = 0x0100
_TYPE_SRV = 33
_CLASS_IN = 1

log = logging.getLogger("pgmurmur.discovery")


def check_seed(seed: str) -> None:
    """Raises ValueError for a seed that can never be resolved; called when the settings are read."""
    if seed.startswith("srv://"):
        if not seed.removeprefix("srv://"):
            raise ValueError(f'seed "{seed}" must look like srv://_service._udp.name')
    elif seed.startswith("dns://"):
        Address.parse(seed.removeprefix("dns://"), default_port=1)
    elif "://" in seed:
        raise ValueError(f'seed "{seed}" must be host:port, dns://name or srv://name')
    else:
        Address.parse(seed)


async def resolve(seed: str, default_port: int) -> list[Address]:
    """All addresses behind one seed; an empty list and a log line when there are none now."""
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            if seed.startswith("srv://"):
                found: list[Address] = []
                for target in await _srv(seed.removeprefix("srv://")):
                    found += await _addresses(target)
                return found[:SEEDS_LIMIT]
            plain = Address.parse(seed.removeprefix("dns://"), default_port)
            return (await _addresses(plain))[:SEEDS_LIMIT]
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        log.info("seed_unresolved seed=%r reason=%r", seed, str(error) or type(error).__name__)
        return []


async def resolve_all(seeds: Iterable[str], default_port: int) -> list[Address]:
    found = await asyncio.gather(*(resolve(seed, default_port) for seed in list(seeds)[:SEEDS_LIMIT]))
    return list(dict.fromkeys(address for addresses in found for address in addresses))


async def _addresses(name: Address) -> list[Address]:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(name.host, name.port, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys(Address(str(info[4][0]), int(info[4][1])) for info in infos))


async def _srv(name: str) -> list[Address]:
    """Ask the host's first name servers. The C library cannot look up SRV, and one question needs no DNS package."""
    for server in _name_servers():
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(RESOLVE_TIMEOUT_S / 3):
                return await _ask_srv(name, server)
    raise OSError(f'no name server answered for "{name}"')


async def _ask_srv(name: str, server: Address) -> list[Address]:
    number = int.from_bytes(os.urandom(2), "big")
    query = DNSOutgoing(_QUERY_RECURSION, multicast=False, id_=number)
    query.add_question(DNSQuestion(name.rstrip(".") + ".", _TYPE_SRV, _CLASS_IN))
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, server)  # the kernel then drops answers from elsewhere
        await loop.sock_sendall(sock, query.packets()[0])
        while True:
            answer = DNSIncoming(await loop.sock_recv(sock, DNS_RESPONSE_LIMIT_BYTES))
            if answer.valid and answer.id == number and answer.is_response():
                break
    return [
        Address(record.server.rstrip("."), record.port)
        for record in answer.answers()
        if isinstance(record, DNSService) and record.port
    ]


def _name_servers() -> list[Address]:
    try:
        lines = Path("/etc/resolv.conf").read_text(errors="replace").splitlines()
    except OSError:
        return []
    words = (line.split() for line in lines)
    return [Address(word[1], 53) for word in words if len(word) >= 2 and word[0] == "nameserver"][:3]


class SavedPeers:
    """What must outlive a restart: who the members were, and our incarnation. Nothing here when there is no folder."""

    def __init__(self, state_dir: str | None, flock: str) -> None:
        self._dir = Path(state_dir) if state_dir is not None else None
        self._flock = flock
        self._saved: tuple[str, ...] = ()

    def load(self) -> list[Address]:
        """The peers of last time; a damaged file is a warning, since all of it can be found again."""
        if self._dir is None:
            return []
        path = self._dir / "peers.json"
        try:
            if path.stat().st_size > FILE_LIMIT_BYTES:
                raise ValueError("file too large")
            content = json.loads(path.read_text())
            if content["flock"] != self._flock:
                return []
            return [Address.parse(text) for text in content["peers"][:PEERS_LIMIT]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("saved_peers_unreadable file=%s reason=%r", path, str(error))
            return []

    def save(self, peers: Iterable[Address]) -> None:
        """Replace the file in one step. Not synced: losing it costs a second at the next start."""
        wanted = tuple(sorted(str(peer) for peer in peers))[:PEERS_LIMIT]
        if self._dir is None or wanted == self._saved or not wanted:
            return
        content = json.dumps({"flock": self._flock, "peers": wanted}, indent=1)
        self._write("peers.json", content, sync=False)
        self._saved = wanted

    def next_incarnation(self, at_least: int) -> int:
        """A number above every one this node used before, on disk before anybody hears it."""
        if self._dir is None:
            return at_least
        last = 0
        with contextlib.suppress(OSError, ValueError):
            last = int((self._dir / "incarnation").read_text()[:20])
        incarnation = max(at_least, last + 1) if 0 <= last < COUNT_LIMIT // 2 else at_least
        self.save_incarnation(incarnation)
        return incarnation

    def save_incarnation(self, incarnation: int) -> None:
        if self._dir is not None:
            self._write("incarnation", f"{incarnation}\n", sync=True)

    def _write(self, name: str, content: str, *, sync: bool) -> None:
        assert self._dir is not None
        path, fresh = self._dir / name, self._dir / f"{name}.new"
        try:
            self._dir.mkdir(parents=True, exist_ok=True)
            with fresh.open("w") as file:
                file.write(content)
                if sync:
                    file.flush()
                    os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            log.warning("state_not_saved file=%s reason=%r", path, str(error))
