"""Names of environment variables, without reading any: `load` gets the environment as a mapping."""

from __future__ import annotations

OWN_PREFIX = "PGMURMUR_"
PGDOG_PREFIX = "PGDOG_"

# twins of command line options that are no keys of [general]; tests/unit/cli compares this with the parser
OPTION_VARIABLES = frozenset(
    OWN_PREFIX + name
    for name in (
        "ADOPT",
        "CONFIG",
        "DATABASE",
        "FLOCK",
        "GOSSIP",
        "HASHER",
        "HTTP",
        "JSON",
        "KEY_FILE",
        "MDNS",
        "NODE_ID",
        "REGISTER",
        "SEED",
        "SHARDS",
        "STATE_DIR",
        "TIMEOUT",
        "TYPE",
        "USER",
        "USERS",
        "WATCH",
    )
)

# read by other parts: the build, the tests, the admin's password
OTHER_VARIABLES = frozenset(OWN_PREFIX + name for name in ("STRIP", "ADMIN_PASSWORD", "POSTGRES", "PYTHON", "VENV"))
