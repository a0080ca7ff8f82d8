"""The results as text: one table for each kind of work, then ratios, errors and what the machine was like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from node.embedded.bench.results import DIRECT, LABELS, PGBOUNCER, Report, Row, Sample, label
from node.embedded.screen import Screen

NOTHING = "-"

Cells = tuple[str, ...]
Column = tuple[str, Callable[[Row, str], str]]

NOISY = 0.10
"""A spread above this share is called noise."""


def number(value: float | None, digits: int) -> str:
    return NOTHING if value is None else f"{value:.{digits}f}"


def ratio(ours: float | None, other: float | None) -> str:
    return NOTHING if not ours or not other else f"{ours / other:.2f}"


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share * 100:.0f} %"


def value(metric: str, digits: int) -> Callable[[Row, str], str]:
    """The median; "error" where every turn failed, so that nobody reads a missing number as nothing to say."""

    def cell(row: Row, name: str) -> str:
        sample = row.samples[name]
        if not sample.turns and sample.errors:
            return "error"
        return number(sample.median(metric), digits)

    return cell


def spread(metric: str) -> Callable[[Row, str], str]:
    def cell(row: Row, name: str) -> str:
        share = row.samples[name].spread(metric)
        return NOTHING if share is None else f"±{share * 100:.0f}%"

    return cell


def against(metric: str, other: str) -> Callable[[Row, str], str]:
    def cell(row: Row, name: str) -> str:
        compared = row.samples.get(other, Sample())
        return NOTHING if name == other else ratio(row.samples[name].median(metric), compared.median(metric))

    return cell


def cpu_columns(unit: str = "", digits: int = 1) -> list[Column]:
    def split(row: Row, name: str) -> str:
        user = row.samples[name].median(f"cpu_user_us{unit}")
        system = row.samples[name].median(f"cpu_system_us{unit}")
        return NOTHING if user is None else f"{number(user, digits)}+{number(system, digits)}"

    return [
        ("CPU µs", value(f"cpu_us{unit}", digits)),
        ("user+system", split),
        ("CPU÷PgB", against(f"cpu_us{unit}", PGBOUNCER)),
    ]


def rate_columns(metric: str, title: str, digits: int = 0) -> list[Column]:
    return [
        (title, value(metric, digits)),
        ("±", spread(metric)),
        ("÷direct", against(metric, DIRECT)),
        ("÷PgB", against(metric, PGBOUNCER)),
    ]


LATENCIES: list[Column] = [
    ("p50 ms", value("p50_ms", 2)),
    ("p99 ms", value("p99_ms", 2)),
    ("p99.9 ms", value("p999_ms", 2)),
]

COLUMNS: Mapping[str, Sequence[Column]] = {
    **dict.fromkeys(("select", "tpcb", "point", "split"), [*rate_columns("tps", "tps"), *cpu_columns(), *LATENCIES]),
    "connect": [*rate_columns("tps", "tps"), *cpu_columns(digits=0), ("connect ms", value("connect_ms", 2))],
    **dict.fromkeys(
        ("large", "copy-in", "copy-out"), [*rate_columns("mb_per_s", "MB/s"), *cpu_columns("_per_mb", digits=0)]
    ),
    "idle": [
        ("bytes/client", value("client_bytes", 0)),
        ("±", spread("client_bytes")),
        ("÷PgB", against("client_bytes", PGBOUNCER)),
        ("after a query", value("client_bytes_after_query", 0)),
        ("p50 ms alone", value("alone_p50_ms", 2)),
        ("beside", value("p50_ms", 2)),
        ("p99 ms alone", value("alone_p99_ms", 2)),
        ("beside", value("p99_ms", 2)),
        ("p99.9 ms alone", value("alone_p999_ms", 2)),
        ("beside", value("p999_ms", 2)),
    ],
    "storm": [("all in s", value("all_in_s", 3)), ("±", spread("all_in_s")), ("÷PgB", against("all_in_s", PGBOUNCER))]
    + cpu_columns(digits=0),
}
"""What is shown of each work. CPU is per query (per connection, per MB, per login) and of the proxy alone."""


def lines(rows: Sequence[Row], work: str) -> Iterator[Cells]:
    """A line per row and target; the row's own cells stand at its first target only."""
    columns = COLUMNS[work]
    for row in rows:
        if row.work != work:
            continue
        mine: Cells = (row.mode, str(row.clients))
        for name in shown(row):
            note = row.samples[name].note
            yield (*mine, f"{label(name)}{f' ({note})' if note else ''}", *(cell(row, name) for _, cell in columns))
            mine = ("", "")


def shown(row: Row) -> list[str]:
    """Pool sizes that were not the best stay in the JSON."""
    return sorted((name for name in row.samples if "@" not in name), key=_order)


def head(work: str) -> Cells:
    return ("protocol", "clients", work, *(title for title, _ in COLUMNS[work]))


def errors(rows: Iterable[Row]) -> list[str]:
    """Each one once, with how often it came."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in shown(row):
            for error in row.samples[name].errors:
                text = f"{label(name)}, {row.work}, {row.mode}, {row.clients} clients: {error}"
                counts[text] = counts.get(text, 0) + 1
    return [f"{text} ({count} turns)" if count > 1 else text for text, count in counts.items()]


def noise(rows: Iterable[Row]) -> str | None:
    """The largest spread, when it is large enough to doubt the second digit."""
    worst = max(
        (
            (sample.spread(metric) or 0.0, f"{label(name)}, {row.work}, {row.mode}, {row.clients} clients")
            for row in rows
            for name, sample in row.samples.items()
            for metric in ("tps", "mb_per_s", "all_in_s")
        ),
        default=(0.0, ""),
    )
    return f"turns of one target differ by up to ±{worst[0] * 100:.0f}% ({worst[1]})" if worst[0] > NOISY else None


def print_report(screen: Screen, report: Report) -> None:
    for work in COLUMNS:
        table = list(lines(report.rows, work))
        if table:
            screen.say()
            screen.table(table, head(work))
    if report.lexing:
        screen.say()
        screen.table([_lexing(found) for found in report.lexing], LEXING_HEAD)
    for profile in report.profiles:
        print_profile(screen, profile)
    screen.say()
    for error in errors(report.rows):
        screen.say(f"   not measured: {error}", "yellow")
    noisy = noise(report.rows)
    if noisy is not None:
        screen.say(f"   noise: {noisy}", "yellow")
    screen.say("   " + about(report.machine), "dim")


LEXING_HEAD = ("point, sharded", "clients", "CPU µs", "unsharded", "÷unsharded", "lexer µs per text", "lexer's share")


def _lexing(found: Mapping[str, Any]) -> Cells:
    share = percent(found["lexer_share"])
    if found["mode"] == "prepared":
        share = "once per statement"
    return (
        found["mode"],
        str(found["clients"]),
        number(found["sharded_cpu_us"], 1),
        number(found["unsharded_cpu_us"], 1),
        number(found["ratio"], 2),
        number(found["lexer_us_per_text"], 2) + ("" if found["compiled"] else " (interpreted)"),
        share,
    )


def print_profile(screen: Screen, profile: Mapping[str, Any]) -> None:
    screen.say()
    screen.say(f"   {profile['target']}: where the CPU time goes in {profile['what']}", "bold")
    if profile.get("error"):
        screen.say(f"   not profiled: {profile['error']}", "yellow")
        return
    screen.say("   " + ", ".join(f"{group} {share * 100:.1f} %" for group, share in profile["shares"].items()))
    top = [
        (f"{found['share'] * 100:.1f}", found["group"], found["library"], found["symbol"]) for found in profile["top"]
    ]
    screen.table(top, ("%", "group", "library", "symbol"))


def about(machine: Mapping[str, Any]) -> str:
    """The machine in one line."""
    said = [f"{machine.get('cores', '?')} cores ({machine.get('cpu', '?')})", str(machine.get("system", ""))]
    said += [f"{LABELS.get(name, name)} {version}" for name, version in machine.get("versions", {}).items()]
    said.append(f"our strip is {machine['strip']}" if machine.get("strip") else "")
    if "load_before" in machine:
        said.append(f"load {machine['load_before']} before, {machine.get('load_after', '?')} after")
    return ", ".join(part for part in said if part)


def _order(name: str) -> tuple[int, str]:
    known = (DIRECT, PGBOUNCER, "pgdog", "ours")
    place = next((number for number, start in enumerate(known) if name.startswith(start)), len(known))
    return place, name
