"""Where clients come in: TCP addresses and a UNIX socket, bound, listened on, and left in order.

TCP options set on a listening socket are inherited by the connections it accepts (Linux, macOS), so nothing is set per
connection. A UNIX socket file that a killed process left behind is replaced; one that belongs to a living process
never is: a lock file beside it, held with flock, tells them apart whatever happened to their process ids. Its name and
first line are PostgreSQL's, so a PostgreSQL server respects us too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from node.loop.sockets import Serving, Streaming, serve
from node.tcp import TcpOptions

# Connections the kernel completes for us while the loop is busy; more than that and SYNs are dropped, so a storm of
# reconnecting clients needs room. The kernel caps it (net.core.somaxconn).
BACKLOG = 4096
# Including the terminator: 108 on Linux, 104 on macOS.
UNIX_PATH_LIMIT_BYTES = 104


class ListenFault(OSError):
    """An address that cannot be listened on; the text names it."""


def addresses(hosts: str, port: int) -> Sequence[tuple[socket.AddressFamily, str]]:
    """Every address behind `hosts` (see `Listener`), in order, each once. May wait for DNS. Raises ListenFault."""
    found: dict[tuple[socket.AddressFamily, str], None] = {}
    for name in hosts.split(","):
        host = name.strip()
        if host == "*":
            found[socket.AF_INET, "0.0.0.0"] = None
            if socket.has_ipv6 and _has_ipv6():
                found[socket.AF_INET6, "::"] = None
            continue
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise ListenFault(f'could not translate host name "{host}" to an address: {error.strerror}') from None
        for family, _, _, _, address in infos:
            found[family, str(address[0])] = None
    return list(found)


class Listener:
    """`host` is a name, an address, a comma-separated list of them, or `*` for every address; port 0 picks one port.

    `unix_factory` makes the protocols of clients that come by the UNIX socket, when they differ.

    With `share_port` (workers > 1) other members may listen on the same port and the kernel spreads the clients; only
    the first of them gets the UNIX socket.
    """

    def __init__(
        self,
        factory: Callable[[], Streaming],
        host: str,
        port: int,
        *,
        unix_factory: Callable[[], Streaming] | None = None,
        unix_socket_dir: Path | None = None,
        unix_socket_mode: int = 0o777,
        share_port: bool = False,
        tcp: TcpOptions | None = None,
        backlog: int = BACKLOG,
    ) -> None:
        self._factory = factory
        self._unix_factory = unix_factory or factory
        self._host = host
        self._port = port
        self._unix_socket_dir = unix_socket_dir
        self._unix_socket_mode = unix_socket_mode
        self._share_port = share_port
        self._tcp = tcp or TcpOptions()
        self._backlog = backlog
        self._servers: list[Serving] = []
        self._unix: UnixSocket | None = None

    @property
    def port(self) -> int:
        """The port in use, once started."""
        return self._port

    @property
    def unix_path(self) -> Path | None:
        return self._unix.path if self._unix is not None else None

    async def start(self) -> None:
        """Raises ListenFault, with nothing left open."""
        bound: list[socket.socket] = []
        try:
            for family, address in await asyncio.to_thread(addresses, self._host, self._port):
                bound.append(self._bind(family, address))
            if self._unix_socket_dir is not None:
                self._unix = self._bind_unix(self._unix_socket_dir)
            for listening in bound:
                self._servers.append(await serve(listening, self._factory, self._backlog))
            if self._unix is not None:
                self._servers.append(await serve(self._unix.socket, self._unix_factory, self._backlog))
        except BaseException:
            for listening in bound:
                listening.close()
            await self.close()
            raise

    def stop_accepting(self) -> None:
        """No new clients; the ones that came in stay. The UNIX socket's name is free for a successor at once."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if self._unix is not None:
            self._unix.close()
            self._unix = None

    async def close(self) -> None:
        self.stop_accepting()
        await asyncio.sleep(0)  # closing a listening socket takes the loop one turn

    # -- inside --------------------------------------------------------------------------------------------------

    def _bind(self, family: socket.AddressFamily, address: str) -> socket.socket:
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setblocking(False)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self._share_port:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._tcp.apply(listening)
            listening.bind((address, self._port))
            # Claims the port: without it two sockets may both be bound, and only the second `listen` would fail.
            listening.listen(self._backlog)
        except OSError as error:
            listening.close()
            shown = f"[{address}]" if family == socket.AF_INET6 else address
            raise ListenFault(
                error.errno, f"could not listen on {shown}:{self._port}: {os.strerror(error.errno or 0)}"
            ) from None
        self._port = int(listening.getsockname()[1])  # the first address picks, the others follow
        return listening

    def _bind_unix(self, folder: Path) -> UnixSocket | None:
        path = folder / f".s.PGSQL.{self._port}"
        try:
            return UnixSocket.bind(path, self._unix_socket_mode)
        except SocketInUse:
            if self._share_port:
                return None
            raise


class SocketInUse(ListenFault):
    """A living process has this UNIX socket."""


class UnixSocket:
    """A bound UNIX socket and the lock that says it is ours."""

    def __init__(self, path: Path, bound: socket.socket, lock: int) -> None:
        self.path = path
        self.socket = bound
        self._lock = lock
        self._identity = _identity(path)

    @classmethod
    def bind(cls, path: Path, mode: int) -> UnixSocket:
        """Raises SocketInUse, or ListenFault."""
        if len(os.fsencode(path)) >= UNIX_PATH_LIMIT_BYTES:
            raise ListenFault(f"UNIX socket path {path} is longer than {UNIX_PATH_LIMIT_BYTES - 1} bytes")
        lock = _lock(path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            if path.exists() and not stat.S_ISSOCK(path.lstat().st_mode):
                raise ListenFault(f"could not listen on {path}: a file that is no socket is in the way")
            if _answers(path):  # a PostgreSQL server, say: it does not hold its lock file with flock
                raise SocketInUse(f"could not listen on {path}: another process does")
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
            path.unlink(missing_ok=True)
            bound.bind(os.fspath(path))
            path.chmod(mode)
            return cls(path, bound, lock)
        except OSError as error:
            bound.close()
            os.close(lock)
            if isinstance(error, ListenFault):
                raise
            raise ListenFault(error.errno, f"could not listen on {path}: {os.strerror(error.errno or 0)}") from None

    def close(self) -> None:
        """Removes the socket file if it is still the one we made, and lets go of the lock."""
        self.socket.close()
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()
            _lock_file(self.path).unlink()
        os.close(self._lock)
        self._lock = -1


def _lock_file(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _lock(path: Path) -> int:
    """An open, locked lock file. Raises SocketInUse.

    Who held it before may have removed the file after we had opened it: then what we locked is a file without a name,
    and another try is due.
    """
    name = _lock_file(path)
    while True:
        try:
            lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ListenFault(error.errno, f"could not open {name}: {os.strerror(error.errno or 0)}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened = os.fstat(lock)
            if (opened.st_dev, opened.st_ino) == _identity(name):
                return lock
        except FileNotFoundError:
            pass
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).split(b"\n", 1)[0].decode("ascii", "replace") or "unknown"
            os.close(lock)
            raise SocketInUse(f"could not listen on {path}: process {owner} does") from None
        except OSError as error:
            os.close(lock)
            raise ListenFault(error.errno, f"could not lock {name}: {os.strerror(error.errno or 0)}") from None
        os.close(lock)


def _answers(path: Path) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path)) in (0, errno.EAGAIN)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _has_ipv6() -> bool:
    """A kernel may know IPv6 and have it switched off."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
