"""Routing without servers: `pgmurmur route` and the lines that EXPLAIN adds. Pure: text and topology in, lines out."""

from __future__ import annotations

from collections.abc import Iterator

from node.errors import ClientFault
from node.routing.catalog import Catalog
from node.routing.hints import NONE, Hints, comment_hints
from node.routing.lexer import lex
from node.routing.outcome import NeedLookup, Outcome, Plan, Refusal, Values
from node.routing.plan import plan, plan_unparsed
from node.routing.statement import Kind, parse_lexed
from node.routing.topology import Topology


def route_lines(sql: str | bytes, topology: Topology, catalog: Catalog = Catalog.EMPTY) -> Iterator[str]:
    """One line per statement, `shards<TAB>road<TAB>reason`; parameters are unknown, so they may be anything."""
    raw = sql.encode() if isinstance(sql, str) else sql
    for start, end, _ in lex(raw).spans() or ():
        text = raw[start:end].strip()
        yield "\t".join(_line(outcome_of(text, topology, catalog), topology))


def outcome_of(sql: bytes, topology: Topology, catalog: Catalog, hints: Hints = NONE) -> Outcome:
    """The outcome for one statement whose parameters, if any, are not known."""
    lexed = lex(sql)
    try:
        said = comment_hints(lexed).over(hints)
        statements, _ = parse_lexed(lexed)
    except ClientFault as fault:
        return plan_unparsed(fault, hints, topology)
    statement = statements[0]
    # Unknown is not unbound: a plan is wanted for whatever the parameters will be.
    asked = statement.inner if statement.kind == Kind.PREPARE and statement.inner is not None else statement
    return plan(asked, Values(lexed, (), (), ()), said, topology, catalog)


def _line(found: Outcome, topology: Topology) -> tuple[str, str, str]:
    match found:
        case Refusal():
            return "error", "refused", f"{found.fault.sqlstate} {found.fault}".replace("\n", " ").replace("\t", " ")
        case NeedLookup():
            return "all", "direct", "the key is looked up"
        case Plan():
            return shards_text(found.shards, topology), str(found.road), "; ".join(found.reasons)


def shards_text(shards: tuple[int, ...], topology: Topology) -> str:
    """0 · 0,2 · all"""
    if len(shards) == topology.shards and len(shards) > 1:
        return "all"
    return ",".join(map(str, shards))


def explain_lines(found: Outcome, topology: Topology) -> list[str]:
    """What EXPLAIN adds behind PostgreSQL's lines, and all it shows of a statement that is not sent anywhere."""
    shards, road, reason = _line(found, topology)
    lines = [f"pgmurmur: shards {shards}, road {road}"]
    reasons = found.reasons if isinstance(found, Plan) else (reason,)
    lines += [f"pgmurmur: {line}" for line in reasons]
    if isinstance(found, Plan):
        lines.append(f"pgmurmur: role {found.role}, results {found.combine}")
    return lines
