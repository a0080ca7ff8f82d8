"""Times and limits of the package, in seconds unless said otherwise. A value object: cores never read a global."""

from __future__ import annotations

from dataclasses import dataclass


class SettingsError(ValueError):
    """A setting that cannot be honoured; the text names it and the way out."""


@dataclass(frozen=True, slots=True)
class SyncSettings:
    validate_timeout: float = 30.0  # per rollout: fetch and dry run on every member
    drain_timeout: float = 5.0  # a member whose transactions do not end by then refuses
    pause_max: float = 10.0  # no member stays paused longer without having voted
    fence_timeout: float = 8.0  # over drain_timeout, or slow drains would be aborted by the coordinator's impatience
    takeover: float = 2.0  # silence of a coordinator; lower = shorter outage, more false takeovers
    takeover_jitter: float = 1.0  # spreads the candidates, so that mostly one of them acts
    resend: float = 0.25
    poll: float = 2.0  # between reads of the register while nothing is open; watching makes it a safety net
    busy_poll: float = 0.5  # while a rollout is open or this member does not serve
    confirm: float = 5.0  # how long the coordinator waits for members to report the new version
    register_timeout: float = 3.0  # one read or compare-and-set
    isolation: str = "serve"

    @property
    def takeover_patience(self) -> float:
        """How long a successor collects votes: under `takeover`, so that it decides before anybody succeeds it."""
        return self.takeover * 0.75

    def check(self) -> None:
        """Raises SettingsError."""
        if self.isolation == "pause":
            raise SettingsError(
                'isolation = "pause" is not built yet: serving leases are missing; use isolation = "serve",'
                " where an unreachable member blocks configuration changes and never traffic"
            )
        if self.isolation != "serve":
            raise SettingsError(f'isolation must be "serve" or "pause", not "{self.isolation}"')
        if self.fence_timeout <= self.drain_timeout:
            raise SettingsError("fence_timeout must be over drain_timeout, or every slow drain aborts the rollout")
        if self.takeover <= 2 * self.resend:
            raise SettingsError(f"takeover must be over {2 * self.resend:g} s, or living coordinators look dead")
