"""Which boots are known to live now, and how a new one proves it.

A valid seal proves the key, not the time: the packet may be a recording. So nothing from an unknown boot is believed
until it has repeated a nonce of ours inside a sealed packet. The nonce is a MAC over who asked, from where, in which
ten seconds, under a secret of this process: a flood of strangers costs no memory (the idea of DTLS and SYN cookies),
and a stranger that lies about its address never sees the nonce.

    stranger                      we
       | Hello / Ping / ... ------> |   unknown boot: nothing believed
       | <---------- Challenge(n1)  |
       | Echo(n1, n2, record) ----> |   it lives, at that address: believed from here on
       | <------ Echo(n2, -, record)|   and so do we
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from discovery.member import Address, Member, sender_id
from discovery.packet import NONCE_BYTES, Cause, PacketError
from discovery.seal import Opened, ReplayWindow

EPOCH_S = 10.0  # a nonce is good for this one and the next
KNOWN_LIMIT = 8192  # boots; 4096 members and their former lives
SPOKEN_LIMIT = 8192  # addresses


@dataclass(slots=True)
class _Known:
    node: str
    window: ReplayWindow


class Handshake:
    """The boots that proved to be alive, with their replay windows; bounded, least recently heard goes first."""

    def __init__(self, flock: str, secret: bytes) -> None:
        self._flock = flock
        self._secret = secret
        self._known: dict[tuple[bytes, bytes], _Known] = {}
        self._spoken: dict[Address, float] = {}

    def __len__(self) -> int:
        return len(self._known)

    def admit(self, opened: Opened) -> str | None:
        """The node's name when its boot is known and the packet new; None for a stranger; PacketError for a replay."""
        who = (opened.sender, opened.boot)
        known = self._known.get(who)
        if known is None:
            return None
        if not known.window.accept(opened.counter):
            raise PacketError(Cause.REPLAY, known.node)
        del self._known[who]  # back to the young end
        self._known[who] = known
        return known.node

    def nonce(self, opened: Opened, source: Address, now: float) -> bytes:
        """What this stranger must repeat from this address within 10 to 20 seconds."""
        return self._mac(opened, source, int(now // EPOCH_S))

    def confirm(self, opened: Opened, source: Address, nonce: bytes, record: Member, now: float) -> None:
        """Believe this boot from its next packet on. PacketError when the echo or the name is not its own."""
        epoch = int(now // EPOCH_S)
        fits = [hmac.compare_digest(nonce, self._mac(opened, source, e)) for e in (epoch, epoch - 1)]
        if not any(fits):
            raise PacketError(Cause.UNPROVEN, "echo of a nonce that is not ours")
        if record.boot != opened.boot or sender_id(self._flock, record.node) != opened.sender:
            raise PacketError(Cause.UNPROVEN, "record of somebody else")
        who = (opened.sender, opened.boot)
        if who in self._known:
            return  # its window goes on; a second echo must not reset it
        if len(self._known) >= KNOWN_LIMIT:
            del self._known[next(iter(self._known))]
        self._known[who] = _Known(record.node, ReplayWindow(opened.counter))

    def spoke_to(self, address: Address, now: float) -> None:
        """Remember that we sent something there: only its answer may challenge us."""
        self._spoken.pop(address, None)
        if len(self._spoken) >= SPOKEN_LIMIT:
            del self._spoken[next(iter(self._spoken))]
        self._spoken[address] = now

    def expects(self, address: Address, now: float) -> bool:
        """Did we speak to this address lately? Else answering its challenge would make us a reflector."""
        return now - self._spoken.get(address, float("-inf")) <= EPOCH_S

    def _mac(self, opened: Opened, source: Address, epoch: int) -> bytes:
        text = opened.sender + opened.boot + f"{source.host}|{source.port}|{epoch}".encode()
        return hashlib.blake2b(text, digest_size=NONCE_BYTES, key=self._secret).digest()
