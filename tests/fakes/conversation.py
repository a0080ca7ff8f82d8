"""Messages as both fakes see them: letter and body, split off a stream that may be torn anywhere."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from typing import Self

LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Message:
    letter: str
    body: bytes

    @property
    def raw(self) -> bytes:
        return self.letter.encode() + struct.pack("!I", len(self.body) + 4) + self.body

    @property
    def fields(self) -> dict[str, str]:
        """Of an ErrorResponse or NoticeResponse: by field letter (S, C, M, D, H…)."""
        if self.letter not in "EN":
            raise AssertionError(f"{self} is neither an error nor a notice")
        parts = self.body.rstrip(b"\0").split(b"\0")
        return {part[:1].decode(): part[1:].decode() for part in parts if part}

    @property
    def values(self) -> tuple[bytes | None, ...]:
        """Of a DataRow."""
        if self.letter != "D":
            raise AssertionError(f"{self} is not a row")
        found: list[bytes | None] = []
        at = 2
        for _ in range(struct.unpack_from("!H", self.body)[0]):
            (length,) = struct.unpack_from("!i", self.body, at)
            at += 4
            found.append(None if length < 0 else self.body[at : at + length])
            at += max(length, 0)
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        """Of a RowDescription: the columns' names."""
        if self.letter != "T":
            raise AssertionError(f"{self} is no row description")
        found: list[str] = []
        at = 2
        for _ in range(struct.unpack_from("!H", self.body)[0]):
            end = self.body.index(b"\0", at)
            found.append(self.body[at:end].decode())
            at = end + 1 + 18
        return tuple(found)

    @property
    def tag(self) -> str:
        """Of a CommandComplete."""
        if self.letter != "C":
            raise AssertionError(f"{self} is no command completion")
        return self.body.rstrip(b"\0").decode()

    def __str__(self) -> str:
        return f"{self.letter} {self.body!r}"


class Letters:
    """Reads whole messages from a stream. Raises EOFError when the peer is gone, also in the middle of one."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def next(self) -> Message:
        try:
            head = await self._reader.readexactly(5)
            (length,) = struct.unpack_from("!I", head, 1)
            if not 4 <= length <= LIMIT_BYTES:
                raise AssertionError(f"message {head[:1]!r} claims {length} bytes")
            return Message(chr(head[0]), await self._reader.readexactly(length - 4))
        except (asyncio.IncompleteReadError, ConnectionError) as gone:
            raise EOFError("the peer closed the connection") from gone


@dataclass(frozen=True)
class Answer:
    """Everything up to and including one ReadyForQuery."""

    messages: tuple[Message, ...]

    @classmethod
    def of(cls, messages: list[Message]) -> Self:
        return cls(tuple(messages))

    @property
    def letters(self) -> str:
        return "".join(message.letter for message in self.messages)

    @property
    def rows(self) -> list[tuple[bytes | None, ...]]:
        return [message.values for message in self.messages if message.letter == "D"]

    @property
    def tags(self) -> list[str]:
        return [message.tag for message in self.messages if message.letter == "C"]

    @property
    def errors(self) -> list[dict[str, str]]:
        return [message.fields for message in self.messages if message.letter == "E"]

    @property
    def notices(self) -> list[dict[str, str]]:
        return [message.fields for message in self.messages if message.letter == "N"]

    @property
    def names(self) -> tuple[str, ...]:
        return next(message.names for message in self.messages if message.letter == "T")

    @property
    def status(self) -> str:
        """I, T or E as ReadyForQuery says."""
        return self.messages[-1].body.decode()
