"""Cancel requests: of a client of this node, or of another member's, which is then asked over the control channel.

A request comes on a connection of its own, which a load balancer, or the kernel between workers, may give to any
member. Its process id says whose client is meant (`reception.CLIENT_BITS`: 11 bits of the member's name, 20 that number
its clients), its secret proves the right to it, and only the member that serves the client knows the secret. Names can
share their 11 bits: then each of those members is asked, and all but one find the secret wrong.

What a forged request costs: one look-up here, and for a process id that names another member one small message to it.
No server hears of it. A right one goes to the servers that work for the client at that moment, and to none that has
changed hands before the request leaves.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from node.errors import Fault
from node.reception import CLIENT_BITS, member_tag
from node.wire.startup import CancelRequest

if TYPE_CHECKING:
    from node.client.session import Session
    from node.server.connection import ServerConnection

log = logging.getLogger("pgmurmur.client")

SERVICE = "cancel"
# One attempt, and the client that asks waits for it; what is not forwarded by then is of no use to anybody.
FORWARD_TIMEOUT_S = 5.0
# To one member at a time. The channel is shared with rollouts and works on 64 questions per connection: most stay free.
FORWARDING_LIMIT = 16
# Requests that wait for their turn to be forwarded; more are dropped, as a lost packet would be.
WAITING_LIMIT = 1024
# Of one client, at work at the same time: more would only do the same again, each with a connection to the server.
PER_CLIENT_LIMIT = 4
# Of a forwarded request: the process id and the longest secret of protocol 3.2.
PAYLOAD_LIMIT_BYTES = 4 + 256


class Ask(Protocol):
    """`ControlChannel.request`."""

    def __call__(
        self, address: str, service: str, payload: bytes, timeout: float, *, node: str | None = None
    ) -> Awaitable[bytes]: ...


class Cancels:
    """`clients`: sessions of this node by the process id of their key. `peers`: control addresses of the others."""

    def __init__(self, clients: Mapping[int, Session], peers: Callable[[], Mapping[str, str]], ask: Ask) -> None:
        self._clients = clients
        self._peers = peers
        self._ask = ask
        self._slots: dict[str, asyncio.Semaphore] = {}  # of members with requests under way or waiting
        self._waiting: Counter[str] = Counter()
        self._at_work: Counter[int] = Counter()  # by process id
        self.dropped = 0

    async def request(self, request: CancelRequest) -> None:
        """Returns when nothing of it is under way any more, so that it cannot hit a later statement."""
        if await self._here(request.pid, request.secret):
            return
        owners = [(node, at) for node, at in self._peers().items() if member_tag(node) == request.pid >> CLIENT_BITS]
        if not owners:
            return
        if self._waiting.total() >= WAITING_LIMIT:
            self.dropped += 1
            if self.dropped & (self.dropped - 1) == 0:  # the first, second, fourth, eighth …
                log.warning("cancels_dropped count=%s", self.dropped)
            return
        for node, address in owners:
            await self._forward(node, address, request)

    async def _forward(self, node: str, address: str, request: CancelRequest) -> None:
        """A member that does not answer keeps its own requests waiting and no others."""
        payload = request.pid.to_bytes(4, "big") + request.secret
        slots = self._slots.setdefault(node, asyncio.Semaphore(FORWARDING_LIMIT))
        self._waiting[node] += 1
        try:
            async with slots:
                await self._ask(address, SERVICE, payload, FORWARD_TIMEOUT_S, node=node)
        except OSError as error:
            log.info("cancel_not_forwarded member=%s reason=%s", node, error)
        finally:
            self._waiting[node] -= 1
            if not self._waiting[node]:
                del self._waiting[node], self._slots[node]

    async def for_peer(self, sender: str, payload: bytes) -> bytes:
        """A member passes on what it was asked. It is never passed on again: two members cannot play ball with it."""
        if 4 < len(payload) <= PAYLOAD_LIMIT_BYTES:
            await self._here(int.from_bytes(payload[:4], "big"), payload[4:])
        return b""

    async def _here(self, pid: int, secret: bytes) -> bool:
        """False: not the key of a client of this node."""
        session = self._clients.get(pid)
        if session is None or not secrets.compare_digest(session.secret, secret):
            return False
        if self._at_work[pid] >= PER_CLIENT_LIMIT:
            return True
        self._at_work[pid] += 1
        try:
            # who works for this client now; each is asked again who it works for when its request leaves
            working = [(server, server.owner) for server in session.cancellable()]
            if len(working) == 1:
                await self._at_server(*working[0])  # at once, not in the loop's next turn
                return True
            held = [(server.pool, server) for server, _ in working if server.pool is not None]
            for pool, server in held:
                pool.hold(server)  # until its own request leaves it may end, and must not become another client's
            try:
                await asyncio.gather(*(self._at_server(server, owner) for server, owner in working))
            finally:
                for pool, server in held:
                    pool.let_go(server)
        finally:
            self._at_work[pid] -= 1
            if not self._at_work[pid]:
                del self._at_work[pid]
        return True

    @staticmethod
    async def _at_server(server: ServerConnection, owner: object) -> None:
        """No await between the look and the pool's note that a cancel is under way, by which it keeps the server."""
        if server.pool is None or server.owner is not owner or server.pipeline.idle():
            return
        try:
            await server.pool.cancel(server)
        except Fault as fault:
            log.info("cancel_failed server=%s reason=%s", server.pool.target.address, fault)
