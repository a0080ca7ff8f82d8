"""The door of the console: who proved to be an admin gets a session of it."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from node.admin.commands import Role
from node.admin.console import Console, ConsoleLimits
from node.admin.drivers import SERVER_VERSION
from node.client.login import login_success_messages
from node.errors import ClientFault
from node.wire import messages

if TYPE_CHECKING:
    from node.admin.ports import Node
    from node.client.login import LoginResult
    from node.client.protocol import ClientProtocol

log = logging.getLogger("pgmurmur.admin")


class Consoles:
    """Every console of a node; `Welcome.console` calls it with a client that proved to be an admin."""

    def __init__(self, node: Node, limits: ConsoleLimits | None = None) -> None:
        self._node = node
        self._limits = limits or ConsoleLimits()
        self._numbered = 0
        self.open: dict[int, Console] = {}

    def __call__(self, protocol: ClientProtocol, result: LoginResult) -> None:
        transport, accepted = result.transport, result.accepted
        if len(self.open) >= self._limits.consoles:
            fault = ClientFault("sorry, too many admin clients already", sqlstate="53300", severity="FATAL")
            transport.write(messages.error_response(fault))
            transport.close()
            return
        self._numbered += 1
        number = self._numbered
        console = Console(
            self._node,
            self._limits,
            Role.ADMIN,
            write=transport.write,
            close=transport.close,
            pause_reading=transport.pause_reading,
            resume_reading=transport.resume_reading,
            on_closed=lambda: self._closed(number),
        )
        self.open[number] = console
        told = statuses(accepted.user, accepted.parameters.get("application_name", ""))
        # process 0: there is nothing here that a cancel request could mean
        transport.write(login_success_messages(told, 0, secrets.token_bytes(4)))
        log.info("admin_connected admin=%s user=%s", number, accepted.user)
        protocol.take(console)

    def _closed(self, number: int) -> None:
        if self.open.pop(number, None) is not None:
            log.info("admin_disconnected admin=%s", number)

    def close(self) -> None:
        """The node stops: says so to everybody."""
        for console in list(self.open.values()):
            console.end(ClientFault("terminating connection: the node is stopping", sqlstate="57P01", severity="FATAL"))


def statuses(user: str, application_name: str) -> dict[bytes, bytes]:
    """What drivers look at when they connect."""
    values = {
        "server_version": SERVER_VERSION,
        "server_encoding": "UTF8",
        "client_encoding": "UTF8",
        "application_name": application_name,
        "is_superuser": "off",
        "session_authorization": user,
        "DateStyle": "ISO, MDY",
        "IntervalStyle": "postgres",
        "TimeZone": "UTC",
        "integer_datetimes": "on",
        "standard_conforming_strings": "on",
        "default_transaction_read_only": "off",
        "in_hot_standby": "off",
    }
    return {name.encode(): value.encode("utf-8", "replace") for name, value in values.items()}
