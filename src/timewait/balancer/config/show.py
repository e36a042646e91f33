"""A configuration written as TOML again: every default spelled out, and beside it what the engine in charge does.

Reading it gives the same configuration. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import msgspec

from timewait.balancer.config import capability
from timewait.balancer.config.capability_row import Case, Refused
from timewait.balancer.config.capability_rows import PROBER, SUPERVISOR, YES
from timewait.balancer.config.closing import summary
from timewait.balancer.config.effective import effective_value
from timewait.balancer.config.model import Configuration
from timewait.balancer.config.units import duration_text, size_text


def example() -> str:
    """A file to begin with."""
    return (resources.files("timewait.balancer.config") / "example.toml").read_text(encoding="utf-8")


def effective(configuration: Configuration) -> str:
    """The whole file, and who closes first, as comments at its end."""
    used = capability.engines(configuration)
    lines = _record(configuration, (), [Case(configuration, engine) for engine in used])
    return "\n".join([*lines, "", *summary(configuration)]) + "\n"


def _record(record: msgspec.Struct, path: tuple[str, ...], cases: list[Case]) -> list[str]:
    """The values of a table, then the tables in it: TOML wants them in this order."""
    plain, tables = [], []
    for field in capability.fields(type(record)).values():
        value, name = getattr(record, field.name), ".".join((*path, field.name))
        if isinstance(value, msgspec.Struct):
            tables += ["", f"[{name}]", *_record(value, (*path, field.name), cases)]
        elif isinstance(value, tuple) and value and isinstance(value[0], msgspec.Struct):
            for one in value:
                inner = _cases(one, path, field.name, cases)
                tables += ["", f"[[{name}]]", *_record(one, (*path, field.name), inner)]
        elif value != () or not _holds_tables(type(record), field.name):  # an empty array of tables is not written
            default = None if field.required else field.default
            plain.append(_line(field.name, name, value, default, cases))
    return plain + tables


@cache
def _holds_tables(kind: type[msgspec.Struct], name: str) -> bool:
    inner = msgspec.inspect.type_info(capability.fields(kind)[name].type)
    return isinstance(inner, msgspec.inspect.VarTupleType) and isinstance(inner.item_type, msgspec.inspect.StructType)


def _cases(one: msgspec.Struct, path: tuple[str, ...], field: str, cases: list[Case]) -> list[Case]:
    """Who has to do with a listener, or a pool; with what is inside one, whoever has with it."""
    if path:
        return cases
    configuration = cases[0].configuration
    if field == "listener":
        listener: Any = one
        return [Case(configuration, configuration.engine_of(listener), listener)]
    pool: Any = one
    return [
        Case(configuration, configuration.engine_of(listener), listener, pool)
        for listener in capability.kinds(configuration, capability.users(configuration, pool))
    ]


def _line(key: str, field: str, value: Any, default: Any, cases: list[Case]) -> str:
    notes = list(_notes(field, value, cases))
    if value is None:
        meant = effective_value(field, cases)
        return f"# {key} = {' or '.join(toml(field, one) for one in meant)}  # what holds without it"
    if default not in (None, "") and value != default:
        notes.insert(0, f"default {toml(field, default)}")
    return f"{key} = {toml(field, value)}" + (f"  # {'; '.join(notes)}" if notes else "")


def _notes(field: str, value: Any, cases: list[Case]) -> Iterator[str]:
    """What becomes of it, once for every answer; with the engine's name where they are several."""
    found: dict[str, str] = {}
    for case in cases:
        found.setdefault(done(field, value, case), str(case.engine))
    several = len(found) > 1
    for how, engine in found.items():
        if how:
            yield f"{engine}: {how}" if several else how


def done(field: str, value: Any, case: Case) -> str:
    """What the engine of a case does with a field; "" where there is nothing to say."""
    rows = [row for row in capability.rows_of(field) if row.when is None]
    protocol = case.listener.protocol if case.listener else None
    if protocol and rows and all(protocol not in row.protocols for row in rows):
        return f"no effect with {protocol}"
    exact = [row for row in rows if row.value == value] or [row for row in rows if row.value is None]
    if not exact:
        return ""
    how = exact[0].does(case.engine)
    if isinstance(how, Refused):
        return f"no effect on {case.engine}"
    return "" if how in (YES, PROBER, SUPERVISOR) else how


def toml(field: str, value: Any) -> str:
    """A value as the file writes it, whole."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f'"{duration_text(value)}"'
    if isinstance(value, int):
        is_size = field.startswith("listener.limits.") and not field.endswith("_count")
        return f'"{size_text(value)}"' if is_size else str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(toml(field, one) for one in value) + "]"
    # A JSON string is a TOML basic string, but for DEL
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
