"""The control channel over real sockets: services by name, identities, strangers, limits."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from sync import control as control_module
from sync.control import ASK, FRAME_LIMIT_BYTES, PAYLOAD_LIMIT_BYTES, PROTOCOL, ControlChannel
from sync.identity import Identity, proven_name
from sync.packing import pack
from sync.ports import ControlUnreachable
from sync.version import DOCUMENT_LIMIT_BYTES

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
LOOPBACK = "127.0.0.1"


class Nodes:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[ControlChannel] = []

    async def add(self, name: str, *keys: bytes, flock: str = "default") -> tuple[ControlChannel, str]:
        identity = Identity(name, keys, flock, self.folder / name) if keys else None
        channel = ControlChannel(name, flock=flock, identity=identity)
        self.made.append(channel)
        return channel, f"{LOOPBACK}:{await channel.start(LOOPBACK, 0)}"

    async def pair(self, *keys: bytes) -> tuple[ControlChannel, ControlChannel, str]:
        a, _ = await self.add("a", *keys)
        b, address = await self.add("b", *keys)
        b.handle("echo", echo)
        return a, b, address


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    made = Nodes(tmp_path)
    yield made
    for channel in made.made:
        await channel.stop()


async def echo(sender: str, payload: bytes) -> bytes:
    return sender.encode() + b": " + payload


@pytest.mark.parametrize("keys", [(), (KEY,)], ids=["plain", "tls"])
async def test_a_service_hears_who_asks_and_answers(nodes: Nodes, keys: tuple[bytes, ...]) -> None:
    a, _, address = await nodes.pair(*keys)
    assert await a.request(address, "echo", b"hello", 5.0, node="b") == b"a: hello"


async def test_many_questions_share_one_connection_and_none_waits_for_another(nodes: Nodes) -> None:
    a, b, address = await nodes.pair(KEY)
    gate = asyncio.Event()

    async def slow(sender: str, payload: bytes) -> bytes:
        await gate.wait()
        return b"late"

    b.handle("slow", slow)
    late = asyncio.create_task(a.request(address, "slow", b"", 5.0))
    answers = await asyncio.gather(*(a.request(address, "echo", b"%d" % n, 5.0) for n in range(50)))
    assert answers == [b"a: %d" % n for n in range(50)]
    assert len(b._accepted) == 1
    gate.set()
    assert await late == b"late"


async def test_a_document_of_the_greatest_size_passes(nodes: Nodes) -> None:
    a, b, address = await nodes.pair(KEY)
    document = bytes(DOCUMENT_LIMIT_BYTES)

    async def answer(sender: str, payload: bytes) -> bytes:
        return document

    b.handle("document", answer)
    assert await a.request(address, "document", b"", 10.0) == document


async def test_failures_of_a_handler_reach_the_asker_as_text(nodes: Nodes) -> None:
    a, b, address = await nodes.pair()

    async def broken(sender: str, payload: bytes) -> bytes:
        raise ValueError("no such thing")

    b.handle("broken", broken)
    with pytest.raises(ControlUnreachable, match="ValueError: no such thing"):
        await a.request(address, "broken", b"", 5.0)
    with pytest.raises(ControlUnreachable, match="no service nothing"):
        await a.request(address, "nothing", b"", 5.0)
    assert await a.request(address, "echo", b"still here", 5.0) == b"a: still here"
    with pytest.raises(ValueError, match="has a handler already"):
        b.handle("broken", broken)


async def test_a_closed_port_is_known_at_once_and_told_apart_from_silence(nodes: Nodes) -> None:
    a, b, address = await nodes.pair()

    async def never(sender: str, payload: bytes) -> bytes:
        await asyncio.Event().wait()
        return b""

    b.handle("never", never)
    with pytest.raises(ControlUnreachable, match="no answer") as silent:
        await a.request(address, "never", b"", 0.05)
    assert silent.value.refused is False
    await b.stop()
    with pytest.raises(OSError):  # noqa: PT011 - any broken peer is one to discovery; the old connection may be ending
        await a.request(address, "echo", b"", 5.0)
    with pytest.raises(ControlUnreachable, match="refused") as refused:
        await a.request(address, "echo", b"", 5.0)
    assert refused.value.refused is True


async def test_a_node_that_came_back_on_its_port_is_reached_again(nodes: Nodes) -> None:
    a, b, address = await nodes.pair()
    await a.request(address, "echo", b"", 5.0)
    await b.stop()
    reborn = ControlChannel("b")
    nodes.made.append(reborn)
    reborn.handle("echo", echo)
    await reborn.start(LOOPBACK, int(address.rpartition(":")[2]))
    async with asyncio.timeout(5):
        while True:
            try:
                assert await a.request(address, "echo", b"x", 5.0) == b"a: x"
                break
            except ControlUnreachable:
                continue


async def test_a_question_for_another_node_is_not_asked(nodes: Nodes) -> None:
    a, _, address = await nodes.pair(KEY)
    with pytest.raises(ControlUnreachable, match='node "b" answers at .*, not "c"'):
        await a.request(address, "echo", b"", 5.0, node="c")


async def test_questions_over_the_limit_and_bad_addresses_are_not_sent(nodes: Nodes) -> None:
    a, _, address = await nodes.pair()
    with pytest.raises(ControlUnreachable, match="over the limit"):
        await a.request(address, "echo", bytes(PAYLOAD_LIMIT_BYTES + 1), 5.0)
    with pytest.raises(ControlUnreachable, match="host:port"):
        await a.request("nowhere", "echo", b"", 5.0)


async def test_strangers_without_the_key_get_nothing(nodes: Nodes) -> None:
    _, _, address = await nodes.pair(KEY)
    stranger, _ = await nodes.add("s", OTHER_KEY)
    with pytest.raises(ControlUnreachable):
        await stranger.request(address, "echo", b"", 5.0)
    keyless, _ = await nodes.add("k")
    with pytest.raises(ControlUnreachable):
        await keyless.request(address, "echo", b"", 5.0)
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname = False
    anonymous.verify_mode = ssl.CERT_NONE
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=anonymous)
    with pytest.raises((OSError, EOFError)):  # TLS 1.3 tells a client without a certificate only when it reads
        await reader.readexactly(1)
    writer.close()


async def test_keys_rotate_the_first_issues_and_all_are_trusted(nodes: Nodes) -> None:
    a, _ = await nodes.add("a", OTHER_KEY, KEY)
    b, address = await nodes.add("b", KEY, OTHER_KEY)
    b.handle("echo", echo)
    assert await a.request(address, "echo", b"x", 5.0) == b"a: x"


async def test_a_certificate_for_another_name_is_rejected(nodes: Nodes) -> None:
    a, _, address = await nodes.pair(KEY)
    a.node = "b2"  # says one name, proves another
    with pytest.raises(ControlUnreachable):
        await a.request(address, "echo", b"", 5.0)


async def test_another_flock_is_another_world(nodes: Nodes) -> None:
    _, _, address = await nodes.pair()
    other, _ = await nodes.add("x", flock="staging")
    with pytest.raises(ControlUnreachable, match="another flock"):
        await other.request(address, "echo", b"", 5.0)
    _, _, secret = await nodes.pair(KEY)
    sealed, _ = await nodes.add("y", KEY, flock="staging")
    with pytest.raises(ControlUnreachable):
        await sealed.request(secret, "echo", b"", 5.0)


async def test_without_a_key_only_loopback_speaks(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    a, _, address = await nodes.pair()
    monkeypatch.setattr(control_module, "_is_loopback", lambda writer: False)
    with pytest.raises(ControlUnreachable):
        await a.request(address, "echo", b"", 5.0)


class _Writer:
    def __init__(self, peer: Any) -> None:
        self.peer = peer

    def get_extra_info(self, name: str) -> Any:
        return self.peer


@pytest.mark.parametrize(
    ("peer", "loopback"),
    [
        (("127.0.0.1", 1), True),
        (("127.9.9.9", 1), True),
        (("::1", 1, 0, 0), True),
        (("10.0.0.1", 1), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        (None, False),
        (("", 0), False),
        ((), False),
    ],
)
def test_loopback_is_told_from_the_peers_address(peer: Any, loopback: bool) -> None:
    assert control_module._is_loopback(_Writer(peer)) is loopback  # type: ignore[arg-type]


HELLO = [PROTOCOL, "pgmurmur", "default", "stranger"]


def framed(values: Any) -> bytes:
    data = pack(values)
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        framed("text"),
        framed([PROTOCOL]),
        framed([PROTOCOL + 1, "pgmurmur", "default", "x"]),
        framed([PROTOCOL, "something", "default", "x"]),
        framed([PROTOCOL, "pgmurmur", "default", "x" * 200]),
        framed([PROTOCOL, "pgmurmur", "staging", "x"]),
        framed(HELLO) + framed([ASK, "1", "echo", b""]),
        framed(HELLO) + framed([ASK, 1, "echo"]),
        framed(HELLO) + framed([ASK, 1, b"echo", b""]),
        framed(HELLO) + framed([7, 1, "echo", b""]),
        framed(HELLO) + (FRAME_LIMIT_BYTES).to_bytes(4, "big"),
    ],
)
async def test_whoever_talks_nonsense_is_hung_up_on(nodes: Nodes, data: bytes) -> None:
    _, b, address = await nodes.pair()
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    async with asyncio.timeout(5):
        await reader.read()  # the hello, perhaps, and then the end
        while b._accepted:
            await asyncio.sleep(0.001)
    writer.close()
    await writer.wait_closed()


async def test_who_says_nothing_is_hung_up_on(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "HELLO_TIMEOUT_S", 0.05)
    _, _, address = await nodes.pair()
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(5):
        await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_connections_over_the_limit_are_closed(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "CONNECTIONS_LIMIT", 0)
    a, _, address = await nodes.pair()
    with pytest.raises(ControlUnreachable):
        await a.request(address, "echo", b"", 5.0)


@pytest.mark.parametrize("answer", [[1, 1, True], [0, 1, True, b""], ["1", 1, True, b""], [1, "1", True, b""]])
async def test_a_peer_that_answers_nonsense_is_dropped(nodes: Nodes, answer: list[Any]) -> None:
    a, _ = await nodes.add("a")

    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(framed([PROTOCOL, "pgmurmur", "default", "b"]))
        await reader.read(10)
        writer.write(framed([1, 99, True, b"to nobody"]) + framed(answer))
        await reader.read()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(nonsense, LOOPBACK, 0)
    address = f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(ControlUnreachable):
        await a.request(address, "echo", b"", 5.0)
    await a.stop()
    server.close()
    await server.wait_closed()


async def test_the_channel_takes_a_bound_socket(nodes: Nodes) -> None:
    """Discovery binds UDP and TCP to one number; the TCP half is handed over here."""
    a, _ = await nodes.add("a")
    sock = socket.socket()
    sock.bind((LOOPBACK, 0))
    channel = ControlChannel("b")
    nodes.made.append(channel)
    channel.handle("echo", echo)
    port = await channel.start("", 0, sock=sock)
    assert port == sock.getsockname()[1]
    assert await a.request(f"{LOOPBACK}:{port}", "echo", b"x", 5.0) == b"a: x"


def test_private_keys_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    Identity("a", [KEY], "default", tmp_path)
    assert (tmp_path / "control.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keys", [[], [b"short"]])
def test_keys_have_32_bytes(tmp_path: Path, keys: list[bytes]) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Identity("a", keys, "default", tmp_path)


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        (None, None),
        ({}, None),
        ({"subjectAltName": (("DNS", "a"), ("URI", "https://a"))}, None),
        ({"subjectAltName": (("URI", "pgmurmur:zz"),)}, None),
        ({"subjectAltName": (("URI", "pgmurmur:" + "nœud 1".encode().hex()),)}, "nœud 1"),
    ],
)
def test_the_proven_name_comes_from_the_certificate(peer: Any, name: str | None) -> None:
    assert proven_name(peer) == name
