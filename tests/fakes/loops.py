"""The event loops that what runs on one is tried on: ours, and those it must not differ from."""

from __future__ import annotations

import asyncio

import uvloop

from node.loop.loop import Loop

LOOPS = ("asyncio", "uvloop", "ours")


class _Ours(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return Loop()


def policy(name: str) -> asyncio.AbstractEventLoopPolicy:
    made = {"asyncio": asyncio.DefaultEventLoopPolicy, "uvloop": uvloop.EventLoopPolicy, "ours": _Ours}
    return made[name]()
