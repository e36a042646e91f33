"""Layer 4 in one worker: streams, both ends of each; and where TIME_WAIT stands afterwards."""

from __future__ import annotations

import contextlib
import ipaddress
import random
import socket
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest

from balancer.embedded.streams import (
    PATIENCE,
    client_of,
    echo,
    hello_and_wait,
    read_to_end,
    reset,
    says_hello,
    speaks_first,
)
from kit.one_worker import OneWorker, pool, relayed
from kit.servers import Behaviour, Peer, Server
from timewait.balancer.config.model import (
    ClientClose,
    ClientSide,
    Listener,
    UpstreamClose,
    UpstreamSide,
)
from timewait.balancer.embedded.closing import unacknowledged
from timewait.balancer.embedded.flow import CHUNK
from timewait.balancer.embedded.relay import Relay
from timewait.observe.sock_diag import SockDiag, held_at, toward
from timewait.tcp.states import State


def test_both_directions_and_what_is_counted() -> None:
    with Server(echo) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        with client_of(worker) as near:
            near.sendall(b"x" * 300_000)
            near.shutdown(socket.SHUT_WR)
            assert read_to_end(near) == b"x" * 300_000 + b"300000 bytes"
        worker.until_left()
        counted, target = worker.statistics, worker.target()
    assert (counted.accepted, counted.bytes_in, counted.bytes_out) == (1, 300_000, 300_012)
    assert (target.connects, target.connected, target.requests, target.active) == (1, 1, 1, 0)
    assert (target.bytes_in, target.bytes_out) == (300_012, 300_000)
    assert (counted.closes.peer_fin, target.closes.balancer_fin) == (1, 1)


def test_a_target_may_end_its_direction_and_go_on_listening() -> None:
    with Server(speaks_first) as server, OneWorker(relayed(), pool(server.authority)) as worker:
        with client_of(worker) as near:
            assert read_to_end(near) == b"hello"
            near.sendall(b"and hello to you")
        worker.until(lambda: getattr(server, "heard", b"") == b"and hello to you")


# --- where TIME_WAIT stands ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def apart(behaviour: Behaviour, settings: Listener) -> Iterator[tuple[Server, OneWorker]]:
    """A server and a worker at addresses nobody else uses, so that a TIME_WAIT seen there is of this test."""
    hosts = [f"127.{random.randrange(1, 255)}.{random.randrange(256)}.{n}" for n in (1, 2)]
    with (
        Server(behaviour, host=hosts[0]) as server,
        OneWorker(settings, pool(server.authority), host=hosts[1]) as worker,
    ):
        yield server, worker


def time_waits(worker: OneWorker, server: Server) -> dict[str, int]:
    """Which of the four ends have a TIME_WAIT: everything is on one machine, so addresses tell whose it is."""
    front, back = ipaddress.ip_address(worker.address[0]), ipaddress.ip_address(server.host)
    ends = {
        "client": toward(front, worker.address[1]),
        "front": held_at(front, worker.address[1]),
        "back": toward(back, server.port),
        "target": held_at(back, server.port),
    }
    with SockDiag() as table:
        counts = {
            end: table.count(where, frozenset({State.TIME_WAIT})).get(State.TIME_WAIT, 0)
            for end, where in ends.items()
        }
    return {end: count for end, count in counts.items() if count}


def settles(worker: OneWorker, server: Server, expected: dict[str, int]) -> None:
    """These TIME_WAIT and no others, after a moment: the last FINs may be on their way."""
    limit = time.monotonic() + PATIENCE
    while (found := time_waits(worker, server)) != expected:
        assert time.monotonic() < limit, (found, worker.statistics.closes, worker.target().closes)
        time.sleep(0.01)


@pytest.mark.parametrize("upstream", UpstreamClose)
@pytest.mark.parametrize("policy", ClientClose)
def test_a_client_that_ends_first_keeps_its_time_wait(policy: ClientClose, upstream: UpstreamClose) -> None:
    """And its FIN is passed on, whatever the policies: the balancer keeps one toward the target."""
    settings = relayed(client=ClientSide(close=policy), upstream=UpstreamSide(close=upstream))
    with apart(echo, settings) as (server, worker):
        with client_of(worker) as near:
            near.sendall(b"x")
            near.shutdown(socket.SHUT_WR)
            assert read_to_end(near) == b"x1 bytes"
        worker.until_left()
        settles(worker, server, {"client": 1, "back": 1})


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (ClientClose.FIN, {"front": 1, "target": 1}),
        (ClientClose.FIN_RST, {"target": 1}),
        (ClientClose.PEER, {"client": 1, "target": 1}),
    ],
)
def test_a_target_that_ends_first_keeps_its_time_wait(policy: ClientClose, left: dict[str, int]) -> None:
    """And toward the client `client.close` decides; with `peer` the client ends of itself within close_wait."""
    settings = relayed(client=ClientSide(close=policy, close_wait=5))
    with apart(says_hello, settings) as (server, worker):
        with client_of(worker) as near:
            assert near.recv(5) == b"hello"
            if policy is ClientClose.PEER:
                (one,) = worker.worker.pools["app"].connections()
                worker.until(lambda: cast(Relay, one).down.ended)
            else:
                assert near.recv(5) == b""
            if policy is ClientClose.FIN_RST:
                worker.until_left()
        worker.until_left()
        settles(worker, server, left)
        closes = worker.statistics.closes
        expected = {"fin": "balancer_fin", "fin-rst": "balancer_rst", "peer": "peer_fin"}[policy]
        assert getattr(closes, expected) == 1
        assert worker.target().closes.peer_fin == 1


def test_a_client_that_does_not_end_within_close_wait_gets_the_fin() -> None:
    settings = relayed(client=ClientSide(close=ClientClose.PEER, close_wait=0.1))
    with apart(says_hello, settings) as (server, worker):
        with client_of(worker) as near:
            assert read_to_end(near) == b"hello"
        worker.until_left()
        settles(worker, server, {"front": 1, "target": 1})


def test_a_reset_is_passed_on_and_leaves_nothing() -> None:
    with apart(echo, relayed()) as (server, worker):
        near = client_of(worker)
        near.sendall(b"x")
        assert near.recv(1) == b"x"
        reset(near)
        worker.until_left()
        worker.until(lambda: worker.target().closes.balancer_rst)
        assert worker.statistics.closes.peer_rst == 1
        assert time_waits(worker, server) == {}


def test_a_target_s_reset_comes_after_what_it_sent() -> None:
    def resets(peer: Peer) -> None:
        peer.receive()
        peer.send(b"z" * 3_000_000)
        while unacknowledged(peer.sock):  # what the kernel still has of it a reset would take along
            peer.wait(0.01)
        peer.reset()

    settings = relayed()
    with apart(resets, settings) as (server, worker):
        with client_of(worker) as near:
            near.sendall(b"x")
            found = 0
            with pytest.raises(ConnectionResetError):
                while True:
                    data = near.recv(1 << 16)
                    assert data, "a FIN in place of a reset"
                    found += len(data)
        worker.until_left()
        assert found == 3_000_000
        assert worker.statistics.closes.balancer_rst == 1
        assert worker.target().closes.peer_rst == 1
        assert time_waits(worker, server) == {}


@pytest.mark.parametrize(
    ("policy", "upstream", "left"),
    [
        (ClientClose.FIN, UpstreamClose.RST, {"front": 1}),
        (ClientClose.FIN_RST, UpstreamClose.FIN, {"back": 1}),
        (ClientClose.FIN_RST, UpstreamClose.RST, {}),
        (
            ClientClose.PEER,
            UpstreamClose.PEER,
            {"front": 1},
        ),  # nobody ends: a FIN after close_wait, a reset after 1 s
    ],
)
def test_an_idle_connection_ends_as_both_policies_say(
    policy: ClientClose, upstream: UpstreamClose, left: dict[str, int]
) -> None:
    client = ClientSide(idle=20, close=policy, close_wait=0.1)
    settings = relayed(client=client, upstream=UpstreamSide(close=upstream))
    with apart(hello_and_wait, settings) as (server, worker):
        with client_of(worker) as near:
            assert near.recv(5) == b"hello"
            worker.skip(21)
            with contextlib.suppress(ConnectionResetError):
                assert near.recv(5) == b""
            if policy is ClientClose.FIN_RST:
                worker.until_left()
        worker.until_left()
        worker.until(lambda: worker.target().closes.timeout)
        settles(worker, server, left)
        assert worker.statistics.closes.timeout == 1


# --- back-pressure ------------------------------------------------------------------------------------------------


def test_a_receiver_that_does_not_read_stops_the_sender_and_is_reset() -> None:
    sent = threading.Event()

    def pours(peer: Peer) -> None:
        for _ in range(1000):  # it gets no further than to the reset
            peer.send(b"x" * CHUNK)
        sent.set()

    settings = relayed(client=ClientSide(send_timeout=2.0))
    with Server(pours) as server, OneWorker(settings, pool(server.authority)) as worker:
        with client_of(worker, receive_buffer=4096) as near:
            near.recv(1)
            worker.until(lambda: worker.statistics.closes.timeout)
            assert not sent.is_set()
            assert worker.statistics.bytes_out < 32 << 20  # what kernels' buffers take, not what was poured
            with pytest.raises(ConnectionResetError):
                read_to_end(near)
        worker.until_left()
