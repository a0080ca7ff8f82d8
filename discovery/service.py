"""The shell around the core: one UDP socket, one timer, the control channel, and the ways to find a first member.

Dull on purpose: feed the core, perform its effects in order, re-arm the timer. What is believed about members is
decided in `table.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from discovery.buckets import Buckets, Complaints
from discovery.control import Clock, Control
from discovery.effects import Conflict, Effect, MemberChanged, PushPull, Reach, SendDatagram
from discovery.envelope import Envelope
from discovery.mdns import Mdns
from discovery.member import DIGEST_LIMIT_CHARS, Address, Member, State, check_name
from discovery.packet import Cause, PacketError, decode_exchange, encode_exchange
from discovery.seal import Keyring
from discovery.seeds import SavedPeers, check_seed, resolve_all
from discovery.settings import DiscoverySettings
from discovery.sockets import advertised_host, bind_udp, bound_address, for_socket, from_kernel

if TYPE_CHECKING:
    from random import Random

EXCHANGE = "gossip.exchange"
REACH = "gossip.reach"
SUGGESTED_LIMIT = 256
LONELY_LIMIT_S = 10.0
SAVE_DELAY_S = 2.0

log = logging.getLogger("pgmurmur.discovery")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """One row of SHOW PEERS."""

    node: str
    addr: str  # the client address, as an application would write it
    gossip: Address
    client: Address
    state: State
    incarnation: int
    boot: bytes
    clients: int
    version: int
    digest: str
    protocol: tuple[int, int]
    last_seen_utc: float
    me: bool
    conflict: bool  # another live process uses this name


class Discovery:
    """Who is in the flock. `start`, then `members` and `on_change`; `leave` and `stop` at the end.

    `random` must be unpredictable (random.SystemRandom) outside tests. An empty keyring means: this host only.
    """

    def __init__(
        self, me: Member, settings: DiscoverySettings, control: Control, keyring: Keyring, clock: Clock, random: Random
    ) -> None:
        """Raises ValueError for a bad node name, seed or profile."""
        check_name(me.node)
        for seed in settings.seeds:
            check_seed(seed)
        settings.swim_settings(me.gossip)
        self._first = me
        self._settings = settings
        self._control = control
        self._keyring = keyring
        self._clock = clock
        self._random = random
        self._mark = hashlib.sha256(settings.flock.encode()).digest()[:16]
        self._saved = SavedPeers(settings.state_dir, settings.flock)
        self._buckets = Buckets(settings.source_rate_per_s, settings.sources_limit)
        self._complaints = Complaints()
        self._callbacks: list[Callable[[MemberView], None]] = []
        self._conflicts: dict[str, None] = {}
        self._suggested: dict[Address, None] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._exchanges = 0
        self._core: Envelope | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._family = socket.AF_INET
        self._mdns: Mdns | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = float("inf")
        self._saving: asyncio.TimerHandle | None = None
        self._peers_saved = False
        self._saving_incarnation = False
        self.counters: dict[str, int] = {}

    # -- life -------------------------------------------------------------------------------------------------------

    async def start(self, sock: socket.socket | None = None) -> None:
        """Bind (or take a bound UDP socket, see `sockets.bind_pair`), announce, look for members. Raises OSError."""
        settings, me = self._settings, self._first
        if sock is None:
            sock = bind_udp(settings.bind or me.gossip)
        bound = bound_address(sock)
        self._family = sock.family
        host = advertised_host(me.gossip.host)
        if not self._keyring and me.gossip.is_wildcard:
            host = "::1" if host == "::1" or (":" in host and self._family == socket.AF_INET6) else "127.0.0.1"
        gossip = Address(host, bound.port)
        if not self._keyring and not gossip.is_loopback:
            log.warning("discovery_without_key address=%s hint=%r", gossip, "only members on this host are accepted")
        incarnation = self._saved.next_incarnation(me.incarnation)
        me = replace(me, gossip=gossip, incarnation=incarnation)
        swim = settings.swim_settings(gossip)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self._datagram), sock=sock)
        self._core = Envelope(
            me, swim, keyring=self._keyring, flock=settings.flock, random=self._random, now=self._clock.now()
        )
        self._control.handle(EXCHANGE, self._answer_exchange)
        self._control.handle(REACH, self._answer_reach)
        log.info(
            "discovery_started node=%s gossip=%s flock=%s incarnation=%d", me.node, gossip, settings.flock, incarnation
        )
        self._arm()
        self._spawn(self._seek(), "discovery seek")
        if settings.mdns:
            self._mdns = Mdns(me, gossip if gossip.is_loopback else bound, settings.flock, self._suggest)
            await self._mdns.start()

    async def leave(self) -> None:
        """Tell the others that we go, so that they need not wonder. Returns after `leave_spread_s` at the latest."""
        core = self._running()
        now = self._clock.now()
        self._perform(core.sealed(core.swim.leave(now), now))
        end = now + self._settings.swim_settings(core.swim.me.gossip).leave_spread_s
        while self._clock.now() < end and core.swim.rows and not core.swim.spread:
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Close everything, without a word to the others (see `leave`). Harmless twice, or after a failed start."""
        for handle in (self._timer, self._saving):
            if handle is not None:
                handle.cancel()
        self._timer = self._saving = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._mdns is not None:
            await self._mdns.stop()
            self._mdns = None
        if self._transport is not None:
            self._save_peers()
            self._transport.close()
            self._transport = None

    # -- asking and telling -----------------------------------------------------------------------------------------

    @property
    def me(self) -> Member:
        """This member; after `start` with its real gossip address and incarnation."""
        return self._core.swim.me if self._core is not None else self._first

    @property
    def health(self) -> int:
        """Lifeguard's local health score, 0 (well) to 8."""
        return self._running().swim.health

    @property
    def mdns_problem(self) -> str | None:
        """Why mDNS does not work here, None while it does or is off."""
        return self._mdns.problem if self._mdns is not None else None

    def members(self) -> list[MemberView]:
        """Everybody known, ourselves first, then by node name."""
        core = self._running()
        utc, now = self._clock.utc(), self._clock.now()
        views = [self._view(core.swim.me, State.ALIVE, utc)]
        for node in sorted(core.swim.rows):
            row = core.swim.rows[node]
            views.append(self._view(row.member, row.state, utc - (now - row.heard)))
        return views

    def update_meta(self, *, clients: int | None = None, version: int | None = None, digest: str | None = None) -> None:
        """What others show about us. Cheap; versions spread at once, client counts once per `news_interval_s`.
        Raises ValueError for a digest that is not hex of at most 64 digits, or a negative number.
        """
        if digest is not None and (len(digest) > DIGEST_LIMIT_CHARS or bytes.fromhex(digest).hex() != digest):
            raise ValueError("a configuration digest must be lower case hex of at most 64 digits")
        if min(clients or 0, version or 0) < 0:
            raise ValueError("client counts and versions are not negative")
        core = self._running()
        effects = core.swim.update_meta(clients=clients, version=version, digest=digest, now=self._clock.now())
        if effects:
            self._perform(effects)
            self._arm()

    def on_change(self, callback: Callable[[MemberView], None]) -> None:
        """Call back, in the event loop, with the new view of whoever changed; one that left vanishes silently."""
        self._callbacks.append(callback)

    def lag(self, seconds: float) -> None:
        """The event loop ran this late: be slower to accuse others."""
        if self._core is not None:
            self._core.swim.lag(seconds, self._clock.now())

    def evict(self, node: str) -> bool:
        """Declare a member gone, everywhere. False when nobody has that name. If it is alive, it comes back."""
        core = self._running()
        if node not in core.swim.rows:
            return False
        now = self._clock.now()
        self._perform(core.sealed(core.swim.evict(node, now), now))
        self._arm()
        return True

    # -- the core's world -------------------------------------------------------------------------------------------

    def _running(self) -> Envelope:
        if self._core is None:
            raise RuntimeError("discovery has not been started")
        return self._core

    def _datagram(self, data: bytes, source: Address) -> None:
        core, now = self._core, self._clock.now()
        self._count("datagrams_received")
        if core is None:  # `start` has the socket but goes on after others: whoever knows us of old speaks at once
            return
        # On loopback every member has the same host, and only this host can be flooding.
        if not self._buckets.take(str(source) if source.is_loopback else source.host, now):
            self._refuse("rate", source, "too many datagrams")
            return
        try:
            effects = core.receive(data, source, now)
        except PacketError as error:
            self._refuse(error.cause, source, str(error))
            return
        self._perform(effects)
        self._arm()

    def _tick(self) -> None:
        core, now = self._running(), self._clock.now()
        due, self._armed = self._armed, float("inf")
        if now > due:
            core.swim.lag(now - due, now)
        self._perform(core.tick(max(now, due)))  # a timer may fire a little early; then it would fire again at once
        self._arm()

    def _arm(self) -> None:
        """One timer. It is moved only forward in time when it fires: firing early costs less than moving it."""
        deadline = self._running().deadline
        if deadline >= self._armed or self._transport is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - self._clock.now()), self._tick)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendDatagram(address, data):
                    self._send(address, data)
                case PushPull(_, address, full):
                    if self._exchanges < self._settings.exchanges_limit:
                        self._spawn(self._push_pull(address, full), "discovery push-pull")
                case Reach(node, address, sequence):
                    if self._exchanges < self._settings.exchanges_limit:
                        self._spawn(self._reach(node, address, sequence), "discovery reach")
                case MemberChanged():
                    self._changed(effect)
                case Conflict(node, mine):
                    self._conflicts[node] = None
                    log.warning(
                        "name_conflict member=%s mine=%s hint=%r", node, mine, "give each process its own node id"
                    )
                    self._tell(node)

    def _send(self, address: Address, data: bytes) -> None:
        target = for_socket(address, self._family)
        if self._transport is None or target is None:
            self._count("datagrams_unsendable")
            return
        try:
            self._transport.sendto(data, target)
            self._count("datagrams_sent")
            self._count("bytes_sent", len(data))
        except OSError as error:
            self._refuse("send", address, str(error))

    def _changed(self, change: MemberChanged) -> None:
        core = self._running()
        if change.reason != "news":
            line = "member_changed member=%s before=%s after=%s reason=%r"
            log.info(line, change.node, change.before, change.after, change.reason)
            self._conflicts.pop(change.node, None)
            if change.node == core.swim.me.node:
                if not self._saving_incarnation:
                    self._saving_incarnation = True
                    self._spawn(self._save_incarnation(), "discovery save")
            elif self._saving is None:
                # The first peer is saved at once: without a seed a node that dies young finds back by it alone.
                delay = SAVE_DELAY_S if self._peers_saved else 0.0
                self._saving = asyncio.get_running_loop().call_later(delay, self._save_peers)
        self._tell(change.node)

    def _tell(self, node: str) -> None:
        core = self._running()
        views = [view for view in self.members() if view.node == node] if node in core.swim.rows else []
        if node == core.swim.me.node:
            views = self.members()[:1]
        for view in views:
            for callback in self._callbacks:
                try:
                    callback(view)
                except Exception:
                    log.exception("change_callback_failed member=%s", node)

    def _view(self, member: Member, state: State, last_seen_utc: float) -> MemberView:
        return MemberView(
            node=member.node,
            addr=str(member.client),
            gossip=member.gossip,
            client=member.client,
            state=state,
            incarnation=member.incarnation,
            boot=member.boot,
            clients=member.clients,
            version=member.version,
            digest=member.digest,
            protocol=member.protocol,
            last_seen_utc=last_seen_utc,
            me=member.boot == self.me.boot,
            conflict=member.node in self._conflicts,
        )

    # -- control channel --------------------------------------------------------------------------------------------

    async def _push_pull(self, address: Address, full: bool) -> None:
        core = self._running()
        self._exchanges += 1
        try:
            request = self._mark + encode_exchange(core.swim.exchange_request(full))
            payload = await self._control.request(str(address), EXCHANGE, request, self._settings.exchange_timeout_s)
            answer, now = decode_exchange(payload), self._clock.now()
            self._perform(core.sealed(core.swim.exchange_result(answer, full, now), now))
            self._arm()
            self._count("exchanges")
        except (OSError, PacketError) as error:
            self._refuse("exchange", address, str(error) or type(error).__name__)
        finally:
            self._exchanges -= 1

    async def _reach(self, node: str, address: Address, sequence: int) -> None:
        core = self._running()
        timeout = self._settings.swim_settings(core.swim.me.gossip).probe_interval_s * 2
        self._exchanges += 1
        try:
            await self._control.request(str(address), REACH, self._mark, timeout, node=node)
            core.swim.reached(node, sequence, self._clock.now())
        except OSError as error:
            self._count("reach_failed")
            if isinstance(error, ConnectionRefusedError) or getattr(error, "refused", False):
                core.swim.refused(node, sequence)
        finally:
            self._exchanges -= 1

    async def _answer_exchange(self, asker: str, payload: bytes) -> bytes:
        """A peer's view for ours. Raises PacketError for another flock's, a malformed one, or one in another's name."""
        core, now = self._running(), self._clock.now()
        try:
            self._check_mark(payload)
            request = decode_exchange(payload[len(self._mark) :])
            if request.member.node != asker:
                raise PacketError(Cause.UNPROVEN, "view of somebody else")
            answer, effects = core.swim.exchange_answer(request, now)
        except PacketError as error:
            self._count(f"refused_{error.cause}")
            raise
        self._perform(core.sealed(effects, now))
        self._arm()
        return encode_exchange(answer)

    async def _answer_reach(self, asker: str, payload: bytes) -> bytes:
        self._check_mark(payload)
        return self.me.node.encode()

    def _check_mark(self, payload: bytes) -> None:
        if payload[: len(self._mark)] != self._mark:
            raise PacketError(Cause.FOREIGN, "another flock")

    # -- finding ----------------------------------------------------------------------------------------------------

    def _suggest(self, address: Address) -> None:
        """mDNS heard of an address: greet it now, and again while we know nobody (the greeting may get lost)."""
        core = self._core
        if core is None or address == core.swim.me.gossip:
            return
        self._suggested.pop(address, None)
        if len(self._suggested) >= SUGGESTED_LIMIT:
            del self._suggested[next(iter(self._suggested))]
        self._suggested[address] = None
        self._greet([address])

    def _greet(self, addresses: list[Address], *, by_stream: bool = False) -> None:
        core, now = self._running(), self._clock.now()
        self._perform(core.join(addresses, now, by_stream=by_stream))

    async def _seek(self) -> None:
        """Ask seeds again and again: soon while we are alone, now and then afterwards."""
        core, settings = self._running(), self._settings
        saved = self._saved.load()
        wait_s = settings.join_interval_s
        while True:
            seeds = await resolve_all(settings.seeds, core.swim.me.gossip.port)
            # The first greeting in vain may just be early: three nodes of a demo start at once.
            self._greet([*seeds, *saved, *self._suggested], by_stream=wait_s > settings.join_interval_s)
            if any(row.state.reachable for row in core.swim.rows.values()):
                wait_s = settings.join_interval_s
                await asyncio.sleep(settings.resolve_interval_s * (1 + self._random.random() / 4))
            else:
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, LONELY_LIMIT_S, settings.resolve_interval_s)

    async def _save_incarnation(self) -> None:
        """One writer at a time: two would share the temporary file, and the older number might be written last."""
        core, saved = self._running(), -1
        try:
            while saved != core.swim.me.incarnation:
                saved = core.swim.me.incarnation
                await asyncio.to_thread(self._saved.save_incarnation, saved)
        finally:
            self._saving_incarnation = False

    def _save_peers(self) -> None:
        self._saving = None
        self._peers_saved = True
        rows = self._running().swim.rows.values()
        self._saved.save(row.member.gossip for row in rows if row.state is not State.LEFT)

    # -- helpers ----------------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("discovery_task_failed task=%s", task.get_name(), exc_info=task.exception())

    def _count(self, name: str, by: int = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + by

    def _refuse(self, cause: str, source: Address, detail: str) -> None:
        self._count(f"refused_{cause}")
        quiet = self._complaints.due(cause, self._clock.now())
        if quiet is not None:
            log.info("gossip_refused cause=%s source=%s detail=%r unlogged=%d", cause, source, detail, quiet)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes, Address], None]) -> None:
        self._receive = receive

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._receive(data, from_kernel((addr[0], addr[1])))

    def error_received(self, exc: Exception) -> None:
        """ICMP says nobody listens there. The probe's timeout will tell; one error must not end discovery."""
