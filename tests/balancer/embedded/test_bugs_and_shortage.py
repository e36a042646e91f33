"""What a bug at one connection costs, and what a lack of descriptors does: one connection, and no target's name."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from kit.conversation import Conversation
from kit.one_worker import OneWorker, listener, meeting, pool, relayed
from kit.servers import Peer, Server
from timewait.balancer.config.model import ClientSide, UpstreamSide
from timewait.balancer.embedded import relay
from timewait.balancer.embedded.http.ends import Ends
from timewait.balancer.embedded.http.requests import Requests
from timewait.balancer.embedded.http.tunnel import OpenTunnel
from timewait.balancer.embedded.http.upstream import Lane, Upstream

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"


def hello(peer: Peer) -> None:
    while peer.receive():
        peer.send(HELLO)


def upgrades(peer: Peer) -> None:
    if b"Upgrade" in peer.receive():
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    else:
        peer.send(HELLO)
    while peer.receive():
        peer.send(HELLO)


def bug(self: object, *arguments: object, **settings: object) -> Any:
    raise ZeroDivisionError


def told(worker: OneWorker) -> list[Exception]:
    """Bugs that were told, which are then no failure of the test."""
    found: list[Exception] = []
    worker.loop._on_error = lambda fd, error: found.append(error)
    return found


def short_of(worker: OneWorker, times: int) -> list[str]:
    """So many connections to targets find no descriptor; what the worker says."""
    sources = worker.state.sources
    said: list[str] = []
    connect = sources.connect
    left = [times]

    def fails(family: int, destination: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return connect(family, destination)

    worker.do(lambda: setattr(sources, "connect", fails))
    worker.worker.say = said.append
    return said


def is_reset(worker: OneWorker, request: bytes) -> bool:
    """Whether a client is reset, be it before its connect() has returned."""
    with socket.socket() as client:
        client.settimeout(10)
        try:
            client.connect(worker.address)
            client.sendall(request)
            client.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            return True
    return False


def is_as_before(worker: OneWorker) -> bool:
    return not (worker.statistics.active or worker.target().active or worker.worker.pools["app"].connections())


@pytest.mark.parametrize(
    ("where", "name", "request_"),
    [
        (Lane, "keep", GET),  # at the end of the hot path: the two have just let go of each other
        (Upstream, "write", GET),  # at its beginning
        (Upstream, "write", POST + b"x" * 10),
        (Upstream, "arrived", GET),
        (Ends, "arm", POST + b"x"),
        (Ends, "finish", POST + b"x" * 10),
        (OpenTunnel, "_pump", UPGRADE),
        (OpenTunnel, "_pass_ends", UPGRADE),
        (Ends, "release", POST + b"x" * 10),  # also what would end the connection is broken
    ],
)
def test_a_bug_costs_its_own_connection_and_nobody_waits(
    monkeypatch: pytest.MonkeyPatch, where: type, name: str, request_: bytes
) -> None:
    with Server(upgrades) as server, OneWorker(listener(), pool(server.authority)) as worker:
        bugs = told(worker)
        with Conversation(worker.address) as other:
            assert other.ask(GET).body == b"hello"
            with monkeypatch.context() as patch:
                patch.setattr(where, name, bug)
                with Conversation(worker.address) as client:
                    assert client.say(request_).is_reset()
            assert other.ask(GET).body == b"hello"
        worker.until(lambda: is_as_before(worker))
        assert {type(one) for one in bugs} == {ZeroDivisionError}


def _deadline(worker: OneWorker, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ends, "answer_self", bug)  # with 408


def _turn(worker: OneWorker, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Requests, "_read_more", lambda self: self.later())  # it goes on later ...
    patch.setattr(Requests, "go_on", bug)  # ... where the bug is


@pytest.mark.parametrize("arrange", [_deadline, _turn])
def test_a_bug_where_a_deadline_has_passed_or_a_turn_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, arrange: Callable[[OneWorker, pytest.MonkeyPatch], None]
) -> None:
    """Neither is an event: no descriptor says whose it was."""
    settings = listener(client=ClientSide(header_timeout=0.1))
    with Server(hello) as server, OneWorker(settings, pool(server.authority)) as worker:
        bugs = told(worker)
        arrange(worker, monkeypatch)
        with Conversation(worker.address) as client:
            assert client.say(GET[:5]).is_reset()
        worker.until_left()
        assert {type(one) for one in bugs} == {ZeroDivisionError}


@pytest.mark.parametrize("name", ["connect", "_connected", "moved", "_log"])
def test_a_bug_in_a_relay(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with Server(hello) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        bugs = told(worker)
        with monkeypatch.context() as patch:
            patch.setattr(relay.Relay, name, bug)
            if name == "_log":  # when everything is over
                with Conversation(worker.address) as client:
                    assert client.ask(GET).body == b"hello"
            else:
                assert is_reset(worker, GET)
            worker.until(lambda: is_as_before(worker))
        with Conversation(worker.address) as client:
            assert client.ask(GET).body == b"hello"
        worker.until(lambda: is_as_before(worker))
        assert {type(one) for one in bugs} == {ZeroDivisionError}


def test_no_descriptor_toward_a_target_is_no_failure_of_the_target() -> None:
    with meeting(hello) as (client, worker):
        said = short_of(worker, 1)
        answer = client.ask(GET)
        assert (answer.status, answer.headers["connection"]) == (503, "close")  # which gives a descriptor back
        assert client.ends()
        with Conversation(worker.address) as another:
            assert another.ask(GET).body == b"hello"
        target = worker.target()
        assert (target.failed, target.refused, target.timed_out, target.active) == (0, 0, 0, 0)
        assert worker.statistics.retried == 0
        assert [("no descriptors left" in line, "answered 503" in line) for line in said] == [(True, True)]


def test_what_is_kept_for_later_makes_room_for_what_is_needed_now() -> None:
    with meeting(hello) as (client, worker):  # reuse = "safe": a client's first request takes no kept connection
        assert client.ask(GET).status == 200
        site = next(iter(worker.proxy._sites.values()))
        worker.until(lambda: [len(lane.idle) for lane in site.lanes.values()] == [1])
        said = short_of(worker, 1)
        with Conversation(worker.address) as another:
            assert another.ask(GET).body == b"hello"
        assert said == []


def test_no_descriptor_for_a_relay() -> None:
    with Server(hello) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        said = short_of(worker, 1)
        assert is_reset(worker, GET)
        with Conversation(worker.address) as client:
            assert client.ask(GET).body == b"hello"
        worker.until(lambda: is_as_before(worker))
        assert (worker.target().failed, worker.statistics.closes.balancer_rst) == (0, 1)
        assert ["clients are reset" in line for line in said] == [True]


def test_what_http_keeps_makes_room_for_a_relay() -> None:
    with Server(hello) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        said, kept = short_of(worker, 1), ["one"]
        worker.worker.make_room = lambda: bool(kept and kept.pop())
        with Conversation(worker.address) as client:
            assert client.ask(GET).body == b"hello"
        worker.until(lambda: is_as_before(worker))
        assert (said, kept, worker.target().failed) == ([], [], 0)


def test_accepting_goes_on_once_there_is_room_and_not_before() -> None:
    with Server(hello) as server, OneWorker(listener(), pool(server.authority)) as worker:
        acceptor = worker._acceptor
        said: list[str] = []
        worker.worker.say = said.append
        high, looks = acceptor._high, []
        resume: Callable[[], None] = acceptor._resume

        def looked() -> None:
            looks.append(acceptor._paused)
            resume()

        acceptor._resume = looked  # type: ignore[method-assign]
        acceptor._high = 0  # everything is above it
        with Conversation(worker.address) as client, Conversation(worker.address) as waits:
            worker.until(lambda: len(looks) > 3)
            assert worker.statistics.accepted == 1
            assert client.ask(GET).body == b"hello"
            acceptor._high = high
            assert waits.ask(GET).body == b"hello"
            worker.until(lambda: not acceptor._paused)
        worker.until_left()
        assert ["new connections wait" in line for line in said] == [True]


def test_a_kept_connection_makes_room_for_a_client() -> None:
    with meeting(hello) as (client, worker):
        assert client.ask(GET).status == 200
        worker._acceptor._high = 0
        site = next(iter(worker.proxy._sites.values()))
        worker.until(lambda: [len(lane.idle) for lane in site.lanes.values()] == [1])
        with Conversation(worker.address):
            worker.until(lambda: worker.statistics.accepted == 2)
            worker.until(lambda: [len(lane.idle) for lane in site.lanes.values()] == [0])


def test_a_slow_body_behind_an_early_answer_is_the_clients_fault() -> None:
    def early(peer: Peer) -> None:
        peer.receive()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        peer.read_to_end()

    settings = listener(client=ClientSide(body_timeout=0.1), upstream=UpstreamSide(read_timeout=60.0))
    with meeting(early, settings) as (client, worker):
        client.say(POST + b"x")
        assert client.until(b"\r\n\r\nabc").startswith(b"HTTP/1.1 200 ")
        assert client.ends()  # short of its length: the client can tell
        target = worker.target()
        assert (target.failed, target.timed_out, target.statuses, target.active) == (0, 0, {200: 1}, 0)
