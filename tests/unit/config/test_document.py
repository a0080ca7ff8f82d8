"""The document of a rollout survives the journey, and nothing else is taken for one."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.config.document import digest, pack, unpack
from node.config.limits import LIMITS
from node.errors import ClientFault


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200), st.text(max_size=200))
def test_what_was_packed_comes_out(config: str, users: str) -> None:
    assert unpack(pack(config, users)) == (config, users)


def test_the_digest_is_of_the_bytes() -> None:
    assert digest(pack("a", "b")) == digest(pack("a", "b"))
    assert digest(pack("a", "b")) != digest(pack("a ", "b"))


def test_a_large_document_is_refused_at_both_ends() -> None:
    with pytest.raises(ClientFault) as packing:
        pack("x" * LIMITS.document_bytes, "")
    assert packing.value.sqlstate == "54000"
    with pytest.raises(ClientFault) as unpacking:
        unpack(b"x" * (LIMITS.document_bytes + 1))
    assert unpacking.value.sqlstate == "54000"


@pytest.mark.parametrize(
    "value",
    [
        [1, "a"],
        [1, "a", "b", "c"],
        [2, "a", "b"],
        ["1", "a", "b"],
        [1, b"a", "b"],
        "x",
        None,
        {"a": 1},
        [1, ["a"], "b"],
    ],
)
def test_another_shape_is_refused(value: object) -> None:
    with pytest.raises(ClientFault) as caught:
        unpack(msgpack.packb(value))
    assert caught.value.sqlstate == "22023"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_garbage_is_a_declared_error(data: bytes) -> None:
    try:
        texts = unpack(data)
    except ClientFault:
        return
    assert unpack(pack(*texts)) == texts
