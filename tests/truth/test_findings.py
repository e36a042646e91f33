"""Each way to fail produces its finding and exit code and none other; a healthy run produces none."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

import peers
from kit import behaviours
from kit.namespace import Namespace, needs_namespaces
from kit.nginx import Nginx
from kit.run_timewait import MACHINE, TARGET, THRESHOLD, Result, close, stress
from kit.servers import Server


@pytest.fixture
def nginx(namespace: Namespace) -> Iterator[Nginx]:
    peers.needs("nginx")
    with Nginx(namespace=namespace) as running:
        yield running


@pytest.fixture
def cramped(narrow: Namespace) -> Iterator[Nginx]:
    """nginx in a namespace of 200 source ports."""
    peers.needs("nginx")
    with Nginx(namespace=narrow) as running:
        yield running


def remedies(result: Result) -> str:
    return " ".join(remedy["action"] for finding in result.json["findings"] for remedy in finding["remedy"])


@pytest.mark.parametrize("closing", ["keep", "server", "client", "reset", "half"])
def test_healthy_runs_have_no_finding(closing: str, nginx: Nginx, namespace: Namespace) -> None:
    result = stress(nginx.url, "-d", "1s", "-c", "5", *close(closing), namespace=namespace)
    assert (result.findings, result.exit_code, result.totals["failed"]) == ([], 0, 0)


def test_healthy_open_loop_has_no_finding(nginx: Nginx, namespace: Namespace) -> None:
    result = stress(nginx.url, "-R", "100/s", "-d", "1s", namespace=namespace)
    assert (result.findings, result.exit_code, result.totals["failed"]) == ([], 0, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_refused(host: str, namespace: Namespace) -> None:
    result = stress(f"http://{host}:9/", "-n", "20", "-c", "10", namespace=namespace)
    assert result.errors() == {("connect", "ECONNREFUSED", "refused"): 20}
    assert (result.findings, result.exit_code) == (["refused"], TARGET)
    assert (result.totals["succeeded"], result.totals["connected"]) == (0, 0)


def test_blackholed(namespace: Namespace) -> None:
    """A firewall that drops every SYN."""
    peers.needs("nft")
    with Server(behaviours.well, listener=namespace.listen()) as server:
        namespace.drop(server.port)
        words = ["-n", "10", "-c", "10", "--connect-timeout", "1500ms"]
        result = stress(server.url, *words, namespace=namespace)
    assert {(phase, cause) for phase, _, cause in result.errors()} == {("connect", "timeout")}
    assert sum(result.errors().values()) == result.totals["failed"] == 10
    assert (result.findings, result.exit_code) == (["syn-retransmitted"], TARGET)


def test_no_route(namespace: Namespace) -> None:
    result = stress("http://192.0.2.1/", "-n", "5", "-c", "5", namespace=namespace)
    assert result.errors() == {("connect", "ENETUNREACH", "unreachable"): 5}
    assert result.exit_code != 0


def test_a_name_without_an_address(namespace: Namespace) -> None:
    result = stress("http://no-such-host.invalid/", "-n", "5", namespace=namespace)
    assert set(result.errors()) == {("resolve", "", "resolve")}
    assert (result.findings, result.exit_code) == (["refused"], TARGET)
    assert "no-such-host.invalid" in result.stderr


def test_accept_queue_overflow(namespace: Namespace) -> None:
    """listen(1) and no accept(): two connections are queued, the SYNs of all others are dropped."""
    with Server(None, listener=namespace.listen(backlog=1)) as server:
        words = ["-n", "12", "-c", "12", "--connect-timeout", "1500ms", "--timeout", "1500ms"]
        result = stress(server.url, *words, namespace=namespace)
    assert namespace.counter("TcpExtListenOverflows") > 0
    assert result.totals["connected"] == 2
    assert (result.findings, result.exit_code) == (["accept-queue-overflow"], TARGET)
    moved = result.json["counters"]
    assert moved["TcpExt.ListenOverflows"] == namespace.counter("TcpExtListenOverflows")


def test_two_hundred_ports_in_time_wait(cramped: Nginx, narrow: Namespace) -> None:
    result = stress(cramped.url, "-n", "240", "-c", "10", "--close", "client", namespace=narrow)
    assert (result.totals["succeeded"], result.totals["connected"]) == (200, 200)
    assert result.totals["failed"] == 40
    assert {(errno, cause) for _, errno, cause in result.errors()} == {("EADDRNOTAVAIL", "no-port")}
    assert (result.findings, result.exit_code) == (["ports-exhausted"], MACHINE)
    ports = result.json["ports"]
    assert (ports["capacity"], ports["time_wait"] + ports["in_use"], ports["free"]) == (200, 200, 0)
    assert cramped.count().accepted == 200  # which waits until nginx has closed the last of them
    assert narrow.time_wait("dport", cramped.port) == 200
    assert "--close" in remedies(result)


def test_two_hundred_ports_with_a_source_are_the_same_finding(cramped: Nginx, narrow: Namespace) -> None:
    """EADDRINUSE or EADDRNOTAVAIL: one cause."""
    words = ["--close", "client", "--source", "127.0.0.1"]
    result = stress(cramped.url, "-n", "240", "-c", "10", *words, namespace=narrow)
    assert {cause for _, _, cause in result.errors()} == {"no-port"}
    assert (result.findings, result.exit_code) == (["ports-exhausted"], MACHINE)


@pytest.mark.parametrize(
    "words",
    [
        ("--close", "server"),
        ("--close", "reset"),
        ("--close", "client", "--ports", "oldest"),
        ("--close", "client", "--source", "127.0.0.1-127.0.0.3"),
        (),
    ],
    ids=["server", "reset", "oldest", "sources", "keep"],
)
def test_the_remedies_against_exhausted_ports_hold(words: tuple[str, ...], cramped: Nginx, narrow: Namespace) -> None:
    """What the finding above advises gets 400 connections out of 200 ports."""
    result = stress(cramped.url, "-n", "400", "-c", "10", *words, namespace=narrow)
    assert (result.totals["succeeded"], result.totals["failed"], result.exit_code) == (400, 0, 0)


def test_the_remedy_of_explicit_ports_needs_timestamps(cramped: Nginx, narrow: Namespace) -> None:
    narrow.run("sysctl", "-qw", "net.ipv4.tcp_timestamps=0")
    words = ["--close", "client", "--ports", "oldest"]
    result = stress(cramped.url, "-n", "240", "-c", "10", *words, namespace=narrow)
    assert result.totals["succeeded"] == 200
    assert (result.findings, result.exit_code) == (["ports-exhausted"], MACHINE)


def test_reuse_without_timestamps_is_void(narrow: Namespace) -> None:
    peers.needs("nginx")
    narrow.run("sysctl", "-qw", "net.ipv4.tcp_timestamps=0", "net.ipv4.tcp_tw_reuse=1")
    with Nginx(namespace=narrow) as nginx:
        result = stress(nginx.url, "-n", "240", "-c", "10", "--close", "client", namespace=narrow)
    assert set(result.findings) == {"ports-exhausted", "tw-reuse-void"}
    assert result.exit_code == MACHINE


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest) -> Iterator[tuple[Namespace, Nginx]]:
    """100 ports, the tcp_tw_reuse asked for, and a target on an address of this host that is no loopback address."""
    needs_namespaces()
    peers.needs("nginx")
    with Namespace((40000, 40099), {"net.ipv4.tcp_tw_reuse": request.param}) as namespace:
        namespace.run("ip", "address", "add", "10.1.1.1/32", "dev", "lo")
        with Nginx(host="10.1.1.1", namespace=namespace) as nginx:
            yield namespace, nginx


# More connections than the 100 ports. Those are needed again after 4 s: late enough that the first are a second old
# by then even if the machine was busy elsewhere at their time.
RATE = ("-R", "25cps", "-n", "120", "--close", "client")


@pytest.mark.parametrize("elsewhere", ["2"], indirect=True)
def test_reuse_covers_loopback_only(elsewhere: tuple[Namespace, Nginx]) -> None:
    """tcp_tw_reuse=2, the default: tcp_twsk_unique() lets only loopback addresses take over TIME_WAIT."""
    namespace, nginx = elsewhere
    result = stress(nginx.url, *RATE, namespace=namespace)
    assert result.totals["succeeded"] == 100
    assert (set(result.findings), result.exit_code) == ({"ports-exhausted", "tw-reuse-loopback-only"}, MACHINE)


@pytest.mark.parametrize("elsewhere", ["1"], indirect=True)
def test_reuse_for_all_carries_the_same_load(elsewhere: tuple[Namespace, Nginx]) -> None:
    """The remedy of the finding above."""
    namespace, nginx = elsewhere
    result = stress(nginx.url, *RATE, namespace=namespace)
    assert (result.totals["succeeded"], result.totals["failed"], result.exit_code) == (120, 0, 0)
    assert result.json["counters"]["TcpExt.TWRecycled"] >= 20


@pytest.mark.parametrize(("ports", "findings"), [("kernel", ["port-search-slow"]), ("oldest", [])])
def test_the_port_search_past_half_the_range(ports: str, findings: list[str]) -> None:
    """The kernel's search walks through thousands of busy ports; our own choice does not."""
    needs_namespaces()
    peers.needs("nginx")
    with Namespace((20000, 29999)) as namespace, Nginx(namespace=namespace) as nginx:
        words = ["-n", "8500", "-c", "5", "--close", "client", "--ports", ports]
        result = stress(nginx.url, *words, namespace=namespace)
    assert (result.findings, result.exit_code, result.totals["failed"]) == (findings, 0, 0)


def test_ports_held_by_open_connections(cramped: Nginx, narrow: Namespace) -> None:
    result = stress(cramped.url, "-n", "2000", "-c", "250", namespace=narrow)
    assert (result.findings, result.exit_code) == (["ports-held-open"], MACHINE)
    assert result.json["ports"]["capacity"] == 200


def test_residue_of_an_earlier_run(cramped: Nginx, narrow: Namespace) -> None:
    assert stress(cramped.url, "-n", "150", "-c", "5", "--close", "client", namespace=narrow).totals["failed"] == 0
    assert cramped.count().open == 0
    result = stress(cramped.url, "-n", "20", "-c", "5", "--close", "client", namespace=narrow)
    assert result.json["ports"]["residue"] == 150
    assert (result.findings, result.exit_code, result.totals["failed"]) == (["residue"], 0, 0)


def test_open_file_limit(nginx: Nginx, namespace: Namespace) -> None:
    result = stress(nginx.url, "-n", "2000", "-c", "200", open_files=64, namespace=namespace)
    assert {(errno, cause) for _, errno, cause in result.errors()} == {("EMFILE", "no-file")}
    assert (result.findings, result.exit_code) == (["open-files"], MACHINE)
    assert result.totals["succeeded"] > 0


def test_soft_limit_of_open_files_is_raised(nginx: Nginx, namespace: Namespace) -> None:
    result = stress(nginx.url, "-n", "2000", "-c", "200", open_files=64, hard_open_files=1024, namespace=namespace)
    assert (result.findings, result.exit_code, result.totals["connected"]) == ([], 0, 200)


def test_time_wait_bucket_overflow(nginx: Nginx, namespace: Namespace) -> None:
    namespace.run("sysctl", "-qw", "net.ipv4.tcp_max_tw_buckets=50")
    result = stress(nginx.url, "-n", "300", "-c", "5", "--close", "client", namespace=namespace)
    assert (result.findings, result.exit_code, result.totals["failed"]) == (["time-wait-overflow"], 0, 0)
    assert result.json["counters"]["TcpExt.TCPTimeWaitOverflow"] == 250


@pytest.mark.parametrize(
    ("threshold", "code"), [("failed>0.1%", 0), ("p99>1us", THRESHOLD), ("rate<1m/s", THRESHOLD)]
)
def test_thresholds(threshold: str, code: int, nginx: Nginx, namespace: Namespace) -> None:
    result = stress(nginx.url, "-n", "100", "-c", "5", "--fail-if", threshold, namespace=namespace)
    assert result.exit_code == result.json["exit_code"] == code


def test_find_max_stops_at_the_ports() -> None:
    """The first step takes 200 of 210 ports. Whether it held or not (a busy machine), the next asks for too many."""
    needs_namespaces()
    peers.needs("nginx")
    with Namespace((40000, 40209)) as namespace, Nginx(namespace=namespace) as nginx:
        words = ["--find-max", "-d", "2s", "--close", "client"]
        result = stress(nginx.url, *words, namespace=namespace, timeout=90)
    assert "ports-exhausted" in result.findings


def test_the_forecast_comes_before_the_first_packet(cramped: Nginx, narrow: Namespace) -> None:
    """200 ports at 150 connections a second last 1.3 s; said first, and then it happens."""
    words = ["-R", "150cps", "-n", "300", "--close", "client"]
    result = stress(cramped.url, *words, namespace=narrow)
    forecast = result.stderr.split("forecast:")[1].split("1 s  ")[0]
    assert "150 ports a second" in forecast
    assert "has 200" in forecast
    assert "1.3 s" in forecast
    assert result.findings == ["ports-exhausted"]


def test_a_busy_port_of_our_range_is_passed_over(nginx: Nginx, namespace: Namespace) -> None:
    held: list[socket.socket] = [namespace.listen(port=port) for port in range(30000, 30003)]
    try:
        words = ["-n", "50", "-c", "2", "--close", "reset", "--ports", "30000-30009"]
        result = stress(nginx.url, *words, namespace=namespace)
    finally:
        for sock in held:
            sock.close()
    assert (result.totals["succeeded"], result.totals["failed"]) == (50, 0)
