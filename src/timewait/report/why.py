"""The findings as text: what happened, what shows it, what to do and what it costs, what not to try."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from timewait.report.layout import BAD, DIM, GOOD, STRONG, WARN, Flow, Rows
from timewait.report.words import clean

if TYPE_CHECKING:
    from timewait.diagnose import Evidence, Finding, Remedy

MOST_REMEDIES = 4  # with effect and cost; they come best first, and the rest stands whole in --json and --html
BLAME = {"machine": "this machine", "target": "the target", "network": "the network", "setting": "a setting"}


def why(findings: list[Finding]) -> RenderableType:
    """Every finding in the order it was given."""
    parts: list[RenderableType] = [Text("Why", style=STRONG)]
    for number, finding in enumerate(findings, 1):
        parts += [Text()] * (number > 1) + _finding(number, finding)
    return Group(*parts)


def _finding(number: int, finding: Finding) -> list[RenderableType]:
    head = Text(f"{number} ")
    head.append(clean(finding.id), style=f"{STRONG} {BAD if finding.blame == 'machine' else WARN}")
    head.append(f"  {clean(finding.confidence)}, {BLAME.get(finding.blame, clean(finding.blame))}", style=DIM)
    rows = Rows(label=8)
    for evidence in finding.evidence:
        rows.add("seen" if evidence is finding.evidence[0] else "", _evidence(evidence))
    for remedy in finding.remedy[:MOST_REMEDIES]:
        rows.add("do" if remedy is finding.remedy[0] else "or", _remedy(remedy), style=GOOD)
    if finding.remedy[MOST_REMEDIES:]:
        rows.add("also", Flow([clean(remedy.action) for remedy in finding.remedy[MOST_REMEDIES:]]), style=GOOD)
    for wrong in finding.wrong:
        rows.add("not" if wrong is finding.wrong[0] else "", Text(clean(wrong, 600)), style=BAD)
    return [head, Padding(Text(clean(finding.summary, 600), style=STRONG), (0, 0, 0, 2)), Padding(rows, (0, 0, 0, 2))]


def _evidence(evidence: Evidence) -> Text:
    text = Text(clean(evidence.text, 600))
    if evidence.source:
        text.append(f" ({clean(evidence.source)})", style=DIM)
    return text


def _remedy(remedy: Remedy) -> Text:
    text = Text(clean(remedy.action, 600), style="")
    text.stylize(STRONG)
    for word, what in (("", remedy.effect), ("costs: ", remedy.cost)):
        if what:
            text.append("\n" + word + clean(what, 600), style="not bold")
    return text
