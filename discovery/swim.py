"""SWIM with Lifeguard: when to say what to whom. What to believe is in `table.py`, whom to ask in `probe.py`.

A core without I/O: `receive`, `tick` and a few events return effects that somebody performs in order; `tick` is wanted
no later than `deadline`. Times are seconds of any clock that does not jump.

Papers: SWIM (Das, Gupta, Motivala 2002), Lifeguard (Dadgar, Phillips, Currey 2017). Additions of ours, each argued
where it stands: suspects are pinged out of turn, suspicions stretch while we doubt ourselves, and time in which this
process did not run counts against nobody. Gossip decides nothing: no configuration hangs on what is said here.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from discovery.awareness import Awareness
from discovery.effects import Conflict, Effect, MemberChanged, PushPull, Reach, Send
from discovery.member import Address, Member, State
from discovery.packet import (
    RUMOR_BUDGET_BYTES,
    Ack,
    Alive,
    Echo,
    Exchange,
    Gossip,
    Hello,
    Left,
    Message,
    Nack,
    Ping,
    PingRequest,
    Rumor,
    rumor_size_bytes,
)
from discovery.probe import INFINITY, Prober, Turn
from discovery.settings import SwimSettings
from discovery.table import Row, Table, changing_facts

if TYPE_CHECKING:
    from random import Random

DOUBT_PINGS_PER_INTERVAL = 10  # to one suspect, by the whole flock together
STREAM_JOINS = 8  # addresses tried over the control channel at a time
LEAVE_DIRECTLY = 32  # members told in person that we leave


class Sender(NamedTuple):
    """Who sealed a message, as proved by the envelope."""

    node: str
    boot: bytes


class Swim:
    """This node's part in the membership protocol."""

    def __init__(self, me: Member, settings: SwimSettings, random: Random, now: float) -> None:
        self._settings = settings
        self._random = random
        self._awareness = Awareness(settings.awareness_limit, settings.probe_interval_s)
        self._table = Table(me, settings, self._awareness)
        self._prober = Prober(settings, self._awareness, random)
        self._probe_at = now + random.random() * settings.probe_interval_s  # not all members in step
        self._push_pull_at = now + (0.5 + random.random()) * settings.push_pull_interval_s
        self._retry_at = now + (0.5 + random.random()) * settings.dead_retry_interval_s
        self._gossip_at = now
        self._news_at = now
        self._news_waits = False
        self._conflict_at: dict[str, float] = {}

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def me(self) -> Member:
        return self._table.me

    @property
    def rows(self) -> dict[str, Row]:
        """The others, by node name. Read only."""
        return self._table.rows

    @property
    def health(self) -> int:
        """Lifeguard's local health multiplier, 0 (well) to 8."""
        return self._awareness.score

    @property
    def conceded(self) -> bool:
        """A newer process uses our name, so we are silent."""
        return self._table.conceded

    @property
    def spread(self) -> bool:
        """Nothing is waiting to be told."""
        return not len(self._table.queue)

    @property
    def deadline(self) -> float:
        if self._table.conceded:
            return INFINITY
        soonest = self._table.deadline
        if not self._table.leaving:
            soonest = min(soonest, self._probe_at, self._push_pull_at, self._prober.deadline)
            if any(row.state is State.DEAD for row in self.rows.values()):
                soonest = min(soonest, self._retry_at)
        if self._news_waits:
            soonest = min(soonest, self._news_at)
        if self._anything_to_gossip():
            soonest = min(soonest, self._gossip_at)
        return soonest

    # -- events -----------------------------------------------------------------------------------------------------

    def join(self, addresses: list[Address], *, by_stream: bool = False) -> list[Effect]:
        """Greet addresses that may be members; those we know to be reachable are left alone. `by_stream`: also over
        the control channel, for when greetings get lost.
        """
        known = {row.member.gossip: None for row in self._table.reachable()}
        known[self.me.gossip] = None
        wanted = [address for address in dict.fromkeys(addresses) if address not in known]
        effects: list[Effect] = [Send(address, None, Hello(self.me)) for address in wanted]
        if by_stream:
            effects += [PushPull("", address, full=True) for address in wanted[:STREAM_JOINS]]
        return effects

    def receive(self, message: Message, sender: Sender, source: Address, now: float) -> list[Effect]:
        """One message whose seal held and which is new. Unknown senders and former boots are told so, not believed."""
        if self._table.conceded or sender == (self.me.node, self.me.boot):
            return []
        effects: list[Effect] = []
        rumors = getattr(message, "rumors", ())
        match message:
            case Hello(member) | Echo(_, _, member):
                effects += self._met(member, now)
            case _:
                # What the sender says about itself comes first: it may be why its boot is believed.
                for rumor in rumors:
                    if isinstance(rumor, Alive) and rumor.member.node == sender.node:
                        effects += self._met(rumor.member, now)
        row = self.rows.get(sender.node)
        if row is None:
            return [*effects, self._send(source, sender.node, Hello(self.me))]
        if row.member.boot != sender.boot:
            return effects + self._former_boot(row, source, now)
        row.heard = now
        for rumor in rumors:
            effects += self._table.hear(rumor, now)
        effects += self._answer(message, sender, source, now)
        if not row.state.reachable and not isinstance(message, Ping | Hello):
            # It lives, but only its own word changes our mind. The answers to Ping and Hello carry this already.
            effects.append(self._send(source, sender.node, Gossip(())))
        return self._noticed(effects)

    def reached(self, node: str, sequence: int, now: float) -> None:
        """The control channel answered for this member although its datagrams did not."""
        row = self.rows.get(node)
        if row is not None and self._prober.answered(node, sequence):
            row.heard = now

    def refused(self, node: str, sequence: int) -> None:
        """The member's host says that nobody listens there: a failed probe is then no sign of trouble on our side."""
        self._prober.refused(node, sequence)

    def lag(self, seconds: float, now: float) -> None:
        """The event loop was this late. From half of the probe timeout on it lifts the local health score."""
        self._awareness.lag(seconds, self._settings.probe_timeout_s / 2, now)

    def update_meta(self, *, clients: int | None, version: int | None, digest: str | None, now: float) -> list[Effect]:
        """New facts about ourselves. Versions spread at once, client counts at most once per `news_interval_s`."""
        me = self.me
        fresh = replace(
            me,
            clients=me.clients if clients is None else clients,
            version=me.version if version is None else version,
            digest=me.digest if digest is None else digest,
        )
        if fresh == me:
            return []
        self._table.me = replace(fresh, stamp=me.stamp + 1)
        if (fresh.version, fresh.digest) != (me.version, me.digest):
            self._news_at = min(self._news_at, now)
        self._news_waits = True
        return [MemberChanged(me.node, State.ALIVE, State.ALIVE, "news")]

    def leave(self, now: float) -> list[Effect]:
        """Say good-bye: in person to a few, by rumor to all. Keep ticking for `leave_spread_s` or until `spread`."""
        table = self._table
        if table.leaving or table.conceded:
            return []
        table.leaving = True
        table.tell(Left(self.me.node, self.me.incarnation, self.me.node))
        told = self._sample(table.reachable(), LEAVE_DIRECTLY)
        farewell = (Left(self.me.node, self.me.incarnation, self.me.node),)
        return [Send(row.member.gossip, row.member.node, Gossip(farewell)) for row in told]

    def evict(self, node: str, now: float) -> list[Effect]:
        """An operator declares a member gone. If it lives after all, it says so and is back: gossip decides nothing."""
        row = self.rows.get(node)
        if row is None:
            return []
        return self._noticed(self._table.left(node, row.member.incarnation, self.me.node, now))

    def tick(self, now: float) -> list[Effect]:
        """Everything that is due. Late ticks are noticed: the time in between was ours, not the others'."""
        table = self._table
        if table.conceded:
            return []
        self._awareness.settle(now)
        effects: list[Effect] = []
        if not table.leaving:
            stall = now - min(self._probe_at, self._prober.deadline)
            if stall > self._settings.probe_timeout_s:
                self._forgive(stall, now)
            effects += self._probe(now)
            effects += self._compare(now)
            effects += self._retry(now)
            for relay in self._prober.owed_nacks(now):
                effects.append(self._send(relay.source, relay.asker, Nack(relay.sequence)))
        effects += table.expire(now)
        if self._news_waits and now >= self._news_at:
            self._news_waits = False
            self._news_at = now + self._settings.news_interval_s
            table.tell(changing_facts(self.me))
        effects += self._gossip(now)
        return self._noticed(effects)

    # -- push-pull --------------------------------------------------------------------------------------------------

    def exchange_request(self, full: bool) -> Exchange:
        """What to send first: by digest when views are probably equal, in full after meeting somebody."""
        return Exchange(self.me, self._table.digest(), self._table.entries() if full else None)

    def exchange_answer(self, request: Exchange, now: float) -> tuple[Exchange, list[Effect]]:
        """Merge what the peer sent and answer with our view where it differs."""
        effects = self._merge(request, now)
        digest = self._table.digest()
        differs = request.entries is not None or request.digest != digest
        return Exchange(self.me, digest, self._table.entries() if differs else None), effects

    def exchange_result(self, answer: Exchange, was_full: bool, now: float) -> list[Effect]:
        """Merge the answer; when the peer still lacks something and has not seen our view, send it."""
        effects = self._merge(answer, now)
        if not was_full and answer.digest != self._table.digest():
            member = answer.member
            effects.append(PushPull(member.node, member.gossip, full=True))
        return effects

    def _merge(self, exchange: Exchange, now: float) -> list[Effect]:
        if self._table.conceded or exchange.member.node == self.me.node:
            return []
        effects = self._table.alive(exchange.member, now)  # no PushPull: this is one
        row = self.rows.get(exchange.member.node)
        if row is None or row.member.boot != exchange.member.boot:
            return self._noticed(effects)  # a former boot, or beyond the limit: its view counts no more
        row.heard = now
        return self._noticed(effects + self._table.merge(exchange, now))

    # -- receiving --------------------------------------------------------------------------------------------------

    def _met(self, member: Member, now: float) -> list[Effect]:
        """A record from the member itself. Whoever is new or back gets our whole view, and gives us its own."""
        row = self.rows.get(member.node)
        lost = row is None or not row.state.reachable
        effects = self._table.alive(member, now)
        row = self.rows.get(member.node)
        if lost and row is not None and row.state.reachable:
            effects.append(PushPull(member.node, member.gossip, full=True))
        return effects

    def _former_boot(self, row: Row, source: Address, now: float) -> list[Effect]:
        """A process with a name that a newer one has taken. It is told by whom; if it goes on, two are alive."""
        node = row.member.node
        effects: list[Effect] = [Send(source, None, Gossip((Alive(row.member),)))]
        patience_s = 3 * self._settings.probe_interval_s  # packets of a boot that just ended
        if row.state is State.ALIVE and now >= max(row.boot_since + patience_s, self._conflict_at.get(node, now)):
            self._conflict_at[node] = now + 60.0
            effects.append(Conflict(node, mine=False))
        return effects

    def _answer(self, message: Message, sender: Sender, source: Address, now: float) -> list[Effect]:
        prober = self._prober
        match message:
            case Ping(sequence, target):
                if target == self.me.node and not self._table.leaving:
                    return [self._send(source, sender.node, Ack(sequence))]
            case Ack(sequence):
                self._table.established = True
                relay = prober.relays.get(sequence)
                if relay is not None and relay.node == sender.node:
                    del prober.relays[sequence]
                    return [self._send(relay.source, relay.asker, Ack(relay.sequence))]
                if not prober.answered(sender.node, sequence):
                    prober.relayed(sequence, sender.node)
            case PingRequest(sequence, target):
                row = self.rows.get(target)
                mine = prober.relay(sender.node, source, sequence, target, now) if row is not None else None
                if row is None or mine is None:
                    return [self._send(source, sender.node, Nack(sequence))]
                return [self._send(row.member.gossip, target, Ping(mine, target))]
            case Nack(sequence):
                prober.nacked(sequence, sender.node)
            case Hello():
                return [self._send(source, sender.node, Gossip((Alive(self.me),)))]
            case Echo():
                # A handshake that just succeeded proves as much as an ack: the peer had only forgotten us.
                prober.answered(sender.node)
        return []

    # -- on time ----------------------------------------------------------------------------------------------------

    def _probe(self, now: float) -> list[Effect]:
        prober, effects = self._prober, list[Effect]()
        match prober.turn(now):
            case Turn.ASK_OTHERS:
                effects += self._ask_others(now)
            case Turn.FAILED:
                failed = prober.probe
                assert failed is not None
                prober.fail()
                row = self.rows.get(failed.node)
                if row is not None:
                    effects += self._table.suspect(failed.node, row.member.incarnation, self.me.node, now)
        if now >= self._probe_at and (prober.probe is None or prober.probe.done):
            probe = prober.open([row.member.node for row in self._table.reachable()], now)
            self._probe_at = now + self._awareness.scale(self._settings.probe_interval_s)
            if probe is not None:
                target = self.rows[probe.node].member.gossip
                effects.append(self._send(target, probe.node, Ping(probe.sequence, probe.node)))
        elif now >= self._probe_at and prober.probe is not None:
            self._probe_at = prober.probe.end_at
        return effects

    def _ask_others(self, now: float) -> list[Effect]:
        probe = self._prober.probe
        assert probe is not None
        row = self.rows.get(probe.node)
        if row is None:
            return []
        helpers = [r for r in self.rows.values() if r.state is State.ALIVE and r is not row]
        effects: list[Effect] = []
        for helper in self._sample(helpers, self._settings.indirect_probes):
            probe.asked[helper.member.node] = False
            request = PingRequest(probe.sequence, probe.node)
            effects.append(self._send(helper.member.gossip, helper.member.node, request))
        effects.append(Reach(probe.node, row.member.gossip, probe.sequence))
        return effects

    def _compare(self, now: float) -> list[Effect]:
        """Anti-entropy: rumors reach nearly everybody nearly always, a comparison of views reaches the rest."""
        if now < self._push_pull_at:
            return []
        size = self._table.size
        slower = math.ceil(math.log2(size) - 5) + 1 if size > 32 else 1
        self._push_pull_at = now + self._settings.push_pull_interval_s * slower * (0.9 + 0.2 * self._random.random())
        chosen = self._sample(self._table.reachable(), 1)
        return [PushPull(row.member.node, row.member.gossip, full=False) for row in chosen]

    def _retry(self, now: float) -> list[Effect]:
        """After a split both sides hold each other dead, and nobody pings the dead: so one is tried now and then."""
        if now < self._retry_at:
            return []
        self._retry_at = now + self._settings.dead_retry_interval_s * (0.9 + 0.2 * self._random.random())
        chosen = self._sample([row for row in self.rows.values() if row.state is State.DEAD], 1)
        return [Send(row.member.gossip, None, Hello(self.me)) for row in chosen]

    def _anything_to_gossip(self) -> bool:
        return bool(self.rows) and (len(self._table.queue) > 0 or any(True for _ in self._table.suspects()))

    def _gossip(self, now: float) -> list[Effect]:
        if now < self._gossip_at or not self._anything_to_gossip():
            return []
        self._gossip_at = now + self._settings.gossip_interval_s
        told = self._sample(self._audience(now), self._settings.gossip_fanout)
        effects: list[Effect] = [
            self._send(row.member.gossip, row.member.node, Gossip(())) for row in told if len(self._table.queue)
        ]
        if not self._table.leaving:
            effects += self._doubt()
        return effects

    def _audience(self, now: float) -> list[Row]:
        """Who is told rumors: also those dead for a short while, who may be able to refute it."""
        recent = now - self._settings.gossip_to_the_dead_s
        dead = State.DEAD
        return [r for r in self.rows.values() if r.state.reachable or (r.state is dead and r.since > recent)]

    def _doubt(self) -> list[Effect]:
        """Ask suspects again, out of turn. The accusation rides along, and the answer carries the refutation back to
        the very accuser; under heavy loss a suspicion is otherwise decided by the luck of a few rumors.
        """
        chance = DOUBT_PINGS_PER_INTERVAL / self._table.size
        pings: list[Effect] = []
        for row in self._table.suspects():
            if self._random.random() < chance:
                node = row.member.node
                pings.append(self._send(row.member.gossip, node, Ping(self._prober.next_sequence(), node)))
        return pings

    def _forgive(self, seconds: float, now: float) -> None:
        self._awareness.lag(seconds, self._settings.probe_timeout_s, now)
        self._prober.forgive(seconds)
        for row in self._table.suspects():
            if row.suspicion is not None:
                row.suspicion.forgive(seconds)

    # -- sending ----------------------------------------------------------------------------------------------------

    def _send(self, address: Address, node: str, message: Message) -> Send:
        """Fill a message up with rumors; the bad news about its receiver comes first."""
        if not isinstance(message, Ping | Ack | PingRequest | Nack | Gossip):
            return Send(address, node, message)
        first: tuple[Rumor, ...] = message.rumors
        verdict = self._table.verdict(node)
        if verdict is not None:
            first = (verdict, *first)
        budget = RUMOR_BUDGET_BYTES - sum(rumor_size_bytes(rumor) for rumor in first)
        return Send(address, node, replace(message, rumors=first + self._table.queue.take(budget, self._table.size)))

    def _sample(self, rows: list[Row], count: int) -> list[Row]:
        return self._random.sample(rows, min(count, len(rows)))

    def _noticed(self, effects: list[Effect]) -> list[Effect]:
        """New members enter the probe round where they are met."""
        for effect in effects:
            if isinstance(effect, MemberChanged) and effect.before is None and effect.node in self.rows:
                self._prober.met(effect.node)
        return effects
