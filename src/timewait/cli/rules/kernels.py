"""`timewait rules kernels`: the profiles side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from timewait.cli.rules import AsJson, refusals, rules, show

if TYPE_CHECKING:
    from timewait.tcp import Kernel


@rules.command()
def kernels(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="these only, and all they differ in")
    ] = None,
    json: AsJson = False,
) -> None:
    """The kernels whose rules are known; with names, every rule and default in which those differ.

    Exit codes: 0 shown, 2 no such kernel.
    """
    with refusals():
        from timewait.tcp import KERNELS
        from timewait.tcp.kernels import kernel
        from timewait.tcp.tables import differences, overview

        found = list(dict.fromkeys(kernel(name) for name in names)) if names else list(KERNELS)
        table = differences(found) if names else overview()
        text = (
            _text(table.headings, table.rows)
            if table.rows
            else f"{' and '.join(row.name for row in found)} decide alike."
        )
        show(text, [_record(row) for row in found], as_json=json)


def _text(headings: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """Columns as wide as what stands in them."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    lines = [
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)) for row in (headings, *rows)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _record(row: Kernel) -> dict[str, object]:
    from timewait.tcp.kernels import has_knob
    from timewait.tcp.knobs import SPANS
    from timewait.tcp.tables import in_words

    return {
        "name": row.name,
        "version": row.version,
        "aliases": list(row.aliases),
        "rules": in_words(row),
        "sysctls": {name: getattr(row.defaults, name) for name in SPANS if has_knob(row, name)},
    }
