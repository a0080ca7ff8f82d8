"""A process that does nothing but discovery and prints changes: `python one_node.py NODE HOST:PORT [SEED ...]`"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[3]), str(Path(__file__).parents[2])]

from unit.discovery.plain_control import PlainControl  # noqa: E402

from discovery.control import SystemClock  # noqa: E402
from discovery.member import Address, Member  # noqa: E402
from discovery.seal import Keyring  # noqa: E402
from discovery.service import Discovery, MemberView  # noqa: E402
from discovery.settings import DiscoverySettings  # noqa: E402
from discovery.sockets import bind_pair, bound_address  # noqa: E402


async def main() -> None:
    name, gossip, *seeds = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    udp, tcp = bind_pair(Address.parse(gossip))
    me = Member(
        node=name,
        gossip=bound_address(udp),
        client=Address("127.0.0.1", 6432),
        boot=random.SystemRandom().randbytes(16),
    )
    control = PlainControl(name)
    settings = DiscoverySettings(seeds=tuple(seeds), mdns=not seeds)
    discovery = Discovery(me, settings, control, Keyring(), SystemClock(), random.SystemRandom())

    def changed(view: MemberView) -> None:
        states = " ".join(f"{v.node}={v.state}" for v in discovery.members())
        print(f"{time.time():.3f} {name} {view.node} {view.state} | {states} health={discovery.health}", flush=True)

    discovery.on_change(changed)
    await control.start(tcp)
    await discovery.start(udp)
    print(f"{time.time():.3f} {name} started {bound_address(udp) if udp.fileno() >= 0 else ''}", flush=True)
    done = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, done.set)
    await done.wait()
    await discovery.leave()
    await discovery.stop()
    await control.stop()
    print(f"{time.time():.3f} {name} stopped {discovery.counters}", flush=True)


asyncio.run(main())
