"""The slow gear on a sharded database: one unit of a client, message by message, over as many shards as it needs.

Also what concerns the session rather than a shard: BEGIN and COMMIT, hints by SET, statements that leave something
behind. A unit that fails ends as PostgreSQL would end it: one ErrorResponse, the rest of the batch skipped, the
transaction (the client's, or the implicit one of the batch) failed or rolled back on every shard.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from node.client import copying, states
from node.client.enlist import Shards, client_ready, no_such_statement
from node.client.execute import Execution, Portal
from node.client.routed import outcome_of, schema_shard, statement_text
from node.client.slow import back
from node.client.spread import spread_of
from node.client.statements import NO_STATEMENTS
from node.client.states import EMPTY
from node.errors import Bug, ClientFault, Fault
from node.gather.exchange import Request, describe, describe_cursor
from node.routing.lexed import Lexed
from node.routing.outcome import Plan, Values
from node.routing.planning import reads_only
from node.routing.statement import Kind, Statement
from node.wire import messages
from node.wire.codes import Frontend

if TYPE_CHECKING:
    from node.client.session import Session
    from node.client.shape import Shape

log = logging.getLogger("pgmurmur.scatter")


class ClientSink:
    """Rows for the client, no faster than it reads."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def write(self, data: bytes) -> None:
        self._session.bytes_sent += len(data)
        self._session.write(data)

    async def ready(self) -> None:
        await client_ready(self._session)


@dataclass(slots=True)
class Kept:
    """Rows kept for a portal that is fetched in parts."""

    limit_bytes: int
    rows: list[bytes] = field(default_factory=list)
    size: int = 0

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size > self.limit_bytes:
            raise ClientFault(
                "result of a portal fetched in parts is too large",
                sqlstate="53400",
                detail=f"At most {self.limit_bytes} bytes are held for it.",
                hint="fetch all rows at once, or restrict the query to one shard",
            )
        at = 0
        while at < len(data):
            end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
            self.rows.append(data[at:end])
            at = end

    async def ready(self) -> None:
        return None


async def run_unit(session: Session) -> None:
    """Runs the next unit in `session.requests`, then gives the session back."""
    session.active_since = session.services.clock()
    unit = _Unit(session)
    try:
        await unit.run()
    except Fault as fault:
        await unit.abandon(fault)
        return
    except Exception as error:
        # a bug of ours ends this session; nothing of it may reach another client
        log.exception("unit_failed client=%s", session.id)
        await unit.abandon(Bug(f"internal error: {error}"))
        return
    except BaseException:
        unit.drop()
        raise
    if session.portals and not session.begin_message:
        session.portals = EMPTY
    session.query_time_s += session.services.clock() - session.active_since
    session.active_since = 0.0
    session.last_request = session.services.clock()
    if not session.begin_message and session.server is None:
        session.transactions += 1
        session.leave()
    back(session)


class _Unit:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.sink = ClientSink(session)
        self.shards = Shards(session)
        self.portals: dict[bytes, Portal] = dict(session.portals)
        session.portals = self.portals
        self.parsed: dict[bytes, messages.Parse] = {}
        self.alone = False  # an extended batch with one Execute
        self.describes: bytes | None = None  # a portal that is described with its rows

    async def run(self) -> None:
        requests = self.session.requests
        letter = requests.next()
        body = requests.buffer[requests.start + 5 : requests.end]
        if letter == Frontend.QUERY:
            await self._query(body[:-1])
        else:
            await self._batch(letter, body)

    async def abandon(self, fault: Fault) -> None:
        """Not the client's statement failed but what carries it: the session ends."""
        log.warning("unit_abandoned client=%s reason=%s", self.session.id, fault)
        self.drop()
        fault.severity = "FATAL"
        self.session.services.slow_finished(self.session)
        if self.session.state == states.SLOW:
            self.session.state = states.READY
            self.session.fail(fault)

    def drop(self) -> None:
        for shard in list(self.shards.talks):
            self.shards.release(shard)

    # --- a Query -----------------------------------------------------------------------------------------------------

    async def _query(self, sql: bytes) -> None:
        session = self.session
        session.unnamed_parse = b""
        self.portals.pop(b"", None)
        session.queries += 1
        shape = session.services.shapes.find(sql)
        lexed = session.services.shapes.lexed
        try:
            hints = session.services.shapes.hints()  # now: others look texts up while this one runs
            if shape.statements is None or lexed is None:
                raise self._unparsed(shape.fault)
            spans = lexed.spans()
            several = len(shape.statements) > 1
            if not shape.statements:
                self.sink.write(messages.EMPTY_QUERY)
            for statement, (start, end, ordinal) in zip(shape.statements, spans, strict=False):
                await self._layout()
                if several and statement.kind not in (Kind.BEGIN, Kind.COMMIT, Kind.ROLLBACK):
                    await self.shards.begin_implicit()
                execution = Execution(session, self.shards, statement, lexed, ordinal, hints)
                execution.text = sql[start:end] if several else sql
                await execution.run(self.sink, description=True)
            if self.shards.implicit:
                await self.shards.commit()
        except Fault as fault:
            await self._failed(fault)
        await self.shards.hand_back()
        self.sink.write(messages.ready_for_query(session.tx_status))

    def _is_alone(self) -> bool:
        """The batch from the message in hand to its Sync has at most one Execute: no statement shares its fate."""
        requests = self.session.requests
        buffer, at, executes = requests.buffer, requests.start, 0
        while at + 5 <= len(buffer):
            if buffer[at] == Frontend.SYNC:
                return executes <= 1
            executes += buffer[at] == Frontend.EXECUTE
            at += 1 + int.from_bytes(buffer[at + 1 : at + 5], "big")
        return False

    async def _layout(self) -> None:
        """What the shards' tables are must be known before a statement is planned."""
        database = self.session.database
        if not database.layout.loaded:
            await self.session.services.load_layout(database)

    def _unparsed(self, fault: ClientFault | None) -> Fault:
        return fault or ClientFault("syntax error", sqlstate="42601")

    async def _failed(self, fault: Fault) -> None:
        """The statement failed, and with it the transaction it is in."""
        session = self.session
        session.errors += 1
        if fault.severity in ("FATAL", "PANIC") and not isinstance(fault, Bug):
            raise fault
        self.sink.write(messages.error_response(fault))
        if self.shards.in_block:
            session.tx_failed = True
        else:
            await self.shards.rollback()

    # --- an extended batch -------------------------------------------------------------------------------------------

    async def _batch(self, letter: int, body: bytes) -> None:
        session = self.session
        self.alone = self._is_alone()
        try:
            await self._layout()  # before any server is taken: the reading needs one of each shard itself
            while letter != Frontend.SYNC:
                await self._message(letter, body)
                # after a Flush the client may wait for answers before it goes on
                letter, body = await copying.next_message(session)
                if letter == Frontend.QUERY:  # as good as a Sync (asyncpg: Parse, Describe, Flush, then COPY)
                    break
            if self.shards.implicit:
                await self.shards.commit()
        except Fault as fault:
            await self._failed(fault)
            if letter != Frontend.SYNC:
                session.discarding = True
                await self.shards.hand_back()
                return
        if letter == Frontend.QUERY:
            await self._query(body[:-1])
            return
        await self.shards.hand_back()
        self.sink.write(messages.ready_for_query(session.tx_status))

    async def _message(self, letter: int, body: bytes) -> None:
        if letter == Frontend.PARSE:
            await self._parse(messages.parse_parse(body), body)
        elif letter == Frontend.BIND:
            self._bind(messages.parse_bind(body))
        elif letter == Frontend.DESCRIBE:
            await self._describe(body[:1], body[1:-1])
        elif letter == Frontend.EXECUTE:
            reader = messages.Reader(body, "Execute")
            await self._execute(reader.cstring(), reader.int32())
        elif letter == Frontend.CLOSE:
            name = body[1:-1]
            if body[:1] == b"S":
                self.session.drop_statement(name)
                self.parsed.pop(name, None)
                if not name:
                    self.session.unnamed_parse = b""
            else:
                self.portals.pop(name, None)
            self.sink.write(messages.CLOSE_COMPLETE)
        elif letter == Frontend.TERMINATE:
            raise ClientFault("terminating connection on the client's request", sqlstate="57P01", severity="FATAL")
        elif letter != Frontend.FLUSH:
            raise ClientFault(f"invalid frontend message type {letter}", sqlstate="08P01", severity="FATAL")

    async def _parse(self, parse: messages.Parse, body: bytes) -> None:
        session = self.session
        shape = session.services.shapes.find(parse.sql)
        if shape.statements is None:
            raise self._unparsed(shape.fault)
        if len(shape.statements) > 1:
            raise ClientFault("cannot insert multiple commands into a prepared statement", sqlstate="42601")
        if parse.name and parse.name in session.prepared and parse.name not in session.doubtful:
            shown = parse.name.decode("utf-8", "replace")
            raise ClientFault(f'prepared statement "{shown}" already exists', sqlstate="42P05")
        if parse.name:
            session.drop_statement(parse.name)
            tail = body[len(parse.name) + 1 + len(parse.sql) + 1 :]
            path = session.parameters.values.get("search_path", "")
            if session.prepared is NO_STATEMENTS:
                session.prepared = {}
            session.prepared[parse.name] = session.services.prepared.use(parse.sql, tail, path)
        else:
            session.unnamed_parse = messages.message(b"P", body)
        self.parsed[parse.name] = parse
        self.sink.write(messages.PARSE_COMPLETE)

    def _bind(self, bind: messages.Bind) -> None:
        sql, types = statement_text(self.session, bind.statement, self.parsed)
        if sql is None:
            raise no_such_statement(bind.statement)
        self.portals[bind.portal] = Portal(sql, types, bind)
        self.sink.write(messages.BIND_COMPLETE)

    async def _describe(self, what: bytes, name: bytes) -> None:
        session = self.session
        if what == b"S":
            sql, types = statement_text(session, name, self.parsed)
            if sql is None:
                raise no_such_statement(name)
            formats: tuple[int, ...] = ()
        else:
            portal = self.portals.get(name)
            if portal is None:
                shard = session.cursors.get(name.decode("utf-8", "replace"))
                if shard is None:
                    raise _no_such_portal(name)
                (talk,) = await self.shards.get((shard,))
                self._columns(await describe_cursor(talk, name))  # psycopg asks so of what it DECLAREs
                return
            if self._comes_with_rows(name, portal):
                self.describes = name
                return
            sql, types, formats = portal.sql, portal.types, portal.bind.result_formats
        shape = session.services.shapes.find(sql)
        statement = shape.statements[0] if shape.statements else None
        if statement is not None and statement.kind in Execution.NO_ROWS:
            self.sink.write((messages.message(b"t", b"\0\0") if what == b"S" else b"") + messages.NO_DATA)
            return
        shard = self._describer(statement, shape, None if what == b"S" else self.portals[name])
        (talk,) = await self.shards.get((shard,), read=True)
        parameters, columns = await describe(talk, Request(sql, types))
        if what == b"S":
            self.sink.write(parameters)
        elif formats:
            spelled = messages.spelled_out(formats, len(columns))
            columns = [c._replace(format=code) for c, code in zip(columns, spelled, strict=False)]
        self._columns(columns)

    def _columns(self, columns: list[messages.Column]) -> None:
        self.sink.write(messages.row_description(columns) if columns else messages.NO_DATA)

    def _comes_with_rows(self, name: bytes, portal: Portal) -> bool:
        """Is it executed by the next message, all rows of it? Then a read that may share needs no server beforehand:
        the shards describe what they answer."""
        session = self.session
        requests = session.requests
        layout = session.database.layout
        if portal.rest is not None or not layout.sharing or self.shards.talks or self.shards.in_block:
            return False
        if not requests.buffer.startswith(messages.execute(name), requests.at):
            return False
        return spread_of(layout, session.services.shapes.find(portal.sql)).weight.alone is None

    def _describer(self, statement: Statement | None, shape: Shape, portal: Portal | None) -> int:
        """The shard to ask for columns: every one says the same, so best one that the statement needs anyway."""
        session = self.session
        if statement is not None and statement.kind is Kind.FETCH and statement.name in session.cursors:
            return session.cursors[statement.name or ""]
        fixed = schema_shard(session, shape)
        if fixed >= 0:
            return fixed
        for shard in self.shards.talks:
            return shard
        if portal is not None and statement is not None and session.database.layout.loaded:
            bind = portal.bind
            lexed = session.services.shapes.lexed
            values = Values(lexed, bind.parameters, bind.parameter_formats, portal.types)
            outcome = outcome_of(session, shape, values)
            if isinstance(outcome, Plan) and outcome.shards:
                return outcome.shards[0]
        return 0

    async def _execute(self, name: bytes, max_rows: int) -> None:
        session = self.session
        portal = self.portals.get(name)
        if portal is None:
            raise _no_such_portal(name)
        session.queries += 1
        described, self.describes = self.describes, None
        if portal.ran and not portal.gives_rows:
            raise ClientFault(f'portal "{name.decode("utf-8", "replace")}" cannot be run', sqlstate="55000")
        if not portal.ran:
            statement, lexed = self._understand(portal.sql)
            if statement is None:
                self.sink.write(messages.EMPTY_QUERY)
                return
            execution = Execution(session, self.shards, statement, lexed, 0, session.services.shapes.hints())
            execution.text = portal.sql
            execution.bind = portal.bind
            execution.types = portal.types
            await self._layout()
            catalog = session.database.layout.catalog
            if not self.alone and statement.kind not in Execution.LOCAL and not reads_only(statement, catalog):
                await self.shards.begin_implicit()
            portal.ran = True
            portal.gives_rows = statement.returning or (
                statement.kind in (Kind.SELECT, Kind.FETCH, Kind.SHOW, Kind.EXPLAIN) and statement.tag != "SELECT INTO"
            )
            portal.rest = []
            if max_rows <= 0:
                portal.tag = await execution.run(self.sink, description=described == name)
                return
            kept = Kept(session.services.limits.portal_bytes)
            portal.tag = await execution.run(kept, description=False, say=False)
            portal.rest = kept.rows
        assert portal.rest is not None
        rows = portal.rest[:max_rows] if max_rows > 0 else portal.rest
        portal.rest = portal.rest[len(rows) :]
        self.sink.write(b"".join(rows))
        if max_rows > 0 and len(rows) == max_rows:
            self.sink.write(messages.PORTAL_SUSPENDED)  # even if these were the last
        else:
            word, _, number = portal.tag.rpartition(" ")
            tag = f"{word} {len(rows)}" if portal.gives_rows and number.isdigit() else portal.tag
            self.sink.write(messages.command_complete(tag))

    def _understand(self, sql: bytes) -> tuple[Statement | None, Lexed]:
        shape = self.session.services.shapes.find(sql)
        lexed = self.session.services.shapes.lexed
        if shape.statements is None or lexed is None:
            raise self._unparsed(shape.fault)
        return (shape.statements[0] if shape.statements else None), lexed


def _no_such_portal(name: bytes) -> ClientFault:
    return ClientFault(f'portal "{name.decode("utf-8", "replace")}" does not exist', sqlstate="34000")
