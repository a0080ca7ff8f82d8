"""Our side of a login, judged by real clients: psycopg (libpq 18), asyncpg, psql, and raw sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from random import Random, SystemRandom
from typing import cast

import asyncpg
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from fakes.certificates import Authority
from fakes.loops import LOOPS, policy

from node.auth.scram import Derived, ScramVerifier, derive
from node.auth.verifier import Account, Authenticator, AuthType
from node.client.entrance import LoginRules
from node.client.listener import Listener, ListenFault, SocketInUse, UnixSocket
from node.client.login import PROVING_MAX, Login, LoginResult, Reception, login_success_messages
from node.embedded.binaries import find_program
from node.errors import ClientFault
from node.tcp import TcpOptions
from node.tls import server_tls
from node.wire import messages
from node.wire.startup import CancelRequest, password_message, ssl_request, startup_message

# Newer versions of pytest-asyncio have a hook for this, but a hook counts for a whole folder.
pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

PARAMETERS = {
    b"server_version": b"18.0",
    b"server_encoding": b"UTF8",
    b"client_encoding": b"UTF8",
    b"standard_conforming_strings": b"on",
    b"integer_datetimes": b"on",
    b"DateStyle": b"ISO, MDY",
    b"TimeZone": b"UTC",
}
UMLAUT = "pässwörd\u00aa"  # SASLprep turns the last character into an a

ACCOUNTS = {
    account.user: account
    for account in (
        Account("scram", passwords=("old secret", UMLAUT)),
        Account("hash", verifier=ScramVerifier.derive("hashed", b"sixteen bytes...")),
        Account("md5", AuthType.MD5, passwords=("old", "secret")),
        Account("plain", AuthType.PLAIN, passwords=("secret",)),
        Account("plainhash", AuthType.PLAIN, verifier=ScramVerifier.derive("hashed", b"sixteen bytes...")),
        Account("trust", AuthType.TRUST),
        Account("cert", identity="cert.example", certificate_required=True),
        Account("through", passthrough=True),
    )
}


class Guest(asyncio.Protocol):
    """Logs a client in, then answers every query with nothing."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._login: Login | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        house = self._house
        opened = cast(asyncio.Transport, transport)
        self._login = Login(self, opened, house.reception, self._done, hold_greeting=house.holds_greetings)

    def _done(self, result: LoginResult) -> None:
        self._login = None
        self._transport = result.transport
        self._house.results.append(result)
        secret = b"s" * (32 if result.accepted.minor >= 2 else 4)
        greeting = result.accepted.greeting if self._house.holds_greetings else b""
        result.transport.write(greeting + login_success_messages(PARAMETERS, 4711, secret))
        if result.accepted.surplus:
            self.data_received(result.accepted.surplus)

    def data_received(self, data: bytes) -> None:
        if self._login is not None:
            self._login.receive(data)
        elif self._transport is not None:
            if data[0] == ord("Q"):
                self._transport.write(messages.command_complete("SELECT 0") + messages.READY_IDLE)
            if data.endswith(messages.TERMINATE):
                self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._login is not None:
            self._login.lost()
        self._house.gone.set()


class House:
    """A listener with everything behind it."""

    def __init__(self, rules: LoginRules) -> None:
        self.results: list[LoginResult] = []
        self.cancels: list[CancelRequest] = []
        self.gone = asyncio.Event()
        self.holds_greetings = False
        self.reception = Reception(
            rules,
            Authenticator(b"secret", SystemRandom().randbytes),
            self._find,
            self._cancel,
            self._check,
        )
        self.listener = Listener(lambda: Guest(self), "127.0.0.1", 0)

    @property
    def port(self) -> int:
        return self.listener.port

    def _find(self, user: str, database: str) -> Account | None:
        account = ACCOUNTS.get(user)
        return replace(account, database_exists=database != "missing") if account else None

    async def _cancel(self, request: CancelRequest) -> None:
        self.cancels.append(request)

    async def _check(self, account: Account, database: str, password: str) -> bool:
        return password == "through"

    def conninfo(self, user: str, password: str | None = None, **more: object) -> str:
        return psycopg.conninfo.make_conninfo(
            host="localhost", hostaddr="127.0.0.1", port=self.port, user=user, dbname="shop", password=password, **more
        )


@pytest.fixture(params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return policy(request.param)


MakeHouse = Callable[[LoginRules], Awaitable[House]]


@pytest.fixture
async def make_house() -> AsyncIterator[MakeHouse]:
    houses: list[House] = []

    async def make(rules: LoginRules) -> House:
        house = House(rules)
        await house.listener.start()
        houses.append(house)
        return house

    yield make
    for house in houses:
        await house.listener.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def pair(authority: Authority) -> tuple[Path, Path]:
    return authority.issue("server")


async def log_in(house: House, user: str, password: str | None, **more: object) -> LoginResult:
    """psycopg logs in, asks something, says goodbye."""
    async with await psycopg.AsyncConnection.connect(house.conninfo(user, password, **more), autocommit=True) as client:
        await client.execute("")
    return house.results[-1]


async def refusal(house: House, user: str, password: str | None, **more: object) -> str:
    with pytest.raises(psycopg.OperationalError) as caught:
        await log_in(house, user, password, **more)
    return str(caught.value)


@pytest.mark.parametrize(
    ("user", "password", "method"),
    [
        ("scram", "old secret", "scram-sha-256"),
        ("scram", UMLAUT, "scram-sha-256"),
        ("hash", "hashed", "scram-sha-256"),
        ("md5", "secret", "md5"),
        ("plain", "secret", "password"),
        ("plainhash", "hashed", "password"),
        ("trust", None, "trust"),
    ],
)
async def test_psycopg_and_asyncpg_log_in(make_house: MakeHouse, user: str, password: str | None, method: str) -> None:
    house = await make_house(LoginRules())
    result = await log_in(house, user, password, application_name="näme", options="-c geqo=off")
    assert result.accepted.method == method
    assert result.accepted.parameters["application_name"] == "näme"
    assert result.accepted.parameters["geqo"] == "off"
    client = await asyncpg.connect(
        host="127.0.0.1", port=house.port, user=user, password=password, database="shop", ssl=False
    )
    await client.close()
    assert house.results[-1].accepted.method == method


async def test_the_greeting_may_be_held_and_sent_with_what_follows(make_house: MakeHouse) -> None:
    house = await make_house(LoginRules())
    house.holds_greetings = True
    for user, password in (("scram", "old secret"), ("md5", "secret"), ("trust", None)):
        assert (await log_in(house, user, password)).accepted.user == user


async def test_psql_logs_in(make_house: MakeHouse) -> None:
    psql = find_program("psql")
    assert psql is not None
    house = await make_house(LoginRules())
    process = await asyncio.create_subprocess_exec(
        psql, house.conninfo("scram", "old secret"), "-Xc", "select 1", stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 0, said
    assert house.results[-1].accepted.parameters["application_name"] == "psql"


@pytest.mark.parametrize("auth_type", [AuthType.SCRAM, AuthType.MD5, AuthType.PLAIN])
async def test_a_wrong_user_reads_like_a_wrong_password(make_house: MakeHouse, auth_type: AuthType) -> None:
    house = await make_house(LoginRules(auth_type))
    user = auth_type.value
    known = await refusal(house, user, "wrong")
    assert f'FATAL:  password authentication failed for user "{user}"' in known
    assert await refusal(house, "nobody", "wrong") == known.replace(f'"{user}"', '"nobody"')


async def test_pbkdf2_runs_once_for_all_who_come_first_and_beside_the_loop(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived: list[tuple[str, bool]] = []

    def counted(password: str, salt: bytes, iterations: int) -> Derived:
        derived.append((password, threading.current_thread() is threading.main_thread()))
        return derive(password, salt, iterations)

    monkeypatch.setattr("node.client.login.derive", counted)
    house = await make_house(LoginRules())
    results = await asyncio.gather(*(log_in(house, "scram", "old secret") for _ in range(20)))
    assert {result.accepted.method for result in results} == {"scram-sha-256"}
    assert sorted(derived) == sorted([("old secret", False), (UMLAUT, False)])
    await log_in(house, "scram", UMLAUT)
    assert len(derived) == 2


async def test_a_password_is_held_against_a_hash_beside_the_loop_and_a_few_at_a_time(
    make_house: MakeHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    running: list[bool] = []
    most = 0

    def held(password: str, salt: bytes, iterations: int) -> Derived:
        nonlocal most
        running.append(threading.current_thread() is threading.main_thread())
        most = max(most, len(running))
        assert go_on.wait(30)
        running.pop()
        return derive(password, salt, iterations)

    house = await make_house(LoginRules())
    await log_in(house, "scram", "old secret")
    monkeypatch.setattr("node.client.login.derive", held)
    right = [asyncio.create_task(log_in(house, "plainhash", "hashed")) for _ in range(3)]
    wrong = [asyncio.create_task(refusal(house, "plainhash", "wrong")) for _ in range(3)]
    async with asyncio.timeout(10):
        while len(running) < PROVING_MAX:
            await asyncio.sleep(0.005)
    assert not any(running)
    for user, password in (("plain", "secret"), ("scram", "old secret"), ("trust", None)):
        assert (await log_in(house, user, password)).accepted.user == user  # nobody waits for them
    go_on.set()
    await asyncio.gather(*right)
    assert all('password authentication failed for user "plainhash"' in said for said in await asyncio.gather(*wrong))
    assert most == PROVING_MAX


async def test_a_missing_database_is_told_after_the_password(make_house: MakeHouse) -> None:
    house = await make_house(LoginRules())
    with pytest.raises(asyncpg.InvalidCatalogNameError, match='database "missing" does not exist'):
        await asyncpg.connect(
            host="127.0.0.1", port=house.port, user="scram", password="old secret", database="missing", ssl=False
        )
    assert "password authentication failed" in await refusal(house, "scram", "wrong")


async def test_channel_binding_over_tls(make_house: MakeHouse, pair: tuple[Path, Path], authority: Authority) -> None:
    house = await make_house(LoginRules(tls=server_tls(*pair), tls_required=True))
    result = await log_in(
        house,
        "scram",
        UMLAUT,
        sslmode="verify-full",
        sslrootcert=str(authority.certificate),
        channel_binding="require",
    )
    assert result.accepted.method == "scram-sha-256-plus"
    assert result.accepted.tls is not None
    assert result.accepted.tls.version == "TLSv1.3"
    without = await log_in(house, "scram", UMLAUT, sslmode="require", channel_binding="disable")
    assert without.accepted.method == "scram-sha-256"
    client = await asyncpg.connect(
        host="127.0.0.1", port=house.port, user="scram", password=UMLAUT, database="shop", ssl="require"
    )
    await client.close()
    assert "only TLS connections are allowed" in await refusal(house, "scram", UMLAUT, sslmode="disable")


async def test_direct_tls(make_house: MakeHouse, pair: tuple[Path, Path]) -> None:
    if psycopg.pq.version() < 170000:
        pytest.skip("this libpq knows no direct TLS")
    house = await make_house(LoginRules(tls=server_tls(*pair)))
    result = await log_in(house, "scram", UMLAUT, sslmode="require", sslnegotiation="direct", channel_binding="require")
    assert result.accepted.tls is not None
    assert result.accepted.tls.alpn == "postgresql"


async def test_a_certificate_that_cannot_be_bound_still_encrypts(make_house: MakeHouse, authority: Authority) -> None:
    files = authority.issue("ed25519", key=ed25519.Ed25519PrivateKey.generate())
    house = await make_house(LoginRules(tls=server_tls(*files)))
    result = await log_in(house, "scram", UMLAUT, sslmode="require", channel_binding="disable")
    assert result.accepted.method == "scram-sha-256"


async def test_client_certificates(make_house: MakeHouse, pair: tuple[Path, Path], authority: Authority) -> None:
    house = await make_house(LoginRules(tls=server_tls(*pair, authority.certificate)))
    certificate, key = authority.issue("cert.example", names=())
    shown = {"sslmode": "require", "sslcert": str(certificate), "sslkey": str(key)}
    assert (await log_in(house, "cert", None, **shown)).accepted.method == "certificate"
    needed = "connection requires a valid client certificate"
    assert needed in await refusal(house, "cert", None, sslmode="require", sslcert="/nonexistent")
    assert needed in await refusal(house, "nobody", None, sslmode="require", sslcert="/nonexistent")
    stranger, stranger_key = authority.issue("other.example", names=())
    shown = {"sslmode": "require", "sslcert": str(stranger), "sslkey": str(stranger_key)}
    assert "certificate authentication failed" in await refusal(house, "cert", None, **shown)


async def test_passthrough(make_house: MakeHouse) -> None:
    house = await make_house(LoginRules(passthrough_without_tls=True))
    assert (await log_in(house, "through", "through")).accepted.password == "through"
    assert "password authentication failed" in await refusal(house, "through", "wrong")


async def test_protocol_3_2_has_long_keys_and_cancels_with_them(make_house: MakeHouse) -> None:
    if psycopg.pq.version() < 180000:
        pytest.skip("this libpq speaks 3.0 only")
    house = await make_house(LoginRules())
    client = await psycopg.AsyncConnection.connect(house.conninfo("trust", max_protocol_version="3.2"))
    async with client:
        assert house.results[-1].accepted.minor == 2
        await client.cancel_safe(timeout=10)
    assert house.cancels == [CancelRequest(4711, b"s" * 32)]


# --- raw sockets -----------------------------------------------------------------------------------------------


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(20):
        return await reader.read(-1)


async def test_half_a_startup_packet_and_silence_end_in_a_timeout(make_house: MakeHouse) -> None:
    house = await make_house(LoginRules(timeout_s=0.05))
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(startup_message([(b"user", b"trust")])[:7])
    fields = messages.parse_error((await read_to_end(reader))[5:])
    assert (fields["S"], fields["C"], fields["M"]) == ("FATAL", "28000", "client login timeout")
    writer.close()


async def test_silence_during_the_tls_handshake_ends_too(make_house: MakeHouse, pair: tuple[Path, Path]) -> None:
    house = await make_house(LoginRules(timeout_s=0.05, tls=server_tls(*pair)))
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(ssl_request())
    assert await reader.readexactly(1) == b"S"
    try:
        assert await read_to_end(reader) == b""  # plain text here would be rubbish to a TLS client
    except ConnectionResetError:
        pass
    writer.close()
    async with asyncio.timeout(20):
        await house.gone.wait()


async def test_rubbish_instead_of_a_tls_handshake_closes_the_connection(
    make_house: MakeHouse, pair: tuple[Path, Path]
) -> None:
    house = await make_house(LoginRules(timeout_s=0.2, tls=server_tls(*pair)))
    for hello in (b"\x16\3\1\0\5rubbish that is no hello", b"\x16\3\1\0\1\xff"):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(hello)
        try:
            assert not (await read_to_end(reader)).startswith((b"E", b"R"))
        except ConnectionResetError:
            pass
        writer.close()
    assert house.results == []


async def test_plain_text_slipped_in_front_of_the_handshake_is_refused(
    make_house: MakeHouse, pair: tuple[Path, Path]
) -> None:
    house = await make_house(LoginRules(tls=server_tls(*pair)))
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(ssl_request() + startup_message([(b"user", b"trust")]))
    fields = messages.parse_error((await read_to_end(reader))[5:])
    assert (fields["C"], fields["M"]) == ("08P01", "received unencrypted data after SSL request")
    writer.close()


async def test_what_is_pipelined_behind_the_password_is_not_lost(make_house: MakeHouse) -> None:
    house = await make_house(LoginRules(passthrough_without_tls=True))
    for user, password in ((b"plain", b"secret"), (b"through", b"through")):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(
            startup_message([(b"user", user)]) + password_message(password) + messages.query("x") + b"X\0\0\0\4"
        )
        said = await read_to_end(reader)
        assert said.count(messages.command_complete("SELECT 0")) == 1
        writer.close()


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(make_house: MakeHouse) -> None:
    house = await make_house(LoginRules())
    _, writer = await asyncio.open_connection("127.0.0.1", house.port)
    writer.write(startup_message([(b"user", b"scram")]))
    await writer.drain()
    writer.transport.abort()
    async with asyncio.timeout(20):
        await house.gone.wait()
    assert house.results == []


async def test_a_login_can_be_refused_from_outside(make_house: MakeHouse) -> None:
    house = await make_house(LoginRules())
    refused: list[Login] = []

    class Full(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            login = Login(self, cast(asyncio.Transport, transport), house.reception, lambda _: None)
            login.refuse(ClientFault("sorry, too many clients already", sqlstate="53300", severity="FATAL"))
            refused.append(login)

    listener = Listener(Full, "127.0.0.1", 0)
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    assert messages.parse_error((await read_to_end(reader))[5:])["C"] == "53300"
    writer.close()
    await listener.close()
    assert len(refused) == 1


class HangUp(asyncio.Protocol):
    """Closes whoever comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


# --- listening -------------------------------------------------------------------------------------------------


async def test_every_address_of_a_list_is_listened_on_with_one_picked_port() -> None:
    listener = Listener(HangUp, "127.0.0.1, 127.0.0.2", 0)
    await listener.start()
    assert listener.port > 0
    for host in ("127.0.0.1", "127.0.0.2"):
        reader, writer = await asyncio.open_connection(host, listener.port)
        assert await read_to_end(reader) == b""
        writer.close()
    listener.stop_accepting()
    await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", listener.port)


async def test_a_port_is_shared_only_when_asked_for() -> None:
    first = Listener(HangUp, "127.0.0.1", 0, share_port=True)
    await first.start()
    second = Listener(HangUp, "127.0.0.1", first.port, share_port=True)
    await second.start()
    with pytest.raises(ListenFault, match=rf"could not listen on 127\.0\.0\.1:{first.port}: Address already in use"):
        await Listener(HangUp, "127.0.0.1", first.port).start()
    await first.close()
    await second.close()


async def test_a_name_that_does_not_exist_is_a_clear_error() -> None:
    with pytest.raises(ListenFault, match='could not translate host name "no.such.name.invalid"'):
        await Listener(HangUp, "no.such.name.invalid", 0).start()


async def test_accepted_connections_inherit_the_tcp_options() -> None:
    accepted: list[int] = []

    class Look(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            found = transport.get_extra_info("socket")
            accepted.append(found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            accepted.append(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL))
            accepted.append(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            if isinstance(found, socket.socket):  # a second descriptor; asyncio's look like sockets and are none
                found.close()
            transport.close()

    listener = Listener(Look, "127.0.0.1", 0, tcp=TcpOptions(time_s=7, interval_s=3, retries=2, user_timeout_ms=9000))
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    await read_to_end(reader)
    writer.close()
    await listener.close()
    assert accepted == [1, 3, 1]


async def test_a_unix_socket_is_named_like_postgresqls_and_removed_at_the_end(tmp_path: Path) -> None:
    house = House(LoginRules(tls_required=True))
    listener = Listener(lambda: Guest(house), "127.0.0.1", 0, unix_socket_dir=tmp_path)
    await listener.start()
    path = tmp_path / f".s.PGSQL.{listener.port}"
    assert listener.unix_path == path
    conninfo = psycopg.conninfo.make_conninfo(host=str(tmp_path), port=listener.port, user="scram", password=UMLAUT)
    async with await psycopg.AsyncConnection.connect(conninfo):
        assert house.results[-1].accepted.user == "scram"
    await listener.close()
    assert os.listdir(tmp_path) == []


async def test_a_stale_unix_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    stale = socket.socket(socket.AF_UNIX)
    first = Listener(HangUp, "127.0.0.1", 0, unix_socket_dir=tmp_path, share_port=True)
    await first.start()
    path = first.unix_path
    assert path is not None
    with pytest.raises(SocketInUse, match="process [0-9]+ does"):
        UnixSocket.bind(path, 0o777)
    second = Listener(HangUp, "127.0.0.1", first.port, unix_socket_dir=tmp_path, share_port=True)
    await second.start()
    assert second.unix_path is None
    await second.close()
    await first.close()

    stale.bind(str(path))
    stale.close()  # as kill -9 leaves it: a name with nobody behind
    third = Listener(HangUp, "127.0.0.1", first.port, unix_socket_dir=tmp_path, share_port=True)
    await third.start()
    reader, writer = await asyncio.open_unix_connection(str(path))
    assert await read_to_end(reader) == b""
    writer.close()
    await third.close()
    with socket.socket(socket.AF_UNIX) as foreign:  # somebody without our lock, like a PostgreSQL server
        foreign.bind(str(path))
        foreign.listen()
        with pytest.raises(SocketInUse):
            UnixSocket.bind(path, 0o777)
    path.unlink()
    path.write_text("not a socket")
    with pytest.raises(ListenFault, match="a file that is no socket is in the way"):
        UnixSocket.bind(path, 0o777)


async def test_mutated_first_bytes_never_hang_and_never_break_the_listener(
    make_house: MakeHouse, pair: tuple[Path, Path]
) -> None:
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed={seed}")
    random = Random(seed)
    house = await make_house(LoginRules(timeout_s=0.2, tls=server_tls(*pair)))
    packets = (
        ssl_request(),
        startup_message([(b"user", b"plain")]),
        b"\x16\3\1\0\x80",
        struct.pack("!II", 16, 80877102),
    )

    async def one() -> None:
        data = bytearray(random.choice(packets) + random.choice(packets))
        data[random.randrange(len(data))] = random.randrange(256)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(bytes(data))
        try:
            await read_to_end(reader)
        except ConnectionResetError:
            pass
        writer.close()

    for _ in range(10):
        await asyncio.gather(*(one() for _ in range(20)))
    assert (await log_in(house, "trust", None, sslmode="require")).accepted.user == "trust"
