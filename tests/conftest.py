"""What every report begins with: which build is under test, on what, and how to run the same order again."""

from __future__ import annotations

import ast
import importlib
import sys
from pathlib import Path

import pytest

from node.embedded.binaries import NoPostgres, find_binaries

ROOT = Path(__file__).resolve().parents[1]


def strip_files() -> list[str]:
    """The files that setup.py compiles, read from its list and not repeated here."""
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        match statement:
            case ast.Assign(targets=[ast.Name(id="STRIP")]):
                return [str(path) for path in ast.literal_eval(statement.value)]
    raise AssertionError("setup.py has no list STRIP")


def builds() -> dict[str, str]:
    """Per file of the compiled strip: compiled, interpreted, or missing."""
    found = {}
    for path in strip_files():
        name = path.removesuffix(".py").replace("/", ".")
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError:
            found[name] = "missing"
            continue
        found[name] = "interpreted" if str(module.__file__).endswith(".py") else "compiled"
    return found


def pytest_report_header(config: pytest.Config) -> list[str]:
    import node

    try:
        postgres = find_binaries()
        said = f"{postgres.version} from {'the wheel' if postgres.from_wheel else postgres.folder}"
    except NoPostgres as missing:
        said = str(missing)
    where = "sources" if Path(node.__file__).is_relative_to(ROOT / "node") else "installed"
    return [
        f"python: {sys.version.split()[0]}; random seed: {config.getoption('randomly_seed', '?')}",
        f"pgmurmur: {where}; " + ", ".join(f"{name} {build}" for name, build in builds().items()),
        f"postgresql: {said}",
    ]
