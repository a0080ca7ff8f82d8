"""Which tables a client's unqualified names mean: the catalog as its search_path reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from node.routing.hints import search_path_names

if TYPE_CHECKING:
    from node.client.session import Session
    from node.routing.catalog import Catalog

SEARCH_PATH = "search_path"


def changes_path(session: Session) -> bool:
    """Did something in the open transaction name search_path?"""
    return any(SEARCH_PATH.encode() in told.request.sql.lower() for told in session.story)


def catalog_of(session: Session) -> Catalog:
    """The shards' catalog, under the search_path that the client has set, if it ever did.

    What a statement of an open transaction made of it is asked for at the end; until then no name is certain.
    """
    catalog = session.catalog or session.database.layout.catalog
    told = bool(session.story) and changes_path(session)
    if not told and SEARCH_PATH not in session.tracked:
        return catalog
    if told or session.must_ask:
        return catalog.under(None)
    path = session.parameters.values.get(SEARCH_PATH)
    if path is None:
        return catalog
    user = session.account.user
    return catalog.under(tuple(user if name == "$user" else name for name in search_path_names(path)))
