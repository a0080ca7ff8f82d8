"""Passes a cancel request on to a server, by a connection of its own (protocol chapter "Canceling Requests").

A server answers nothing: it closes the connection when it has dealt with the request. Waiting for that is what lets a
caller say "after this, the cancel cannot hit a later statement any more" (as far as PostgreSQL allows).
"""

from __future__ import annotations

import asyncio

from node.server.connect import Target, open_wire, unreachable
from node.wire.startup import cancel_request


async def cancel(target: Target, pid: int, secret: bytes, *, tls: bool, timeout_s: float) -> None:
    """`tls` says whether the connection to be cancelled was encrypted: then this one is too, as the key is a secret.

    Raises ServerFault when the server cannot be reached or does not close in time; the request may have been served.
    """
    try:
        async with asyncio.timeout(timeout_s):
            wire, encrypted = await open_wire(target, timeout_s=timeout_s, tls=target.tls if tls else None)
            try:
                if tls and not encrypted:
                    raise unreachable(target, "a cancel key is not sent in clear text where TLS was used before")
                wire.transport.write(cancel_request(pid, secret))
                await wire.closed()
            finally:
                wire.transport.abort()
    except TimeoutError:
        raise unreachable(target, f"no end of the cancel request within {timeout_s:g} s") from None
