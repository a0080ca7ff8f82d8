"""One client: a connection that logs in, asks, has every answer judged, and comes back when a fault took it away."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

from node.embedded.identity import wire, works
from node.embedded.identity.judge import Judge, Unit, Wrong
from node.embedded.identity.units import Author
from node.embedded.identity.world import COUNTERS, DATABASE, PASSWORD, USER

if TYPE_CHECKING:
    from node.embedded.identity.run import Run

BATCH_LIMIT = 8
"""Units in one write."""
SINGLE = 0.6
"""The share of turns in which a client asks for one unit; in somewhat fewer it asks for several at once."""
COME_BACK_S = 0.1
CANCEL_GRACE_S = 2.0
"""A signal that PostgreSQL sent to the client's backend may arrive a little after the cancel connection is closed."""
LOGIN_LIMIT_BYTES = 1 << 16


class Client(asyncio.Protocol):
    def __init__(self, run: Run, number: int) -> None:
        self.run = run
        self.number = number
        self.author = Author(run.world, number)
        self.uncertain: set[int] = set()
        """Rows of the ledger of which nobody told us whether they were written."""
        self.never: set[int] = set()
        """Rows of transactions that were rolled back."""
        self.recent: deque[Unit] = deque(maxlen=4)
        self.transport: asyncio.Transport | None = None
        self.judge = Judge(self.explains)
        self.asked_at = 0.0
        """When the oldest unit that is owed was sent."""
        self.stopped = False
        self.left_on_purpose = False
        self.huge: Unit | None = None
        self._login: bytearray | None = None
        self._scram: wire.Scram | None = None
        self._key = b""
        self._cancelled_until = 0.0
        self._chain: Unit | None = None
        self._slow_reader_s = 0.0
        self._leaves_early = False
        self._ticks = 0

    # -- the connection --------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.run.over:
            self.asked_at = loop.time()
            try:
                async with self.run.doors:
                    await loop.create_connection(lambda: self, *self.run.address)
                return
            except OSError as error:
                self.run.refused(self, f"cannot connect: {error}", self.asked_at)
                await asyncio.sleep(COME_BACK_S)
        self.stopped = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.judge = Judge(self.explains)
        self.author.reconnected()
        self.left_on_purpose = False
        self._cancelled_until = 0.0
        self._chain = None
        self._login = bytearray()
        self._scram = None
        self.transport.write(wire.startup(USER, DATABASE, f"c{self.number}"))

    def data_received(self, data: bytes) -> None:
        if self._login is not None:
            self._log_in(data)
            return
        try:
            over = self.judge.receive(data)
        except Wrong as wrong:
            self.run.failed(self, wrong)
            self.leave()
            return
        if over:
            tally = self.run.tally
            self.run.replies += len(over)
            for unit, sqlstate in over:
                tally[unit.protocol, unit.kind] += 1
                if sqlstate or unit.settles:
                    self._settle(unit, sqlstate)
            if not self.judge.owed and not self.judge.ended:
                self.ask()
        elif self._leaves_early or self._slow_reader_s:
            self._misbehave()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._login is not None:
            if not self.left_on_purpose:
                self.run.refused(self, "the connection was closed at the login", self.asked_at)
        elif self.judge.ended:
            self.run.errors[self.judge.ended] += 1
            if " then " in self.judge.ended:
                units = ", ".join(f"{u.kind} ({u.protocol}{', torn' if u.torn else ''})" for u in self.judge.owed)
                self.run.note(f"{self.judge.ended}, while owed: {units or 'nothing'}")
        elif not self.left_on_purpose and not self.run.over:
            self.run.closed(self)
        for unit in self.judge.owed:
            self._uncertain(unit)
        if self._chain is not None:
            self._uncertain(self._chain)
        self.judge.owed.clear()
        if self.huge is not None:
            self.huge = None
            self.run.huge_is_over()
        if self.run.over or self.stopped:
            self.stopped = True
        else:
            self.run.later(COME_BACK_S * (0.2 + self.author.dice.random()), self._come_back)

    def leave(self, politely: bool = False) -> None:
        """Ends the connection from our side."""
        self.left_on_purpose = True
        if self.transport is None:
            return
        if politely:
            self.transport.write(wire.TERMINATE)
            self.transport.close()
        else:
            self.transport.abort()

    def _come_back(self) -> None:
        self.run.start(self.connect())

    def _log_in(self, data: bytes) -> None:
        """SCRAM, or no password at all; then the parameters, then the first question."""
        got = self._login
        assert got is not None
        assert self.transport is not None
        got += data
        if len(got) > LOGIN_LIMIT_BYTES:
            self.run.failed(self, Wrong("an endless login", None, bytes(got), 0))
            self.leave()
            return
        while len(got) >= 5 and len(got) > (length := int.from_bytes(got[1:5], "big")):
            letter, body = bytes(got[:1]), bytes(got[5 : length + 1])
            del got[: length + 1]
            if letter == b"E":
                fields = wire.error_fields(body)
                self.run.refused(self, f"{fields.get('C')} {fields.get('M')}", self.asked_at, fields.get("C", ""))
                self.leave()
                return
            if letter == b"K":
                self._key = body
            elif letter == b"R":
                self._authenticate(int.from_bytes(body[:4], "big"), body[4:])
            elif letter == b"Z":
                self._login = None
                if got:  # last words of a server that is being stopped; anything else is wrong
                    self.data_received(bytes(got))
                if self.judge.ended or self.transport.is_closing():
                    return
                if self.author.is_settler:
                    self._send([self.author.settle()])
                else:
                    self.ask()
                return

    def _authenticate(self, kind: int, body: bytes) -> None:
        assert self.transport is not None
        if kind == 10:
            self._scram = wire.Scram(PASSWORD, b"c%d.%d" % (self.number, self.author.made))
            self.transport.write(self._scram.first())
        elif kind == 11 and self._scram is not None:
            self.transport.write(self._scram.final(body))
        elif kind == 12 and self._scram is not None:
            self._scram.verify(body)

    # -- asking ----------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """The next units, by the dice."""
        run, author = self.run, self.author
        if self.transport is None or self.transport.is_closing():
            return
        if self.huge is not None:
            self.huge = None
            run.huge_is_over()
        if self._chain is not None:
            unit, self._chain = self._chain, None
            self._send([unit])
            return
        if run.enough:
            self.stopped = True
            self.leave(politely=True)
            return
        dice = author.dice.random()
        if dice < 0.86:
            if dice < SINGLE:
                self._send([author.draw()])
            else:
                self._send([author.draw() for _ in range(2 + int(author.dice.random() * (BATCH_LIMIT - 1)))])
        elif dice < 0.89:
            self.run.join_herd(self)
        else:
            self._ask_something_else(dice)

    def _ask_something_else(self, dice: float) -> None:
        run, author = self.run, self.author
        if dice < 0.93:
            self._send(works.insert(author))
        elif dice < 0.95:
            self._send([works.transaction(author)])
        elif dice < 0.97:
            self._send([author.setting()])
        elif dice < 0.9705:
            self._ask_large()
        elif dice < 0.972 and run.sleeps:
            self._send([works.sleeping(author, 0.05 + author.dice.random() * 0.45)])
        elif dice < 0.973 and run.locks:
            self._send([works.locked(author)])
        elif dice < 0.9735 and run.cancels:
            self._cancel_own()
        elif dice < 0.975 and run.cancels:
            self._send([author.draw() for _ in range(2)])
            run.start(self._cancel(author.dice.random() * 0.01))
        elif dice < 0.976 and run.disconnects:
            self._leaves_early = True
            self._send([works.wide(author)] if author.dice.random() < 0.3 else works.insert(author))
            if self._leaves_early:
                run.later(author.dice.random() * 0.05, self._drop)
        elif self.number < COUNTERS and dice < 0.99:
            self._ticks = run.world.counters[self.number] + 1
            self._send([works.tick(author, self.number, self._ticks)])
        else:
            self._send([author.draw()])

    def _ask_large(self) -> None:
        run, author = self.run, self.author
        if run.may_be_huge():
            self.huge = works.huge(author)
            self._send([self.huge])
            return
        if run.slow_readers and author.dice.random() < 0.5:
            self._slow_reader_s = 0.1 + author.dice.random() * 1.5
        self._send([works.wide(author)])

    def answer_herd(self, key: int) -> None:
        """Everybody who waits in the herd sends the same bytes in the same turn of the loop."""
        if self.transport is None or self.transport.is_closing() or self._login is not None:
            return
        if not self.judge.owed and not self.judge.ended:
            self._send([self.author.hot(key)])

    def _send(self, units: list[Unit]) -> None:
        transport = self.transport
        assert transport is not None
        now = self.run.now()
        self.asked_at = now
        if self.author.is_settler or (len(units) > 1 and not all(unit.plain_read for unit in units)):
            for unit in units:  # none of them may share a connection, so no death can be hidden from them
                unit.plain_read = False
        self.judge.owed.extend(units)
        self.recent.extend(units)
        data = units[0].sent if len(units) == 1 else b"".join([unit.sent for unit in units])
        dice = self.author.dice.random()
        if dice < 0.04 and len(data) > 2:
            units[0].torn = True
            cuts = sorted({1 + int(self.author.dice.random() * (len(data) - 1)) for _ in range(int(dice * 100) + 1)})
            pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            transport.write(pieces[0])
            self._write_rest(transport, pieces[1:])
        else:
            transport.write(data)

    def _write_rest(self, transport: asyncio.Transport, pieces: list[bytes]) -> None:
        """Each in a turn of its own, so that each is a segment of its own."""

        def write() -> None:
            if not transport.is_closing():
                transport.write(pieces[0])
                if len(pieces) > 1:
                    self._write_rest(transport, pieces[1:])

        self.run.later(0 if len(pieces) & 1 else 0.001, write)

    # -- afterwards ------------------------------------------------------------------------------------------------

    def _settle(self, unit: Unit, sqlstate: str) -> None:
        """What an answer means for what follows."""
        if unit.prepares >= 0:
            self.author.preparing.discard(unit.prepares)
            if sqlstate:
                self.author.generation[unit.prepares] += 1
            else:
                self.author.prepared.add(unit.prepares)
        if unit.closes >= 0:
            self.author.preparing.discard(unit.closes)
            self.author.generation[unit.closes] += 1
        if sqlstate:
            self.run.errors[sqlstate] += 1
            self._uncertain(unit)
            if unit.in_transaction and unit.kind != "commit":
                self._chain = works.rollback()
            return
        if unit.kind == "tick":
            self.run.world.counters[self.number] = self._ticks
        if unit.writes < 0:
            self.never.add(-unit.writes)
        if unit.then is not None:
            self._chain = unit.then

    def _uncertain(self, unit: Unit | None) -> None:
        while unit is not None:
            if unit.writes > 0:
                self.uncertain.add(unit.writes)
            elif unit.writes < 0:
                self.never.add(-unit.writes)
            unit = unit.then

    def explains(self, unit: Unit | None, sqlstate: str, fatal: bool) -> bool:
        if sqlstate == "57014" and not fatal:
            return self.run.now() < self._cancelled_until
        # a read that its client was about to cancel is not sent again when its server dies: it was not wanted
        wanted = self.run.now() >= self._cancelled_until
        return self.run.explains(unit, sqlstate, self.asked_at, wanted=wanted)

    # -- faults of our own -----------------------------------------------------------------------------------------

    def _cancel_own(self) -> None:
        self._send([works.sleeping(self.author, 1.0, "cancelled")])
        self.run.start(self._cancel(0.005 + self.author.dice.random() * 0.1))

    async def _cancel(self, after_s: float) -> None:
        """As libpq does: a connection of its own, one packet, until the other side closes it."""
        await asyncio.sleep(after_s)
        if not self._key or self.transport is None or self._login is not None:
            return
        self._cancelled_until = float("inf")
        transport = self.transport
        try:
            reader, writer = await asyncio.open_connection(*self.run.address)
            writer.write(wire.cancel_request(self._key))
            self.run.happened["cancel"] += 1
            await asyncio.wait_for(reader.read(), 10)
            writer.close()
        except (OSError, TimeoutError) as error:
            self.run.note(f"a CancelRequest was not taken: {error or type(error).__name__}")
        if self.transport is transport:
            self._cancelled_until = self.run.now() + CANCEL_GRACE_S

    def _misbehave(self) -> None:
        """In mid-reply."""
        if self._leaves_early:
            self._drop()
        elif self.transport is not None:
            self.run.happened["slow reader"] += 1
            self.transport.pause_reading()
            self.run.later(self._slow_reader_s, self._read_on, self.transport)
            self._slow_reader_s = 0.0

    def _read_on(self, transport: asyncio.Transport) -> None:
        if not transport.is_closing():
            transport.resume_reading()

    def _drop(self) -> None:
        if self._leaves_early and self.transport is not None:
            self._leaves_early = False
            self.run.happened["disconnect"] += 1
            self.leave()
