"""The slow gear of a session: coroutines that have a session while its state is SLOW, and give it back.

Handing over, both ways, is one method each: Services.slow_… starts a coroutine, `_back` ends it. While a coroutine
has the session nobody else touches its server; bytes that arrive wait in `requests`.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

from node.client import parameters
from node.client.again import SENT_AGAIN_MAX
from node.client.session import Session
from node.client.states import CLOSED, READY, SLOW
from node.errors import Fault, ServerFault
from node.server.connection import Lost, ServerConnection
from node.server.conversation import Conversation

log = logging.getLogger("pgmurmur.slow")

# How long a server may take to set or tell settings.
SETTINGS_TIMEOUT_S = 10.0


def back(session: Session) -> None:
    """Gives the session back to the fast gear."""
    session.services.slow_finished(session)
    if session.state == SLOW:
        session.state = READY
        session.resume_client()
        session.advance()


class Slow:
    """What sessions call through `Services`."""

    # What a server says between the call and the first step of a coroutine is not the client's either: the connection
    # changes hands in the call.

    def replay(self, session: Session) -> Coroutine[Any, Any, None]:
        """Makes the server's settings the session's, before the session's first byte reaches it."""
        return self._replay(session, _borrow(session))

    def ask(self, session: Session) -> Coroutine[Any, Any, None]:
        """After a SET: what are the session's settings now? Then the server goes back to its pool."""
        return self._ask(session, _borrow(session))

    async def unit(self, session: Session) -> None:
        from node.client.scatter import run_unit

        await run_unit(session)

    async def _replay(self, session: Session, talk: Conversation) -> None:
        server = talk.server
        try:
            await apply(talk, session.parameters)
            if not server.reusable:
                raise ServerFault(
                    "server closed the connection unexpectedly", sqlstate="08006", severity="FATAL"
                )  # its last words came behind its answer
        except Fault as fault:
            talk.end()
            session.server = None
            if fault.sqlstate.startswith(("08", "57")):
                server.close(Lost.UNCLEAN)
            else:
                server.dirty = True
            if server.pool is not None:
                server.pool.release(server)
            if session.state != CLOSED:
                # of a server that is gone the client has heard nothing, nor it of the client: another one will do
                if fault.severity == "FATAL" and session.sent_again < SENT_AGAIN_MAX:
                    session.sent_again += 1
                else:
                    session.requests.next()
                    session.fail(fault)
            back(session)
            return
        except BaseException:
            talk.end()
            if session.state != CLOSED:  # else its pool has it back already, and may have lent it to somebody
                server.close(Lost.UNCLEAN)
            raise
        talk.end()
        server.owner = session
        session.errors_before = server.pipeline.errors
        if session.begin_message:
            session.send_begin(server)
        back(session)

    async def _ask(self, session: Session, talk: Conversation) -> None:
        server = talk.server
        session.must_ask = False
        try:
            await learn(talk, session)
        except Fault as fault:
            talk.end()
            server.close(Lost.UNCLEAN)
            session.server = None
            log.warning("settings_unknown client=%s reason=%s", session.id, fault)
            fault.severity = "FATAL"
            session.fail(fault)
            return
        except BaseException:
            talk.end()
            if session.state != CLOSED:  # else its pool has it back already, and may have lent it to somebody
                server.close(Lost.UNCLEAN)
            raise
        talk.end()
        session.unlink()
        session.leave()
        back(session)


def _borrow(session: Session) -> Conversation:
    server = session.server
    assert server is not None
    server.owner = None
    return Conversation(server)


async def apply(talk: Conversation, wanted: parameters.Parameters) -> None:
    """Raises ServerFault with the server's own words when a setting is refused."""
    server: ServerConnection = talk.server
    have = server.parameters
    assert isinstance(have, parameters.Parameters)
    sql = parameters.replay(have, wanted)
    if sql:
        await talk.query(sql, SETTINGS_TIMEOUT_S)
    server.parameters = wanted


async def learn(talk: Conversation, session: Session) -> None:
    """Asks the server for the values of everything this session ever set."""
    server = talk.server
    names = [name for name in session.tracked if name not in parameters.UNTRACKED]
    if len(names) > parameters.MAX_NAMES:
        raise ServerFault(
            "too many settings changed in one session",
            sqlstate="53400",
            detail=f"{len(names)} settings; at most {parameters.MAX_NAMES} are carried from connection to connection.",
            hint="use session pooling for this client",
        )
    have = server.parameters
    assert isinstance(have, parameters.Parameters)
    values = dict(have.values)
    if names:
        results = await talk.query(parameters.ask(names), SETTINGS_TIMEOUT_S)
        for name in names:
            values.pop(name, None)
        values.update(parameters.answered(names, results[0].rows[0]))
    server.parameters = parameters.parameters(values)
    wanted = dict(values)
    for name in session.reset_settings:
        wanted[name] = session.startup[name]
    session.reset_settings = ()
    session.parameters = parameters.parameters(wanted)
