"""The document of a rollout: both files in one piece of bytes. sync carries it and looks only at its digest."""

from __future__ import annotations

import hashlib

import msgpack  # type: ignore[import-untyped]  # ships no type hints

from node.config.limits import LIMITS
from node.errors import ClientFault

FORMAT = 1  # first element of the array; append elements, never change their meaning


def pack(config_text: str, users_text: str) -> bytes:
    """Raises `ClientFault` 54000 for more than `LIMITS.document_bytes`."""
    packed: bytes = msgpack.packb([FORMAT, config_text, users_text], use_bin_type=True)
    if len(packed) > LIMITS.document_bytes:
        raise ClientFault(
            f"configuration of {len(packed)} bytes is too large",
            sqlstate="54000",
            detail=f"both files together may have {LIMITS.document_bytes} bytes",
        )
    return packed


def unpack(document: bytes) -> tuple[str, str]:
    """(pgdog.toml, users.toml). Raises `ClientFault` 22023 on anything `pack` would not have written."""
    if len(document) > LIMITS.document_bytes:
        raise ClientFault("document is too large", sqlstate="54000")
    try:
        parts = msgpack.unpackb(
            document,
            raw=False,
            strict_map_key=True,
            max_str_len=LIMITS.document_bytes,
            max_array_len=3,
            max_map_len=0,
            max_bin_len=0,
            max_ext_len=0,
        )
    except Exception as error:  # msgpack raises its own, ValueError and struct errors alike
        raise _malformed("it is not msgpack") from error
    match parts:
        case [int(version), str(config_text), str(users_text)]:
            if version != FORMAT:
                raise _malformed(f"its format is {version}, this node reads {FORMAT}")
            return config_text, users_text
    raise _malformed("it is not an array of a number and two texts")


def digest(document: bytes) -> str:
    """SHA-256 of the bytes, not of their meaning: what two nodes compare must not depend on who reads it."""
    return hashlib.sha256(document).hexdigest()


def _malformed(detail: str) -> ClientFault:
    return ClientFault("malformed configuration document", sqlstate="22023", detail=detail)
