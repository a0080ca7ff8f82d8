"""Commands that change something on this node."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from node.admin.answers import Answer, Field, Notice, Type
from node.admin.call import Call
from node.admin.drivers import ACCEPTED
from node.admin.tokens import Arguments, Kind
from node.errors import ClientFault, ServerFault
from node.gate import Gate, Reason
from node.server.connect import Target
from node.server.simple import SimpleClient

if TYPE_CHECKING:
    from node.admin.ports import Node
    from node.pool.pool import Pool

PROBE_TIMEOUT_S = 5.0
LATENCY = (Field("latency", Type.BIGINT),)


# --- configuration ---------------------------------------------------------------------------------------------------


async def reload(call: Call) -> Answer:
    call.arguments.end()
    notices = [Notice(text) for text in await call.node.reload()]
    if len(call.node.members()) > 1:
        notices.append(
            Notice("RELOAD changes this node only", hint="ROLLOUT gives all nodes of the flock one configuration")
        )
    return Answer("RELOAD", notices=notices)


async def set_setting(call: Call) -> Answer:
    """`SET [SESSION | LOCAL] name { TO | = } value`; PostgreSQL's own settings are accepted for the drivers' sake."""
    arguments = call.arguments
    if arguments.keyword("SESSION", "CHARACTERISTICS") or arguments.keyword("TIME", "ZONE"):
        return Answer("SET")
    _ = arguments.keyword("SESSION") or arguments.keyword("LOCAL")
    name = arguments.take("the name of a setting", Kind.WORD, Kind.NAME)
    if name.lower() in ACCEPTED:
        return Answer("SET")
    if not arguments.symbol("=") and not arguments.keyword("TO"):
        raise arguments.wrong("TO or =")
    value = arguments.name("a value")
    arguments.end()
    call.node.set_setting(name.lower(), value)
    return Answer("SET")


async def shutdown(call: Call) -> Answer:
    call.arguments.end()
    call.node.shutdown()
    return Answer("SHUTDOWN", notices=[Notice("the node finishes what runs and stops")])


# --- the brake -------------------------------------------------------------------------------------------------------


def _databases(node: Node) -> set[str]:
    return {database for _, database in node.databases.by_user}


def _known(node: Node, name: str) -> str:
    if name not in _databases(node):
        raise ClientFault(f'database "{name}" does not exist', sqlstate="3D000", hint="SHOW POOLS lists the databases")
    return name


def _gates(node: Node, name: str | None) -> list[Gate]:
    """The gate of one database, or of all."""
    wanted = sorted(_databases(node)) if name is None else [_known(node, name)]
    return [node.databases.gates[one] for one in wanted]


def _pools(node: Node, database: str | None = None, user: str | None = None) -> list[Pool]:
    return [
        pool
        for pool in node.databases.pools
        if (database is None or pool.database == database) and (user is None or pool.user == user)
    ]


def _named(arguments: Arguments) -> list[str]:
    names: list[str] = []
    while arguments.more and len(names) < 2:
        names.append(arguments.name("a database"))
    arguments.end()
    return names


def _user_pools(node: Node, names: list[str]) -> list[Pool]:
    user, database = names
    _known(node, database)
    found = _pools(node, database, user)
    if not found:
        raise ClientFault(f'user "{user}" has no pool for database "{database}"', sqlstate="3D000")
    return found


async def pause(call: Call) -> Answer:
    """Clients wait at the gate. The pools of a database are paused once its running transactions have ended: one that
    needs another shard's connection must still get it."""
    node, names = call.node, _named(call.arguments)
    if len(names) == 2:
        # the gate is every user's; one user alone is held back at its pools
        for pool in _user_pools(node, names):
            pool.pause()
        return Answer("PAUSE")
    for gate in _gates(node, names[0] if names else None):
        gate.close(Reason.PAUSE)
        gate.when_drained(_pause_drained(node, gate))
    return Answer("PAUSE")


def _pause_drained(node: Node, gate: Gate) -> Callable[[], None]:
    def drained() -> None:
        if Reason.PAUSE in gate.reasons:  # RESUME may have come first
            for pool in _pools(node, gate.database):
                pool.pause()

    return drained


async def resume(call: Call) -> Answer:
    node, names = call.node, _named(call.arguments)
    if len(names) == 2:
        for pool in _user_pools(node, names):
            pool.resume()
        return Answer("RESUME")
    for gate in _gates(node, names[0] if names else None):
        for pool in _pools(node, gate.database):
            pool.resume()
        gate.open(Reason.PAUSE)
    return Answer("RESUME")


async def maintenance(call: Call) -> Answer:
    """New transactions of all databases, or of one, wait; running ones go on."""
    arguments = call.arguments
    name = arguments.name("a database") if arguments.more else None
    arguments.end()
    for gate in _gates(call.node, name):
        if call.words[1] == "ON":
            gate.close(Reason.MAINTENANCE)
        else:
            gate.open(Reason.MAINTENANCE)
    return Answer(call.tag if name is None else f"{call.tag} {name}")


# --- servers ---------------------------------------------------------------------------------------------------------


def _chosen(call: Call) -> list[Pool]:
    """All pools, or the one whose id was given."""
    if not call.arguments.more:
        return call.node.databases.pools
    number = call.arguments.integer("the id of a pool")
    call.arguments.end()
    for pool in call.node.databases.pools:
        if pool.id == number:
            return [pool]
    raise ClientFault(f"pool {number} does not exist", sqlstate="42704", hint="SHOW POOLS lists them with their ids")


async def reconnect(call: Call) -> Answer:
    call.arguments.end()
    for pool in call.node.databases.pools:
        pool.reconnect()
    return Answer("RECONNECT")


async def ban(call: Call) -> Answer:
    for pool in _chosen(call):
        pool.health.ban_by_hand()
    return Answer("BAN")


async def unban(call: Call) -> Answer:
    for pool in _chosen(call):
        pool.health.unban()
    return Answer("UNBAN")


async def healthcheck(call: Call) -> Answer:
    """An idle connection is checked, or a new one opened and thrown away. What fails is told in notices."""
    notices = []
    for pool in _chosen(call):
        fault = await _check(call.node, pool)
        if fault is not None:
            notices.append(Notice(f"pool {pool.id}: {pool.target.address} is not healthy", detail=str(fault)))
    return Answer("HEALTHCHECK", notices=notices)


async def _check(node: Node, pool: Pool) -> ServerFault | None:
    settings = pool.settings
    try:
        client = await SimpleClient.connect(pool.target, timeout_s=settings.connect_timeout_s)
        try:
            await client.query(";", timeout_s=settings.healthcheck_timeout_s)
        finally:
            client.close()
    except ServerFault as fault:
        pool.health.failed(fault.message, node.clock(), settings.ban_timeout_s, may_ban=pool.role == "replica")
        return fault
    pool.health.succeeded()
    return None


async def probe(call: Call) -> Answer:
    """How long `SELECT 1` takes on any server, without connecting; in ms."""
    target = probe_target(call.arguments.raw("a URL"))
    call.arguments.end()
    client = await SimpleClient.connect(target, timeout_s=PROBE_TIMEOUT_S)
    try:
        before = call.node.clock()
        await client.query("SELECT 1", timeout_s=PROBE_TIMEOUT_S)
        took_s = call.node.clock() - before
    finally:
        client.close()
    return Answer("PROBE", LATENCY, [(round(took_s * 1000),)])


def probe_target(url: str) -> Target:
    """postgres://user:password@host:port/database, parts percent-encoded where needed. Raises ClientFault 22023."""
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
        query = parse_qs(parts.query)
    except ValueError as error:
        raise _bad_url(str(error)) from None
    if parts.scheme not in ("postgres", "postgresql"):
        raise _bad_url("it must begin with postgres://")
    if not parts.username:
        raise _bad_url("it names no user")
    host = query.get("host", [parts.hostname or ""])[0]
    if not host:
        raise _bad_url("it names no host")
    user = unquote(parts.username)
    texts = (user, unquote(parts.path[1:]) or user, unquote(parts.password or ""), host)
    if any("\0" in text for text in texts):
        raise _bad_url("it has a zero byte")
    return Target(host=host, port=port, user=user, database=texts[1], passwords=(texts[2],) if texts[2] else ())


def _bad_url(reason: str) -> ClientFault:
    # the URL itself is not repeated: it may have a password
    return ClientFault(
        "invalid URL", sqlstate="22023", detail=reason, hint="write it as postgres://user:password@host:port/database"
    )


# --- caches ----------------------------------------------------------------------------------------------------------


async def reset_prepared(call: Call) -> Answer:
    call.arguments.end()
    call.node.services.prepared.reset()
    return Answer("RESET PREPARED")


async def reset_query_cache(call: Call) -> Answer:
    call.arguments.end()
    cache = call.node.services.shapes.cache
    cache.clear()
    cache.hits = cache.misses = 0
    return Answer("RESET QUERY CACHE")


async def not_supported(call: Call) -> Answer:
    raise ClientFault(f"{call.tag} is not supported yet", sqlstate="0A000")
