"""A scenario written as TOML, with units a person reads, and a mark where a value is not the default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from timewait import durations
from timewait.simulate.settings import DURATIONS, RATES, SHARES, part_of

MOST_TIMES = 10  # of a trace that stands in the scenario itself


def written(scenario: msgspec.Struct, more: Mapping[str, msgspec.Struct]) -> str:
    """The TOML text: values first, then a table for each part, then those of `more`."""
    lines = _values(scenario, ())
    for name, part in [*_parts(scenario), *more.items()]:
        lines += ["", f"[{name}]", *_values(part, (name,))]
        for table, content in _tables(part):
            if content:
                lines += ["", f"[{name}.{table}]", *(f"{key} = {_plain(value)}" for key, value in content.items())]
    return "\n".join(lines) + "\n"


def _parts(struct: msgspec.Struct) -> list[tuple[str, msgspec.Struct]]:
    return [
        (field, value)
        for field in struct.__struct_fields__
        if isinstance(value := getattr(struct, field), msgspec.Struct)
    ]


def _tables(struct: msgspec.Struct) -> list[tuple[str, dict[str, Any]]]:
    return [(field, value) for field in struct.__struct_fields__ if isinstance(value := getattr(struct, field), dict)]


def _values(struct: msgspec.Struct, path: tuple[str, ...]) -> list[str]:
    found = []
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        if part_of(field.type) is not None or isinstance(value, dict):
            if value is None:
                found.append(f"# no [{field.name}]")
            continue
        text = f"{field.name} = {value_text('.'.join((*path, field.name)), value)}"
        if not path and field.name in ("name", "title"):
            found.append(text)
        elif value != field.default:
            found.append(f"{text}  # default {value_text('.'.join((*path, field.name)), field.default)}")
        else:
            found.append(text)
    return found


def value_text(name: str, value: Any) -> str:
    """One value as TOML: durations and shares with their units."""
    if name in DURATIONS:
        return f'"{durations.written(value)}"'
    if name in RATES and value:
        return f'"{_number(value)}/s"'
    if name in SHARES and value:
        return f'"{_number(100 * value)}%"'
    if name == "arrivals.times" and len(value) > MOST_TIMES:
        shown = ", ".join(_number(at) for at in value[:3])
        return f"[]  # {len(value):,} moments from a trace: {shown}, ... {_number(value[-1])}"
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}" if abs(value) >= 100_000 else str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_plain(one) for one in value) + "]"
    text = str(value) if isinstance(value, StrEnum | str) else repr(value)
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string


def _number(value: float) -> str:
    """Exact, without a fraction where there is none."""
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(round(value, 12))
