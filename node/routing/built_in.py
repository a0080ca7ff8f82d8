"""What PostgreSQL itself brings, as far as `pgmurmur route` needs it; a node asks its servers. Lists, no logic.

Neither complete nor of one version: what is missing counts as not known, and the line says so.
"""

# ruff: noqa: SIM905 - a list of words reads better than a list of literals
from __future__ import annotations

from dataclasses import replace
from typing import Final

from node.routing.catalog import Catalog
from node.routing.select_names import CLOCKS, HARMLESS, MERGED, OTHER_AGGREGATES

OPERATORS: Final = frozenset(
    """= <> < > <= >= + - * / % ^ | & # ~ << >> || !! ~~ !~~ ~~* !~~* ~* !~ !~* @> <@ && -> ->> #> #>> ? ?| ?& @? @@
    #- -|- &< &> ~= <-> @""".split()
)
TYPES: Final = frozenset(
    """bool bytea char name int8 int2 int4 text oid json jsonb xml point box path polygon circle line lseg float4 float8
    money bpchar varchar date time timetz timestamp timestamptz interval bit varbit numeric uuid tsvector tsquery cidr
    inet macaddr macaddr8 regclass regtype regproc int4range int8range numrange daterange tsrange tstzrange
    jsonpath""".split()
)
# not in PostgreSQL's catalogue as functions: the grammar knows them, or they are of another release
_ELSEWHERE: Final = frozenset(("greatest", "least", "grouping"))
FUNCTIONS: Final = (HARMLESS | CLOCKS | OTHER_AGGREGATES | frozenset(MERGED)) - _ELSEWHERE


def sharing_catalog(catalog: Catalog) -> Catalog:
    """The tables of a file, and what every PostgreSQL has: enough to say which statements may share a server."""
    return replace(
        catalog,
        functions=dict.fromkeys(FUNCTIONS, "s"),
        operators=dict.fromkeys(OPERATORS, "i"),
        type_names=TYPES,
    )
