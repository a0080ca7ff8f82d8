"""The commands of the console: one table of grammar, role and handler, and the dispatcher that reads it.

Permission is the column `role` and is checked by `find`, nowhere else: a handler cannot forget it. A command that is
not in the table is 08P01 with the nearest one as its hint; what a handler raises is an ERROR, never the end of a
session.
"""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from node.admin import actions, cluster, drivers, rollouts
from node.admin.answers import Answer, Field, Notice, Type
from node.admin.call import Call
from node.admin.tokens import Arguments, Kind, Statement, statements, syntax_error
from node.admin.views import QUERY_CACHE, VIEWS, Column, View, cached_queries, fields
from node.errors import Bug, ClientFault, Fault

if TYPE_CHECKING:
    from node.admin.ports import Node

RESULT_ROWS_LIMIT = 100_000
# difflib's ratio; lower, SELECT would be taken for SET
CLOSE_ENOUGH = 0.7

Handler = Callable[[Call], Awaitable[Answer]]
Fields = tuple[Field, ...] | None


class Role(IntEnum):
    """What a login may do; each may do what the ones before it may."""

    VIEWER = 1
    ADMIN = 2


@dataclass(frozen=True, slots=True)
class Command:
    """`words` begin it (the longest match wins). `fields` tells its columns without running it."""

    words: tuple[str, ...]
    grammar: str
    role: Role
    text: str
    handler: Handler
    fields: Callable[[Arguments], Fields] = lambda arguments: None
    in_help: bool = True


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement that was found in the table, with what follows its words."""

    command: Command
    source: str
    rest: Statement

    def arguments(self) -> Arguments:
        return Arguments(self.source, self.rest, self.command.grammar)

    @property
    def parameters(self) -> int:
        """How many parameters $1 … $n it has."""
        return max((int(token.text) for token in self.rest if token.kind is Kind.PARAMETER), default=0)

    def fields(self) -> Fields:
        return self.command.fields(self.arguments())

    def bound(self, values: Sequence[str | None]) -> Prepared:
        """With strings in place of parameters. Raises ClientFault 22004: no command knows NULL."""
        rest = []
        for token in self.rest:
            if token.kind is Kind.PARAMETER:
                value = values[int(token.text) - 1]
                if value is None:
                    raise ClientFault("a parameter of an admin command cannot be null", sqlstate="22004")
                token = type(token)(Kind.STRING, value, token.start, token.end)
            rest.append(token)
        return Prepared(self.command, self.source, tuple(rest))


# --- finding ---------------------------------------------------------------------------------------------------------


def prepare(text: str, role: Role) -> list[Prepared]:
    """Every statement of a query. Raises ClientFault 08P01 or 42501."""
    return [find(text, statement, role) for statement in statements(text)]


def find(source: str, statement: Statement, role: Role) -> Prepared:
    words: list[str] = []
    for token in statement[:LONGEST]:
        if token.kind is not Kind.WORD:
            break
        words.append(token.text.upper())
    for length in range(len(words), 0, -1):
        command = BY_WORDS.get(tuple(words[:length]))
        if command is not None:
            if command.role > role:
                raise ClientFault(
                    f"permission denied for command {' '.join(command.words)}",
                    sqlstate="42501",
                    detail=f"It needs the role {command.role.name.lower()}, this login has {role.name.lower()}.",
                )
            return Prepared(command, source, statement[length:])
    position = statement[0].start + 1
    raise syntax_error(f"There is no command {_shown(statement)}.", hint=nearest(words), position=position)


def _shown(statement: Statement) -> str:
    text = " ".join(token.text for token in statement[:3])
    return f'"{text[:60]}"'


def nearest(words: Sequence[str]) -> str:
    """A hint that names the command somebody may have meant."""
    known = {" ".join(command.words): command for command in COMMANDS if command.in_help}
    for length in range(min(len(words), LONGEST), 0, -1):
        close = difflib.get_close_matches(" ".join(words[:length])[:60], known, 1, CLOSE_ENOUGH)
        if close:
            return f"perhaps you meant: {known[close[0]].grammar}"
    return "SHOW HELP lists the commands; for SQL connect to another database"


async def perform(node: Node, prepared: Prepared) -> Answer:
    """Runs a command. Raises Fault, always of severity ERROR: the console stays usable."""
    arguments = prepared.arguments()
    try:
        answer = await prepared.command.handler(Call(node, arguments, prepared.command.words))
    except Fault as fault:
        if not isinstance(fault, Bug):
            fault.severity = "ERROR"
        raise
    rows = answer.rows = list(answer.rows)
    if len(rows) > RESULT_ROWS_LIMIT:
        raise ClientFault(
            f"result has {len(rows)} rows",
            sqlstate="53400",
            detail=f"A command of the console may answer {RESULT_ROWS_LIMIT}.",
        )
    return answer


# --- SHOW ------------------------------------------------------------------------------------------------------------


def _show(view: View[Any]) -> Command:
    """`SHOW view [column, …]`."""
    tag = view.tag or f"SHOW {view.name}"

    async def handler(call: Call) -> Answer:
        columns = _filtered(view, call.arguments)
        notices = list(_notices(view, call.node))
        return Answer(tag, fields(columns), list(view.rows(call.node, columns)), notices)

    return Command(
        ("SHOW", *view.name.split()),
        f"SHOW {view.name} [column, ...]",
        Role.VIEWER,
        view.text,
        handler,
        lambda arguments: fields(_filtered(view, arguments)),
    )


def _notices(view: View[Any], node: Node) -> Iterable[Notice]:
    if view.name == "PEERS":
        drift = node.drift()
        if drift is not None:
            yield Notice(f"drift: {drift}", hint="ROLLOUT makes the files the configuration of all nodes")


def _filtered(view: View[Any], arguments: Arguments) -> tuple[Column[Any], ...]:
    if not arguments.more:
        return view.columns
    names = {column.name for column in view.columns}
    wanted = set(view.keeps)
    while True:
        name = arguments.take("a column name", Kind.WORD, Kind.NAME)
        if name not in names and name.lower() not in names:
            close = difflib.get_close_matches(name, names, 1)
            raise ClientFault(
                f'column "{name}" does not exist in SHOW {view.name}',
                sqlstate="42703",
                hint=f'perhaps you meant "{close[0]}"' if close else None,
            )
        wanted.add(name if name in names else name.lower())
        if not arguments.symbol(","):
            break
    arguments.end()
    return tuple(column for column in view.columns if column.name in wanted)


async def _show_query_cache(call: Call) -> Answer:
    arguments = call.arguments
    words = []
    while arguments.more:
        words.append(arguments.name("a text to look for"))
    rows = cached_queries(call.node, " ".join(words))
    return Answer("SHOW QUERY CACHE", fields(QUERY_CACHE), rows)


async def _show_setting(call: Call) -> Answer:
    """Any other SHOW. What may have been a slip of the finger gets its answer, and a notice."""
    answer = drivers.show(call.arguments)
    assert answer.fields is not None
    name, value = answer.fields[0].name, answer.rows[0][0]
    if not value and name.lower() not in drivers.ACCEPTED:
        hint = nearest(("SHOW", name.upper()))
        answer.notices.append(Notice(f'the console knows no setting "{name}"', hint=hint))
    return answer


HELP = (Field("command", Type.TEXT), Field("role", Type.TEXT), Field("does", Type.TEXT))


async def _help(call: Call) -> Answer:
    call.arguments.end()
    rows = [(c.grammar, c.role.name.lower(), c.text) for c in COMMANDS if c.in_help]
    return Answer("SHOW HELP", HELP, rows)


# --- CLUSTER ---------------------------------------------------------------------------------------------------------

_OF_THE_FLOCK = frozenset(("CLUSTER", "ROLLOUT", "ROLLBACK", "EVICT"))


def _inner(arguments: Arguments) -> Prepared:
    """The command after CLUSTER."""
    rest = arguments.tokens[arguments.at :]
    if not rest:
        raise arguments.wrong("a command")
    inner = find(arguments.source, rest, Role.ADMIN)
    if inner.command.words[0] in _OF_THE_FLOCK:
        raise syntax_error(
            f"{' '.join(inner.command.words)} is not a command of one node.",
            hint="it works on the whole flock by itself; leave CLUSTER out",
            position=rest[0].start + 1,
        )
    return inner


async def _cluster(call: Call) -> Answer:
    inner = _inner(call.arguments)
    first, last = call.arguments.tokens[0], call.arguments.tokens[-1]
    text = call.arguments.source[first.start : last.end]
    return await cluster.everywhere(call.node, text, inner.fields(), lambda: perform(call.node, inner))


def _cluster_fields(arguments: Arguments) -> Fields:
    return cluster.with_node(_inner(arguments).fields())


async def serve(node: Node, payload: bytes) -> bytes:
    """What another member's CLUSTER asks of this node; the handler of the service `admin` on the control channel."""

    async def run(text: str) -> Answer:
        prepared = prepare(text, Role.ADMIN)
        if len(prepared) != 1 or prepared[0].command.words[0] in _OF_THE_FLOCK:
            raise syntax_error("Expected one command of one node.")
        return await perform(node, prepared[0])

    return await cluster.serve(payload, run)


# --- the table -------------------------------------------------------------------------------------------------------

V, A = Role.VIEWER, Role.ADMIN


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _changes(words: str, rest: str, text: str, handler: Handler, columns: Fields = None) -> Command:
    """A command that only an admin may give."""
    return Command(_words(words), f"{words} {rest}".rstrip(), A, text, handler, lambda arguments: columns)


def _silent(words: str, handler: Handler = drivers.accepted) -> Command:
    """What drivers say to any server."""
    return Command(_words(words), words, V, "accepted without effect", handler, in_help=False)


COMMANDS: tuple[Command, ...] = (
    *map(_show, VIEWS),
    Command(
        ("SHOW", "QUERY_CACHE"), "SHOW QUERY_CACHE [text]", V, "statements in the cache, by shape",
        _show_query_cache, lambda arguments: fields(QUERY_CACHE),
    ),
    Command(("SHOW", "HELP"), "SHOW HELP", V, "this list", _help, lambda arguments: HELP),
    Command(
        ("SHOW",), "SHOW name", V, "a PostgreSQL setting, for drivers; empty when there is none",
        _show_setting, drivers.show_fields, in_help=False,
    ),
    _changes("RELOAD", "", "read this node's files again", actions.reload),
    _changes("RECONNECT", "", "replace every server connection", actions.reconnect),
    _changes("PAUSE", "[[user] database]", "let no transaction begin", actions.pause),
    _changes("RESUME", "[[user] database]", "undo PAUSE", actions.resume),
    _changes("MAINTENANCE ON", "[database]", "hold new transactions back", actions.maintenance),
    _changes("MAINTENANCE OFF", "[database]", "let them go", actions.maintenance),
    _changes("BAN", "[pool id]", "give a pool no reads until UNBAN", actions.ban),
    _changes("UNBAN", "[pool id]", "lift bans", actions.unban),
    _changes("HEALTHCHECK", "[pool id]", "check servers now", actions.healthcheck),
    _changes("PROBE", "postgres://user:password@host:port/database", "time SELECT 1", actions.probe, actions.LATENCY),
    _changes("SET", "name TO value", "change a setting of this node, in memory", actions.set_setting),
    _changes("RESET PREPARED", "", "forget prepared statements that no client uses", actions.reset_prepared),
    _changes("RESET QUERY_CACHE", "", "empty the statement cache", actions.reset_query_cache),
    _changes("SHUTDOWN", "", "finish what runs and stop", actions.shutdown),
    _changes(
        "ROLLOUT", "[CONFIG 'text'] [USERS 'text'] [DRY RUN] [TIMEOUT seconds] [REPORT]",
        "give all nodes a new configuration; without texts, the files of this node", rollouts.rollout, rollouts.FIELDS,
    ),
    _changes(
        "ROLLBACK TO", "version [DRY RUN] [TIMEOUT seconds] [REPORT]", "roll out an older version again",
        rollouts.rollback, rollouts.FIELDS,
    ),
    Command(
        ("CLUSTER",), "CLUSTER command", A, "run a command on every node", _cluster, _cluster_fields,
    ),
    _changes("EVICT NODE", "name", "take a dead node off the roster", rollouts.evict),
    *(
        _changes(words, "...", "not supported yet", actions.not_supported)
        for words in (
            "SETUP SCHEMA", "SCHEMA_SYNC", "COPY_DATA", "REPLICATE", "RESHARD", "CUTOVER", "STOP_TASK"
        )
    ),
    *map(_silent, (
        "BEGIN", "START TRANSACTION", "COMMIT", "END", "ROLLBACK", "ABORT", "DISCARD ALL", "RESET ALL", "CLOSE ALL",
        "UNLISTEN", "DEALLOCATE",
    )),
    Command(
        ("SELECT", "PG_ADVISORY_UNLOCK_ALL()"), "SELECT pg_advisory_unlock_all()", V, "what asyncpg's pool says",
        drivers.unlock_all, lambda arguments: drivers.UNLOCK_ALL, in_help=False,
    ),
)  # fmt: skip

BY_WORDS = {command.words: command for command in COMMANDS}
LONGEST = max(len(command.words) for command in COMMANDS)
