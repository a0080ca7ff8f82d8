"""Who is expected. "Who is alive" is another question, and discovery's.

A member has a seat until it leaves by itself or is evicted by a person: never because somebody thinks it is dead.
"""

from __future__ import annotations

from dataclasses import dataclass

MEMBERS_LIMIT = 256  # keeps the cell under its 64 KiB
NAME_LIMIT = 128  # characters of a node name or an address


@dataclass(frozen=True, slots=True)
class Seat:
    """`boot` names one life of the process. `disk` names its journal: a node that comes back with another disk may have
    forgotten a vote, so it has to wait while votes are taken."""

    boot: str
    disk: str
    address: str


@dataclass(frozen=True, slots=True)
class Roster:
    """Seats by node name, sorted, so that equal rosters have equal bytes."""

    seats: tuple[tuple[str, Seat], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.seats)

    def __contains__(self, node: str) -> bool:
        return self.get(node) is not None

    def __len__(self) -> int:
        return len(self.seats)

    def get(self, node: str) -> Seat | None:
        for name, seat in self.seats:
            if name == node:
                return seat
        return None

    def with_seat(self, node: str, seat: Seat) -> Roster:
        others = [(name, other) for name, other in self.seats if name != node]
        return Roster(tuple(sorted([*others, (node, seat)], key=lambda item: item[0])))

    def without(self, node: str) -> Roster:
        return Roster(tuple((name, seat) for name, seat in self.seats if name != node))
