"""Every way a server can go wrong lands in its phase, cause and finding and in no other; odd legal ones in none."""

from __future__ import annotations

import socket
from dataclasses import dataclass

import pytest

from kit import behaviours
from kit.behaviours import BROKEN, answers
from kit.certificates import Certificates, Files
from kit.namespace import Namespace
from kit.run_timewait import TARGET, Result, close, stress
from kit.servers import Behaviour, Peer, Server

REQUESTS = 12


def run(behaviour: Behaviour | None, namespace: Namespace, *words: str, tls: Files | None = None) -> Result:
    """REQUESTS requests over 3 connections at a server that behaves so."""
    context = tls.context() if tls else None
    with Server(behaviour, listener=namespace.listen(), tls=context) as server:
        return stress(server.url, "-n", str(REQUESTS), "-c", "3", *words, namespace=namespace)


LEGAL = {
    "well": behaviours.well,
    "chunked": behaviours.chunked,
    "read-to-close": behaviours.read_to_close,
    "1xx-then-200": behaviours.informational,
    "204": behaviours.no_content,
    "304": behaviours.not_modified,
    "http/1.0": behaviours.http_1_0,
}


ENDS = {"read-to-close", "http/1.0"}  # with the connection, whatever one asks for


@pytest.mark.parametrize(
    ("name", "closing"),
    [(name, closing) for name in LEGAL for closing in ("keep", "server") if closing == "server" or name not in ENDS],
)
def test_legal_answers_are_successes(name: str, closing: str, namespace: Namespace) -> None:
    result = run(LEGAL[name], namespace, *close(closing))
    assert (result.totals["succeeded"], result.totals["failed"]) == (REQUESTS, 0)
    assert (result.json["errors"], result.findings, result.exit_code) == ([], [], 0)


@pytest.mark.parametrize("closing", ["keep", "server", "client"])
def test_head_is_complete_without_a_body(closing: str, namespace: Namespace) -> None:
    result = run(behaviours.head, namespace, "--method", "HEAD", *close(closing))
    assert (result.totals["succeeded"], result.totals["failed"], result.exit_code) == (REQUESTS, 0, 0)


@dataclass(frozen=True)
class Wrong:
    """What a behaviour must be reported as."""

    behaviour: Behaviour
    phases: set[str]
    errnos: set[str]
    cause: str
    finding: str
    words: tuple[str, ...] = ()


# All at once, and long enough that what comes before the stall comes in time on a busy machine.
IMPATIENT = ("-c", str(REQUESTS), "--timeout", "4s")
WRONG = {
    "closes-before-answer": Wrong(behaviours.closes_before_answer, {"first_byte"}, {""}, "closed", "reset"),
    "truncates": Wrong(behaviours.truncates, {"body"}, {""}, "closed", "reset"),
    "truncates-chunk": Wrong(behaviours.truncates_chunk, {"body"}, {""}, "closed", "reset"),
    "truncates-head": Wrong(behaviours.truncates_head, {"body"}, {""}, "closed", "reset"),
    "resets-at-accept": Wrong(
        behaviours.resets_at_accept, {"connect", "send", "first_byte"}, {"ECONNRESET", "EPIPE"}, "reset", "reset"
    ),
    "resets-after-request": Wrong(behaviours.resets_after_request, {"first_byte"}, {"ECONNRESET"}, "reset", "reset"),
    "resets-in-body": Wrong(behaviours.resets_in_body, {"body"}, {"ECONNRESET"}, "reset", "reset"),
    "stalls-before-answer": Wrong(
        behaviours.stalls_before_answer, {"first_byte"}, {""}, "timeout", "timeout", ("--timeout", "300ms")
    ),
    "stalls-in-body": Wrong(behaviours.stalls_in_body, {"body"}, {""}, "timeout", "timeout", IMPATIENT),
    "trailing-data": Wrong(behaviours.trailing_data, {"body"}, {""}, "bad-response", "bad-response"),
    "404": Wrong(behaviours.not_found, {"body"}, {""}, "status", "bad-response"),
    "503": Wrong(behaviours.unavailable, {"body"}, {""}, "status", "bad-response"),
    **{name: Wrong(answers(data), {"body"}, {""}, "bad-response", "bad-response") for name, data in BROKEN.items()},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_servers_land_in_the_right_cause(name: str, namespace: Namespace) -> None:
    wrong = WRONG[name]
    result = run(wrong.behaviour, namespace, *wrong.words)
    assert (result.totals["succeeded"], result.totals["failed"]) == (0, REQUESTS)
    assert sum(result.errors().values()) == REQUESTS
    phases, errnos, causes = (set(column) for column in zip(*result.errors(), strict=True))
    assert phases <= wrong.phases
    assert errnos <= wrong.errnos
    assert causes == {wrong.cause}
    assert result.findings == [wrong.finding]
    assert result.exit_code == TARGET


def test_closed_at_accept(namespace: Namespace) -> None:
    """FIN at once; the request that follows meets RST. Which of both we read first is a race; nothing is answered."""
    result = run(behaviours.closes_at_accept, namespace)
    assert result.totals["failed"] == REQUESTS
    assert {cause for _, _, cause in result.errors()} <= {"closed", "reset"}
    assert {phase for phase, _, _ in result.errors()} <= {"send", "first_byte"}
    assert result.findings == ["reset"]
    assert result.exit_code == TARGET


def test_only_the_wrong_answers_count(namespace: Namespace) -> None:
    """One in four answers is truncated."""

    def sometimes(peer: Peer) -> None:
        (behaviours.truncates if peer.number % 4 == 3 else behaviours.well)(peer)

    result = run(sometimes, namespace, "--close", "server")
    assert (result.totals["succeeded"], result.totals["failed"]) == (REQUESTS - 3, 3)
    assert result.errors() == {("body", "", "closed"): 3}
    assert result.findings == ["reset"]


def test_expected_statuses_are_no_failure(namespace: Namespace) -> None:
    result = run(behaviours.not_found, namespace, "--expect", "2xx,404")
    assert (result.totals["succeeded"], result.exit_code) == (REQUESTS, 0)
    assert result.json["status"] == {"404": REQUESTS}


# who closes


def test_a_server_that_ignores_connection_close_is_told(namespace: Namespace) -> None:
    result = run(behaviours.ignores_close, namespace, "--close", "server", "--close-timeout", "200ms")
    assert (result.totals["succeeded"], result.totals["failed"]) == (REQUESTS, 0)
    assert result.findings == ["close-ignored"]
    assert result.closed_first == {"us": REQUESTS, "peer": 0, "reset": 0}


def test_a_server_that_lets_us_close_first_is_seen(namespace: Namespace) -> None:
    result = run(behaviours.announces_and_waits, namespace, "--close", "client")
    assert result.closed_first == {"us": REQUESTS, "peer": 0, "reset": 0}
    assert result.findings == []


def test_announced_ends_of_kept_connections_are_no_failure(namespace: Namespace) -> None:
    result = run(behaviours.closes_announced(2), namespace, "-c", "1")
    assert (result.totals["succeeded"], result.totals["failed"]) == (REQUESTS, 0)
    assert result.closed_first == {"us": 0, "peer": REQUESTS // 2, "reset": 0}


def test_unannounced_ends_of_kept_connections_are_told(namespace: Namespace) -> None:
    """The next request goes into a connection that the server is closing: the keep-alive race."""

    def behaviour(peer: Peer) -> None:
        behaviours.closes_unannounced(2)(peer)
        peer.sock.recv(1, socket.MSG_PEEK)  # until the next request is there; nobody reads it

    result = run(behaviour, namespace, "-c", "1")
    assert {cause for _, _, cause in result.errors()} == {"stale"}
    assert result.totals["failed"] == 4
    assert result.totals["succeeded"] == 8
    assert result.findings == ["reset"]


# tls


@pytest.mark.parametrize("name", ["other_name", "expired", "unknown-authority"])
def test_certificates_that_fail(name: str, namespace: Namespace, certificates: Certificates) -> None:
    files = certificates.good if name == "unknown-authority" else getattr(certificates, name)
    trust = [] if name == "unknown-authority" else ["--cacert", str(certificates.cacert)]
    result = run(behaviours.well, namespace, *trust, tls=files)
    assert result.errors() == {("tls", "", "tls-certificate"): REQUESTS}
    assert (result.findings, result.exit_code) == (["tls-failed"], TARGET)


@pytest.mark.parametrize("name", ["good", "expired"])
def test_insecure_accepts_any_certificate(name: str, namespace: Namespace, certificates: Certificates) -> None:
    result = run(behaviours.well, namespace, "-k", tls=getattr(certificates, name))
    assert (result.totals["succeeded"], result.findings, result.exit_code) == (REQUESTS, [], 0)


TLS_WRONG: dict[str, tuple[Behaviour, str, str, tuple[str, ...]]] = {
    "plain-http": (behaviours.speaks_plainly, "tls-protocol", "tls-failed", ()),
    "closes": (behaviours.closes_after_hello, "closed", "reset", ()),
    "resets": (behaviours.resets_after_hello, "reset", "reset", ()),
    "stalls": (behaviours.stalls_at_once, "timeout", "timeout", ("-c", str(REQUESTS), "--connect-timeout", "2s")),
}


@pytest.mark.parametrize("name", TLS_WRONG)
def test_handshakes_that_fail(name: str, namespace: Namespace) -> None:
    behaviour, cause, finding, words = TLS_WRONG[name]
    with Server(behaviour, listener=namespace.listen()) as server:
        url = server.url.replace("http:", "https:")
        result = stress(url, "-n", str(REQUESTS), "-c", "3", *words, namespace=namespace)
    assert result.totals["failed"] == REQUESTS
    assert {phase for phase, _, _ in result.errors()} == {"tls"}
    assert {found for _, _, found in result.errors()} == {cause}
    assert (result.findings, result.exit_code) == ([finding], TARGET)


# tcp


def tcp(behaviour: Behaviour, namespace: Namespace, *words: str) -> Result:
    with Server(behaviour, listener=namespace.listen()) as server:
        return stress(server.tcp_url, "-n", str(REQUESTS), "-c", "3", *words, namespace=namespace)


@pytest.mark.parametrize("closing", ["client", "reset", "half"])
def test_tcp_payload_and_reply(closing: str, namespace: Namespace) -> None:
    result = tcp(behaviours.echo, namespace, "--body", "PING", "--expect", "PING", "--close", closing)
    assert (result.totals["succeeded"], result.totals["failed"], result.exit_code) == (REQUESTS, 0, 0)
    first = "reset" if closing == "reset" else "us"
    assert result.closed_first == {"us": 0, "peer": 0, "reset": 0} | {first: REQUESTS}


def test_tcp_connect_only(namespace: Namespace) -> None:
    result = tcp(behaviours.echo, namespace, "--close", "client")
    assert (result.totals["connected"], result.totals["succeeded"], result.exit_code) == (REQUESTS, REQUESTS, 0)


@pytest.mark.parametrize("closing", ["client", "reset"])
def test_tcp_thousands_of_connections_that_are_over_at_once(closing: str, namespace: Namespace) -> None:
    """Nothing to send, nothing to wait for: a slot must not go from one connection into the next by recursion."""
    with Server(behaviours.echo, listener=namespace.listen()) as server:
        result = stress(server.tcp_url, "-n", "3000", "-c", "2", "--close", closing, namespace=namespace)
    assert result.totals["succeeded"] == result.totals["connected"] == 3000


def test_tcp_wrong_reply(namespace: Namespace) -> None:
    result = tcp(behaviours.echo, namespace, "--body", "PING", "--expect", "PONG")
    assert {cause for _, _, cause in result.errors()} == {"bad-response"}
    assert (result.findings, result.exit_code) == (["bad-response"], TARGET)
