"""Which conversation a user gets, and that nobody can tell who exists."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from node.auth import md5
from node.auth.conversation import Conversation, Done, Slow
from node.auth.scram import SCRAM, SCRAM_PLUS, KeyCache, ScramClient, ScramVerifier, derive
from node.auth.verifier import Account, Authenticator, AuthType
from node.errors import ClientFault
from node.wire.startup import parse_authentication, password_message

SECRET = b"the secret of one flock"
VERIFIER = ScramVerifier.derive("hashed", b"sixteen bytes...", 1)
REJECTED = 'password authentication failed for user "{}"'

ACCOUNTS = {
    account.user: account
    for account in (
        Account("scram", passwords=("old", "new")),
        Account("hash", verifier=VERIFIER),
        Account("both", verifier=VERIFIER, passwords=("new",)),
        Account("md5", AuthType.MD5, passwords=("old", "new")),
        Account("md5hash", AuthType.MD5, verifier=VERIFIER),
        Account("plain", AuthType.PLAIN, passwords=("old", "new")),
        Account("plainhash", AuthType.PLAIN, verifier=VERIFIER),
        Account("empty", passwords=("",)),
        Account("emptymd5", AuthType.MD5, passwords=("",)),
        Account("emptyplain", AuthType.PLAIN, passwords=("",)),
        Account("trust", AuthType.TRUST),
        Account("passthrough", passthrough=True),
    )
}


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(SECRET, Random(1).randbytes, iterations=1)


def answer(conversation: Conversation, user: str, password: str) -> Done:
    """What an honest client with this password would do."""
    asked = parse_authentication(conversation.start()[5:])
    if asked.kind == 10:
        client = ScramClient(password, asked.mechanisms(), nonce=b"nonce", binding=None, cache=KeyCache())
        said = conversation.receive(client.start()[5:])
        assert isinstance(said, bytes)
        client.challenged(parse_authentication(said[5:]).data)
        done = conversation.receive(client.prove()[5:])
    elif asked.kind == 5:
        done = conversation.receive(md5.client_message(user.encode(), password.encode(), asked.data)[5:])
    else:
        done = conversation.receive(password_message(password.encode())[5:])
    if isinstance(done, Slow):
        done = done.judge(derive(*done.wanted))
    assert isinstance(done, Done)
    return done


def converse(
    authenticator: Authenticator, user: str, *, auth_type: AuthType = AuthType.SCRAM, binding: bytes | None = None
) -> Conversation:
    found = authenticator.converse(user, ACCOUNTS.get(user), auth_type, binding=binding)
    assert not isinstance(found, Done)
    return found


@pytest.mark.parametrize(
    ("user", "password", "method"),
    [
        ("scram", "old", "scram-sha-256"),
        ("scram", "new", "scram-sha-256"),
        ("hash", "hashed", "scram-sha-256"),
        ("both", "hashed", "scram-sha-256"),
        ("both", "new", "scram-sha-256"),
        ("md5", "old", "md5"),
        ("md5", "new", "md5"),
        ("md5hash", "hashed", "scram-sha-256"),
        ("plain", "old", "password"),
        ("plain", "new", "password"),
        ("plainhash", "hashed", "password"),
    ],
)
def test_the_right_password_is_accepted(authenticator: Authenticator, user: str, password: str, method: str) -> None:
    assert answer(converse(authenticator, user), user, password).method == method


@pytest.mark.parametrize("user", [user for user in ACCOUNTS if user not in ("trust", "passthrough")])
@pytest.mark.parametrize("password", ["wrong", ""])
def test_a_wrong_password_is_refused(authenticator: Authenticator, user: str, password: str) -> None:
    with pytest.raises(ClientFault) as caught:
        answer(converse(authenticator, user), user, password)
    assert (caught.value.message, caught.value.sqlstate) == (REJECTED.format(user), "28P01")


@pytest.mark.parametrize("auth_type", [AuthType.SCRAM, AuthType.MD5, AuthType.PLAIN])
@pytest.mark.parametrize("password", ["old", ""])
def test_an_unknown_user_is_asked_and_refused_like_a_known_one(
    authenticator: Authenticator, auth_type: AuthType, password: str
) -> None:
    known = converse(authenticator, auth_type.value)
    unknown = converse(authenticator, "nobody", auth_type=auth_type)
    assert type(unknown) is type(known)
    assert len(unknown.start()) == len(known.start())
    with pytest.raises(ClientFault) as caught:
        answer(unknown, "nobody", password)
    assert (caught.value.message, caught.value.sqlstate) == (REJECTED.format("nobody"), "28P01")


def test_a_user_keeps_the_salt_whether_it_exists_or_not_and_users_differ(authenticator: Authenticator) -> None:
    def salt(user: str, by: Authenticator) -> bytes:
        conversation = converse(by, user)
        conversation.start()
        said = conversation.receive(SCRAM + b"\0\0\0\0\x0bn,,n=,r=abc")
        assert isinstance(said, bytes)
        return said.partition(b",s=")[2]

    other_node = Authenticator(SECRET, Random(2).randbytes, iterations=1)
    other_flock = Authenticator(b"another secret", Random(1).randbytes, iterations=1)
    for user in ("scram", "nobody"):
        assert salt(user, authenticator) == salt(user, authenticator) == salt(user, other_node)
        assert salt(user, authenticator) != salt(user, other_flock)
    assert salt("scram", authenticator) != salt("nobody", authenticator)


def test_channel_binding_is_offered_when_there_is_something_to_bind(authenticator: Authenticator) -> None:
    for user in ("scram", "nobody"):
        with_tls = parse_authentication(converse(authenticator, user, binding=b"hash").start()[5:])
        assert with_tls.mechanisms() == [SCRAM_PLUS, SCRAM]
        assert parse_authentication(converse(authenticator, user).start()[5:]).mechanisms() == [SCRAM]


def test_trust_asks_nothing_but_lets_nobody_in_who_is_not_configured(authenticator: Authenticator) -> None:
    assert authenticator.converse("trust", ACCOUNTS["trust"], AuthType.SCRAM, binding=None) == Done(b"", "trust")
    with pytest.raises(ClientFault) as caught:
        authenticator.converse("nobody", None, AuthType.TRUST, binding=None)
    assert (caught.value.message, caught.value.sqlstate) == ('role "nobody" does not exist', "28000")


def test_passthrough_yields_the_password_for_the_server_to_judge(authenticator: Authenticator) -> None:
    assert answer(converse(authenticator, "passthrough"), "", "s3cret").password == "s3cret"
    with pytest.raises(ClientFault):
        answer(converse(authenticator, "passthrough"), "", "")


def test_pbkdf2_runs_once_per_password_and_never_when_warmed(authenticator: Authenticator) -> None:
    wanted = authenticator.to_derive(ACCOUNTS.values())
    assert [password for password, _, _ in wanted] == ["old", "new", "new"]  # scram's two, and both's with its salt
    for arguments in wanted:
        authenticator.cache.put(*arguments, derive(*arguments))
    assert authenticator.to_derive(ACCOUNTS.values()) == []
    before = len(authenticator.cache)
    for password in ("old", "new"):
        answer(converse(authenticator, "scram"), "scram", password)
    assert len(authenticator.cache) == before


def test_no_secret_shows_in_the_text_of_an_account() -> None:
    shown = repr(ACCOUNTS["both"])
    assert "new" not in shown
    assert "Scram" not in shown


@pytest.mark.parametrize("make", [lambda a: converse(a, "md5"), lambda a: converse(a, "plain")])
@pytest.mark.parametrize("body", [b"", b"old", b"\0", b"old\0old\0", b"\xff\xfe\0", b"md5" + b"\xff" * 32 + b"\0"])
def test_malformed_answers_are_declared_faults(
    authenticator: Authenticator, make: Callable[[Authenticator], Conversation], body: bytes
) -> None:
    with pytest.raises(ClientFault) as caught:
        make(authenticator).receive(body)
    assert caught.value.severity == "FATAL"
    assert caught.value.sqlstate in ("08P01", "28P01")


def test_md5_answers_are_what_the_protocol_says() -> None:
    # `printf` and `md5sum`, twice: md5(md5("secret" "alice") salt)
    expected = b"md598a0412b9c31436fc53776e863350083"
    assert md5.answer(b"alice", b"secret", b"\1\2\3\4") == expected
