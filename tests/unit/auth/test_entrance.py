"""The login machine: every order of requests, every tear, every refusal; no sockets."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from node.auth.scram import KeyCache, ScramClient, ScramVerifier, derive
from node.auth.verifier import Account, Authenticator, AuthType
from node.client.entrance import Accepted, Entrance, LoginRules, TlsInfo
from node.client.login import login_success_messages
from node.errors import ClientFault, Fault, ServerFault
from node.tls import ServerTls
from node.wire.codes import GSSENC_REQUEST
from node.wire.startup import (
    AUTHENTICATION_OK,
    CancelRequest,
    cancel_request,
    parse_authentication,
    password_message,
    ssl_request,
    startup_message,
)

VERIFIER = ScramVerifier.derive("secret", b"sixteen bytes...", 1)
ACCOUNTS = {
    account.user: account
    for account in (
        Account("alice", AuthType.PLAIN, passwords=("secret",)),
        Account("hash", AuthType.PLAIN, verifier=VERIFIER),
        Account("scram", passwords=("secret",)),
        Account("trust", AuthType.TRUST),
        Account("cert", identity="cert.example", certificate_required=True),
        Account("certorpassword", AuthType.PLAIN, passwords=("secret",), identity="cert.example"),
        Account("strict", AuthType.TRUST, certificate_required=True),
        Account("through", passthrough=True),
    )
}
TLS = ServerTls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), b"hash of a certificate", asks_certificates=False)
MTLS = replace(TLS, asks_certificates=True)
INFO = TlsInfo("TLSv1.3", "cipher", None, None)
GSS = struct.pack("!II", 8, GSSENC_REQUEST)
STARTUP = startup_message([(b"user", b"alice"), (b"database", b"shop"), (b"application_name", b"t\xe4st")])
PASSWORD = password_message(b"secret")


class Desk:
    """An Entrance and everything it did to the world."""

    def __init__(
        self,
        rules: LoginRules | None = None,
        *,
        local: bool = False,
        derive: Callable[[Account], None] | None = None,
        prove: Callable[[tuple[str, bytes, int]], None] | None = None,
    ) -> None:
        self.written = b""
        self.upgrades: list[bytes] = []
        self.checks: list[str] = []
        self.accepted: Accepted | None = None
        self.cancelled: CancelRequest | None = None
        self.refused: ClientFault | None = None
        self.entrance = Entrance(
            rules or LoginRules(),
            Authenticator(b"secret", Random(1).randbytes, iterations=1),
            self.find,
            local=local,
            write=self.write,
            upgrade=self.upgrades.append,
            check=lambda account, database, password: self.checks.append(password),
            accept=self.once("accepted"),
            cancel=self.once("cancelled"),
            refuse=self.once("refused"),
            derive=derive,
            prove=prove,
        )

    def find(self, user: str, database: str) -> Account | None:
        account = ACCOUNTS.get(user)
        return replace(account, database_exists=database != "missing") if account else None

    def write(self, data: bytes) -> None:
        assert not self.entrance.shaking_hands or data == b"S"
        self.written += data

    def once(self, name: str) -> Callable[[object], None]:
        def end(value: object) -> None:
            assert (self.accepted, self.cancelled, self.refused) == (None, None, None)
            setattr(self, name, value)

        return end

    def send(self, *data: bytes) -> Desk:
        for chunk in data:
            self.entrance.receive(chunk)
        return self

    def fault(self) -> tuple[str, str]:
        assert self.refused is not None
        assert self.refused.severity == "FATAL"
        return self.refused.sqlstate, self.refused.message


def startup(user: str, database: str = "shop") -> bytes:
    return startup_message([(b"user", user.encode()), (b"database", database.encode())])


def test_a_login_is_accepted_with_all_that_was_said() -> None:
    desk = Desk().send(STARTUP, PASSWORD)
    accepted = desk.accepted
    assert accepted is not None
    assert (accepted.user, accepted.database, accepted.minor, accepted.method) == ("alice", "shop", 0, "password")
    assert accepted.parameters == {"application_name": "t\\xe4st"}
    assert accepted.surplus == b""
    assert accepted.greeting == AUTHENTICATION_OK


def test_every_tear_leads_to_the_same_login_and_what_follows_is_handed_over() -> None:
    said = GSS + ssl_request() + STARTUP + PASSWORD
    whole = Desk().send(GSS, ssl_request(), STARTUP, PASSWORD + b"Q\0\0\0\5\0")
    assert whole.accepted is not None
    assert whole.accepted.surplus == b"Q\0\0\0\5\0"
    # Both encryption requests must come alone, so the tears lie inside the packets and between them.
    one_by_one = Desk().send(*(said[at : at + 1] for at in range(len(said))))
    assert one_by_one.written == whole.written == b"NN" + whole.written[2:]
    assert one_by_one.accepted == replace(whole.accepted, surplus=b"")
    rest = STARTUP + PASSWORD
    for cut in range(1, len(rest)):
        torn = Desk().send(GSS, ssl_request(), rest[:cut], rest[cut:] + b"more")
        assert torn.accepted == replace(whole.accepted, surplus=b"more"), cut


def test_a_scram_login_works_torn_at_every_byte() -> None:
    desk = Desk()
    client = ScramClient("secret", [b"SCRAM-SHA-256"], nonce=b"nonce", binding=None, cache=KeyCache())

    def dribble(data: bytes) -> None:
        desk.written = b""
        desk.send(*(data[at : at + 1] for at in range(len(data))))

    dribble(startup("scram"))
    dribble(client.start())
    client.challenged(parse_authentication(desk.written[5:]).data)
    dribble(client.prove())
    assert desk.accepted is not None
    assert desk.accepted.method == "scram-sha-256"
    greeting = desk.accepted.greeting
    assert greeting.endswith(AUTHENTICATION_OK)
    client.verify(parse_authentication(greeting[5 : -len(AUTHENTICATION_OK)]).data)


def test_a_missing_database_is_told_only_to_who_authenticated() -> None:
    desk = Desk().send(startup("alice", "missing"))
    assert desk.refused is None
    assert desk.send(password_message(b"wrong")).fault() == (
        "28P01", 'password authentication failed for user "alice"',
    )  # fmt: skip
    desk = Desk().send(startup("alice", "missing"), PASSWORD)
    assert desk.fault() == ("3D000", 'database "missing" does not exist')
    assert desk.written.endswith(AUTHENTICATION_OK)
    assert desk.accepted is None


def test_an_unknown_user_is_asked_for_a_password_like_any_other() -> None:
    known, unknown = Desk(LoginRules(AuthType.PLAIN)), Desk(LoginRules(AuthType.PLAIN))
    assert known.send(STARTUP).written == unknown.send(startup("mallory")).written
    wrong = password_message(b"wrong")
    assert known.send(wrong).fault()[1].replace("alice", "mallory") == unknown.send(wrong).fault()[1]
    assert known.written == unknown.written


def test_tls_is_offered_and_then_the_startup_packet_is_read_again() -> None:
    desk = Desk(LoginRules(tls=TLS)).send(ssl_request())
    assert (desk.written, desk.upgrades) == (b"S", [b""])
    desk.send(STARTUP[:5])  # decrypted before the upgrade was reported
    desk.entrance.secured(INFO)
    desk.send(STARTUP[5:], PASSWORD)
    assert desk.accepted is not None
    assert desk.accepted.tls == INFO


def test_a_direct_tls_hello_goes_to_the_handshake_whole_and_needs_alpn() -> None:
    hello = b"\x16\3\1\2\0hello"
    for alpn, works in (("postgresql", True), (None, False), ("http/1.1", False)):
        desk = Desk(LoginRules(tls=TLS)).send(hello)
        assert (desk.written, desk.upgrades) == (b"", [hello])
        desk.entrance.secured(replace(INFO, alpn=alpn))
        desk.send(STARTUP, PASSWORD)
        assert (desk.accepted is not None) is works
        if not works:
            assert desk.fault()[0] == "08P01"


def test_direct_tls_without_a_certificate_or_after_another_request_is_refused() -> None:
    assert Desk().send(b"\x16\3\1").fault()[0] == "08P01"
    assert Desk().send(ssl_request(), b"\x16\3\1").fault()[0] == "0A000"
    inside = Desk(LoginRules(tls=TLS)).send(ssl_request())
    inside.entrance.secured(INFO)
    assert inside.send(b"\x16\3\1").fault()[0] == "0A000"


@pytest.mark.parametrize("rules", [LoginRules(), LoginRules(tls=TLS)])
@pytest.mark.parametrize("request_bytes", [ssl_request(), GSS])
def test_plain_text_behind_an_encryption_request_is_an_attack(rules: LoginRules, request_bytes: bytes) -> None:
    desk = Desk(rules).send(request_bytes + STARTUP)
    assert desk.fault()[0] == "08P01"
    assert desk.fault()[1].startswith("received unencrypted data after")
    assert desk.written == b""
    assert desk.upgrades == []


@pytest.mark.parametrize("request_bytes", [ssl_request(), GSS])
def test_the_same_request_is_not_granted_twice(request_bytes: bytes) -> None:
    assert Desk().send(request_bytes, request_bytes).fault()[0] == "0A000"


def test_unix_sockets_have_no_tls_and_need_none() -> None:
    desk = Desk(LoginRules(tls=TLS, tls_required=True), local=True).send(ssl_request())
    assert desk.written == b"N"
    assert desk.send(STARTUP, PASSWORD).accepted is not None


def test_required_tls_is_required_before_anything_is_asked() -> None:
    desk = Desk(LoginRules(tls=TLS, tls_required=True)).send(STARTUP)
    assert desk.fault() == ("08004", "only TLS connections are allowed")
    assert desk.written == b""


def with_certificate(user: str, *names: str, shown: bool = True, rules: LoginRules | None = None) -> Desk:
    desk = Desk(rules or LoginRules(tls=MTLS)).send(ssl_request())
    desk.entrance.secured(replace(INFO, identities=frozenset(names) if shown else None))
    return desk.send(startup(user))


def test_a_certificate_of_the_right_identity_replaces_the_password() -> None:
    for user in ("cert", "certorpassword"):
        accepted = with_certificate(user, "other", "cert.example").accepted
        assert accepted is not None
        assert accepted.method == "certificate"


def test_a_certificate_of_another_identity_does_not() -> None:
    assert with_certificate("cert", "other").fault() == (
        "28000", 'certificate authentication failed for user "cert"',
    )  # fmt: skip
    either = with_certificate("certorpassword", "other")
    assert either.refused is None
    assert either.send(PASSWORD).accepted is not None


def test_a_required_certificate_is_asked_of_everybody_who_is_not_exempt() -> None:
    needed = ("28000", "connection requires a valid client certificate")
    for user in ("cert", "strict", "mallory"):
        assert with_certificate(user, shown=False).fault() == needed
        assert Desk(LoginRules(tls=MTLS)).send(startup(user)).fault() == needed  # without TLS either
    assert with_certificate("trust", shown=False).accepted is not None
    assert with_certificate("strict", "anybody").accepted is not None


def test_an_identity_means_nothing_without_a_client_ca() -> None:
    desk = with_certificate("cert", "cert.example", rules=LoginRules(tls=TLS))
    assert desk.accepted is None


def test_channel_binding_is_offered_over_tls_only() -> None:
    plain, secured = Desk(LoginRules(tls=TLS)).send(startup("scram")), Desk(LoginRules(tls=TLS)).send(ssl_request())
    secured.entrance.secured(INFO)
    secured.send(startup("scram"))
    assert b"SCRAM-SHA-256-PLUS" not in plain.written
    assert b"SCRAM-SHA-256-PLUS" in secured.written


def test_passthrough_waits_for_the_servers_word() -> None:
    rules = LoginRules(passthrough_without_tls=True)
    for word in (True, False):
        desk = Desk(rules).send(startup("through"), PASSWORD + b"more")
        assert desk.checks == ["secret"]
        assert desk.accepted is None
        desk.entrance.checked(word)
        if word:
            assert desk.accepted is not None
            assert (desk.accepted.password, desk.accepted.surplus) == ("secret", b"more")
        else:
            assert desk.fault()[0] == "28P01"
    down = Desk(rules).send(startup("through"), PASSWORD)
    down.entrance.fail(ServerFault("nobody home", sqlstate="08001", severity="ERROR"))
    assert down.fault() == ("08001", "nobody home")
    down.entrance.checked(True)
    assert down.accepted is None


def test_passthrough_asks_for_no_password_in_the_clear() -> None:
    desk = Desk().send(startup("through"))
    assert desk.fault()[0] == "28000"
    assert desk.written == b""


def test_a_cancel_request_is_passed_on_with_and_without_tls() -> None:
    desk = Desk(LoginRules(tls=TLS, tls_required=True)).send(cancel_request(7, b"secret"))
    assert desk.cancelled == CancelRequest(7, b"secret")
    desk = Desk(LoginRules(tls=TLS)).send(ssl_request())
    desk.entrance.secured(INFO)
    assert desk.send(cancel_request(7, b"secret")).cancelled == CancelRequest(7, b"secret")
    assert desk.written == b"S"


@pytest.mark.parametrize(
    "answer",
    [
        b"Q\0\0\0\5\0",
        b"X\0\0\0\4",
        b"p\0\0\0\0",
        b"p\0\0\0\3",
        b"p\xff\xff\xff\xff",
        b"p\0\1\0\4",
        b"p\0\0\0\4",
        b"p\0\0\0\5x",
    ],
)
def test_anything_but_a_password_message_of_fair_size_ends_the_login(answer: bytes) -> None:
    assert Desk().send(STARTUP, answer).fault()[0] == "08P01"


def test_a_newer_protocol_is_negotiated_before_the_password_is_asked() -> None:
    desk = Desk().send(startup_message([(b"user", b"alice"), (b"_pq_.x", b"1")], 7))
    assert desk.written[:1] == b"v"
    assert desk.send(PASSWORD).accepted is not None
    assert desk.accepted is not None
    assert desk.accepted.minor == 2


def test_after_the_end_nothing_happens_any_more() -> None:
    desk = Desk().send(STARTUP, password_message(b"wrong"))
    written = desk.written
    desk.send(PASSWORD, STARTUP)
    desk.entrance.fail(ClientFault("client login timeout", sqlstate="28000"))
    assert desk.written == written
    assert desk.accepted is None


def test_success_is_followed_by_parameters_key_and_ready() -> None:
    said = login_success_messages({b"server_version": b"18.0"}, 7, b"longer secret")
    assert said == (b"S\0\0\0\x18server_version\x0018.0\0" + b"K\0\0\0\x15\0\0\0\7longer secret" + b"Z\0\0\0\5I")


def test_mutated_conversations_end_in_an_acceptance_or_a_declared_fault() -> None:
    seed = Random().randrange(1 << 32)
    print(f"seed={seed}")
    random = Random(seed)
    outcomes = {"accepted": 0, "refused": 0, "waiting": 0}
    for _ in range(10_000):
        said = bytearray(STARTUP + PASSWORD + b"Q\0\0\0\5\0")
        for _ in range(random.randint(0, 3)):
            at = random.randrange(len(said))
            said[at : at + random.randrange(3)] = random.choice((b"", b"\0", b"p", random.randbytes(2)))
        desk = Desk()
        cut = random.randrange(len(said) + 1)
        try:
            desk.send(bytes(said[:cut]), bytes(said[cut:]))
        except Fault as fault:  # they all belong into `refuse`
            pytest.fail(f"{fault!r} came out for {bytes(said)!r}")
        if desk.accepted is not None:
            outcomes["accepted"] += 1
        elif desk.refused is not None:
            desk.fault()
            outcomes["refused"] += 1
        else:
            assert not desk.entrance.over
            outcomes["waiting"] += 1
    assert min(outcomes.values()) > 100, outcomes


def test_keys_are_derived_before_the_first_question_and_once() -> None:
    derived: list[Account] = []
    desk = Desk(derive=derived.append)
    entrance = desk.entrance
    client = ScramClient("secret", [b"SCRAM-SHA-256"], nonce=b"nonce", binding=None, cache=KeyCache())
    desk.send(startup("scram"))
    assert [account.user for account in derived] == ["scram"]
    assert desk.written == b""
    desk.send(client.start())  # early: it is read when its turn has come
    entrance.derived()
    asked, continued = desk.written[:24], desk.written[24:]
    assert parse_authentication(asked[5:]).mechanisms() == [b"SCRAM-SHA-256"]
    client.challenged(parse_authentication(continued[5:]).data)
    desk.send(client.prove())
    assert desk.accepted is not None
    entrance.derived()  # late: it is over


def test_who_runs_out_of_time_while_keys_are_derived_is_refused_once() -> None:
    desk = Desk(derive=lambda account: None)
    entrance = desk.entrance
    desk.send(startup("scram"))
    entrance.fail(ClientFault("client login timeout", sqlstate="28000"))
    entrance.derived()
    assert desk.fault() == ("28000", "client login timeout")
    assert desk.written == b""


@pytest.mark.parametrize("password", ["secret", "wrong"])
def test_a_password_is_held_against_its_hash_elsewhere(password: str) -> None:
    wanted: list[tuple[str, bytes, int]] = []
    desk = Desk(prove=wanted.append)
    entrance = desk.entrance
    desk.send(startup("hash"), password_message(password.encode()), b"early")
    assert wanted == [(password, b"sixteen bytes...", 1)]
    assert (desk.accepted, desk.refused) == (None, None)
    entrance.proved(derive(*wanted[0]))
    if password == "secret":
        assert desk.accepted is not None
        assert (desk.accepted.method, desk.accepted.surplus) == ("password", b"early")
    else:
        assert desk.fault() == ("28P01", 'password authentication failed for user "hash"')
    entrance.proved(derive(*wanted[0]))  # once is enough


def test_who_runs_out_of_time_while_his_password_is_held_against_a_hash_is_refused_once() -> None:
    wanted: list[tuple[str, bytes, int]] = []
    desk = Desk(prove=wanted.append)
    entrance = desk.entrance
    desk.send(startup("hash"), PASSWORD)
    entrance.fail(ClientFault("client login timeout", sqlstate="28000"))
    entrance.proved(derive(*wanted[0]))
    assert desk.fault() == ("28000", "client login timeout")


def test_without_anybody_to_ask_a_hash_is_compared_at_once() -> None:
    assert Desk().send(startup("hash"), PASSWORD).accepted is not None
    assert Desk().send(startup("hash"), password_message(b"wrong")).fault()[0] == "28P01"
