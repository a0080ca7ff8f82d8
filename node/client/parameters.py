"""What a client has set, and what a server has been told: interned, so that "the same" is one comparison of identity.

Names are lower case, values are what `current_setting(name)` says. The values a client wants are asked of PostgreSQL
itself after every statement that may have changed them (`ask`), because only PostgreSQL knows what SET LOCAL, a
savepoint, set_config(…) or a function with a SET clause left behind. So nothing here models transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from weakref import WeakValueDictionary

# A client that sets more names than this keeps its server connection instead (limit of one Parameters value).
MAX_NAMES = 64

# Settings a session cannot carry from one server connection to another, or that say who the connection is. The
# application_name of a startup packet is not replayed: ours names the node, so that what a dead node left running
# on a server can be found and ended.
UNTRACKED = frozenset(
    {
        "user",
        "database",
        "replication",
        "options",
        "server_version",
        "server_version_num",
        "server_encoding",
        "integer_datetimes",
        "is_superuser",
        "in_hot_standby",
        "transaction_isolation",
        "transaction_read_only",
        "transaction_deferrable",
        "seed",
    }
)

# Changing these changes what one may change: they are set last and reset first.
_IDENTITY = ("session_authorization", "role")


class Parameters:
    """An immutable mapping name → value. Equal values are the same object: compare with `is`."""

    __slots__ = ("__weakref__", "items", "names", "values")

    def __init__(self, items: tuple[tuple[str, str], ...]) -> None:
        self.items = items
        self.values = dict(items)
        self.names = tuple(self.values)

    def __repr__(self) -> str:
        return f"Parameters({self.values!r})"


_interned: WeakValueDictionary[tuple[tuple[str, str], ...], Parameters] = WeakValueDictionary()


def parameters(values: Mapping[str, str]) -> Parameters:
    """The one Parameters object with these values."""
    key = tuple(sorted(values.items()))
    found = _interned.get(key)
    if found is None:
        found = Parameters(key)
        _interned[key] = found
    return found


NONE = parameters({})


def literal(text: str) -> str:
    """A string literal that means the same with standard_conforming_strings on and off."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def identifier(name: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("."))


def replay(server: Parameters, client: Parameters) -> str:
    """SQL, one implicit transaction, that gives a connection with the settings `server` those of `client`."""
    have, want = server.values, client.values
    changed = [name for name in client.names if have.get(name) != want[name]]
    gone = [name for name in server.names if name not in want]
    ordered_gone = [n for n in _IDENTITY if n in gone] + [n for n in gone if n not in _IDENTITY]
    ordered = [n for n in changed if n not in _IDENTITY] + [n for n in _IDENTITY if n in changed]
    statements = [_reset(name) for name in ordered_gone]
    if ordered:
        calls = ", ".join(f"pg_catalog.set_config({literal(n)},{literal(want[n])}, false)" for n in ordered)
        statements.append(f"SELECT {calls}")
    return "; ".join(statements)


def _reset(name: str) -> str:
    if name == "role":
        return "RESET ROLE"
    return "RESET SESSION AUTHORIZATION" if name == "session_authorization" else f"RESET {identifier(name)}"


def ask(names: Iterable[str]) -> str:
    """SQL whose one row holds the current values of these settings, NULL where one does not exist."""
    return "SELECT " + ", ".join(f"pg_catalog.current_setting({literal(name)}, true)" for name in names)


def answered(names: Iterable[str], row: Iterable[bytes | None]) -> dict[str, str]:
    """What `ask` found out, by name."""
    return {n: v.decode("utf-8", "surrogateescape") for n, v in zip(names, row, strict=True) if v is not None}


def from_startup(asked: Mapping[str, str], server_default: Mapping[str, str]) -> dict[str, str]:
    """What a startup packet asks for and a server does not have anyway.

    `server_default` holds the ParameterStatus values of a fresh server connection.
    """
    wanted: dict[str, str] = {}
    lowered = {name.lower(): value for name, value in server_default.items()}
    for name, value in asked.items():
        low = name.lower()
        if low in UNTRACKED or low == "application_name" or low.startswith(("_pq_.", "pgdog.", "pgmurmur.")):
            continue
        if low == "client_encoding" and value.replace("-", "").replace("_", "").lower() in ("utf8", "unicode"):
            value = "UTF8"
        if lowered.get(low) == value or (low == "datestyle" and _same_datestyle(lowered.get(low, ""), value)):
            continue
        wanted[low] = value
    return wanted


def _same_datestyle(have: str, wanted: str) -> bool:
    """'ISO' alone leaves the field order as it is."""
    return wanted.strip().lower() == have.split(",")[0].strip().lower()
