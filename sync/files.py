"""Files that are whole or absent, whatever happens in between. Blocking calls: run them outside the event loop."""

from __future__ import annotations

import os
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """A rename is durable when its directory is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_all(handle: int, data: bytes) -> None:
    """os.write may write less than it was given; a full disk shows as OSError(ENOSPC)."""
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """tmp, fsync, rename, fsync of the folder. Raises OSError, and then the old content is still there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        write_all(handle, data)
        os.fsync(handle)
    except OSError:
        os.close(handle)
        temporary.unlink(missing_ok=True)  # a half-written file on a full disk keeps it full
        raise
    os.close(handle)
    os.rename(temporary, path)
    sync_folder(path.parent)
