"""The parts of docs/balance.md that the program knows: its example, who closes first in it, every field.

`scripts/docs.py` puts them between the markers of the page; the rest of it is written by hand.
"""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator
from typing import Any

import msgspec

from timewait.balancer.config.capability import rows_of
from timewait.balancer.config.capability_row import Refused, Row
from timewait.balancer.config.capability_rows import PROBER, SUPERVISOR, YES
from timewait.balancer.config.closing import summary
from timewait.balancer.config.model import Configuration, Engine, Protocol
from timewait.balancer.config.read import configuration
from timewait.balancer.config.show import example, toml
from timewait.balancer.config.units import duration_text, size_text

HEADINGS = ("field", "default", "values", "", "embedded", "HAProxy", "nftables")


def parts() -> dict[str, str]:
    """The text of every marked part of the page, by its name."""
    return {
        "the example": f"```toml\n{example()}```",
        "who closes first in it": "```text\n" + _closing() + "\n```",
        "every field": fields(),
    }


def _closing() -> str:
    lines = summary(configuration(example(), "example.toml"))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[2:])


def fields() -> str:
    """A table for each table of the file, and the reasons of what is refused."""
    reasons: dict[str, int] = {}
    info = msgspec.inspect.type_info(Configuration)
    assert isinstance(info, msgspec.inspect.StructType)
    text = "\n\n".join(_tables(info, (), reasons))
    notes = "\n".join(f"{number}. {_capital(reason)}." for reason, number in reasons.items())
    return f"{text}\n\n### Why something is refused\n\n{notes}"


def _tables(kind: msgspec.inspect.StructType, path: tuple[str, ...], reasons: dict[str, int]) -> Iterator[str]:
    """This table of the file, then those inside it."""
    inner = [(field, table) for field in kind.fields if (table := _struct(field.type))]
    plain = [field for field in kind.fields if not _struct(field.type)]
    meanings = _meanings(kind.cls)
    rows = [_row(field, (*path, field.name), meanings.get(field.name) or _choices(field), reasons) for field in plain]
    name = ".".join(path)
    title = f"`[[{name}]]`" if name.split(".")[-1] in _ARRAYS else f"`[{name}]`" if name else "The top of the file"
    purpose = inspect.cleandoc(kind.cls.__doc__ or "")
    yield f"### {title}\n\n{purpose}\n\n" + "\n".join([_line(HEADINGS), _line(["---"] * len(HEADINGS)), *rows])
    for field, table in inner:
        yield from _tables(table, (*path, field.name), reasons)


_ARRAYS = ("listener", "pool", "rule", "target", "certificate")


def _struct(kind: msgspec.inspect.Type) -> msgspec.inspect.StructType | None:
    if isinstance(kind, msgspec.inspect.VarTupleType):
        kind = kind.item_type
    return kind if isinstance(kind, msgspec.inspect.StructType) else None


def _row(field: msgspec.inspect.Field, path: tuple[str, ...], meaning: str, reasons: dict[str, int]) -> str:
    name = ".".join(path)
    rows = rows_of(name)
    default = "required" if field.required else "" if field.default is None else f"`{toml(name, field.default)}`"
    only = _protocols(rows)
    cells = [_cell(rows, engine, reasons) for engine in Engine]
    return _line([f"`{field.name}`", default, _values(field.type), f"{meaning}{only}", *cells])


def _protocols(rows: list[Row]) -> str:
    known = {protocol for row in rows for protocol in row.protocols}
    return "" if known == set(Protocol) else f" *({', '.join(one for one in Protocol if one in known)})*"


def _values(kind: msgspec.inspect.Type) -> str:
    """What may be written, in words."""
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = next(one for one in kind.types if not isinstance(one, msgspec.inspect.NoneType))
    if isinstance(kind, msgspec.inspect.VarTupleType):
        return "a list"
    if isinstance(kind, msgspec.inspect.EnumType):
        return ", ".join(f"`{one}`" for one in kind.cls)
    if isinstance(kind, msgspec.inspect.BoolType):
        return "`true`, `false`"
    text: Any = str
    if isinstance(kind, msgspec.inspect.Metadata):
        text = {"duration": duration_text, "size": size_text}[(kind.extra or {})["unit"]]
        kind = kind.type
    if isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType):
        low, high = (None if bound is None else text(bound) for bound in (kind.ge, kind.le))
        return f"{low} to {high}" if high is not None else f"from {low}" if low is not None else "a whole number"
    return "text"


def _cell(rows: list[Row], engine: Engine, reasons: dict[str, int]) -> str:
    """What an engine does with a field, over all its rows."""
    found: list[str] = []
    for row in rows:
        how = row.does(engine)
        if row.when is not None and isinstance(how, Refused) and any("refused (" in one for one in found[:1]):
            continue  # it is refused altogether
        if how in (YES, PROBER, SUPERVISOR) or not how:
            continue
        if isinstance(how, Refused):
            how = f"refused ({reasons.setdefault(str(how), len(reasons) + 1)})"
        elif row.when is not None:
            continue  # as in every other case
        about = row.label or (f"`{row.value}`" if row.value is not None else "")
        found.append(f"{about}: {how}" if about else how)
    return "; ".join(found) or "yes"


def _choices(field: msgspec.inspect.Field) -> str:
    """What each of a field's words means, where the field itself says nothing."""
    if not isinstance(field.type, msgspec.inspect.EnumType):
        return ""
    meanings = _meanings(field.type.cls)
    return "; ".join(f"`{one}`: {meanings[one.name]}" for one in field.type.cls if one.name in meanings)


def _meanings(kind: type) -> dict[str, str]:
    """The comments behind the fields of a record, or the words of an enumeration, where they are written."""
    source = inspect.getsource(kind)
    names = {}
    for node in ast.walk(ast.parse(source)):
        target: ast.AST | None = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign):
            target = node.targets[0]
        if isinstance(target, ast.Name):
            names[target.lineno] = target.id
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {
        names[token.start[0]]: token.string.removeprefix("#").strip()
        for token in tokens
        if token.type == tokenize.COMMENT and token.start[0] in names
    }


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _capital(text: str) -> str:
    return text if text.startswith(("nat", "`")) else text[:1].upper() + text[1:]
