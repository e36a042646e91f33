"""The ends of a connection by themselves, on real sockets: what the other side sees, and what is counted."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from kit.one_worker import Clock
from kit.servers import RST, listen
from timewait.balancer.config.model import ClientClose, UpstreamClose
from timewait.balancer.embedded import closing
from timewait.balancer.embedded.loop import READ_AND_WRITE, Loop
from timewait.balancer.statistics import Closes

PATIENCE = 30.0


class Pair(NamedTuple):
    """Our end, watched by the loop, and the other one."""

    loop: Loop
    clock: Clock
    ours: socket.SocketType
    theirs: socket.socket
    closes: Closes
    said: list[str]  # what `done` was called with

    def turn(self, seconds: float = 0.05) -> None:
        """Lets the loop run for so long."""
        self.loop.after(seconds, self.loop.stop)
        self.loop.run()
        self.loop._stopped = False

    def until(self, condition: Callable[[], object]) -> None:
        limit = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < limit, (self.closes, self.said)
            self.turn(0.01)

    def counted(self) -> dict[str, int]:
        return {
            name: value
            for name in ("balancer_fin", "balancer_rst", "peer_fin", "peer_rst", "timeout")
            if (value := getattr(self.closes, name))
        }


@pytest.fixture
def pair() -> Iterator[Pair]:
    clock = Clock()
    loop = Loop(clock=clock)
    with listen() as server:
        theirs = socket.create_connection(server.getsockname(), timeout=PATIENCE)
        accepted, _ = server.accept()
        ours = socket.SocketType(
            socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, fileno=accepted.detach()
        )
    ours.setblocking(False)
    loop.watch(ours.fileno(), READ_AND_WRITE, lambda events: None)
    yield Pair(loop, clock, ours, theirs, Closes(), [])
    theirs.close()
    ours.close()
    loop.close()


def end_client(pair: Pair, policy: ClientClose, *, close_wait: float = 1.0, linger: bool = False) -> None:
    closing.end_client(
        pair.loop, pair.ours, policy, pair.closes, close_wait=close_wait, linger=linger, done=pair.said.append
    )


def end_target(pair: Pair, policy: UpstreamClose) -> None:
    closing.end_target(pair.loop, pair.ours, policy, pair.closes, done=pair.said.append)


def state(sock: socket.SocketType) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def theirs_first(pair: Pair) -> None:
    """Their FIN is here."""
    pair.theirs.shutdown(socket.SHUT_WR)
    pair.until(lambda: state(pair.ours) == closing.CLOSE_WAIT)


def test_fin_is_one_close(pair: Pair) -> None:
    end_client(pair, ClientClose.FIN)
    assert pair.said == ["balancer_fin"]
    assert pair.theirs.recv(1) == b""
    assert pair.counted() == {"balancer_fin": 1}


@pytest.mark.parametrize("policy", ClientClose)
def test_a_client_that_was_first_is_told_apart(pair: Pair, policy: ClientClose) -> None:
    """Though nobody has read its FIN yet."""
    theirs_first(pair)
    end_client(pair, policy)
    pair.until(lambda: pair.said)
    assert pair.theirs.recv(1) == b""
    assert pair.counted() == {"peer_fin": 1}


def test_an_answer_is_not_taken_away_by_what_the_client_still_sends(pair: Pair) -> None:
    """Unread data would turn close() into a reset, which destroys the answer on its way."""
    pair.ours.send(b"413, and enough")
    pair.theirs.sendall(b"x" * 100_000)
    end_client(pair, ClientClose.FIN, linger=True)
    assert pair.said == []
    pair.turn()
    pair.theirs.sendall(b"x" * 100_000)
    assert pair.theirs.recv(100) == b"413, and enough"
    assert pair.theirs.recv(100) == b""
    pair.theirs.close()
    pair.until(lambda: pair.said)
    assert pair.counted() == {"balancer_fin": 1}


def test_lingering_has_an_end(pair: Pair) -> None:
    """Also for one who goes on sending; until then each byte gives it another while."""
    end_client(pair, ClientClose.FIN, linger=True)
    whiles = 0
    while not pair.said:
        pair.theirs.send(b"x")
        pair.turn()
        pair.clock.ahead += closing.LINGER_IDLE
        pair.turn()
        whiles += 1
    assert whiles == closing.LINGER / closing.LINGER_IDLE
    assert pair.counted() == {"balancer_fin": 1}


def test_fin_rst_delivers_and_then_resets(pair: Pair) -> None:
    data = b"x" * 3_000_000
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, len(data))
    sent = pair.ours.send(data)
    end_client(pair, ClientClose.FIN_RST, close_wait=PATIENCE)
    found = 0
    while found < sent:
        pair.turn(0.001)
        found += len(pair.theirs.recv(1 << 20))
    assert pair.theirs.recv(1) == b""
    pair.until(lambda: pair.said)
    assert (found, pair.said) == (sent, ["balancer_rst"])
    pair.until(lambda: state(pair.theirs) == closing.CLOSE)


def test_fin_rst_takes_nothing_away_from_a_client_that_does_not_read(pair: Pair) -> None:
    """What was not acknowledged in time is left to an ordinary FIN."""
    pair.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 600_000)
    sent = pair.ours.send(b"x" * 600_000)
    end_client(pair, ClientClose.FIN_RST, close_wait=0)
    pair.until(lambda: pair.said)  # after the second that it gets at least
    assert pair.counted() == {"balancer_fin": 1}
    found = 0
    while data := pair.theirs.recv(1 << 20):
        found += len(data)
    assert found == sent


def test_peer_waits_for_the_client(pair: Pair) -> None:
    end_client(pair, ClientClose.PEER, close_wait=PATIENCE)
    pair.theirs.sendall(b"something it is not interested in")
    pair.turn()
    assert pair.said == []
    pair.theirs.close()
    pair.until(lambda: pair.said)
    assert pair.counted() == {"peer_fin": 1}


def test_peer_does_not_wait_for_ever(pair: Pair) -> None:
    end_client(pair, ClientClose.PEER, close_wait=0.1)
    pair.until(lambda: state(pair.theirs) == closing.CLOSE_WAIT)
    assert pair.theirs.recv(1) == b""
    pair.theirs.close()
    pair.until(lambda: pair.said)
    assert pair.counted() == {"balancer_fin": 1}


@pytest.mark.parametrize(
    ("policy", "counted"), [(ClientClose.PEER, {"peer_rst": 1}), (ClientClose.FIN, {"balancer_fin": 1})]
)
def test_a_reset_ends_the_waiting(pair: Pair, policy: ClientClose, counted: dict[str, int]) -> None:
    end_client(pair, policy, close_wait=PATIENCE, linger=True)
    pair.turn()
    pair.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    pair.theirs.close()
    pair.until(lambda: pair.said)
    assert pair.counted() == counted  # with FIN it was ours that came first


@pytest.mark.parametrize(
    ("policy", "counted"),
    [
        (UpstreamClose.RST, {"balancer_rst": 1}),
        (UpstreamClose.FIN, {"balancer_fin": 1}),
        (UpstreamClose.PEER, {"balancer_rst": 1}),  # it does not close, so that the port is not lost
    ],
)
def test_a_target_that_is_still_open(
    pair: Pair, policy: UpstreamClose, counted: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "TARGET_WAIT", 0.1)
    end_target(pair, policy)
    assert bool(pair.said) is (policy is not UpstreamClose.PEER)
    pair.until(lambda: pair.said)
    assert pair.counted() == counted
    expected = closing.CLOSE if "balancer_rst" in counted else closing.CLOSE_WAIT
    pair.until(lambda: state(pair.theirs) == expected)


@pytest.mark.parametrize("policy", UpstreamClose)
def test_a_target_that_closed_keeps_its_time_wait(pair: Pair, policy: UpstreamClose) -> None:
    theirs_first(pair)
    end_target(pair, policy)
    pair.until(lambda: pair.said)
    assert pair.counted() == {"peer_fin": 1}
    assert pair.theirs.recv(1) == b""


def test_a_target_is_let_close_first(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closing, "TARGET_WAIT", PATIENCE)
    end_target(pair, UpstreamClose.PEER)
    pair.turn()
    pair.theirs.close()
    pair.until(lambda: pair.said)
    assert pair.counted() == {"peer_fin": 1}


def test_a_reset_is_passed_on_after_what_came_before_it(pair: Pair) -> None:
    pair.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    pair.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 400_000)
    sent = pair.ours.send(b"x" * 400_000)
    closing.reset_once_delivered(pair.loop, pair.ours, pair.closes, done=pair.said.append)
    assert pair.said == []
    found = 0
    with pytest.raises(ConnectionResetError):
        while data := pair.theirs.recv(1 << 16):
            found += len(data)
            pair.turn(0.001)
            if found == sent:
                pair.until(lambda: pair.said)
    assert found == sent
    assert pair.counted() == {"balancer_rst": 1}


def test_a_unix_socket_has_no_state_and_closes_all_the_same() -> None:
    loop, closes = Loop(), Closes()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        loop.watch(ours.fileno(), READ_AND_WRITE, lambda events: None)
        closing.end_client(loop, ours, ClientClose.FIN_RST, closes, close_wait=0)
        assert theirs.recv(1) == b""
        assert struct.pack("ii", 1, 0) == closing.RESET_NOW
    loop.close()


def test_on_a_unix_socket_whoever_left_was_first() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    assert closing.first(ours) == closing.BALANCER_FIN
    theirs.sendall(b"not read")
    theirs.close()
    assert closing.first(ours) == closing.PEER_FIN
    assert closing.reset(ours) == closing.PEER_FIN
