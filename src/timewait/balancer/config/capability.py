"""What each engine does with each field: the rows are in capability_rows.py. What an engine cannot do is refused with
the reason, never ignored; so is what has no meaning in a listener's protocol. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import msgspec

from timewait.balancer.config.capability_row import Case, Refused, Row, families
from timewait.balancer.config.capability_rows import ROWS
from timewait.balancer.config.model import Configuration, Engine, Listener, Pool
from timewait.balancer.config.problem import Problem, quoted
from timewait.balancer.config.units import duration_text, size_text
from timewait.toml_lines import Path


class Use(NamedTuple):
    """A field that a file sets, seen by one engine that has to do with it."""

    row: Row
    case: Case
    path: Path
    value: Any
    owner: str  # "listener web", "pool app of listener web", "the file"


def refusals(configuration: Configuration) -> list[str]:
    """What no engine in charge can do, one sentence each; nothing where all is honoured."""
    return [problem.sentence for problem in problems(configuration)]


def problems(configuration: Configuration) -> list[Problem]:
    """As refusals(), with the field each is about."""
    found: dict[Problem, None] = {}
    hopeless: list[Listener] = []  # the engine cannot do their protocol, so the rest of them is not looked at
    for use in uses(configuration):
        listener = use.case.listener
        if any(listener is one for one in hopeless):
            continue
        if listener is not None and listener.protocol not in use.row.protocols:
            found[_meaningless(use, listener)] = None
        elif isinstance(use.row.does(use.case.engine), Refused) and not _elsewhere(use, configuration):
            found[_refused(use)] = None
            if listener is not None and use.row.field == "listener.protocol":
                hopeless.append(listener)
    return list(found)


def warnings(configuration: Configuration) -> list[Problem]:
    """Fields of the whole file that only some of its engines honour."""
    found: dict[Problem, None] = {}
    for use in _of_file(configuration):
        reason = use.row.does(use.case.engine)
        if isinstance(reason, Refused) and _elsewhere(use, configuration):
            found[Problem(use.path, f"{use.row.field} has no effect on {use.case.engine}: {reason}")] = None
    return list(found)


def uses(configuration: Configuration) -> Iterator[Use]:
    """Every field that is not as it would be without a word, with every engine that must honour it."""
    yield from _of_file(configuration)
    for index, listener in enumerate(configuration.listener):
        case = Case(configuration, configuration.engine_of(listener), listener)
        yield from _of(listener, case, "listener", ("listener", index), f"listener {listener.name}")
    for index, pool in enumerate(configuration.pool):
        for listener in kinds(configuration, users(configuration, pool)):
            case = Case(configuration, configuration.engine_of(listener), listener, pool)
            yield from _of(pool, case, "pool", ("pool", index), f"pool {pool.name} of listener {listener.name}")


def _of_file(configuration: Configuration) -> Iterator[Use]:
    for engine in engines(configuration):
        yield from _of(configuration, Case(configuration, engine), "", (), "the file")


def kinds(configuration: Configuration, listeners: list[Listener]) -> list[Listener]:
    """One of each kind as far as pools are concerned: a hundred listeners may share one."""
    found: dict[tuple[object, ...], Listener] = {}
    for one in listeners:
        found.setdefault((configuration.engine_of(one), one.protocol, families(one)), one)
    return list(found.values())


def engines(configuration: Configuration) -> list[Engine]:
    """Those that forward for some listener, each once."""
    return list(dict.fromkeys(configuration.engine_of(listener) for listener in configuration.listener))


def users(configuration: Configuration, pool: Pool) -> list[Listener]:
    """The listeners that send traffic to a pool."""
    return [
        listener
        for listener in configuration.listener
        if listener.pool == pool.name or any(rule.pool == pool.name for rule in listener.rule)
    ]


def rows_of(field: str) -> list[Row]:
    """The rows about a field, `listener.client.close`."""
    return [row for row in ROWS if row.field == field]


def _of(record: msgspec.Struct, case: Case, prefix: str, at: Path, owner: str) -> Iterator[Use]:
    """The rows that some value of this record meets."""
    for row, words in _rows(prefix):
        for path, value, default in values(record, words):
            if row.met(case, value, default):
                yield Use(row, case, (*at, *path), value, owner)


@cache
def _rows(prefix: str) -> list[tuple[Row, tuple[str, ...]]]:
    """The rows about fields of a listener, of a pool, or ("") of the whole file, and where in it they are."""
    found = []
    for row in ROWS:
        head, _, inside = row.field.partition(".")
        if head == prefix:
            found.append((row, tuple(inside.split("."))))
        elif not prefix and head not in ("listener", "pool"):
            found.append((row, tuple(row.field.split("."))))
    return found


@cache
def fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a record; msgspec evaluates every annotation anew when asked."""
    return {field.name: field for field in msgspec.structs.fields(kind)}


def values(record: msgspec.Struct, words: tuple[str, ...]) -> Iterator[tuple[Path, Any, Any]]:
    """Where a field stands inside a record, its value and its default; several times where there is an array.

    What must be written is its own default: nobody wants anything particular by writing it.
    """
    word, *rest = words
    value = getattr(record, word)
    if not rest:
        field = fields(type(record))[word]
        yield (word,), value, value if field.required else field.default
        return
    inner = list(enumerate(value)) if isinstance(value, tuple) else [(None, value)]
    for number, one in inner:
        for path, found, default in values(one, tuple(rest)):
            yield (word, *(() if number is None else (number,)), *path), found, default


def _elsewhere(use: Use, configuration: Configuration) -> bool:
    """Whether it is a field of the whole file that another engine in charge honours."""
    if use.case.listener is not None:
        return False
    return any(not isinstance(use.row.does(engine), Refused) for engine in engines(configuration))


def _refused(use: Use) -> Problem:
    reason = use.row.does(use.case.engine)
    others = [f'"{engine}"' for engine in Engine if not isinstance(use.row.does(engine), Refused)]
    wayout = f"leave it out, or write engine = {' or '.join(others)}" if others else "leave it out"
    what = f"{use.owner} is on {use.case.engine} and has {_said(use)}: {reason}; {use.row.instead or wayout}"
    return Problem(use.path, what)


def _meaningless(use: Use, listener: Listener) -> Problem:
    where = " and ".join(use.row.protocols)
    what = f"{use.owner} speaks {listener.protocol} and has {_said(use)}, which means something with {where} only"
    return Problem(use.path, f"{what}; leave it out")


def _said(use: Use) -> str:
    field = use.row.field.partition(".")[2] if use.case.listener is not None else use.row.field
    return f"{field} = {value_text(use.row.field, use.value)}" if use.row.shows_value else use.row.label or field


def value_text(field: str, value: Any) -> str:
    """A value as the file writes it."""
    if isinstance(value, float):
        return quoted(duration_text(value))
    if field.startswith("listener.limits.") and field != "listener.limits.header_count":
        return quoted(size_text(value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return quoted(list(value) if isinstance(value, tuple) else value)
