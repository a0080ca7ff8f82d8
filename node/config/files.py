"""Reads the files. Everything that can be decided without a disk is in `load`."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from node.config.limits import LIMITS
from node.config.load import Loaded, parse
from node.config.problems import Problem
from node.config.schema import Config
from node.config.setting import Secret

CONFIG_NAMES = ("pgmurmur.toml", "pgdog.toml")  # in the order they are tried
USERS_NAME = "users.toml"


@dataclass(frozen=True, slots=True)
class Texts:
    """Two files as read, with the names their errors are reported under. Passwords inside: never shown by repr."""

    config: str = field(repr=False)
    users: str = field(repr=False)
    config_name: str
    users_name: str
    warnings: tuple[Problem, ...] = ()
    unreadable: tuple[Problem, ...] = ()

    def parse(self, environ: Mapping[str, str]) -> Loaded:
        """See `load.parse`; warnings about the files themselves come first."""
        lost = {problem.file: problem for problem in self.unreadable}
        config, users = lost.get(self.config_name, self.config), lost.get(self.users_name, self.users)
        loaded = parse(config, users, environ, config_name=self.config_name, users_name=self.users_name)
        return Loaded(loaded.config, (*self.warnings, *loaded.warnings))


def read(config: str | None, users: str | None) -> Texts:
    """Reads both files; a missing one is empty with a warning, as in PgDog. `None` means the usual names.

    One that exists but cannot be read is empty too; `parse` says so, together with what is wrong in the other.
    """
    config_path = Path(config) if config is not None else _first_existing()
    users_path = Path(users) if users is not None else Path(USERS_NAME)
    unreadable: list[Problem] = []
    warnings: list[Problem] = []
    texts = []
    for path in (config_path, users_path):
        try:
            texts.append(_text(path))
        except FileNotFoundError:
            warnings.append(Problem(str(path), 0, "file does not exist; defaults are used"))
            texts.append("")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            unreadable.append(Problem(str(path), 0, _reason(error)))
            texts.append("")
    return Texts(texts[0], texts[1], str(config_path), str(users_path), tuple(warnings), tuple(unreadable))


def _first_existing() -> Path:
    return next((path for path in map(Path, CONFIG_NAMES) if path.exists()), Path(CONFIG_NAMES[-1]))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(LIMITS.document_bytes + 1)
    if len(raw) > LIMITS.document_bytes:
        raise ValueError(f"file is larger than {LIMITS.document_bytes} bytes")
    return raw.decode("utf-8")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "file is not UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot read file: {error.strerror.lower()}"
    return str(error)


def with_admin_password(config: Config) -> tuple[Config, str | None]:
    """A configuration that has an admin password; the second value is a new random one, to be logged once."""
    if config.admin.password is not None:
        return config, None
    password = "_pgmurmur_" + secrets.token_urlsafe(9)
    admin = config.admin.model_copy(update={"password": Secret(password)})
    return config.model_copy(update={"admin": admin}), password
