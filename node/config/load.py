"""From two texts to one configuration, or to every error in both.

`parse` is pure: the files are read by `files`. All errors come at once, each with its line, because a node that says
"port is wrong", and after a restart "host is wrong too", wastes the night of whoever mends it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from node.config import environment
from node.config.checks import check
from node.config.limits import LIMITS
from node.config.not_built import unbuilt
from node.config.positions import Path, Positions, scan
from node.config.problems import ConfigError, Findings, Problem, meant, nearest
from node.config.salvage import salvage
from node.config.schema import ALIASES, ARRAYS, TABLES, Config, brackets, file_keys

CONFIG_NAME = "pgdog.toml"
USERS_NAME = "users.toml"

_AT = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration and what is odd about it."""

    config: Config
    warnings: tuple[Problem, ...] = ()


def parse(
    config_text: str | Problem,
    users_text: str | Problem,
    environ: Mapping[str, str] = _NOTHING,
    *,
    config_name: str = CONFIG_NAME,
    users_name: str = USERS_NAME,
) -> Loaded:
    """Both files and the environment as one configuration. Raises `ConfigError` with all errors of both files.

    A text may be the `Problem` why there is none: the other file is checked all the same.
    """
    main = _File.read(config_name, config_text)
    users = _File.read(users_name, users_text)
    reading = _Reading(main, users)
    data = reading.merge()
    applied = environment.apply(data, environ)
    reading.origin = applied.origin
    problems = [*main.broken, *users.broken, *reading.misplaced]
    problems += [Problem(environment.ENVIRONMENT, 0, text) for text in applied.errors]
    lost = reading.lost | applied.lost
    config: Config | None = None
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems += reading.explain(error)
        lost |= reading.lost_with(error, data)
    if config is None or lost:
        config = salvage(data, lost)
    findings = check(config)
    problems += [reading.problem(path, text) for path, text in findings.errors]
    if problems:
        raise ConfigError(_tidy(problems))
    return Loaded(config, reading.warnings(config, findings, applied))


def _tidy(problems: list[Problem]) -> list[Problem]:
    """Sorted, without doubles, and not endless."""
    listed = sorted(set(problems))
    if len(listed) > LIMITS.config_errors:
        shown = LIMITS.config_errors - 1  # a verdict in the flock carries no more lines, the last one included
        return [*listed[:shown], Problem(listed[-1].file, 0, f"and {len(listed) - shown} more errors")]
    return listed


@dataclass(frozen=True, slots=True)
class _File:
    """One file: what TOML made of it, and where its keys stand."""

    name: str
    data: dict[str, Any]
    positions: Positions
    broken: tuple[Problem, ...] = ()

    @classmethod
    def read(cls, name: str, text: str | Problem) -> _File:
        if isinstance(text, Problem):
            return cls(name, {}, Positions({}), (text,))
        if len(text) > LIMITS.document_bytes:
            problem = Problem(name, 0, f"file is larger than {LIMITS.document_bytes} bytes")
            return cls(name, {}, Positions({}), (problem,))
        text = text.removeprefix("\ufeff")
        try:
            return cls(name, tomllib.loads(text), scan(text))
        except tomllib.TOMLDecodeError as error:
            return cls(name, {}, Positions({}), (_syntax_error(name, text, error),))
        except RecursionError:
            return cls(name, {}, Positions({}), (Problem(name, 0, "values are nested too deeply"),))


def _syntax_error(name: str, text: str, error: tomllib.TOMLDecodeError) -> Problem:
    """tomllib says "Invalid value (at line 3, column 8)"; some duplicates it only notices at the end."""
    said = str(error)
    found = _AT.search(said)
    line = int(found[1]) if found and found[1] else max(text.count("\n", 0, len(text.rstrip())) + 1, 1)
    message = said[: found.start()] if found else said
    return Problem(name, line, f"{message[:1].lower()}{message[1:]}")


class _Reading:
    """The two files on their way to one value; turns paths back into files and lines."""

    def __init__(self, main: _File, users: _File) -> None:
        self.main = main
        self.users = users
        self.misplaced: list[Problem] = []
        self.lost: set[Path] = set()  # see `salvage`
        self.origin: Mapping[tuple[str, str], str] = {}

    def merge(self) -> dict[str, Any]:
        """One tree in the shape of `Config`; aliases renamed, each table a fresh dict that may be changed."""
        data: dict[str, Any] = {}
        for name, value in self.main.data.items():
            if name == "users":
                self._misplace(self.main, name, f"[[users]] belong in {self.users.name}")
            else:
                data[name] = self._renamed(name, value)
        for name, value in self.users.data.items():
            if name in ("users", "admin"):
                data[name] = self._renamed(name, value)
            elif name in TABLES:
                self._misplace(self.users, name, f"{brackets(name)} belongs in {self.main.name}")
            else:
                self._misplace(self.users, name, f'unknown key "{name}"{meant(name, ("users", "admin"))}')
        own = {"users", "admin"}
        if self.main.broken:
            self.lost |= {(name,) for name in Config.model_fields if name not in own or name not in self.users.data}
        if self.users.broken:
            self.lost |= {(name,) for name in own}
        # Known only now: an entry that was put in the wrong place comes after those that were not.
        for file, names in ((self.main, {"users"}), (self.users, self.users.data.keys() - own)):
            for name in file.data.keys() & names:
                self.lost |= _meant_table(name, file.data[name], data)
        return data

    def _misplace(self, file: _File, name: str, message: str) -> None:
        self.misplaced.append(Problem(file.name, file.positions.line((name,)), message))

    def _renamed(self, table: str, value: Any) -> Any:
        """A copy with PgDog's aliases replaced; both names at once are an error."""
        if isinstance(value, list):
            return [self._entry(table, (table, index), entry) for index, entry in enumerate(value)]
        return self._entry(table, (table,), value)

    def _entry(self, table: str, path: Path, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        entry = dict(value)
        for alias, name in ALIASES.get(table, {}).items():
            if alias in entry and name in entry:
                message = f'"{alias}" is another name for "{name}"; give one of them'
                self.misplaced.append(self.problem((*path, alias), message))
                self.lost.add((*path, name))
                del entry[alias]
            elif alias in entry:
                entry[name] = entry.pop(alias)
        return entry

    # -- from paths to lines ------------------------------------------------------------------------------------

    def problem(self, path: Path, message: str) -> Problem:
        """A message about a path of the merged tree, put where the path was written."""
        if len(path) == 2:
            variable = self.origin.get((str(path[0]), str(path[1])))
            if variable is not None:
                return Problem(environment.ENVIRONMENT, 0, f"{variable}: {message}")
        file = self._file_of(path)
        return Problem(file.name, file.positions.line(self._as_written(file, path)), message)

    def _file_of(self, path: Path) -> _File:
        top = path[0] if path else ""
        in_users = top == "users" or (top == "admin" and "admin" in self.users.data)
        return self.users if in_users else self.main

    def _as_written(self, file: _File, path: Path) -> Path:
        """Undoes an alias: the path of the key as it stands in the file."""
        if path in file.positions or not path:
            return path
        for alias, name in ALIASES.get(str(path[0]), {}).items():
            if path[-1] == name and (*path[:-1], alias) in file.positions:
                return (*path[:-1], alias)
        return path

    # -- from pydantic's errors to ours -------------------------------------------------------------------------

    def explain(self, error: ValidationError) -> list[Problem]:
        """Unions fail once per member; the first one speaks for all."""
        seen: set[Path] = set()
        problems = []
        for detail in error.errors(include_url=False):
            path = _file_path(detail)
            if path in seen:
                continue
            seen.add(path)
            problems.append(self.problem(path, _sentence(detail, path)))
        return problems

    def lost_with(self, error: ValidationError, data: Mapping[str, Any]) -> set[Path]:
        """Paths whose values are not known for these errors; a key misspelt is lost under the name it was meant for."""
        lost: set[Path] = set()
        for detail in error.errors(include_url=False, include_context=False):
            path = _file_path(detail)
            lost.add(path)
            if detail["type"] == "extra_forbidden" and len(path) == 1:
                lost |= _meant_table(str(path[0]), detail["input"], data)
            elif detail["type"] == "extra_forbidden":
                key = nearest(str(path[-1]), file_keys(_table_of(path)))
                if key is not None and not _has(data, (*path[:-1], key)):
                    lost.add((*path[:-1], ALIASES.get(_table_of(path), {}).get(key, key)))
        return lost

    def warnings(self, config: Config, findings: Findings, applied: environment.Applied) -> tuple[Problem, ...]:
        written = {**self.main.data, **self.users.data}
        found = [self.problem(path, text) for path, text in [*findings.warnings, *unbuilt(config, written)]]
        found += [Problem(environment.ENVIRONMENT, 0, text) for text in applied.warnings]
        return tuple(sorted(set(found)))


def _meant_table(name: str, value: object, data: Mapping[str, Any]) -> set[Path]:
    """What is not known when a table stands where it is not read: the table, some keys of it, or one more entry."""
    table = nearest(name, Config.model_fields)
    if table is None:
        return set()
    match data.get(table), value:
        case list() as entries, _:
            return {(table, len(entries))}
        case dict() as found, dict() as misplaced:
            return {(table, key) for key in misplaced if key not in found}
    return {(table,)}


def _has(data: Any, path: Path) -> bool:
    for part in path[:-1]:
        data = data[part]
    return path[-1] in data


def _file_path(detail: ErrorDetails) -> Path:
    """pydantic adds the tried type to the path of a union ("lanes", "constrained-int"); files know no such key."""
    path = tuple(detail["loc"])
    if len(path) > 1 and path[-2] in ("lanes", "start", "end") and isinstance(path[-1], str):
        return path[:-1]
    if len(path) > 2 and path[-3] == "values" and isinstance(path[-1], str):
        return path[:-1]
    return path


def _table_of(path: Path) -> str:
    names = [part for part in path if isinstance(part, str)]
    if names[:2] == ["sharded_tables", "mapping"] and len(names) > 2:
        return "sharded_tables.mapping"
    return names[0] if names else ""


def _sentence(detail: ErrorDetails, path: Path) -> str:
    """What is wrong, in the words of the file. Values are quoted only where they cannot be secrets: words."""
    table = _table_of(path)
    key = next((str(part) for part in reversed(path) if isinstance(part, str)), "")
    if len(path) == 1 or (len(path) == 2 and isinstance(path[1], int)):
        return _table_sentence(detail, str(path[0]))
    where = f'"{key}" in {brackets(table)}'
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            return f'unknown key "{key}" in {brackets(table)}{meant(key, file_keys(table))}'
        case "missing":
            return f'{brackets(table)} needs "{key}"'
        case "enum":
            words = str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")
            given = detail["input"]
            said = f', not "{given}"{meant(given, words.split(", "))}' if isinstance(given, str) else ""
            return f"{where} must be one of {words}{said}"
        case "greater_than_equal":
            return f"{where} must be at least {context.get('ge')}"
        case "less_than_equal":
            return f"{where} must be at most {context.get('le')}"
        case "less_than":
            return f"{where} must be less than {context.get('lt')}"
        case "string_too_short":
            return f"{where} must not be empty"
        case "string_too_long":
            return f"{where} must not be longer than {context.get('max_length')} characters"
    if key == "lanes" and isinstance(detail["input"], str):
        return f"{where} must be {_expected(key, detail['type'])}"
    return f"{where} must be {_expected(key, detail['type'])}, not {_toml_type(detail['input'])}"


def _table_sentence(detail: ErrorDetails, table: str) -> str:
    if detail["type"] == "extra_forbidden":
        tables = [name for name in TABLES if "." not in name and name != "users"]
        return f'unknown {"key" if _is_plain(detail["input"]) else "table"} "{table}"{meant(table, tables)}'
    kind = "an array of tables" if table in ARRAYS else "a table"
    return f'"{table}" must be {kind}: write {brackets(table)}'


def _is_plain(value: object) -> bool:
    return not isinstance(value, dict | list)


_EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "bool_type": "true or false",
    "string_type": "a string",
    "float_type": "a number",
    "finite_number": "a finite number",
    "tuple_type": "an array",
    "model_type": "a table",
}


def _expected(key: str, kind: str) -> str:
    if key == "lanes":
        return '"auto", "off" or a number from 0 to 64'
    if key in ("values", "start", "end"):
        return "an integer or a string"
    return _EXPECTED.get(kind, "something else")


def _toml_type(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a float"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "a table"
    return "a date or time"
