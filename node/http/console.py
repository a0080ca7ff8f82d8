"""The console as a page: tables that anybody on the HTTP port may see, drawn without scripts. No secrets go in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

REFRESH_S = 2
MAX_ROWS = 1000  # per table; a page is for eyes, the rest is in SHOW

_STYLE = """
:root { color-scheme: light dark; font: 14px/1.4 system-ui, sans-serif }
body { margin: 2rem } h1 { font-size: 1.3rem } h2 { font-size: 1rem; margin: 1.6rem 0 .4rem }
table { border-collapse: collapse } th, td { padding: .2rem .7rem; text-align: left; white-space: nowrap }
th { font-weight: 600; border-bottom: 1px solid #888 } tr:nth-child(even) td { background: #8881 }
td.number { text-align: right; font-variant-numeric: tabular-nums } p { opacity: .7 }
"""


@dataclass(frozen=True, slots=True)
class View:
    """One table: what SHOW <name> would say."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def page(title: str, views: Sequence[View]) -> str:
    """A whole HTML page; every value is escaped, since users and applications choose their own names."""
    tables = "".join(map(_table, views)) or "<p>nothing to show yet</p>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="refresh" content="{REFRESH_S}"><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>'
        f"{tables}<p>/metrics /health /ready</p></body></html>"
    )


def _table(view: View) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in view.columns)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in view.rows[:MAX_ROWS])
    more = len(view.rows) - MAX_ROWS
    rest = f"<p>and {more} more rows</p>" if more > 0 else ""
    return f"<h2>{escape(view.name)}</h2><table><tr>{heads}</tr>{rows}</table>{rest}"


def _cell(value: object) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, bool):
        return f"<td>{'yes' if value else 'no'}</td>"
    number = isinstance(value, int | float)
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return f'<td class="number">{text}</td>' if number else f"<td>{escape(text)}</td>"
