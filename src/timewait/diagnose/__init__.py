"""Why it failed: a run in, findings with evidence and remedies out. Pure; sees only the record of a run.

`diagnose(run)` looks for every cause of a closed list (causes.py), `forecast` says before the first packet what the
ports will do, `missed` holds the user's thresholds against the run, `exit_code` is the table of exit_codes.py, and
`catalogue()` is what the page of findings is made from.
"""

from __future__ import annotations

from timewait.diagnose.causes import IDS, catalogue, diagnose
from timewait.diagnose.exit_codes import LIMITS, Exit, exit_code
from timewait.diagnose.finding import Evidence, Finding, Remedy
from timewait.diagnose.forecast import forecast
from timewait.diagnose.thresholds import measure, missed

__all__ = [
    "IDS",
    "LIMITS",
    "Evidence",
    "Exit",
    "Finding",
    "Remedy",
    "catalogue",
    "diagnose",
    "exit_code",
    "forecast",
    "measure",
    "missed",
]
