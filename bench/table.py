"""bench/README.md, written from bench/results/*.json and nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.figures import Figure, Result, Values

ORDER = (
    *("connections", "ports", "kept", "https", "memory", "watching", "schedule", "counting", "help"),
    *("wire", "lab", "rules", "claims"),
    *("sweeping", "simulation"),
    *("balancer-kept", "balancer-new", "balancer-relay", "balancer-engines", "balancer-latency", "balancer-idle"),
    *("balancer-body", "balancer-changes", "balancer-failing", "balancer-slow"),
)

_HEAD = """# Figures

Written by `make bench` from `results/*.json`; measure again on the machine that matters to you.
"""
_READING = """## How to read this

- Every run gets a network namespace of its own: loopback, one nginx with one worker on a core of its own, 64,512
  source ports, nothing left of the run before. The client has one core, `timewait` with all of its processes.
- Tools take turns within each round and who begins changes, so what disturbs the machine for long disturbs all.
- A rate is what nginx itself counted between two moments while the tool ran at full pace, CPU is what the kernel
  booked on the tool's processes between the same moments. No tool's own word is used, and starting costs nobody.
- A ratio is taken within each round; the table shows the median of the rounds and the lowest and highest of them.
  Where these lie far apart the machine was not quiet, and the figure is worth as little as its spread says.
- On loopback one core does the kernel's work for both ends of a connection, most of it in the client's system calls.
  Ratios travel to other machines far better than rates do.
"""


def write(folder: Path) -> Path:
    """Writes the page beside the results in `folder`/results; returns its path."""
    results = read(folder / "results")
    page = folder / "README.md"
    page.write_text(text(results))
    return page


def read(folder: Path) -> list[Result]:
    """All results there, in the order of the table."""
    found = [msgspec.json.decode(file.read_bytes(), type=Result) for file in sorted(folder.glob("*.json"))]
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(found, key=lambda one: places.get(one.name, len(places)))


def text(results: Sequence[Result]) -> str:
    rows = [line(figure) for result in results for figure in result.figures]
    parts = [_HEAD, table(["what", "asked", "measured", "rounds from-to", ""], rows), _machines(results), _READING]
    parts += [_section(result) for result in results]
    return "\n".join(parts)


def line(figure: Figure) -> list[str]:
    """One figure as cells."""
    verdict = {True: "reached", False: "**fell short**", None: ""}[figure.reached]
    asked = _asked(figure) if figure.asked else "report"
    low, high = min(figure.values), max(figure.values)
    spread = f"{shown(low, figure.unit)} - {shown(high, figure.unit)}" if len(figure.values) > 1 else "one run"
    return [figure.what, asked, shown(figure.value, figure.unit), spread, verdict]


def _asked(figure: Figure) -> str:
    relation, limit = figure.asked.split()
    return f"{relation} {float(limit):.0%}" if figure.unit == "share" else f"{figure.asked}{_suffix(figure.unit)}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def shown(value: float, unit: str) -> str:
    """Three significant digits, thousands grouped."""
    if unit == "share":
        return f"{value:.1%}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    if unit == "x":
        digits = max(digits, 2) if abs(value) < 10 else digits
        return f"{value:.{min(digits, 2)}f}x"
    return f"{value:,.{digits}f}{_suffix(unit)}"


def _suffix(unit: str) -> str:
    return "x" if unit == "x" else "" if unit == "share" else f" {unit}"


def _machines(results: Sequence[Result]) -> str:
    """Facts of the machine once; what differs between results is told with the newest."""
    if not results:
        return "No results yet.\n"
    newest = max(results, key=lambda one: one.measured_at)
    rows = [[name, value] for name, value in newest.machine.items()]
    times = sorted({one.measured_at[:10] for one in results})
    rows.append(["measured", " to ".join(dict.fromkeys([times[0], times[-1]]))])
    loads = [float(one.machine["load before"].split()[0]) for one in results if "load before" in one.machine]
    if loads:
        rows.append(["load average when each benchmark began", f"{min(loads):.2f} to {max(loads):.2f}"])
    return "## The machine\n\n" + table(["", ""], [row for row in rows if row[0] != "load before"])


def _section(result: Result) -> str:
    rows = [_detail(values) for values in result.details]
    notes = [f"\n{note}\n" for note in result.notes]
    heads = ["", "median", "lowest", "highest", "rounds"]
    return f"## {result.title}\n\n{result.how}\n\n{table(heads, rows)}{''.join(notes)}"


def _detail(values: Values) -> list[str]:
    unit = values.unit
    middle = statistics.median(values.values)
    return [
        values.name,
        shown(middle, unit),
        shown(values.low, unit),
        shown(values.high, unit),
        str(len(values.values)),
    ]
