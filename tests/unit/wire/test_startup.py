"""The startup packet family: whole, torn at every byte, and wrong."""

from __future__ import annotations

import struct

import pytest

from node.errors import ClientFault
from node.wire import messages
from node.wire.codes import GSSENC_REQUEST, PROTOCOL_3_0
from node.wire.startup import (
    REMEMBERED_BYTES,
    STARTUP_LIMIT_BYTES,
    Authentication,
    CancelRequest,
    Encryption,
    Read,
    Startup,
    authentication,
    authentication_sasl,
    cancel_request,
    parse_authentication,
    parse_backend_key,
    parse_negotiation,
    parse_options,
    parse_password,
    parse_sasl_initial_response,
    quote_option,
    read_request,
    sasl_initial_response,
    ssl_request,
    startup_message,
)


def packet(code: int, body: bytes = b"") -> bytes:
    return struct.pack("!II", len(body) + 8, code) + body


STARTUP = startup_message(
    [
        (b"user", b"alice"),
        (b"database", b"shop"),
        (b"application_name", b"psql"),
        (b"options", b"-c geqo=off --statement-timeout=5s -capplication_name=options"),
    ]
)

PACKETS = {
    "startup": STARTUP,
    "ssl": ssl_request(),
    "gss": packet(GSSENC_REQUEST),
    "cancel 3.0": cancel_request(17, b"abcd"),
    "cancel 3.2": cancel_request(17, bytes(range(256))),
}


def read_startup(data: bytes) -> Startup:
    read = read_request(data)
    assert read is not None
    assert read.consumed == len(data)
    assert isinstance(read.request, Startup)
    return read.request


@pytest.mark.parametrize("name", PACKETS)
def test_a_packet_is_read_when_its_last_byte_is_there_and_not_a_byte_of_what_follows(name: str) -> None:
    data = PACKETS[name]
    for cut in range(len(data)):
        assert read_request(data[:cut]) is None, cut
    whole = read_request(data)
    assert whole is not None
    assert whole.consumed == len(data)
    assert read_request(bytearray(data + b"Q\0\0")) == whole


def test_a_startup_message_carries_user_database_and_settings_with_named_ones_over_options() -> None:
    startup = read_startup(STARTUP)
    assert (startup.user, startup.database, startup.minor) == (b"alice", b"shop", 0)
    assert startup.settings == {b"geqo": b"off", b"statement_timeout": b"5s", b"application_name": b"psql"}
    assert startup.negotiation() == b""


def test_equal_packets_are_taken_apart_once_and_long_ones_are_not_remembered() -> None:
    first, again = read_startup(STARTUP), read_startup(bytes(bytearray(STARTUP)))
    assert again is first
    assert first.introduction.user == "alice"
    assert first.introduction.parameters == {"geqo": "off", "statement_timeout": "5s", "application_name": "psql"}
    long = startup_message([(b"user", b"alice"), (b"application_name", b"x" * REMEMBERED_BYTES)])
    assert read_startup(long) == read_startup(long)
    assert read_startup(long) is not read_startup(long)
    other = read_startup(startup_message([(b"user", b"alice")], minor=2))
    assert (other.minor, read_startup(startup_message([(b"user", b"alice")])).minor) == (2, 0)


def test_the_database_defaults_to_the_user() -> None:
    assert read_startup(startup_message([(b"user", b"bob")])).database == b"bob"
    assert read_startup(startup_message([(b"user", b"bob"), (b"database", b"")])).database == b"bob"


def test_a_tls_hello_is_recognised_by_its_first_byte_and_left_in_place() -> None:
    assert read_request(b"\x16") == Read(Encryption.DIRECT_TLS, 0)


def test_cancel_requests_carry_secrets_of_4_to_256_bytes() -> None:
    assert read_request(cancel_request(1 << 31, b"1234")) == Read(CancelRequest(1 << 31, b"1234"), 16)
    long = read_request(cancel_request(5, b"k" * 256))
    assert long is not None
    assert long.request == CancelRequest(5, b"k" * 256)
    for secret in (b"", b"123", b"k" * 257):
        with pytest.raises(ClientFault) as caught:
            read_request(cancel_request(5, secret))
        assert caught.value.sqlstate == "08P01"


@pytest.mark.parametrize("minor", [0, 2])
def test_known_versions_need_no_negotiation(minor: int) -> None:
    startup = read_startup(startup_message([(b"user", b"u")], minor))
    assert startup.spoken_minor == minor
    assert startup.negotiation() == b""


def test_a_newer_minor_version_is_answered_with_ours() -> None:
    startup = read_startup(startup_message([(b"user", b"u")], 9999))
    assert startup.spoken_minor == 2
    assert startup.negotiation() == b"v\0\0\0\x0c\0\3\0\2\0\0\0\0"


def test_unknown_protocol_options_are_listed_and_are_no_settings() -> None:
    startup = read_startup(startup_message([(b"user", b"u"), (b"_pq_.later", b"1"), (b"_pq_.x", b"")]))
    assert not startup.settings
    said = startup.negotiation()
    assert parse_negotiation(said[5:]) == (0, [b"_pq_.later", b"_pq_.x"])


@pytest.mark.parametrize("length", [0, 4, 7, STARTUP_LIMIT_BYTES + 5, 0x7FFFFFFF, 0xFFFFFFFF, 0x47455420])
def test_an_impossible_length_is_refused_as_soon_as_it_is_read(length: int) -> None:
    with pytest.raises(ClientFault) as caught:
        read_request(struct.pack("!I", length))
    assert (caught.value.sqlstate, caught.value.severity) == ("08P01", "FATAL")


def test_the_longest_startup_packet_is_accepted() -> None:
    base = len(startup_message([(b"user", b"u"), (b"a", b"")]))
    data = startup_message([(b"user", b"u"), (b"a", b"x" * (STARTUP_LIMIT_BYTES + 4 - base))])
    assert len(data) == STARTUP_LIMIT_BYTES + 4
    read_startup(data)


@pytest.mark.parametrize("code", [2 << 16, 4 << 16, 0, 1234 << 16 | 5681])
def test_other_major_versions_are_refused_as_postgresql_does(code: int) -> None:
    with pytest.raises(ClientFault) as caught:
        read_request(packet(code, b"user\0u\0\0"))
    assert caught.value.sqlstate == "0A000"
    assert caught.value.severity == "FATAL"
    assert caught.value.message == (
        f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: server supports 3.0 to 3.2"
    )


@pytest.mark.parametrize(
    ("body", "sqlstate"),
    [
        (b"", "08P01"),
        (b"\0", "28000"),
        (b"user\0\0\0", "28000"),
        (b"database\0d\0\0", "28000"),
        (b"user\0u", "08P01"),
        (b"user\0u\0", "08P01"),
        (b"user\0u\0database\0", "08P01"),
        (b"user\0u\0\0rest", "08P01"),
        (b"user\0u\0options\0-c x\0\0", "42601"),
    ],
)
def test_a_malformed_startup_packet_is_a_declared_fault(body: bytes, sqlstate: str) -> None:
    with pytest.raises(ClientFault) as caught:
        read_request(packet(PROTOCOL_3_0, body))
    assert (caught.value.sqlstate, caught.value.severity) == (sqlstate, "FATAL")


def test_encryption_requests_with_a_body_are_refused() -> None:
    with pytest.raises(ClientFault, match="invalid length of startup packet"):
        read_request(packet(GSSENC_REQUEST, b"x"))


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (b"", {}),
        (b"   ", {}),
        (b"-c a=1", {b"a": b"1"}),
        (b"-ca=1", {b"a": b"1"}),
        (b"--a=1", {b"a": b"1"}),
        (b"--work-mem=1MB", {b"work_mem": b"1MB"}),
        (b"-c a=1 -c a=2", {b"a": b"2"}),
        (b"-c a=", {b"a": b""}),
        (b"-c a=b=c", {b"a": b"b=c"}),
        (rb"-c search_path=a,\ b\\c", {b"search_path": rb"a, b\c"}),
        (rb"-c a=\-\n", {b"a": b"-n"}),
        (b"-c\ta=1\n--b=2", {b"a": b"1", b"b": b"2"}),
        (b"-c pgdog.shard=1", {b"pgdog.shard": b"1"}),
        (b"-c a=trailing\\", {b"a": b"trailing"}),
        (b"-S 64", {b"work_mem": b"64"}),
        (b"-e -c a=1", {b"datestyle": b"euro", b"a": b"1"}),
        # what drivers leave of a URL's plus signs, and what is a plus sign
        (b"-c+a=b+-c+c=d+--e=f", {b"a": b"b", b"c": b"d", b"e": b"f"}),
        (b"-c TimeZone=Etc/GMT+5", {b"TimeZone": b"Etc/GMT+5"}),
    ],
)
def test_options_are_split_like_a_command_line(options: bytes, settings: dict[bytes, bytes]) -> None:
    assert parse_options(options) == settings


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (b"-c", "invalid command-line argument for server process: -c"),
        (b"-c a", "-c a requires a value"),
        (b"--a", "--a requires a value"),
        (b"--", "invalid command-line argument for server process: --"),
        (b"-c =1", "-c =1 requires a value"),
        (b"a=1", "invalid command-line argument for server process: a=1"),
        (b"-D /tmp", "invalid command-line argument for server process: -D"),
        (b"\xff", "invalid command-line argument for server process: \ufffd"),
    ],
)
def test_wrong_options_are_refused_with_postgresqls_words(options: bytes, text: str) -> None:
    with pytest.raises(ClientFault) as caught:
        parse_options(options)
    assert (caught.value.message, caught.value.sqlstate, caught.value.severity) == (text, "42601", "FATAL")


@pytest.mark.parametrize("value", ["", "plain", "a b", "back\\slash", " \t\\ ", "x=y"])
def test_a_quoted_option_is_read_back(value: str) -> None:
    assert parse_options(quote_option("name", value).encode()) == {b"name": value.encode()}


def test_authentication_requests_are_read_back() -> None:
    asked = parse_authentication(authentication_sasl([b"ONE", b"TWO"])[5:])
    assert (asked.kind, asked.mechanisms()) == (Authentication.SASL, [b"ONE", b"TWO"])
    assert parse_authentication(authentication(Authentication.MD5_PASSWORD, b"salt")[5:]) == (5, b"salt")


def test_sasl_initial_responses_are_read_back() -> None:
    assert parse_sasl_initial_response(sasl_initial_response(b"M", b"data")[5:]) == (b"M", b"data")
    assert parse_sasl_initial_response(b"M\0\xff\xff\xff\xff") == (b"M", None)
    for wrong in (b"", b"M", b"M\0", b"M\0\0\0\0\5data", b"M\0\0\0\0\1data", b"M\0\x80\0\0\0"):
        with pytest.raises(ClientFault):
            parse_sasl_initial_response(wrong)


def test_a_password_ends_with_its_only_zero_byte() -> None:
    assert parse_password(b"secret\0") == b"secret"
    for wrong in (b"", b"secret", b"sec\0ret\0", b"secret\0\0"):
        with pytest.raises(ClientFault, match="invalid password packet size"):
            parse_password(wrong)


def test_backend_keys_have_4_to_256_bytes_of_secret() -> None:
    assert parse_backend_key(messages.backend_key_data(7, b"abcd")[5:]) == (7, b"abcd")
    assert parse_backend_key(b"\0\0\0\7" + b"k" * 256) == (7, b"k" * 256)
    for wrong in (b"", b"\0\0\0\7", b"\0\0\0\7abc", b"\0\0\0\7" + b"k" * 257):
        with pytest.raises(ClientFault):
            parse_backend_key(wrong)
