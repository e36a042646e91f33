"""The docs say what the program says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
PAGES = sorted(path.relative_to(TOP) for path in [*TOP.glob("*.md"), *TOP.glob("docs/*.md")])


@pytest.mark.timeout(300)
def test_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/docs.py", "--check"], cwd=TOP, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_shows_a_demo_that_ran() -> None:
    readme = (TOP / "README.md").read_text()
    shown = readme.partition("$ make demo\n")[2].partition("```")[0]
    assert len(shown.splitlines()) > 8
    assert "ports-exhausted" in shown


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", (TOP / page).read_text())
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (TOP / page.parent / target).exists()] == []


def test_commands_in_the_readme_exist() -> None:
    """Every flag the README uses stands in the help of its command."""
    helps = (TOP / "docs" / "cli.md").read_text()
    used = re.findall(r"^ +\.venv/bin/timewait (\w+) (.*)$", (TOP / "README.md").read_text(), re.MULTILINE)
    assert used
    for command, words in used:
        section = helps.partition(f"## timewait {command}\n")[2].partition("\n## ")[0]
        assert section, command
        for flag in re.findall(r"--[a-z-]+", words):
            assert re.search(rf"{flag}\b", section), f"timewait {command} has no {flag}"
