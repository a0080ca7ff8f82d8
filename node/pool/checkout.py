"""Borrowing a connection from a coroutine."""

from __future__ import annotations

import asyncio

from node.pool.pool import Pool
from node.server.connection import ServerConnection


class Checkout:
    """A borrower that is a future."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[ServerConnection] = asyncio.get_running_loop().create_future()

    def granted(self, server: ServerConnection) -> None:
        if self.answer.done():  # given up in the meantime
            assert server.pool is not None
            server.pool.release(server)
        else:
            self.answer.set_result(server)

    def refused(self, fault: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(fault)


async def checkout(pool: Pool) -> ServerConnection:
    """Raises ServerFault 58000 when there is none within checkout_timeout. The caller owes a `release`."""
    server = pool.acquire(pool.clock())
    if server is not None:
        return server
    borrower = Checkout()
    waiter = pool.wait(borrower)
    try:
        return await borrower.answer
    except asyncio.CancelledError:
        if waiter is not None:
            pool.forget(waiter)
        if borrower.answer.done() and not borrower.answer.cancelled() and borrower.answer.exception() is None:
            pool.release(borrower.answer.result())
        raise
