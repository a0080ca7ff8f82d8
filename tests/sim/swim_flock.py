"""A simulated flock: real cores, sealed datagrams, and push-pulls over a TCP that retransmits what gets lost."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from sim.world import Member as Process
from sim.world import Network, World

from discovery.effects import Conflict, Effect, MemberChanged, PushPull, Reach, SendDatagram
from discovery.envelope import Envelope
from discovery.member import Address, Member, State
from discovery.packet import PacketError, decode_exchange, encode_exchange
from discovery.seal import Keyring
from discovery.settings import LAN, SwimSettings
from discovery.swim import Swim

KEY = bytes(range(32))
TCP_TIMEOUT_S = 10.0
TCP_RETRANSMIT_S = 0.2


class Core:
    """An Envelope that drops what it refuses, as the service does."""

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self.refused: dict[str, int] = {}

    @property
    def swim(self) -> Swim:
        return self.envelope.swim

    @property
    def deadline(self) -> float:
        return self.envelope.deadline

    def tick(self, now: float) -> list[Effect]:
        return self.envelope.tick(now)

    def receive(self, message: bytes, source: Address, now: float) -> list[Effect]:
        try:
            return self.envelope.receive(message, source, now)
        except PacketError as error:
            self.refused[error.cause] = self.refused.get(error.cause, 0) + 1
            return []


class Flock:
    """N members `n0`, `n1`, ... that all know the address of `n0`."""

    def __init__(
        self,
        seed: int,
        count: int,
        *,
        network: Network | None = None,
        settings: SwimSettings = LAN,
        seeds: int = 1,
        event_limit: int = 300_000,
        keyring: Callable[[str], Keyring] = lambda node: Keyring([KEY]),
        flock: Callable[[str], str] = lambda node: "test",
        asleep: tuple[str, ...] = (),
    ) -> None:
        self.world = World(seed, network, event_limit)
        self.settings = settings
        self.nodes = [f"n{i}" for i in range(count)]
        self.seeds = [self.address(node) for node in self.nodes[:seeds]]
        self.changes: list[tuple[float, str, MemberChanged]] = []
        self.conflicts: list[tuple[float, str, Conflict]] = []
        self.datagrams: list[tuple[Address, Address, bytes]] = []
        self.record = False
        self.bytes_sent = 0
        self._names: dict[Any, str] = {self.address(node): node for node in self.nodes}
        self._keyring = keyring
        self._flock = flock
        for i, node in enumerate(self.nodes):
            self.world.add(self.address(node), self._builder(node), self.perform, None if node in asleep else 0.01 * i)

    @staticmethod
    def address(node: str) -> Address:
        number = int(node.lstrip("abcdefghijklmnopqrstuvwxyz"))
        return Address(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 7000)

    def process(self, node: str) -> Process:
        return self.world.members[self.address(node)]

    def core(self, node: str) -> Core:
        core: Core = self.process(node).core
        return core

    def _builder(self, node: str) -> Callable[[Process], Core]:
        def build(process: Process) -> Core:
            incarnation = process.disk.read("incarnation", 0) + 1
            process.disk.write("incarnation", incarnation)
            process.disk.sync()
            random = Random(self.world.random.getrandbits(64))
            me = Member(
                node=node,
                gossip=self.address(node),
                client=Address(self.address(node).host, 6432),
                boot=random.randbytes(16),
                incarnation=incarnation,
            )
            envelope = Envelope(
                me,
                self.settings,
                keyring=self._keyring(node),
                flock=self._flock(node),
                random=random,
                now=process.now,
            )
            process.later(0.0, lambda core, now: self._join(process, core, now, 0))
            return Core(envelope)

        return build

    def _join(self, process: Process, core: Core, now: float, attempt: int) -> list[Effect]:
        """Seeds are asked again until somebody answers, as the service does."""
        if core.swim.rows:
            return []
        process.later(1.0, lambda core, now: self._join(process, core, now, attempt + 1))
        return core.envelope.join(self.seeds, now, by_stream=attempt > 0)

    # -- effects ----------------------------------------------------------------------------------------------------

    def perform(self, process: Process, effect: Any) -> None:
        me: Any = process.name
        match effect:
            case SendDatagram(address, data):
                self.bytes_sent += len(data)
                if self.record:
                    self.datagrams.append((me, address, data))
                self.world.send(me, address, data)
            case PushPull(_, address, full):
                request = encode_exchange(process.core.swim.exchange_request(full))
                self._call(process, address, lambda peer: self._answer(process, address, peer, request, full))
            case Reach(node, address, sequence):
                self._call(process, address, lambda peer: self._answer_reach(process, address, peer, node, sequence))
            case MemberChanged():
                self.changes.append((self.world.now, process.core.swim.me.node, effect))
            case Conflict():
                self.conflicts.append((self.world.now, process.core.swim.me.node, effect))

    def _answer(self, process: Process, address: Address, peer: Process, request: bytes, full: bool) -> None:
        def answer(core: Core, now: float) -> list[Effect]:
            reply, effects = core.swim.exchange_answer(decode_exchange(request), now)
            packed = encode_exchange(reply)
            self._call_back(
                process,
                address,
                lambda core, now: core.envelope.sealed(
                    core.swim.exchange_result(decode_exchange(packed), full, now), now
                ),
            )
            return core.envelope.sealed(effects, now)

        peer.feed(answer)

    def _answer_reach(self, process: Process, address: Address, peer: Process, node: str, sequence: int) -> None:
        def answer(core: Core, now: float) -> list[Effect]:
            """Only a loop that runs answers."""
            self._call_back(process, address, lambda core, now: core.swim.reached(node, sequence, now))
            return []

        if peer.up:
            peer.feed(answer)
        else:  # the host is there, the process is not
            self._call_back(process, address, lambda core, now: core.swim.refused(node, sequence))

    def _tcp_delay(self) -> float:
        """One flight each way; a lost segment costs a doubling retransmission time."""
        delay = 0.0
        for _ in range(2):
            wait = TCP_RETRANSMIT_S
            while self.world.random.random() < self.world.network.loss:
                delay += wait
                wait *= 2
        return delay + 0.002

    def _connected(self, a: Any, b: Any) -> bool:
        cuts = self.world.network.cuts
        return (a, b) not in cuts and (b, a) not in cuts

    def _trusted(self, a: str, b: str) -> bool:
        """TLS: no control channel between other flocks or without a common key."""
        return self._flock(a) == self._flock(b) and self._keyring(a).shares(self._keyring(b))

    def _call(self, process: Process, address: Address, arrive: Callable[[Process], None]) -> None:
        life, delay = process.life, self._tcp_delay()

        def deliver() -> None:
            peer = self.world.members.get(address)
            if peer is None or process.life != life:
                return
            if self._connected(process.name, address) and self._trusted(
                self._names[process.name], self._names[address]
            ):
                arrive(peer)

        if delay < TCP_TIMEOUT_S:
            self.world.after(delay, deliver)

    def _call_back(self, process: Process, address: Address, event: Callable[[Any, float], list[Any]]) -> None:
        life, delay = process.life, self._tcp_delay()

        def deliver() -> None:
            if process.up and process.life == life and self._connected(process.name, address):
                process.feed(event)

        if delay < TCP_TIMEOUT_S:
            self.world.after(delay, deliver)

    # -- asking -----------------------------------------------------------------------------------------------------

    def states(self, node: str) -> dict[str, State]:
        return {name: row.state for name, row in self.core(node).swim.rows.items()}

    def all_alive(self) -> bool:
        """Everybody who is up sees everybody who is up alive, in its present life."""
        up = [node for node in self.nodes if self.process(node).up]
        for node in up:
            rows = self.core(node).swim.rows
            for other in up:
                if other == node:
                    continue
                row = rows.get(other)
                if row is None or row.state is not State.ALIVE or row.member.boot != self.core(other).swim.me.boot:
                    return False
        return True

    def acquainted(self) -> bool:
        """Everybody knows everybody, suspects included: under heavy loss somebody is always suspected."""
        for node in self.nodes:
            if not self.process(node).up:
                return False
            states = self.states(node)
            if not all(other == node or (other in states and states[other].reachable) for other in self.nodes):
                return False
        return True

    def all_see(self, node: str, *states: State) -> bool:
        others = [name for name in self.nodes if name != node and self.process(name).up]
        return all(self.states(name).get(node) in states for name in others)

    def false_deaths(self, since: float = 0.0) -> list[tuple[float, str, str]]:
        return [(at, by, c.node) for at, by, c in self.changes if c.after is State.DEAD and at >= since]
