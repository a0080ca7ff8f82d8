"""SCRAM by the RFC's own example, both sides against each other, and everything that must be refused."""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from random import Random

import pytest

from node.auth.conversation import Done
from node.auth.scram import (
    BINDING,
    ITERATIONS_LIMIT,
    SCRAM,
    SCRAM_PLUS,
    KeyCache,
    Keys,
    ScramClient,
    ScramServer,
    ScramVerifier,
    derive,
    half_done,
)
from node.errors import ClientFault, ServerFault
from node.wire.startup import Authentication, authentication, parse_authentication, sasl_initial_response, sasl_response

# RFC 7677 §3
USER, PASSWORD = "user", "pencil"
CLIENT_NONCE, SERVER_NONCE = b"rOprNGfwEbeRWgbNEkqO", b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = b64decode(b"W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST = b"n,,n=user,r=" + CLIENT_NONCE
SERVER_FIRST = b"r=" + CLIENT_NONCE + SERVER_NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
WITHOUT_PROOF = b"c=biws,r=" + CLIENT_NONCE + SERVER_NONCE
CLIENT_FINAL = WITHOUT_PROOF + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

CERTIFICATE_HASH = bytes(range(32))
PENCIL = derive(PASSWORD, SALT, 4096).keys
CACHE = KeyCache()


def server(*keys: Keys, binding: bytes | None = None) -> ScramServer:
    return ScramServer(USER, lambda: keys or (PENCIL,), salt=SALT, iterations=4096, nonce=SERVER_NONCE, binding=binding)


def client(
    password: str = PASSWORD,
    mechanisms: tuple[bytes, ...] = (SCRAM,),
    binding: bytes | None = None,
) -> ScramClient:
    return ScramClient(password, mechanisms, nonce=CLIENT_NONCE, binding=binding, cache=CACHE)


def first(data: bytes, mechanism: bytes = SCRAM) -> bytes:
    return sasl_initial_response(mechanism, data)[5:]


def converse(side: ScramServer, other: ScramClient) -> Done:
    """Both sides, whole; raises what either raises."""
    said = side.receive(other.start()[5:])
    assert isinstance(said, bytes)
    other.challenged(parse_authentication(said[5:]).data)
    done = side.receive(other.prove()[5:])
    assert isinstance(done, Done)
    other.verify(parse_authentication(done.reply[5:]).data)
    return done


def test_the_server_says_what_the_rfc_says() -> None:
    side = server()
    assert parse_authentication(side.start()[5:]).mechanisms() == [SCRAM]
    assert side.receive(first(CLIENT_FIRST)) == authentication(Authentication.SASL_CONTINUE, SERVER_FIRST)
    done = side.receive(CLIENT_FINAL)
    assert done == Done(authentication(Authentication.SASL_FINAL, SERVER_FINAL), "scram-sha-256")


def test_a_client_may_wait_to_be_asked_for_its_first_message() -> None:
    side = server()
    assert side.receive(SCRAM + b"\0\xff\xff\xff\xff") == authentication(Authentication.SASL_CONTINUE)
    assert side.receive(CLIENT_FIRST) == authentication(Authentication.SASL_CONTINUE, SERVER_FIRST)
    assert isinstance(side.receive(CLIENT_FINAL), Done)


def test_the_client_says_what_the_rfc_says_but_for_the_user_name_that_postgresql_ignores() -> None:
    side = client()
    assert side.start() == sasl_initial_response(SCRAM, b"n,,n=,r=" + CLIENT_NONCE)
    side._first = CLIENT_FIRST[3:]  # the example's user name is part of what is signed
    assert side.challenged(SERVER_FIRST) == (SALT, 4096)
    assert side.prove() == sasl_response(CLIENT_FINAL)
    side.verify(SERVER_FINAL)


def test_both_sides_agree_without_tls_and_with_channel_binding() -> None:
    assert converse(server(), client()).method == "scram-sha-256"
    bound = client(mechanisms=(SCRAM_PLUS, SCRAM), binding=CERTIFICATE_HASH)
    assert converse(server(binding=CERTIFICATE_HASH), bound).method == "scram-sha-256-plus"
    # a client over TLS at a server that cannot bind, and one that cannot bind at a server that can
    assert converse(server(), client(binding=CERTIFICATE_HASH)).method == "scram-sha-256"
    assert converse(server(binding=CERTIFICATE_HASH), client()).method == "scram-sha-256"


def test_every_accepted_password_works_and_no_other() -> None:
    both = (derive("old", SALT, 4096).keys, derive("new", SALT, 4096).keys)
    for password in ("old", "new"):
        converse(server(*both), client(password))
    with pytest.raises(ClientFault) as caught:
        converse(server(*both), client("pencil"))
    assert caught.value.sqlstate == "28P01"
    assert caught.value.severity == "FATAL"
    assert caught.value.message == 'password authentication failed for user "user"'


def test_another_certificate_between_client_and_server_is_noticed() -> None:
    with pytest.raises(ClientFault, match="SCRAM channel binding check failed") as caught:
        converse(server(binding=CERTIFICATE_HASH), client(mechanisms=(SCRAM_PLUS,), binding=b"another certificate"))
    assert caught.value.sqlstate == "28000"


def test_an_offer_of_channel_binding_that_got_lost_is_noticed() -> None:
    stripped = client(mechanisms=(SCRAM,), binding=CERTIFICATE_HASH)  # somebody removed PLUS from our list
    with pytest.raises(ClientFault, match="SCRAM channel binding negotiation error") as caught:
        server(binding=CERTIFICATE_HASH).receive(stripped.start()[5:])
    assert caught.value.sqlstate == "28000"


def test_a_flag_changed_on_the_way_is_noticed() -> None:
    """The gs2 header of the first message is repeated, signed, in the last."""
    side = server()
    side.receive(first(b"y" + CLIENT_FIRST[1:]))
    with pytest.raises(ClientFault, match="unexpected SCRAM channel-binding attribute"):
        side.receive(CLIENT_FINAL)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (first(CLIENT_FIRST, b"SCRAM-SHA-1"), "client selected an invalid SASL authentication mechanism"),
        (first(CLIENT_FIRST, SCRAM_PLUS), "client selected an invalid SASL authentication mechanism"),
        (first(b""), "malformed SCRAM message"),
        (first(b"n,,n=user"), "malformed SCRAM message"),
        (first(b"x,,n=user,r=abc"), "malformed SCRAM message"),
        (first(b"p=" + BINDING + b",,n=user,r=abc"), "malformed SCRAM message"),
        (first(b"n,a=root,n=user,r=abc"), "client uses authorization identity, but it is not supported"),
        (first(b"n,b=root,n=user,r=abc"), "malformed SCRAM message"),
        (first(b"n,,m=ext,n=user,r=abc"), "client requires an unsupported SCRAM extension"),
        (first(b"n,,user,r=abc"), "malformed SCRAM message"),
        (first(b"n,,n=user,r="), "malformed SCRAM message"),
        (first(b"n,,n=user,r=a b"), "malformed SCRAM message"),
        (first(b"n,,n=user,r=\xc3\xa4"), "malformed SCRAM message"),
        (b"SCRAM-SHA-256", "invalid SASLInitialResponse message"),
    ],
)
def test_wrong_first_messages_are_refused(body: bytes, text: str) -> None:
    with pytest.raises(ClientFault, match=text) as caught:
        server().receive(body)
    assert caught.value.severity == "FATAL"


@pytest.mark.parametrize(
    "data",
    [
        b"n,,n=,r=abc",
        b"y,,n=,r=abc",
        b"p=tls-unique,,n=,r=abc",
    ],
)
def test_a_bound_mechanism_needs_binding_data_of_our_type(data: bytes) -> None:
    with pytest.raises(ClientFault) as caught:
        server(binding=CERTIFICATE_HASH).receive(first(data, SCRAM_PLUS))
    assert caught.value.sqlstate == "08P01"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "malformed SCRAM message"),
        (WITHOUT_PROOF, "malformed SCRAM message"),
        (WITHOUT_PROOF + b",p=", "malformed SCRAM message"),
        (WITHOUT_PROOF + b",p=AAAA", "malformed SCRAM message"),
        (WITHOUT_PROOF + b",p=*" + CLIENT_FINAL[-43:], "malformed SCRAM message"),
        (CLIENT_FINAL + b",x=1", "malformed SCRAM message"),
        (CLIENT_FINAL.replace(b"biws", b"eSws"), "unexpected SCRAM channel-binding attribute"),
        (CLIENT_FINAL.replace(b"k0,", b"k1,"), "invalid SCRAM response"),
        (CLIENT_FINAL.replace(b"p=d", b"p=e"), "password authentication failed"),
        (CLIENT_FINAL.replace(b",p=", b",x=more,p="), "password authentication failed"),  # not what was signed
    ],
)
def test_wrong_final_messages_are_refused(data: bytes, text: str) -> None:
    side = server()
    side.receive(first(CLIENT_FIRST))
    with pytest.raises(ClientFault, match=text) as caught:
        side.receive(data)
    assert caught.value.severity == "FATAL"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"e=other-error",
        b"r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        b"r=" + CLIENT_NONCE + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        SERVER_FIRST.replace(b"s=W", b"s=*"),
        SERVER_FIRST.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="),
        SERVER_FIRST.replace(b"4096", b"0"),
        SERVER_FIRST.replace(b"4096", b"-1"),
        SERVER_FIRST.replace(b"4096", b"%d" % (ITERATIONS_LIMIT + 1)),
        SERVER_FIRST.replace(b"4096", b"9" * 30),
        SERVER_FIRST + b"," + b"x" * 2000,
    ],
)
def test_a_client_refuses_challenges_that_make_no_sense_or_too_much_work(data: bytes) -> None:
    with pytest.raises(ServerFault) as caught:
        client().challenged(data)
    assert caught.value.sqlstate == "08P01"


def test_a_client_believes_only_a_server_that_knows_the_password() -> None:
    side = client()
    side.challenged(SERVER_FIRST)
    with pytest.raises(ServerFault, match="ends before our proof"):
        side.verify(SERVER_FINAL)
    side.prove()
    for claim in (b"", b"v=", SERVER_FINAL.replace(b"6", b"7"), b"e=invalid-proof"):
        with pytest.raises(ServerFault, match="could not prove that it knows the password"):
            side.verify(claim)


def test_a_client_needs_a_mechanism_it_knows() -> None:
    with pytest.raises(ServerFault, match="server offers no SASL mechanism that we know: OAUTHBEARER"):
        client(mechanisms=(b"OAUTHBEARER",))
    with pytest.raises(ServerFault):
        client(mechanisms=(SCRAM_PLUS,))  # bound to what?


def test_a_verifier_is_read_and_written_as_in_pg_authid() -> None:
    verifier = ScramVerifier.derive(PASSWORD, SALT)
    assert ScramVerifier.parse(str(verifier)) == verifier
    assert str(verifier).startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    assert verifier.fits(derive(PASSWORD, SALT, verifier.iterations))
    assert not verifier.fits(derive("Pencil", SALT, verifier.iterations))
    assert str(verifier) not in repr(verifier)


KEY = b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "md5" + "0" * 32,
        f"SCRAM-SHA-256$4096:c2FsdA==${KEY}",
        f"SCRAM-SHA-1$4096:c2FsdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$0:c2FsdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$٤:c2FsdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$99999999:c2FsdA==${KEY}:{KEY}",
        f"SCRAM-SHA-256$4096:!$${KEY}:{KEY}",
        f"SCRAM-SHA-256$4096:c2FsdA==$c2FsdA==:{KEY}",
        f"SCRAM-SHA-256$4096:c2FsdA==${KEY}:{KEY}\n",
    ],
)
def test_what_is_no_verifier_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="SCRAM verifier") as caught:
        ScramVerifier.parse(text)
    assert KEY not in str(caught.value)


def test_an_hmac_begun_early_is_the_same_hmac() -> None:
    random = Random(7)
    for key_bytes in (0, 1, 20, 32, 63, 64, 65, 200):
        key = random.randbytes(key_bytes)
        finish = half_done(key)
        for data_bytes in (0, 1, 63, 64, 180, 1_000):
            data = random.randbytes(data_bytes)
            assert finish(data) == hmac.digest(key, data, "sha256")


def test_the_cache_runs_pbkdf2_once_and_forgets_what_is_used_least() -> None:
    cache = KeyCache(limit=2)
    one = cache.get("one", SALT, 1)
    assert one == derive("one", SALT, 1)
    cache.get("two", SALT, 1)
    assert cache.get("one", SALT, 1) is one
    cache.get("three", SALT, 1)
    assert len(cache) == 2
    assert cache.holds("one", SALT, 1)
    assert not cache.holds("two", SALT, 1)


def test_mutated_messages_are_answered_or_refused_by_a_declared_fault() -> None:
    seed = Random().randrange(1 << 32)
    print(f"seed={seed}")
    random = Random(seed)
    answered, faults = 0, []
    for _ in range(10_000):
        side = server(binding=random.choice((None, CERTIFICATE_HASH)))
        body = bytearray(first(CLIENT_FIRST))
        final = bytearray(CLIENT_FINAL)
        touched = random.choice((body, final))
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(touched))
            touched[at : at + random.randrange(3)] = random.choice((b"", b",", b"=", b"\0", random.randbytes(1)))
        try:
            said = side.receive(bytes(body))
            assert isinstance(said, bytes)
            answered += 1
            said = side.receive(bytes(final))
            assert isinstance(said, Done)
            assert final == CLIENT_FINAL or touched is body
        except ClientFault as fault:
            faults.append(fault)
    assert answered > 1000
    assert len(faults) > 1000
    assert {fault.severity for fault in faults} == {"FATAL"}


def test_mutated_challenges_are_a_proof_or_a_declared_fault() -> None:
    seed = Random().randrange(1 << 32)
    print(f"seed={seed}")
    random = Random(seed)
    challenge = SERVER_FIRST.replace(b"4096", b"1")
    faults = []
    for _ in range(10_000):
        data = bytearray(challenge)
        for _ in range(random.randint(1, 3)):
            at = random.randrange(len(data))
            data[at : at + random.randrange(3)] = random.choice((b"", b",", b"=", random.randbytes(1)))
        try:
            iterations = client().challenged(bytes(data)).iterations
            assert 1 <= iterations <= ITERATIONS_LIMIT
        except ServerFault as fault:
            faults.append(fault)
    assert {fault.sqlstate for fault in faults} == {"08P01"}
