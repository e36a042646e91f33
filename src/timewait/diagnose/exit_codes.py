"""What `timewait` says to a script when it ends.

| code | meaning |
|---|---|
| 0 | all well: nothing failed, or with `--fail-if` every threshold was held |
| 1 | the target failed: requests or connections failed, or the asked rate was not carried |
| 2 | bad usage: nothing was sent |
| 3 | this machine was the limit: ports, open files, conntrack, CPU; the figures are its own, not the target's |
| 4 | a threshold of `--fail-if` was missed |
| 70 | internal error, please report it |
| 130 | interrupted (Ctrl-C or SIGTERM), after the whole report |

The first that applies of 130, 3, 4, 1. A limit of this machine that is only possible (`client-limited` of that
confidence) decides nothing. With `--fail-if` given, failures that stay within every threshold are no
failure of the run. With `--find-max`, failures of the step that ended the search are its result: a search that held
at least one step is 0, or 3 where this machine ended it.
"""

from __future__ import annotations

from enum import IntEnum

from timewait.diagnose.facts import unsent_share
from timewait.diagnose.finding import POSSIBLE, Finding
from timewait.diagnose.machine import UNSENT
from timewait.diagnose.thresholds import missed
from timewait.run import Run


class Exit(IntEnum):
    WELL = 0
    TARGET_FAILED = 1
    BAD_USAGE = 2
    MACHINE_LIMITED = 3
    THRESHOLD_MISSED = 4
    INTERNAL_ERROR = 70
    INTERRUPTED = 130


LIMITS = frozenset({"ports-exhausted", "ports-held-open", "open-files", "conntrack-full", "client-limited"})
"""Findings that say this machine was the limit. Others that are its doing (a slow port search, residue) are told, but
a run in which nothing failed has not failed for them."""


def exit_code(run: Run, findings: list[Finding]) -> int:
    """The exit code of a run by the table above."""
    if run.interrupted:
        return Exit.INTERRUPTED
    if any(_limited(run, finding) for finding in findings):
        return Exit.MACHINE_LIMITED
    if run.plan.thresholds:
        return Exit.THRESHOLD_MISSED if missed(run) else Exit.WELL
    if any(step.held for step in run.steps):
        return Exit.MACHINE_LIMITED if _stopped_by(run) in LIMITS else Exit.WELL
    total = run.total
    nothing = total.started > 0 and total.succeeded == 0
    return Exit.TARGET_FAILED if total.failed > 0 or nothing or unsent_share(total) > UNSENT else Exit.WELL


def _stopped_by(run: Run) -> str:
    """What ended the search of --find-max, at the lowest rate that did not hold."""
    ends = [(step.rate, step.stopped_by) for step in run.steps if not step.held]
    return min(ends)[1] if ends else ""


def _limited(run: Run, finding: Finding) -> bool:
    if finding.id == "client-limited":
        return finding.confidence != POSSIBLE
    return finding.id in LIMITS and run.total.failed > 0
