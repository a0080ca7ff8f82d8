"""The whole core: SWIM inside sealed datagrams. This is what the service and the simulator drive.

Seal, replay window and handshake stand before the protocol, so nothing in `swim.py` ever sees a message whose sender
is not proved. Without a key there is no proof, and therefore no peer outside this host: plain packets are taken from
and sent to loopback and our own address only (the kernel drops packets from outside that claim to come from it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from discovery.effects import Effect, Send, SendDatagram
from discovery.handshake import Handshake
from discovery.member import Address, Member, check_name, sender_id
from discovery.packet import Cause, Challenge, Echo, Hello, Message, PacketError, decode, encode
from discovery.seal import Keyring, Opened, Seal
from discovery.settings import SwimSettings
from discovery.swim import Sender, Swim

if TYPE_CHECKING:
    from random import Random


class Envelope:
    """`random` must be unpredictable in production (SystemRandom): it makes the handshake's secret."""

    def __init__(
        self, me: Member, settings: SwimSettings, *, keyring: Keyring, flock: str, random: Random, now: float
    ) -> None:
        self.swim = Swim(me, settings, random, now)
        self.withheld = 0  # messages not sent: plain, and their receiver is not on loopback
        self._flock = flock
        self._me = sender_id(flock, check_name(me.node))
        self._boot = me.boot
        self._seal = Seal(keyring, flock, self._me, me.boot)
        self._handshake = Handshake(flock, random.randbytes(32))

    @property
    def deadline(self) -> float:
        return self.swim.deadline

    def tick(self, now: float) -> list[Effect]:
        return self.sealed(self.swim.tick(now), now)

    def join(self, addresses: list[Address], now: float, *, by_stream: bool = False) -> list[Effect]:
        usable = [address for address in addresses if self._may_speak_with(address)]
        return self.sealed(self.swim.join(usable, by_stream=by_stream), now)

    def receive(self, datagram: bytes, source: Address, now: float) -> list[Effect]:
        """Raises PacketError, having changed nothing, for whatever is not a new message of a proved member."""
        if not self._may_speak_with(source):
            raise PacketError(Cause.PLAIN, "plain packet from another host")
        opened = self._seal.open(datagram)
        if (opened.sender, opened.boot) == (self._me, self._boot):
            raise PacketError(Cause.OWN)
        message = decode(opened.plaintext)
        node = self._handshake.admit(opened)
        match message:
            case Challenge(nonce):
                if not self._handshake.expects(source, now):
                    raise PacketError(Cause.UNPROVEN, "challenge from an address we did not speak to")
                echo = Echo(nonce, self._handshake.nonce(opened, source, now), self.swim.me)
                return self._reply(echo, opened, source)
            case Echo(nonce, challenge, record):
                self._handshake.confirm(opened, source, nonce, record, now)
                effects: list[Effect] = []
                if challenge:
                    effects += self._reply(Echo(challenge, b"", self.swim.me), opened, source)
                received = self.swim.receive(message, Sender(record.node, opened.boot), source, now)
                return effects + self.sealed(received, now)
        if node is None:
            return self._stranger(message, opened, source, len(datagram), now)
        return self.sealed(self.swim.receive(message, Sender(node, opened.boot), source, now), now)

    def sealed(self, effects: list[Effect], now: float) -> list[Effect]:
        """The same effects with messages turned into datagrams."""
        done: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Send):
                addressee = None if effect.node is None else sender_id(self._flock, effect.node)
                # Only what the protocol says counts as speaking: a challenge to a stranger proves no address.
                self._handshake.spoke_to(effect.address, now)
                done += self._datagram(effect.address, addressee, effect.message)
            else:
                done.append(effect)
        return done

    def _stranger(self, message: Message, opened: Opened, source: Address, size: int, now: float) -> list[Effect]:
        """A boot that proved nothing yet: asked to, with an answer no larger than what came."""
        challenge = Challenge(self._handshake.nonce(opened, source, now))
        reply = self._reply(challenge, opened, source)
        return [effect for effect in reply if isinstance(effect, SendDatagram) and len(effect.data) <= size]

    def _reply(self, message: Message, opened: Opened, source: Address) -> list[Effect]:
        return self._datagram(source, opened.sender, message)

    def _may_speak_with(self, address: Address) -> bool:
        return self._seal.sealed or address.host == self.swim.me.gossip.host or address.is_loopback

    def _datagram(self, address: Address, addressee: bytes | None, message: Message) -> list[Effect]:
        if not self._may_speak_with(address):
            self.withheld += 1
            return []
        # A greeting goes to whoever is there now, which after a restart elsewhere may be another node.
        if isinstance(message, Hello):
            addressee = None
        return [SendDatagram(address, self._seal.seal(encode(message), addressee))]
