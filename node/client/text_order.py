"""Text is merged by the bytes that the client gets: is that the order of the server's collation "C"?"""

from __future__ import annotations

from dataclasses import replace

from node.routing.outcome import MergeProgram

# Encodings whose bytes are in the order of the code points.
_BY_CODE_POINT = frozenset(("utf8", "latin1"))
_ALIASES = {"unicode": "utf8", "iso88591": "latin1"}


def same_order(server: str, client: str) -> bool:
    """Are texts ordered alike by their bytes in the encoding of the server's database and in the client's? Both by any
    name that PostgreSQL takes."""
    names = {_plain(server), _plain(client)}
    return len(names) == 1 or names <= _BY_CODE_POINT or "sqlascii" in names


def without_text(program: MergeProgram) -> MergeProgram:
    """Text is not compared then, which refuses the query; numbers and times are."""
    return replace(
        program,
        sort=tuple(replace(key, bytewise=False) for key in program.sort),
        aggregates=tuple(replace(one, bytewise=False) for one in program.aggregates),
    )


def _plain(name: str) -> str:
    plain = name.replace("-", "").replace("_", "").lower()
    return _ALIASES.get(plain, plain)
