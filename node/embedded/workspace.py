"""A place on this machine for servers and nodes: a short temporary folder, and the promise that nothing stays behind.

Everything started through a workspace is stopped and removed when it closes, when the interpreter exits, and (by the
janitor process) when the interpreter is killed.
"""

from __future__ import annotations

import atexit
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from node.embedded import janitor
from node.embedded.stopping import postponed

SOCKET_PATH_LIMIT = 100
"""Bytes of a UNIX socket's path that every system accepts (macOS: 104, Linux: 108), its name's share taken off."""

PORTS = range(20000, 32000)
"""Below every usual ephemeral range: a client that connects to a *stopped* server on an ephemeral port may be handed
that very port as its own source and end up connected to itself."""

_dice = random.SystemRandom()  # the global generator is seeded by tests, parallel runs would pick the same ports


@dataclass(frozen=True)
class Account:
    """Whom PostgreSQL runs as when we are root, which it refuses to be."""

    name: str
    uid: int
    gid: int


def unprivileged_account() -> Account | None:
    """None when we are not root. Raises RuntimeError when root knows nobody else."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "postgres", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise RuntimeError("PostgreSQL does not run as root, and there is no account nobody, postgres or daemon to use")


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now; another process may take it before you do, so be ready to ask again."""
    for _ in range(500):
        port = _dice.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {PORTS.start} and {PORTS.stop} on {host}")


class Workspace:
    """A temporary folder with the processes that live in it."""

    def __init__(self, prefix: str = "pgmurmur-") -> None:
        parent = tempfile.gettempdir()
        if len(parent) + len(prefix) + 30 > SOCKET_PATH_LIMIT:
            parent = "/tmp"
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        self.path.chmod(0o755)  # the unprivileged account must be able to walk through to its own folders
        self.account = unprivileged_account()
        self._owner = os.getpid()
        self._closers: list[Callable[[], None]] = []
        self._janitor = subprocess.Popen(
            [sys.executable, "-I", "-S", janitor.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._tell(f"tree {self.path}")
        atexit.register(self.close)

    def folder(self, name: str, *, private_to_account: bool = False) -> Path:
        """A new folder here; PostgreSQL's own ones are private to the account it runs as."""
        made = self.path / name
        made.mkdir(mode=0o700 if private_to_account else 0o755)
        if private_to_account:
            self.give(made)
        return made

    def give(self, path: Path) -> None:
        """Hands `path` to the account PostgreSQL runs as, if that is not us."""
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    def on_close(self, closer: Callable[[], None]) -> None:
        self._closers.append(closer)

    def run_as_account(self, command: Sequence[str | Path], *, timeout_s: float = 120) -> str:
        """Runs to the end as the account; its output, or RuntimeError with what it said."""
        done = self.run(command, as_account=True, timeout_s=timeout_s)
        if done.returncode != 0:
            said = done.stdout + done.stderr
            raise RuntimeError(f"{Path(command[0]).name} ended with status {done.returncode}:\n{said}")
        return done.stdout

    def run(
        self, command: Sequence[str | Path], *, as_account: bool = False, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Runs to the end, and not beyond ours. Raises TimeoutExpired."""
        process = self.spawn(command, output=subprocess.PIPE, errors=subprocess.PIPE, as_account=as_account)
        try:
            said, complained = process.communicate(timeout=timeout_s)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            self.end(process)
        return subprocess.CompletedProcess(process.args, process.returncode, said.decode(), complained.decode())

    def spawn(
        self,
        command: Sequence[str | Path],
        *,
        output: IO[bytes] | int,
        errors: IO[bytes] | int = subprocess.STDOUT,
        as_account: bool = False,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a process in a group of its own: a Ctrl-C in our terminal is ours to pass on. The janitor knows it."""
        account = self.account if as_account else None
        with postponed():
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                cwd=cwd or self.path,
                env=None if environment is None else dict(environment),
                user=None if account is None else account.uid,
                group=None if account is None else account.gid,
                extra_groups=None if account is None else [],
                start_new_session=True,
            )
            self._tell(f"group {process.pid}")
        return process

    def reaped(self, process: subprocess.Popen[bytes]) -> None:
        """Call once the process has been waited for: its number may belong to somebody else soon."""
        self._tell(f"-group {process.pid}")

    def end(self, process: subprocess.Popen[bytes], how: int = signal.SIGTERM, *, patience_s: float = 10) -> int:
        """Signals the process, kills its group if it does not end in time; its exit status."""
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(patience_s)
        self.reaped(process)
        return process.returncode

    def close(self) -> None:
        """Stops and removes everything, last started first; safe to call twice."""
        if os.getpid() != self._owner or self._janitor.stdin is None or self._janitor.stdin.closed:
            return  # a forked child inherits the atexit hook, but not the belongings
        for closer in reversed(self._closers):
            try:
                closer()
            except Exception as error:
                print(f"pgmurmur: while cleaning up {self.path}: {error}", file=sys.stderr)
        self._closers.clear()
        shutil.rmtree(self.path, ignore_errors=True)
        self._janitor.stdin.close()
        self._janitor.wait(30)
        atexit.unregister(self.close)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tell(self, line: str) -> None:
        pipe = self._janitor.stdin
        assert pipe is not None
        pipe.write(line + "\n")
        pipe.flush()
