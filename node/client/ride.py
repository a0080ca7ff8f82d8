"""A read over several shards on lanes: each shard's part is a unit on a lane of that shard (pool/lane.py).

Only what asks nothing of a transaction rides: an autocommit read of a session that has no server at hand. All lanes are
chosen first, then all parts board in the same turn of the event loop; if one shard has no lane, none is boarded and the
read takes whole connections, as any other statement over several shards.

A `Ride` offers `_Reading` (gather/exchange.py) what a Conversation does. A small reply is handed on when it is whole, a
larger one from HELD_BYTES on as it comes. Until then a ride that loses its lane, for whatever reason, is sent again:
on another lane, at most RESENT_MAX times, then on a whole connection. So is one that may have been the reason why a
server died, and what happens there is its client's to hear.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from node.client.spread import spread_of
from node.client.weight import LIGHT_BYTES
from node.errors import ClientFault, Fault, ServerFault
from node.gather.exchange import Redefined, Stopwatch, ask_by_heart
from node.gather.gathering import visible_columns
from node.pool.rider import Rider
from node.routing.outcome import Role
from node.server.conversation import BUFFERED_BYTES, MESSAGE_BYTES, Message
from node.wire import messages
from node.wire.codes import Backend
from node.wire.requests import NOTHING, TOO_LONG, Requests

if TYPE_CHECKING:
    from node.client.enlist import Shards
    from node.client.session import Session
    from node.client.spread import Spread
    from node.gather.exchange import Answer, Request, Sink
    from node.pool.lane import Lane
    from node.pool.pool import Pool
    from node.routing.outcome import MergeProgram, Plan
    from node.server.connection import ServerConnection
    from node.server.conversation import Conversation

# Replies up to here are handed on whole: until then their lane may die without anybody noticing.
HELD_BYTES = LIGHT_BYTES
# A part that lost its lane so many times asks for a connection of its own.
RESENT_MAX = 10
# How often, and after how long, a light read that finds no lane looks again before it takes whole connections.
LOOKS_MAX = 10
LOOK_AGAIN_S = 0.005
# Parse, Bind, Describe and Execute.
_MESSAGES = 4
_READY: Message = (int(Backend.READY_FOR_QUERY), b"I")


class Ride(Rider):
    """One shard's part, from `send_extended` to the ReadyForQuery that `next` returns."""

    def __init__(self, shards: Shards, shard: int, pool: Pool, lane: Lane, *, read: bool) -> None:
        self.writing_paused = False
        self.shards = shards
        self.shard = shard
        self.pool = pool
        self.lane: Lane | None = lane
        self.aboard = False  # its unit is under way on `lane`
        self.took_s = 0.0
        self.size = 0
        self._read = read
        self._unit = b""
        self._request: tuple[bytes, Sequence[int], Sequence[int], Sequence[bytes | None], Sequence[int]] | None = None
        self._boarded = Stopwatch()
        self._again = 0
        self._blamed = False
        self._alone = False  # a whole connection is to be asked for
        self._joining: asyncio.Task[list[Conversation]] | None = None
        self._talk: Conversation | None = None  # on that connection
        self._over = False  # nothing more is expected from any server
        self._fault: Fault | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._start()

    def _start(self) -> None:
        """Nothing of the reply has come."""
        self._held: list[bytes] | None = []  # None: it is handed on as it comes
        self._held_bytes = 0
        self._frames = Requests(MESSAGE_BYTES)
        self._frames.hold_copy = True
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self._handed_on = False

    # --- what a reading does ---------------------------------------------------------------------------------------

    def send_extended(
        self,
        sql: bytes,
        types: Sequence[int] = (),
        parameter_formats: Sequence[int] = (),
        parameters: Sequence[bytes | None] = (),
        result_formats: Sequence[int] = (),
    ) -> None:
        self._request = (sql, types, parameter_formats, parameters, result_formats)
        self._unit = b"".join(
            (
                messages.parse(b"", sql, types),
                messages.bind(b"", b"", parameter_formats, parameters, result_formats),
                messages.describe_portal(b""),
                messages.execute(),
                messages.SYNC,
            )
        )
        assert self.lane is not None
        self._board(self.lane)

    async def next(self) -> Message:
        while True:
            if self._queue:
                self._handed_on = True
                letter, body = self._queue.popleft()
                self._queued_bytes -= len(body) + 64
                if self.writing_paused and self._queued_bytes < BUFFERED_BYTES // 2:
                    self._read_on()
                return letter, body
            if self._fault is not None:
                raise self._fault
            if self._talk is not None:
                letter, body = await self._talk.next()
                if letter == _READY[0]:
                    self._give_back(self._talk)
                return letter, body
            if self._alone:
                await self._go_alone()
                continue
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None

    def refuse_copy(self) -> None:
        if self._talk is not None:  # on a lane the connection would have been closed
            self._talk.refuse_copy()

    def enough(self) -> None:
        if self._talk is None:
            self._drop()

    def hurry(self) -> None:
        if self._talk is not None:
            self._talk.hurry()
        else:
            self._drop()

    def cancel(self) -> ServerConnection | None:
        """The client wants it to end. Returns the server to be asked for that; a part that is not being answered ends
        here, and one that is answered already has nothing to be cancelled."""
        lane = self.lane
        if lane is not None and self.aboard:
            lane.lanes.counters.lane_cancelled += 1
            if lane.is_alone_at_front(self):
                # those behind go elsewhere first: a cancel request that comes late hits nobody
                lane.make_way()
                return lane.server
        elif not self._alone and self._joining is None:
            return None
        self._fault = ClientFault("canceling statement due to user request", sqlstate="57014")
        self._stop()
        return None

    def end(self) -> None:
        """The reading is over, or never began: nothing stays on a lane."""
        lane, self.lane = self.lane, None
        if lane is None:
            return
        if self.aboard:
            self.aboard = False
            lane.leave(self)
        elif lane.depth == 0:  # it was made for this part and not boarded
            lane.lanes.leave(lane, lane.lanes.clock())

    def _drop(self) -> None:
        """What still comes is nobody's."""
        self._stop()
        self._queue.append(_READY)

    def _stop(self) -> None:
        self._over = True
        self._alone = False
        self._queue.clear()
        self._queued_bytes = 0
        self.writing_paused = False
        self.end()
        if self._joining is not None:
            self._joining.cancel()
        self._wake()

    # --- a lane ----------------------------------------------------------------------------------------------------

    def _board(self, lane: Lane) -> None:
        self.lane = lane
        self.aboard = True
        self._boarded = Stopwatch()
        lane.board(self, self._unit, _MESSAGES, None, lane.lanes.clock())

    def lane_bytes(self, data: bytes) -> None:
        if self.aboard:
            self._take(data)
            if self._queued_bytes > BUFFERED_BYTES:
                self.writing_paused = True  # the lane looks after each delivery

    def lane_reply(self, data: bytes, now: float, took_s: float, size: int) -> None:
        if not self.aboard:
            return
        self.lane, self.aboard = None, False
        # those before it on the lane are not its fault, and neither is what this process did meanwhile
        self.took_s, self.size = min(took_s, self._boarded.waited_s()), size
        self._take(data)
        self._hand_on()

    def lane_error(self) -> None:
        return None  # it is in the reply

    def put_off(self, blamed: bool) -> None:
        if self.aboard:
            self._send_again(blamed)

    def lane_lost(self, fault: ServerFault, said: bool) -> None:
        if not self.aboard:
            return
        if not self._handed_on:
            assert self.lane is not None
            self.lane.lanes.counters.lane_resent_lost += 1
            self._send_again(not said)
            return
        self.lane, self.aboard = None, False
        self._hand_on()
        self._fault = fault
        self._wake()

    def _take(self, data: bytes) -> None:
        if self._held is None:
            self._frame(data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES:
            self._hand_on()

    def _hand_on(self) -> None:
        held, self._held = self._held, None
        if held:
            self._frame(held[0] if len(held) == 1 else b"".join(held))

    def _frame(self, data: bytes) -> None:
        frames = self._frames
        frames.feed(data)
        while (letter := frames.next()) != NOTHING:
            if letter == TOO_LONG:  # the pipeline let it pass: that cannot be
                self._fault = ServerFault("server sent a message of an impossible length", sqlstate="08P01")
                break
            body = frames.buffer[frames.start + 5 : frames.end]
            self._queue.append((letter, body))
            self._queued_bytes += len(body) + 64
        self._wake()

    def _read_on(self) -> None:
        self.writing_paused = False
        if self.lane is not None:
            self.lane.read_on()

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    # --- elsewhere -------------------------------------------------------------------------------------------------

    def _send_again(self, blamed: bool) -> None:
        """Nothing of the reply was handed on, and as a read it may run twice."""
        self.lane, self.aboard = None, False
        self._start()
        self._again += 1
        self._blamed = self._blamed or blamed
        lanes = self.pool.lanes
        if lanes is not None and not self._blamed and self._again <= RESENT_MAX:
            lane = lanes.choose(self.shards.session.parameters, lanes.clock())
            if lane is not None:
                self._board(lane)
                return
        self._alone = True
        self._wake()

    async def _go_alone(self) -> None:
        """Nobody else is harmed by what happens to this part now. It gives the connection back as soon as it is
        answered: who waits for one shard's connection while he has another's may wait for one who does the same."""
        self._alone = False
        assert self._request is not None
        self._joining = asyncio.ensure_future(self.shards.get((self.shard,), read=self._read))
        try:
            (talk,) = await self._joining
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._over and task is not None and not task.cancelling():
                return  # not needed any more, or cancelled by the client
            raise
        finally:
            self._joining = None
        if self._over:
            self.shards.release(self.shard)
            return
        self._talk = talk
        talk.send_extended(*self._request)

    def _give_back(self, talk: Conversation) -> None:
        if not talk.cancelled and talk.server.closed_why is None:  # else the end of the unit sees to it
            self.shards.release(self.shard)
            self._talk = None
            self._over = True


class Rides:
    """The rides of one statement."""

    def __init__(self, rides: list[Ride]) -> None:
        self.rides = rides

    @classmethod
    async def wait(cls, shards: Shards, pools: dict[int, Pool], *, read: bool) -> Rides | None:
        """As `choose`; where there is no lane, but connections, one is waited for a while. Reads that queue up for
        whole connections instead would end the lanes of all others, and find none themselves the next time."""
        chosen = cls.choose(shards, pools, read=read)
        looks = 0
        while chosen is None and looks < LOOKS_MAX and all(pool.core.lent for pool in pools.values()):
            looks += 1
            await asyncio.sleep(LOOK_AGAIN_S)
            chosen = cls.choose(shards, pools, read=read)
        if chosen is None:
            for pool in pools.values():
                pool.counters.lane_full += 1
        return chosen

    @classmethod
    def choose(cls, shards: Shards, pools: dict[int, Pool], *, read: bool) -> Rides | None:
        """A lane of each pool, not boarded yet; None if one has none. The caller owes `end`."""
        chosen = cls([])
        for shard, pool in pools.items():
            lane = pool.lanes.choose(shards.session.parameters, pool.clock()) if pool.lanes is not None else None
            if lane is None:
                chosen.end()
                return None
            chosen.rides.append(Ride(shards, shard, pool, lane, read=read))
        return chosen

    def cancel(self) -> list[ServerConnection]:
        return [server for ride in self.rides if (server := ride.cancel()) is not None]

    def end(self) -> None:
        for ride in self.rides:
            ride.end()

    def weigh(self, spread: Spread) -> None:
        """What the parts took on their lanes; those that ended elsewhere tell nothing."""
        size = max(ride.size for ride in self.rides)
        if size:
            spread.rode(max(ride.took_s for ride in self.rides), size)


def may_ride(session: Session, shards: Shards, outcome: Plan, text: bytes) -> Spread | None:
    """What is known of this read, if it is one that may travel with others'; light or not."""
    layout = session.database.layout
    if len(outcome.shards) < 2 or outcome.writes or shards.talks or shards.in_block or shards.implicit:
        return None
    if session.links or session.must_ask or session.tx_failed or session.changed_schema:
        return None
    if not layout.sharing:
        session.services.want_layout(session.database)
        return None
    spread = spread_of(layout, session.services.shapes.find(text))
    return spread if spread.weight.alone is None else None


async def ask_on_lanes(
    session: Session,
    shards: Shards,
    spread: Spread,
    outcome: Plan,
    request: Request,
    sink: Sink,
    *,
    program: MergeProgram,
    formats: Sequence[int],
    description: bool,
) -> Answer | None:
    """As `ask` of all shards of `outcome`. None: the client has heard nothing, and it takes whole connections.

    Raises Fault when no part is on a lane any more.
    """
    columns: int | None = None
    if program.hidden or program.twins:
        shown = spread.columns.get((session.database.user, session.parameters))
        if shown is None:
            return None
        columns = shown * (2 if program.twins else 1) + program.hidden
    read = outcome.role is Role.ANY
    now = session.services.clock()
    balancers = session.database.balancers
    pools = {n: balancers[n].read(now) if read else balancers[n].write() for n in outcome.shards}
    if session.writing_paused or any(pool.lanes is None for pool in pools.values()):
        return None
    if not spread.weight.is_light():
        for pool in pools.values():
            pool.counters.lane_heavy += 1
        return None
    rides = await Rides.wait(shards, pools, read=read)
    if rides is None:
        return None
    session.rides = rides
    try:
        return await ask_by_heart(
            rides.rides, request, sink, program=program, combine=outcome.combine, formats=formats,
            description=description, columns=columns,
        )  # fmt: skip
    except Redefined:
        spread.columns.clear()
        return None
    finally:
        session.rides = None
        rides.end()
        rides.weigh(spread)


def learn(session: Session, spread: Spread, program: MergeProgram, answer: Answer) -> None:
    """It took whole connections: may it ride the next time?"""
    spread.ran_alone(answer.took_s, answer.size)
    if answer.returned:
        spread.seen(session.database.user, session.parameters, visible_columns(program, answer.columns))
