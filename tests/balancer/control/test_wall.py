"""Ports toward targets: whose they are, how their pace is measured, and a balancer that runs out of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import behaviours
from kit.labs import ENVIRONMENT, wait_until
from kit.namespace import Namespace, needs_namespaces
from kit.run_timewait import timewait
from kit.servers import Server
from timewait.balance import Lookout
from timewait.balancer.config.read import configuration
from timewait.balancer.control.client import Client
from timewait.balancer.origins import From, origins, translations
from timewait.balancer.statistics import Closes, Statistics, TargetStatistics
from timewait.balancer.views import Kernel
from timewait.run import PortUse

A, B, SIX = "10.2.1.2:80", "10.2.2.2:80", "[fd00::1]:80"
TWO_LISTENERS = f"""
[[listener]]
name = "one"
bind = ["127.0.0.1:8080"]
rule = [{{{{ pool = "app" }}}}]
{{first}}
[[listener]]
name = "two"
bind = ["127.0.0.1:8081"]
protocol = "tcp"
pool = "db"
{{second}}
[[pool]]
name = "app"
target = [{{{{ addr = "{A}" }}}}, {{{{ addr = "{SIX}" }}}}]
[[pool]]
name = "db"
target = [{{{{ addr = "{A}" }}}}, {{{{ addr = "{B}" }}}}]
"""


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ("", "", {From(): [A, SIX, B]}),
        (
            'upstream.source = ["10.0.0.2", "10.0.0.3", "fd00::2"]',
            "",
            {From(("10.0.0.2", "10.0.0.3")): [A], From(("fd00::2",)): [SIX], From(): [B]},
        ),
        (
            'upstream.source = ["10.0.0.2", "fd00::2"]',
            'upstream.source = ["10.0.0.3:20000-20999", "10.0.0.2"]',
            {
                From(("10.0.0.2",)): [A, B],
                From(("10.0.0.3",), 20000, 20999): [A, B],
                From(("fd00::2",)): [SIX],
            },
        ),
    ],
)
def test_from_where_connections_come(first: str, second: str, found: dict[From, list[str]]) -> None:
    assert origins(configuration(TWO_LISTENERS.format(first=first, second=second), "clb.toml")) == found


KERNEL = """
engine = "nftables"
[[listener]]
name = "db"
bind = ["10.0.0.1:5432"]
protocol = "tcp"
pool = "db"
{source}
[[listener]]
name = "dns"
bind = ["10.0.0.1:53"]
protocol = "udp"
pool = "names"
[[pool]]
name = "db"
nat = "{nat}"
target = [{{ addr = "10.2.1.2:5432" }}, {{ addr = "127.0.0.1:5432" }}]
[[pool]]
name = "names"
target = [{{ addr = "10.2.1.3:53" }}]
"""


@pytest.mark.parametrize(
    ("source", "nat", "capacity"),
    [
        ("", "full", [64_512]),
        ('upstream = { source = ["10.2.1.1:20000-20999", "10.2.1.9"] }', "full", [65_512]),
        ("", "dnat", []),
    ],
)
def test_ports_that_the_kernel_gives(source: str, nat: str, capacity: list[int]) -> None:
    read = configuration(KERNEL.format(source=source, nat=nat), "clb.toml")
    target = TargetStatistics(pool="db", address="10.2.1.2:5432", connects=900, active=300, resting=200)
    found = translations(read, Statistics(targets={"db/10.2.1.2:5432": target}))
    assert [use.capacity for use in found.values()] == capacity
    assert all((use.in_use, use.time_wait, use.free) == (300, 200, use.capacity - 500) for use in found.values())
    assert origins(read) == {}


def counted(closed_first: int, no_port: int = 0) -> Statistics:
    target = TargetStatistics(pool="app", address=A, no_port=no_port, closes=Closes(balancer_fin=closed_first))
    return Statistics(targets={f"app/{A}": target})


def look(lookout: Lookout, statistics: Statistics, now: float, time_wait: int) -> Kernel:
    """One look at a kernel that says so many TIME_WAIT."""
    kernel = Kernel(ports={A: PortUse(destination=A, capacity=28_232, time_wait=time_wait, free=28_232 - time_wait)})
    lookout._findings(statistics, kernel, now, {A: 1})
    return kernel


def test_the_pace_is_that_of_the_last_ten_seconds() -> None:
    lookout = Lookout()
    assert look(lookout, counted(0), 0.0, 0).seconds_left == {}
    assert look(lookout, counted(1_000), 1.0, 1_000).seconds_left[A] == pytest.approx(27.232)  # 1,000/s
    for at in range(2, 20):
        kernel = look(lookout, counted(at * 1_000), float(at), at * 1_000)
    assert kernel.seconds_left[A] == pytest.approx(9.232)
    assert kernel.findings[0].id == "upstream-ports-wall"
    for at in range(20, 32):
        kernel = look(lookout, counted(19_000), float(at), 19_000)
    assert (kernel.seconds_left, kernel.findings) == ({}, [])


def test_where_an_engine_cannot_count_the_kernel_does() -> None:
    lookout = Lookout()
    look(lookout, counted(0), 0.0, 0)
    assert look(lookout, counted(0), 2.0, 4_000).seconds_left[A] == pytest.approx(12.116)


def test_a_failure_is_news_for_ten_seconds() -> None:
    lookout = Lookout()
    look(lookout, counted(0, 3), 0.0, 0)
    assert "7 connections found no source port" in look(lookout, counted(0, 10), 5.0, 28_000).findings[0].summary
    for at in range(6, 20):
        kernel = look(lookout, counted(0, 10), float(at), 0)
    assert kernel.findings == []


FILE = """
workers = 1
stop_timeout = "0s"
admin = {{ socket = "{socket}" }}
[[listener]]
name = "web"
bind = ["127.0.0.1:8080"]
rule = [{{ pool = "app" }}]
upstream = {{ keepalive = false, close = "fin" }}
[[pool]]
name = "app"
target = [{{ addr = "{target}" }}]
"""


@pytest.fixture
def small() -> Iterator[Namespace]:
    """A namespace with 200 source ports, whose TIME_WAITs are not used again."""
    needs_namespaces()
    with Namespace((40000, 40199)) as made:
        yield made


def kernel(client: Client) -> Any:
    return json.loads(client.get("/v1/stats"))["kernel"]


def test_a_balancer_sees_its_wall_coming_and_says_when_it_hit_it(small: Namespace, tmp_path: Path) -> None:
    with Server(behaviours.well, listener=small.listen()) as server:
        file = tmp_path / "clb.toml"
        file.write_text(FILE.format(socket=tmp_path / "admin.sock", target=server.authority))
        balancer = subprocess.Popen(
            small.command([sys.executable, "-m", "timewait", "balance", file]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        try:
            assert balancer.stdout is not None
            assert "ready" in balancer.stdout.readline()
            client = Client(tmp_path / "admin.sock")
            client.get("/v1/stats")

            def load(number: int) -> Any:
                url = "http://127.0.0.1:8080/"
                timewait("stress", url, "-n", str(number), "--rate", "50cps", "--close", "server", namespace=small)
                return kernel(client)

            load(100)

            def rests() -> bool:  # the last ones wait for the server's FIN at first
                use = kernel(client)["ports"][server.authority]
                return (use["time_wait"], use["free"]) == (100, 100)

            wait_until(rests, "100 ports rest and 100 are free")
            ahead = kernel(client)
            # The other side of the balancer, which costs it no port: there a client may come back to its own port
            there = small.time_wait("sport", 8080)
            assert 0 < there <= 100
            wait_until(lambda: kernel(client)["time_wait"]["web"] == there, "TIME_WAIT at the listener is told")
            assert ahead["findings"][0]["id"] == "upstream-ports-wall"
            assert 0 < ahead["seconds_left"][server.authority] < 60
            hit = load(120)
            assert hit["findings"][0]["id"] == "upstream-ports-exhausted"
            assert hit["ports"][server.authority]["free"] == 0
            stats = json.loads(client.get("/v1/stats"))
            assert stats["targets"][f"app/{server.authority}"]["no_port"] >= 20
            assert stats["health"][0]["state"] == "healthy"  # checks that find no port say nothing about the target
        finally:
            balancer.terminate()
            _, log = balancer.communicate(timeout=20)
    assert "upstream-ports-" in log
