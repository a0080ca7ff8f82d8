"""Riders that keep every byte and check it: one unit after the other, as a session sends them."""

from __future__ import annotations

from fakes.lane_stage import HOSTILE, LaneStage

from node.client.parameters import NONE
from node.client.prepared import Prepared
from node.errors import ServerFault
from node.pool.core import Waiter
from node.pool.lane import Lane
from node.pool.lanes import DEPTH_LIMIT
from node.pool.rider import Rider
from node.server.connection import Owner, ServerConnection
from node.wire import messages as m

SENT_AGAIN_MAX = 50  # as the session's


def without_notices(data: bytes) -> bytes:
    """Of whole messages, and perhaps a torn one at the end."""
    kept, at = b"", 0
    while at < len(data):
        end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big") if at + 5 <= len(data) else len(data) + 1
        if data[at : at + 1] not in b"NS":
            kept += data[at:end]
        at = end
    return kept


class Unit:
    """`who` is what the server says in each of its rows."""

    def __init__(self, who: bytes, how: str, prepared: Prepared | None) -> None:
        self.who = who
        self.kind = who.rsplit(b" ", 1)[-1].decode()
        self.prepared = prepared if how == "named" else None
        if how == "query":
            self.count, self.data = 0, m.query(who)
        elif self.prepared is not None:
            self.count = 2
            self.data = m.bind(b"", self.prepared.name, (), (who,)) + m.execute() + m.SYNC
        else:
            self.count = 4
            self.data = m.parse(b"", who) + m.bind(b"", b"") + m.describe_portal(b"") + m.execute() + m.SYNC


def has_last_words(heard: bytes) -> bool:
    """Is there an ErrorResponse of which the severity says that the session ends? Any field may say FATAL."""
    at = 0
    while at + 5 <= len(heard):
        end = at + 1 + int.from_bytes(heard[at + 1 : at + 5], "big")
        if heard[at] == 69 and heard[at + 5 : end].startswith((b"SFATAL\0", b"SPANIC\0")):  # E
            return True
        at = end
    return False


class Client(Rider):
    """Rides one unit after the other, and keeps every byte."""

    def __init__(self, stage: LaneStage, number: int) -> None:
        self.stage = stage
        self.number = number
        self.parameters: object = NONE
        self.writing_paused = False
        self.reads = True  # False: the next bytes find its socket full
        self.unit: Unit | None = None
        self.lane: Lane | None = None
        self.heard = b""
        self.ends: list[str] = []
        self.boarded = 0
        self.sent_again = 0
        self.next: list[Unit] = []  # rides as soon as the one before is answered
        self.cancelled = False
        self.log: list[tuple[object, ...]] = []

    def take(self, unit: Unit) -> None:
        self.boarded += 1
        self.sent_again = 0
        self.unit = unit
        self.ride()

    def ride(self) -> None:
        assert self.unit is not None
        lanes = self.stage.pool.lanes
        lane = None if lanes is None else lanes.choose(self.parameters, lanes.clock())
        if lane is not None:
            assert lane.open
            assert lane.server.closed_why is None
            assert lane.server.parameters is self.parameters
            assert lane.depth < DEPTH_LIMIT
            self.lane = lane
            lane.board(self, self.unit.data, self.unit.count, self.unit.prepared, self.stage.now)

    def end(self, how: str) -> Unit:
        unit = self.unit
        assert unit is not None, "a unit that has ended ends again"
        self.ends.append(how)
        self.log.append((how,))
        self.unit = self.lane = None
        self.heard = b""
        self.cancelled = False
        return unit

    def hear(self, data: bytes) -> None:
        assert self.lane is not None, "bytes for somebody who rides nowhere"
        self.heard += data
        self.log.append(("heard", data))
        if not self.reads:
            self.writing_paused = True

    def lane_bytes(self, data: bytes) -> None:
        self.hear(data)

    def lane_reply(self, data: bytes, now: float, took_s: float, size: int) -> None:
        self.hear(data)
        heard, cancelled = without_notices(self.heard), self.cancelled
        unit = self.end("answered")
        runs = self.stage.runs.get(unit.who, [])
        mine = [run for run in runs if run.reply == heard]
        assert mine, (unit.who, heard, [run.reply for run in runs])
        assert unit.kind not in HOSTILE or unit.kind == "twice" or b"\0C42601\0" in heard or cancelled
        assert b"26000\0" not in heard
        assert b"42P05\0" not in heard
        assert cancelled or b"57014\0" not in heard, "cancelled by somebody else"
        assert took_s >= 0.0
        if self.next:
            self.take(self.next.pop(0))

    def lane_error(self) -> None:
        assert self.unit is not None

    def put_off(self, blamed: bool) -> None:
        assert self.lane is not None
        assert without_notices(self.heard) == b"", "a part was delivered"
        self.heard = b""
        self.lane = None
        self.sent_again += 1
        if blamed or self.sent_again >= SENT_AGAIN_MAX:
            self.end("alone")
        else:
            self.ride()

    def lane_lost(self, fault: ServerFault, said: bool) -> None:
        heard = without_notices(self.heard)
        assert heard, "nothing was delivered"
        assert said == has_last_words(heard)
        unit = self.end("lost")
        runs = self.stage.runs.get(unit.who, [])
        assert said or any(run.reply.startswith(heard) for run in runs), (unit.who, heard)

    def leave(self) -> None:
        lane = self.lane
        self.end("left")
        self.writing_paused = False
        if lane is not None:
            lane.leave(self)

    def resume(self) -> None:
        self.reads = True
        self.writing_paused = False
        if self.lane is not None:
            self.lane.read_on()


class Holder(Owner):
    """Somebody who wants a whole connection."""

    def __init__(self) -> None:
        self.waiter: Waiter | None = None
        self.server: ServerConnection | None = None

    def granted(self, server: ServerConnection) -> None:
        assert self.server is None
        assert server.owner is None
        assert server.pipeline.idle()
        assert not server.pipeline.shared
        assert not server.cancelling
        self.server = server
        server.owner = self
        self.waiter = None

    def refused(self, fault: Exception) -> None:
        raise AssertionError(fault)

    def from_server(self, server: ServerConnection, data: bytes) -> None:
        assert data[:1] in (b"", b"E"), "bytes that nobody asked for"

    def server_lost(self, server: ServerConnection, fault: ServerFault) -> None:
        self.server = None
