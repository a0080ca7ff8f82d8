"""What is wrong with a configuration, said so that one look at the right line mends it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from node.config.positions import Path
from node.errors import ClientFault


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One error or warning: FILE:LINE: message. Line 0 means the file as a whole, or the environment."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}" if self.line else f"{self.file}: {self.message}"


class ConfigError(ClientFault):
    """The files are refused; `problems` are all errors of both. SQLSTATE F0000 config_file_error."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        count = len(problems)
        super().__init__(
            f"configuration has {count} error{'' if count == 1 else 's'}",
            sqlstate="F0000",
            detail="\n".join(map(str, problems)),
        )
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """One problem per line, as configcheck and a node that does not start print them."""
        return "\n".join(map(str, self.problems))


@dataclass(slots=True)
class Findings:
    """Collects what checks find; paths become lines later, when it is known which file a path came from."""

    errors: list[tuple[Path, str]] = field(default_factory=list)
    warnings: list[tuple[Path, str]] = field(default_factory=list)

    def error(self, path: Path, message: str) -> None:
        self.errors.append((path, message))

    def warn(self, path: Path, message: str) -> None:
        self.warnings.append((path, message))


def meant(word: str, known: Iterable[str]) -> str:
    """`; did you mean "port"?`, or nothing when nothing is near."""
    near = nearest(word, known)
    return f'; did you mean "{near}"?' if near is not None else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was probably meant."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return near[0] if near else None
