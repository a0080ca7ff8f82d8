# cython: annotation_typing=False
"""The fast gear on a sharded database: is this unit for one shard? Then it goes the way of any other.

A unit is a Query, or an extended batch up to its Sync. It is planned as a whole before any of it moves: every
statement it binds must go to one and the same shard, and leave nothing behind that several shards would have to know.
Anything else is the slow gear's (client/scatter.py), which can do everything and does it message by message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from node.client import states
from node.client.malformed import too_long
from node.client.naming import SEARCH_PATH, STRINGS, catalog_of, has_settings, refuse_backslashes
from node.errors import ClientFault
from node.routing.hints import NONE as NO_HINTS
from node.routing.outcome import NeedLookup, Plan, Refusal, Road, Role, Values
from node.routing.placement import point_of
from node.routing.plan import plan
from node.routing.point import NOWHERE
from node.routing.statement import Effects, Kind
from node.wire import messages
from node.wire.batch import Batch
from node.wire.codes import Frontend
from node.wire.requests import NOTHING

if TYPE_CHECKING:
    from node.client.session import Session
    from node.client.shape import Shape
    from node.routing.lexed import Lexed
    from node.routing.point import Point

# What `where` answers instead of a shard.
_SLOW = -1

_PRIMARY, _ANY, _DIRECT = Role.PRIMARY, Role.ANY, Road.DIRECT  # (looking up a member of an enumeration takes its time)
_QUERY = int(Frontend.QUERY)
_PARSE = int(Frontend.PARSE)
_BIND = int(Frontend.BIND)
_SYNC = int(Frontend.SYNC)
# Transaction control and settings are heard by every shard enlisted or yet to be, a cursor is where it was declared,
# EXPLAIN gets lines of ours, COPY data is split.
_ALWAYS_SLOW = frozenset(
    (
        Kind.COMMIT,
        Kind.ROLLBACK,
        Kind.SAVEPOINT,
        Kind.RELEASE,
        Kind.ROLLBACK_TO,
        Kind.EXPLAIN,
        Kind.COPY_FROM,
        Kind.COPY_TO,
        Kind.SET,
        Kind.RESET,
        Kind.DISCARD,
        Kind.DEALLOCATE,
        Kind.DECLARE,
        Kind.FETCH,
        Kind.CLOSE,
    )
)
_OF_PORTALS = frozenset(map(int, (Frontend.DESCRIBE, Frontend.EXECUTE, Frontend.CLOSE)))
_batch = Batch()  # of the unit at hand: nothing waits between reading it and asking it
_NOTHING_PARSED: dict[bytes, messages.Parse] = {}
_DESCRIBE, _EXECUTE, _CLOSE = int(Frontend.DESCRIBE), int(Frontend.EXECUTE), int(Frontend.CLOSE)
_STATEMENT = ord("S")  # what a Describe is about
# The compiled file reads C integers of these names (routed.pxd).
_NOTHING, _STATE_READY, _STATE_SLOW = NOTHING, states.READY, states.SLOW


def _begins(letter: int) -> bool:
    """Does a unit begin with it that is planned?"""
    return letter in (_QUERY, _PARSE, _BIND, _DESCRIBE, _EXECUTE, _CLOSE)


def begin(session: Session) -> bool:
    """Goes on with the next unit. True: look again; False: wait for bytes, for a reply or for somebody."""
    requests = session.requests
    server = session.server
    if server is not None and not server.pipeline.idle():
        return False
    at = requests.at
    if requests.need or at >= len(requests.buffer):
        return False
    letter = requests.buffer[at]
    if session.discarding or not _begins(letter):
        letter = requests.next()
        if letter == _NOTHING:
            return False
        return session.unlinked(letter)
    end = requests.unit()
    if end == 0:
        return False
    requests.start = at
    if end < 0:
        raise too_long(requests)
    if not session.enter():
        return False
    shard = where(session, at, end)
    if shard == _SLOW or session.links or session.tx_failed:
        session.state = _STATE_SLOW
        session.services.slow_unit(session)
        return False
    session.stop_at = end
    if server is None:
        database = session.database
        session.shard = shard
        pool = database.lone[shard]
        if pool is None:
            balancer = database.balancers[shard]
            read = session.unit_role is _ANY and not session.begin_message
            pool = session.asked(balancer) or (balancer.read(session.services.clock()) if read else balancer.write())
        if pool.lanes is not None and session.share(pool, at, end):
            session.stop_at = 0
            return False
        if not session.acquire(pool):
            return False  # planned again when a server is granted: the map cannot change meanwhile, the text is there
        if session.server is None:
            return True  # refused on the spot, or to be asked at another pool
    elif session.shard != shard:
        session.state = _STATE_SLOW
        session.services.slow_unit(session)
        return False
    session.pump()
    return session.state == _STATE_READY and session.server is None and requests.waiting_bytes() > 0


def where(session: Session, at: int, end: int) -> int:
    """The one shard of the unit buffer[at:end], or _SLOW. Raises ClientFault for what cannot be routed at all."""
    if not session.database.layout.loaded:
        return _SLOW
    buffer = raw = session.requests.buffer
    session.unit_role = _PRIMARY
    shapes = session.services.shapes
    if buffer[at] == _QUERY:
        shape = session.shape_of_query(buffer, at, end)
        point = _point_of(session, shape, shapes.lexed)
        if point is not None and not point.bound and shapes.lexed is not None:
            shard = point.in_text(shapes.lexed)
            if shard >= 0 and point.known[shard]:
                return _to_point(session, shape, point, shard)
        return _of_shape(session, shape, None)
    if not _batch.read(buffer, at, end) or session.portals:
        return _of_batch(session, buffer, at, end)
    types: tuple[int, ...] | None = None
    if _batch.parsed:
        sql = raw[_batch.sql : _batch.sql_end]
    else:
        known, types = statement_text(session, raw[_batch.name : _batch.name_end], _NOTHING_PARSED)
        if known is None:
            return _SLOW
        sql = known
    shape = shapes.find(sql)
    point = _point_of(session, shape, shapes.lexed)
    if point is not None and shapes.lexed is not None:
        number = point.number
        shard = NOWHERE
        if number == 0:
            shard = point.in_text(shapes.lexed)
        elif _batch.find(buffer, number):
            if types is None:
                oid = _batch.type_of(buffer, number)
            else:
                oid = types[number - 1] if number <= len(types) else 0
            shard = point.in_value(buffer, _batch.start, _batch.end, _batch.binary, oid)
        if shard >= 0 and point.known[shard]:
            return _to_point(session, shape, point, shard)
    return _of_batch(session, buffer, at, end)


def _point_of(session: Session, shape: Shape, lexed: Lexed | None) -> Point | None:
    """The shape's point, if it was made for this map and nothing but the statement itself says where to go."""
    point = shape.point
    if point is None or lexed is None or lexed.comments:
        return None
    if SEARCH_PATH in session.tracked or STRINGS in session.tracked or (session.story and has_settings(session)):
        return None  # names may mean other tables than those the point was made for, strings other values
    database, hints = session.database, session.hints
    if point.topology is not database.topology or point.catalog is not database.layout.catalog:
        # another database was asked the same; what it knows of the statement is found again
        assert shape.statements is not None
        point = point_of(shape.statements[0], database.topology, database.layout.catalog)
        if point is None:
            return None
        shape.point = point
    if hints is not NO_HINTS and (hints.role is not None or hints.directs):
        return None
    return point


def _to_point(session: Session, shape: Shape, point: Point, shard: int) -> int:
    if point.any_role:
        session.unit_role = _ANY
    if shape.entry is not None:
        shape.entry.direct += 1
    if point.writes and session.begin_message:
        session.wrote |= frozenset((shard,))
    return shard


def _of_batch(session: Session, buffer: bytes, at: int, end: int) -> int:
    """Any extended batch, message by message."""
    shard = -2
    size = end - at
    parsed: dict[bytes, messages.Parse] = {}
    while at < end:
        letter = buffer[at]
        stop = at + 1 + int.from_bytes(buffer[at + 1 : at + 5], "big")
        if letter == _PARSE:
            parse = messages.parse_parse(buffer[at + 5 : stop])
            parsed[parse.name] = parse
            if not session.services.shapes.find(parse.sql).plain:
                return _SLOW
        elif letter == _BIND:
            bind = messages.parse_bind(buffer[at + 5 : stop])
            sql, types = statement_text(session, bind.statement, parsed)
            if sql is None:
                return _SLOW
            found = _of_shape(session, session.services.shapes.find(sql), bind, types)
            if found == _SLOW or (shard >= 0 and found != shard):
                return _SLOW
            shard = found
        elif (session.portals and shard < 0 and letter in _OF_PORTALS) or (not _begins(letter) and letter != _SYNC):
            return _SLOW
        at = stop
    if shard >= 0:
        return shard
    # Nothing is bound: described, parsed or closed only. Every shard says the same; a transaction asks its own.
    if session.database.topology.schemas:
        shard = _of_schemas(session, buffer, end - size, end, parsed)
        if shard >= 0:
            return shard
    return session.shard if session.server is not None else 0


def _of_schemas(session: Session, buffer: bytes, at: int, end: int, parsed: dict[bytes, messages.Parse]) -> int:
    """Tables of sharded schemas are known on their shard only; -1: there are none."""
    sql: bytes | None
    while at < end:
        letter = buffer[at]
        stop = at + 1 + int.from_bytes(buffer[at + 1 : at + 5], "big")
        sql = None
        if letter == _PARSE:
            sql = messages.parse_parse(buffer[at + 5 : stop]).sql
        elif letter == _DESCRIBE and buffer[at + 5] == _STATEMENT:
            sql = statement_text(session, buffer[at + 6 : stop - 1], parsed)[0]
        found = -1 if sql is None else schema_shard(session, session.services.shapes.find(sql))
        if found >= 0:
            return found
        at = stop
    return -1


def schema_shard(session: Session, shape: Shape) -> int:
    """The shard of the statement's schemas, by the text that was looked up last; -1: they do not tell. Raises
    ClientFault where nobody knows which schemas are meant."""
    lexed = session.services.shapes.lexed
    statements = shape.statements
    if not session.database.topology.schemas or statements is None or len(statements) != 1 or lexed is None:
        return -1
    outcome = outcome_of(session, shape, Values(lexed))
    if isinstance(outcome, Refusal) and catalog_of(session).uncertain:
        raise outcome.fault
    if isinstance(outcome, Plan) and len(outcome.shards) == 1 and not outcome.anywhere:
        return outcome.shards[0]
    return -1


def statement_text(
    session: Session, name: bytes, parsed: dict[bytes, messages.Parse]
) -> tuple[bytes | None, tuple[int, ...]]:
    """Text and declared types of a statement of this unit or of an earlier one; None: there is none."""
    parse = parsed.get(name)
    if parse is None and not name and session.unnamed_parse:
        parse = messages.parse_parse(session.unnamed_parse[5:])
    if parse is not None:
        return parse.sql, parse.types
    prepared = session.prepared.get(name)
    if prepared is None:
        return None, ()
    return prepared.sql, prepared.type_oids


def _of_shape(session: Session, shape: Shape, bind: messages.Bind | None, types: tuple[int, ...] = ()) -> int:
    """The shard of the text that was looked up last, or _SLOW."""
    shapes = session.services.shapes
    statements = shape.statements
    if not shape.plain or statements is None or len(statements) != 1 or shapes.lexed is None:
        return _SLOW
    if statements[0].kind in _ALWAYS_SLOW or statements[0].effects & Effects.SETS:
        return _SLOW
    if bind is None:
        values = Values(shapes.lexed)
    else:
        values = Values(shapes.lexed, bind.parameters, bind.parameter_formats, types)
    outcome = outcome_of(session, shape, values)
    if type(outcome) is Plan and outcome.road is _DIRECT and len(outcome.shards) == 1 and not outcome.program:
        database = session.database
        point = point_of(statements[0], database.topology, database.layout.catalog)
        if point is not None:
            shape.point = point
        if outcome.role is _ANY:
            session.unit_role = _ANY
        if shape.entry is not None:
            shape.entry.direct += 1
        if outcome.writes and session.begin_message:
            session.wrote |= frozenset(outcome.shards)
        if outcome.anywhere:
            # every shard would say the same: the one at hand, else one that spreads clients
            return session.shard if session.server is not None else session.id % len(session.database.balancers)
        return outcome.shards[0]
    return _SLOW


def outcome_of(session: Session, shape: Shape, values: Values) -> Plan | Refusal:
    """`plan` for the only statement of the text that was looked up last."""
    lexed = values.lexed
    assert shape.statements is not None
    assert lexed is not None
    refuse_backslashes(session, lexed.sql)
    database = session.database
    hints = session.hints
    if lexed.comments:
        hints = session.services.shapes.hints().over(hints)
    outcome = plan(shape.statements[0], values, hints, database.topology, catalog_of(session))
    if type(outcome) is NeedLookup:
        raise ClientFault("lookup queries for sharding keys are not supported yet", sqlstate="0A000")
    return cast("Plan | Refusal", outcome)
