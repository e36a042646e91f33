"""The kit itself: a witness that lies would make every other test worthless."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

import pytest

from kit import behaviours
from kit.certificates import Certificates
from kit.labs import wait_until
from kit.namespace import Namespace
from kit.nginx import Nginx
from kit.ports import free_port
from kit.servers import Behaviour, Server

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def connect(server: Server) -> socket.socket:
    return socket.create_connection((server.host, server.port), 20)


def ask(server: Server, data: bytes = REQUEST) -> bytes:
    """Sends `data` and reads to the end, which a shutdown of our side brings about."""
    with connect(server) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_good_server_answers_and_counts(host: str) -> None:
    with Server(behaviours.well, host=host) as server:
        assert ask(server, REQUEST * 3) == behaviours.OK * 3
        assert (server.accepted, server.requests) == (1, 3)
        assert server.url == f"http://{'[::1]' if ':' in host else host}:{server.port}/"


def test_good_server_closes_when_asked() -> None:
    with Server(behaviours.well) as server, connect(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: sock.recv(100), b"")) == behaviours.OK_CLOSE


@pytest.mark.parametrize("behaviour", [behaviours.truncates, behaviours.truncates_chunk])
def test_truncating_server_ends_with_fin(behaviour: Behaviour) -> None:
    with Server(behaviour) as server:
        assert ask(server).endswith(b"only this")


@pytest.mark.parametrize("behaviour", [behaviours.resets_after_request, behaviours.resets_in_body])
def test_resetting_server_sends_rst(behaviour: Behaviour) -> None:
    with Server(behaviour) as server, connect(server) as sock:
        sock.sendall(REQUEST)
        with pytest.raises(ConnectionResetError):
            b"".join(iter(lambda: sock.recv(100), b""))


def test_stalling_server_ends_with_the_test() -> None:
    with Server(behaviours.stalls_before_answer) as server:
        sock = connect(server)
        sock.sendall(REQUEST)
        sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    sock.settimeout(20)
    assert sock.recv(1) == b""
    sock.close()


def test_a_bug_in_a_behaviour_is_not_swallowed() -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Server(broken) as server:
        assert ask(server, b"") == b""


def test_tls_server_shows_its_certificate(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certificates.cacert))

    def handshake(server: Server) -> ssl.SSLSocket:
        return trusting.wrap_socket(connect(server), server_hostname="127.0.0.1")

    with Server(behaviours.well, tls=certificates.good.context()) as server, handshake(server) as sock:
        sock.sendall(REQUEST)
        assert sock.recv(100) == behaviours.OK
    with (
        Server(behaviours.well, tls=certificates.expired.context()) as server,
        pytest.raises(ssl.SSLCertVerificationError, match="expired"),
    ):
        handshake(server)


def test_free_port_is_refused() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", free_port()), 20)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_nginx_counts_connections_and_requests(host: str, tmp_path: Path) -> None:
    files = Certificates(tmp_path).good
    with Nginx(host=host, certificate=files.certificate, key=files.key) as nginx:
        assert (nginx.count().accepted, nginx.count().requests) == (0, 0)
        connection = http.client.HTTPConnection(host, nginx.port, timeout=20)
        for _ in range(3):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"hello"
        assert nginx.count(settled=False).open == 1
        connection.close()
        context = ssl._create_unverified_context()
        secure = http.client.HTTPSConnection(host, nginx.tls_port, timeout=20, context=context)
        secure.request("GET", "/")
        assert secure.getresponse().read() == b"hello"
        secure.close()
        count = nginx.count()
    assert (count.accepted, count.handled, count.requests, count.open) == (2, 2, 4, 0)


def test_namespace_has_its_own_range_and_listeners(namespace: Namespace) -> None:
    assert namespace.run("cat", "/proc/sys/net/ipv4/ip_local_port_range").split() == ["40000", "40199"]
    assert Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split() != ["40000", "40199"]
    with Server(behaviours.well, listener=namespace.listen()) as server:
        with pytest.raises(ConnectionRefusedError):
            connect(server)  # out here nobody listens
        fetch = f"""if True:
            import socket
            sock = socket.create_connection(("127.0.0.1", {server.port}))
            sock.sendall(b"GET / HTTP/1.1\\r\\nConnection: close\\r\\n\\r\\n")
            while sock.recv(100): pass"""
        namespace.run("python3", "-c", fetch)
        assert (server.accepted, server.requests) == (1, 1)
        wait_until(  # this client waits for the server's FIN
            lambda: namespace.time_wait("sport", server.port) == 1, "the server has the TIME_WAIT"
        )
        assert namespace.time_wait("dport", server.port) == 0


def test_namespace_drops_what_it_is_told_to(namespace: Namespace) -> None:
    with Server(behaviours.well, listener=namespace.listen()) as server:
        namespace.drop(server.port)
        attempt = f"import socket; socket.create_connection(('127.0.0.1', {server.port}), 0.3)"
        with pytest.raises(RuntimeError, match="TimeoutError"):
            namespace.run("python3", "-c", attempt)


def test_nginx_runs_inside_a_namespace(namespace: Namespace) -> None:
    with Nginx(namespace=namespace) as nginx:
        fetch = f"import urllib.request as u; print(u.urlopen({nginx.url!r}).read())"
        assert namespace.run("python3", "-c", fetch) == "b'hello'\n"
        assert (nginx.count().accepted, nginx.count().requests) == (1, 1)
