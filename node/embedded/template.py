"""One initdb per kind of data directory; every server starts from a copy of it."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

from node.embedded.binaries import WHEEL, Binaries
from node.embedded.stopping import postponed
from node.embedded.workspace import Workspace

SUPERUSER = "postgres"


def reachable(binaries: Binaries, workspace: Workspace) -> Binaries:
    """The same programs where the account of PostgreSQL may run them: a copy when they lie in a private home."""
    folder = binaries.folder.resolve()
    if workspace.account is None or all(parent.stat().st_mode & stat.S_IXOTH for parent in (folder, *folder.parents)):
        return binaries
    # Programs find their share directory and libraries relative to themselves, so the wheel's layout is kept.
    prefix = folder.parent
    root = workspace.path / "programs"
    kept = root / WHEEL / prefix.name
    if not kept.exists():
        shutil.copytree(prefix, kept, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        libraries = prefix.parents[1] / f"{WHEEL}.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, root / libraries.name, symlinks=True)
        for path in (root, *root.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755)
    return Binaries(kept / folder.name, binaries.version)


class Template:
    """A data directory that nobody runs; `copy_to` makes servers' directories of it."""

    def __init__(self, workspace: Workspace, binaries: Binaries, password: str) -> None:
        self.workspace = workspace
        self.binaries = reachable(binaries, workspace)
        self.path = workspace.path / f"template-{binaries.version}"
        if not self.path.exists():
            self._make(password)

    def _make(self, password: str) -> None:
        secret = self.workspace.path / "superuser-password"
        secret.touch(mode=0o600)
        secret.write_text(password + "\n")
        self.workspace.give(secret)
        self.workspace.folder(self.path.name, private_to_account=True)
        # Text sorts by bytes and the encoding is UTF-8 on every machine, whatever locales it has.
        if self.binaries.major >= 17:
            locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        else:
            locale = ["--locale=C"]
        try:
            self.workspace.run_as_account(
                [
                    self.binaries.path("initdb"),
                    f"--pgdata={self.path}",
                    f"--username={SUPERUSER}",
                    f"--pwfile={secret}",
                    "--encoding=UTF8",
                    "--auth=scram-sha-256",
                    "--no-sync",
                    "--no-instructions",
                    *locale,
                ]
            )
        finally:
            secret.unlink()

    def copy_to(self, target: Path) -> None:
        """cp keeps owners and makes copy-on-write clones where the file system can."""
        clone = ["--reflink=auto"] if _has_reflink() else []
        with postponed():
            subprocess.run(["cp", "-R", "-p", *clone, self.path, target], check=True, capture_output=True, text=True)


def _has_reflink() -> bool:
    said = subprocess.run(["cp", "--help"], capture_output=True, text=True)
    return "--reflink" in said.stdout
