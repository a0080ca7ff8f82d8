"""A graceful stop: transactions that run may end, everybody else is told that the node goes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from node.errors import ClientFault

if TYPE_CHECKING:
    from node.client.services import Services
    from node.reception import Welcome

log = logging.getLogger("pgmurmur")

POLL_S = 0.02


async def farewell(services: Services, welcome: Welcome, timeout_s: float, hasten: asyncio.Event) -> None:
    """Returns when no client is left: soon after `timeout_s` at the latest, or after `hasten` is set."""
    services.closing = True
    for session in list(services.sessions.values()):
        if not session.entered:
            session.say_goodbye()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            while services.sessions and not hasten.is_set():
                await asyncio.sleep(POLL_S)
    left = list(services.sessions.values())
    if left:
        log.warning("clients_terminated count=%s", len(left))
    for session in left:
        session.fail(
            ClientFault("terminating connection due to administrator command", sqlstate="57P01", severity="FATAL")
        )
    # until they have heard it: Welcome.part sees to it that this ends
    while welcome.parting:
        await asyncio.sleep(POLL_S)
