"""What `top` makes of two looks: rates, a page that fits its terminal, lines."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from timewait.balancer.rotation import State
from timewait.balancer.statistics import Closes, ListenerStatistics, TargetStatistics
from timewait.balancer.views import Kernel, Notice, Stats, TargetHealth
from timewait.cli.balance import top_view
from timewait.cli.balance.rates import rates
from timewait.cli.balance.shown import stats_text
from timewait.run import PortUse

A, B = "10.0.1.11:8080", "10.0.1.12:8080"


def stats(at: float, times: int) -> Stats:
    """A balancer that was busy `times` times."""
    listener = ListenerStatistics(
        name="web",
        accepted=100 * times,
        active=12,
        idle=3,
        requests=1000 * times,
        made_by_balancer={404: 5 * times, 502: 2 * times},
        made_by_target={200: 993 * times},
        closes=Closes(balancer_fin=60 * times, balancer_rst=10 * times, peer_fin=28 * times, peer_rst=2 * times),
    )
    target = TargetStatistics(
        pool="app", address=A, connects=50 * times, active=4, idle=9, requests=998 * times, timed_out=2 * times
    )
    use = PortUse(destination=A, capacity=28_232, in_use=13, time_wait=1_200, free=27_019)
    return Stats(
        at=at,
        uptime=at,
        pid=4711,
        file="clb.toml",
        listeners={"web": listener},
        targets={f"app/{A}": target},
        health=[
            TargetHealth(pool="app", address=A, weight=10, effective=10, state=State.HEALTHY),
            TargetHealth(
                pool="app", address=B, weight=5, effective=0, state=State.UNHEALTHY, reason="connection refused"
            ),
        ],
        kernel=Kernel(
            ports={A: use},
            seconds_left={A: 38.0},
            time_wait={"web": 640},
            findings=[
                Notice(id="upstream-ports-wall", about=A, summary="Toward it ports run out.", remedy=["do this"])
            ],
        ),
    )


BEFORE, NOW = stats(10.0, 1), stats(12.0, 3)


def test_rates_are_of_the_time_between_two_looks() -> None:
    found = rates(BEFORE, NOW)["listener web"]
    assert (found.connections, found.requests, found.failed) == (100, 1000, 2)
    assert (found.balancer_first, found.reset, found.peer_first) == (60, 10, 30)
    assert found.statuses == {"2xx": 993, "4xx": 5, "5xx": 2}
    target = rates(BEFORE, NOW)[f"target app/{A}"]
    assert (target.connections, target.requests, target.failed) == (50, 998, 2)


def test_without_an_earlier_look_they_are_of_the_whole_time() -> None:
    assert rates(None, NOW)["listener web"].requests == 250


def test_counters_that_begin_anew_are_no_negative_rate() -> None:
    assert rates(NOW, stats(13.0, 0))["listener web"].requests == 0


@pytest.mark.parametrize("width", [60, 80])
def test_where_it_is_narrow_names_are_folded_and_no_figure_is_cut(width: int) -> None:
    listener = msgspec.structs.replace(NOW.listeners["web"], name="a-long-name-for-a-listener-of-the-web")
    long = "[2001:db8:85a3::8a2e:370:7334]:8080"
    one = msgspec.structs.replace(NOW.health[0], address=long)
    now = msgspec.structs.replace(NOW, listeners={listener.name: listener}, health=[one])
    shown = page(width, now)
    assert "…" not in shown and max(map(len, shown.split("\n"))) <= width
    assert all(name in shown for name in ("requests/s", "failed/s", "TIME_WAIT", "1,500", "healthy"))
    table = shown[shown.index("target") :].split("\n")
    assert len([line for line in table if line.startswith((" ", long[-4:]))]) <= 4  # not a letter a line


def page(width: int, now: Stats = NOW) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(top_view.page(BEFORE, now, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80, 130, 200])
def test_the_page_has_everything_and_fits(width: int) -> None:
    shown = page(width)
    assert max(map(len, shown.split("\n"))) <= width
    for wanted in ("clb.toml", "web", "1,000", "640", A, B, "healthy", "unhealthy", "5 -> 0", "do this"):
        assert wanted in shown, wanted
    assert "connection refused" in shown
    assert "ports gone in 38 s" in shown
    if width >= 130:
        assert "2xx 993 4xx 5.0 5xx 2.0" in shown
        assert "▒" in shown and "1,200" in shown
    else:
        assert "27,019 of 28,232 ports free" in " ".join(shown.split())


def test_lines_for_whoever_is_no_terminal() -> None:
    lines = top_view.text(BEFORE, NOW).split("\n")
    assert lines[0] == "clb.toml  process 4711, up 12 s"
    assert "1,000/s requests  2xx 993 4xx 5.0 5xx 2.0  failed 2.0/s" in lines[1]
    assert "ports 27,019 of 28,232 free, TIME_WAIT 1,200, gone in 38 s" in lines[2]
    assert lines[3].endswith("(connection refused)")
    assert lines[4] == "  upstream-ports-wall: Toward it ports run out."


def test_what_an_engine_does_not_count_is_not_told_as_zeros() -> None:
    listener, target = ListenerStatistics(name="web"), TargetStatistics(pool="app", address=A)
    silent = msgspec.structs.replace(
        NOW, listeners={"web": listener}, targets={f"app/{A}": target}, unknown=["closes"]
    )
    assert "ended first" not in stats_text(silent) and "TIME_WAIT here 640" in stats_text(silent)
    beside = msgspec.structs.replace(NOW, unknown=["closes"])  # another engine counts
    assert "ended first by the balancer 180 FIN" in stats_text(beside)
