"""`--workers N`: N members on this host on one client port, and the parent that starts them.

What coordinates machines coordinates workers too: they find each other by gossip, agree through the register, and pass
cancel requests on over the control channel. The parent serves nobody and decides nothing. It reads the files, keeps the
port, forks, forks again what died, passes SIGHUP and its own end on, and waits.

The kernel spreads new connections over the workers' sockets (SO_REUSEPORT) by a hash of both addresses; a worker that
dies takes only its own clients along, and the others get the new ones at once. macOS spreads nothing. Workers are
forked before any thread or event loop exists here.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import secrets
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from node.client.listener import addresses
from node.config.problems import ConfigError
from node.options import NodeOptions, idle_folders, node_name, of_worker
from node.worker import OPEN, SAYING_LIMIT_BYTES, STOP, Prepared, Ready, Worker

log = logging.getLogger("pgmurmur.workers")

# A worker that died starts again after so long, twice as long after every death that follows soon.
RESTART_DELAY_S = 0.5
RESTART_DELAY_LIMIT_S = 30.0
# One that has served so long died of something new.
STABLE_S = 60.0
_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

Run = Callable[[NodeOptions, Worker], int]


def restart_delay_s(deaths: int) -> float:
    """`deaths` in a row, from 1."""
    return float(min(RESTART_DELAY_LIMIT_S, RESTART_DELAY_S * 2 ** min(deaths - 1, 16)))


def reserve(host: str, port: int) -> tuple[int, list[socket.socket]]:
    """The port (0: one that is free), and sockets that keep it for others of this user. They do not listen, so the
    kernel gives them no clients. Raises OSError when somebody has it, workers of another parent included."""
    kept: list[socket.socket] = []
    try:
        for family, address in addresses(host, port):
            kept.append(socket.socket(family, socket.SOCK_STREAM))
            kept[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                kept[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                kept[-1].bind((address, port))
            except OSError as error:
                shown = f"[{address}]" if family == socket.AF_INET6 else address
                raise OSError(f"could not listen on {shown}:{port}: {os.strerror(error.errno or 0)}") from None
            # only now: a socket that is bound so from the start would be let in beside another parent's
            kept[-1].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = int(kept[-1].getsockname()[1])
    except BaseException:
        for one in kept:
            one.close()
        raise
    return port, kept


@dataclass(slots=True)
class _Slot:
    """A worker's place; `pid` 0 while it is dead."""

    number: int
    pid: int = 0
    channel: socket.socket | None = None
    said: bytearray = field(default_factory=bytearray)
    ready: Ready | None = None
    serves: bool = False
    since: float = 0.0
    deaths: int = 0
    starts_at: float = 0.0


class Workers:
    """The parent. `prepare` reads the files, `run` is the life of a worker; both are the app's."""

    def __init__(self, options: NodeOptions, prepare: Callable[[NodeOptions], Prepared], run: Run) -> None:
        self._options = options
        self._prepare = prepare
        self._run = run
        self._slots = [_Slot(number) for number in range(1, options.workers + 1)]
        self._selector = selectors.DefaultSelector()
        self._salts = secrets.token_bytes(32)
        self._started = self._stopping = self._asked = False
        self._status = 0

    def run(self) -> int:
        """Until all workers have ended; the exit status."""
        try:
            self._prepared = self._prepare(self._options)
            general = self._prepared.config.general
            host = self._options.host or general.host
            wanted = self._options.port if self._options.port is not None else general.port
            self._port, self._kept = reserve(host, wanted)
        except (ConfigError, OSError) as error:
            print(error if isinstance(error, ConfigError) else f"pgmurmur: {error}", file=sys.stderr)
            return 1
        self._name = node_name(self._options, socket.gethostname(), self._port)
        for folder in idle_folders(self._options, self._name, os.environ, root=os.geteuid() == 0):
            log.warning(
                "state_of_no_worker folder=%s hint=%r",
                folder,
                "if a node was killed with it, start it once more as it was",
            )
        self._listen_for_signals()
        self._fork(self._slots[0])  # alone first: what keeps it from starting is said once, and it is the others' seed
        while not self._stopping or any(slot.pid for slot in self._slots):
            self._turn()
        for kept in self._kept:
            kept.close()
        return self._status

    # --- what happens ------------------------------------------------------------------------------------------------

    def _listen_for_signals(self) -> None:
        self._wakes, self._woken = socket.socketpair()
        for end in (self._wakes, self._woken):
            end.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        for number in _HEARD:
            signal.signal(number, lambda *_: None)  # the wake-up socket carries its number
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)

    def _turn(self) -> None:
        now = time.monotonic()
        due = [slot.starts_at for slot in self._slots if slot.starts_at and not self._stopping]
        for key, _ in self._selector.select(max(0.0, min(due) - now) if due else None):
            if key.data is None:
                for number in self._woken.recv(SAYING_LIMIT_BYTES):
                    self._signalled(number)
            else:
                self._hear(key.data)
        self._reap()  # whatever woke us: signals of several ends may have come as one
        if not self._stopping:
            now = time.monotonic()
            for slot in self._slots:
                if slot.starts_at and slot.starts_at <= now:
                    self._fork(slot)

    def _signalled(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if not self._stopping or self._asked:
                self._stop()  # told twice, workers hasten
            self._asked = True
        elif number == signal.SIGHUP:
            for slot in self._slots:
                if slot.pid and slot.ready is not None:  # before that it would only die of it
                    os.kill(slot.pid, signal.SIGHUP)

    def _stop(self) -> None:
        """Everybody at once. By a word, no signal: a terminal and systemd have sent that to the workers, too, and twice
        would hasten them."""
        if not self._stopping:
            self._stopping = True
            log.info("stopping workers=%s", sum(slot.pid != 0 for slot in self._slots))
        for slot in self._slots:
            if slot.pid and slot.ready is None:
                os.kill(slot.pid, signal.SIGTERM)  # it does not listen yet
            self._say(slot, STOP)

    @staticmethod
    def _say(slot: _Slot, word: bytes) -> None:
        if slot.channel is not None:
            with contextlib.suppress(ConnectionError):  # its end follows
                slot.channel.send(word)

    def _hang_up(self, slot: _Slot) -> None:
        if slot.channel is not None:
            self._selector.unregister(slot.channel)
            slot.channel.close()
            slot.channel = None

    # --- a worker's life ---------------------------------------------------------------------------------------------

    def _hear(self, slot: _Slot) -> None:
        if slot.channel is None:
            return
        try:
            heard = slot.channel.recv(SAYING_LIMIT_BYTES)
        except ConnectionError:
            heard = b""
        if not heard:
            self._hang_up(slot)  # its end follows
            return
        slot.said += heard
        if slot.ready is None and b"\n" in slot.said:
            line, _, rest = bytes(slot.said).partition(b"\n")
            slot.ready, slot.said = Ready.from_bytes(line), bytearray(rest)
            self._is_member(slot)
        elif STOP in heard and not self._stopping:
            log.info(
                "worker_told_to_stop worker=%s detail=%r", slot.number, "by SHUTDOWN or a signal; so are the others"
            )
            self._stop()
        if slot.ready is not None and not slot.serves and OPEN in slot.said:
            slot.serves = True
            self._is_open(slot)

    def _is_member(self, slot: _Slot) -> None:
        if self._started:
            self._say(slot, OPEN)
        elif slot is self._slots[0] and len(self._slots) > 1:
            for other in self._slots[1:]:
                self._fork(other)
        if not self._started and all(one.ready is not None for one in self._slots):
            for one in self._slots:
                self._say(one, OPEN)

    def _is_open(self, slot: _Slot) -> None:
        if self._started:
            log.info("worker_back worker=%s pid=%s", slot.number, slot.pid)
        elif all(one.serves for one in self._slots):
            self._started = True
            reports = [one.ready for one in self._slots if one.ready is not None]
            log.info(
                "workers_ready count=%s addr=%s server_connections=%s max_client_conn=%s detail=%r",
                len(reports),
                reports[0].client,
                sum(one.servers for one in reports),
                sum(one.clients for one in reports),
                f"limits are per worker: {reports[0].servers} server connections and {reports[0].clients} clients each",
            )
            print(reports[0].line, flush=True)

    def _reap(self) -> None:
        for slot in self._slots:
            if slot.pid:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._ended(slot, os.waitstatus_to_exitcode(status))

    def _ended(self, slot: _Slot, status: int) -> None:
        lived_s = time.monotonic() - slot.since
        pid, served, slot.pid = slot.pid, slot.serves, 0
        self._hang_up(slot)
        slot.ready, slot.serves, slot.said = None, False, bytearray()
        if self._stopping:
            if status and served:
                self._status = self._status or 1
            return
        if not self._started:  # it has said why
            self._status = status if status > 0 else 1
            self._stop()
        elif status == 0:
            log.info(
                "worker_left worker=%s pid=%s detail=%r", slot.number, pid, "SHUTDOWN or SIGTERM: the others follow"
            )
            self._stop()
        else:
            slot.deaths = slot.deaths + 1 if lived_s < STABLE_S else 1
            delay_s = restart_delay_s(slot.deaths)
            slot.starts_at = time.monotonic() + delay_s
            why = f"signal {-status}" if status < 0 else f"status {status}"
            log.error("worker_died worker=%s pid=%s reason=%r again_in_s=%s", slot.number, pid, why, delay_s)

    def _fork(self, slot: _Slot) -> None:
        ours, theirs = socket.socketpair()
        seeds = tuple(one.ready.seed for one in self._slots if one.pid and one.ready is not None)
        worker = Worker(slot.number, self._prepared, seeds, self._salts, theirs)
        slot.since, slot.starts_at = time.monotonic(), 0.0
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        gc.freeze()  # shared pages stay shared: the worker's collector does not write to what is there already
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        pid = os.fork()
        if pid == 0:
            self._become(worker, ours, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        slot.pid, slot.channel = pid, ours
        self._selector.register(ours, selectors.EVENT_READ, slot)
        log.info("worker_started worker=%s pid=%s", slot.number, pid)

    def _become(self, worker: Worker, ours: socket.socket, mask: set[signal.Signals] | set[int]) -> None:
        """In the new process; never returns. Nothing of the parent stays open here: a channel to a sister that we kept
        would hide the parent's end from it."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _HEARD:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            self._selector.close()
            for end in (ours, self._wakes, self._woken, *self._kept):
                end.close()
            for slot in self._slots:
                if slot.channel is not None:
                    slot.channel.close()
            status = self._run(of_worker(self._options, self._name, worker.number, self._port), worker)
        except BaseException:
            log.exception("worker_failed")
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(status)
