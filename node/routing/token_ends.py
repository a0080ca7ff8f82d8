# cython: annotation_typing=False
"""Where a token of SQL ends: strings, quoted names, comments and numbers by PostgreSQL's lexical rules. Compiled.

Every function is given the text and a place in it, and answers with the place behind the token; beyond the text if the
token has no end.
"""

from __future__ import annotations


def string_end(sql: bytes, i: int, mode: int) -> int:
    """Behind the closing quote, continuation lines included; beyond the text if there is none. `i`: inside.

    mode 0: '' is a quote. 1: so is \\'. 2: bit strings, in which '' ends one string and starts another.
    """
    d = sql
    n = len(sql)
    while True:
        while i < n and d[i] != 39:
            if mode == 1 and d[i] == 92:
                # PostgreSQL judges \u and \U while it scans: what may be wrong, or a surrogate, is left to its parser
                if i + 1 < n and (d[i + 1] == 117 or d[i + 1] == 85) and not _is_plain_escape(d, i + 1, n):
                    return n + 1
                i += 2
            else:
                i += 1
        if i >= n:
            return n + 1
        i += 1
        if mode != 2 and i < n and d[i] == 39:
            i += 1
            continue
        # 'a' <white space with a line break> 'b' is one literal; -- comments may stand in between, /* */ may not.
        j = i
        broke = False
        while j < n:
            if d[j] == 10 or d[j] == 13:
                broke = True
                j += 1
            elif d[j] == 32 or d[j] == 9 or d[j] == 12 or d[j] == 11:
                j += 1
            elif d[j] == 45 and j + 1 < n and d[j + 1] == 45:
                while j < n and d[j] != 10 and d[j] != 13:
                    j += 1
            else:
                break
        if not broke or j >= n or d[j] != 39:
            return i
        i = j + 1


def _is_plain_escape(d: bytes, i: int, n: int) -> bool:
    """Is d[i:] the u of \\uXXXX or \\UXXXXXXXX with a code point that stands for itself?"""
    end = i + (5 if d[i] == 117 else 9)
    if end > n:
        return False
    point = 0
    i += 1
    while i < end:
        c = d[i]
        if 48 <= c <= 57:
            point = point * 16 + c - 48
        elif 65 <= (c & 223) <= 70:
            point = point * 16 + (c & 223) - 55
        else:
            return False
        i += 1
    return 0 < point < 0xD800 or 0xDFFF < point <= 0x10FFFF


def name_end(sql: bytes, i: int) -> int:
    """Behind the double quote that closes the name; `i`: inside. A doubled one is a quote."""
    d = sql
    n = len(sql)
    while i < n:
        if d[i] == 34:
            if i + 1 < n and d[i + 1] == 34:
                i += 1
            else:
                return i + 1
        i += 1
    return n + 1


def comment_end(sql: bytes, i: int) -> int:
    """Behind the comment; `i`: inside. Comments nest."""
    d = sql
    n = len(sql)
    depth = 1
    while i + 1 < n:
        if d[i] == 42 and d[i + 1] == 47:
            depth -= 1
            i += 2
            if depth == 0:
                return i
        elif d[i] == 47 and d[i + 1] == 42:
            depth += 1
            i += 2
        else:
            i += 1
    return n + 1


def oracle_end(sql: bytes, i: int) -> int:
    """q'[it's]', `i`: behind the quote. The delimiter after the quote, its mirror image and a quote end it."""
    if i >= len(sql):
        return len(sql) + 1
    closing = {91: 93, 123: 125, 40: 41, 60: 62}.get(sql[i], sql[i])
    end = sql.find(bytes((closing, 39)), i + 1)
    return len(sql) + 1 if end < 0 else end + 2


def number_end(sql: bytes, i: int) -> int:
    """Behind the number; negative if it is not an integer."""
    d = sql
    n = len(sql)
    if d[i] == 48 and i + 2 < n:
        low = d[i + 1] | 32
        base = 16 if low == 120 else 8 if low == 111 else 2 if low == 98 else 0
        if base:
            j = _digits_end(sql, i + 2, base)
            if j > i + 2:
                return j
    numeric = False
    if d[i] != 46:
        i = _digits_end(sql, i, 10)
    if i < n and d[i] == 46 and not (i + 1 < n and d[i + 1] == 46):
        numeric = True
        i += 1
        if i < n and 48 <= d[i] <= 57:
            i = _digits_end(sql, i, 10)
    if i + 1 < n and (d[i] | 32) == 101:
        j = i + 2 if (d[i + 1] == 43 or d[i + 1] == 45) and i + 2 < n else i + 1
        if 48 <= d[j] <= 57:
            numeric = True
            i = _digits_end(sql, j, 10)
    return -i if numeric else i


def _digits_end(sql: bytes, i: int, base: int) -> int:
    """Behind a run of digits in which single underscores may stand between digits."""
    d = sql
    n = len(sql)
    while i < n:
        j = i + 1 if d[i] == 95 else i
        if j >= n:
            break
        c = d[j]
        if c < 48 or (c > 57 and base != 16) or (base < 10 and c >= 48 + base):
            break
        if c > 57 and not (65 <= c <= 70 or 97 <= c <= 102):
            break
        i = j + 1
    return i
