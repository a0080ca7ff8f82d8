"""One statement of a client on a sharded database: on which shards does it run, and what does the client read?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from node.client import copying
from node.client.enlist import Shards, Told
from node.client.malformed import no_transactions
from node.client.naming import catalog_of, refuse_backslashes
from node.client.ride import ask_on_lanes, learn, may_ride
from node.client.text_order import same_order, without_text
from node.errors import ClientFault
from node.gather import exchange
from node.gather.exchange import Request, Sink, ask
from node.gather.split import InsertSelect, combine_tags, interleave
from node.routing.bare import bare_literals
from node.routing.hints import SETTINGS as HINT_SETTINGS
from node.routing.hints import Hints, setting_hints
from node.routing.lexed import Lexed
from node.routing.outcome import (
    Combine,
    CopyProgram,
    InsertSelectProgram,
    MergeProgram,
    Plan,
    Refusal,
    Road,
    Role,
    SplitProgram,
    Values,
)
from node.routing.plan import plan
from node.routing.sharing import described, why_alone
from node.routing.statement import Effects, Kind, Statement
from node.wire import messages

if TYPE_CHECKING:
    from node.client.session import Session

# What several shards cannot hold for one client, by what makes it.
_LEFT_BEHIND = {
    Effects.TEMP_TABLE: "a temporary table",
    Effects.LISTEN: "LISTEN",
    Effects.HOLD_CURSOR: "a cursor WITH HOLD",
    Effects.ADVISORY_LOCK: "a session advisory lock",
    Effects.SQL_PREPARE: "PREPARE",
}
_NO_BIND = messages.Bind(b"", b"", (), (), ())
_FIRST_USER_OID = 16384


@dataclass(slots=True)
class Portal:
    """What a Bind made; `rest` holds rows that were computed and not fetched yet."""

    sql: bytes
    types: tuple[int, ...]
    bind: messages.Bind
    rest: list[bytes] | None = None
    tag: str = ""
    ran: bool = False
    gives_rows: bool = False


class Execution:
    # answered here, or on the servers enlisted; none of them returns rows
    LOCAL: ClassVar = frozenset(
        (Kind.BEGIN, Kind.COMMIT, Kind.ROLLBACK, Kind.SAVEPOINT, Kind.RELEASE, Kind.ROLLBACK_TO)
    )
    NO_ROWS: ClassVar = LOCAL | {Kind.SET, Kind.RESET, Kind.DISCARD, Kind.DEALLOCATE}
    # what pools of drivers say before they lend a connection again; there is nothing to tidy, and that is all right
    _TIDIES: ClassVar = frozenset((Kind.UNLISTEN, Kind.DEALLOCATE, Kind.DISCARD, Kind.CLOSE))
    _SETTINGS: ClassVar = frozenset((Kind.SET, Kind.RESET, Kind.DISCARD, Kind.DEALLOCATE))

    def __init__(
        self, session: Session, shards: Shards, statement: Statement, lexed: Lexed, ordinal: int, hints: Hints
    ) -> None:
        self.session = session
        self.shards = shards
        self.statement = statement
        self.lexed = lexed
        self.ordinal = ordinal
        self.hints = hints.over(session.hints)
        self.text = b""
        self.bind = _NO_BIND
        self.types: tuple[int, ...] = ()

    async def run(self, sink: Sink, *, description: bool, say: bool = True) -> str:
        """Runs it, writes rows and, if `say`, CommandComplete; returns the command tag. Raises Fault."""
        statement = self.statement
        kind = statement.kind
        if self.shards.failed and kind not in (Kind.COMMIT, Kind.ROLLBACK, Kind.ROLLBACK_TO):
            raise ClientFault(
                "current transaction is aborted, commands ignored until end of transaction block", sqlstate="25P02"
            )
        if kind in self.LOCAL:
            tag = await self._transaction(kind)
        elif kind in self._SETTINGS or (kind is Kind.SHOW and not statement.tables) or self._configures():
            tag = await self._setting(kind, sink, description)
        else:
            self._note_effects()
            tag = await self._planned(sink, description)
        if say and tag:
            sink.write(messages.command_complete(tag))
        return tag

    # --- transactions --------------------------------------------------------------------------------------------

    async def _transaction(self, kind: Kind) -> str:
        session, shards = self.session, self.shards
        if kind is Kind.BEGIN:
            if session.database.mode == "statement":
                raise no_transactions()
            tag = "START TRANSACTION" if self.lexed.first == b"START" else "BEGIN"
            if shards.in_block:
                session.write(messages.notice("there is already a transaction in progress", severity="WARNING",
                                              sqlstate="25001"))  # fmt: skip
            else:
                await shards.begin_block(messages.query(self.text))
            return tag
        if not shards.in_block:
            return await self._outside(kind)
        if kind is Kind.COMMIT:
            if shards.failed:
                await shards.rollback(chain=self.statement.chain)
                return "ROLLBACK"
            await shards.commit(chain=self.statement.chain)
            return "COMMIT"
        if kind is Kind.ROLLBACK:
            await shards.rollback(chain=self.statement.chain)
            return "ROLLBACK"
        await self._savepoint(kind)
        return {Kind.SAVEPOINT: "SAVEPOINT", Kind.RELEASE: "RELEASE", Kind.ROLLBACK_TO: "ROLLBACK"}[kind]

    async def _outside(self, kind: Kind) -> str:
        if kind in (Kind.COMMIT, Kind.ROLLBACK):
            if self.statement.chain:
                raise _only_in_blocks(f"{kind.upper()} AND CHAIN")
            if self.shards.implicit:
                await (self.shards.commit() if kind is Kind.COMMIT else self.shards.rollback())
            notice = messages.notice("there is no transaction in progress", severity="WARNING", sqlstate="25P01")
            self.session.write(notice)
            return kind.upper()
        what = {
            Kind.SAVEPOINT: "SAVEPOINT",
            Kind.RELEASE: "RELEASE SAVEPOINT",
            Kind.ROLLBACK_TO: "ROLLBACK TO SAVEPOINT",
        }
        raise _only_in_blocks(what[kind])

    async def _savepoint(self, kind: Kind) -> None:
        """On every server enlisted; those that join later hear the whole story."""
        session = self.session
        if not self.shards.talks:
            # PostgreSQL judges it, errors included
            await self.shards.get((0,))
        for talk in self.shards.talks.values():
            await exchange.settle_cancelled(talk)
            await talk.query(self.text.decode("utf-8", "surrogateescape"), exchange.CANCELLED_TIMEOUT_S)
        self.shards.tell(Told(kind, Request(self.text), self.statement.name))
        if kind is Kind.ROLLBACK_TO:
            session.tx_failed = False

    # --- settings --------------------------------------------------------------------------------------------------

    async def _setting(self, kind: Kind, sink: Sink, description: bool) -> str:
        """On every server of the transaction, or on one: its settings are asked for and carried on from there."""
        statement, session = self.statement, self.session
        if kind is Kind.SET and statement.set_names and statement.set_names[0] in HINT_SETTINGS:
            return self._hint(statement.set_names[0])
        if kind is Kind.RESET and statement.set_names and statement.set_names[0] in HINT_SETTINGS:
            session.hints = Hints()
            return "RESET"
        self._note_effects()
        if kind is Kind.DEALLOCATE and statement.name is not None and statement.name.encode() in session.prepared:
            session.drop_statement(statement.name.encode())
            return "DEALLOCATE"
        shards = tuple(self.shards.talks) or (0,)
        talks = await self.shards.get(shards)
        request = Request(self.text, self.types, self.bind.parameter_formats, self.bind.parameters)
        answer = await ask(
            talks, [request] * len(talks), sink, combine=Combine.FIRST, formats=self.bind.result_formats,
            description=description,
        )  # fmt: skip
        if kind is not Kind.SHOW:
            self.shards.tell(Told(kind, request, chained=statement.set_names[:1] == ("transaction",)))
        if kind in (Kind.DISCARD, Kind.DEALLOCATE) and session.forget_statements:
            for talk in talks:
                session.forget(talk.server)
        return answer.tag

    def _hint(self, name: str) -> str:
        session = self.session
        if session.links or session.server is not None or self.shards.talks:
            raise ClientFault(
                f'cannot use "SET {name}" after connecting to a server',
                sqlstate="58000",
                hint="set it before the first statement of the transaction",
            )
        session.hints = setting_hints({name: self.statement.set_value or ""}).over(session.hints)
        return "SET"

    def _note_effects(self) -> None:
        """What it leaves behind on the server connection: the same rules as in the fast gear."""
        session = self.session
        shape = session.services.shapes.find(self.text)
        session.note(shape, None)
        if self.statement.kind in self._TIDIES:
            return
        for effect, construct in _LEFT_BEHIND.items():
            if self.statement.effects & effect:
                raise ClientFault(
                    f"{construct} is not supported on a sharded database",
                    sqlstate="0A000",
                    detail="What it leaves behind belongs to the connection with one shard.",
                    hint="use a database with one shard for it",
                )

    # --- everything else -------------------------------------------------------------------------------------------

    async def _planned(self, sink: Sink, description: bool) -> str:
        statement, session = self.statement, self.session
        database = session.database
        if statement.kind is Kind.EXPLAIN and statement.inner is not None:
            return await self._explain(sink, description)
        if statement.kind is Kind.LOCK and not self.shards.in_block and not self.shards.implicit:
            raise _only_in_blocks("LOCK TABLE")
        if statement.kind in (Kind.FETCH, Kind.CLOSE):
            return await self._cursor(sink, description)
        if session.changed_schema and session.catalog is None and len(self.shards.talks) == len(database.balancers):
            session.catalog = await session.services.read_catalog(list(self.shards.talks.values()))
        outcome = self._plan(statement)
        if statement.kind is Kind.DECLARE and statement.name is not None and len(outcome.shards) == 1:
            session.cursors = {**session.cursors, statement.name: outcome.shards[0]}
        if outcome.writes:
            session.wrote |= frozenset(outcome.shards)
        await self._all_or_nothing(outcome)
        program = outcome.program
        if isinstance(program, SplitProgram):
            tag = await self._split(program, sink, description)
        elif isinstance(program, InsertSelectProgram):
            tag = await self._insert_select(program, sink, description)
        elif isinstance(program, CopyProgram) or statement.kind is Kind.COPY_FROM:
            tag = await copying.copy_in(self, outcome)
        elif statement.kind is Kind.COPY_TO:
            talks = await self.shards.get(outcome.shards, read=True)
            first_only = outcome.combine is Combine.FIRST
            header = statement.copy is not None and copying.has_header(statement.copy.options)
            tag = await exchange.copy_out(talks, self.text, sink, first_only=first_only, header=header)
        else:
            tag = await self._on_shards(outcome, program, sink, description)
        if statement.kind is Kind.DDL or (statement.kind is Kind.SELECT and outcome.road is Road.DDL):
            # others learn of it when it is committed, this transaction at its next statement
            session.changed_schema = True
            session.catalog = None
            if not self.shards.in_block and not self.shards.implicit:
                session.changed_schema = False
                session.services.schema_changed(session.database)
        if self.shards.implicit and not self._in_batch:
            await self.shards.commit()
        return tag

    def _configures(self) -> bool:
        """SELECT set_config(…): a setting that looks like a query. Raises 0A000 when it is part of a real one."""
        statement = self.statement
        if statement.kind is not Kind.SELECT or not statement.effects & Effects.SETS:
            return False
        if statement.tables:
            raise ClientFault(
                "set_config() in a query over tables is not supported on a sharded database",
                sqlstate="0A000",
                hint="use SELECT set_config(...) alone, or SET",
            )
        return True

    async def _cursor(self, sink: Sink, description: bool) -> str:
        """FETCH, MOVE and CLOSE: on the shard that has the cursor; without one any shard says so."""
        shards = self.shards
        cursors = self.session.cursors
        named = self.statement.name
        everywhere = tuple(shards.talks) if named is None else ()
        chosen = everywhere or (cursors.get(named or "", next(iter(shards.talks), 0)),)
        talks = await shards.get(chosen)
        request = Request(self.text, self.types, self.bind.parameter_formats, self.bind.parameters)
        answer = await ask(
            talks, [request] * len(talks), sink, combine=Combine.FIRST, formats=self.bind.result_formats,
            description=description,
        )  # fmt: skip
        return answer.tag

    @property
    def _in_batch(self) -> bool:
        """The unit goes on after this statement: its end commits."""
        return self.bind is not _NO_BIND or self.lexed.statements > 1

    def _plan(self, statement: Statement) -> Plan:
        database = self.session.database
        bind = self.bind
        values = Values(
            self.lexed, bind.parameters, bind.parameter_formats, self.types, start=self.ordinal, part=statement.part
        )
        refuse_backslashes(self.session, self.lexed.sql)
        outcome = plan(statement, values, self.hints, database.topology, catalog_of(self.session))
        if isinstance(outcome, Refusal):
            raise outcome.fault
        if not isinstance(outcome, Plan):
            raise ClientFault("lookup queries for sharding keys are not supported yet", sqlstate="0A000")
        if len(outcome.shards) > 1 and (database.cross_shard_disabled or database.topology.cross_shard_disabled):
            raise ClientFault(
                "cross-shard queries are disabled",
                sqlstate="58000",
                detail="; ".join(outcome.reasons) or None,
                hint="name the sharding key, or set cross_shard_disabled = false",
            )
        entry = self.session.services.shapes.find(self.lexed.sql).entry
        if entry is not None:
            if len(outcome.shards) > 1:
                entry.multi += 1
            else:
                entry.direct += 1
        return outcome

    async def _all_or_nothing(self, outcome: Plan) -> None:
        """What may change several shards runs in a transaction of its own, if the client has none."""
        several = len(outcome.shards) > 1 or isinstance(
            outcome.program, SplitProgram | InsertSelectProgram | CopyProgram
        )
        if outcome.writes and several and self.statement.transactional:
            await self.shards.begin_implicit()

    async def _on_shards(self, outcome: Plan, program: object, sink: Sink, description: bool) -> str:
        bind = self.bind
        read = outcome.role is Role.ANY and not outcome.writes
        request = Request(self.text, self.types, bind.parameter_formats, bind.parameters)
        merge = exchange.CONCATENATE
        if isinstance(program, MergeProgram):
            merge = program if self._bytes_tell_the_order() else without_text(program)
            if program.sql:
                request = request.subset(program.sql, program.parameters)
        spread = may_ride(self.session, self.shards, outcome, self.text)
        if spread is not None:
            ridden = await ask_on_lanes(
                self.session, self.shards, spread, outcome, request, sink, program=merge,
                formats=bind.result_formats, description=description,
            )  # fmt: skip
            if ridden is not None:
                return ridden.tag
        talks = await self.shards.get(outcome.shards, read=read)
        answer = await ask(
            talks, [request] * len(talks), sink, program=merge, combine=outcome.combine,
            formats=bind.result_formats, description=description,
            first_ahead=outcome.writes and outcome.combine is Combine.FIRST,
        )  # fmt: skip
        if spread is not None:
            learn(self.session, spread, merge, answer)
        return answer.tag

    def _bytes_tell_the_order(self) -> bool:
        """Collation "C" compares the server's bytes; what is merged are those of the client's encoding."""
        session = self.session
        told = next((talk.server.statuses for talk in self.shards.talks.values()), None)
        if told is None:
            told = {**session.database.server_parameters(), **session.parameters.values}
        return same_order(told.get("server_encoding", "UTF8"), told.get("client_encoding", "UTF8"))

    async def _split(self, program: SplitProgram, sink: Sink, description: bool) -> str:
        shards = tuple(dict.fromkeys(part.shard for part in program.parts))
        self.session.wrote |= frozenset(shards)
        await self.shards.get(shards)
        base = Request(self.text, self.types, self.bind.parameter_formats, self.bind.parameters)
        talks = [self.shards.talks[part.shard] for part in program.parts]
        requests = [base.subset(part.sql, part.parameters) for part in program.parts]
        rows = [Rows() for _ in program.parts]
        tags: list[str] = []
        if len(set(shards)) == len(program.parts) and not program.returning:
            answer = await ask(talks, requests, sink, combine=Combine.SUM, description=description)
            return answer.tag
        for talk, request, kept in zip(talks, requests, rows, strict=True):
            answer = await ask([talk], [request], kept, formats=self.bind.result_formats)
            tags.append(answer.tag)
        if program.returning:
            self._returned(sink, description, rows, [part.rows for part in program.parts])
        return combine_tags(tags)

    def _returned(self, sink: Sink, description: bool, rows: list[Rows], numbers: list[tuple[int, ...]]) -> None:
        head = next((kept.head for kept in rows if kept.head), b"")
        if description and head:
            sink.write(head)
        ordered = interleave(numbers, [kept.bodies for kept in rows])
        sink.write(b"".join(messages.message(b"D", body) for body in ordered))

    async def _insert_select(self, program: InsertSelectProgram, sink: Sink, description: bool) -> str:
        """The rows are computed, then each goes where its key says."""
        session = self.session
        select = program.select
        talks = await self.shards.get(select.shards)
        base = Request(self.text, self.types, self.bind.parameter_formats, self.bind.parameters)
        if base.parameters and (len(base.types) < len(base.parameters) or 0 in base.types):
            # a parameter that is a column has the target column's type, which the SELECT alone does not know
            described, _ = await exchange.describe(talks[0], base)
            base = Request(base.sql, messages.parse_parameter_description(described[5:]), base.formats, base.parameters)
        request = base.subset(program.select_sql, program.parameters)
        merge = exchange.CONCATENATE
        if isinstance(select.program, MergeProgram):
            merge = select.program
            if merge.sql:
                request = base.subset(merge.sql, merge.parameters)
        kept = Rows()
        await ask(talks, [request] * len(talks), kept, program=merge, combine=select.combine)
        if not kept.head:
            raise ClientFault("INSERT ... SELECT without rows", sqlstate="42601")
        columns = messages.parse_row_description(kept.head[5:])
        work = InsertSelect(
            program, columns, self._shard_of(program), literals=bare_literals(self.statement, self.lexed)
        )
        for body in kept.bodies:
            work.add(body)
        everywhere = tuple(range(session.database.topology.shards))
        tags: list[str] = []
        returned: list[Rows] = []
        numbers: list[tuple[int, ...]] = []
        for batch in work.batches():
            shards = (batch.shard,) if batch.shard >= 0 else everywhere
            session.wrote |= frozenset(shards)
            targets = await self.shards.get(shards)
            insert = Request(batch.sql.encode(), batch.types, batch.formats, batch.parameters)
            rows = Rows()
            answer = await ask(
                targets, [insert] * len(targets), rows, formats=self.bind.result_formats,
                combine=Combine.FIRST if batch.shard < 0 else Combine.SUM, first_ahead=batch.shard < 0,
            )  # fmt: skip
            tags.append(answer.tag)
            returned.append(rows)
            numbers.append(batch.rows)
        if program.returning:
            if not returned:
                await self._describe_returning(program, sink, description, columns)
            self._returned(sink, description, returned, numbers)
        return combine_tags(tags) if tags else "INSERT 0 0"

    async def _describe_returning(
        self, program: InsertSelectProgram, sink: Sink, description: bool, columns: list[messages.Column]
    ) -> None:
        """No row was inserted: the client still wants to know which columns it gets none of."""
        if not description:
            return
        (talk,) = await self.shards.get((next(iter(self.shards.talks), 0),))
        _, described = await exchange.describe(talk, Request(self.text, self.types))
        sink.write(messages.row_description(described))

    def _shard_of(self, program: InsertSelectProgram) -> Callable[[bytes | None], int]:
        shards = self.session.database.topology.shards
        rule = program.rule

        def shard(key: bytes | None) -> int:
            assert rule is not None
            return copying.shard_of_key(rule, program.key_stored, key, shards)

        return shard

    async def _explain(self, sink: Sink, description: bool) -> str:
        """PostgreSQL's plan of one of the shards, then the road as we see it."""
        inner = self.statement.inner
        assert inner is not None
        outcome = self._plan(inner)
        if self.statement.analyze and outcome.writes and len(outcome.shards) > 1:
            raise ClientFault("EXPLAIN ANALYZE of a write is not supported across shards", sqlstate="0A000")
        (talk,) = await self.shards.get(outcome.shards[:1])
        request = Request(self.text, self.types, self.bind.parameter_formats, self.bind.parameters)
        kept = Rows()
        answer = await ask([talk], [request], kept)
        columns = messages.parse_row_description(kept.head[5:])
        if description:
            sink.write(kept.head)
        sink.write(b"".join(messages.message(b"D", body) for body in kept.bodies))
        if columns and columns[0].type_oid == 25:  # text: other formats are documents, to which nothing is added
            shown = ", ".join(map(str, outcome.shards))
            lines = [f"pgmurmur: shards {shown}", f"pgmurmur: road {outcome.road.value}"]
            lines += [f"pgmurmur: {reason}" for reason in outcome.reasons]
            lines.append(f"pgmurmur: {described(why_alone(inner, catalog_of(self.session)))}")
            sink.write(b"".join(messages.data_row([line.encode()]) for line in lines))
        return answer.tag


def _only_in_blocks(what: str) -> ClientFault:
    return ClientFault(f"{what} can only be used in transaction blocks", sqlstate="25P01")


class Rows:
    """A sink that keeps what it gets apart: RowDescription, and DataRow bodies."""

    def __init__(self) -> None:
        self.head = b""
        self.bodies: list[bytes] = []

    def write(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            end = at + 1 + int.from_bytes(data[at + 1 : at + 5], "big")
            if data[at] == 68:  # D
                self.bodies.append(data[at + 5 : end])
            elif data[at] == 84:  # T
                self.head = data[at:end]
            at = end

    async def ready(self) -> None:
        return None
