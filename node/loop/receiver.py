"""Who takes the bytes of a transport: its call is compiled, the others of a protocol are rare."""

from __future__ import annotations


class Receiver:
    """A protocol with the methods of asyncio.Protocol. asyncio's own class is none that a compiled class could inherit,
    and nobody asks for it."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError
