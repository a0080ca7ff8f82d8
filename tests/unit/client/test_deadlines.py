"""Many time-outs, one timer: who runs out of time is told, in order, and nobody else."""

from __future__ import annotations

from collections.abc import Callable

from node.client.deadlines import TICK_S, Deadlines


class Clock:
    """Time that passes when told, and the one call that waits for it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[float, Callable[[], None]]] = []
        self.deadlines = Deadlines(self.later, lambda: self.now)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self.calls.append((self.now + seconds, call))

    def passes(self, seconds: float) -> None:
        until = self.now + seconds
        while self.calls and self.calls[0][0] <= until:
            at, call = self.calls.pop(0)
            self.now = at
            call()
            assert len(self.calls) <= 1, "one timer for all"
        self.now = until


class Guest:
    def __init__(self, clock: Clock, also: Guest | None = None) -> None:
        self.clock = clock
        self.also = also
        self.expired_at = 0.0

    def expired(self) -> None:
        assert not self.expired_at, "told once"
        self.expired_at = self.clock.now
        if self.also is not None:
            self.clock.deadlines.discard(self.also, 1.0)


def test_the_late_are_told_within_a_tick_and_the_punctual_never() -> None:
    clock = Clock()
    guests = [Guest(clock) for _ in range(50)]
    for number, guest in enumerate(guests):
        clock.passes(0.01)
        clock.deadlines.add(guest, 1.0)
        if number % 2:
            clock.deadlines.discard(guest, 1.0)
    came = [100.0 + 0.01 * (number + 1) for number in range(50)]
    clock.passes(5)
    for number, guest in enumerate(guests):
        if number % 2:
            assert not guest.expired_at
        else:
            assert 1.0 <= guest.expired_at - came[number] <= 1.0 + TICK_S + 1e-6
    assert len(clock.deadlines) == 0


def test_a_shorter_time_out_does_not_queue_behind_a_longer_one() -> None:
    clock = Clock()
    patient, hasty = Guest(clock), Guest(clock)
    clock.deadlines.add(patient, 60.0)
    clock.deadlines.add(hasty, 1.0)
    clock.passes(2)
    assert hasty.expired_at
    assert not patient.expired_at
    clock.passes(60)
    assert patient.expired_at


def test_the_timer_rests_while_nobody_waits_and_goes_on_after_that() -> None:
    clock = Clock()
    for _ in range(2):
        guest = Guest(clock)
        clock.deadlines.add(guest, 1.0)
        clock.passes(3)
        assert guest.expired_at
        assert clock.calls == []


def test_who_is_sent_away_by_another_one_s_end_is_not_told() -> None:
    clock = Clock()
    second = Guest(clock)
    first = Guest(clock, also=second)
    clock.deadlines.add(first, 1.0)
    clock.deadlines.add(second, 1.0)
    clock.passes(3)
    assert first.expired_at
    assert not second.expired_at
