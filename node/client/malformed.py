"""Messages of a client that no server must get, and the errors that say so."""

from __future__ import annotations

from node.errors import ClientFault
from node.wire.codes import Frontend
from node.wire.requests import Requests

# Messages that cannot be long; a server ends the connection of a client whose Sync is (PQ_SMALL_MESSAGE_LIMIT).
SMALL_BYTES = 10_000
SMALL = frozenset(
    map(
        int,
        (
            Frontend.CLOSE,
            Frontend.COPY_DONE,
            Frontend.COPY_FAIL,
            Frontend.DESCRIBE,
            Frontend.EXECUTE,
            Frontend.FLUSH,
            Frontend.SYNC,
            Frontend.TERMINATE,
        ),
    )
)
_KNOWN = SMALL | {
    *map(int, (Frontend.BIND, Frontend.COPY_DATA, Frontend.FUNCTION_CALL, Frontend.PARSE, Frontend.QUERY)),
}


def look_at_torn(requests: Requests) -> None:
    """A message of which the beginning is there: is it worth waiting for the rest?"""
    torn = requests.torn
    assert torn is not None
    letter, length = torn[0][0], requests.need - 1
    if letter not in _KNOWN:
        raise unknown(letter)
    if length > SMALL_BYTES and letter in SMALL:
        raise too_large(letter, length)


def violation(requests: Requests) -> ClientFault:
    """Of a message that was framed and has no place here."""
    if requests.length:
        return too_long(requests)
    return unknown(requests.buffer[requests.start] if requests.start < len(requests.buffer) else 0)


def unknown(letter: int) -> ClientFault:
    return ClientFault(f"invalid frontend message type {letter}", sqlstate="08P01", severity="FATAL")


def too_large(letter: int, length: int) -> ClientFault:
    """Of one of SMALL."""
    return ClientFault(
        f"invalid message length {length}",
        sqlstate="08P01",
        detail=f"A {Frontend(letter).name} message of up to {SMALL_BYTES} bytes is accepted.",
        severity="FATAL",
    )


def too_long(requests: Requests) -> ClientFault:
    """What `requests` has found too long to take."""
    return ClientFault(
        f"invalid message length {requests.length}",
        sqlstate="08P01",
        detail=f"Messages of up to {requests.limit} bytes are accepted.",
        hint="raise message_bytes in [general] if this client means it",
        severity="FATAL",
    )


def no_transactions() -> ClientFault:
    """For BEGIN where every statement is lent its connection alone. The session goes on."""
    return ClientFault(
        "transaction control statements are not supported in statement pooler mode",
        sqlstate="58000",
        hint='set pooler_mode = "transaction" for this database',
    )
