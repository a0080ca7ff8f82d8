"""SQL text with holes for the literals of the client's text. ◆ Pure.

What the shards get of a SELECT is made once for a shape, from a tree with markers (operands.py) in place of literals.
A literal that only travels keeps its place in it, and each text of the shape fills in its own, as it is written: so a
shard reads what its PostgreSQL version makes of it, and no deparser has touched it.

An outline is only made when every marker of the tree is found again in the text, as a token of its kind, as often: a
deparser that prints a string as a word (EXTRACT('year' FROM x)) or a number as something else makes none.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from pglast import ast, parse_sql

from node.routing.lexed import INTEGER, NUMERIC, STRING, Lexed
from node.routing.operands import NUMBER_BASE, STRING_BASE, ordinal_of
from node.routing.select_trees import walk

# A marker as a token of its own. What stands beside it must not become part of the literal: E'...' and $$...$$ begin
# with characters of names, .5 and 5. with a dot.
_MARKER: Final = re.compile(
    rf"(?<![\w$.&'\"])(?:'{re.escape(STRING_BASE)}(?P<string>\d+)'|(?P<number>19000\d{{5}})(?P<half>\.5)?)(?![\w$.'\"])"
)


@dataclass(frozen=True, slots=True)
class Outline:
    """`pieces[0]`, the literal `ordinals[0]`, `pieces[1]`, ..."""

    pieces: tuple[str, ...]
    ordinals: tuple[int, ...]

    def filled(self, lexed: Lexed) -> str:
        """With the literals of this text, which must be UTF-8."""
        sql, marks = lexed.sql, lexed.marks
        parts = [self.pieces[0]]
        for ordinal, piece in zip(self.ordinals, self.pieces[1:], strict=True):
            parts.append(sql[marks[3 * ordinal + 1] : marks[3 * ordinal + 2]].decode())
            parts.append(piece)
        return "".join(parts)


def outline(sql: str, lexed: Lexed) -> Outline | None:
    """The outline of a deparsed text with markers for the literals of `lexed`; None where it is not certain."""
    pieces, ordinals, at = [], [], 0
    for match in _MARKER.finditer(sql):
        string = match["string"]
        ordinal = int(string) if string is not None else int(match["number"]) - NUMBER_BASE
        kind = STRING if string is not None else NUMERIC if match["half"] else INTEGER
        if ordinal >= lexed.literal_count() or lexed.literal_kind(ordinal) != kind:
            return None
        pieces.append(sql[at : match.start()])
        ordinals.append(ordinal)
        at = match.end()
    pieces.append(sql[at:])
    left = "".join(pieces)
    if STRING_BASE.lower() in left.lower() or str(NUMBER_BASE)[:5] in left:
        return None
    if Counter(ordinals) != Counter(_markers(parse_sql(sql)[0].stmt)):
        return None
    return Outline(tuple(pieces), tuple(ordinals))


def _markers(tree: Any) -> list[int]:
    found = [ordinal_of(n) for n in walk(tree) if isinstance(n, (ast.Integer, ast.Float, ast.String))]
    return [marker[0] for marker in found if marker is not None]
