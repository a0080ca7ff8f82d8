"""Binding: UDP gossip and the TCP control channel share one port number, also when the system picks it."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

from discovery.member import Address

PAIR_ATTEMPTS = 32


def _bind(kind: socket.SocketKind, address: Address) -> socket.socket:
    family, _, _, _, target = socket.getaddrinfo(address.host, address.port, type=kind, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind)
    try:
        if kind is socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and address.is_wildcard:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 too, as ::ffff:a.b.c.d
        _claim(sock, target)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def _claim(sock: socket.socket, target: tuple[Any, ...]) -> None:
    """Binds; an error names the address, which nobody wrote down when it follows from the client port."""
    try:
        sock.bind(target)
    except OSError as error:
        shown = Address(str(target[0]), int(target[1]))
        raise OSError(f"could not bind gossip address {shown}: {os.strerror(error.errno or 0)}") from None


def bind_udp(address: Address) -> socket.socket:
    """A bound gossip socket. Raises OSError."""
    return _bind(socket.SOCK_DGRAM, address)


def bind_pair(address: Address) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP (bound, not listening) on one number. Port 0 tries numbers until both are free. Raises OSError."""
    attempts = PAIR_ATTEMPTS if address.port == 0 else 1
    for attempt in range(attempts):
        tcp = _bind(socket.SOCK_STREAM, address)
        try:
            return bind_udp(Address(address.host, tcp.getsockname()[1])), tcp
        except OSError:
            tcp.close()
            if attempt == attempts - 1:
                raise
    raise AssertionError("unreachable")


def bound_address(sock: socket.socket) -> Address:
    name = sock.getsockname()
    return Address(str(name[0]), int(name[1]))


def advertised_host(host: str) -> str:
    """The IP address others should use for this host: names are resolved, a wildcard becomes the address with which
    this machine speaks to the world (no packet is sent to find out), or loopback when it has none.
    """
    address = Address(host, 0)
    if not address.is_wildcard:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)[0][4][0])
    probes = [(socket.AF_INET, "192.0.2.1", "127.0.0.1")]  # TEST-NET-1, RFC 5737
    if ":" in host:
        probes.append((socket.AF_INET6, "2001:db8::1", "::1"))
    for family, outside, _ in probes:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                sock.connect((outside, 9))
                return str(sock.getsockname()[0])
        except OSError:
            continue
    return probes[-1][2]


def from_kernel(source: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    """A source address as members write it: IPv4 is never `::ffff:a.b.c.d`."""
    host = str(source[0])
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return Address(host, int(source[1]))


def for_socket(address: Address, family: int) -> tuple[str, int] | tuple[str, int, int, int] | None:
    """The address as this socket wants it; None when it cannot reach that family."""
    ip = ipaddress.ip_address(address.host)
    if ip.version == 4:
        return (address.host, address.port) if family == socket.AF_INET else (f"::ffff:{ip}", address.port, 0, 0)
    if family == socket.AF_INET:
        return None
    host, _, scope = address.host.partition("%")
    index = 0
    if scope:
        try:
            index = int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
        except OSError:
            return None
    return (host, address.port, 0, index)
