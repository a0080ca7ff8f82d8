"""COPY … FROM STDIN into several shards: every row goes, byte for byte, where its key says.

The data is never taken apart further than the key field needs, and never put together again: a shard gets the very
bytes of its rows. Rows of tables that are on every shard go to all of them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from node.client.malformed import too_long
from node.errors import ClientFault, Fault
from node.gather import copy as copy_core
from node.gather.copy import CopyFormat, CopySplitter
from node.gather.split import combine_tags
from node.routing.keys import target_of
from node.routing.outcome import CopyProgram, Plan
from node.routing.shard_map import KeyValue, shard_of
from node.routing.stored import Stored
from node.routing.topology import ShardedTable
from node.routing.typed import binary_value, text_value
from node.routing.writes import unmapped
from node.server.conversation import Conversation, fault_of
from node.wire import messages
from node.wire.codes import Backend, Frontend
from node.wire.requests import NOTHING, TOO_LONG

if TYPE_CHECKING:
    from node.client.execute import Execution
    from node.client.session import Session

# A shard counts the lines that it got, not the client's: "COPY orders, line 2" would be the wrong one.
_CONTEXT = "W"
_KINDS = {"text": copy_core.TEXT, "csv": copy_core.CSV, "binary": copy_core.BINARY}


def shard_of_key(rule: ShardedTable, stored: Stored, key: bytes | None, shards: int, *, binary: bool = False) -> int:
    """The shard of a key as text (or in its binary form). Raises 22P02 as PostgreSQL would, 58000 if unmapped."""
    value: KeyValue | None = None
    if key is not None:
        name = target_of(rule, stored)
        typed = binary_value(key, name, 0) if binary else text_value(key, name)
        found = typed.value if typed is not None else None
        if not isinstance(found, int | bytes):
            raise ClientFault(f"the sharding key cannot be read as {rule.data_type}", sqlstate="22P02")
        value = stored.kept(found)
    shard = shard_of(rule, value, shards)
    if shard is None:
        shown = "NULL" if key is None else key.decode("utf-8", "replace")
        raise unmapped(rule, rule.name or "", shown)
    return shard


def has_header(options: tuple[tuple[str, str], ...]) -> bool:
    said = next((value for name, value in options if name.lower() == "header"), "false")
    return said.lower() not in ("false", "off", "0", "no")


def copy_format(program: CopyProgram, server_version: int, encoding: str) -> CopyFormat:
    """COPY's options, as the splitter wants them."""
    options = {name.lower(): value for name, value in program.options}
    kind = _KINDS[program.format]
    key_name = program.columns[program.key_column]

    def byte(name: str) -> bytes | None:
        return options[name].encode() if name in options else None

    def listed(name: str) -> bool:
        value = options.get(name, "")
        return value == "*" or key_name in [part.strip().strip('"') for part in value.split(",")]

    return CopyFormat(
        kind,
        program.key_column,
        key_name=key_name,
        delimiter=byte("delimiter"),
        null=byte("null"),
        header=has_header(program.options),
        quote=byte("quote") or b'"',
        escape=byte("escape"),
        default=byte("default"),
        force_null=listed("force_null"),
        force_not_null=listed("force_not_null"),
        encoding=options.get("encoding", encoding),
        end_marker=None if kind != copy_core.CSV else server_version < 180000,
        marker_alone=server_version >= 180000,
    )


async def copy_in(execution: Execution, outcome: Plan) -> str:
    """Runs the COPY and returns its tag. The client is in copy mode meanwhile."""
    session, program = execution.session, outcome.program
    talks = await execution.shards.get(outcome.shards)
    parts = dict(zip(outcome.shards, talks, strict=True))
    opened = await _open(list(parts.values()), execution.text)
    splitter: CopySplitter | None = None
    if isinstance(program, CopyProgram):
        statuses = talks[0].server.statuses
        version = _version(statuses.get("server_version", "18"))
        splitter = CopySplitter(copy_format(program, version, statuses.get("client_encoding", "UTF8")))
    session.write(messages.message(b"G", opened))
    session.requests.hold_copy = True
    try:
        await _transfer(session, parts, program, splitter)
    except BaseException as error:
        await _give_up(list(parts.values()), str(error) if isinstance(error, Fault) else "the client has gone")
        raise
    finally:
        session.requests.hold_copy = False
    tags = await _close(list(parts.values()))
    return combine_tags(tags) if splitter is not None else tags[0]


def _version(text: str) -> int:
    first = text.split()[0].split(".")[0]
    return int(first) * 10000 if first.isdigit() else 180000


async def _open(talks: list[Conversation], sql: bytes) -> bytes:
    """Starts the COPY everywhere; the body of a CopyInResponse."""
    for talk in talks:
        talk.server.pipeline.owe_query(talk)
        talk.send(messages.message(b"Q", sql + b"\0"))
    opened, fault = b"", None
    ready: list[Conversation] = []
    for talk in talks:
        while True:
            letter, body = await talk.next()
            if letter == Backend.COPY_IN_RESPONSE:
                opened = body
                ready.append(talk)
                break
            if letter == Backend.ERROR_RESPONSE:
                fault = fault or fault_of(body, without=_CONTEXT, client=True)
            elif letter == Backend.READY_FOR_QUERY:
                break
    if fault is not None or len(ready) < len(talks):
        await _give_up(ready, "another shard refused")
        raise fault or ClientFault("COPY did not start on every shard", sqlstate="58000")
    return opened


async def _transfer(
    session: Session, parts: dict[int, Conversation], program: object, splitter: CopySplitter | None
) -> None:
    began: set[int] = set()
    while True:
        letter, body = await next_message(session)
        if letter == Frontend.COPY_DATA:
            if splitter is None:
                await _send(parts, dict.fromkeys(parts, messages.copy_data(body)))
            else:
                assert isinstance(program, CopyProgram)
                await _rows(parts, began, splitter, program, splitter.feed(body))
        elif letter == Frontend.COPY_DONE:
            if splitter is not None:
                assert isinstance(program, CopyProgram)
                await _rows(parts, began, splitter, program, splitter.finish())
                rest = {s: messages.copy_data(splitter.prelude) for s in parts if s not in began and splitter.prelude}
                await _send(parts, rest)
                if splitter.trailer:
                    await _send(parts, dict.fromkeys(parts, messages.copy_data(splitter.trailer)))
            return
        elif letter == Frontend.COPY_FAIL:
            text = body[:-1].decode("utf-8", "replace")
            raise ClientFault(f"COPY from stdin failed: {text}", sqlstate="57014")
        elif letter not in (Frontend.FLUSH, Frontend.SYNC):
            raise ClientFault(f"unexpected message type 0x{letter:02X} during COPY from stdin", sqlstate="08P01")


async def _rows(
    parts: dict[int, Conversation],
    began: set[int],
    splitter: CopySplitter,
    program: CopyProgram,
    rows: list[tuple[bytes | None, bytes]],
) -> None:
    by_shard: dict[int, list[bytes]] = {}
    binary = program.format == "binary"
    count = len(parts)
    for key, row in rows:
        by_shard.setdefault(shard_of_key(program.rule, program.key_stored, key, count, binary=binary), []).append(row)
    out: dict[int, bytes] = {}
    for shard, listed in by_shard.items():
        if shard not in began:
            began.add(shard)
            listed.insert(0, splitter.prelude)
        out[shard] = messages.copy_data(b"".join(listed))
    await _send(parts, out)


async def _send(parts: dict[int, Conversation], data: dict[int, bytes]) -> None:
    for shard, message in data.items():
        talk = parts[shard]
        if talk.waiting_bytes:
            await _failed_already(talk)
        talk.send(message)
        await talk.drained()


async def _failed_already(talk: Conversation) -> None:
    """The server said something in the middle of the data: almost always that it does not like them."""
    while talk.waiting_bytes:
        letter, body = await talk.next()
        if letter == Backend.ERROR_RESPONSE:
            fault = fault_of(body, without=_CONTEXT, client=True)
            await talk.ready()
            raise fault


async def _close(talks: list[Conversation]) -> list[str]:
    for talk in talks:
        talk.send(messages.COPY_DONE)
        talk.server.pipeline.copy_ended()
    tags: list[str] = []
    fault: Fault | None = None
    for talk in talks:
        while True:
            letter, body = await talk.next()
            if letter == Backend.COMMAND_COMPLETE:
                tags.append(body[:-1].decode())
            elif letter == Backend.ERROR_RESPONSE:
                fault = fault or fault_of(body, without=_CONTEXT, client=True)
            elif letter == Backend.READY_FOR_QUERY:
                break
    if fault is not None:
        raise fault
    return tags


async def _give_up(talks: list[Conversation], why: str) -> None:
    """Ends copy mode wherever it is still on."""
    for talk in talks:
        if talk.server.pipeline.copy_in == 1:
            talk.send(messages.copy_fail(why))
            talk.server.pipeline.copy_ended()
    for talk in talks:
        if talk.server.pipeline.done != talk.server.pipeline.sent:
            try:
                await asyncio.wait_for(talk.ready(), 10)
            except (Fault, TimeoutError):
                talk.hurry()


async def next_message(session: Session) -> tuple[int, bytes]:
    """The client's next message, waited for."""
    requests = session.requests
    while True:
        letter = requests.next()
        if letter == TOO_LONG:
            raise too_long(session.requests)
        if letter != NOTHING:
            return letter, requests.buffer[requests.start + 5 : requests.end]
        fed = asyncio.Event()
        session.services.when_fed(session, fed.set)
        session.resume_client()
        await fed.wait()
