"""One ping per interval, round robin over a shuffled list, and the pings done for others (SWIM sections 3.1 and 4.3).

Round robin bounds the time until a dead member is asked at all to 2 N - 1 intervals; new members enter the list at a
random place. One probe is open at a time:

    ping --ack--> done
     | probe timeout, scaled by local health
     v
    ping-request to k members, and the control channel --ack--> done
     | end of the interval
     v
    failed: suspect
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from discovery.awareness import Awareness
from discovery.settings import SwimSettings

if TYPE_CHECKING:
    from random import Random

    from discovery.member import Address

RELAYS_LIMIT = 256
INFINITY = float("inf")


class Turn(Enum):
    """What an open probe needs now."""

    NOTHING = "nothing"
    ASK_OTHERS = "ask others"
    FAILED = "failed"


@dataclass(slots=True)
class Probe:
    node: str
    sequence: int
    ask_at: float
    end_at: float
    asked: dict[str, bool] = field(default_factory=dict)  # helper -> did it nack
    refused: bool = False  # its host answered for it: nobody listens
    done: bool = False


@dataclass(slots=True)
class Relay:
    """A ping on behalf of `asker`: its sequence, where it asked from, when we owe it a nack (inf: sent)."""

    asker: str
    source: Address
    sequence: int
    node: str
    nack_at: float
    end_at: float


class Prober:
    """Whom to ask next, and who answered. Sends nothing itself."""

    def __init__(self, settings: SwimSettings, awareness: Awareness, random: Random) -> None:
        self.probe: Probe | None = None
        self.relays: dict[int, Relay] = {}
        self._settings = settings
        self._awareness = awareness
        self._random = random
        self._round: list[str] = []
        # Above 2^32 every sequence has the same size on the wire, and nobody off the path guesses it.
        self._sequence = 2**32 + random.getrandbits(32)

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def met(self, node: str) -> None:
        """A new member takes a random place in this round."""
        if node not in self._round:
            self._round.insert(self._random.randint(0, len(self._round)), node)

    def open(self, candidates: list[str], now: float) -> Probe | None:
        """The next member's probe, None when there is nobody to ask."""
        self.probe = None
        wanted = dict.fromkeys(candidates)
        node = self._take(wanted)
        if node is None:
            self._round = candidates[:]
            self._random.shuffle(self._round)
            node = self._take(wanted)
        if node is None:
            return None
        scale = self._awareness.scale
        ask_at = now + scale(self._settings.probe_timeout_s)
        self.probe = Probe(node, self.next_sequence(), ask_at, now + scale(self._settings.probe_interval_s))
        return self.probe

    def _take(self, wanted: dict[str, None]) -> str | None:
        while self._round:
            node = self._round.pop()
            if node in wanted:
                return node
        return None

    def turn(self, now: float) -> Turn:
        probe = self.probe
        if probe is None or probe.done:
            return Turn.NOTHING
        if now >= probe.end_at:
            return Turn.FAILED
        if now >= probe.ask_at:
            probe.ask_at = INFINITY
            return Turn.ASK_OTHERS
        return Turn.NOTHING

    def fail(self) -> None:
        """Close the probe and judge ourselves: helpers that did not even nack speak for trouble on our side."""
        probe = self.probe
        assert probe is not None
        probe.done = True
        if probe.refused:
            return
        if probe.asked:
            self._awareness.add(sum(1 for nacked in probe.asked.values() if not nacked))
        else:
            self._awareness.add(1)

    def answered(self, node: str, sequence: int | None = None) -> bool:
        """The probed member spoke; `sequence` None when the proof was a handshake. True when that closed the probe."""
        probe = self.probe
        if probe is None or probe.done or probe.node != node or sequence not in (None, probe.sequence):
            return False
        probe.done = True
        self._awareness.add(-1)
        return True

    def relayed(self, sequence: int, helper: str) -> bool:
        """An ack that came through one of the members we asked."""
        probe = self.probe
        if probe is None or sequence != probe.sequence or helper not in probe.asked:
            return False
        return self.answered(probe.node, sequence)

    def nacked(self, sequence: int, helper: str) -> None:
        probe = self.probe
        if probe is not None and sequence == probe.sequence and helper in probe.asked:
            probe.asked[helper] = True

    def refused(self, node: str, sequence: int) -> None:
        probe = self.probe
        if probe is not None and probe.node == node and probe.sequence == sequence:
            probe.refused = True

    def relay(self, asker: str, source: Address, sequence: int, node: str, now: float) -> int | None:
        """The sequence to ping with on behalf of `asker`; None when too many are under way."""
        if len(self.relays) >= RELAYS_LIMIT:
            return None
        mine = self.next_sequence()
        nack_at = now + 0.8 * self._settings.probe_timeout_s  # before the asker's interval ends
        end_at = now + self._settings.probe_interval_s * (1 + self._settings.awareness_limit)
        self.relays[mine] = Relay(asker, source, sequence, node, nack_at, end_at)
        return mine

    def owed_nacks(self, now: float) -> list[Relay]:
        """Relays whose member was silent so far, each once; those past use are forgotten."""
        owed = []
        for sequence, relay in list(self.relays.items()):
            if now >= relay.end_at:
                del self.relays[sequence]
            elif now >= relay.nack_at:
                relay.nack_at = INFINITY
                owed.append(relay)
        return owed

    def forgive(self, seconds: float) -> None:
        """This process stood still: nobody failed to answer in time that did not pass for us."""
        if self.probe is not None:
            self.probe.done = True
        for relay in self.relays.values():
            relay.nack_at += seconds
            relay.end_at += seconds

    @property
    def deadline(self) -> float:
        soonest = min((min(relay.nack_at, relay.end_at) for relay in self.relays.values()), default=INFINITY)
        if self.probe is not None and not self.probe.done:
            soonest = min(soonest, self.probe.ask_at, self.probe.end_at)
        return soonest
