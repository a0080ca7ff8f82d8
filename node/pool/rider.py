"""Who rides on a lane (pool/lane.py): a client with a unit under way there, or a crowd of them with identical ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.server.connection import Owner

if TYPE_CHECKING:
    from node.errors import ServerFault
    from node.pool.lane import Lane


class Rider(Owner):
    """What a lane tells its client (client/riding.py; of a read over several shards client/ride.py)."""

    writing_paused: bool

    def would_share(self, parameters: object) -> bool:
        """Does a read wait here for a connection that could as well ride on a lane with these settings?"""
        raise NotImplementedError

    def invited(self, lane: Lane) -> None:
        """It need not wait any more: there is this lane. Called when it has left the queue."""
        raise NotImplementedError

    def lane_bytes(self, data: bytes) -> None:
        """The beginning of the reply."""
        raise NotImplementedError

    def lane_reply(self, data: bytes, now: float, took_s: float, size: int) -> None:
        """The end of the reply, and what all of it took. The rider may board again at once."""
        raise NotImplementedError

    def lane_error(self) -> None:
        """The reply has an ErrorResponse in it."""
        raise NotImplementedError

    def put_off(self, blamed: bool) -> None:
        """Nothing was delivered: send it again, elsewhere. `blamed`: it may be the reason why the server died."""
        raise NotImplementedError

    def lane_lost(self, fault: ServerFault, said: bool) -> None:
        """A part was delivered, and no more will come. `said`: the server's last words were part of it."""
        raise NotImplementedError


Passenger = Rider | list[Rider] | None
"""Whose a unit is: a rider's, a crowd's, or nobody's any more."""


def riders_of(passenger: Passenger) -> list[Rider]:
    """A list of its own: riders leave crowds while one goes through them."""
    if passenger is None:
        return []
    return list(passenger) if isinstance(passenger, list) else [passenger]
