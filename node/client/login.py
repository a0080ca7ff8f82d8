"""A client logs in: an Entrance (client/entrance.py) on a transport, with TLS, timers and threads.

The client's protocol feeds `Login.receive` until `done` is called with everything that was learnt, the transport to use
from then on and the bytes the client sent after its password. What follows (ParameterStatus … ReadyForQuery) belongs
to the session: see `login_success_messages`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from node.auth.scram import Derived, derive
from node.auth.verifier import Account, Authenticator
from node.client.deadlines import Deadlines
from node.client.entrance import Accepted, Entrance, Find, LoginRules, TlsInfo, Wanted
from node.errors import Bug, ClientFault, Fault
from node.loop.secure import secure
from node.loop.sockets import Streaming
from node.tls import peer_identities
from node.wire import messages
from node.wire.startup import (
    CancelRequest,
)

log = logging.getLogger(__name__)

# How long a client that asks to cancel may wait for us to have passed it on.
CANCEL_TIMEOUT_S = 10.0
# Clear-text passwords that are held against a `password_hash` at the same time, a thread each; other logins wait for
# their turn. Anybody can send wrong ones, and the threads do other work, too.
PROVING_MAX = 2

PasswordCheck = Callable[[Account, str, str], Awaitable[bool]]
"""(account, database, password) → does a server accept it? A ServerFault is shown to the client."""


def _deadlines() -> Deadlines:
    loop = asyncio.get_running_loop()
    return Deadlines(loop.call_later, loop.time)


@dataclass(slots=True)
class Reception:
    """What every login of a listener shares. `rules` may be replaced at any time: it counts for new connections."""

    rules: LoginRules
    authenticator: Authenticator
    find: Find
    cancel: Callable[[CancelRequest], Awaitable[None]]
    check_password: PasswordCheck | None = None  # None: passthrough always fails
    deadlines: Deadlines = field(default_factory=_deadlines)
    _deriving: dict[Wanted, asyncio.Future[None]] = field(default_factory=dict)
    _proving: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(PROVING_MAX))

    async def warm(self, accounts: list[Account]) -> None:
        """Derives the SCRAM keys of these accounts beside the event loop, 1.5 ms of a thread each."""
        for wanted in self.authenticator.to_derive(accounts):
            await self.derived(wanted)

    async def derived(self, wanted: Wanted) -> None:
        """These keys are in the cache. Whoever wants the same ones meanwhile waits for the same thread."""
        if self.authenticator.cache.holds(*wanted):
            return
        running = self._deriving.get(wanted)
        if running is None:
            running = self._deriving[wanted] = asyncio.ensure_future(self._derive(wanted))
        await asyncio.shield(running)

    async def proved(self, wanted: Wanted) -> Derived:
        """What a client's own password leads to: beside the event loop, and kept nowhere."""
        async with self._proving:
            return await asyncio.get_running_loop().run_in_executor(None, derive, *wanted)

    async def _derive(self, wanted: Wanted) -> None:
        try:
            found = await asyncio.get_running_loop().run_in_executor(None, derive, *wanted)
            self.authenticator.cache.put(*wanted, found)
        finally:
            del self._deriving[wanted]


@dataclass(frozen=True, slots=True)
class LoginResult:
    accepted: Accepted
    transport: asyncio.Transport  # another one than at the start when TLS came between


def status_messages(parameters: Mapping[bytes, bytes]) -> bytes:
    return b"".join([messages.parameter_status(name, value) for name, value in parameters.items()])


def login_success_messages(parameters: Mapping[bytes, bytes], pid: int, secret: bytes) -> bytes:
    """What follows AuthenticationOk; `secret` longer than 4 bytes only for protocol 3.2."""
    return status_messages(parameters) + messages.backend_key_data(pid, secret) + messages.READY_IDLE


class Login:
    """Runs an Entrance on a transport. `protocol` is who receives the transport's bytes and passes them to `receive`.

    `done` is called at most once, and never after `lost`. A refused client is answered and closed here. With
    `hold_greeting` whoever is `done` writes `accepted.greeting` before anything else, best in one piece with
    `login_success_messages`: every write is a system call. `local` says whether the client came by a UNIX
    socket; None asks the transport, which makes an object that stays with it.
    """

    __slots__ = (*("_done", "_entrance", "_hold_greeting", "_protocol", "_reception", "_rules", "_task", "_transport"),)

    def __init__(
        self,
        protocol: Streaming,
        transport: asyncio.Transport,
        reception: Reception,
        done: Callable[[LoginResult], None],
        *,
        hold_greeting: bool = False,
        local: bool | None = None,
    ) -> None:
        self._protocol = protocol
        self._transport = transport
        self._reception = reception
        self._done = done
        self._hold_greeting = hold_greeting
        self._task: asyncio.Task[None] | None = None
        rules = reception.rules
        self._rules = rules
        if local is None:
            local = isinstance(transport.get_extra_info("sockname"), str)
        self._entrance: Entrance | None = Entrance(
            rules,
            reception.authenticator,
            reception.find,
            local=local,
            write=self._write,
            upgrade=self._upgrade,
            check=self._check,
            accept=self._accept,
            cancel=self._pass_on,
            refuse=self._refuse,
            derive=self._derive,
            prove=self._prove,
        )
        reception.deadlines.add(self, rules.timeout_s)

    def receive(self, data: bytes) -> None:
        if self._entrance is not None:
            self._entrance.receive(data)

    def lost(self) -> None:
        """The connection is gone: stops everything, calls nobody."""
        self._over()
        if self._task is not None:
            self._task.cancel()
        self._done = _nobody

    def refuse(self, fault: ClientFault) -> None:
        """Ends the login from outside: shutdown, too many clients. The client reads the fault."""
        entrance = self._entrance
        if entrance is None:
            return
        if entrance.shaking_hands:
            self._over()
            self._transport.abort()
        else:
            entrance.fail(fault)

    # -- the entrance's hands ------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    def _over(self) -> None:
        """No time-out any more. Letting go of the entrance, which holds our hands, leaves nothing behind that only the
        garbage collector could find: at a thousand logins per second that would be most of its work."""
        self._reception.deadlines.discard(self, self._rules.timeout_s)
        self._entrance = None

    def _accept(self, accepted: Accepted) -> None:
        self._over()
        if self._transport.is_closing():
            return
        if self._task is not None:  # passthrough: nothing was read while the server was asked
            self._transport.resume_reading()
        if not self._hold_greeting:
            self._transport.write(accepted.greeting)
        self._done(LoginResult(accepted, self._transport))

    def _refuse(self, fault: ClientFault) -> None:
        entrance = self._entrance
        self._over()
        log.info(
            "login refused client=%s user=%s database=%s sqlstate=%s reason=%s",
            self._transport.get_extra_info("peername") or "local",
            entrance.user if entrance is not None else "",
            entrance.database if entrance is not None else "",
            fault.sqlstate,
            fault.message,
        )
        if not self._transport.is_closing():
            self._transport.write(messages.error_response(fault))
            self._transport.close()

    def expired(self) -> None:
        self.refuse(ClientFault("client login timeout", sqlstate="28000", severity="FATAL"))

    # -- what takes time: nothing is read meanwhile, so nothing piles up -----------------------------------------

    def _upgrade(self, already_read: bytes) -> None:
        self._start(self._shake_hands(already_read))

    def _check(self, account: Account, database: str, password: str) -> None:
        self._start(self._ask_server(account, database, password))

    def _derive(self, account: Account) -> None:
        self._start(self._derive_keys(account))

    def _prove(self, wanted: Wanted) -> None:
        self._start(self._derive_answer(wanted))

    def _pass_on(self, request: CancelRequest) -> None:
        self._start(self._cancel(request))

    def _start(self, work: Awaitable[None]) -> None:
        self._transport.pause_reading()
        self._task = asyncio.ensure_future(work)

    async def _shake_hands(self, already_read: bytes) -> None:
        tls = self._rules.tls
        if tls is None:
            raise Bug("TLS was offered without a certificate")
        try:
            self._transport = await secure(
                self._transport, self._protocol, tls.context, server_side=True, already_read=already_read
            )
        except OSError as error:
            log.info("login refused reason=tls handshake failed: %s", error)
            self._task = None
            self._protocol.connection_lost(error)  # nobody else tells it; it calls `lost`
            return
        self._task = None
        entrance = self._entrance
        if entrance is None:
            return
        peer = self._transport.get_extra_info("ssl_object")
        certificate = peer.getpeercert(binary_form=True)
        entrance.secured(
            TlsInfo(
                version=peer.version() or "",
                cipher=(peer.cipher() or ("",))[0],
                alpn=peer.selected_alpn_protocol(),
                identities=None if certificate is None else peer_identities(certificate),
            )
        )
        if not self._transport.is_closing():
            self._transport.resume_reading()

    async def _derive_keys(self, account: Account) -> None:
        reception = self._reception
        for wanted in reception.authenticator.to_derive((account,)):
            await reception.derived(wanted)
        self._task = None
        if self._entrance is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._entrance.derived()

    async def _derive_answer(self, wanted: Wanted) -> None:
        derived = await self._reception.proved(wanted)
        self._task = None
        if self._entrance is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._entrance.proved(derived)

    async def _ask_server(self, account: Account, database: str, password: str) -> None:
        check = self._reception.check_password
        try:
            accepted = check is not None and await check(account, database, password)
        except Fault as fault:
            if self._entrance is not None:
                self._entrance.fail(fault)
        else:
            if self._entrance is not None:
                self._entrance.checked(accepted)

    async def _cancel(self, request: CancelRequest) -> None:
        """The client waits for the connection to be closed: only then the request has been dealt with."""
        self._over()
        try:
            async with asyncio.timeout(CANCEL_TIMEOUT_S):
                await self._reception.cancel(request)
        except (TimeoutError, Fault) as error:
            log.info("cancel failed pid=%s reason=%s", request.pid, error)
        finally:
            self._transport.close()


def _nobody(_: LoginResult) -> None:
    """Where a result goes when the client left before it."""
