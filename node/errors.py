"""Whose fault is it: the client's, the server's or ours.

Every error that may reach a client carries a SQLSTATE (PostgreSQL documentation, appendix A). Texts read like
PostgreSQL's: lower case, no full stop, DETAIL and HINT apart.
"""

from __future__ import annotations

from collections.abc import Mapping


class Fault(Exception):
    """An error with everything an ErrorResponse needs (protocol chapter "Error and Notice Message Fields")."""

    severity = "ERROR"

    def __init__(
        self,
        message: str,
        *,
        sqlstate: str,
        detail: str | None = None,
        hint: str | None = None,
        severity: str | None = None,
        position: int | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """`fields` are the others that a server gave, by their letters: the constraint, the table, the context …"""
        super().__init__(message)
        self.message = message
        self.sqlstate = sqlstate
        self.detail = detail
        self.hint = hint
        self.position = position
        self.fields = fields
        if severity is not None:
            self.severity = severity

    def __str__(self) -> str:
        parts = [self.message]
        if self.detail:
            parts.append(f"DETAIL: {self.detail}")
        if self.hint:
            parts.append(f"HINT: {self.hint}")
        return " ".join(parts)


class ClientFault(Fault):
    """The client broke a rule: it gets an ErrorResponse; with severity FATAL the session also ends."""


class ServerFault(Fault):
    """A PostgreSQL server misbehaved, is unreachable or went away: retry elsewhere, ban, or report."""


class Bug(Fault):
    """We broke a rule: logged loudly, that session ends, the process lives on."""

    def __init__(self, message: str, *, detail: str | None = None) -> None:
        super().__init__(
            message,
            sqlstate="XX000",
            detail=detail,
            hint="this is a bug in pgmurmur; please report it with the log of this node",
            severity="FATAL",
        )


def refused(construct: str, *, detail: str | None = None, hint: str | None = None) -> ClientFault:
    """0A000 feature_not_supported: the answer would not provably be PostgreSQL's answer."""
    return ClientFault(f"{construct} is not supported across shards", sqlstate="0A000", detail=detail, hint=hint)
