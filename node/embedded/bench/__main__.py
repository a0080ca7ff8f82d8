"""scripts/bench: see --help, which says what is measured and how."""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Sequence

from node.embedded.bench import options, picture, results, table
from node.embedded.bench.run import Run
from node.embedded.cluster import own_workspace
from node.embedded.screen import Screen
from node.embedded.stopping import Stopped

IDENTITY = "node.embedded.identity"
"""Another load, with a command line of its own. It is looked up only when asked for."""

ON_STANDARD_OUTPUT = "-"


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["identity"]:
        return _identity(words[1:])
    parser = options.parser()
    given = parser.parse_args(words)
    if given.source is not None and given.json is not None:
        parser.error("--from shows an earlier --json and writes none")
    screen = Screen(sys.stderr if str(given.json) == ON_STANDARD_OUTPUT else sys.stdout)
    run: Run | None = None
    try:
        if given.picture is not None:
            picture.library()  # before minutes of measuring, not after
        if given.source is not None:
            report = results.read(given.source)
        else:
            with own_workspace("pgmurmur-bench-") as workspace:
                run = Run(workspace, given, screen)
                report = run.measure()
        table.print_report(screen, report)
        _write(given, screen, report)
    except Stopped:
        if run is not None and run.report.rows:
            screen.say("   stopped: this is what was measured until then", "yellow")
            table.print_report(screen, run.report)
            _write(given, screen, run.report)
        return 130
    except (results.Unreadable, RuntimeError, OSError) as error:
        print(f"pgmurmur: {error}", file=sys.stderr)
        return 1
    return 0


def _write(given: argparse.Namespace, screen: Screen, report: results.Report) -> None:
    if str(given.json) == ON_STANDARD_OUTPUT:
        sys.stdout.write(results.as_json(report))
    elif given.json is not None:
        given.json.write_text(results.as_json(report))
        screen.say(f"   {given.json}", "dim")
    if given.picture is not None:
        for path in picture.draw(report, given.picture):
            screen.say(f"   {path}", "dim")


def _identity(arguments: Sequence[str]) -> int:
    try:
        run = pkgutil.resolve_name(f"{IDENTITY}:main")
    except ModuleNotFoundError as error:
        if error.name != IDENTITY:
            raise
        print(f"pgmurmur: this version has no identity load ({IDENTITY} is missing)", file=sys.stderr)
        return 1
    status = run(arguments)
    return int(status or 0)


if __name__ == "__main__":
    sys.exit(main())
