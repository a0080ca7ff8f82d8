"""Who may come in: accounts for logins, cancel keys, and the welcome of a client that proved who it is."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import mmh3

from node.auth.scram import ScramVerifier
from node.auth.verifier import Account, AuthType
from node.client import parameters
from node.client.login import LoginResult, login_success_messages
from node.client.protocol import ClientProtocol
from node.client.session import Session
from node.config.resolve import databases_of
from node.config.schema import Config
from node.errors import ClientFault, Fault, ServerFault
from node.pool.checkout import checkout
from node.routing.hints import setting_hints
from node.wire import messages

if TYPE_CHECKING:
    from node.client.services import Services
    from node.database import Database
    from node.databases import Databases

log = logging.getLogger("pgmurmur.client")

# A cancel key's process id: 11 bits that name the member, 20 that number its clients. Any member can tell whose it is.
CLIENT_BITS = 20
# A client that was told goodbye is read, and what it says dropped, until it hangs up or so long.
LINGER_S = 1.0
SECRET_BYTES = 32  # of protocol 3.2; clients of 3.0 get the four bytes they can take


def member_tag(node: str) -> int:
    return mmh3.hash(node.encode(), signed=False) & 0x7FF


def account(config: Config, user: str, database: str) -> Account | None:
    """What a login of `user` into `database` must prove; None: nobody knows that user."""
    general, admin = config.general, config.admin
    auth_type = AuthType(general.auth_type.value)
    if database == admin.name:
        if user != admin.user:
            return None
        password = admin.password.get_secret_value() if admin.password is not None else ""
        return Account(user, auth_type, (password,) if password else (), is_admin=True)
    entries = [entry for entry in config.users if entry.name == user]
    if not entries:
        return None
    found = next((entry for entry in entries if database in databases_of(config, entry)), None)
    entry = found or entries[0]
    passwords = tuple(secret.get_secret_value() for secret in entry.accepted)
    verifier = ScramVerifier.parse(entry.password_hash.get_secret_value()) if entry.password_hash is not None else None
    return Account(
        user,
        auth_type,
        passwords,
        verifier,
        database_exists=found is not None,
        identity=entry.identity,
        certificate_required=entry.tls_client_certificate_required is not False,
    )


class _Deaf:
    """Takes the place of a session that has ended: nothing it is told matters any more."""

    def __init__(self, gone: Callable[[], None]) -> None:
        self.client_lost = gone

    def from_client(self, data: bytes) -> None:
        return

    def client_pause(self) -> None:
        return

    def client_resume(self) -> None:
        return


class Welcome:
    """Turns an accepted login into a Session."""

    def __init__(
        self,
        services: Services,
        databases: Databases,
        node: str,
        clock: Callable[[], float],
        spawn: Callable[[Awaitable[None]], object],
    ) -> None:
        self._services = services
        self._databases = databases
        self._tag = member_tag(node)
        self._clock = clock
        self._spawn = spawn
        self._numbered = 0
        self.by_key: dict[int, Session] = {}
        self.max_clients = 10_000
        self.console: Callable[[ClientProtocol, LoginResult], None] | None = None
        self.log_connections = self.log_disconnections = True
        self.accepting = True
        self.parting: set[ClientProtocol] = set()

    def __call__(self, protocol: ClientProtocol, result: LoginResult) -> None:
        accepted = result.accepted
        if accepted.account.is_admin:
            if self.console is not None:
                self.console(protocol, result)
            return
        if not self.accepting:
            refuse(protocol, ClientFault("the database system is not accepting connections", sqlstate="57P03"))
            return
        if len(self._services.sessions) >= self.max_clients:
            refuse(
                protocol,
                ClientFault(
                    "sorry, too many clients already",
                    sqlstate="53300",
                    detail=f"max_client_conn is {self.max_clients}.",
                    severity="FATAL",
                ),
            )
            return
        if accepted.replication not in ("", "false", "off", "no", "0"):
            refuse(
                protocol,
                ClientFault(
                    "replication connections are not supported",
                    sqlstate="0A000",
                    hint="connect to the PostgreSQL server itself",
                    severity="FATAL",
                ),
            )
            return
        try:
            database = self._databases.find(accepted.user, accepted.database)
        except Fault as fault:
            refuse(protocol, fault)
            return
        known = database.server_parameters()
        if known:
            self._admit(protocol, result, database, known)
        else:
            self._spawn(self._learn_first(protocol, result, database))

    async def _learn_first(self, protocol: ClientProtocol, result: LoginResult, database: Database) -> None:
        """The first client of a database waits for its first server connection, whose parameters it is told."""
        try:
            pool = database.balancers[0].pools[0]
            pool.release(await checkout(pool))
        except ServerFault as fault:
            fault.severity = "FATAL"
            refuse(protocol, fault)
            return
        if protocol.transport is not None and not protocol.transport.is_closing():
            self._admit(protocol, result, database, database.server_parameters())

    def _admit(self, protocol: ClientProtocol, result: LoginResult, database: Database, known: dict[str, str]) -> None:
        accepted, transport = result.accepted, result.transport
        self._numbered += 1
        number = self._numbered
        peer = transport.get_extra_info("peername")
        session = Session(
            number,
            self._services,
            accepted.account,
            database,
            write=transport.write,
            close=lambda: self.part(protocol),
            pause_reading=transport.pause_reading,
            resume_reading=transport.resume_reading,
            address=(str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else ("unix", 0),
            now=self._clock(),
        )
        asked = dict(accepted.parameters)
        session.application_name = asked.get("application_name", "")
        session.startup = parameters.from_startup(asked, known)
        session.tracked = tuple(session.startup)
        session.parameters = parameters.parameters(session.startup)
        session.hints = setting_hints({**asked, "search_path": ""})
        session.pid = self._key()
        session.secret = secrets.token_bytes(SECRET_BYTES if accepted.minor >= 2 else 4)
        session.on_closed = self._closed
        self._services.sessions[number] = session
        self.by_key[session.pid] = session
        told = {name: value for name, value in known.items() if name != "application_name"}
        told["application_name"] = session.application_name
        for name in list(told):
            low = name.lower()
            if low in session.startup:
                told[name] = session.startup[low]
        session.write(
            login_success_messages(
                {name.encode(): value.encode() for name, value in told.items()}, session.pid, session.secret
            )
        )
        if self.log_connections:
            log.info(
                "client_connected client=%s user=%s database=%s addr=%s:%s",
                number,
                accepted.user,
                accepted.database,
                *session.address,
            )
        protocol.take(session)

    def part(self, protocol: ClientProtocol) -> None:
        """Hangs up so that the client can read our last words. A socket that is closed while bytes of the client wait
        in it, or arrive later, resets the connection, and the client's system drops what the client has not read."""
        transport = protocol.transport
        if transport is None or transport.is_closing():
            return
        self.parting.add(protocol)
        protocol.receiver = _Deaf(lambda: self.parting.discard(protocol))
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()
        asyncio.get_running_loop().call_later(LINGER_S, transport.close)

    def _key(self) -> int:
        while True:
            pid = self._tag << CLIENT_BITS | secrets.randbelow((1 << CLIENT_BITS) - 1) + 1
            if pid not in self.by_key:
                return pid

    def _closed(self, session: Session) -> None:
        self._services.sessions.pop(session.id, None)
        self.by_key.pop(session.pid, None)
        if self.log_disconnections:
            log.info("client_disconnected client=%s queries=%s", session.id, session.queries)


def refuse(protocol: ClientProtocol, fault: Fault) -> None:
    """A FATAL instead of a welcome."""
    transport = protocol.transport
    if transport is None or transport.is_closing():
        return
    fault.severity = "FATAL"
    transport.write(messages.error_response(fault))
    transport.close()
