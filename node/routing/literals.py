"""What a literal as written is worth: quotes, escapes and continuation lines undone. Cold: only keys are decoded."""

from __future__ import annotations

import re

_ESCAPES = {98: b"\b", 102: b"\f", 110: b"\n", 114: b"\r", 116: b"\t"}
_ESCAPE = re.compile(rb"\\(?:([0-7]{1,3})|x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_CONTINUED = re.compile(rb"'(?:[ \t\f\v]|--[^\r\n]*)*[\r\n](?:[ \t\f\v\r\n]|--[^\r\n]*)*'")


def string_value(text: bytes, backslash: bool = False) -> bytes:
    """The value of a string literal as written. ValueError for an escape PostgreSQL rejects."""
    if text[:1] == b"$":
        size = text.index(b"$", 1) + 1
        return text[size : len(text) - size]
    escapes = backslash
    if text[:1] in b"eE":
        escapes = True
        text = text[1:]
    body = text[1 : len(text) - 1]
    if b"'" in body:
        body = _join(body)
    if escapes and b"\\" in body:
        body = _ESCAPE.sub(_unescape, body)
    return body


def _join(body: bytes) -> bytes:
    """Doubled quotes become one, continuation lines are joined."""
    parts = []
    i = 0
    while True:
        j = body.find(b"'", i)
        if j < 0:
            parts.append(body[i:])
            return b"".join(parts)
        if j and body[j - 1] == 92 and (j - len(body[:j].rstrip(b"\\"))) % 2:
            parts.append(body[i : j + 1])  # \' : the escape is undone later
            i = j + 1
        elif body[j : j + 2] == b"''":
            parts += (body[i:j], b"'")
            i = j + 2
        else:
            gap = _CONTINUED.match(body, j)
            parts.append(body[i:j])
            i = gap.end() if gap else j + 1


def _unescape(match: re.Match[bytes]) -> bytes:
    octal, byte, short, long, char = match.groups()
    if octal is not None:
        return bytes((int(octal, 8) & 255,))
    if byte is not None:
        return bytes((int(byte, 16),))
    if short is not None or long is not None:
        point = int(short or long, 16)
        if 0xD800 <= point < 0xE000:
            raise ValueError("surrogate pair")  # legal in pairs; so rare that nobody needs the value
        return chr(point).encode()
    if char in b"uU":
        raise ValueError("invalid Unicode escape")
    return _ESCAPES.get(char[0], char)
