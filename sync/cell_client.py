"""The cores' Read and Amend, performed on a real register. All waiting for the register is here."""

from __future__ import annotations

import asyncio
import logging

from sync.changes import Change, Obsolete
from sync.packing import Malformed
from sync.ports import Register, RegisterBroken, RegisterUnavailable
from sync.rollout import CellTooLarge, Reading, decode, encode

log = logging.getLogger("sync")

ATTEMPTS_LIMIT = 20  # conflicts in a row; each one means that somebody else made progress


class CellClient:
    def __init__(self, register: Register, timeout: float) -> None:
        self.register = register
        self._timeout = timeout

    async def read(self) -> Reading:
        """Raises RegisterUnavailable and RegisterBroken."""
        try:
            async with asyncio.timeout(self._timeout):
                rev, data = await self.register.read()
        except TimeoutError:
            raise RegisterUnavailable("the register did not answer in time") from None
        if data is None:
            return Reading(rev, None)
        try:
            return Reading(rev, decode(data))
        except Malformed as error:
            raise RegisterBroken(str(error)) from None

    async def amend(self, change: Change) -> tuple[bool | None, Reading, str]:
        """(done, not allowed or unknown; the last reading; why not). Never raises for the register's troubles."""
        reading = Reading(0, None)
        try:
            for _ in range(ATTEMPTS_LIMIT):
                reading = await self.read()
                if change.done(reading.cell):
                    return True, reading, ""
                cell = change.apply(reading.cell)
                data = encode(cell)
                async with asyncio.timeout(self._timeout):
                    rev = await self.register.cas(reading.rev, data)
                if rev is not None:
                    return True, Reading(rev, cell), ""
        except Obsolete as obsolete:
            return False, reading, obsolete.reason
        except CellTooLarge as error:
            return False, reading, str(error)
        except (RegisterUnavailable, RegisterBroken, TimeoutError) as error:
            log.warning("register_unavailable change=%s reason=%s", type(change).__name__, error or "timeout")
        return None, reading, "the register did not answer"
