"""What every report begins with: which build is under test, on what, and how to run the same order again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from node.embedded.binaries import NoPostgres, find_binaries
from node.strip import compiled

ROOT = Path(__file__).resolve().parents[1]

# Helpers assert too; without this their reports would not say what was found.
pytest.register_assert_rewrite("fakes", "integration", "sim")


def pytest_report_header(config: pytest.Config) -> list[str]:
    import node

    try:
        postgres = find_binaries()
        said = f"{postgres.version} from {'the wheel' if postgres.from_wheel else postgres.folder}"
    except NoPostgres as missing:
        said = str(missing)
    build = {True: "compiled", False: "interpreted"}
    where = "sources" if Path(node.__file__).is_relative_to(ROOT / "node") else "installed"
    return [
        f"python: {sys.version.split()[0]}; random seed: {config.getoption('randomly_seed', '?')}",
        f"pgmurmur: {where}; " + ", ".join(f"{name} {build[fast]}" for name, fast in compiled().items()),
        f"postgresql: {said}",
    ]
