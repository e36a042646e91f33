"""One self-contained HTML page for one or several runs: it loads nothing, and nothing in it runs but the charts.

Everything that came from the network or a file passes the template's escaping; a Content-Security-Policy in the page
forbids the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bokeh.embed import components
from bokeh.resources import Resources
from markupsafe import Markup

from timewait.diagnose import missed
from timewait.report import charts, figures, words
from timewait.report.templates import environment
from timewait.report.terminal import comparison, steps
from timewait.report.why import BLAME
from timewait.run import Run

if TYPE_CHECKING:
    from timewait.diagnose import Finding

SUBJECTS = (
    ("Rate", charts.rate, "Nothing was counted."),
    ("Latency of successes, ms", charts.latency, "Nothing succeeded."),
    ("Source ports", charts.ports, "The kernel was not asked."),
    ("Errors", charts.errors, "None."),
)


def write_html(runs: list[tuple[str, Run, list[Finding]]], path: str | Path) -> None:
    """Writes the page for runs given as (name, run, findings). Raises OSError."""
    Path(path).write_text(html(runs), encoding="utf-8")


def html(runs: list[tuple[str, Run, list[Finding]]]) -> str:
    """The page as text."""
    drawn: dict[str, Any] = {}
    subjects = []
    for subject, (title, draw, nothing) in enumerate(SUBJECTS):
        made = [draw(run) for _, run, _ in runs]
        charts.share_scales(made, logarithmic=draw is charts.latency)
        cells = []
        for number, ((name, _, _), chart) in enumerate(zip(runs, made, strict=True)):
            key = f"s{subject}r{number}"
            if chart.figure is not None:
                drawn[key] = chart.figure
            cells.append({"name": words.clean(name), "key": key, "legend": chart.legend, "nothing": nothing})
        subjects.append({"title": title, "cells": cells})
    script, divs = components(drawn) if drawn else ("", {})
    return (
        environment()
        .get_template("page.html")
        .render(
            title=words.target(runs[0][1].plan) if runs else "timewait",
            runs=[_facts(*entry) for entry in runs],
            table=_table(runs),
            quantiles=[name.replace("_", ".") for name in figures.QUANTILES],
            subjects=subjects,
            # Made by bokeh from numbers and from names of ours: the only parts that are not escaped.
            bokeh=Markup(Resources(mode="inline", components=["bokeh"]).render_js() if drawn else ""),
            script=Markup(script),
            divs={key: Markup(div) for key, div in divs.items()},
        )
    )


def _facts(name: str, run: Run, findings: list[Finding]) -> dict[str, Any]:
    """What the template shows of one run, as text."""
    total = run.total
    ended = total.succeeded + total.failed
    quantiles = {name: found for name, found in figures.latencies(total).items() if found}
    return {
        "name": words.clean(name),
        "target": words.target(run.plan),
        "wish": words.wish(run.plan),
        "started_at": words.clean(run.started_at),
        "host": words.clean(f"Linux {run.host.kernel}, {words.plural(run.host.cores, 'core')}"),
        "version": words.clean(run.version),
        "speed": words.rate(figures.per_second(total.succeeded, total.seconds))[:-2],
        "state": "none" if not ended else "good" if not total.failed else "bad" if not total.succeeded else "mixed",
        "failed": words.share(figures.failed_share(total)) if ended else "-",
        "failed_of": f"{words.count(total.failed)} of {words.count(ended)}",
        "figures": comparison(run, [])[2:-1],
        "latency": [
            (figures.LATENCIES[phase], [words.seconds(value) for value in found.values()])
            for phase, found in quantiles.items()
        ],
        "status": sorted(total.status.items(), key=lambda item: -item[1]),
        "steps": steps(run.steps),
        "errors": [
            (words.count(row.count), words.phase(row.phase), words.clean(row.errno), words.cause(row.cause))
            for row in figures.failures(total)
        ],
        "details": sorted(total.details.items(), key=lambda item: -item[1]),
        "missed": missed(run),
        "notes": ([f"ended early by {run.interrupted}"] if run.interrupted else []) + run.notes + run.host.unreadable,
        "findings": [{"finding": finding, "blame": BLAME.get(finding.blame, finding.blame)} for finding in findings],
    }


def _table(runs: list[tuple[str, Run, list[Finding]]]) -> list[tuple[str, list[str]]]:
    """The comparison of several runs, a row per figure."""
    columns = [comparison(run, findings) for _, run, findings in runs]
    return [(lines[0][0], [value for _, value in lines]) for lines in zip(*columns, strict=True)]
