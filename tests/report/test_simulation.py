"""Reports of simulations: on every width, with every text, and alive in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, sync_playwright
from rich.console import Console, RenderableType

from report import samples
from report.test_page import EVIL, Tags
from timewait.report.simulated import (
    COUNT,
    SECONDS,
    SHARE,
    Axis,
    Comparison,
    Drop,
    Grid,
    Series,
    Simulation,
    Suffering,
    Value,
    with_interval,
)
from timewait.report.simulation import comparison, grid, listed, simulation
from timewait.report.simulation_page import Shown, html, write_html


def value(name: str, label: str, kind: str, mean: float, slack: float = 0.0, replications: int = 10) -> Value:
    return Value(name, label, kind, mean, mean - slack, mean + slack, replications)


def one(text: str = "", failed: float = 0.3) -> Simulation:
    ends = [float(at) for at in range(1, 61)]
    shares = [failed * min(1.0, at / 30) for at in range(60)]
    return Simulation(
        name="nat" + text, question="What share of users cannot connect?" + text,
        world=["2,000 clients" + text, "5 min"], answer="30.0% of the connects fail." + text,
        good=False, certainty="Means of 10 replications." + text,
        values=[
            value("failed", "connects failed", SHARE, failed, 0.01), value("connected", "made", COUNT, 12_345, 10),
            value("first_try", "by the first SYN", SHARE, 0.5), value("never", "never", SHARE, 0.02),
            value("connect_p99", "p99 connect", SECONDS, 3.02), value("taken_over", "taken over", COUNT, 0),
            value("wall", "first lack", SECONDS, 12.5), value("no_port", "no port", SHARE, 0.0),
        ],
        drops=[
            Drop(100, 0.9, "its timestamp is older" + text, "tcp_conn_request()"), Drop(9, 0.1, "the NAT is full"),
        ],
        series=Series(
            ends=ends, lengths=[1.0] * 60, failed=shares, retried=[0.1] * 60, started=[100.0] * 60,
            drops=[("its timestamp is older" + text, [50.0] * 60), ("the NAT is full", [5.0] * 60)],
            latency={"p50": [0.03] * 60, "p99": [3.0] * 59 + [None], "max": [7.0] * 60},
            gauges=[("TIME_WAIT" + text, ends), ("ports", ends)], capacity=100.0,
        ),
        suffering=Suffering(by_address=[0.5, 0.1, 0.0], by_clock=[0.9, None, 0.0]),
        findings=[samples.finding("A finding." + text)], notes=["a note" + text],
    )  # fmt: skip


def swept(text: str = "", axes: int = 2) -> Grid:
    names = [Axis("nat.ports" + text, ("64", "256", "1k")), Axis("server.timestamps", ("on", "off"))][:axes]
    cells: list[Value | None] = [value("failed", "connects failed", SHARE, at / 6, 0.05) for at in range(3 * axes)]
    cells[-1] = None
    return Grid(
        name="ports" + text, question="How many ports?" + text, world=["1 address"], axes=names,
        label="connects failed", kind=SHARE, cells=cells, answer="Connects failed: 0% at 64." + text,
        certainty="Means.", notes=["Cut short." + text], others=[[cell] if cell else [] for cell in cells],
    )  # fmt: skip


def beside(text: str = "") -> Comparison:
    figures = [value("failed", "connects failed", SHARE, share) for share in (0.3, 0.31, 0.0)]
    return Comparison(
        name="run.jsonl" + text, question="What would it have met?", world=["http://10.0.0.1/" + text],
        columns=["measured", "simulated as it was", "with tcp_tw_reuse=1" + text],
        rows=[("connects failed", [*figures]), ("first lack", [None, value("wall", "", SECONDS, 2.0), None])],
        answer="Connects failed, measured: 30%." + text, notes=["the target is taken for 6.12" + text],
    )  # fmt: skip


def printed(shown: RenderableType, width: int) -> str:
    console = Console(width=width, record=True, file=Path("/dev/null").open("w"), highlight=False)  # noqa: SIM115
    with console.file:
        console.print(shown)
        return console.export_text()


SHOWN: dict[str, RenderableType] = {
    "one": simulation(one()),
    "sweep": grid(swept()),
    "line": grid(swept(axes=1)),
    "beside": comparison(beside()),
    "list": listed([("nat", "What share of users cannot connect?")]),
}


@pytest.mark.parametrize("width", [120, 80, 40, 24])
@pytest.mark.parametrize("name", SHOWN)
def test_it_fits_every_width(name: str, width: int) -> None:
    lines = printed(SHOWN[name], width).splitlines()
    assert lines
    assert max(map(len, lines)) <= width


def test_one_scenario_on_one_screen() -> None:
    text = printed(SHOWN["one"], 80)
    assert len(text.splitlines()) <= 34
    for part in (
        "What share of users",
        "30.0% of the connects fail.", "12,345 (12,335 to 12,355) made",
        "30.0% (29.0% to 31.0%)",
        "p99 3.02 s", "first lack after 12.5 s", "90.0% of the slowest clocks, 0% of the fastest",
        "50.0% behind the worst address", "its timestamp is older (tcp_conn_request())", "ports-exhausted",
    ):  # fmt: skip
        assert part in text, part
    assert "taken over" not in text  # there was none


def test_a_sweep_as_a_table_and_as_lines() -> None:
    text = printed(SHOWN["sweep"], 80)
    assert [line.split()[0] for line in text.splitlines() if line.strip().startswith(("64", "256", "1k"))] == [
        "64",
        "256",
        "1k",
    ]
    assert "16.7%" in text
    narrow = printed(SHOWN["sweep"], 24)
    assert "on:" in narrow
    assert "not done" in narrow
    assert "not done" in printed(SHOWN["line"], 80)


def test_intervals_appear_where_they_say_something() -> None:
    assert with_interval(value("a", "", SHARE, 0.5, 0.1)) == "50.0% (40.0% to 60.0%)"
    assert with_interval(value("a", "", SHARE, 0.5, 0.1, replications=1)) == "50.0%"
    assert with_interval(value("a", "", COUNT, 7)) == "7"
    assert with_interval(value("a", "", SECONDS, 0.0123)) == "12.3 ms"


@pytest.mark.parametrize("make", [one, swept, beside])
def test_hostile_text_adds_no_element(make: Callable[[str], Shown]) -> None:
    tame, page = Tags(html(make(""), "1")), html(make(EVIL), "1")
    assert Tags(page).names == tame.names
    assert Tags(page).links == []
    assert "\x1b" not in page


def test_hostile_text_in_the_terminal() -> None:
    for shown in (simulation(one(EVIL)), grid(swept(EVIL)), comparison(beside(EVIL))):
        assert "\x1b[31m" not in printed(shown, 80)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    import peers

    path = peers.needs("chromium")
    quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--no-first-run", *quiet])
        yield made
        made.close()


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (360, "dark")])
@pytest.mark.parametrize(
    ("shown", "charts"),
    [(one(), 6), (swept(), 1), (swept(axes=1), 1), (beside(), 0)],
    ids=["one", "map", "line", "beside"],
)
def test_the_page_is_alive(
    browser: Browser, tmp_path: Path, shown: Shown, charts: int, width: int, scheme: Literal["light", "dark"]
) -> None:
    path = tmp_path / "page.html"
    write_html(shown, path, "1")
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(path.as_uri())
    if charts:
        page.wait_for_function("() => Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle")
    assert page.locator(".chart").count() == charts
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
    page.close()
