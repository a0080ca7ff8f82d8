"""Where a document comes from: the own store, the folder beside a `file` register, a peer. Its digest is the proof."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from sync.ports import Control, ControlUnreachable
from sync.store import DocumentStore, StoreFailed
from sync.version import digest_of

log = logging.getLogger("sync")

SERVICE = "sync.document"
FETCH_TIMEOUT_S = 10.0  # 8 MiB over a slow link


class Library:
    """`addresses()` lists (node, address) of those who may have it; the first answer with the right digest wins."""

    def __init__(
        self,
        own: DocumentStore,
        shared: DocumentStore | None,
        control: Control,
        addresses: Callable[[], Sequence[tuple[str, str]]],
    ) -> None:
        self.own = own
        self._shared = shared
        self._control = control
        self._addresses = addresses
        control.handle(SERVICE, self._answer)

    async def put(self, document: bytes) -> str:
        """Into the own store, and beside the register when it has such a folder. Raises StoreFailed."""
        digest = await asyncio.to_thread(self.own.put, document)
        if self._shared is not None:
            await asyncio.to_thread(self._shared.put, document)
        return digest

    async def get(self, digest: str, first: str | None = None) -> bytes:
        """The document, kept in the own store from now on. Raises StoreFailed when nobody has it."""
        document = await asyncio.to_thread(self._local, digest)
        if document is None:
            document = await self._fetch(digest, first)
        await asyncio.to_thread(self.own.put, document)
        return document

    def prune(self, keep: Sequence[str]) -> None:
        """Blocking. A document that somebody still needs can be fetched again from whoever serves it."""
        self.own.prune(keep)
        if self._shared is not None:
            self._shared.prune(keep)

    def _local(self, digest: str) -> bytes | None:
        document = self.own.get(digest)
        if document is None and self._shared is not None:
            document = self._shared.get(digest)
        return document

    async def _fetch(self, digest: str, first: str | None) -> bytes:
        peers = sorted(self._addresses(), key=lambda peer: peer[0] != first)
        for node, address in peers:
            try:
                document = await self._control.request(address, SERVICE, digest.encode(), FETCH_TIMEOUT_S, node=node)
            except ControlUnreachable as error:
                log.info("document_fetch_failed member=%s reason=%s", node, error)
                continue
            if document and digest_of(document) == digest:
                return document
        raise StoreFailed(f"no member has document {digest[:12]}")

    async def _answer(self, sender: str, payload: bytes) -> bytes:
        del sender
        document = await asyncio.to_thread(self._local, payload.decode("ascii", "replace"))
        return document or b""
