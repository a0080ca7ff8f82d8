"""The [tcp] table of the configuration, applied to sockets of both sides."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """The [tcp] table. None leaves the system's default."""

    keepalive: bool = True
    time_s: int | None = None  # idle time before the first probe
    interval_s: int | None = None
    retries: int | None = None
    user_timeout_ms: int | None = None  # unacknowledged data for longer than this ends the connection (Linux)
    congestion_control: str | None = None  # Linux

    def apply(self, connection: socket.socket) -> None:
        """Raises OSError when the system refuses a value; options it does not have are left out."""
        for level, name, value in self._options():
            number = getattr(socket, name, None)
            if number is not None and value is not None:
                connection.setsockopt(level, number, value)
        if self.congestion_control is not None and hasattr(socket, "TCP_CONGESTION"):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self.congestion_control.encode())

    def _options(self) -> Iterator[tuple[int, str, int | None]]:
        yield socket.IPPROTO_TCP, "TCP_NODELAY", 1
        yield socket.SOL_SOCKET, "SO_KEEPALIVE", int(self.keepalive)
        if self.keepalive:
            idle = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"  # macOS has its own name
            yield socket.IPPROTO_TCP, idle, self.time_s
            yield socket.IPPROTO_TCP, "TCP_KEEPINTVL", self.interval_s
            yield socket.IPPROTO_TCP, "TCP_KEEPCNT", self.retries
        yield socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", self.user_timeout_ms
