"""What a session that runs alone may send again when its server is lost: reads of which it has heard nothing.

While a unit is under way its bytes are kept, which costs a pointer: they are where they were read. Only when a server
ends under it they are looked at: which units are answered, and is every one behind them a read that may run twice
(routing/sharing)? Then they go to another server, and the client notices nothing. One write among them, a setting, a
transaction, a reply that has begun: then the client hears what the server said last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.client.weight import Weights
from node.server.connection import IDLE
from node.server.last_words import is_by_operator
from node.wire import messages
from node.wire.codes import Frontend
from node.wire.requests import Requests

if TYPE_CHECKING:
    from node.client.linked import Linked
    from node.client.shape import Shape
    from node.database import Layout
    from node.server.connection import ServerConnection

# A read that lost its server so many times is told the last reason.
SENT_AGAIN_MAX = 50
# What is under way on a whole connection is kept up to here as it was read, and up to there when more is sent behind
# it: that has to be copied. Of what is larger the client hears that its server was lost.
KEPT_BYTES = 1 << 20
PIPELINED_BYTES = 16 << 10

_BIND = int(Frontend.BIND)
_EXECUTE = int(Frontend.EXECUTE)
_QUERY = int(Frontend.QUERY)
_SYNC = int(Frontend.SYNC)
_OF_BATCHES = frozenset(
    map(int, (Frontend.PARSE, Frontend.BIND, Frontend.DESCRIBE, Frontend.EXECUTE, Frontend.CLOSE, Frontend.FLUSH))
)


def is_blamed(server: ServerConnection) -> bool:
    """May what ran on this server be the reason why it was lost?"""
    return bool(server.pipeline.broken) or not is_by_operator(server.pipeline.last_error)


def units_left(session: Linked, server: ServerConnection) -> list[bytes]:
    """The units under way on a server that was lost, if all of them may be sent again; else none."""
    pipeline = server.pipeline
    if session.begun or pipeline.tx_status != IDLE or session.sent_again >= SENT_AGAIN_MAX or server.cancelling:
        return []
    if session.pin is not None or session.database.mode == "session" or session.links or session.begin_message:
        return []
    # what was asked before has left something behind, on the server that is gone or in the session
    if session.must_ask or session.forget_statements or session.redefined or session.changed_schema:
        return []
    if session.discarding or session.torn_copy or session.tx_failed:
        return []
    if session.blamed and is_blamed(server):
        return []
    units = _units(session.kept[session.kept_at : session.kept_end])[pipeline.units - session.kept_units :]
    return units if all(_may_run_twice(session, unit) for unit in units) else []


def _units(kept: bytes) -> list[bytes]:
    """One by one, the last of which may be a batch without its Sync; none of them when one is of a kind that is not
    looked into."""
    units: list[bytes] = []
    at = start = 0
    while at < len(kept):
        letter = kept[at]
        at += 1 + int.from_bytes(kept[at + 1 : at + 5], "big")
        if letter == _SYNC or (
            letter == _QUERY and at - start == 1 + int.from_bytes(kept[start + 1 : start + 5], "big")
        ):
            units.append(kept[start:at])
            start = at
        elif letter not in _OF_BATCHES:
            return []
    return units if start == len(kept) else [*units, kept[start:]]


def _may_run_twice(session: Linked, unit: bytes) -> bool:
    layout = session.database.layout
    shape = _shape_of(session, unit) if layout.sharing else None
    return shape is not None and weights_of(layout).of(shape).alone is None


def weights_of(layout: Layout) -> Weights:
    """Those under the catalogue in force."""
    if layout.weights is None:
        layout.weights = Weights(layout.catalog)
    return layout.weights


def _shape_of(session: Linked, unit: bytes) -> Shape | None:
    """Of the one statement that is all of this unit; None: it is more than that."""
    shapes = session.services.shapes
    if unit[0] == _QUERY:
        return shapes.find(unit[5:-1])
    unit = _completed(unit)
    requests = Requests(len(unit))
    requests.feed(unit)
    if not requests.batch(0):
        return None
    if requests.text_at:
        return shapes.find(unit[requests.text_at : requests.text_end])
    prepared = session.prepared.get(unit[requests.name_at : requests.name_end])
    return None if prepared is None else shapes.find(prepared.sql)


def _completed(batch: bytes) -> bytes:
    """A batch that was torn between two messages, with what is likely to come: it is one of a read or it is not."""
    letters = set()
    at = 0
    while at < len(batch):
        letters.add(batch[at])
        at += 1 + int.from_bytes(batch[at + 1 : at + 5], "big")
    if _SYNC in letters:
        return batch
    if _BIND not in letters:
        batch += messages.bind(b"", b"")
    return batch + (b"" if _EXECUTE in letters else messages.execute()) + messages.SYNC
