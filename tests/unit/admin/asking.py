"""Runs one command as a console would, checking what every command must keep to."""

from __future__ import annotations

import pytest
from unit.admin.fake_node import FakeNode

from node.admin.answers import Answer
from node.admin.commands import Role, perform, prepare
from node.errors import Fault


async def run(node: FakeNode, text: str, role: Role = Role.ADMIN) -> Answer:
    (prepared,) = prepare(text, role)
    answer = await perform(node, prepared)
    assert answer.fields == prepared.fields(), "Describe must tell the columns that Execute returns"
    for row in answer.rows:
        assert len(row) == len(answer.fields or ())
    return answer


async def rows(node: FakeNode, text: str) -> list[dict[str, object]]:
    answer = await run(node, text)
    assert answer.fields is not None
    return [dict(zip((f.name for f in answer.fields), row, strict=True)) for row in answer.rows]


async def refused(node: FakeNode, text: str, role: Role = Role.ADMIN) -> Fault:
    with pytest.raises(Fault) as caught:
        await run(node, text, role)
    assert caught.value.severity == "ERROR"
    return caught.value
