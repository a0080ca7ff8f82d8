# cython: annotation_typing=False
"""One walk over SQL text by PostgreSQL's lexical rules (documentation chapter "Lexical Structure"). Compiled.

The walk yields a *shape*: the text with comments removed, white space collapsed, unquoted names folded, final
semicolons dropped and literals replaced by one byte that tells their kind. Texts of one shape have one parse tree but
for the values of those literals, so everything learned from a parse is kept per shape.

A literal stays in the shape wherever its value means more than a value:
* numbers in ORDER BY, GROUP BY and DISTINCT ON are ordinals of output columns;
* everything in statements other than SELECT, INSERT, UPDATE, DELETE, MERGE, VALUES, WITH (SET, DDL, COPY ...);
* what follows a call of set_config, since its first argument decides what must be restored later;
* bit strings and U& strings, too rare to be worth a rule.

Text that PostgreSQL's scanner would reject (unterminated quotes, stray control bytes, junk after a number) has itself,
after a zero byte, as shape: nothing is concluded from it.

The text is in an encoding in which no byte of a multibyte character is ASCII (UTF-8, EUC, LATIN ...). SJIS, BIG5, GBK,
GB18030, UHC and JOHAB as client_encoding are not: their texts must not be lexed.
"""

from __future__ import annotations

import re

from node.routing import token_ends
from node.routing.lexed import INTEGER, NUMERIC, STRING, Lexed

_INTEGER, _NUMERIC, _STRING = INTEGER, NUMERIC, STRING

# Character classes. Those below 4 may continue a name.
WORD, DIGIT, DOLLAR = 1, 2, 3
SPACE, QUOTE, DOUBLE, MINUS, SLASH, SEMICOLON, OPEN, CLOSE, DOT, OPERATOR, STRANGE = (
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
)


def _classes() -> bytes:
    table = bytearray([STRANGE]) * 256
    for chars, number in (
        (b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_", WORD),
        (bytes(range(128, 256)), WORD),
        (b"0123456789", DIGIT),
        (b"$", DOLLAR),
        (b" \t\n\r\f\v", SPACE),
        (b"'", QUOTE),
        (b'"', DOUBLE),
        (b"-", MINUS),
        (b"/", SLASH),
        (b";", SEMICOLON),
        (b"(", OPEN),
        (b")", CLOSE),
        (b".", DOT),
        (b",[]:+*<>=~!@#%^&|`?", OPERATOR),
    ):
        for char in chars:
            table[char] = number
    return bytes(table)


def _code(word: bytes) -> int:
    """The last seven letters of a folded name as a number: names are compared as numbers in the loop."""
    return int.from_bytes(word, "big") & 0xFFFFFFFFFFFFFF


_EMPTY: list[int] = []
_SPARE_BYTES = 2000
_spare: list[bytearray] = []  # for the next shape; taken out while in use: other threads lex too

_CLASS = _classes()
_FOLD = bytes(c + 32 if 65 <= c <= 90 else c for c in range(256))

_BLOCK = re.compile(
    rb"(?:\s|--[^\n]*\n|/\*.*?\*/)*(?:"
    rb"BEGIN\b(?!\s*(?:;|$|WORK\b|TRANSACTION\b|ISOLATION\b|READ\b|NOT\b|DEFERRABLE\b))"
    rb"|DECLARE\b(?!\s+\S+\s+(?:BINARY|INSENSITIVE|ASENSITIVE|NO|SCROLL|CURSOR)\b)"
    rb"|CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:NON)?EDITIONABLE\s+)?"
    rb"(?:FUNCTION|PROCEDURE|PACKAGE|TRIGGER|TYPE\s+BODY)\b)",
    re.IGNORECASE | re.DOTALL,
)

_SELECT, _INSERT, _UPDATE, _DELETE = _code(b"select"), _code(b"insert"), _code(b"update"), _code(b"delete")
_VALUES, _WITH, _MERGE, _CREATE = _code(b"values"), _code(b"with"), _code(b"merge"), _code(b"create")
_BY, _ON, _DISTINCT, _LIMIT, _OFFSET = _code(b"by"), _code(b"on"), _code(b"distinct"), _code(b"limit"), _code(b"offset")
_FETCH, _HAVING, _UNION, _EXCEPT = _code(b"fetch"), _code(b"having"), _code(b"union"), _code(b"except")
_INTERSECT, _SET_CONFIG = _code(b"intersect"), _code(b"set_config")
_FUNCTION, _PROCEDURE = _code(b"function"), _code(b"procedure")
_BEGIN, _ATOMIC, _CASE, _END = _code(b"begin"), _code(b"atomic"), _code(b"case"), _code(b"end")


def lex(sql: bytes, flags: int = 0) -> Lexed:
    """Walks the text once. Never raises on any bytes."""
    if flags & 2:
        return _walk(sql, flags, False, _BLOCK.match(sql) is not None)
    return _walk(sql, flags, False, False)


def trace(sql: bytes, flags: int = 0) -> list[tuple[str, int, int]]:
    """The tokens other than operators and punctuation, for tests and for curious people."""
    flat = _walk(sql, flags, True, False).trace
    return [(chr(flat[k]), flat[k + 1], flat[k + 2]) for k in range(0, len(flat), 3)]


def _walk(sql: bytes, flags: int, tracing: bool, block: bool) -> Lexed:
    d = sql
    n = len(sql)
    t = _CLASS
    fold = _FOLD
    mask = 0xFFFFFFFFFFFFFF
    buffer = (
        _spare.pop() if _spare and n < _SPARE_BYTES else bytearray(n + 8 if n >= _SPARE_BYTES else _SPARE_BYTES + 8)
    )
    o = buffer
    marks = cuts = comments = _EMPTY
    tokens: list[int] = [] if tracing else _EMPTY
    i = k = depth = statements = first_start = first_end = 0
    previous = code = 0
    routine = atomic = 0
    gap = cut = broken = False
    fresh = True  # no token of the current statement was seen
    keep = True  # literals stay in the shape
    ordinals = -1  # numbers stay while the depth is not below this
    while i < n:
        c = d[i]
        kind = t[c]
        if kind == SPACE:
            i += 1
            gap = True
            continue
        start = i
        if kind == MINUS and i + 1 < n and d[i + 1] == 45:
            while i < n and d[i] != 10 and d[i] != 13:
                i += 1
            gap = True
            comments = _with(comments, start, i)
            if tracing:
                tokens += [99, start, i]  # c
            continue
        if kind == SLASH and i + 1 < n and d[i + 1] == 42:
            i = token_ends.comment_end(sql, i + 2)
            if i > n:
                broken = True
                break
            gap = True
            comments = _with(comments, start, i)
            if tracing:
                tokens += [99, start, i]
            continue
        if kind == SEMICOLON and depth == 0 and atomic == 0 and not block:
            if not fresh:
                if cuts is _EMPTY:
                    cuts = []
                cuts.append(i)
                fresh = True
                keep = True
                cut = True
                ordinals = -1
                previous = routine = 0
            i += 1
            gap = False
            continue
        # A token follows: what separates it from the one before goes into the shape first.
        if cut:
            o[k] = 59
            k += 1
            cut = False
        elif gap and k > 0:
            o[k] = 32
            k += 1
        gap = False
        if fresh:
            fresh = False
            statements += 1
            if kind == OPEN:
                keep = False
        if kind == WORD:
            if i + 1 < n and t[d[i + 1]] == QUOTE:
                # A prefixed string. n'...' is the word nchar and a plain string, so it needs no case here.
                low = c | 32
                if low == 101:  # e
                    i = token_ends.string_end(sql, i + 2, 1)
                    if i > n:
                        broken = True
                        break
                    if tracing:
                        tokens += [115, start, i]  # s
                    if keep:
                        k = _put(o, k, d, start, i)
                    else:
                        o[k] = _STRING
                        k += 1
                        marks = _marked(marks, _STRING, start, i)
                    continue
                if low == 98 or low == 120:  # b, x
                    i = token_ends.string_end(sql, i + 2, 2)
                    if i > n:
                        broken = True
                        break
                    if tracing:
                        tokens += [98, start, i]  # b
                    k = _put(o, k, d, start, i)
                    continue
                if low == 113 and flags & 2:  # q'[...]'
                    i = token_ends.oracle_end(sql, i + 2)
                    if i > n:
                        broken = True
                        break
                    k = _put(o, k, d, start, i)
                    continue
            if (c | 32) == 117 and i + 2 < n and d[i + 1] == 38 and (d[i + 2] == 39 or d[i + 2] == 34):  # U&
                i = token_ends.string_end(sql, i + 3, 0) if d[i + 2] == 39 else token_ends.name_end(sql, i + 3)
                if i > n or (i - start == 4 and d[start + 2] == 34):
                    broken = True
                    break
                if tracing:
                    tokens += [115 if d[start + 2] == 39 else 105, start, i]
                k = _put(o, k, d, start, i)
                keep = True
                continue
            code = 0
            while i < n and t[d[i]] < 4:
                c = fold[d[i]]
                o[k] = c
                code = ((code << 8) | c) & mask
                k += 1
                i += 1
            size = i - start
            if tracing:
                tokens += [119, start, i]  # w
            if first_end == 0 and statements == 1:
                first_start = start
                first_end = i
            if previous == 0:
                # The statement's first word decides whether its literals are values.
                previous = 1
                if (
                    (size == 6 and code in (_SELECT, _INSERT, _UPDATE, _DELETE, _VALUES))
                    or (size == 4 and code == _WITH)
                    or (size == 5 and code == _MERGE)
                ):
                    keep = False
                elif size == 6 and code == _CREATE:
                    routine = 1
            elif routine:
                if (size == 8 and code == _FUNCTION) or (size == 9 and code == _PROCEDURE):
                    routine = 2
                elif routine == 2 and size == 6 and code == _ATOMIC and previous == _BEGIN:
                    atomic = 1
                elif atomic and size == 4 and code == _CASE:
                    atomic += 1
                elif atomic and size == 3 and code == _END:
                    atomic -= 1
                previous = code
            elif not keep:
                if size == 2:
                    if code == _BY:
                        if ordinals < 0:
                            ordinals = depth
                    elif code == _ON and previous == _DISTINCT and ordinals < 0:
                        ordinals = depth + 1
                elif ordinals == depth and (
                    (size == 5 and code in (_LIMIT, _FETCH, _UNION))
                    or (size == 6 and code in (_OFFSET, _HAVING, _EXCEPT))
                    or (size == 9 and code == _INTERSECT)
                ):
                    ordinals = -1
                elif size == 10 and code == _SET_CONFIG:
                    keep = True
                previous = code
            continue
        if kind == QUOTE:
            i = token_ends.string_end(sql, i + 1, flags & 1)
            if i > n:
                broken = True
                break
            if tracing:
                tokens += [115, start, i]
            if keep:
                k = _put(o, k, d, start, i)
            else:
                o[k] = _STRING
                k += 1
                marks = _marked(marks, _STRING, start, i)
            continue
        if kind == DIGIT or (kind == DOT and i + 1 < n and t[d[i + 1]] == DIGIT):
            i = token_ends.number_end(sql, i)
            if i < 0:
                i = -i
                size = _NUMERIC
            else:
                size = _INTEGER
            if i < n and (t[d[i]] == WORD or (t[d[i]] == DOLLAR and not sql[start:i].replace(b".", b"").isdigit())):
                broken = True
                break
            if tracing:
                tokens += [110, start, i]  # n
            if keep or ordinals >= 0:
                k = _put(o, k, d, start, i)
            else:
                o[k] = size
                k += 1
                marks = _marked(marks, size, start, i)
            continue
        if kind == DOUBLE:
            i = token_ends.name_end(sql, i + 1)
            if i > n or i - start == 2:
                broken = True
                break
            if tracing:
                tokens += [105, start, i]  # i
            if i - start == 12 and d[start:i] == b'"set_config"':
                keep = True
            k = _put(o, k, d, start, i)
            if previous == 0:
                previous = 1
            continue
        if kind == DOLLAR:
            i += 1
            if i < n and t[d[i]] == DIGIT:
                while i < n and t[d[i]] == DIGIT:
                    i += 1
                if i < n and t[d[i]] == WORD:
                    broken = True
                    break
                if tracing:
                    tokens += [112, start, i]  # p
                k = _put(o, k, d, start, i)
                continue
            while i < n and t[d[i]] < 3:
                i += 1
            if i >= n or t[d[i]] != DOLLAR:
                broken = True
                break
            tag = sql[start : i + 1]
            i = sql.find(tag, i + 1)
            if i < 0:
                broken = True
                break
            i += len(tag)
            if tracing:
                tokens += [115, start, i]
            if keep:
                k = _put(o, k, d, start, i)
            else:
                o[k] = _STRING
                k += 1
                marks = _marked(marks, _STRING, start, i)
            continue
        if kind == STRANGE:
            broken = True
            break
        if kind == DOT and i + 1 < n and d[i + 1] == 46:  # .. is one token, and ..1 no fraction
            o[k] = c
            k += 1
            i += 1
        elif kind == OPEN:
            depth += 1
        elif kind == CLOSE:
            if depth > 0:
                depth -= 1
            if depth < ordinals:
                ordinals = -1
        o[k] = c
        k += 1
        i += 1
    found = Lexed.__new__(Lexed)
    found.sql = sql
    found.flags = flags
    found.comments = comments
    found.trace = tokens
    found.broken = broken
    found._first = first_start
    found._first_end = first_end
    if broken:
        found.shape = b"\0" + sql
        found.statements = 1
        found.marks = found._cuts = _EMPTY
        found._end = n
        found._block = False
    else:
        shape: bytes | bytearray = o[:k]  # bytes, through the pointer that `o` is when compiled
        found.shape = shape if isinstance(shape, bytes) else bytes(shape)
        found.statements = statements
        found.marks = marks
        found._cuts = cuts
        found._end = -1 if fresh else n
        found._block = block
    if n < _SPARE_BYTES and not _spare:
        _spare.append(buffer)
    return found


def _marked(marks: list[int], kind: int, start: int, end: int) -> list[int]:
    if marks is _EMPTY:
        return [kind, start, end]
    marks.append(kind)
    marks.append(start)
    marks.append(end)
    return marks


def _with(comments: list[int], start: int, end: int) -> list[int]:
    if comments is _EMPTY:
        return [start, end]
    comments.append(start)
    comments.append(end)
    return comments


def _put(o: bytearray, k: int, d: bytes, start: int, end: int) -> int:
    """Copies d[start:end] to o[k:], byte by byte: compiled, a slice assignment through a pointer is something else."""
    while start < end:
        o[k] = d[start]
        k += 1
        start += 1
    return k
