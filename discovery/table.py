"""What this node believes about every other member, and the rules by which it changes its mind.

    unknown --alive--> ALIVE <--suspect / newer alive--> SUSPECT --deadline, dead--> DEAD --newer alive--> ALIVE
                         any --left--> LEFT --after left_keep_s--> unknown

Rules (SWIM section 4.2): a statement about an older incarnation is ignored; among statements of one incarnation dead
beats suspect beats alive, and left beats all. Only the member itself raises its incarnation, and only to refute, so an
accusation ends either by the accused speaking up or by time. What was believed is passed on, what was known is not.

A *dead* in somebody's full view is only a suspicion to us: a stale view must not kill (memberlist's rule).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import mmh3

from discovery.awareness import Awareness
from discovery.effects import Conflict, Effect, MemberChanged
from discovery.member import INCARNATION_LIMIT, Member, State
from discovery.packet import (
    MEMBERS_LIMIT,
    Alive,
    Dead,
    Exchange,
    Left,
    News,
    Rumor,
    Suspect,
    rumor_size_bytes,
)
from discovery.rumors import RumorQueue
from discovery.settings import SwimSettings
from discovery.suspicion import Suspicion, expected_confirmations, minimum_timeout_s

INCARNATION_JUMP = 2**20  # a larger step is a lie: an owner could never refute the largest number there is


def changing_facts(member: Member) -> News:
    """The part of a record that spreads without raising the incarnation."""
    facts = (member.stamp, member.clients, member.version, member.digest)
    return News(member.node, member.boot, member.incarnation, *facts)


@dataclass(slots=True)
class Row:
    """One other member. `heard` is when we last had evidence of its own; `suspicion` only while SUSPECT."""

    member: Member
    state: State
    since: float
    heard: float
    boot_since: float
    suspicion: Suspicion | None = None


class Table:
    """The view: itself and all others, in the order in which they were met."""

    def __init__(self, me: Member, settings: SwimSettings, awareness: Awareness) -> None:
        self.me = me
        self.rows: dict[str, Row] = {}
        self.queue: RumorQueue[Rumor] = RumorQueue(settings.retransmit_multiplier)
        self.leaving = False
        self.conceded = False  # a newer process has our name: we say nothing more
        self.established = False  # somebody took us as a member
        self.refused = 0  # statements beyond a limit
        self._settings = settings
        self._awareness = awareness
        self._outbid: dict[bytes, None] = {}  # boots over which we raised our incarnation, each once

    # -- reading ----------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Members that count for the formulas: ourselves and everybody not given up."""
        return 1 + sum(1 for row in self.rows.values() if row.state.reachable)

    def reachable(self) -> list[Row]:
        return [row for row in self.rows.values() if row.state.reachable]

    def suspects(self) -> Iterator[Row]:
        return (row for row in self.rows.values() if row.state is State.SUSPECT)

    def verdict(self, node: str) -> Rumor | None:
        """What an ill-reputed member must hear from us first, so that it can refute (Lifeguard's buddy system)."""
        row = self.rows.get(node)
        if row is None or row.state is State.ALIVE:
            return None
        about = (node, row.member.incarnation, self.me.node)
        if row.state is State.SUSPECT:
            return Suspect(*about)
        return Dead(*about) if row.state is State.DEAD else Left(*about)

    def digest(self) -> bytes:
        """Equal views have equal digests. Suspicion is left out: it is an opinion and it passes."""
        words = [f"{self.me.node}\0{self.me.incarnation}\0{self.me.stamp}\0alive"]
        for row in self.rows.values():
            if row.state is not State.LEFT:  # these vanish everywhere, at slightly different times
                state = State.ALIVE if row.state.reachable else row.state
                member = row.member
                words.append(f"{member.node}\0{member.incarnation}\0{member.stamp}\0{state}")
        return mmh3.hash_bytes("\n".join(sorted(words)))

    def entries(self) -> tuple[tuple[State, Member], ...]:
        """Everything we believe, for a push-pull."""
        return tuple((row.state, row.member) for row in self.rows.values())

    # -- telling ----------------------------------------------------------------------------------------------------

    def tell(self, rumor: Rumor) -> None:
        match rumor:
            case Alive(member):
                subject = member.node
                self.queue.forget(f"news {subject}")  # the record contains it
            case News(node):
                subject = f"news {node}"
            case _:
                subject = rumor.node
        self.queue.add(subject, rumor, rumor_size_bytes(rumor))

    # -- rules ------------------------------------------------------------------------------------------------------

    def hear(self, rumor: Rumor, now: float) -> list[Effect]:
        match rumor:
            case Alive(member):
                return self.alive(member, now)
            case Suspect(node, incarnation, accuser):
                return self.suspect(node, incarnation, accuser, now)
            case Dead(node, incarnation, accuser):
                return self.dead(node, incarnation, accuser, now)
            case Left(node, incarnation, teller):
                return self.left(node, incarnation, teller, now)
            case News():
                return self.news(rumor, now)

    def alive(self, member: Member, now: float) -> list[Effect]:
        """A member's description of itself, first or second hand."""
        if member.node == self.me.node:
            return self._somebody_is_me(member)
        row = self.rows.get(member.node)
        if row is None:
            return self._meet(member, State.ALIVE, now, "joined")
        known = row.member
        if member.incarnation > known.incarnation + INCARNATION_JUMP:
            self.refused += 1
            return []
        if member.order <= known.order:
            if member.order == known.order:
                return self.news(changing_facts(member), now)
            return []
        before = row.state
        rebooted = member.boot != known.boot
        row.member = member
        row.heard = now
        row.suspicion = None
        if rebooted:
            row.boot_since = now
        self.tell(Alive(member))
        reason = "restarted" if rebooted else "refuted" if before is not State.ALIVE else "renewed"
        return self._turn(row, State.ALIVE, now, reason)

    def suspect(self, node: str, incarnation: int, accuser: str, now: float) -> list[Effect]:
        if node == self.me.node:
            return self._refute(incarnation)
        row = self._accused(node, incarnation)
        if row is None or not row.state.reachable:
            return []
        if row.suspicion is not None:
            if row.suspicion.confirm(accuser):
                self.tell(Suspect(node, incarnation, accuser))
            return []
        size = self.size
        least = minimum_timeout_s(self._settings.suspicion_multiplier, size, self._settings.probe_interval_s)
        row.suspicion = Suspicion(
            accuser,
            now,
            minimum_s=least,
            maximum_s=least * self._settings.suspicion_max_multiplier,
            expected=expected_confirmations(self._settings.confirmations, size),
        )
        self.tell(Suspect(node, incarnation, accuser))
        return self._turn(row, State.SUSPECT, now, f"suspected by {accuser}")

    def dead(self, node: str, incarnation: int, accuser: str, now: float) -> list[Effect]:
        if node == self.me.node:
            return self._refute(incarnation)
        row = self._accused(node, incarnation)
        if row is None or not row.state.reachable:
            return []
        row.suspicion = None
        self.tell(Dead(node, incarnation, accuser))
        return self._turn(row, State.DEAD, now, f"declared dead by {accuser}")

    def left(self, node: str, incarnation: int, teller: str, now: float) -> list[Effect]:
        if node == self.me.node:
            return self._refute(incarnation)
        known = self.rows.get(node)
        if known is not None and known.state is State.LEFT and incarnation <= known.member.incarnation:
            return []  # also not worth correcting: else those who know would tell each other for ever
        row = self._accused(node, incarnation)
        if row is None:
            return []
        row.suspicion = None
        self.tell(Left(node, incarnation, teller))
        return self._turn(row, State.LEFT, now, "left" if teller == node else f"evicted by {teller}")

    def news(self, news: News, now: float) -> list[Effect]:
        row = self.rows.get(news.node)
        if row is None or news.boot != row.member.boot or news.stamp <= row.member.stamp:
            return []
        if news.incarnation > row.member.incarnation:
            return []  # its record is on the way and carries the same facts
        row.member = replace(
            row.member, stamp=news.stamp, clients=news.clients, version=news.version, digest=news.digest
        )
        if row.state is State.ALIVE:
            row.heard = now
        self.tell(replace(news, incarnation=row.member.incarnation))
        return [MemberChanged(news.node, row.state, row.state, "news")]

    def merge(self, exchange: Exchange, now: float) -> list[Effect]:
        """Somebody's full view."""
        effects: list[Effect] = []
        for state, member in exchange.entries or ():
            known = self.rows.get(member.node)
            if member.node == self.me.node:
                if state is not State.ALIVE and member.boot == self.me.boot:
                    effects += self._refute(member.incarnation)
                elif state is State.ALIVE:
                    effects += self.alive(member, now)
            elif state is State.LEFT:
                if known is not None:  # a stranger that left is nobody
                    effects += self.alive(member, now)
                    effects += self.left(member.node, member.incarnation, member.node, now)
            elif known is None and state is State.DEAD:
                effects += self._meet(member, State.DEAD, now, f"declared dead by {exchange.member.node}")
            else:
                effects += self.alive(member, now)
                if state is not State.ALIVE:
                    effects += self.suspect(member.node, member.incarnation, exchange.member.node, now)
        return effects

    def expire(self, now: float) -> list[Effect]:
        """Suspects whose time is up die; those that left long ago vanish."""
        effects: list[Effect] = []
        for row in list(self.rows.values()):
            node = row.member.node
            if row.suspicion is not None and now >= row.suspicion.deadline(self._awareness.stretch):
                effects += self.dead(node, row.member.incarnation, self.me.node, now)
            elif row.state is State.LEFT and now >= row.since + self._settings.left_keep_s:
                del self.rows[node]
                effects.append(MemberChanged(node, State.LEFT, None, "forgotten"))
        return effects

    @property
    def deadline(self) -> float:
        """When `expire` has something to do; infinite when never."""
        soonest = float("inf")
        for row in self.rows.values():
            if row.suspicion is not None:
                soonest = min(soonest, row.suspicion.deadline(self._awareness.stretch))
            elif row.state is State.LEFT:
                soonest = min(soonest, row.since + self._settings.left_keep_s)
        return soonest

    # -- helpers ----------------------------------------------------------------------------------------------------

    def _meet(self, member: Member, state: State, now: float, reason: str) -> list[Effect]:
        if len(self.rows) >= MEMBERS_LIMIT - 1:
            self.refused += 1
            return []
        self.rows[member.node] = Row(member, state, now, now, now)
        if state is State.ALIVE:
            self.tell(Alive(member))
        return [MemberChanged(member.node, None, state, reason)]

    def _turn(self, row: Row, state: State, now: float, reason: str) -> list[Effect]:
        """The one door between states."""
        before, row.state = row.state, state
        if before is not state:
            row.since = now
        return [MemberChanged(row.member.node, before, state, reason)]

    def _accused(self, node: str, incarnation: int) -> Row | None:
        """The row an accusation is about. One about an incarnation that we have not seen waits until we have: its
        record may be of another boot, and taking only the number would make a member that never was.
        """
        row = self.rows.get(node)
        if row is None or incarnation > row.member.incarnation:
            return None
        if incarnation < row.member.incarnation or row.state is State.LEFT:
            self._correct(row)
        return row if incarnation == row.member.incarnation else None

    def _correct(self, row: Row) -> None:
        """Somebody still goes by old news about a member: tell the newer ones again, unless we are at it."""
        node = row.member.node
        if node not in self.queue:
            left = row.state is State.LEFT
            self.tell(Left(node, row.member.incarnation, node) if left else Alive(row.member))

    def _refute(self, incarnation: int) -> list[Effect]:
        """Somebody doubts us: say that we live, with a number that beats the accusation."""
        if self.leaving or self.conceded:
            return []
        if incarnation > self.me.incarnation + INCARNATION_JUMP or incarnation >= INCARNATION_LIMIT:
            self.refused += 1
            return []
        if incarnation >= self.me.incarnation:
            self.me = replace(self.me, incarnation=incarnation + 1)
            self._awareness.add(1)  # whoever has to refute was late (LHA-Probe)
        self.tell(Alive(self.me))
        return [MemberChanged(self.me.node, State.ALIVE, State.ALIVE, "refuted")]

    def _somebody_is_me(self, other: Member) -> list[Effect]:
        """Our name with a record that is not ours: a former life of ours, or another process.

        A node that nobody has accepted yet outbids what is known of its name, once per boot: that is a restart without
        memory. Otherwise the newer one wins and the older one falls silent, so that two processes never outbid each
        other for ever. Worse than a wrong row in SHOW PEERS would be an endless storm about it.
        """
        if other.boot == self.me.boot or self.leaving or self.conceded:
            return []
        if other.order < self.me.order:
            self.tell(Alive(self.me))
            return []
        if not self.established and other.boot not in self._outbid and len(self._outbid) < 16:
            if other.incarnation > self.me.incarnation + INCARNATION_JUMP or other.incarnation >= INCARNATION_LIMIT:
                self.refused += 1
                return []
            self._outbid[other.boot] = None
            self.me = replace(self.me, incarnation=other.incarnation + 1)
            self.tell(Alive(self.me))
            return [MemberChanged(self.me.node, State.ALIVE, State.ALIVE, "outbid a former life")]
        self.conceded = True
        return [Conflict(self.me.node, mine=True)]
