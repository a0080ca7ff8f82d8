"""From the first byte of a client to AuthenticationOk, without I/O.

    STARTUP ──SSLRequest or ClientHello──▸ TLS ──handshake done──▸ STARTUP
       │ GSSENCRequest, or SSLRequest without a certificate: answered N, stays
       │ CancelRequest ──▸ OVER (performed, then closed)
       └─StartupMessage──▸ [DERIVING] ──▸ ANSWER ──p…──▸ [CHECKING, passthrough only] ──▸ OVER (accepted)
    any of them ──fault, timeout, connection lost──▸ OVER

Before authentication a client can make us hold one chunk and one message of limited size, nothing else. Whether a
database exists is told only to who authenticated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from node.auth.conversation import Conversation, Done, Slow, rejected, violated
from node.auth.scram import Derived, derive
from node.auth.verifier import Account, Authenticator, AuthType
from node.errors import Bug, ClientFault, Fault
from node.wire.codes import HEADER_BYTES, MIN_LENGTH, Frontend
from node.wire.startup import (
    ALPN_PROTOCOL,
    AUTHENTICATION_OK,
    NEWEST_MINOR,
    CancelRequest,
    Encryption,
    Request,
    Startup,
    read_request,
)

if TYPE_CHECKING:
    from node.tls import ServerTls

Find = Callable[[str, str], Account | None]
Wanted = tuple[str, bytes, int]
"""Arguments of `scram.derive`: password, salt, iterations."""


@dataclass(frozen=True, slots=True)
class LoginRules:
    """What the configuration says about logging in; a new value on every reload."""

    auth_type: AuthType = AuthType.SCRAM  # how users nobody knows are asked
    tls: ServerTls | None = None
    tls_required: bool = False  # tls_client_required; UNIX sockets are exempt
    timeout_s: float = 60.0  # client_login_timeout: from the connection to the accepted password
    passthrough_without_tls: bool = False  # passthrough_auth = enabled_plain


@dataclass(frozen=True, slots=True)
class TlsInfo:
    version: str
    cipher: str
    alpn: str | None
    identities: frozenset[str] | None  # None: the client showed no certificate


@dataclass(frozen=True, slots=True)
class Accepted:
    """Who came in. Texts are decoded as UTF-8, other bytes shown as \\xNN as PostgreSQL 16 does."""

    account: Account
    user: str
    database: str
    parameters: Mapping[str, str]  # startup parameters and `options`, without user, database, replication; shared
    replication: str
    minor: int  # of protocol 3, the one both sides speak
    method: str
    tls: TlsInfo | None
    password: str | None  # passthrough only
    surplus: bytes  # sent after the password, not ours to read
    greeting: bytes  # AuthenticationOk and what goes before it; not written yet


class _State(Enum):
    STARTUP = auto()
    TLS = auto()
    DERIVING = auto()
    ANSWER = auto()
    PROVING = auto()
    CHECKING = auto()
    OVER = auto()


class Entrance:
    """The login of one client without its I/O. The callables are all it can do to the world.

    `upgrade(already_read)` starts a TLS handshake, answered by `secured`; `check(account, database, password)` asks a
    server, answered by `checked`; `derive(account)`, when given, brings the keys of an account that logs in for the
    first time into the cache and holds up nobody else, answered by `derived`; `prove(wanted)`, when given, derives what
    a client's password leads to, answered by `proved`; `accept`, `cancel` and `refuse` end it, each at most once and
    only one of them. Who is accepted has not been told yet: `greeting` does that.
    """

    __slots__ = (
        *(
            "_accept",
            "_account",
            "_asked",
            "_authenticator",
            "_buffer",
            "_cancel",
            "_check",
            "_conversation",
            "_derive",
        ),
        *(
            "_find",
            "_judge",
            "_local",
            "_password",
            "_prove",
            "_refuse",
            "_rules",
            "_startup",
            "_state",
            "_tls",
            "_upgrade",
            "_write",
        ),
        *("database", "user"),
    )

    def __init__(
        self,
        rules: LoginRules,
        authenticator: Authenticator,
        find: Find,
        *,
        local: bool,
        write: Callable[[bytes], None],
        upgrade: Callable[[bytes], None],
        check: Callable[[Account, str, str], None],
        accept: Callable[[Accepted], None],
        cancel: Callable[[CancelRequest], None],
        refuse: Callable[[ClientFault], None],
        derive: Callable[[Account], None] | None = None,
        prove: Callable[[Wanted], None] | None = None,
    ) -> None:
        self._derive = derive
        self._prove = prove
        self._judge: Callable[[Derived], Done] | None = None
        self._rules = rules
        self._authenticator = authenticator
        self._find = find
        self._local = local  # a UNIX socket: nobody listens in, so TLS is neither offered nor demanded
        self._write = write
        self._upgrade = upgrade
        self._check = check
        self._accept = accept
        self._cancel = cancel
        self._refuse = refuse
        self._state = _State.STARTUP
        self._buffer = b""
        self._asked: tuple[Encryption, ...] = ()
        self._tls: TlsInfo | None = None
        self._startup: Startup | None = None
        self._account: Account | None = None
        self._conversation: Conversation | None = None
        self._password: str | None = None
        self.user = ""  # for logs, as soon as it is known
        self.database = ""

    @property
    def over(self) -> bool:
        return self._state is _State.OVER

    @property
    def shaking_hands(self) -> bool:
        """Nothing may be written now: it would be plain text inside a TLS handshake."""
        return self._state is _State.TLS

    def receive(self, data: bytes) -> None:
        """Takes what the client sent. Every ClientFault ends in `refuse`."""
        if self._state is _State.OVER:
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def secured(self, info: TlsInfo) -> None:
        """The TLS handshake succeeded."""
        self._tls = info
        self._state = _State.STARTUP
        if Encryption.DIRECT_TLS in self._asked and info.alpn != ALPN_PROTOCOL:
            text = "received direct SSL connection request without ALPN protocol negotiation extension"
            self.fail(violated(text))
        else:
            self._advance()

    def derived(self) -> None:
        """The account's keys are in the cache."""
        if self._state is _State.DERIVING:
            try:
                self._ask()
                self._consume()
            except Fault as fault:
                self.fail(fault)

    def proved(self, derived: Derived) -> None:
        """What the client's password leads to."""
        judge, self._judge = self._judge, None
        if self._state is _State.PROVING and judge is not None:
            try:
                said = judge(derived)
                self._authenticated(said.method, said.reply)
            except Fault as fault:
                self.fail(fault)

    def checked(self, accepted: bool) -> None:
        """The server's word on a passthrough password."""
        if self._state is _State.CHECKING:
            if accepted:
                try:
                    self._authenticated("passthrough", b"")
                except Fault as fault:
                    self.fail(fault)
            else:
                self.fail(rejected(self.user))

    def fail(self, fault: Fault) -> None:
        """Ends the login with this error; also used for the timeout."""
        if self._state is _State.OVER:
            return
        self._state = _State.OVER
        self._buffer = b""
        if not isinstance(fault, ClientFault) or fault.severity != "FATAL":
            fault = ClientFault(
                fault.message, sqlstate=fault.sqlstate, detail=fault.detail, hint=fault.hint, severity="FATAL"
            )
        self._refuse(fault)

    # -- inside --------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        try:
            self._consume()
        except Fault as fault:
            self.fail(fault)

    def _consume(self) -> None:
        while True:
            if self._state is _State.STARTUP:
                read = read_request(self._buffer)
                if read is None:
                    return
                self._buffer = self._buffer[read.consumed :]
                self._requested(read.request)
            elif self._state is _State.ANSWER:
                body = self._answer()
                if body is None:
                    return
                self._answered(body)
            else:
                return

    def _requested(self, request: Request) -> None:
        if isinstance(request, Encryption):
            self._encryption(request)
        elif isinstance(request, CancelRequest):
            self._state = _State.OVER
            self._cancel(request)
        else:
            self._begin(request)

    def _encryption(self, request: Encryption) -> None:
        direct = request is Encryption.DIRECT_TLS
        if request in self._asked or self._tls is not None or (direct and self._asked):
            # PostgreSQL grants each request one turn; the next is taken for an unknown protocol version.
            raise violated(
                f"unsupported frontend protocol: server supports 3.0 to 3.{NEWEST_MINOR}",
                f"{request.value} came where a startup packet was expected",
                sqlstate="0A000",
            )
        self._asked += (request,)
        possible = self._rules.tls is not None and not self._local and request is not Encryption.GSS
        if direct:
            if not possible:
                raise violated("received direct SSL connection request without SSL support")
            already_read = self._buffer
            self._buffer = b""
            self._state = _State.TLS
            self._upgrade(already_read)
            return
        if self._buffer:
            # Whoever sits between us could have put a startup packet or a query there (CVE-2021-23222).
            what = "SSL" if request is Encryption.TLS else "GSSAPI encryption"
            raise violated(
                f"received unencrypted data after {what} request",
                "this could be either a client-software bug or evidence of an attempted man-in-the-middle attack",
            )
        if possible:
            self._state = _State.TLS
            self._write(b"S")
            self._upgrade(b"")
        else:
            self._write(b"N")

    def _begin(self, startup: Startup) -> None:
        rules = self._rules
        self.user, self.database, _, _ = startup.introduction
        self._startup = startup
        if rules.tls_required and self._tls is None and not self._local:
            raise violated("only TLS connections are allowed", sqlstate="08004")
        negotiation = startup.negotiation()
        if negotiation:
            self._write(negotiation)
        account = self._account = self._find(self.user, self.database)
        if self._by_certificate(account):
            self._authenticated("certificate", b"")
            return
        if account is not None and account.passthrough and not self._private and not rules.passthrough_without_tls:
            raise violated("passthrough authentication needs a TLS connection", sqlstate="28000")
        if account is not None and self._derive is not None and self._authenticator.to_derive((account,)):
            self._state = _State.DERIVING
            self._derive(account)
        else:
            self._ask()

    def _ask(self) -> None:
        rules = self._rules
        binding = rules.tls.binding if rules.tls is not None and self._tls is not None else None
        start = self._authenticator.converse(self.user, self._account, rules.auth_type, binding=binding)
        if isinstance(start, Done):
            self._authenticated(start.method, start.reply)
            return
        self._conversation = start
        self._state = _State.ANSWER
        self._write(start.start())

    @property
    def _private(self) -> bool:
        return self._tls is not None or self._local

    def _by_certificate(self, account: Account | None) -> bool:
        """Whether the client's certificate is all that is needed. Raises 28000 when one is missing or unfit."""
        tls = self._rules.tls
        if tls is None or not tls.asks_certificates or self._local:
            return False
        shown = self._tls.identities if self._tls is not None else None
        if shown is None and (account is None or account.certificate_required):
            raise violated("connection requires a valid client certificate", sqlstate="28000")
        if account is None or account.identity is None:
            return False
        if shown is not None and account.identity in shown:
            return True
        if not account.passwords and account.verifier is None:
            raise violated(f'certificate authentication failed for user "{self.user}"', sqlstate="28000")
        return False

    def _answer(self) -> bytes | None:
        """The body of the client's next message; None until it is whole."""
        buffer = self._buffer
        conversation = self._conversation
        if conversation is None:
            raise Bug("an answer is awaited, but nothing was asked")
        if not buffer:
            return None
        if buffer[0] != Frontend.PASSWORD:
            raise violated(f"expected password response, got message type {buffer[0]}")
        if len(buffer) < HEADER_BYTES:
            return None
        length = int.from_bytes(buffer[1:HEADER_BYTES], "big")
        if not MIN_LENGTH <= length <= MIN_LENGTH + conversation.limit_bytes:
            raise violated("invalid message length")
        if len(buffer) < length + 1:
            return None
        self._buffer = buffer[length + 1 :]
        return buffer[HEADER_BYTES : length + 1]

    def _answered(self, body: bytes) -> None:
        conversation, account = self._conversation, self._account
        if conversation is None:
            raise Bug("an answer came, but nothing was asked")
        said = conversation.receive(body)
        if isinstance(said, Slow):
            if self._prove is not None:
                self._judge = said.judge
                self._state = _State.PROVING
                self._prove(said.wanted)
                return
            said = said.judge(derive(*said.wanted))
        if isinstance(said, bytes):
            self._write(said)
        elif said.password is None or account is None:
            self._authenticated(said.method, said.reply)
        else:
            self._password = said.password
            self._state = _State.CHECKING
            self._check(account, self.database, said.password)

    def _authenticated(self, method: str, reply: bytes) -> None:
        startup, account = self._startup, self._account
        if startup is None or account is None:
            raise Bug("authenticated without an account")
        greeting = reply + AUTHENTICATION_OK
        if not account.database_exists:
            self._write(greeting)
            raise violated(f'database "{self.database}" does not exist', sqlstate="3D000")
        surplus = self._buffer
        self._buffer = b""
        self._state = _State.OVER
        self._accept(
            Accepted(
                account=account,
                user=self.user,
                database=self.database,
                parameters=startup.introduction.parameters,
                replication=startup.introduction.replication,
                minor=startup.spoken_minor,
                method=method,
                tls=self._tls,
                password=self._password,
                surplus=surplus,
                greeting=greeting,
            )
        )
