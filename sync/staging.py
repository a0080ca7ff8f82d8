"""What this member said about documents: one answer per rollout, given again when asked again.

Rollout 0 is a dry run: its answer is not kept, since the next dry run may carry another document.
"""

from __future__ import annotations

from sync.messages import Staged
from sync.rollout import Roll


class Staging:
    def __init__(self) -> None:
        self._answers: dict[int, Staged | None] = {}  # None: at work

    def answer(self, rid: int, target: str) -> Staged | None:
        known = self._answers.get(rid)
        return known if known is not None and known.target == target else None

    def begin(self, rid: int, open_rid: int) -> bool:
        """False while one is at work. Forgets everything but the open rollout and a dry run."""
        if rid in self._answers and self._answers[rid] is None:
            return False
        self._answers = {known: answer for known, answer in self._answers.items() if known in (0, open_rid)}
        self._answers[rid] = None
        return True

    def end(self, rid: int, answer: Staged) -> None:
        if rid:
            self._answers[rid] = answer
        else:
            self._answers.pop(0, None)

    def accepted(self, roll: Roll) -> bool:
        """Only a member that validated this very document, in this life, may vote for it."""
        answer = self.answer(roll.rid, roll.target)
        return answer is not None and not answer.errors
