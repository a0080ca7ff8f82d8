"""Who may come in: accounts for logins, cancel keys, and the welcome of a client that proved who it is."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import mmh3

from node.auth.scram import ScramVerifier
from node.auth.verifier import Account, AuthType
from node.client import parameters
from node.client.deadlines import Deadlines
from node.client.entrance import Accepted
from node.client.login import LoginResult, status_messages
from node.client.protocol import ClientProtocol
from node.client.session import Session
from node.config.resolve import databases_of
from node.config.schema import Config
from node.errors import ClientFault, Fault, ServerFault
from node.pool.checkout import checkout
from node.routing.hints import Hints, setting_hints
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
_PID_BYTES = 4  # of randomness for a process id: more than CLIENT_BITS
# Welcomes that are kept ready, by user, database and startup parameters; all are dropped when there are more.
OPENINGS_LIMIT = 1_000


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


class Accounts:
    """`account` at the price of two look-ups: each is made once per configuration.

    Kept per user of the configuration and database of his, whatever outsiders ask for. A user who exists is answered
    from here for any database, so that no time is spent on him that a name nobody knows does not take.
    """

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self._made_of: Config | None = None
        self._accounts: dict[str, dict[str, Account]] = {}  # by user, then database; "": any other database

    def find(self, user: str, database: str) -> Account | None:
        config = self._config()
        if config is not self._made_of:
            self._made_of = config
            self._accounts = {}
        if database == config.admin.name:
            return account(config, user, database)
        known = self._accounts.get(user)
        if known is None:
            elsewhere = account(config, user, "")
            if elsewhere is None:
                return None
            known = self._accounts[user] = {"": elsewhere}
            for name in config.entries:
                here = account(config, user, name)
                if here is not None and here.database_exists and not here.is_admin:
                    known[name] = here
        return known.get(database) or known[""]


class Opening(NamedTuple):
    """What clients with equal startup parameters have in common. Shared by their sessions: never change it."""

    known: dict[str, str]  # the server's parameters it was made of
    startup: dict[str, str]
    tracked: tuple[str, ...]
    parameters: parameters.Parameters
    hints: Hints
    statuses: bytes  # ParameterStatus messages, all but application_name


def opening(asked: Mapping[str, str], known: dict[str, str]) -> Opening:
    """`asked` without application_name. Raises ClientFault for hints that make no sense."""
    startup = parameters.from_startup(asked, known)
    told = {
        name.encode(): startup.get(name.lower(), value).encode()
        for name, value in known.items()
        if name != "application_name"
    }
    return Opening(
        known,
        startup,
        tuple(startup),
        parameters.parameters(startup),
        setting_hints({**asked, "search_path": ""}),
        status_messages(told),
    )


class _Deaf:
    """Takes the place of a session that has ended: nothing it is told matters any more."""

    __slots__ = ("_linger", "_parting", "_protocol")

    def __init__(self, protocol: ClientProtocol, parting: set[ClientProtocol], linger: Deadlines) -> None:
        self._protocol = protocol
        self._parting = parting
        self._linger = linger

    def client_lost(self) -> None:
        self._parting.discard(self._protocol)
        self._linger.discard(self, LINGER_S)

    def expired(self) -> None:
        """It was told goodbye long enough ago."""
        if self._protocol.transport is not None:
            self._protocol.transport.close()

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
        self.watch: Callable[[Session], None] = lambda session: None  # its time-outs begin
        self._openings: dict[tuple[str, str, tuple[tuple[str, str], ...]], Opening] = {}
        # Bound once, not once per session.
        self._gone = self._closed
        self._part = self.part
        self._linger: Deadlines | None = None

    def __call__(self, protocol: ClientProtocol, result: LoginResult) -> None:
        """The greeting is still to be written: with the welcome, or before anything else."""
        try:
            database = self._door(protocol, result)
        except Fault as fault:
            result.transport.write(result.accepted.greeting)
            refuse(protocol, fault)
            return
        if database is None:
            return
        known = database.server_parameters()
        if known:
            self._admit(protocol, result, database, known, result.accepted.greeting)
        else:
            result.transport.write(result.accepted.greeting)
            self._spawn(self._learn_first(protocol, result, database))

    def _door(self, protocol: ClientProtocol, result: LoginResult) -> Database | None:
        """Whose guest it is; None: the console's. Raises Fault when it cannot be let in."""
        accepted = result.accepted
        if accepted.account.is_admin:
            result.transport.write(accepted.greeting)
            if self.console is not None:
                self.console(protocol, result)
            return None
        if not self.accepting:
            raise ClientFault("the database system is not accepting connections", sqlstate="57P03")
        if len(self._services.sessions) >= self.max_clients:
            raise ClientFault(
                "sorry, too many clients already",
                sqlstate="53300",
                detail=f"max_client_conn is {self.max_clients}.",
                severity="FATAL",
            )
        if accepted.replication not in ("", "false", "off", "no", "0"):
            raise ClientFault(
                "replication connections are not supported",
                sqlstate="0A000",
                hint="connect to the PostgreSQL server itself",
                severity="FATAL",
            )
        return self._databases.find(accepted.user, accepted.database)

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
            self._admit(protocol, result, database, database.server_parameters(), b"")

    def _admit(
        self,
        protocol: ClientProtocol,
        result: LoginResult,
        database: Database,
        known: dict[str, str],
        greeting: bytes,
    ) -> None:
        accepted, transport = result.accepted, result.transport
        try:
            found = self._opening(accepted, known)
        except Fault as fault:
            transport.write(greeting)
            refuse(protocol, fault)
            return
        self._numbered += 1
        number = self._numbered
        session = Session(
            number,
            self._services,
            accepted.account,
            database,
            write=transport.write,
            shell=protocol,
            now=self._clock(),
        )
        name = session.application_name = accepted.parameters.get("application_name", "")
        _, session.startup, session.tracked, session.parameters, session.hints, statuses = found
        pid, secret = session.pid, session.secret = self._key(SECRET_BYTES if accepted.minor >= 2 else 4)
        session.on_closed = self._gone
        protocol.part = self._part
        self._services.sessions[number] = session
        self.by_key[pid] = session
        transport.write(
            b"".join(
                (
                    greeting,
                    statuses,
                    messages.parameter_status(b"application_name", name.encode()),
                    messages.backend_key_data(pid, secret),
                    messages.READY_IDLE,
                )
            )
        )
        self.watch(session)
        if self.log_connections:
            log.info(
                "client_connected client=%s user=%s database=%s addr=%s:%s",
                number,
                accepted.user,
                accepted.database,
                *protocol.address(),
            )
        protocol.take(session)

    def _opening(self, accepted: Accepted, known: dict[str, str]) -> Opening:
        asked = accepted.parameters
        items = tuple(asked.items())
        if "application_name" in asked:
            items = tuple([item for item in items if item[0] != "application_name"])
        key = (accepted.user, accepted.database, items)
        found = self._openings.get(key)
        if found is None or found.known != known:
            found = opening(dict(items), known)
            if len(self._openings) >= OPENINGS_LIMIT:
                self._openings.clear()
            self._openings[key] = found
        return found

    def part(self, protocol: ClientProtocol) -> None:
        """Hangs up so that the client can read our last words. A socket that is closed while bytes of the client wait
        in it, or arrive later, resets the connection, and the client's system drops what the client has not read."""
        transport = protocol.transport
        if transport is None or transport.is_closing():
            return
        if self._linger is None:
            loop = asyncio.get_running_loop()
            self._linger = Deadlines(loop.call_later, loop.time)
        self.parting.add(protocol)
        protocol.receiver = deaf = _Deaf(protocol, self.parting, self._linger)
        self._linger.add(deaf, LINGER_S)
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def _key(self, secret_bytes: int) -> tuple[int, bytes]:
        """A cancel key that nobody has."""
        while True:
            chance = os.urandom(_PID_BYTES + secret_bytes)
            number = int.from_bytes(chance[:_PID_BYTES], "big") & ((1 << CLIENT_BITS) - 1)
            pid = self._tag << CLIENT_BITS | number
            if number and pid not in self.by_key:
                return pid, chance[_PID_BYTES:]

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
