"""One connection per question, against servers that are known to behave so and against a real nginx."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from kit import behaviours
from kit.certificates import Certificates
from kit.nginx import Nginx
from kit.ports import free_port
from kit.servers import Peer, Server
from timewait.plan import Plan, Tls, parse_url
from timewait.stress.probe import Behaviour, How, probe


def ask(
    url: str,
    address: str,
    port: int,
    *,
    idle: float = 0.2,
    tls: Tls | None = None,
    connect: float = 20,
    answer: float = 20,
    close: float = 20,
) -> Behaviour:
    """The probe with these patiences, short only where a test is about something that does not come."""
    request = parse_url(url)
    plan = Plan(
        requests_list=(request,), tls=tls or Tls(), connect_timeout=connect, timeout=answer, close_timeout=close
    )
    return probe(plan, request, address, port, idle)


def ask_server(
    behaviour: Callable[[Peer], None], *, idle: float = 0.2, answer: float = 20, close: float = 20
) -> Behaviour:
    with Server(behaviour) as server:
        return ask(server.url, server.host, server.port, idle=idle, answer=answer, close=close)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_good_server(host: str) -> None:
    with Server(behaviours.well, host=host) as server:
        found = ask(server.url, server.host, server.port)
        assert server.accepted == 3
    assert found.reachable and not found.error and not found.problems
    assert found.status == 200
    assert found.keep_alive is True
    assert found.on_close is not None and found.on_close.how is How.PEER
    assert found.on_http10 is not None and found.on_http10.how is How.PEER
    assert found.on_idle is not None and found.on_idle.how is How.OPEN
    assert found.connect is not None and found.lifetime is not None
    assert 0 < found.connect < found.lifetime


def test_timestamps_are_what_the_kernel_negotiates() -> None:
    here = Path("/proc/sys/net/ipv4/tcp_timestamps").read_text().strip() != "0"
    assert ask_server(behaviours.well).timestamps is here


def test_a_server_that_ignores_close() -> None:
    found = ask_server(behaviours.ignores_close, close=0.3)
    assert found.on_close is not None
    assert (found.on_close.how, found.on_close.announced) == (How.OPEN, False)
    assert found.on_close.seconds >= 0.3


def test_a_server_that_announces_but_waits_for_us() -> None:
    def polite(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        peer.read_to_end()

    found = ask_server(polite, close=0.3)
    assert found.on_close is not None
    assert (found.on_close.how, found.on_close.announced) == (How.OPEN, True)


def test_one_request_per_connection() -> None:
    announced = ask_server(behaviours.closes_announced(1))
    assert announced.keep_alive is False and not announced.problems
    assert announced.on_idle is None
    unannounced = ask_server(behaviours.closes_unannounced(1))
    assert unannounced.keep_alive is False
    assert any("kept alive" in problem for problem in unannounced.problems)


def test_idle_connections_that_the_server_ends() -> None:
    def impatient(peer: Peer) -> None:
        for _ in range(2):
            asked = peer.request()
            peer.send(behaviours.OK)
            if asked.asks_close:
                return
        peer.wait(2)

    found = ask_server(impatient, idle=20)
    assert found.on_idle is not None and found.on_idle.how is How.PEER
    assert 0.05 <= found.on_idle.seconds < 20  # counted from when the answer was read, which may be late


def test_idle_connections_that_the_server_resets() -> None:
    def brutal(peer: Peer) -> None:
        for _ in range(2):
            if peer.request().asks_close:
                peer.send(behaviours.OK)
                return
            peer.send(behaviours.OK)
        peer.wait(0.05)
        peer.reset()

    found = ask_server(brutal, idle=20)
    assert found.on_idle is not None and found.on_idle.how is How.RESET


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (behaviours.closes_before_answer, "closed before its answer was complete"),
        (behaviours.truncates, "closed before its answer was complete"),
        (behaviours.resets_after_request, "reset by peer"),
        (behaviours.stalls_before_answer, "nothing came for 0.3 s"),
        (behaviours.stalls_in_body, "nothing came for 0.3 s"),
        (behaviours.trailing_data, "no correct HTTP"),
    ],
)
def test_answers_that_are_none(behaviour: Callable[[Peer], None], words: str) -> None:
    found = ask_server(behaviour, answer=0.3 if "0.3 s" in words else 20)
    assert found.reachable
    assert words in found.problems[0]
    assert found.on_close is None


def test_refused() -> None:
    port = free_port()
    found = ask(f"http://127.0.0.1:{port}/", "127.0.0.1", port)
    assert not found.reachable
    assert found.errno == "ECONNREFUSED"
    assert "refused" in found.error


def test_unanswered_syns() -> None:
    with Server(None, backlog=0) as server:
        fill = [socket.socket() for _ in range(4)]
        for sock in fill:
            sock.setblocking(False)
            sock.connect_ex((server.host, server.port))
        found = ask(server.url, server.host, server.port, connect=1)
        for sock in fill:
            sock.close()
    assert not found.reachable
    assert found.errno == "ETIMEDOUT"
    assert "no answer to SYN for 1 s" in found.error


@pytest.mark.parametrize(
    ("behaviour", "how", "idle"), [(behaviours.echo, How.OPEN, 0.2), (behaviours.closes_at_accept, How.PEER, 20)]
)
def test_plain_tcp(behaviour: Callable[[Peer], None], how: How, idle: float) -> None:
    with Server(behaviour) as server:
        found = ask(server.tcp_url, server.host, server.port, idle=idle)
    assert found.reachable and found.timestamps is not None
    assert found.on_idle is not None and found.on_idle.how is how
    assert found.status is None and found.on_close is None and found.keep_alive is None


def test_tls(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    with Server(behaviours.well, tls=certificates.good.context()) as server:
        good = ask(server.url, server.host, server.port, tls=Tls(cacert=str(certificates.cacert)))
        bad = ask(server.url, server.host, server.port)
    assert good.tls == "TLSv1.3" and good.keep_alive is True
    assert good.on_close is not None and good.on_close.how is How.PEER
    assert not bad.reachable
    assert "certificate" in bad.error or "issuer" in bad.error


def test_plain_http_where_tls_was_asked() -> None:
    with Server(behaviours.well) as server:
        found = ask(server.url.replace("http", "https"), server.host, server.port, answer=0.3)
    assert not found.reachable and "TLS handshake failed" in found.error


def test_nginx(needs: Callable[[str], str]) -> None:
    needs("nginx")
    with Nginx(keepalive_timeout=3) as nginx:
        found = ask(nginx.url, "127.0.0.1", nginx.port, idle=20)
        count = nginx.count()
    assert (count.accepted, count.requests) == (3, 4)
    assert found.keep_alive is True and not found.problems
    assert found.on_close is not None and (found.on_close.how, found.on_close.announced) == (How.PEER, True)
    assert found.on_http10 is not None and found.on_http10.how is How.PEER
    assert found.on_idle is not None and found.on_idle.how is How.PEER
    assert 0.05 <= found.on_idle.seconds < 20


def test_nginx_without_keep_alive(needs: Callable[[str], str]) -> None:
    needs("nginx")
    with Nginx(keepalive_timeout=0) as nginx:
        found = ask(nginx.url, "127.0.0.1", nginx.port)
    assert found.keep_alive is False and found.on_idle is None
