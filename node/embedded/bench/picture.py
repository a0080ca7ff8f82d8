"""Throughput and CPU time per query against the number of clients, as SVG and PNG.

The background is transparent and every colour has enough contrast on white and on black, so that one picture serves
both themes of a README.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from node.embedded.bench.results import DIRECT, FAMILIES, OURS, PGBOUNCER, PGDOG, Report, Row, family, label
from node.embedded.bench.table import about, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

WORKS = ("select", "point", "tpcb", "connect")
TITLES = {
    "select": "pgbench -S",
    "point": "point select",
    "tpcb": "pgbench's TPC-B",
    "connect": "pgbench -S -C",
}

INK = "#808080"
COLOURS = {DIRECT: "#8c8c8c", PGBOUNCER: "#2f81f7", PGDOG: "#b070e0", OURS: "#e8590c"}
STYLES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")

METRICS = (("tps", "transactions per second"), ("cpu_us", "proxy's CPU per query, µs"))

DOTS_PER_INCH = 160

LEGEND_COLUMNS = 2
FOOTER_LETTERS = 75
"""Above, and of the machine's description below, for each column of the picture."""


class NoPicture(RuntimeError):
    """There is no picture; the text says why."""


def library() -> None:
    """Raises NoPicture when what draws is not installed. It is imported nowhere else but here and in `draw`."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise NoPicture(
            f"the picture needs matplotlib ({error}): pip install 'pgmurmur[bench]', or pip install matplotlib"
        ) from error


def draw(report: Report, prefix: Path) -> list[Path]:
    """PREFIX.svg and PREFIX.png of the first work in the report, PREFIX-WORK.* of further ones. Raises NoPicture."""
    works = [work for work in WORKS if any(row.work == work for row in report.rows)]
    if not works:
        raise NoPicture("nothing to draw: the picture shows the works " + ", ".join(WORKS))
    library()
    import matplotlib
    from matplotlib.figure import Figure

    written = []
    # Letters as outlines look the same everywhere; without the salt two pictures of one report would differ.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "pgmurmur", "font.size": 10}):
        for place, work in enumerate(works):
            rows = [row for row in report.rows if row.work == work]
            modes = list(dict.fromkeys(row.mode for row in rows))
            figure = Figure(figsize=(1.2 + 3.6 * len(modes), 6.4), layout="constrained")
            figure.patch.set_alpha(0)
            _fill(figure, work, modes, rows, about(report.machine))
            path = prefix if place == 0 else prefix.with_name(f"{prefix.name}-{work}")
            for ending, metadata in (("svg", {"Date": None}), ("png", {})):
                file = path.with_name(f"{path.name}.{ending}")
                figure.savefig(file, dpi=DOTS_PER_INCH, metadata=metadata)
                written.append(file)
    return written


def curve(rows: Sequence[Row], target: str, metric: str) -> list[tuple[int, float, float, float]]:
    """Clients, median, smallest and largest turn, where there is a number."""
    found = []
    for row in sorted(rows, key=lambda row: row.clients):
        values = row.samples[target].values(metric) if target in row.samples else []
        if values:
            median = row.samples[target].median(metric)
            assert median is not None
            found.append((row.clients, median, min(values), max(values)))
    return found


def _fill(figure: Figure, work: str, modes: Sequence[str], rows: Sequence[Row], machine: str) -> None:
    grid = figure.subplots(len(METRICS), len(modes), squeeze=False, sharex=True, sharey="row")
    targets = list(dict.fromkeys(name for row in rows for name in shown(row)))
    clients = sorted({row.clients for row in rows})
    lines: dict[str, Line2D] = {}
    for column, mode in enumerate(modes):
        mine = [row for row in rows if row.mode == mode]
        for line, (metric, title) in enumerate(METRICS):
            axes = grid[line][column]
            for target in targets:
                drawn = _draw_line(axes, curve(mine, target, metric), target, targets)
                if drawn is not None:
                    lines.setdefault(label(target), drawn)
            _dress(axes, clients)
            if line == 0:
                axes.set_title(f"{TITLES[work]}, {mode}", color=INK, fontweight="bold")
            if line == len(METRICS) - 1:
                axes.set_xlabel("clients", color=INK)
            if column == 0:
                axes.set_ylabel(title, color=INK)
    for row_of_axes in grid:
        row_of_axes[0].set_ylim(bottom=0)  # last: a limit ends the scaling, and all modes share one scale
    figure.legend(
        list(lines.values()),
        list(lines),
        loc="outside upper center",
        handlelength=3.5,
        ncols=min(len(lines), LEGEND_COLUMNS * len(modes)),
        frameon=False,
        labelcolor=INK,
    )
    figure.supxlabel("\n".join(textwrap.wrap(machine, int(FOOTER_LETTERS * len(modes)))), color=INK, fontsize=6.5)


def _draw_line(
    axes: Axes, points: Sequence[tuple[int, float, float, float]], target: str, targets: Sequence[str]
) -> Line2D | None:
    if not points:
        return None
    kin = [name for name in targets if family(name) == family(target)]
    variant = kin.index(target) % len(STYLES)
    colour = COLOURS.get(family(target), INK)
    clients, medians, least, most = (list(values) for values in zip(*points, strict=True))
    axes.fill_between(clients, least, most, color=colour, alpha=0.18, linewidth=0)
    (drawn,) = axes.plot(
        clients,
        medians,
        color=colour,
        linestyle=STYLES[variant],
        linewidth=2.4 if family(target) == OURS else 1.8,
        marker=MARKERS[FAMILIES.index(family(target)) % len(MARKERS)],
        markersize=5,
    )
    return drawn


def _dress(axes: Axes, clients: Sequence[int]) -> None:
    axes.patch.set_alpha(0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(clients, [f"{count:,}" for count in clients], rotation=45 if len(clients) > 6 else 0)
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    axes.tick_params(colors=INK)
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
