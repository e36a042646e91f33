"""Results of experiments as text, page and Markdown."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

import peers
from timewait.report.experiments import details, html, markdown, summary, table, write_html
from timewait.verdict import Measure, Result

EVIL = "<script>document.title='owned'</script>"


def result(claim: str, verdict: str, **more: object) -> Result:
    plain = {"title": "A claim.", "predicted": "1,000", "measured": "999", "seconds": 3.14, "kernel": "6.18.44"}
    return Result(claim=claim, verdict=verdict, **(plain | more))  # type: ignore[arg-type]


RESULTS = [
    result("port-wall", "holds", measures=(Measure("a | b", "1", "1", True),)),
    result("tw-reuse", "holds only if the rate is low", balancer="nginx"),
    result("wrap", "does not hold", measures=(Measure("c", "1", "2", False),), notes=("a note",)),
    result("nat", "inconclusive", predicted="", measured="", why=f"nginx {EVIL} died"),
]


def shown(renderable: RenderableType, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_table_fits_its_terminal_and_says_every_verdict(width: int) -> None:
    text = shown(table(RESULTS, width), width)
    assert max(map(len, text.splitlines())) <= width
    words = " ".join(text.split())
    for one in RESULTS:
        assert one.claim in words
        assert one.verdict.split()[0] in words
    assert "died" in words


def test_details_mark_what_disagrees() -> None:
    text = shown(details(RESULTS[2]))
    assert "NOT  c: 2 (predicted 1)" in text
    assert "a note" in text


def test_the_summary_counts_by_kind() -> None:
    told = summary(RESULTS).plain
    assert told == "1 holds, 1 holds under a condition, 1 does not hold, 1 inconclusive; Linux 6.18.44, 13 s"
    assert summary([]).plain == ""


def test_markdown_has_a_row_and_a_section_each() -> None:
    text = markdown(RESULTS)
    assert "| [port-wall](#port-wall) | 1,000 | 999 | holds | 3.1 |" in text
    assert "| a \\| b | 1 | 1 | as predicted |" in text
    assert "**holds only if the rate is low** (balancer: nginx)" in text
    assert "| c | 1 | 2 | **not** |" in text


def test_the_page_escapes_what_it_is_told() -> None:
    page = html(RESULTS, "2026-01-01")
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page


@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_in_a_browser(width: int, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    page_file = tmp_path / "claims.html"
    write_html(RESULTS, page_file, "2026-01-01")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=peers.needs("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto(page_file.as_uri())
        assert page.title() == "Claims about TIME_WAIT – timewait"
        wide = page.evaluate("document.documentElement.scrollWidth")
        cut = page.evaluate("[...document.querySelectorAll('.scroll')].some(e => e.scrollWidth > e.clientWidth)")
        browser.close()
    assert wide <= width
    assert not cut
