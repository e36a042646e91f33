"""The HTML page: complete in itself, safe with hostile text, and alive in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, sync_playwright

from report import samples
from timewait.report.page import html, write_html
from timewait.run import Host, Run, Step

EVIL = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\x1b[31m{{7*7}}"


def hostile() -> Run:
    """Every text that can come from a server, a file or a command line is an attack."""
    run = samples.exhausted()
    run.plan = samples.plan(f"http://x/\n{EVIL}")
    run.version = run.started_at = run.interrupted = run.host.kernel = EVIL
    run.notes, run.host.unreadable = [EVIL], [EVIL]
    run.total.details = {EVIL: 3}
    word = EVIL.replace(" ", "")
    for tick in (run.total, run.ticks[0]):
        tick.errors = {EVIL: 3, f"{word} {word} {word}": 2}
    for snapshot in (*run.snapshots, run.after):
        snapshot.ports[0].destination = EVIL
    run.steps = [Step(rate=1, succeeded_per_second=1, failed_share=0, p99=0.1, held=False, stopped_by=EVIL)]
    return run


class Tags(HTMLParser):
    """The elements of a page and whatever refers to something outside it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset", "data")]


def test_it_refers_to_nothing_outside() -> None:
    tags = Tags(html([("a.jsonl", samples.exhausted(), [samples.finding()])]))
    assert tags.links == []
    assert not {"link", "iframe", "img", "object"} & set(tags.names)


def test_it_shows_the_numbers_and_the_findings() -> None:
    text = re.sub(r"<script.*?</script>", "", html([("a", samples.exhausted(), [samples.finding()])]), flags=re.S)
    for part in (
        "2,800",
        "11.1% failed",
        "3,500 of 31,500",
        "ports-exhausted",
        "NETLINK_SOCK_DIAG",
        "--close server",
    ):
        assert part in text


def test_hostile_text_adds_no_element() -> None:
    tame = Tags(html([("a", samples.exhausted(), [samples.finding()])]))
    page = html([(EVIL, hostile(), [samples.finding(EVIL)])])
    assert Tags(page).names.count("script") == tame.names.count("script")
    assert "img" not in Tags(page).names
    assert "\x1b" not in page
    assert "{{7*7}}" in page


def test_a_healthy_and_an_empty_run_have_pages() -> None:
    assert "No findings." in html([("a", samples.healthy(), [])])
    assert "Nothing succeeded." in html([("a", Run(plan=samples.plan(), host=Host()), [])])


def test_writing_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_html([("a", samples.healthy(), [])], tmp_path / "missing" / "page.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    import peers

    path = peers.needs("chromium")
    quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--no-first-run", *quiet])
        yield made
        made.close()


Seen = dict[str, Any]


@pytest.fixture
def look(browser: Browser, tmp_path: Path) -> Callable[..., Seen]:
    """Opens a page and tells what the browser saw."""

    def open_page(runs: list[Any], width: int, scheme: Literal["light", "dark"] = "light") -> Seen:
        path = tmp_path / "page.html"
        write_html(runs, path)
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        complaints: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        charts = page.locator(".chart").count()
        page.wait_for_function("n => Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle", arg=charts)
        seen = {
            "complaints": complaints,
            "asked": asked,
            "title": page.title(),
            "charts": charts,
            "plots": page.evaluate("Bokeh.documents.reduce((n, d) => n + d.roots().length, 0)"),
            "overflow": page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"),
            "widths": page.evaluate("[...document.querySelectorAll('.chart')].map(e => e.clientWidth)"),
            "ground": page.evaluate("getComputedStyle(document.body).backgroundColor"),
        }
        page.close()
        return seen

    return open_page


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_draws_it(look: Callable[..., Seen], width: int) -> None:
    seen = look([("a.jsonl", samples.exhausted(), [samples.finding()])], width)
    assert seen["complaints"] == []
    assert len(seen["asked"]) == 1  # the page itself
    assert seen["charts"] == seen["plots"] == 4
    assert seen["overflow"] == 0
    assert min(seen["widths"]) > 250


def test_several_runs_on_a_phone(look: Callable[..., Seen]) -> None:
    runs = [("a.jsonl", samples.healthy(), []), ("b" * 80 + ".jsonl", samples.exhausted(), [samples.finding()])]
    seen = look(runs, 390)
    assert seen["complaints"] == []
    assert seen["overflow"] == 0
    assert seen["plots"] == 7  # the healthy run has no errors to draw


def test_hostile_text_does_nothing_in_a_browser(look: Callable[..., Seen]) -> None:
    seen = look([(EVIL, hostile(), [samples.finding(EVIL)])], 390)
    assert seen["title"] != "owned"
    assert seen["complaints"] == []
    assert len(seen["asked"]) == 1
    assert seen["overflow"] == 0


def test_it_follows_the_colour_scheme(look: Callable[..., Seen]) -> None:
    runs: list[Any] = [("a", samples.healthy(), [])]
    assert look(runs, 800, "light")["ground"] != look(runs, 800, "dark")["ground"]
