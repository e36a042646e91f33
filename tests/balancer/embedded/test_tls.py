"""TLS toward clients: which certificate, which protocol, and that nobody can be slow for ever."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from kit.one_worker import OneWorker, pool, relayed
from kit.servers import Peer, Server
from timewait.balancer.config.model import Certificate, ClientSide, Protocol, Tls
from timewait.balancer.embedded.certificates import ByName, names
from timewait.balancer.embedded.tls import context
from timewait.balancer.engine import BalancerError

NAMES = (("localhost", "one.test"), ("*.two.test", "two.test"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def certificates(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> tuple[Certificate, ...]:
    folder = tmp_path_factory.mktemp("tls")
    found = []
    for number, identities in enumerate(NAMES):
        issued = authority.issue_cert(*identities)
        chain, key = folder / f"{number}.pem", folder / f"{number}.key"
        issued.cert_chain_pems[0].write_to_path(str(chain))
        issued.private_key_pem.write_to_path(str(key))
        found.append(Certificate(certificate=str(chain), key=str(key)))
    return tuple(found)


@contextmanager
def secured(
    certificates: tuple[Certificate, ...],
    behaviour: object,
    *,
    min_version: str = "1.2",
    header_timeout: float = 60.0,
) -> Iterator[OneWorker]:
    tls = Tls(certificate=certificates, min_version=min_version)
    made = context(tls, tuple(names(one.certificate) for one in certificates), Protocol.HTTPS)
    settings = relayed(protocol=Protocol.TCP_SSL, client=ClientSide(header_timeout=header_timeout))
    with Server(behaviour) as server, OneWorker(settings, pool(server.authority), tls=made) as worker:  # type: ignore[arg-type]
        yield worker
        worker.until_left()


def client(authority: trustme.CA, *, verify: bool = True) -> ssl.SSLContext:
    made = ssl.create_default_context()
    authority.configure_trust(made)
    if not verify:
        made.check_hostname = False
    return made


def connected(worker: OneWorker, made: ssl.SSLContext, name: str | None) -> ssl.SSLSocket:
    raw = socket.create_connection(worker.address, timeout=10)
    try:
        return made.wrap_socket(raw, server_hostname=name)
    except BaseException:
        raw.close()
        raise


def echo(peer: Peer) -> None:
    while data := peer.sock.recv(1 << 16):
        peer.send(data)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("localhost", "localhost"),
        ("ONE.test", "localhost"),
        ("two.test", "*.two.test"),
        ("www.two.test", "*.two.test"),
        ("a.b.two.test", "localhost"),  # a wildcard stands for one label
        ("unknown.test", "localhost"),
        (None, "localhost"),
    ],
)
def test_the_name_a_client_asks_for_chooses_the_certificate(
    authority: trustme.CA, certificates: tuple[Certificate, ...], name: str | None, shown: str
) -> None:
    with secured(certificates, echo) as worker, connected(worker, client(authority, verify=False), name) as near:
        found = near.getpeercert()
        assert found and ("DNS", shown) in found["subjectAltName"]


def test_only_http_1_1_is_offered(authority: trustme.CA, certificates: tuple[Certificate, ...]) -> None:
    chosen = []
    with secured(certificates, echo) as worker:
        for offered in (["h2", "http/1.1"], ["h2"]):
            made = client(authority)
            made.set_alpn_protocols(offered)
            with connected(worker, made, "localhost") as near:
                chosen.append(near.selected_alpn_protocol())
    assert chosen == ["http/1.1", None]


def test_an_old_version_is_refused_and_counted(
    authority: trustme.CA, certificates: tuple[Certificate, ...]
) -> None:  # fmt: skip
    with secured(certificates, echo, min_version="1.3") as worker:
        made = client(authority)
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            connected(worker, made, "localhost")
        worker.until_left()
        assert (worker.statistics.tls_failed, worker.statistics.tls_handshakes) == (1, 0)
        assert worker.target().connects == 0


@pytest.mark.parametrize("words", [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_handshake_that_does_not_come_is_ended(certificates: tuple[Certificate, ...], words: bytes) -> None:
    with secured(certificates, echo, header_timeout=20) as worker:
        with socket.create_connection(worker.address, timeout=10) as near:
            near.sendall(words)
            worker.until(lambda: worker.statistics.accepted)
            worker.skip(21)
            while near.recv(100):  # an alert, where there was something to be alarmed about
                pass
        worker.until_left()
        assert worker.statistics.tls_failed == 1
        assert worker.statistics.closes.timeout == (0 if words.startswith(b"GET") else 1)


def test_a_large_stream_comes_back_whole(authority: trustme.CA, certificates: tuple[Certificate, ...]) -> None:
    """More than any buffer holds, and a client that reads late: records are sent and read in part."""
    data = bytes(range(256)) * 20_000
    with secured(certificates, echo) as worker, connected(worker, client(authority), "localhost") as near:
        sender = threading.Thread(target=near.sendall, args=(data,))
        sender.start()
        found = bytearray()
        while len(found) < len(data):
            found += near.recv(1 << 16)
        sender.join(10)
        assert bytes(found) == data
    assert worker.statistics.bytes_in == worker.statistics.bytes_out == len(data)


def test_an_end_is_told_by_close_notify(authority: trustme.CA, certificates: tuple[Certificate, ...]) -> None:
    def says_hello(peer: Peer) -> None:
        peer.send(b"hello")

    with secured(certificates, says_hello) as worker:
        raw = socket.create_connection(worker.address, timeout=10)
        with client(authority).wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=False) as near:
            assert near.recv(100) == b"hello"
            assert near.recv(100) == b""  # an end without close_notify would raise


def test_names_of_certificates(certificates: tuple[Certificate, ...], tmp_path: Path) -> None:
    assert [names(one.certificate) for one in certificates] == [("localhost", "one.test"), ("*.two.test", "two.test")]
    (tmp_path / "bad.pem").write_text("hello")
    with pytest.raises(BalancerError, match="has no certificate in PEM"):
        names(str(tmp_path / "bad.pem"))
    with pytest.raises(BalancerError, match="No such file"):
        names(str(tmp_path / "missing.pem"))


def test_the_first_certificate_of_a_name_is_taken() -> None:
    chosen = ByName([("a.test", "*.x.test"), ("b.x.test", "a.test"), ("*.x.test",)])
    asked = ["a.test", "A.TEST.", "b.x.test", "c.x.test", "x.test", "test", ""]
    assert [chosen.find(name) for name in asked] == [0, 0, 1, 0, None, None, None]
