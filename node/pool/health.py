"""Is a target usable? Bans with their reasons and times, and what the last check found. No clock, no socket."""

from __future__ import annotations

from dataclasses import dataclass

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Ban:
    reason: str
    until: float  # monotonic seconds; FOREVER: lifted by UNBAN only


class HealthTracker:
    """One target. `healthy` is what the last connection attempt or check found."""

    __slots__ = ("ban", "errors", "healthy")

    def __init__(self) -> None:
        self.healthy = True
        self.errors = 0
        self.ban: Ban | None = None

    def succeeded(self) -> None:
        self.healthy = True

    def failed(self, reason: str, now: float, ban_timeout_s: float, *, may_ban: bool) -> None:
        """A connection attempt or check failed. Primaries are never banned: writes have nowhere else to go."""
        self.healthy = False
        self.errors += 1
        if may_ban and ban_timeout_s > 0 and (self.ban is None or self.ban.until != FOREVER):
            self.ban = Ban(reason, now + ban_timeout_s)

    def ban_by_hand(self) -> None:
        self.ban = Ban("admin", FOREVER)

    def unban(self) -> None:
        self.ban = None

    def banned(self, now: float) -> bool:
        """Lifted by time only together with a success since (`healthy`)."""
        ban = self.ban
        if ban is None:
            return False
        if now >= ban.until and self.healthy:
            self.ban = None
            return False
        return True

    def trial_due(self, now: float) -> bool:
        """The time of the ban is up, and a success is all that is missing."""
        return self.ban is not None and now >= self.ban.until and not self.healthy
