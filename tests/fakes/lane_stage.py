"""Lanes on a stage: a real pool without sockets, loop or clock, and model servers whose bytes are delivered on demand.

A model server answers what it is asked at once, but nobody hears of it before `deliver`; what a unit was answered is
kept as its `Run`, so that a rider's bytes can be compared with those of one single run of its own unit. The last word
of a statement's text says how it is answered (`answers`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from random import Random
from typing import Any, NamedTuple

from node.client.parameters import NONE
from node.errors import ServerFault
from node.pool.drain import Drain
from node.pool.pool import Pool, PoolSettings, Surroundings
from node.server.connect import Target
from node.server.connection import Lost, ServerConnection
from node.wire import messages as m
from node.wire.messages import message

# What no read is answered with: the lane must end, and nobody may hear of it as if it were an answer.
HOSTILE = ("suspend", "copyin", "copyout", "notify", "open", "twice", "garbage", "short", "nothing")
ORDINARY = ("one", "rows", "notice", "wide", "error", "named", "plan")
LAST_WORDS = ("fatal", "panic", "late")


def error(severity: str, code: str, text: str = "", **more: str) -> bytes:
    return message(b"E", m.error_fields(severity, code, text or code)[:-1] + b"".join(
        letter.encode() + value.encode() + b"\0" for letter, value in more.items()
    ) + b"\0")  # fmt: skip


class Run:
    """One unit, as one server ran it."""

    def __init__(self) -> None:
        self.who = b""
        self.said: list[bytes] = []  # what its rider may read
        self.ended = False
        self.cancelled = False

    @property
    def reply(self) -> bytes:
        return b"".join(part for part in self.said if part[:1] not in b"NS")


class Said(NamedTuple):
    data: bytes
    run: Run


class LaneServer:
    """A PostgreSQL that is asked for reads by the simple protocol and by whole batches."""

    def __init__(self, stage: LaneStage, connection: ServerConnection) -> None:
        self.stage = stage
        self.connection = connection
        self.buffer = b""
        self.statements: dict[bytes, bytes] = {}
        self.portal: bytes | None = None
        self.skipping = False
        self.run = Run()
        self.said: deque[Said] = deque()
        self.sent = 0  # bytes of said[0] that were delivered
        self.reading = True  # the proxy reads
        self.deaf = False  # said its last words
        self.dead = False

    def hear(self, data: bytes) -> None:
        if self.deaf or self.dead:
            return
        self.buffer += data
        while self.buffer and not self.deaf:
            end = 1 + int.from_bytes(self.buffer[1:5], "big")
            assert len(self.buffer) >= end, "a lane sends whole units"
            letter, body = self.buffer[:1], self.buffer[5:end]
            self.buffer = self.buffer[end:]
            if letter == b"Q":
                self.run.who = body[:-1]
                self.answer(body[:-1], query=True)
                self.ready()
            elif letter == b"S":
                self.skipping = False
                self.ready()
            elif not self.skipping:
                self.extended(letter, body)
            elif letter == b"B":
                self.run.who = m.parse_bind(body).parameters[0] or b""

    def say(self, data: bytes, *, ours: bool = False) -> None:
        self.said.append(Said(data, self.run))
        if not ours:
            self.run.said.append(data)

    def ready(self) -> None:
        run = self.run
        if run.who.endswith(b"open"):
            self.say(m.READY_OPEN)
        elif not self.deaf:
            self.say(m.READY_IDLE)
        if run.who.endswith(b"twice"):
            self.say(m.READY_IDLE, ours=True)
        run.ended = True
        self.stage.runs.setdefault(run.who, []).append(run)
        self.run = Run()

    def fail(self, data: bytes) -> None:
        self.skipping = True
        self.say(data)

    def extended(self, letter: bytes, body: bytes) -> None:
        if letter == b"P":
            parsed = m.parse_parse(body)
            if not parsed.name:
                self.run.who = parsed.sql
            if b"bad" in parsed.sql:
                self.fail(error("ERROR", "42601"))
            elif parsed.name and parsed.name in self.statements:
                self.fail(error("ERROR", "42P05"))
            else:
                self.statements[parsed.name] = parsed.sql
                self.say(m.PARSE_COMPLETE, ours=parsed.name != b"")
        elif letter == b"B":
            bound = m.parse_bind(body)
            if bound.statement:
                self.run.who = bound.parameters[0] or b""
            if bound.statement in self.statements:
                self.portal = self.run.who
                self.say(m.BIND_COMPLETE)
            else:
                self.fail(error("ERROR", "26000"))
        elif letter == b"D":
            self.say((message(b"t", b"\0\0") if body[:1] == b"S" else b"") + m.NO_DATA)
        elif letter == b"C":
            if body[:1] == b"S":
                self.statements.pop(body[1:-1], None)
            self.say(m.CLOSE_COMPLETE, ours=body[:1] == b"S")
        elif letter == b"E":
            assert self.portal is not None
            self.answer(self.portal, query=False)
        else:
            raise AssertionError(letter)

    def answer(self, sql: bytes, *, query: bool) -> None:
        say = self.say
        kind = sql.rsplit(b" ", 1)[-1].decode()
        if kind == "notice":
            say(m.notice("said"))
            say(m.parameter_status(b"x", b"y"))
        if query and kind not in ("nothing", "error"):
            say(m.row_description([m.Column(b"who", 25)]))
        row = m.data_row([sql, str(self.stage.next_number()).encode()])
        if kind in ("rows", "fatal"):
            say(row)
            say(row)
        if kind in ("error", "named", "plan"):
            self.skipping = not query
            # an error of a statement whose words look like those of a dying server
            named = {"n": "SFATAL", "t": "VFATAL"} if kind == "named" else {}
            say(error("ERROR", "0A000" if kind == "plan" else "22012", **named))
            return
        if kind == "wide":
            say(m.data_row([sql, b"w" * 3000]))
        elif kind not in ("nothing", "panic", "late"):
            say(row)
        hostile = {
            "suspend": m.PORTAL_SUSPENDED, "copyin": message(b"G", b"\0\0\0"), "garbage": b"?\0\0\0\4",
            "copyout": message(b"H", b"\0\0\0") + m.copy_data(b"x") + m.COPY_DONE,
            "notify": message(b"A", b"\0\0\0\1a\0b\0"),
        }  # fmt: skip
        if kind in hostile:
            say(hostile[kind])
        if kind in LAST_WORDS:
            self.end("PANIC" if kind == "panic" else "FATAL")
            if kind == "late":  # no server does that: it goes on after its last words
                self.deaf = False
                say(m.command_complete("SELECT 1"))
            return
        if kind not in ("short", "nothing", "suspend"):
            say(m.command_complete("SELECT 1"))

    def end(self, severity: str) -> None:
        """Its last words, behind what it has said."""
        self.say(error(severity, "57P01"))
        self.deaf = True
        self.stage.runs.setdefault(self.run.who, []).append(self.run)

    def shut_down(self) -> None:
        """pg_terminate_backend: what it has not sent yet is lost, but no message is torn."""
        if self.deaf or self.dead:
            return
        while len(self.said) > (1 if self.sent else 0):
            self.said.pop().run.ended = False
        self.end("FATAL")

    def cancel(self) -> None:
        """A cancel request arrives: it hits whatever runs now."""
        if not self.said or self.deaf or self.dead:
            return
        run = self.said[0].run
        first = 1 if self.sent else 0
        later = [said for said in self.said if said.run is not run]
        kept = list(self.said)[:first]
        dropped = [said for said in list(self.said)[first:] if said.run is run]
        if not run.ended or not dropped or not run.said or dropped[-1].data[:1] != b"Z":
            return
        for said in reversed(dropped):
            if run.said and run.said[-1] is said.data:
                run.said.pop()
        run.cancelled = True
        new = [error("ERROR", "57014"), m.READY_IDLE]
        run.said += new
        self.said = deque([*kept, *(Said(data, run) for data in new), *later])

    def deliver(self, size: int) -> None:
        """The next `size` bytes arrive."""
        parts: list[bytes] = []
        while size and self.said:
            data = self.said[0].data
            part = data[self.sent : self.sent + size]
            parts.append(part)
            size -= len(part)
            self.sent += len(part)
            if self.sent == len(data):
                self.said.popleft()
                self.sent = 0
        if parts and not self.dead:
            self.connection.receive(b"".join(parts))

    def close(self) -> None:
        """By the proxy. The event loop tells of it later."""
        if not self.dead:
            self.dead = True
            self.stage.closed.append(self)

    def die(self) -> None:
        """Without a word, at whatever byte it is."""
        if not self.dead:
            self.dead = True
            self.lost()

    def lost(self) -> None:
        self.connection.lost(ServerFault("server closed the connection unexpectedly", sqlstate="08006"))

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True


class _Turn:
    def __await__(self) -> Generator[None, None, None]:
        yield


class StagePool(Pool):
    """What takes a loop in a pool is modelled: hearing a server out, and DISCARD ALL."""

    def model(self, server: ServerConnection) -> LaneServer:
        return server.write.__self__  # type: ignore[attr-defined,no-any-return]

    async def recover(self, drain: Drain) -> None:
        server = drain.server
        while not server.pipeline.idle():
            if server.closed_why is not None:
                return
            await _Turn()
        drain.end()
        if server.reusable:
            await self.clean(server)
        else:
            server.close(Lost.UNCLEAN)

    async def clean(self, server: ServerConnection) -> None:
        self.model(server).statements.clear()
        server.prepared.clear()
        server.dirty = False
        server.parameters = self.around.no_parameters
        self.release(server)

    def end_cancel(self, server: ServerConnection) -> None:
        """As the end of `cancel`."""
        server.cancelling -= 1
        if not server.cancelling and server in self._held:
            del self._held[server]
            self.release(server)


class LaneStage:
    """One pool with lanes. Nothing happens by itself."""

    def __init__(self, **chosen: Any) -> None:
        self.now = 1.0
        self.numbered = 0
        self.runs: dict[bytes, list[Run]] = {}
        self.servers: list[LaneServer] = []
        self.closed: list[LaneServer] = []
        self.soon: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.modelled: Callable[[ServerConnection], Any] = lambda connection: LaneServer(self, connection)
        around = Surroundings(
            open=self._open, clock=lambda: self.now, random=Random(1), spawn=self._spawn, no_parameters=NONE,
            soon=lambda call: self.soon.append(call),
            later=lambda after_s, call: self.later.append((self.now + after_s, call)),
        )  # fmt: skip
        chosen.setdefault("lanes", 2)
        settings = PoolSettings(healthcheck_interval_s=0.0, idle_healthcheck_interval_s=0.0, **chosen)
        target = Target(host="h", port=1, database="d", user="u")
        self.pool = StagePool(target, settings, around, user="u", database="d")
        self.pool.fill(self.now)

    def next_number(self) -> int:
        self.numbered += 1
        return self.numbered

    async def _open(self, target: Target, connection: ServerConnection, timeout_s: float) -> None:
        server = self.modelled(connection)
        connection.write = server.hear
        connection.close_transport = server.close
        connection.pause_reading = server.pause
        connection.resume_reading = server.resume
        self.servers.append(server)

    def _spawn(self, work: Awaitable[None]) -> None:
        assert isinstance(work, Coroutine)
        self.tasks.append(work)
        self._step(work)

    def _step(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            work.send(None)
        except StopIteration:
            self.tasks.remove(work)

    def turn(self) -> None:
        """The turn of the loop ends."""
        calls, self.soon = self.soon, []
        for call in calls:
            call()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [call for at, call in self.later if at <= self.now]
        self.later = [(at, call) for at, call in self.later if at > self.now]
        for call in due:
            call()

    def keep_house(self) -> None:
        """Closed sockets are noticed, coroutines go on."""
        closed, self.closed = self.closed, []
        for server in closed:
            server.lost()
        for work in list(self.tasks):
            self._step(work)
        for server in self.servers:
            if server.deaf and not server.said and not server.dead:
                server.die()
        self.servers = [server for server in self.servers if not server.dead]

    def stop(self) -> None:
        for work in self.tasks:
            work.close()
