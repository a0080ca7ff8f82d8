"""CLUSTER: one command on every member, over the control channel.

The question is the command's text, the answer its rows, both msgpack arrays that begin with a format number. A member
that does not answer costs its own time limit and nobody else's; it has a row with its name, and its error is a notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgpack  # type: ignore[import-untyped]  # ships no type hints

from node.admin.answers import Answer, Field, Notice, Row, Type, text_of
from node.errors import ClientFault, Fault

if TYPE_CHECKING:
    from node.admin.ports import Node

FORMAT = 1  # append elements, never change their meaning
ANSWER_TIMEOUT_S = 10.0
COMMAND_LIMIT_BYTES = 65_536
ANSWER_LIMIT_BYTES = 8 << 20
NOTICES_LIMIT = 100

NODE = Field("node", Type.TEXT)
Run = Callable[[str], Awaitable[Answer]]


def with_node(fields: tuple[Field, ...] | None) -> tuple[Field, ...]:
    return (NODE, *(fields or ()))


async def everywhere(
    node: Node, text: str, fields: tuple[Field, ...] | None, here: Callable[[], Awaitable[Answer]]
) -> Answer:
    """Asks all members at once. `here` runs the command on this node, whose `fields` are everybody's."""
    question = pack_question(text)
    members = [member for member in node.members() if member.state.value != "left"]

    async def ask(name: str, mine: bool, state: str) -> Answer | Fault:
        try:
            if mine:
                return await here()
            if state == "dead":
                return ClientFault("it is known to be dead", sqlstate="08006")
            return unpack_answer(await node.ask(name, question, ANSWER_TIMEOUT_S))
        except Fault as fault:
            return fault

    answers = await asyncio.gather(*(ask(member.node, member.me, member.state.value) for member in members))
    whole = Answer("CLUSTER", with_node(fields))
    rows: list[Row] = []
    width = len(fields or ())
    for member, answer in zip(members, answers, strict=True):
        if isinstance(answer, Answer) and (answer.fields or ()) != (fields or ()):
            answer = ClientFault("it answered with other columns", sqlstate="08P01", hint="its version may be another")
        if isinstance(answer, Fault):
            whole.notices.append(Notice(f"{member.node}: {answer.message}", answer.detail, answer.hint))
            rows.append((member.node, *([None] * width)))
            continue
        whole.notices += [Notice(f"{member.node}: {one.text}", one.detail, one.hint) for one in answer.notices]
        if fields is None:
            rows.append((member.node,))
        rows += [(member.node, *row) for row in answer.rows]
    whole.rows = rows
    return whole


async def serve(payload: bytes, run: Run) -> bytes:
    """Answers another member; never raises, or the channel would have to guess what happened."""
    try:
        return pack_answer(await run(unpack_question(payload)))
    except Fault as fault:
        return _pack_fault(fault)


def pack_question(text: str) -> bytes:
    if len(text.encode()) > COMMAND_LIMIT_BYTES:
        raise ClientFault(f"a command for every node may have {COMMAND_LIMIT_BYTES} bytes", sqlstate="54000")
    return _pack([FORMAT, text])


def unpack_question(payload: bytes) -> str:
    match _unpack(payload, 2 * COMMAND_LIMIT_BYTES):
        case [int(version), str(text), *_] if version == FORMAT:
            return text
    raise _malformed("question")


def pack_answer(answer: Answer) -> bytes:
    if answer.fault is not None:
        return _pack_fault(answer.fault)
    fields = None if answer.fields is None else [[one.name, one.type.name] for one in answer.fields]
    notices = [[one.text, one.detail, one.hint] for one in answer.notices[:NOTICES_LIMIT]]
    rows = [[text_of(value) for value in row] for row in answer.rows]
    packed = _pack([FORMAT, answer.tag, fields, rows, notices])
    if len(packed) > ANSWER_LIMIT_BYTES:
        return _pack_fault(ClientFault(f"its answer has more than {ANSWER_LIMIT_BYTES} bytes", sqlstate="53400"))
    return packed


def unpack_answer(payload: bytes) -> Answer:
    """Raises the Fault that the member answered with, or ClientFault 08P01 for what no member says."""
    try:
        match _unpack(payload, ANSWER_LIMIT_BYTES):
            case [int(version), str(tag), fields, list(rows), list(notices), *_] if version == FORMAT:
                return Answer(tag, _fields(fields), [_row(row) for row in rows], [_notice(one) for one in notices])
            case [int(version), str(sqlstate), str(text), detail, hint] if version == -FORMAT:
                raise ClientFault(text, sqlstate=sqlstate[:5], detail=_text_or_none(detail), hint=_text_or_none(hint))
    except (ValueError, TypeError, KeyError):
        pass
    raise _malformed("answer")


def _pack_fault(fault: Fault) -> bytes:
    return _pack([-FORMAT, fault.sqlstate, fault.message, fault.detail, fault.hint])


def _fields(value: Any) -> tuple[Field, ...] | None:
    return None if value is None else tuple(Field(_text(name), Type[kind]) for name, kind in value)


def _row(value: Any) -> Row:
    if not isinstance(value, list):
        raise TypeError
    return [_text_or_none(one) for one in value]


def _notice(value: Any) -> Notice:
    text, detail, hint = value
    return Notice(_text(text), _text_or_none(detail), _text_or_none(hint))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _pack(values: list[Any]) -> bytes:
    packed: bytes = msgpack.packb(values, use_bin_type=True, unicode_errors="replace")
    return packed


def _unpack(payload: bytes, limit: int) -> Any:
    if len(payload) > limit:
        raise _malformed("message")
    try:
        return msgpack.unpackb(payload, raw=False, max_map_len=0, max_bin_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises its own, ValueError and struct errors alike
        raise _malformed("message") from error


def _malformed(what: str) -> ClientFault:
    return ClientFault(f"invalid {what} of a CLUSTER command", sqlstate="08P01")
