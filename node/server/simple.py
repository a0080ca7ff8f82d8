"""A small client of our own for PostgreSQL: simple queries, one at a time, whole results.

For what is not client traffic: health checks, reading the catalog, two-phase recovery, the rollout command. Everything
is bounded: time per query, bytes per query, notices kept.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from node.auth.scram import KeyCache
from node.errors import ClientFault, Fault, ServerFault
from node.server.connect import Connected, Target, Wire, connect, nonsense, server_fault
from node.wire import messages
from node.wire.codes import Backend

RESULT_LIMIT_BYTES = 64 << 20
MESSAGE_LIMIT_BYTES = 16 << 20
NOTICES_LIMIT = 100

Row = list[bytes | None]


@dataclass(slots=True)
class Result:
    """What one statement of a query answered; no columns when it returns no rows."""

    columns: list[messages.Column] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    tag: str = ""


class SimpleClient:
    """One connection. A query that ends in anything but ReadyForQuery closes it, a plain SQL error does not."""

    def __init__(self, connected: Connected[Wire]) -> None:
        self.connected = connected
        self.notices: list[dict[str, str]] = []  # of the last query
        self.status = "I"  # of the transaction: I, T or E
        self._wire = connected.protocol
        self._busy = False

    @classmethod
    async def connect(cls, target: Target, *, timeout_s: float, cache: KeyCache | None = None) -> SimpleClient:
        """Raises ServerFault."""
        connected = await connect(
            target,
            protocol_factory=lambda: Wire(target, MESSAGE_LIMIT_BYTES),
            timeout_s=timeout_s,
            cache=cache,
        )
        return cls(connected)

    @property
    def closed(self) -> bool:
        return self._wire.lost is not None or self._wire.transport.is_closing()

    async def query(self, sql: str | bytes, *, timeout_s: float, limit_bytes: int = RESULT_LIMIT_BYTES) -> list[Result]:
        """One Result per statement. Raises ServerFault: the server's own error, 08006, or 53400 over `limit_bytes`.

        After the server's own error the connection is usable; after everything else, cancellation too, it is closed.
        COPY is not possible here: the statement fails.
        """
        if self._busy:
            raise RuntimeError("a SimpleClient runs one query at a time")
        if b"\0" in (sql.encode() if isinstance(sql, str) else sql):
            raise ServerFault("a query must not contain a zero byte", sqlstate="22021")
        if self.closed:  # also right after an abort: what is still buffered belongs to the last query
            address = self.connected.target.address
            raise self._wire.lost or ServerFault(
                f'connection to server "{address}" is closed', sqlstate="08006", severity="FATAL"
            )
        self._busy = True
        self.notices = []
        try:
            async with asyncio.timeout(timeout_s):
                results, fault = await self._run(sql, limit_bytes)
        except TimeoutError:
            self.abort()
            text = f'server "{self.connected.target.address}" did not answer within {timeout_s:g} s'
            raise ServerFault(text, sqlstate="08006", severity="FATAL") from None
        except ClientFault as malformed:
            self.abort()
            raise nonsense(self.connected.target, str(malformed)) from None
        except BaseException:
            self.abort()
            raise
        finally:
            self._busy = False
        if fault is not None:
            raise fault
        return results

    async def value(self, sql: str | bytes, *, timeout_s: float) -> str | None:
        """The first column of the first row of the last statement; None for NULL and for no row."""
        rows = (await self.query(sql, timeout_s=timeout_s))[-1].rows
        first = rows[0][0] if rows and rows[0] else None
        return None if first is None else first.decode("utf-8", "replace")

    async def _run(self, sql: str | bytes, limit_bytes: int) -> tuple[list[Result], Fault | None]:
        wire = self._wire
        wire.transport.write(messages.query(sql))
        results: list[Result] = []
        current = Result()
        fault: ServerFault | None = None
        received = 0
        while True:
            letter, body = await wire.message()
            received += len(body)
            if received > limit_bytes:
                raise ServerFault(f"result is larger than {limit_bytes} bytes", sqlstate="53400", severity="FATAL")
            if letter == Backend.DATA_ROW:
                current.rows.append(messages.parse_data_row(body))
            elif letter == Backend.ROW_DESCRIPTION:
                current.columns = messages.parse_row_description(body)
            elif letter in (Backend.COMMAND_COMPLETE, Backend.EMPTY_QUERY_RESPONSE):
                current.tag = body.rstrip(b"\0").decode("utf-8", "replace")
                results.append(current)
                current = Result()
            elif letter == Backend.ERROR_RESPONSE:
                fault = server_fault(body)
                if fault.severity in ("FATAL", "PANIC"):
                    raise fault  # the server closes the connection, nothing more will come
            elif letter == Backend.READY_FOR_QUERY:
                self.status = body.decode("ascii", "replace")
                return results, fault
            elif letter == Backend.NOTICE_RESPONSE:
                if len(self.notices) < NOTICES_LIMIT:
                    self.notices.append(messages.parse_error(body))
            elif letter == Backend.PARAMETER_STATUS:
                name, value = messages.parse_parameter_status(body)
                self.connected.parameters[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
            elif letter == Backend.COPY_IN_RESPONSE:
                wire.transport.write(messages.copy_fail("COPY is not possible here"))
            elif letter not in _PASSED_OVER:
                raise nonsense(self.connected.target, f"message {chr(letter)!r} in answer to a query")

    def abort(self) -> None:
        """Closes at once; the server notices by itself."""
        self._wire.transport.abort()

    def close(self) -> None:
        """Says goodbye and closes."""
        if not self.closed:
            self._wire.transport.write(messages.TERMINATE)
            self._wire.transport.close()


_PASSED_OVER = frozenset(
    (Backend.COPY_OUT_RESPONSE, Backend.COPY_DATA, Backend.COPY_DONE, Backend.NOTIFICATION_RESPONSE)
)
