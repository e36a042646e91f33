"""nginx counts connections and requests for itself, ss counts TIME_WAIT: both must agree with us to the last one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import peers
from kit import behaviours
from kit.certificates import Certificates
from kit.namespace import Namespace
from kit.nginx import Nginx
from kit.run_timewait import Result, close, stress
from kit.servers import Peer, Server

CLOSINGS = ["keep", "server", "client", "reset", "half"]
FIRST = {"keep": "us", "server": "peer", "client": "us", "reset": "reset", "half": "us"}  # who must close first


@pytest.fixture
def nginx(namespace: Namespace, certificates: Certificates) -> Iterator[Nginx]:
    peers.needs("nginx")
    good = certificates.good
    with Nginx(certificate=good.certificate, key=good.key, namespace=namespace) as running:
        yield running


def agrees(result: Result, nginx: Nginx, requests: int) -> int:
    """Everything succeeded, and nginx counted the same; returns the number of connections."""
    totals, count = result.totals, nginx.count()
    assert result.exit_code == 0, result.stderr
    assert result.findings == []
    assert (totals["succeeded"], totals["failed"], totals["requests"]) == (requests, 0, requests)
    assert count.requests == totals["requests"]
    assert count.accepted == count.handled == totals["connected"] == totals["started"]
    assert count.open == 0
    assert result.json["status"] == {"200": requests}
    assert result.json["errors"] == []
    assert sum(result.closed_first.values()) == totals["connected"]
    return int(totals["connected"])


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("closing", CLOSINGS)
def test_one_request_per_connection(
    closing: str, scheme: str, nginx: Nginx, namespace: Namespace, certificates: Certificates
) -> None:
    url, port = (nginx.url, nginx.port) if scheme == "http" else (nginx.tls_url, nginx.tls_port)
    words = [url, "-n", "300", "-c", "10", *close(closing), "--requests-per-connection", "1"]
    result = stress(*words, "--cacert", certificates.cacert, namespace=namespace)
    assert agrees(result, nginx, 300) == 300
    assert result.closed_first == {"us": 0, "peer": 0, "reset": 0} | {FIRST[closing]: 300}
    ours, theirs = namespace.time_wait("dport", port), namespace.time_wait("sport", port)
    expected = {"us": (300, 0), "peer": (0, 300), "reset": (0, 0)}[FIRST[closing]]
    assert (ours, theirs) == expected
    assert_seen(result, ours)


def assert_seen(result: Result, time_wait: int) -> None:
    """The run's own last look has counted them: those that nginx had not closed by then are in use there."""
    ports = result.json["ports"]
    assert ports["time_wait"] <= time_wait <= ports["time_wait"] + ports["in_use"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("closing", CLOSINGS)
def test_several_requests_per_connection(
    closing: str, scheme: str, nginx: Nginx, namespace: Namespace, certificates: Certificates
) -> None:
    url = nginx.url if scheme == "http" else nginx.tls_url
    words = [url, "-n", "1000", "-c", "7", *close(closing), "--requests-per-connection", "3", "--workers", "2"]
    result = stress(*words, "--cacert", certificates.cacert, namespace=namespace)
    assert agrees(result, nginx, 1000) >= 334


def test_kept_connections_are_opened_once(nginx: Nginx, namespace: Namespace) -> None:
    result = stress(nginx.url, "-n", "2000", "-c", "20", namespace=namespace)
    assert agrees(result, nginx, 2000) == 20
    assert result.closed_first == {"us": 20, "peer": 0, "reset": 0}


def test_keepalive_limit_of_the_server_is_no_failure(namespace: Namespace) -> None:
    peers.needs("nginx")
    with Nginx(namespace=namespace, keepalive_requests=10) as nginx:
        result = stress(nginx.url, "-n", "500", "-c", "5", namespace=namespace)
        assert agrees(result, nginx, 500) >= 50
        assert result.closed_first["peer"] >= 45


def test_ipv6(namespace: Namespace) -> None:
    peers.needs("nginx")
    with Nginx(host="::1", namespace=namespace) as nginx:
        result = stress(nginx.url, "-n", "200", "-c", "5", "--close", "client", namespace=namespace)
        assert agrees(result, nginx, 200) == 200
        assert namespace.time_wait("dport", nginx.port) == 200
        assert_seen(result, 200)


@pytest.mark.parametrize(
    ("ports", "source"),
    [
        ("kernel", "127.0.0.1"),
        ("kernel", "127.0.0.0/29"),
        ("oldest", "127.0.0.1"),
        ("sequential", "127.0.0.2-127.0.0.5"),
        ("random", "127.0.0.2-127.0.0.5"),
        ("30000-30099", "127.0.0.0/29"),
        ("kernel:40000-40099", "127.0.0.2-127.0.0.5"),
    ],
)
def test_sources_and_port_policies(ports: str, source: str, nginx: Nginx, namespace: Namespace) -> None:
    words = [nginx.url, "-n", "60", "-c", "5", "--close", "client", "--source", source, "--ports", ports]
    result = stress(*words, namespace=namespace)
    agrees(result, nginx, 60)
    names = namespace.run("ss", "-Htan", "state", "time-wait", f"( dport = :{nginx.port} )").split()[2::4]
    used = [name.rpartition(":") for name in names]
    hosts = {"127.0.0.1": 1, "127.0.0.2-127.0.0.5": 4, "127.0.0.0/29": 6}[source]
    assert len({host for host, _, _ in used}) == hosts
    low, high = (32768, 60999) if "-" not in ports else map(int, ports.removeprefix("kernel:").split("-"))
    assert all(low <= int(port) <= high for _, _, port in used)


def test_a_run_ended_by_time_loses_nothing(nginx: Nginx, namespace: Namespace) -> None:
    """What is in flight at the end was sent, so nginx may or may not have counted it; nothing else may be missing."""
    result = stress(nginx.url, "-d", "1s", "-c", "10", "--close", "server", namespace=namespace)
    totals, count = result.totals, nginx.count()
    assert result.exit_code == 0
    assert count.accepted == totals["connected"]
    assert totals["succeeded"] <= count.requests <= totals["requests"]
    assert totals["requests"] - totals["succeeded"] <= 10
    assert totals["failed"] == 0


def test_open_loop_starts_what_was_due(nginx: Nginx, namespace: Namespace) -> None:
    result = stress(nginx.url, "-R", "200cps", "-n", "200", "--close", "server", namespace=namespace)
    assert agrees(result, nginx, 200) == 200
    assert result.totals["seconds"] >= 0.9


@pytest.mark.parametrize("method", ["POST", "HEAD", "PUT", "DELETE"])
def test_methods_and_bodies(method: str, namespace: Namespace) -> None:
    peers.needs("nginx")
    with Nginx(namespace=namespace) as nginx:
        words = [nginx.url, "-n", "100", "-c", "5", "--method", method]
        body = ["--body", "x" * 5000] if method in ("POST", "PUT") else []
        agrees(stress(*words, *body, namespace=namespace), nginx, 100)


def test_targets_are_used_in_turn(nginx: Nginx, namespace: Namespace) -> None:
    lines = f"GET {nginx.url}a\nHEAD {nginx.url}b\n\n# a comment\nPOST {nginx.url}c\n"
    result = stress("--targets", "-", "-n", "90", "-c", "3", input=lines, namespace=namespace)
    agrees(result, nginx, 90)


def test_the_warm_up_is_left_out_of_the_totals(nginx: Nginx, namespace: Namespace) -> None:
    words = ["-R", "100/s", "-d", "2s", "--warm-up", "1s"]
    totals = stress(nginx.url, *words, namespace=namespace).totals
    assert 0 < totals["requests"] < nginx.count().requests


def test_connect_to_changes_the_address_and_not_the_host(namespace: Namespace) -> None:
    hosts: set[str] = set()

    def behaviour(peer: Peer) -> None:
        hosts.add(peer.request().headers["host"])
        peer.send(behaviours.OK_CLOSE)

    with Server(behaviour, listener=namespace.listen()) as server:
        words = [
            "--connect-to",
            f"example.test:80:127.0.0.1:{server.port}",
            "-n",
            "5",
            "-c",
            "1",
            "--close",
            "server",
        ]
        result = stress("http://example.test/", *words, namespace=namespace)
        assert server.accepted == result.totals["connected"] == 5
    assert (hosts, result.exit_code) == ({"example.test"}, 0)
