"""How a server's messages are read when it may be about to end: whose fault is it, and is this part of an answer?"""

from __future__ import annotations

from node.errors import ClientFault
from node.wire import messages


def is_last_word(error: bytes) -> bool:
    """Does the server end after this ErrorResponse? Its field of the severity says so; any other may be anybody's
    text."""
    return _severity_and_code(error)[0] in ("FATAL", "PANIC")


def is_by_operator(error: bytes) -> bool:
    """Class 57, operator intervention, the crash of another backend included: not the statement's fault."""
    severity, code = _severity_and_code(error)
    return severity == "FATAL" and code.startswith("57")


def _severity_and_code(error: bytes) -> tuple[str, str]:
    try:
        fields = messages.parse_error(error)
    except ClientFault:
        return "", ""
    return fields.get("V", fields.get("S", "")), fields.get("C", "")


def only_notices(data: bytes) -> bool:
    """Nothing but NoticeResponse and ParameterStatus: said by a server at any time, no part of a reply."""
    at = 0
    while at + 5 <= len(data):
        if data[at] not in (78, 83):  # N, S
            return False
        at += 1 + int.from_bytes(data[at + 1 : at + 5], "big")
    return at == len(data)
