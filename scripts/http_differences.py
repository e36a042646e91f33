"""Writes docs/http-differences.md: what this balancer, HAProxy and nginx make of the same bytes. Takes seconds."""

from __future__ import annotations

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path[:1] = [str(TOP / "tests")]  # in place of this folder

from balancer.differential.answers import answered  # noqa: E402
from balancer.differential.cases import CASES  # noqa: E402
from balancer.differential.compare import compared  # noqa: E402
from balancer.differential.fronts import versions  # noqa: E402
from balancer.differential.page import MUTATED_CASES, page  # noqa: E402


def main() -> int:
    text = page(compared(CASES), compared(MUTATED_CASES), answered(), versions())
    (TOP / "docs" / "http-differences.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
