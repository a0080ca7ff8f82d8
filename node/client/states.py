"""What the layers of a session (client/session.py) have in common."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# The state of a session; client/session.py tells what each one means.
READY, WAITING, SLOW, CLOSED, RIDING = range(5)

# Shared by all sessions that have none of their own; never written to.
EMPTY: Mapping[Any, Any] = MappingProxyType({})
