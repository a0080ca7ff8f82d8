"""What a client's settings do to the meaning of its texts: names by search_path, backslashes in strings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.errors import refused
from node.routing.hints import search_path_names

if TYPE_CHECKING:
    from node.client.session import Session
    from node.routing.catalog import Catalog

SEARCH_PATH = "search_path"
STRINGS = "standard_conforming_strings"


def has_settings(session: Session) -> bool:
    """Did this client, or something in its open transaction, set what matters here?"""
    if SEARCH_PATH in session.tracked or STRINGS in session.tracked:
        return True
    return bool(session.story) and (_told(session, SEARCH_PATH) or _told(session, STRINGS))


def _told(session: Session, name: str) -> bool:
    return any(name.encode() in told.request.sql.lower() for told in session.story)


def refuse_backslashes(session: Session, sql: bytes) -> None:
    """Texts are read with standard_conforming_strings on. Raises 0A000 where it may be off and would matter."""
    if b"\\" not in sql:
        return
    told = bool(session.story) and _told(session, STRINGS)
    if not told and STRINGS not in session.tracked:
        return
    if told or session.must_ask or session.parameters.values.get(STRINGS, "on") != "on":
        raise refused(
            "a backslash while standard_conforming_strings is off",
            hint="turn standard_conforming_strings on, or pass the string as a parameter",
        )


def catalog_of(session: Session) -> Catalog:
    """The shards' catalog, under the search_path that the client has set, if it ever did.

    What a statement of an open transaction made of it is asked for at the end; until then no name is certain.
    """
    catalog = session.catalog or session.database.layout.catalog
    told = bool(session.story) and _told(session, SEARCH_PATH)
    if not told and SEARCH_PATH not in session.tracked:
        return catalog
    if told or session.must_ask:
        return catalog.under(None)
    path = session.parameters.values.get(SEARCH_PATH)
    if path is None:
        return catalog
    user = session.account.user
    return catalog.under(tuple(user if name == "$user" else name for name in search_path_names(path)))
