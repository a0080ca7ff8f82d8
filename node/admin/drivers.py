"""What drivers say to any server when they connect, begin or give a connection back: accepted here, without effect.

Without it psycopg2 would need autocommit and JDBC could not log in. Nothing of it changes the node.
"""

from __future__ import annotations

from node.admin.answers import Answer, Field, Type
from node.admin.call import Call
from node.admin.tokens import Arguments, Kind

SERVER_VERSION = "18.0"
"""Of the grammar that the node parses with; drivers decide by it what to ask."""

# PostgreSQL's settings that drivers read, and what is true of this console
SETTINGS = {
    "server_version": SERVER_VERSION,
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "integer_datetimes": "on",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "transaction_isolation": "read committed",
    "default_transaction_isolation": "read committed",
    "transaction_read_only": "off",
    "default_transaction_read_only": "off",
    "in_hot_standby": "off",
    "is_superuser": "off",
    "max_identifier_length": "63",
}

# `SET name TO …` of these succeeds and does nothing
ACCEPTED = frozenset(SETTINGS) | {
    "application_name",
    "bytea_output",
    "client_min_messages",
    "extra_float_digits",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "names",
    "row_security",
    "search_path",
    "statement_timeout",
    "synchronous_commit",
    "transaction",
    "xmloption",
}

_SPELLED = {
    ("TRANSACTION", "ISOLATION", "LEVEL"): "transaction_isolation",
    ("TIME", "ZONE"): "TimeZone",
}

UNLOCK_ALL = (Field("pg_advisory_unlock_all", Type.TEXT),)


async def accepted(call: Call) -> Answer:
    """The tag is PostgreSQL's; ReadyForQuery says I all the same, so a driver sees that no transaction is open."""
    tags = {"END": "COMMIT", "ABORT": "ROLLBACK", "RESET ALL": "RESET", "CLOSE ALL": "CLOSE CURSOR ALL"}
    return Answer(tags.get(call.tag, call.tag))


async def unlock_all(call: Call) -> Answer:
    call.arguments.end()
    return Answer("SELECT 1", UNLOCK_ALL, [("",)])


def _shown(arguments: Arguments) -> str:
    """The name after SHOW, as the result's column is called."""
    for words, name in _SPELLED.items():
        if arguments.keyword(*words):
            arguments.end()
            return name
    name = arguments.take("the name of a setting", Kind.WORD, Kind.NAME)
    arguments.end()
    return name


def show_fields(arguments: Arguments) -> tuple[Field, ...]:
    return (Field(_shown(arguments), Type.TEXT),)


def show(arguments: Arguments) -> Answer:
    """Any other SHOW: PgDog answers an empty value, so that drivers which ask for a setting go on."""
    name = _shown(arguments)
    return Answer("SHOW", (Field(name, Type.TEXT),), [(SETTINGS.get(name.lower(), ""),)])
