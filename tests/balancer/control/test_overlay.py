"""What was changed by hand, over a file that changes; and what a reload would change."""

from __future__ import annotations

import msgspec
import pytest

from timewait.balancer import overlay
from timewait.balancer.changes import between
from timewait.balancer.config.model import Configuration
from timewait.balancer.config.read import configuration
from timewait.balancer.overlay import Hand

A, B, C = "10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"
FILE = """
engine = "{engine}"
workers = {workers}
[[listener]]
name = "web"
bind = ["127.0.0.1:8080"]
client.keepalive = "{keepalive}"
rule = [{{ pool = "app" }}]
{more}
[[pool]]
name = "app"
scheduler = "{scheduler}"
target = [{targets}]
"""


def file(
    *targets: tuple[str, int],
    engine: str = "embedded",
    workers: int = 1,
    keepalive: str = "75s",
    scheduler: str = "wrr",
    more: str = "",
) -> Configuration:
    listed = ", ".join(f'{{ addr = "{address}", weight = {weight} }}' for address, weight in targets)
    text = FILE.format(
        engine=engine, workers=workers, keepalive=keepalive, more=more, scheduler=scheduler, targets=listed
    )
    return configuration(text, "clb.toml")


TWO = file((A, 10), (B, 10))


def targets(found: Configuration) -> dict[str, int]:
    return {one.addr: one.weight for one in found.pool[0].target}


def test_nothing_by_hand_is_the_file() -> None:
    assert overlay.effective(TWO, {}) == TWO


def test_weight_added_and_removed() -> None:
    laid = overlay.weighed({}, TWO, ("app", A), 0)
    laid = overlay.weighed(laid, TWO, ("app", C), 5)
    laid = overlay.removed(laid, TWO, ("app", B))
    assert targets(overlay.effective(TWO, laid)) == {A: 0, C: 5}
    assert overlay.told(laid) == [f"app {A}: weight 0", f"app {B}: removed", f"app {C}: added, weight 5"]


def test_back_to_what_the_file_says_leaves_nothing() -> None:
    laid = overlay.weighed(overlay.weighed({}, TWO, ("app", A), 0), TWO, ("app", A), 10)
    laid = overlay.removed(overlay.weighed(laid, TWO, ("app", C), 5), TWO, ("app", C))
    assert laid == {}


def test_a_removed_one_may_come_back() -> None:
    laid = overlay.weighed(overlay.removed({}, TWO, ("app", A)), TWO, ("app", A), 3)
    assert targets(overlay.effective(TWO, laid)) == {A: 3, B: 10}


def test_one_that_leaves_stays_without_weight_and_so_does_its_pool() -> None:
    other = file((B, 10), scheduler="least_conn")
    gone = {("app", A): TWO.pool[0]}
    assert targets(overlay.effective(other, {}, gone)) == {B: 10, A: 0}
    renamed = msgspec.structs.replace(TWO, pool=())
    found = overlay.effective(renamed, {}, gone)
    assert [(pool.name, targets(found)) for pool in found.pool] == [("app", {A: 0})]


@pytest.mark.parametrize(
    ("hand", "after", "stays"),
    [
        (Hand(0), file((A, 10), (B, 7)), True),  # another target's weight
        (Hand(0), file((A, 20), (B, 10)), False),  # the file says something else about this one
        (Hand(0), file((B, 10)), False),
        (Hand(None), file((A, 10)), True),
        (Hand(None), file((A, 11)), False),
        (Hand(None), file((B, 10)), False),
    ],
)
def test_what_a_reload_keeps(hand: Hand, after: Configuration, stays: bool) -> None:
    laid = {("app", A): hand}
    assert overlay.merged(laid, TWO, after) == (laid if stays else {})


def test_a_reload_keeps_what_was_added_until_the_file_has_it() -> None:
    laid = {("app", C): Hand(5, added=True)}
    assert overlay.merged(laid, TWO, file((A, 10))) == laid
    assert overlay.merged(laid, TWO, file((A, 10), (C, 1))) == {}


API = """
[[listener]]
name = "api"
bind = ["127.0.0.1:8081"]
rule = [{ pool = "app" }]
"""


@pytest.mark.parametrize(
    ("after", "lines"),
    [
        (TWO, ["listeners kept: web"]),
        (file((A, 10), (B, 10), more=API), ["listeners kept: web", "listeners added: api"]),
        (file((A, 10), (B, 10), keepalive="5s"), ["listeners restarted: web"]),
        (file((A, 10), (B, 10), workers=2), ["listeners restarted: web"]),
        (file((A, 10), (B, 10), engine="haproxy"), ["listeners restarted: web"]),
        (
            file((A, 3), (C, 10)),
            [
                "listeners kept: web",
                f"targets added: app {C}",
                f"targets removed: app {B}",
                f"weights changed: app {A}: 10 -> 3",
            ],
        ),
        (file((A, 10), (B, 10), scheduler="ip_hash"), ["listeners kept: web", "pools changed: app"]),
    ],
)
def test_what_a_reload_would_change(after: Configuration, lines: list[str]) -> None:
    found = between(TWO, after)
    assert found.lines() == lines
    assert found.nothing is (after == TWO)


def test_a_listener_that_is_gone_drains() -> None:
    assert between(file((A, 10), more=API), file((A, 10))).listeners_drained == ["api"]


def test_what_only_another_start_changes_is_said() -> None:
    other = msgspec.structs.replace(TWO, user="www-data")
    assert between(TWO, other).lines() == ["listeners kept: web", "only at the next start: user"]
