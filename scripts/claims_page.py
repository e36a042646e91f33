"""Writes docs/claims.md from a real run of all claims, the slow ones too: `make docs-claims`, forty minutes.

`--json FILE` takes the results of `timewait lab run all --slow --json` instead; `--quick` leaves the slow ones out.
"""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import msgspec

from timewait.report.experiments import markdown, summary
from timewait.verdict import Result

TOP = Path(__file__).resolve().parent.parent
PAGE = TOP / "docs" / "claims.md"
HEAD = """# Claims about TIME_WAIT

Written by `make docs-claims` from a real run: {summary}; {date}. Hosts are network namespaces of one machine, the
kernel is its own, the load is that of `timewait stress`. *predicted* is what the rules of this kernel say
([rules](rules.md)), *measured* what it did. Run them on yours: `timewait lab run all`.
"""


def main(words: list[str]) -> int:
    results = msgspec.json.decode(_text(words), type=list[Result])
    date = datetime.date.today().isoformat()
    PAGE.write_text(page(results, date))
    return 0


def _text(words: list[str]) -> bytes:
    if words[:1] == ["--json"]:
        return Path(words[1]).read_bytes()
    command = [str(Path(sys.executable).with_name("timewait")), "lab", "run", "all", "--json"]
    if "--quick" not in words:
        command.append("--slow")
    done = subprocess.run(command, stdout=subprocess.PIPE)
    if not done.stdout:
        sys.exit(done.returncode or 1)
    return done.stdout


def page(results: list[Result], date: str) -> str:
    """The page as text."""
    return HEAD.format(summary=summary(results).plain, date=date) + "\n" + markdown(results) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
