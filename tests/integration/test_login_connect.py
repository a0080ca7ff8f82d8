"""Our side as a client: real PostgreSQL servers by every password method, and servers that misbehave."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random, SystemRandom

import pytest
from fakes.certificates import Authority
from fakes.loops import LOOPS, policy

from node.auth.scram import KeyCache
from node.embedded.binaries import NoPostgres, find_binaries
from node.embedded.server import Server
from node.embedded.workspace import Workspace, free_port
from node.errors import ServerFault
from node.server.cancel import cancel
from node.server.connect import Connected, Target, Wire, connect
from node.server.simple import SimpleClient
from node.tls import TlsFault, TlsVerify, client_tls, server_tls
from node.wire import messages
from node.wire.startup import (
    AUTHENTICATION_OK,
    Authentication,
    authentication,
    authentication_sasl,
    ssl_request,
)

pytestmark = pytest.mark.filterwarnings('ignore:Overriding the "event_loop_policy" fixture')

TIMEOUT_S = 20.0
UMLAUT = "pässwörd\u00aa"
HBA = """
local all all scram-sha-256
{tls}
host all by_md5 all md5
host all by_plain all password
host all by_trust all trust
host all all all scram-sha-256
"""
ROLES = {"by_scram": UMLAUT, "by_md5": "secret", "by_plain": "secret", "by_trust": None, "in_tls": "secret"}


@pytest.fixture(params=LOOPS)
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return policy(request.param)


def prepared(workspace: Workspace, name: str, *, folder: Path | None, tls: tuple[Path, Path] | None) -> Server:
    """A server with a role for every method."""
    hba = workspace.path / f"{name}.hba"
    hba.write_text(HBA.format(tls="hostnossl all in_tls all reject" if tls else ""))
    hba.chmod(0o644)
    server = Server(workspace, name, binaries=find_binaries(folder), tls=tls, settings={"hba_file": f"'{hba}'"}).start()
    for role, password in ROLES.items():
        encryption = "md5" if role == "by_md5" else "scram-sha-256"
        clause = f"PASSWORD '{password}'" if password else ""
        server.sql(f"SET password_encryption = '{encryption}'; CREATE ROLE {role} LOGIN {clause};")
    server.sql("CREATE ROLE limited LOGIN PASSWORD 'secret' CONNECTION LIMIT 0;")
    return server


@pytest.fixture(scope="module")
def server(workspace: Workspace) -> Iterator[Server]:
    made = prepared(workspace, "login", folder=None, tls=None)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def tls_server(workspace: Workspace, authority: Authority) -> Iterator[Server]:
    """The wheel has no OpenSSL: a PostgreSQL of this machine, if there is one."""
    for found in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        try:
            made = prepared(workspace, "login_tls", folder=found, tls=authority.issue("postgres", names=["localhost"]))
        except NoPostgres:
            continue
        yield made
        made.stop()
        return
    pytest.skip("no PostgreSQL with TLS on this machine")


def target(server: Server, user: str = "by_scram", *passwords: str, **more: object) -> Target:
    known = ROLES.get(user)
    given = passwords or ((known,) if known else ())
    chosen = {"host": server.host, "port": server.port, "database": "postgres", "user": user, "passwords": given}
    return Target(**{**chosen, **more})  # type: ignore[arg-type]


async def look(at: Target, sql: str) -> str | None:
    client = await SimpleClient.connect(at, timeout_s=TIMEOUT_S)
    try:
        return await client.value(sql, timeout_s=TIMEOUT_S)
    finally:
        client.close()


async def fault_of(attempt: Awaitable[object]) -> ServerFault:
    with pytest.raises(ServerFault) as caught:
        await attempt
    return caught.value


# --- PostgreSQL ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["by_scram", "by_md5", "by_plain", "by_trust"])
async def test_every_password_method_leads_to_ready_for_query(server: Server, user: str) -> None:
    assert await look(target(server, user), "SELECT current_user") == user


async def test_a_unix_socket_is_a_host_that_starts_with_a_slash(server: Server) -> None:
    at = target(server, host=str(server.socket_folder))
    assert await look(at, "SELECT inet_server_addr() IS NULL") == "t"


@pytest.mark.parametrize("minor", [0, 2])
async def test_what_the_server_says_about_itself_is_collected(server: Server, minor: int) -> None:
    client = await SimpleClient.connect(
        target(server, application_name="pgmurmur/node/1", minor=minor), timeout_s=TIMEOUT_S
    )
    connected = client.connected
    pid = await client.value("SELECT pg_backend_pid()", timeout_s=TIMEOUT_S)
    client.close()
    assert connected.parameters["server_version"].startswith(f"{server.binaries.major}.")
    assert connected.parameters["application_name"] == "pgmurmur/node/1"
    assert str(connected.pid) == pid
    spoken = minor if server.binaries.major >= 18 else 0  # older ones answer that they know 3.0 only
    assert connected.minor == spoken
    assert len(connected.secret) == (32 if spoken else 4)
    assert (connected.tls, connected.password_index) == (False, 0)


async def test_session_settings_travel_in_the_startup_packet(server: Server) -> None:
    at = target(
        server,
        statement_timeout_ms=1234,
        lock_timeout_ms=567,
        read_only=True,
        parameters=(("search_path", '"a b", c'),),
    )
    expected = {
        "statement_timeout": "1234ms",
        "lock_timeout": "567ms",
        "default_transaction_read_only": "on",
        "search_path": '"a b", c',
        "application_name": "pgmurmur",
    }
    for name, value in expected.items():
        assert await look(at, f"SELECT current_setting('{name}')") == value


async def test_several_passwords_are_tried_in_order_and_no_more_often_than_needed(server: Server) -> None:
    client = await SimpleClient.connect(target(server, "by_md5", "old", "secret", "never"), timeout_s=TIMEOUT_S)
    assert client.connected.password_index == 1
    client.close()


@pytest.mark.parametrize(
    ("user", "passwords", "more", "sqlstate", "text"),
    [
        ("by_scram", ("wrong",), {}, "28P01", 'password authentication failed for user "by_scram"'),
        ("by_md5", ("wrong", "wrong too"), {}, "28P01", 'password authentication failed for user "by_md5"'),
        ("nobody", ("x",), {}, "28P01", 'password authentication failed for user "nobody"'),
        ("by_scram", (), {"passwords": ()}, "28000", "asks for a password, but none is configured"),
        ("by_trust", (), {"database": "nowhere"}, "3D000", 'database "nowhere" does not exist'),
        ("limited", ("secret",), {}, "53300", 'too many connections for role "limited"'),
        ("by_trust", (), {"parameters": (("no_such_thing", "1"),)}, "42704", "unrecognized configuration parameter"),
        ("by_trust", (), {"parameters": (("a", "b\0c\0d"),)}, "08P01", "contains a zero byte"),
    ],
)
async def test_the_servers_refusal_arrives_with_its_own_sqlstate_and_text(
    server: Server, user: str, passwords: tuple[str, ...], more: dict[str, object], sqlstate: str, text: str
) -> None:
    fault = await fault_of(look(target(server, user, *passwords, **more), "SELECT 1"))
    assert fault.sqlstate == sqlstate
    assert text in fault.message
    assert fault.severity == "FATAL"


async def test_keys_are_derived_once_per_server_salt(server: Server) -> None:
    cache = KeyCache()
    for _ in range(3):
        (await SimpleClient.connect(target(server), timeout_s=TIMEOUT_S, cache=cache)).close()
    assert len(cache) == 1


# --- the simple client -----------------------------------------------------------------------------------------


@asynccontextmanager
async def simple(server: Server) -> AsyncIterator[SimpleClient]:
    client = await SimpleClient.connect(target(server, "by_trust"), timeout_s=TIMEOUT_S)
    yield client
    client.close()


async def test_results_come_per_statement_with_columns_rows_and_tag(server: Server) -> None:
    async with simple(server) as client:
        first, second, third = await client.query(
            "SELECT 1 AS one, NULL AS two; BEGIN; SELECT generate_series(1, 3)", timeout_s=TIMEOUT_S
        )
        assert [column.name for column in first.columns] == [b"one", b"two"]
        assert first.rows == [[b"1", None]]
        assert (second.columns, second.tag) == ([], "BEGIN")
        assert (third.rows, third.tag) == ([[b"1"], [b"2"], [b"3"]], "SELECT 3")
        assert client.status == "T"
        assert (await client.query("", timeout_s=TIMEOUT_S))[0].tag == ""


async def test_an_sql_error_leaves_the_connection_usable_and_notices_are_kept(server: Server) -> None:
    async with simple(server) as client:
        fault = await fault_of(client.query("SELECT * FROM no_such_table", timeout_s=TIMEOUT_S))
        assert (fault.sqlstate, fault.message) == ("42P01", 'relation "no_such_table" does not exist')
        assert fault.position == 15
        await client.query("DO $$BEGIN RAISE NOTICE 'hear, hear'; END$$", timeout_s=TIMEOUT_S)
        assert [notice["M"] for notice in client.notices] == ["hear, hear"]
        assert (await fault_of(client.query("COPY pg_class FROM STDIN", timeout_s=TIMEOUT_S))).sqlstate in (
            "42501", "57014",
        )  # fmt: skip
        assert await client.value("SELECT 'still here'", timeout_s=TIMEOUT_S) == "still here"
        await client.query("COPY (SELECT 1) TO STDOUT", timeout_s=TIMEOUT_S)
        await fault_of(client.query("SELECT '\0'", timeout_s=TIMEOUT_S))
        assert not client.closed


async def test_a_result_over_its_limit_or_its_time_closes_the_connection(server: Server) -> None:
    async with simple(server) as client:
        wide = client.query("SELECT repeat('x', 1000) FROM generate_series(1, 50)", timeout_s=9, limit_bytes=10_000)
        assert (await fault_of(wide)).sqlstate == "53400"
        assert client.closed
        assert (await fault_of(client.query("SELECT 1", timeout_s=TIMEOUT_S))).sqlstate == "08006"
    async with simple(server) as client:
        fault = await fault_of(client.query("SELECT pg_sleep(60)", timeout_s=0.05))
        assert (fault.sqlstate, client.closed) == ("08006", True)


async def test_a_terminated_backend_is_the_servers_own_error(server: Server) -> None:
    async with simple(server) as client:
        fault = await fault_of(client.query("SELECT pg_terminate_backend(pg_backend_pid())", timeout_s=TIMEOUT_S))
        assert (fault.sqlstate, client.closed) == ("57P01", True)


async def test_one_query_at_a_time(server: Server) -> None:
    async with simple(server) as client:
        running = asyncio.ensure_future(client.query("SELECT 1", timeout_s=TIMEOUT_S))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one query at a time"):
            await client.query("SELECT 2", timeout_s=TIMEOUT_S)
        await running


# --- cancel ----------------------------------------------------------------------------------------------------


async def cancel_a_sleeper(at: Target) -> ServerFault:
    client = await SimpleClient.connect(at, timeout_s=TIMEOUT_S)
    sleeper = asyncio.ensure_future(client.query("SELECT pg_sleep(60)", timeout_s=TIMEOUT_S))
    connected = client.connected
    while not sleeper.done():  # the request may overtake the query, then it hits nothing
        await cancel(at, connected.pid, connected.secret, tls=connected.tls, timeout_s=TIMEOUT_S)
    fault = await fault_of(sleeper)
    assert not client.closed
    client.close()
    return fault


@pytest.mark.parametrize("minor", [0, 2])
async def test_a_cancel_request_ends_the_query_and_not_the_connection(server: Server, minor: int) -> None:
    assert (await cancel_a_sleeper(target(server, "by_trust", minor=minor))).sqlstate == "57014"


# --- TLS -------------------------------------------------------------------------------------------------------


async def test_tls_with_channel_binding_and_verification(
    tls_server: Server, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = client_tls(TlsVerify.VERIFY_FULL, ca=authority.certificate)
    at = target(tls_server, "in_tls", tls=tls, host="localhost")  # perhaps ::1 first, where nobody listens
    assert await look(at, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"
    assert (await cancel_a_sleeper(at)).sqlstate == "57014"
    assert (await fault_of(look(target(tls_server, "in_tls"), "SELECT 1"))).sqlstate == "28000"
    monkeypatch.setattr("node.server.connect.end_point_hash", lambda _: b"hash of somebody else's certificate")
    fault = await fault_of(look(at, "SELECT 1"))
    assert (fault.sqlstate, fault.message) == ("28000", "SCRAM channel binding check failed")


async def test_a_certificate_for_another_host_or_of_another_ca_is_refused(
    tls_server: Server, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "Stranger").certificate
    for verify, ca, fits in (
        (TlsVerify.PREFER, None, True),
        (TlsVerify.VERIFY_CA, authority.certificate, True),
        (TlsVerify.VERIFY_CA, stranger, False),
        (TlsVerify.VERIFY_FULL, authority.certificate, False),  # issued for localhost
    ):
        at = target(tls_server, "in_tls", tls=client_tls(verify, ca=ca))
        if fits:
            assert await look(at, "SELECT current_user") == "in_tls"
        else:
            fault = await fault_of(look(at, "SELECT 1"))
            assert (fault.sqlstate, "its certificate cannot be trusted" in fault.message) == ("08001", True)


async def test_a_server_without_tls_is_refused_or_taken_as_told(server: Server) -> None:
    assert await look(target(server, tls=client_tls(TlsVerify.PREFER)), "SELECT 1") == "1"
    fault = await fault_of(look(target(server, tls=client_tls(TlsVerify.VERIFY_CA)), "SELECT 1"))
    assert (fault.sqlstate, "the server has no TLS" in fault.message) == ("08001", True)
    fault = await fault_of(cancel(target(server, tls=client_tls(TlsVerify.PREFER)), 1, b"1234", tls=True, timeout_s=9))
    assert "cancel key is not sent in clear text" in fault.message


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("one")
    _, other_key = authority.issue("two")
    rubbish = tmp_path / "rubbish"
    rubbish.write_text("no certificate")
    missing = tmp_path / "missing"
    for attempt, text in (
        (lambda: server_tls(missing, key), f"tls_certificate: could not read {missing}: No such file"),
        (lambda: server_tls(certificate, missing), f"tls_private_key: could not read {missing}: No such file"),
        (lambda: server_tls(certificate, other_key), f"tls_private_key: {other_key} does not belong to"),
        (lambda: server_tls(rubbish, key), f"tls_certificate: could not load {rubbish}"),
        (lambda: server_tls(certificate, key, rubbish), f"tls_client_ca_certificate: could not load {rubbish}"),
        (lambda: client_tls(TlsVerify.VERIFY_CA, ca=missing), "tls_server_ca_certificate: could not read"),
        (lambda: client_tls(TlsVerify.PREFER, private_key=key), "tls_server_private_key needs tls_server_certificate"),
    ):
        with pytest.raises(TlsFault) as caught:
            attempt()
        assert text in str(caught.value)
    assert client_tls(TlsVerify.DISABLED) is None


# --- servers that misbehave ------------------------------------------------------------------------------------

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def fake(script: Script) -> AsyncIterator[Target]:
    """A server that follows a script and then waits for the client to go."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
            await writer.drain()
            await reader.read(-1)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield Target("127.0.0.1", port, "d", "u", ("secret",))
    listening.close()


def says(*data: bytes, after_startup: bool = True) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if after_startup:
            await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big") - 4)
        for piece in data:
            writer.write(piece)
            await writer.drain()

    return script


KEY = messages.backend_key_data(7, b"abcd")
SASL = authentication_sasl([b"SCRAM-SHA-256"])
GREETING = AUTHENTICATION_OK + messages.parameter_status(b"server_version", b"18.0") + KEY + messages.READY_IDLE


async def attempt(at: Target, timeout_s: float = TIMEOUT_S) -> Connected[Wire]:
    return await connect(at, protocol_factory=lambda: Wire(at), timeout_s=timeout_s)


async def test_bytes_behind_ready_for_query_reach_the_new_protocol() -> None:
    surplus = messages.notice("hello") + b"S\0\0\0"
    async with fake(says(GREETING + surplus)) as at:
        connected = await attempt(at)
        assert connected.protocol.rest() == surplus
        connected.transport.abort()


async def test_a_greeting_in_single_bytes_is_understood() -> None:
    async with fake(says(*(GREETING[at : at + 1] for at in range(len(GREETING))))) as at:
        connected = await attempt(at)
        assert (connected.pid, connected.secret) == (7, b"abcd")
        assert connected.parameters == {"server_version": "18.0"}
        connected.transport.abort()


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        (b"R\0\0\0\3", "length of 3"),
        (b"R\xff\xff\xff\xff", "length of 4294967295"),
        (b"R\0\0\0\5\0", None),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "length of"),
        (messages.READY_IDLE, "'Z' during authentication"),
        (KEY, "'K' during authentication"),
        (AUTHENTICATION_OK + AUTHENTICATION_OK, "'R' before ReadyForQuery"),
        (AUTHENTICATION_OK + messages.READY_OPEN, "'Z' before ReadyForQuery"),
        (AUTHENTICATION_OK + b"K\0\0\0\x0a\0\0\0\7ab", None),
        (authentication(Authentication.MD5_PASSWORD, b"abc"), "MD5 salt"),
        (SASL + AUTHENTICATION_OK, "before the server proved"),
        (SASL * 2, "second SASL exchange"),
        (SASL + authentication(Authentication.SASL_FINAL, b"v=x"), "before our proof"),
        (SASL + authentication(Authentication.SASL_CONTINUE, b"r=x,s=x,i=1"), None),
        (b"v\0\0\0\x0c\0\3\0\2\0\0\0\0", "protocol 3.2 when we asked for 3.0"),
        (b"v\0\0\0\x0c\0\3\0\0\xff\xff\xff\xff", None),
        (b"E\0\0\0\6SX", None),
    ],
)
async def test_a_server_that_breaks_the_protocol_is_a_declared_fault(said: bytes, detail: str | None) -> None:
    async with fake(says(said)) as at:
        fault = await fault_of(attempt(at))
        assert fault.sqlstate == "08P01"
        assert detail is None or detail in (fault.detail or ""), fault.detail


@pytest.mark.parametrize("kind", [7, 9, 4, 99])
async def test_methods_we_do_not_know_are_named(kind: int) -> None:
    async with fake(says(messages.message(b"R", kind.to_bytes(4, "big")))) as at:
        fault = await fault_of(attempt(at))
        assert (fault.sqlstate, f"authentication method {kind}" in fault.message) == ("28000", True)


async def test_a_flood_before_ready_for_query_ends() -> None:
    async with fake(says(AUTHENTICATION_OK + messages.parameter_status(b"a", b"b") * 2000)) as at:
        fault = await fault_of(attempt(at))
        assert "more than 1000 messages" in (fault.detail or "")


async def test_a_server_that_hangs_up_at_any_byte_is_a_lost_connection() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(GREETING[: cut.pop()])
        await writer.drain()
        raise ConnectionAbortedError

    cut = list(range(0, len(GREETING), 7))
    async with fake(hang_up) as at:
        for _ in range(len(cut)):
            fault = await fault_of(attempt(at))
            assert fault.sqlstate == "08006"
            assert f"127.0.0.1:{at.port}" in fault.message


@pytest.mark.parametrize("said", [b"", b"R", GREETING[:-1]])
async def test_a_silent_server_costs_no_more_than_the_timeout(said: bytes) -> None:
    async with fake(says(said)) as at:
        fault = await fault_of(attempt(at, timeout_s=0.05))
        assert fault.sqlstate == "08001"
        assert fault.message == f'could not connect to server "127.0.0.1:{at.port}": no answer within 0.05 s'


async def test_nobody_listening_is_an_error_with_the_address() -> None:
    port = free_port()
    fault = await fault_of(attempt(Target("127.0.0.1", port, "d", "u")))
    assert fault.sqlstate == "08001"
    assert fault.message == f'could not connect to server "127.0.0.1:{port}": connection refused'
    fault = await fault_of(attempt(Target("/nonexistent", port, "d", "u")))
    assert fault.message == (f'could not connect to server "/nonexistent/.s.PGSQL.{port}": no such file or directory')
    fault = await fault_of(attempt(Target("no.such.name.invalid", port, "d", "u")))
    assert (fault.sqlstate, "could not translate host name" in fault.message) == ("08001", True)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"S" + GREETING, "does not speak our protocol"),  # slipped in before the handshake
        (b"E\0\0\0\4", "does not speak our protocol"),
        (b"", "no answer within"),
    ],
)
async def test_answers_to_ssl_requests_that_cannot_be_trusted(answer: bytes, text: str) -> None:
    async with fake(says(answer)) as at:
        encrypted = Target(at.host, at.port, "d", "u", tls=client_tls(TlsVerify.PREFER))
        assert text in (await fault_of(attempt(encrypted, timeout_s=0.2))).message


@pytest.mark.parametrize("rubbish", [b"", b"\x15\3\1\0\2\2\x28", b"rubbish"])
async def test_a_tls_handshake_that_fails_is_a_declared_fault(rubbish: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(ssl_request()))
        writer.write(b"S")
        await reader.read(100)
        writer.write(rubbish)
        await writer.drain()
        raise ConnectionAbortedError

    async with fake(script) as at:
        encrypted = Target(at.host, at.port, "d", "u", tls=client_tls(TlsVerify.PREFER))
        assert (await fault_of(attempt(encrypted))).sqlstate == "08001"


async def test_cancelling_a_connect_closes_its_socket() -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        connecting.cancel()
        await reader.read(-1)
        closed.set()

    async with fake(script) as at:
        connecting = asyncio.ensure_future(attempt(at))
        with pytest.raises(asyncio.CancelledError):
            await connecting
        async with asyncio.timeout(TIMEOUT_S):
            await closed.wait()


async def test_mutated_greetings_are_a_connection_or_a_declared_fault() -> None:
    seed = SystemRandom().randrange(1 << 32)
    print(f"seed={seed}")
    random = Random(seed)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        data = bytearray(GREETING)
        for _ in range(random.randint(0, 2)):
            at = random.randrange(len(data))
            data[at : at + random.randrange(2)] = random.randbytes(random.randrange(2))
        writer.write(bytes(data))
        writer.write_eof()

    connected = faults = 0
    async with fake(script) as at:
        for _ in range(300):
            try:
                (await attempt(at)).transport.abort()
                connected += 1
            except ServerFault:
                faults += 1
    assert connected > 10
    assert faults > 100


def test_the_address_is_shown_as_people_write_it() -> None:
    assert Target("::1", 5432, "d", "u").address == "[::1]:5432"
    assert Target("/run/pg", 5433, "d", "u").address == "/run/pg/.s.PGSQL.5433"
    assert "secret" not in repr(Target("h", 1, "d", "u", ("secret",)))
