"""Documents by digest, in a folder: the own one of a node, or the one beside a `file` register that all nodes share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from sync.files import replace_file
from sync.rollout import HISTORY_LIMIT
from sync.version import DOCUMENT_LIMIT_BYTES, digest_of, is_digest


class StoreFailed(Exception):
    """A document could not be kept: disk full, no permission. Nothing was promised, so refusing is enough."""


class DocumentStore:
    """Blocking calls of a few milliseconds; run `put` outside the event loop. Raises StoreFailed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, document: bytes) -> str:
        """Durable when it returns; a document that is there already is not written again."""
        if len(document) > DOCUMENT_LIMIT_BYTES:
            raise StoreFailed(f"the document has {len(document)} bytes, the limit is {DOCUMENT_LIMIT_BYTES}")
        digest = digest_of(document)
        if self.get(digest) is not None:
            return digest
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self.folder / digest, document)
        except OSError as error:
            raise StoreFailed(f'could not write a document into "{self.folder}": {error.strerror}') from None
        return digest

    def get(self, digest: str) -> bytes | None:
        """None when it is absent, unreadable, or not what its name says: then somebody else is asked."""
        if not is_digest(digest):
            return None
        try:
            document = (self.folder / digest).read_bytes()
        except OSError:
            return None
        return document if digest_of(document) == digest else None

    def prune(self, keep: Collection[str]) -> None:
        """Keep what is named and the newest ten; losing a race against another process is fine."""
        try:
            files = [path for path in self.folder.iterdir() if is_digest(path.name)]
            files.sort(key=lambda path: path.stat().st_mtime, reverse=True)
            for path in files[HISTORY_LIMIT:]:
                if path.name not in keep:
                    path.unlink(missing_ok=True)
        except OSError:
            return
