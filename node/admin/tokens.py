"""Takes admin commands apart: statements, and the words, names, strings and numbers in them.

Not SQL, though it quotes like SQL (PostgreSQL documentation, "Lexical Structure"): words are runs of whatever is no
space, quote, comma, equals sign or semicolon, so that `PROBE postgres://u@host:5432/db` and a database called `my-app`
need no quotes. Case is kept; whoever compares a keyword folds it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from node.errors import ClientFault

# More than any command needs; a text of a million commas must not become a million objects.
TOKENS_LIMIT = 10_000

_SPACE = " \t\r\n\f\v"
_ENDS_WORD = frozenset(_SPACE + "'\";,=")
_DOLLAR = re.compile(r"\$(?:[A-Za-z_\u0080-\uffff][A-Za-z_0-9\u0080-\uffff]*)?\$")
_PARAMETER = re.compile(r"\$([1-9][0-9]{0,4})")
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_CODE = re.compile(r"x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}")


class Kind(Enum):
    WORD = auto()  # a keyword, or a name without quotes
    NAME = auto()  # "quoted"
    STRING = auto()  # 'quoted', E'quoted', $$quoted$$; `text` is the value
    SYMBOL = auto()  # , or =
    PARAMETER = auto()  # $1 of an extended query; `text` is the number


@dataclass(frozen=True, slots=True)
class Token:
    """`start` and `end` are where it stands in the query's text, in characters."""

    kind: Kind
    text: str
    start: int
    end: int


Statement = tuple[Token, ...]


def syntax_error(detail: str | None = None, *, hint: str | None = None, position: int | None = None) -> ClientFault:
    """08P01, as PgDog: pgcli tells a console from a database by it."""
    return ClientFault("syntax error in admin command", sqlstate="08P01", detail=detail, hint=hint, position=position)


def statements(text: str) -> list[Statement]:
    """The statements between semicolons, empty ones left out. Raises ClientFault 08P01 for a quote without its end."""
    found: list[Statement] = []
    current: list[Token] = []
    count = at = 0
    while (at := _skip(text, at)) < len(text):
        if text[at] == ";":
            if current:
                found.append(tuple(current))
                current = []
            at += 1
            continue
        token = _token(text, at)
        current.append(token)
        at = token.end
        count += 1
        if count > TOKENS_LIMIT:
            raise syntax_error(f"A command may have {TOKENS_LIMIT} words.")
    if current:
        found.append(tuple(current))
    return found


def _skip(text: str, at: int) -> int:
    """Past spaces and comments. A comment begins where a word could begin, never inside one: URLs have slashes."""
    while at < len(text):
        if text[at] in _SPACE:
            at += 1
        elif text.startswith("--", at):
            end = text.find("\n", at)
            at = len(text) if end < 0 else end + 1
        elif text.startswith("/*", at):
            at = _comment(text, at)
        else:
            break
    return at


def _comment(text: str, start: int) -> int:
    depth, at = 1, start + 2
    while depth:
        opened, closed = text.find("/*", at), text.find("*/", at)
        if closed < 0:
            raise syntax_error("unterminated /* comment", position=start + 1)
        if 0 <= opened < closed:
            depth, at = depth + 1, opened + 2
        else:
            depth, at = depth - 1, closed + 2
    return at


def _token(text: str, at: int) -> Token:
    first = text[at]
    if first in ",=":
        return Token(Kind.SYMBOL, first, at, at + 1)
    if first == "'":
        return _quoted(text, at, at, Kind.STRING)
    if first == '"':
        return _quoted(text, at, at, Kind.NAME)
    if first in "eE" and text.startswith("'", at + 1):
        return _escaped(text, at)
    if first == "$":
        opening = _DOLLAR.match(text, at)
        if opening is not None:
            tag = opening.group()
            end = text.find(tag, opening.end())
            if end < 0:
                raise syntax_error("unterminated dollar-quoted string", position=at + 1)
            return Token(Kind.STRING, text[opening.end() : end], at, end + len(tag))
    end = at + 1
    while end < len(text) and text[end] not in _ENDS_WORD:
        end += 1
    parameter = _PARAMETER.fullmatch(text, at, end)
    if parameter is not None:
        return Token(Kind.PARAMETER, parameter.group(1), at, end)
    return Token(Kind.WORD, text[at:end], at, end)


def _quoted(text: str, start: int, opening: int, kind: Kind) -> Token:
    """From quote to quote; a doubled one stands for itself."""
    quote = text[opening]
    parts: list[str] = []
    at = opening + 1
    while True:
        end = text.find(quote, at)
        if end < 0:
            what = "string" if kind is Kind.STRING else "identifier"
            raise syntax_error(f"unterminated quoted {what}", position=start + 1)
        parts.append(text[at:end])
        if not text.startswith(quote, end + 1):
            value = "".join(parts)
            if kind is Kind.NAME and not value:
                raise syntax_error("zero-length delimited identifier", position=start + 1)
            return Token(kind, value, start, end + 1)
        parts.append(quote)
        at = end + 2


def _escaped(text: str, start: int) -> Token:
    """E'…': backslashes mean something."""
    parts: list[str] = []
    at = start + 2
    while at < len(text):
        character = text[at]
        if character == "'":
            if not text.startswith("'", at + 1):
                return Token(Kind.STRING, "".join(parts), start, at + 1)
            parts.append("'")
            at += 2
        elif character == "\\" and at + 1 < len(text):
            value, at = _escape(text, at + 1)
            parts.append(value)
        else:
            run = at + 1
            while run < len(text) and text[run] not in "'\\":
                run += 1
            parts.append(text[at:run])
            at = run
    raise syntax_error("unterminated quoted string", position=start + 1)


def _escape(text: str, at: int) -> tuple[str, int]:
    """What follows a backslash, and where the rest begins."""
    code = _CODE.match(text, at)
    if code is None:
        return _ESCAPES.get(text[at], text[at]), at + 1
    digits = code.group()
    value = int(digits, 8) if digits[0].isdigit() else int(digits[1:], 16)
    if value == 0 or value > 0x10FFFF or 0xD800 <= value < 0xE000 or (value > 0x7F and digits[0] not in "uU"):
        raise syntax_error("invalid escape in a string", position=at)
    return chr(value), code.end()


class Arguments:
    """Reads a statement's tokens from the left. What must stand there and does not is a ClientFault 08P01."""

    def __init__(self, source: str, tokens: Statement, grammar: str) -> None:
        self.source = source
        self.tokens = tokens
        self.at = 0
        self.grammar = grammar

    def wrong(self, expected: str | None = None) -> ClientFault:
        token = self.peek()
        there = "the end of the command" if token is None else f'"{self.source[token.start : token.end][:60]}"'
        detail = f"Expected {expected}, found {there}." if expected else f"Did not expect {there}."
        return syntax_error(
            detail, hint=f"the grammar is: {self.grammar}", position=None if token is None else token.start + 1
        )

    def peek(self) -> Token | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    @property
    def more(self) -> bool:
        return self.at < len(self.tokens)

    def keyword(self, *words: str) -> bool:
        """Takes these words if they stand here, whatever their case."""
        following = self.tokens[self.at : self.at + len(words)]
        if len(following) < len(words) or any(
            token.kind is not Kind.WORD or token.text.upper() != word
            for token, word in zip(following, words, strict=True)
        ):
            return False
        self.at += len(words)
        return True

    def symbol(self, text: str) -> bool:
        token = self.peek()
        if token is None or token.kind is not Kind.SYMBOL or token.text != text:
            return False
        self.at += 1
        return True

    def take(self, expected: str, *kinds: Kind) -> str:
        token = self.peek()
        if token is None or token.kind not in kinds:
            raise self.wrong(expected)
        self.at += 1
        return token.text

    def name(self, expected: str) -> str:
        """A name with or without quotes, its case kept."""
        return self.take(expected, Kind.WORD, Kind.NAME, Kind.STRING)

    def string(self, expected: str) -> str:
        return self.take(expected, Kind.STRING)

    def integer(self, expected: str) -> int:
        token = self.peek()
        text = self.name(expected)
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            self.at -= 1
            raise self.wrong(expected)
        assert token is not None
        return int(text)

    def raw(self, expected: str) -> str:
        """Everything up to the next space as it was written, or one string: a URL may have commas and equals signs."""
        token = self.peek()
        if token is None:
            raise self.wrong(expected)
        if token.kind is Kind.STRING:
            return self.string(expected)
        first = self.at
        self.at += 1
        while self.at < len(self.tokens) and self.tokens[self.at].start == self.tokens[self.at - 1].end:
            self.at += 1
        return self.source[self.tokens[first].start : self.tokens[self.at - 1].end]

    def end(self) -> None:
        if self.more:
            raise self.wrong()
