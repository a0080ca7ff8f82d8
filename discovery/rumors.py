"""What to tell others, how often: a queue in which every item is sent a limited number of times.

Fresh items go first, newer news about a subject replaces older news about it, and an item that has been sent
`multiplier * max(2, ceil(log10(N + 1)))` times is dropped: by then everybody knows with high probability (SWIM section
4.1), and anti-entropy tells the rest. At least 2, unlike memberlist: with 1 a flock of 8 misses somebody once in ten.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

PER_PACKET_LIMIT = 60


def transmit_limit(multiplier: int, members: int) -> int:
    return multiplier * max(2, math.ceil(math.log10(members + 1)))


@dataclass(slots=True)
class _Item(Generic[T]):
    subject: str
    rumor: T
    size_bytes: int
    sequence: int
    sent: int = 0

    @property
    def order(self) -> tuple[int, int]:
        return (self.sent, -self.sequence)


class RumorQueue(Generic[T]):
    """Bounded by `limit` items; when full, the item heard by the most is forgotten first."""

    def __init__(self, multiplier: int, limit: int = 1024) -> None:
        self._multiplier = multiplier
        self._limit = limit
        self._items: dict[str, _Item[T]] = {}
        self._sequence = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    def add(self, subject: str, rumor: T, size_bytes: int) -> None:
        """Queue news; it replaces whatever was queued about the same subject."""
        self._sequence += 1
        self._items.pop(subject, None)
        if len(self._items) >= self._limit:
            stalest = max(self._items.values(), key=lambda item: item.order)
            del self._items[stalest.subject]
            self.dropped += 1
        self._items[subject] = _Item(subject, rumor, size_bytes, self._sequence)

    def __contains__(self, subject: str) -> bool:
        return subject in self._items

    def forget(self, subject: str) -> None:
        self._items.pop(subject, None)

    def take(self, budget_bytes: int, members: int) -> tuple[T, ...]:
        """Rumors for one packet, at most `budget_bytes` of them together; each one counts as sent once."""
        limit = transmit_limit(self._multiplier, members)
        taken: list[T] = []
        for item in sorted(self._items.values(), key=lambda item: item.order):
            if len(taken) >= PER_PACKET_LIMIT:
                break
            if item.size_bytes > budget_bytes:
                continue  # a smaller one may still fit
            budget_bytes -= item.size_bytes
            taken.append(item.rumor)
            item.sent += 1
            if item.sent >= limit:
                del self._items[item.subject]
        return tuple(taken)
