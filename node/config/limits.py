"""A limit on everything that is received. Nothing here is configured: raising one of these needs a reason and a test.

The few limits an operator must choose are settings: `max_client_conn`, `query_size_limit`, `exchange_max_bytes`,
`prepared_statements_limit`, `query_cache_limit` in `[general]`. Packages below `config` get their limits as constructor
arguments, so that nobody reads them from a global.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Per node, unless the name says otherwise."""

    startup_packet_bytes: int = 10_000
    """StartupMessage; PostgreSQL's own limit (postmaster: MAX_STARTUP_PACKET_LENGTH)."""
    password_bytes: int = 10_000
    """PasswordMessage and SASL messages before a client is known."""
    held_message_bytes: int = 64 * 2**20
    """A message that must be held whole (Parse to rename, Query to route); others stream through."""
    message_bytes: int = 2**30 - 1
    """Any message: PostgreSQL's allocation limit (MaxAllocSize)."""
    query_bytes: int = 64 * 2**20
    """A query's text that we parse; `query_size_limit` may be lower."""
    parameters: int = 65_535
    """Parameters of one Bind; the protocol's 16 bits."""
    client_prepared_statements: int = 10_000
    """Names one client may have prepared."""
    client_portals: int = 1_000
    """Portals one client may have open."""
    startup_parameters: int = 256
    """Parameters in a StartupMessage."""
    waiting_clients: int = 10_000
    """Clients waiting for one pool; the next gets 53300 at once."""
    pipelined_replies: int = 65_536
    """Replies a server may owe; a client that sends more is not read until some arrive."""
    gossip_packet_bytes: int = 1200
    """A gossip datagram: fits into an IPv6 minimum MTU with headers."""
    control_message_bytes: int = 16 * 2**20
    """A message on the control channel; documents travel on it."""
    document_bytes: int = 4 * 2**20
    """Both files of a rollout together."""
    peers: int = 1024
    """Members of one flock."""
    admin_query_bytes: int = 4 * 2**20 + 65_536
    """A command on the admin console; ROLLOUT carries a document."""
    admin_result_rows: int = 100_000
    """Rows of one admin command."""
    http_request_bytes: int = 65_536
    """A request on the HTTP endpoints."""
    config_errors: int = 100
    """Errors listed of one file; more are counted."""


LIMITS = Limits()
