"""The engines that may hold the cell. `open_register` reads `--register` and `[sync] register`."""

from __future__ import annotations

from pathlib import Path

from sync.ports import Register
from sync.registers.file import FileRegister
from sync.settings import SettingsError

_LATER = {"postgres": "postgres", "postgresql": "postgres", "etcd": "etcd"}


def open_register(url: str) -> Register:
    """`file:DIR` on one host. Raises SettingsError, for engines that are not built yet too."""
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "file":
        folder = rest.removeprefix("//")
        if not folder:
            raise SettingsError("register: file: needs a folder, for example file:/var/lib/pgmurmur/register")
        return FileRegister(Path(folder).expanduser())
    if colon and scheme in _LATER:
        raise SettingsError(
            f"register: the {_LATER[scheme]} register is not built yet; use file:DIR, with every node on one host"
        )
    raise SettingsError(f'register: expected file:DIR, postgres://… or etcd://…, not "{_shown(url)}"')


def _shown(url: str) -> str:
    """Without a password that somebody put into a URL we do not understand."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}…@{rest.rpartition('@')[2]}" if separator and "@" in rest else url[:100]
