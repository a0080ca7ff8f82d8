"""The shards a client's transaction has enlisted: joined at first use, ended all or nothing.

    BEGIN (heard here only) → first use of a shard: BEGIN and the story so far there → … → COMMIT or ROLLBACK on all

The *story* of a transaction is what every shard in it must have heard, in order: savepoints and settings.

A transaction that wrote on several shards is committed in two phases where every shard allows prepared transactions:
PREPARE everywhere, the decision on disk, COMMIT PREPARED everywhere. `implicit` transactions are those of a single
statement, or of an extended batch, that needs several shards.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from node.client.slow import apply, learn
from node.client.states import EMPTY
from node.errors import ClientFault, Fault, ServerFault
from node.gather.exchange import Request, at_rest, settle_cancelled
from node.gather.two_phase import Gid, InDoubt
from node.pool.checkout import checkout
from node.pool.pool import PoolClosed, PoolDown
from node.routing.statement import Kind
from node.server.connection import Lost, Owner, ServerConnection
from node.server.conversation import Conversation
from node.wire import messages
from node.wire.codes import Transaction

if TYPE_CHECKING:
    from node.client.session import Session

log = logging.getLogger("pgmurmur.transaction")

# Every step of ending a transaction is a short statement.
END_TIMEOUT_S = 60.0
_BEGIN = messages.query("BEGIN")
# Entries of a story. Clients that set savepoints without end release them; who does not must stop somewhere.
STORY_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Told:
    """One entry of a story; `name` is the savepoint's."""

    kind: Kind
    request: Request
    name: str | None = None
    chained: bool = False  # SET TRANSACTION: holds for the transactions of AND CHAIN, too


class Shards:
    """The conversations with this session's servers while the slow gear has the session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.talks: dict[int, Conversation] = {}
        self.implicit = False
        server = session.server
        if server is not None:
            session.links = {**session.links, session.shard: server}
            session.server = None
        # ParameterStatus values of each server as the client knows them
        self._heard: dict[int, dict[str, str]] = {}
        for shard, link in session.links.items():
            self._heard[shard] = link.statuses
            link.owner = None
            self.talks[shard] = Conversation(link)

    @property
    def in_block(self) -> bool:
        """The client has an open transaction block."""
        return bool(self.session.begin_message)

    @property
    def failed(self) -> bool:
        return self.session.tx_failed or any(
            talk.server.pipeline.tx_status == Transaction.FAILED for talk in self.talks.values()
        )

    # --- joining ---------------------------------------------------------------------------------------------------

    async def get(self, shards: tuple[int, ...], *, read: bool = False) -> list[Conversation]:
        """The conversations with these shards, in this order; those that were not enlisted yet join now."""
        for shard in sorted(shards):  # always in this order: two clients never wait for each other's servers
            if shard not in self.talks:
                await self._join(shard, read=read)
        return [self.talks[shard] for shard in shards]

    async def _join(self, shard: int, *, read: bool) -> None:
        session = self.session
        if session.must_ask and self.talks and not self.in_block and not self.implicit:
            # what was SET a moment ago holds for the shard that joins now, too
            await learn(next(iter(self.talks.values())), session)
            session.must_ask = True
        alone = read and not self.in_block and not self.implicit
        while True:
            balancer = session.database.balancers[shard]
            try:
                server = await checkout(balancer.read(session.services.clock()) if alone else balancer.write())
                break
            except (PoolClosed, PoolDown) as refused:  # a change without a pause; a replica that is gone
                if not session.moves_on(refused):
                    raise
        session.links = {**session.links, shard: server}
        talk = self.talks[shard] = Conversation(server)
        try:
            if server.parameters is not session.parameters:
                await apply(talk, session.parameters)
            if self.in_block:
                await self._say(talk, session.begin_message)
            elif self.implicit:
                await self._say(talk, _BEGIN)
            for told in session.story:
                await self._tell(talk, told.request)
            self._heard[shard] = server.statuses
        except Fault:
            self.release(shard)
            raise

    async def _say(self, talk: Conversation, message: bytes) -> None:
        talk.server.pipeline.owe_query(talk)
        talk.send(message)
        fault = await talk.ready()
        if fault is not None:
            raise fault

    async def _tell(self, talk: Conversation, request: Request) -> None:
        talk.send_extended(request.sql, request.types, request.formats, request.parameters)
        fault = await talk.ready()
        if fault is not None:
            raise fault

    def tell(self, told: Told) -> None:
        """Every server of the transaction has heard it; those that join later will. Raises 53400."""
        story = self.session.story
        if not self.in_block and not self.implicit:
            return
        if told.kind in (Kind.RELEASE, Kind.ROLLBACK_TO):
            at = max((n for n, t in enumerate(story) if t.kind is Kind.SAVEPOINT and t.name == told.name), default=-1)
            if at >= 0 and told.kind is Kind.ROLLBACK_TO:
                self.session.story = story[: at + 1]  # the savepoint itself stays
                return
            if at >= 0:
                # settings made since then stay, savepoints within it are gone with it
                kept = tuple(t for t in story[at:] if t.kind is not Kind.SAVEPOINT)
                self.session.story = story[:at] + kept
                return
        if len(story) >= STORY_LIMIT:
            raise ClientFault(
                "too many savepoints and settings in one transaction",
                sqlstate="53400",
                detail=f"At most {STORY_LIMIT} are kept for shards that join later.",
                hint="release savepoints that are not used any more",
            )
        self.session.story = (*story, told)

    async def begin_implicit(self) -> None:
        """From here to `finish`, all or nothing."""
        if self.in_block or self.implicit:
            return
        self.implicit = True
        for talk in self.talks.values():
            await self._say(talk, _BEGIN)

    async def begin_block(self, message: bytes) -> None:
        """The client's BEGIN. Servers that already work for it (a query of several statements) hear it now."""
        was_implicit, self.implicit = self.implicit, False
        self.session.begin_message = message
        if not was_implicit:
            for talk in self.talks.values():
                await self._say(talk, message)

    # --- ending ----------------------------------------------------------------------------------------------------

    async def commit(self, *, chain: bool = False) -> None:
        """Raises the first fault; whatever could be rolled back then is.

        A client that leaves in the middle does not stop it: half a commit is nobody's wish.
        """
        work = asyncio.ensure_future(self._commit(set(self.session.wrote)))
        begin, chained = self._chained(chain)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            if not work.done():
                talks, self.talks = self.talks, {}
                _finishing.add(work)
                work.add_done_callback(lambda _: _release(talks, work))
            raise
        finally:
            self._over()
        await self._begin_chained(begin, chained)

    async def _commit(self, written: set[int]) -> None:
        session, talks = self.session, self.talks
        wrote = [shard for shard in sorted(talks) if shard in written]
        # Those that only read first: what fails there (a serialization failure) still undoes everything.
        for shard in [shard for shard in talks if shard not in written]:
            await self._end(talks[shard])
        if len(wrote) > 1 and session.database.layout.two_phase and session.database.two_phase != "off":
            await self._commit_in_two_phases({shard: talks[shard] for shard in wrote})
        else:
            await self._commit_each({shard: talks[shard] for shard in wrote})

    async def _end(self, talk: Conversation) -> None:
        """COMMIT on one server. Raises 40000 if that says it has rolled back."""
        results = await talk.query("COMMIT", END_TIMEOUT_S)
        if results and results[-1].tag == "ROLLBACK":
            raise ServerFault("transaction was rolled back", sqlstate="40000")

    async def _commit_each(self, talks: dict[int, Conversation]) -> None:
        """One shard wrote, or prepared transactions are not allowed: then this is only as atomic as luck."""
        done: list[int] = []
        for shard, talk in talks.items():
            try:
                await self._end(talk)
                done.append(shard)
            except ServerFault as fault:
                if not done:
                    raise
                await _roll_back(talks)
                raise ServerFault(
                    "transaction was committed on some shards only",
                    sqlstate="40003",
                    detail=f"Committed on shard {', '.join(map(str, done))}; shard {shard}: {fault.message}",
                    hint="set max_prepared_transactions on every shard, so that commits can be atomic",
                ) from None

    async def _commit_in_two_phases(self, talks: dict[int, Conversation]) -> None:
        session = self.session
        decisions = session.services.decisions
        if decisions is None:
            raise ServerFault("no log for two-phase commit", sqlstate="58000", hint="see the log of this node")
        number = decisions.next_transaction()
        gids = {shard: decisions.name(session.services.node, number, shard) for shard in talks}
        session.transactions_2pc += 1
        try:
            await _on_each(talks, {s: f"PREPARE TRANSACTION '{gid}'" for s, gid in gids.items()})
            decisions.decide(number, list(gids.values()))
        except InDoubt:
            raise
        except (Fault, OSError) as error:
            await self._undo(talks, gids)
            if isinstance(error, Fault):
                raise
            raise ServerFault(
                "could not write the decision to commit",
                sqlstate="58030",
                detail=f"{decisions.path}: {error.strerror or error}",
                hint="the transaction was rolled back on every shard; free space in the state folder",
            ) from error
        try:
            await _on_each(talks, {s: f"COMMIT PREPARED '{gid}'" for s, gid in gids.items()})
        except Fault as fault:
            # It is committed: the decision is on disk. The parts that did not hear it yet will.
            log.warning("commit_prepared_pending transaction=%s reason=%s", number, fault)
            session.services.resolve_later(
                session.database, {s: str(g) for s, g in gids.items()}, (decisions.boot, number)
            )
            return
        decisions.forget((decisions.boot, number))

    async def _undo(self, talks: dict[int, Conversation], gids: dict[int, Gid]) -> None:
        for shard, gid in gids.items():
            talk = talks[shard]
            try:
                if talk.server.pipeline.tx_status != Transaction.IDLE:
                    await talk.query("ROLLBACK", END_TIMEOUT_S)
                await talk.query(f"ROLLBACK PREPARED '{gid}'", END_TIMEOUT_S)
            except Fault as fault:
                if fault.sqlstate != "42704":  # it never was prepared
                    log.warning("rollback_prepared_failed gid=%s reason=%s", gid, fault)
                    self.session.services.resolve_later(self.session.database, {shard: str(gid)}, None)

    async def rollback(self, *, chain: bool = False) -> None:
        """A connection on which ROLLBACK fails is closed, and the server rolls back by itself. Raises Fault only when
        the next transaction of a chain cannot begin."""
        begin, chained = self._chained(chain)
        await _roll_back(self.talks)
        self._over()
        await self._begin_chained(begin, chained)

    def _chained(self, chain: bool) -> tuple[bytes, list[Told]]:
        """The BEGIN of the next transaction, with all that the client said of this one's characteristics."""
        session = self.session
        return (session.begin_message, [t for t in session.story if t.chained]) if chain else (b"", [])

    async def _begin_chained(self, begin: bytes, chained: list[Told]) -> None:
        if not begin:
            return
        await self.begin_block(begin)
        for told in chained:
            for talk in self.talks.values():
                await self._tell(talk, told.request)
        self.session.story += tuple(chained)

    def _over(self) -> None:
        self.implicit = False
        self.session.end_transaction()

    # --- handing back ------------------------------------------------------------------------------------------------

    def release(self, shard: int) -> None:
        """Gives one server back to its pool."""
        talk = self.talks.pop(shard)
        self.session.links = {s: link for s, link in self.session.links.items() if s != shard}
        server = talk.end()
        if server.pool is not None:
            server.pool.release(server)

    def _changed_statuses(self) -> bytes:
        """What servers reported in this unit, once: drivers decode and quote by it. What a server reported while it
        was made like the client (settings replayed, the story) is no news."""
        news: dict[str, str] = {}
        for shard, talk in self.talks.items():
            before, now = self._heard.get(shard), talk.server.statuses
            if before is not None and now is not before:
                news = {**{name: value for name, value in now.items() if before.get(name) != value}, **news}
        return b"".join([messages.parameter_status(name.encode(), value.encode()) for name, value in news.items()])

    async def hand_back(self) -> None:
        """At the end of a unit. Inside a transaction the servers stay; one alone goes back to the fast gear."""
        session = self.session
        statuses = self._changed_statuses()
        if statuses:
            session.write(statuses)
        for talk in self.talks.values():
            await settle_cancelled(talk)
        if self.in_block:
            if len(self.talks) == 1 and not session.tx_failed:
                ((shard, talk),) = self.talks.items()
                server = talk.end()
                session.links = EMPTY
                if server.closed_why is None:
                    session.relink(shard, server)
                    return
                raise ServerFault("server closed the connection unexpectedly", sqlstate="08006", severity="FATAL")
            for talk in self.talks.values():
                server = talk.end()
                if server.closed_why is not None:
                    raise ServerFault("server closed the connection unexpectedly", sqlstate="08006", severity="FATAL")
                server.owner = Parked(session)
            return
        if session.must_ask and self.talks:
            session.must_ask = False
            await learn(next(iter(self.talks.values())), session)
            for talk in list(self.talks.values())[1:]:
                if talk.server.parameters is not session.parameters:
                    talk.server.dirty = True
        for shard in list(self.talks):
            self.release(shard)


_finishing: set[asyncio.Future[None]] = set()


def _release(talks: dict[int, Conversation], work: asyncio.Future[None]) -> None:
    """A commit whose client has gone is over: its servers are free."""
    _finishing.discard(work)
    if not work.cancelled() and (error := work.exception()) is not None:
        log.info("commit_failed_without_client reason=%s", error)
    for talk in talks.values():
        server = talk.end()
        if server.pool is not None:
            server.pool.release(server)


async def _roll_back(talks: dict[int, Conversation]) -> None:
    for talk in talks.values():
        try:
            await settle_cancelled(talk)
            if talk.server.pipeline.tx_status != Transaction.IDLE:
                await talk.query("ROLLBACK", END_TIMEOUT_S)
        except Fault:
            talk.server.close(Lost.UNCLEAN)


async def _on_each(talks: dict[int, Conversation], statements: dict[int, str]) -> None:
    """All at the same time; the first fault once all have answered."""
    faults: list[Fault] = []

    async def one(talk: Conversation, sql: str) -> None:
        try:
            results = await talk.query(sql, END_TIMEOUT_S)
            if results and results[-1].tag == "ROLLBACK":
                faults.append(ServerFault("transaction was rolled back", sqlstate="40000"))
        except Fault as fault:
            faults.append(fault)

    await at_rest([one(talks[shard], sql) for shard, sql in statements.items()])
    if faults:
        raise faults[0]


class Parked(Owner):
    """Holds a server of a transaction over several shards between two statements of the client."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def from_server(self, server: ServerConnection, data: bytes) -> None:
        """Only notices and the like can come now; an error means the server ends the connection."""
        if b"\0C" in data and data[:1] == b"E":
            self._session.write(data)

    def server_lost(self, server: ServerConnection, fault: ServerFault) -> None:
        self._session.links = {s: link for s, link in self._session.links.items() if link is not server}
        self._session.server_lost(server, fault)


async def client_ready(session: Session) -> None:
    """Returns when the client reads again; raises when it is gone."""
    while session.writing_paused:
        resumed = asyncio.Event()
        session.on_resumed = resumed.set
        await resumed.wait()
    session.on_resumed = None


def no_such_statement(name: bytes) -> ClientFault:
    shown = name.decode("utf-8", "replace")
    text = f'prepared statement "{shown}" does not exist' if name else "unnamed prepared statement does not exist"
    return ClientFault(text, sqlstate="26000")
