"""One real PostgreSQL server of ours: its own data directory, one TCP port on 127.0.0.1 and one UNIX socket folder."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

from node.embedded.binaries import Binaries, find_binaries
from node.embedded.template import SUPERUSER, Template
from node.embedded.workspace import Workspace, free_port

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
PORT_ATTEMPTS = 5
POLL_S = 0.01


class Stop(IntEnum):
    """How PostgreSQL stops, as the signals it takes ("Shutting Down the Server")."""

    FAST = signal.SIGINT
    IMMEDIATE = signal.SIGQUIT
    SMART = signal.SIGTERM


class SqlError(RuntimeError):
    """psql ended with an error; the text is the server's."""


class Server:
    """A PostgreSQL server that can be started, stopped, restarted and killed any number of times on one port.

    The superuser is `postgres`; every connection, also on the UNIX socket, needs a password by `auth`
    (scram-sha-256, md5, password, trust). With `durable` the server calls fsync as it should; tests and the demo
    need not wait for disks. `settings` are lines of postgresql.conf. `tls` is (certificate, key), and needs binaries
    that were built with OpenSSL (the wheel's are not): see `has_tls`.
    """

    host = "127.0.0.1"
    superuser = SUPERUSER

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        *,
        binaries: Binaries | None = None,
        auth: str = "scram-sha-256",
        password: str = "postgres",
        port: int = 0,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.workspace = workspace
        self.name = name
        self.auth = auth
        self.password = password
        self.port = port
        self._port_is_ours = port == 0
        self.durable = durable
        self.settings = dict(settings or {})
        self.tls = tls
        self._template = Template(workspace, binaries or find_binaries(), password)
        self.binaries = self._template.binaries
        self.home = workspace.folder(name, private_to_account=True)
        self.data = self.home / "data"
        self.socket_folder = self.home
        self.log = self.home / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._template.copy_to(self.data)
        workspace.on_close(lambda: self.stop(Stop.IMMEDIATE))

    # -- life ------------------------------------------------------------------------------------------------------

    def start(self, timeout_s: float = START_TIMEOUT_S) -> Server:
        """Starts and waits until it lets clients in. Raises RuntimeError with the end of the log."""
        if self.running:
            return self
        until = time.monotonic() + timeout_s
        attempts = PORT_ATTEMPTS if self._port_is_ours else 1
        while True:
            if self.port == 0:
                self.port = free_port(self.host)
            self._configure()
            self._log_starts_at = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self._process = self.workspace.spawn(
                    [self.binaries.path("postgres"), "-D", self.data],
                    output=log,
                    as_account=True,
                    environment={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"},
                )
            if self.wait_ready(until - time.monotonic()):
                return self
            said = self.log_text(this_start_only=True)
            attempts -= 1
            if "pre-existing shared memory block" in said and time.monotonic() < until:
                time.sleep(0.1)  # children of a killed postmaster need a moment to notice
                attempts += 1
            elif "Address already in use" in said and attempts:
                self.port = 0
            else:
                self.stop(Stop.IMMEDIATE)
                raise RuntimeError(f"PostgreSQL {self.binaries.version} ({self.name}) did not start:\n{said[-3000:]}")

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> bool:
        """True once a client would be asked to authenticate; False when the server ended or the time is over."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until and self.running:
            if self.accepts():
                return True
            time.sleep(POLL_S)
        return False

    def accepts(self) -> bool:
        """Really connects, as far as the first answer: an authentication request, and not "is starting up"."""
        body = struct.pack("!I", 3 << 16) + f"user\0{self.superuser}\0database\0postgres\0\0".encode()
        try:
            with socket.create_connection((self.host, self.port), timeout=2) as connection:
                connection.sendall(struct.pack("!I", len(body) + 4) + body)
                return connection.recv(1) == b"R"
        except OSError:
            return False

    def stop(self, how: Stop = Stop.FAST, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Stops if running; killed when it does not obey in time."""
        if self._process is None:
            return
        self.workspace.end(self._process, how, patience_s=timeout_s)
        self._process = None

    def restart(self, how: Stop = Stop.FAST) -> None:
        self.stop(how)
        self.start()

    def kill(self) -> None:
        """kill -9 of the postmaster and of everything it started: a power failure as clients see it."""
        if self._process is None:
            return
        children = self._children()
        self.workspace.end(self._process, signal.SIGKILL)
        self._process = None
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP to postmaster and children: a host that hangs. Undo with `thaw`."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's. Raises RuntimeError when stopped."""
        if self._process is None:
            raise RuntimeError(f"server {self.name} is not running")
        return self._process.pid

    # -- use -------------------------------------------------------------------------------------------------------

    def sql(
        self, text: str, database: str = "postgres", *, user: str | None = None, password: str | None = None
    ) -> list[tuple[str, ...]]:
        """Runs statements by psql on the UNIX socket, all in one session; the rows as texts, NULL as ''.

        Raises SqlError. It costs a process (15 ms): for set-up and for looking, not for load.
        """
        done = subprocess.run(
            [
                self.binaries.path("psql"),
                "--no-psqlrc",
                "--quiet",
                "--tuples-only",
                "--csv",
                "--set=ON_ERROR_STOP=1",
                f"--host={self.socket_folder}",
                f"--port={self.port}",
                f"--username={user or self.superuser}",
                f"--dbname={database}",
            ],
            input=text,
            capture_output=True,
            text=True,
            env={
                "PGPASSWORD": password or self.password,
                "PGCONNECT_TIMEOUT": "10",
                "PATH": os.environ.get("PATH", ""),
                "PGCLIENTENCODING": "UTF8",
            },
            timeout=120,
        )
        if done.returncode != 0:
            raise SqlError(done.stderr.strip() or f"psql ended with status {done.returncode}")
        return [tuple(row) or ("",) for row in csv.reader(io.StringIO(done.stdout, newline=""))]

    def create_role(self, name: str, password: str, *, options: str = "LOGIN") -> None:
        """With md5 the stored secret must be md5 too, or the server would ask for SCRAM all the same."""
        encryption = "md5" if self.auth == "md5" else "scram-sha-256"
        self.sql(
            f"SET password_encryption = '{encryption}'; "
            f"CREATE ROLE \"{name}\" {options} PASSWORD '{password.replace(chr(39), chr(39) * 2)}'"
        )

    def create_database(self, name: str, owner: str | None = None) -> None:
        self.sql(f'CREATE DATABASE "{name}"' + (f' OWNER "{owner}"' if owner else ""))

    def conninfo(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """A libpq connection string over TCP."""
        user = user or self.superuser
        return f"host={self.host} port={self.port} dbname={database} user={user} password={password or self.password}"

    def url(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        user = user or self.superuser
        return f"postgresql://{user}:{password or self.password}@{self.host}:{self.port}/{database}"

    def log_text(self, *, this_start_only: bool = False) -> str:
        """What the server logged."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_starts_at if this_start_only else 0)
            return log.read().decode(errors="replace")

    @property
    def has_tls(self) -> bool:
        """Were these binaries built with OpenSSL?"""
        said = self.workspace.run_as_account([self.binaries.path("postgres"), "-D", self.data, "-C", "ssl_library"])
        return bool(said.strip())

    # -- inside ----------------------------------------------------------------------------------------------------

    _log_starts_at = 0

    def _configure(self) -> None:
        settings = {
            "listen_addresses": f"'{self.host}'",
            "port": str(self.port),
            "unix_socket_directories": f"'{self.socket_folder}'",
            "unix_socket_permissions": "0777",  # the folder itself is private
            "max_connections": "200",
            "max_prepared_transactions": "100",
            "shared_buffers": "'64MB'",
            "password_encryption": "md5" if self.auth == "md5" else "'scram-sha-256'",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "'%m [%p] %q%u@%d %a '",
        }
        if not self.durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        if self.binaries.major >= 18:
            settings["io_method"] = "sync"  # no worker processes: many servers share a small machine
        if self.tls is not None:
            certificate, key = (self.home / "server.crt", self.home / "server.key")
            for source, target in zip(self.tls, (certificate, key), strict=True):
                self._write(target, source.read_bytes())
            settings |= {"ssl": "on", "ssl_cert_file": f"'{certificate}'", "ssl_key_file": f"'{key}'"}
        settings |= self.settings
        self._write(
            self.data / "postgresql.auto.conf",
            "".join(f"{name} = {value}\n" for name, value in settings.items()).encode(),
        )
        self._write(
            self.data / "pg_hba.conf",
            "".join(
                f"{kind} {database} all {address} {self.auth}\n"
                for database in ("all", "replication")
                for kind, address in (("local", ""), ("host", "127.0.0.1/32"), ("host", "::1/128"))
            ).encode(),
        )

    def _write(self, path: Path, content: bytes) -> None:
        path.touch(mode=0o600)
        path.write_bytes(content)
        self.workspace.give(path)

    def _children(self) -> list[int]:
        """PostgreSQL gives every backend a session of its own, so a group does not hold them together."""
        said = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
        pairs = [line.split() for line in said.splitlines()]
        return [int(pid) for pid, parent in pairs if int(parent) == self.pid]

    def _signal_all(self, number: int) -> None:
        for pid in (self.pid, *self._children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
