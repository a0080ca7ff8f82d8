"""`pgmurmur route`: where each statement of a file would go, without any server.

One line per statement: shards<TAB>road<TAB>reason. shards: `0`, `0,2`, `all`, `error`; road as `routing` names it, or
`refused`. The reason ends with `shared`, or `alone:` and why it may not share a server. `SET pgdog.shard` and its kin
count for the statements after them, as in a session. What a node reads from its shards' catalogs comes from the file
itself here: see `routing.file_catalog`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from node.config.files import read
from node.config.limits import LIMITS
from node.config.problems import ConfigError, meant
from node.errors import ClientFault
from node.options import RouteOptions
from node.routing.cache import StatementCache
from node.routing.file_catalog import FileCatalog
from node.routing.hints import SETTINGS, comment_hints, setting_hints
from node.routing.lexer import lex
from node.routing.offline import outcome_of, shards_text
from node.routing.outcome import NeedLookup, Outcome, Plan, Refusal
from node.routing.sharing import described, why_alone
from node.routing.statement import Kind, Statement
from node.routing.topology import Topology
from node.snapshot import snapshot


def main(options: RouteOptions, environ: Mapping[str, str]) -> int:
    """0 when every statement has its line, also a refused one; 1 when there was nothing to ask."""
    try:
        config = read(options.files.config, options.files.users).parse(environ).config
    except ConfigError as error:
        return _failed("\n".join(map(str, error.problems)))
    topologies = snapshot(config, b"", number=0, digest="").topologies
    if options.database not in topologies:
        hint = meant(options.database, topologies)
        return _failed(f'pgmurmur route: there is no database "{options.database}"{hint}')
    try:
        text = _text(options.source)
    except (OSError, ValueError) as error:
        return _failed(f"pgmurmur route: {error}")
    for line in Router(topologies[options.database]).lines(text):
        print(line)
    return 0


def _failed(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _text(source: str) -> bytes:
    limit = LIMITS.query_bytes
    if source == "-":
        text = sys.stdin.buffer.read(limit + 1)
    else:
        with Path(source).open("rb") as file:
            text = file.read(limit + 1)
    if len(text) > limit:
        raise ValueError(f"{source} is larger than {limit} bytes")
    return text.removeprefix(b"\xef\xbb\xbf")


class Router:
    """A session without servers: remembers the hints that were SET."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._settings: dict[str, str] = {}
        self._cache = StatementCache()

    def lines(self, text: bytes) -> Iterator[str]:
        """One line per statement of the text."""
        pieces = [text[start:end].strip() for start, end, _ in lex(text).spans()]
        statements = [sql for sql in pieces if sql and lex(sql).first]
        known = FileCatalog(statements, self._topology, self._cache)
        for sql in statements:
            yield "\t".join(self._line(sql, known))

    def _line(self, sql: bytes, known: FileCatalog) -> tuple[str, str, str]:
        try:
            hints = comment_hints(lex(sql)).over(setting_hints(self._settings))
        except ClientFault as fault:  # a hint that makes no sense
            return _columns(Refusal(fault), (), self._topology)
        outcome = outcome_of(sql, self._topology, known.catalog, hints)
        try:
            statement = self._cache.lookup(sql)[0][0]
        except ClientFault:  # a mistake, or another dialect: only hints said where
            return _columns(outcome, (), self._topology)
        self._remember(statement)
        notes = known.notes(statement)
        if isinstance(outcome, Plan):
            notes += (described(why_alone(statement, known.sharing)),)
        return _columns(outcome, notes, self._topology)

    def _remember(self, statement: Statement) -> None:
        """SET and RESET of hints; every other setting has no say in routing, save search_path."""
        if statement.kind not in (Kind.SET, Kind.RESET):
            return
        for name in statement.set_names:
            if name == "*":
                self._settings.clear()
            elif name in SETTINGS or name == "search_path":
                if statement.kind is Kind.SET and statement.set_value is not None:
                    self._settings[name] = statement.set_value
                else:
                    self._settings.pop(name, None)


def _columns(outcome: Outcome, notes: tuple[str, ...], topology: Topology) -> tuple[str, str, str]:
    match outcome:
        case Plan():
            shards = shards_text(outcome.shards, topology)
            return shards, outcome.road.value, _one_line((*outcome.reasons, *notes))
        case NeedLookup():
            return "error", "refused", _one_line((f"needs a lookup: {outcome.query}",))
        case Refusal():
            return "error", "refused", _one_line((str(outcome.fault), *outcome.reasons, *notes))


def _one_line(reasons: tuple[str, ...]) -> str:
    """Tabs and newlines separate columns and rows: none may come from a reason."""
    return "; ".join(" ".join(reason.split()) for reason in reasons)
