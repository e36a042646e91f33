"""TOML text to a checked Configuration. Every error is a sentence with its line; all of them are found at once.

Reading goes along the types of model.py: what they do not name is refused with the nearest name, durations have
units, numbers stay in their ranges. What fields say together is looked at by check.py, what engines can by
capability.py.
"""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path as File
from typing import Any, NamedTuple, cast

from msgspec import inspect

from timewait.balancer.config import capability, check, files, odd, units
from timewait.balancer.config.model import Configuration
from timewait.balancer.config.problem import ConfigError, Problem, named, nearest, placed, quoted
from timewait.toml_lines import Path, lines_of

__all__ = ["ConfigError", "Reading", "configuration", "read"]


class Reading(NamedTuple):
    """A file that can be run, and what is odd about it."""

    configuration: Configuration
    warnings: tuple[str, ...]  # a sentence with file and line each


def configuration(text: str, name: str) -> Configuration:
    """The file's text, read and checked; `name` stands for it in messages, and paths in it are relative to its
    folder. Raises ConfigError."""
    return read(text, name).configuration


def read(text: str, name: str, engine: str | None = None) -> Reading:
    """As configuration(), with its warnings, and for another engine than the file's where one is given.

    Raises ConfigError.
    """
    raw = _parsed(text, name)
    lines = lines_of(text)
    if engine is not None:
        raw, lines = {**raw, "engine": engine}, {**lines, ("engine",): 0}
    problems: list[Problem] = []
    made = _table(_schema(), raw, (), problems)
    if made is None:
        raise ConfigError(placed(problems, lines, name))
    made = files.anchored(cast(Configuration, made), _folder(name))
    if problems := [*check.problems(made), *capability.problems(made), *files.problems(made)]:
        raise ConfigError(placed(problems, lines, name))
    warnings = [*odd.warnings(made), *capability.warnings(made), *files.warnings(made, _now())]
    return Reading(made, tuple(placed(warnings, lines, name)))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _folder(name: str) -> File:
    """Where a file's relative paths begin; the working directory where the text came through a pipe."""
    return File() if name.startswith(("/dev/", "/proc/")) else File(name).parent


@cache
def _schema() -> inspect.StructType:
    return cast(inspect.StructType, inspect.type_info(Configuration))


def _parsed(text: str, name: str) -> dict[str, Any]:
    if text.startswith("\ufeff"):
        raise ConfigError([f"{name}, line 1: begins with a byte order mark; save it as UTF-8 without one"])
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError, not a TOMLDecodeError
        sentence, line = str(error) or "nested too deeply", ""
        if place := re.search(r" \(at line (\d+), column (\d+)\)", sentence):
            line, sentence = f", line {place[1]}", sentence.replace(place[0], f" (column {place[2]})")
        sentence = sentence.replace(" (at end of document)", " at its end").split(";")[0]
        raise ConfigError([f"{name}{line}: not TOML: {sentence}"]) from None


def _table(kind: inspect.StructType, raw: object, path: Path, problems: list[Problem]) -> object:
    """The record of a table; None where there is a problem in it."""
    if not isinstance(raw, dict):
        problems.append(Problem(path, f"{named(path)} = {quoted(raw)} has parts; write it as [{named(path)}]"))
        return None
    before = len(problems)
    known = {field.name: field for field in kind.fields}
    problems += [Problem((*path, word), _unknown(word, path, known)) for word in raw if word not in known]
    values = {
        word: _value(known[word].type, value, (*path, word), problems) for word, value in raw.items() if word in known
    }
    for name, field in known.items():
        if field.required and name not in raw:
            problems.append(Problem(path, _missing(name, field.type, path)))
    return None if len(problems) > before else kind.cls(**values)


def _unknown(word: str, path: Path, known: dict[str, inspect.Field]) -> str:
    place = f"in {named(path)}" if path else "at the top"
    homes = sorted(_homes().get(word, ()), key=lambda home: not home.startswith(named(path)))[:2]
    if homes:
        tables = " or ".join(f"[{home}]" if home else "the top" for home in homes)
        return f"there is no {word} {place}; it belongs in {tables}"
    hint = nearest(word, known).rstrip(" ") or f"there are {', '.join(known)}"
    return f"there is no {quoted(word)} {place}; {hint}"


def _missing(name: str, kind: inspect.Type, path: Path) -> str:
    if isinstance(kind, inspect.VarTupleType) and isinstance(kind.item_type, inspect.StructType):
        return f"there is no {name}; write [[{name}]] with its settings"
    return f"{named(path)} lacks its {name}; write {name} = ..."


@cache
def _homes() -> dict[str, tuple[str, ...]]:
    """In which tables a key stands, to help who wrote it elsewhere."""
    found: dict[str, list[str]] = {}

    def walk(kind: inspect.Type, path: str) -> None:
        if isinstance(kind, inspect.VarTupleType):
            kind = kind.item_type
        if isinstance(kind, inspect.StructType):
            for field in kind.fields:
                found.setdefault(field.name, []).append(path)
                walk(field.type, f"{path}.{field.name}".lstrip("."))

    walk(_schema(), "")
    return {word: tuple(homes) for word, homes in found.items()}


def _value(kind: inspect.Type, raw: object, path: Path, problems: list[Problem]) -> object:
    """A value of this type; whatever it returns counts only where it added no problem."""
    if isinstance(kind, inspect.UnionType):  # None is what is not written: TOML has no null
        kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    if isinstance(kind, inspect.Metadata):
        return _measure(kind, raw, path, problems)
    if isinstance(kind, inspect.StructType):
        return _table(kind, raw, path, problems)
    if isinstance(kind, inspect.VarTupleType):
        return _list(kind, raw, path, problems)
    try:
        return _plain(kind, raw, any_text=path[-2:-1] == ("custom",))
    except ValueError as error:
        problems.append(Problem(path, f"{named(path)} = {quoted(raw)} {error}"))
        return None


def _list(kind: inspect.VarTupleType, raw: object, path: Path, problems: list[Problem]) -> object:
    if not isinstance(raw, list):
        tables = isinstance(kind.item_type, inspect.StructType)
        how = f"write it as [[{named(path)}]]" if tables else f"write a list: {path[-1]} = [{quoted(raw)}]"
        problems.append(Problem(path, f"{named(path)} may stand several times; {how}"))
        return ()
    return tuple(_value(kind.item_type, one, (*path, index), problems) for index, one in enumerate(raw))


def _measure(kind: inspect.Metadata, raw: object, path: Path, problems: list[Problem]) -> object:
    """A duration or a size in its range."""
    parse, text = _MEASURES[(kind.extra or {})["unit"]]
    try:
        value = parse(raw)
        inner = cast(inspect.IntType, kind.type)
        _ranged(value, inner.ge, inner.le, lambda bound: quoted(text(bound)))
        return value
    except ValueError as error:
        problems.append(Problem(path, f"{named(path)} = {quoted(raw)} {error}"))
        return None


_MEASURES: dict[str, tuple[Callable[[object], float], Callable[[Any], str]]] = {
    "duration": (units.seconds, units.duration_text),
    "size": (units.size, units.size_text),
}


def _plain(kind: inspect.Type, raw: object, *, any_text: bool) -> object:
    """With `any_text` a text may hold line ends and the like: bytes of a health check.

    Raises ValueError: the end of a sentence that began with the value.
    """
    if isinstance(kind, inspect.EnumType):
        known = [str(one) for one in kind.cls]
        if raw not in known:
            raise ValueError(f"is none of its values; {nearest(str(raw), known)}write one of {', '.join(known)}")
        return kind.cls(raw)
    if isinstance(kind, inspect.BoolType):
        if not isinstance(raw, bool):
            raise ValueError("is neither true nor false; write one of them, without quotes")
        return raw
    if isinstance(kind, inspect.IntType):
        if not isinstance(raw, int) or isinstance(raw, bool):
            raise ValueError("is no whole number; write digits without quotes")
        _ranged(raw, kind.ge, kind.le, str)
        return raw
    if not isinstance(raw, str):
        raise ValueError('is no text; write it in quotes, as "..."')
    if not any_text and any(ord(letter) < 32 or ord(letter) == 127 for letter in raw):
        raise ValueError("has a control character in it; leave it out")
    return raw


def _ranged(value: float, low: float | None, high: float | None, text: Callable[[Any], str]) -> None:
    if (low is None or value >= low) and (high is None or value <= high):
        return
    if low is None or high is None:
        raise ValueError(f"is out of range; write {text(low)} or more" if high is None else "is out of range")
    raise ValueError(f"is out of range; write {text(low)} to {text(high)}")
