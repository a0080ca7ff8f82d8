"""The shell: feeds the participant, performs its effects in order, re-arms one timer. It decides nothing.

The node's view (everything else in this package is inside):

    sync = Sync(node=…, boot=…, state_dir=…, register_url=…, control=…, peers=…, reachable=…, target=…, settings=…)
    document = await sync.start(local_document, adopt)   # target.apply(document, version) was called before it returns
    outcome = await sync.rollout(document, by="alice", timeout=60.0, dry_run=False)
    rows = sync.status();  sync.version;  sync.drift
    await sync.leave();  await sync.stop()

`sync.failed` is a future that ends with an exception when this process must not go on: its journal failed, or another
process took its name. The node should close its port and exit; a restart reads the truth from the register.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from sync import effects as e
from sync.cell_client import CellClient
from sync.changes import Abort, Change, Evict
from sync.coordinator import Order
from sync.follower import Follower, State
from sync.journal import FileJournal
from sync.library import Library
from sync.messages import Message, decode, encode
from sync.outcome import Outcome, status_rows
from sync.packing import Malformed
from sync.participant import Participant
from sync.ports import (
    ApplyFailed,
    ConfigTarget,
    Control,
    ControlUnreachable,
    DrainFailed,
    JournalFailed,
    RegisterBroken,
    RegisterUnavailable,
    Report,
)
from sync.registers import open_register
from sync.registers.file import FileRegister
from sync.rollout import Cell, ChangeClass
from sync.roster import Seat
from sync.settings import SyncSettings
from sync.store import DocumentStore, StoreFailed
from sync.version import DOCUMENT_LIMIT_BYTES, ConfigVersion, digest_of, first_version

log = logging.getLogger("sync")

SERVICE = "sync"
SEND_TIMEOUT_S = 2.0
SENDS_LIMIT = 8  # on their way to one member; everything is sent again, so more would only be older
LEAVE_TIMEOUT_S = 5.0
NOT_SERVING = "this node does not serve a configuration now; ask another one"


class StartRefused(Exception):
    """The node may not serve. `version` and `document` are the register's, when the local files differ from them, so
    that the node can show what differs."""

    def __init__(self, reason: str, version: ConfigVersion | None = None, document: bytes | None = None) -> None:
        super().__init__(reason)
        self.version = version
        self.document = document


class Sync:
    def __init__(
        self,
        *,
        node: str,
        boot: str,
        state_dir: Path,
        register_url: str,
        control: Control,
        peers: Callable[[], Mapping[str, str]],
        reachable: Callable[[str], bool | None],
        target: ConfigTarget,
        settings: SyncSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        utc: Callable[[], float] = time.time,
        address: str = "",
    ) -> None:
        """Made inside a running loop; registers its services with the control channel.

        `peers` maps node names to control addresses; `reachable` is discovery's opinion (False: known to be gone,
        None: no opinion). `address` is this node's own control address, written into its seat. Raises SettingsError."""
        self.settings = settings or SyncSettings()
        self.settings.check()
        self.node = node
        self.boot = boot
        self._address = address
        self._peers = peers
        self._reachable = reachable
        self._target = target
        self._clock = clock
        self._utc = utc
        self._control = control
        self._state_dir = state_dir
        self._register = open_register(register_url)
        self._cells = CellClient(self._register, self.settings.register_timeout)
        shared = self._register.documents if isinstance(self._register, FileRegister) else None
        self._library = Library(DocumentStore(state_dir / "documents"), shared, control, self._document_sources)
        self._journal: FileJournal | None = None
        self._participant: Participant | None = None
        self._effects: deque[e.Effect] = deque()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._drain: asyncio.Task[None] | None = None
        self._reading = self._read_again = False
        self._sending: dict[str, int] = {}
        self._orders: dict[str, asyncio.Future[e.Finish]] = {}
        self._tokens = 0
        self._started: asyncio.Future[None] | None = None
        self._left = asyncio.Event()
        self._stopping = False
        self._local = ""  # digest of this node's own files
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed.add_done_callback(_retrieved)
        control.handle(SERVICE, self._hear)

    # ── the node's face ─────────────────────────────────────────────────────────────────────────────────────────────

    async def start(self, local_document: bytes, adopt: bool = False) -> bytes:
        """Read the register, found it or take a seat in it, and apply what is in force. Raises StartRefused.

        Waits without a limit while the register is unreachable, a rollout keeps this node fenced, or no member has the
        document: serving anything before is what must not happen. Each cause is logged once.
        """
        try:
            self._journal = FileJournal(self._state_dir)
            promise = self._journal.load()
            digest = await self._library.put(local_document)
        except (JournalFailed, StoreFailed) as error:
            raise StartRefused(str(error)) from None
        follower = Follower(
            node=self.node,
            seat=Seat(self.boot, promise.disk, self._address),
            promise=promise,
            local=first_version(digest, by=self.node, at_utc=self._utc()),
            adopt=adopt,
            settings=self.settings,
            random=Random(),
        )
        self._participant = Participant(follower, self.settings)
        self._started = asyncio.get_running_loop().create_future()
        self._spawn(self._run())
        self._spawn(self._watch())
        self._feed(self._participant.tick(self._clock()))
        try:
            await self._started
        except _Refused as refused:
            document = None if refused.version is None else await self._shown(refused.version.digest)
            await self.stop()
            raise StartRefused(str(refused), refused.version, document) from None
        assert follower.serving is not None
        self._local = digest
        if self.drift:
            log.warning("drift local=%s in_force=%s version=%d", digest, follower.serving.digest, follower.serving.n)
        return await self._library.get(follower.serving.digest)

    @property
    def version(self) -> tuple[int, str] | None:
        """(n, digest) that this node applies now."""
        serving = None if self._participant is None else self._participant.follower.serving
        return None if serving is None else (serving.n, serving.digest)

    @property
    def drift(self) -> bool:
        """Do this node's own files differ from what is in force? Only said, never acted on."""
        return bool(self._local) and self.version is not None and self.version[1] != self._local

    def local_files(self, document: bytes) -> None:
        """The node read its files again."""
        self._local = digest_of(document)

    @property
    def cell(self) -> Cell | None:
        """The register as this node saw it last: roster, history (SHOW CONFIG HISTORY), rollout. For showing only."""
        return None if self._participant is None else self._participant.follower.reading.cell

    def status(self) -> list[dict[str, Any]]:
        """The rows of SHOW ROLLOUT, keys as in `outcome.COLUMNS`."""
        cell, participant = self.cell, self._participant
        if cell is None or participant is None:
            return []
        rid = cell.roll.rid if cell.roll is not None else cell.last.rid if cell.last is not None else 0
        return status_rows(cell, participant.rows(rid))

    async def rollout(self, document: bytes, by: str, timeout: float = 60.0, dry_run: bool = False) -> Outcome:
        """Validate here, then in the whole flock, then turn. Ends within `timeout` plus the confirmation (5 s)."""
        digest = digest_of(document)
        refusal, errors = await self._refusal(document)
        if refusal:
            return Outcome("aborted", None, digest, refusal, errors=errors, dry_run=dry_run)
        participant, serving = self._participant, self.version
        assert participant is not None
        assert serving is not None
        if serving[1] == digest and not dry_run:
            return Outcome("committed", serving[0], digest, "this document is in force already")
        self._tokens += 1
        token = f"{self.boot}-{self._tokens}"
        order = Order(token, by, serving[1], digest, timeout, self._utc(), dry_run)
        answer = self._orders[token] = asyncio.get_running_loop().create_future()
        try:
            self._feed(participant.roll_out(order, self._clock()))
            finish = await answer
        finally:
            self._orders.pop(token, None)
        reason = finish.reason or None
        if finish.outcome == "unknown":
            reason = f"{finish.reason}; SHOW ROLLOUT on any node tells how rollout {finish.rid} ended"
        return Outcome(finish.outcome, finish.version, digest, reason, finish.rows, (), finish.rid, dry_run)

    async def _refusal(self, document: bytes) -> tuple[str, tuple[str, ...]]:
        """Why nothing can open: found on this node, before any other hears of it."""
        participant = self._participant
        if participant is None or participant.follower.state is State.STOPPED:
            return NOT_SERVING, ()
        if len(document) > DOCUMENT_LIMIT_BYTES:
            return f"the document has {len(document)} bytes, the limit is {DOCUMENT_LIMIT_BYTES}", ()
        try:
            reading = await self._cells.read()
        except (RegisterUnavailable, RegisterBroken) as error:
            return f"the register cannot be read: {error}", ()
        self._feed(participant.saw(reading, self._clock()))
        cell = reading.cell
        if cell is not None and cell.roll is not None:
            age = max(0.0, self._utc() - cell.roll.opened_at_utc)
            roll = cell.roll
            return f"rollout {roll.rid} is open: node {roll.coordinator}, {roll.phase} for {age:.1f} s", ()
        if participant.follower.state is not State.SERVING:
            return NOT_SERVING, ()
        strangers = self._strangers(cell)
        if strangers:
            return (
                f"{', '.join(strangers)} has no seat in the register {self._register.url}, which only nodes on one host"
                " can share; set register in [sync] to one that every node reaches (or wait if it is just starting)"
            ), ()
        report = await self._validated(document)
        if report.errors:
            return "the document is not valid: " + "; ".join(report.errors), report.errors
        try:
            await self._library.put(document)
        except StoreFailed as error:
            return str(error), (str(error),)
        return "", ()

    def _strangers(self, cell: Cell | None) -> list[str]:
        """With a one-host register: members that gossip knows and the roster does not."""
        if cell is None or not self._register.one_host:
            return []
        return sorted(n for n in self._peers() if n not in cell.roster and self._reachable(n) is not False)

    async def abort(self, by: str) -> bool:
        """End the open rollout, whoever coordinates it. False when none is open, when its commit came first, or when
        the register does not answer."""
        try:
            reading = await self._cells.read()
        except (RegisterUnavailable, RegisterBroken):
            return False
        roll = None if reading.cell is None else reading.cell.roll
        return roll is not None and await self._order(Abort(roll.rid, None, f"aborted by {by}"))

    async def _order(self, change: Change) -> bool:
        """A person's word goes past the coordinator, straight to the register; everybody reads it there."""
        ok, reading, _ = await self._cells.amend(change)
        if self._participant is not None and reading.cell is not None:
            self._feed(self._participant.saw(reading, self._clock()))
        return ok is True

    async def evict(self, node: str, by: str) -> bool:
        """Take a member's seat away. The caller asserts that it is dead and none of its statements runs. None of the
        others can check that. False when the register did not answer or does not allow it."""
        return node != self.node and await self._order(Evict(node, by))

    async def document(self, digest: str) -> bytes:
        """The document of a version that the register remembers. Raises StoreFailed when nobody has it any more."""
        return await self._library.get(digest)

    async def leave(self) -> None:
        """Give up the own seat so that others may roll out without this node. Call it when no client is served any
        more. Gives up after 5 s without a register: then the seat stays, as after kill -9."""
        if self._participant is None or self._participant.follower.state is State.STOPPED:
            return
        self._feed(self._participant.leave(self._clock()))
        try:
            await asyncio.wait_for(self._left.wait(), LEAVE_TIMEOUT_S)
        except TimeoutError:
            log.warning("leave_failed reason=register_unavailable hint=evict %s on another node", self.node)

    async def stop(self) -> None:
        """End all tasks. The seat stays unless `leave` was called."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
        me = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not me]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for order in self._orders.values():
            if not order.done():
                order.set_result(e.Finish("", "unknown", None, "", "this node stopped", 0, ()))
        await self._register.close()
        if self._journal is not None:
            self._journal.close()

    # ── the loop: feed, perform in order, re-arm ────────────────────────────────────────────────────────────────────

    def _feed(self, effects: list[e.Effect]) -> None:
        """Every event's effects pass here; one runner performs them, so a Persist holds back all that follows it."""
        if self._stopping or self.failed.done():
            return
        self._effects.extend(effects)
        self._wake.set()
        self._arm()

    def _arm(self) -> None:
        assert self._participant is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self._participant.deadline
        if deadline < float("inf"):
            delay = max(0.0, deadline - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick, deadline)

    def _tick(self, deadline: float) -> None:
        assert self._participant is not None
        # Loops may fire a hair early; the core must not see a time before its own deadline, or it would spin.
        self._feed(self._participant.tick(max(self._clock(), deadline)))

    async def _run(self) -> None:
        try:
            while True:
                await self._wake.wait()
                while self._effects:
                    await self._perform(self._effects.popleft())
                self._wake.clear()
        except JournalFailed as error:
            # Whatever came after the Persist is not performed: nobody hears a promise that is not on the disk.
            log.critical("journal_failed detail=%s", error)
            self._effects.clear()
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._started is not None and not self._started.done():
            self._started.set_exception(_Refused(str(error), None))
        if not self.failed.done():
            self.failed.set_exception(error)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("sync_task_failed", exc_info=error)
            self._fail(RuntimeError(f"a task of sync failed: {error!r}"))

    async def _perform(self, effect: e.Effect) -> None:
        match effect:
            case e.SendTo(node, message):
                self._send(node, message)
            case e.Persist(promise):
                assert self._journal is not None
                await asyncio.to_thread(self._journal.store, promise)
            case e.Read():
                self._read_again = True
                if not self._reading:
                    self._spawn(self._read())
            case e.Amend(change):
                self._spawn(self._amend(change))
            case e.Obtain(digest):
                self._spawn(self._obtain(digest))
            case e.Validate(rid, target, asked_by):
                self._spawn(self._validate(rid, target, asked_by))
            case e.Pause(scope, rid):
                self._target.pause(scope, rid)
            case e.Drain(scope, rid, attempt):
                self._stop_draining()
                self._drain = self._spawn(self._drained(scope, rid, attempt))
            case e.Resume(scope):
                self._stop_draining()
                self._target.resume(scope)
            case e.Apply(version):
                self._spawn(self._apply(version))
            case _:
                self._tell(effect)

    def _tell(self, effect: e.Effect) -> None:
        """Effects for whoever waits on this service, or for the log."""
        match effect:
            case e.Serving(applied):
                log.info("serving version=%d digest=%s", applied.n, applied.digest)
                self._spawn(self._prune())
                if self._started is not None and not self._started.done():
                    self._started.set_result(None)
            case e.RefuseToStart(reason, version):
                if self._started is not None and not self._started.done():
                    self._started.set_exception(_Refused(reason, version))
            case e.Left():
                self._left.set()
            case e.Alarm(event, detail):
                log.warning("%s detail=%s", event, detail)
                if event == "replaced":
                    self._fail(StartRefused(detail))
            case e.Finish(token, outcome, version, target, reason, rid, _):
                log.info(
                    "rollout_ended rollout=%d outcome=%s version=%s digest=%s reason=%s",
                    rid,
                    outcome,
                    version,
                    target,
                    reason,
                )
                order = self._orders.get(token)
                if order is not None and not order.done():
                    order.set_result(effect)

    def _stop_draining(self) -> None:
        if self._drain is not None:
            self._drain.cancel()
            self._drain = None

    # ── work whose outcome comes back as an event ───────────────────────────────────────────────────────────────────

    @property
    def _core(self) -> Participant:
        assert self._participant is not None
        return self._participant

    async def _read(self) -> None:
        """One read at a time; those who ask meanwhile share the next one, which begins after they asked."""
        self._reading = True
        while self._read_again:
            self._read_again = False
            try:
                reading = await self._cells.read()
            except RegisterUnavailable as error:
                log.warning("register_unavailable reason=%s", error)
            except RegisterBroken as error:
                log.error("register_broken reason=%s", error)
                if self._started is not None and not self._started.done():
                    self._started.set_exception(_Refused(str(error), None))
            else:
                self._feed(self._core.saw(reading, self._clock()))
        self._reading = False

    async def _amend(self, change: Change) -> None:
        ok, reading, reason = await self._cells.amend(change)
        self._feed(self._core.amended(change, ok, reading, reason, self._clock()))

    async def _obtain(self, digest: str) -> None:
        try:
            await self._library.get(digest)
        except StoreFailed as error:
            log.warning("document_missing digest=%s reason=%s", digest, error)
            self._feed(self._core.obtained(digest, False, self._clock()))
        else:
            self._feed(self._core.obtained(digest, True, self._clock()))

    async def _validate(self, rid: int, target: str, asked_by: str) -> None:
        try:
            document = await self._library.get(target, first=asked_by)
        except StoreFailed as error:
            report = Report(ChangeClass.LOCAL, errors=(str(error),))
        else:
            report = await self._validated(document)
        self._feed(self._core.validated(rid, target, report, asked_by, self._clock()))

    async def _validated(self, document: bytes) -> Report:
        try:
            async with asyncio.timeout(self.settings.validate_timeout):
                return await self._target.validate(document)
        except TimeoutError:
            text = f"validation did not end within {self.settings.validate_timeout:g} s"
            return Report(ChangeClass.LOCAL, errors=(text,))
        except Exception as error:  # a dry run that crashes is the best reason not to go on, and never ours to die of
            log.exception("validate_failed")
            return Report(ChangeClass.LOCAL, errors=(f"validation failed: {error!r}",))

    async def _drained(self, scope: tuple[str, ...], rid: int, attempt: int) -> None:
        try:
            await self._target.drain(scope)
        except DrainFailed as error:
            self._feed(self._core.drain_failed(rid, attempt, str(error), self._clock()))
        except Exception as error:  # our bug, but a pause that nobody ends would be worse
            log.exception("drain_failed")
            self._feed(self._core.drain_failed(rid, attempt, repr(error), self._clock()))
        else:
            self._feed(self._core.drained(rid, attempt, self._clock()))

    async def _apply(self, version: ConfigVersion) -> None:
        problem = ""
        try:
            document = await self._library.get(version.digest)
            await self._target.apply(document, version)
        except (StoreFailed, ApplyFailed) as error:
            problem = str(error)
        except Exception as error:  # our bug; the member serves nothing of this version and says so
            log.exception("apply_failed")
            problem = repr(error)
        self._feed(self._core.applied(version, problem, self._clock()))

    async def _prune(self) -> None:
        cell = self.cell
        if cell is not None:
            keep = [version.digest for version in cell.history]
            await asyncio.to_thread(self._library.prune, keep)

    async def _watch(self) -> None:
        while True:
            try:
                async for _ in self._register.watch(0):
                    self._feed([e.Read()])
            except RegisterUnavailable:
                await asyncio.sleep(self.settings.poll)

    async def _shown(self, digest: str) -> bytes | None:
        try:
            return await self._library.get(digest)
        except StoreFailed:
            return None

    # ── peers ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _document_sources(self) -> list[tuple[str, str]]:
        """Everybody who may have a document: those discovery knows, then the seats."""
        sources = dict(self._peers())
        if self.cell is not None:
            for name, seat in self.cell.roster.seats:
                sources.setdefault(name, seat.address)
        return [(name, address) for name, address in sources.items() if name != self.node and address]

    def _send(self, node: str, message: Message) -> None:
        if node == self.node:
            loop = asyncio.get_running_loop()
            loop.call_soon(lambda: self._feed(self._core.receive(message, node, self._clock())))
            return
        if self._reachable(node) is False:
            self._unreachable(node, "discovery calls it dead")
            return
        if self._sending.get(node, 0) < SENDS_LIMIT:
            self._sending[node] = self._sending.get(node, 0) + 1
            self._spawn(self._sent(node, message))

    async def _sent(self, node: str, message: Message) -> None:
        address = dict(self._document_sources()).get(node)
        try:
            if address is None:
                raise ControlUnreachable("its address is not known")
            await self._control.request(address, SERVICE, encode(message), SEND_TIMEOUT_S, node=node)
        except ControlUnreachable as error:
            log.info("send_failed member=%s message=%s reason=%s", node, type(message).__name__, error)
            if error.refused:
                self._unreachable(node, str(error))
        finally:
            self._sending[node] -= 1

    def _unreachable(self, node: str, reason: str) -> None:
        self._feed(self._core.unreachable(node, reason, self._clock()))

    async def _hear(self, sender: str, payload: bytes) -> bytes:
        """A message is a hint or a vote; the channel has proven who sent it, and the empty answer says "heard"."""
        if self._participant is None or self._stopping:
            return b""
        try:
            message = decode(payload)
        except Malformed as error:
            log.warning("message_malformed member=%s reason=%s", sender, error)
            return b""
        self._feed(self._participant.receive(message, sender, self._clock()))
        return b""


class _Refused(Exception):
    def __init__(self, reason: str, version: ConfigVersion | None) -> None:
        super().__init__(reason)
        self.version = version


def _retrieved(future: asyncio.Future[None]) -> None:
    """The exception is logged where it arises; a node that never awaits `failed` must not see a second complaint."""
    if not future.cancelled():
        future.exception()
