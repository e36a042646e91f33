"""Checks against servers that answer as a script says; what they leave behind is looked up in the kernel."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kit import behaviours, labs
from kit.ports import bind_fresh, free_port
from kit.servers import EndedError, Peer, Server, listen
from timewait.balancer.config.model import CheckType, CustomCheck, Health, HttpCheck
from timewait.balancer.engine import BalancerError
from timewait.balancer.health import probes
from timewait.balancer.health.icmp import Icmp, checksum
from timewait.balancer.health.probes import Check, Outcome, judged, probe
from timewait.observe.sock_diag import SockDiag, toward
from timewait.tcp.states import State

QUICK = 0.2  # seconds: for what is not going to answer
PATIENT = 30.0
HELD_BACK = 0.03  # the kernel holds an ACK back for 40 ms (TCP_DELACK_MIN), counted in ticks


def check(
    address: str,
    kind: CheckType = CheckType.TCP,
    *,
    timeout: float = PATIENT,
    udp: bool = False,
    custom: CustomCheck | None = None,
    http: HttpCheck | None = None,
) -> Outcome:
    rules = Health(timeout=timeout, http=http or HttpCheck(), custom=custom or CustomCheck())

    async def made() -> Outcome:
        return await probe(Check(address, kind, rules, udp), Icmp())

    return asyncio.run(made())


def left_behind(address: str) -> dict[State, int]:
    """Sockets of this machine toward the target, TIME_WAIT among them."""
    host, _, port = address.rpartition(":")
    with SockDiag() as table:
        return table.count(toward(ipaddress.ip_address(host.strip("[]")), int(port)))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_tcp_check_is_never_accepted_and_leaves_nothing(host: str) -> None:
    for _ in range(100):
        with listen(host) as door:
            door.settimeout(0.3)
            address = f"[{host}]:{door.getsockname()[1]}" if ":" in host else f"{host}:{door.getsockname()[1]}"
            outcome = check(address)
            assert outcome.passed
            assert left_behind(address) == {}
            if outcome.seconds > HELD_BACK:
                continue  # this process had to wait for its turn, and the kernel did not wait for it
            # The reset came before the handshake's last segment, so there was nothing to accept
            with pytest.raises(TimeoutError):
                door.accept()
            return
    pytest.fail(f"none of 100 checks took less than {HELD_BACK} s")


def test_a_tcp_check_of_a_closed_port() -> None:
    outcome = check(f"127.0.0.1:{free_port()}")
    assert (outcome.passed, outcome.reason) == (False, "connection refused")


def test_a_tcp_check_of_somebody_who_does_not_answer() -> None:
    with listen(backlog=0) as door, socket.create_connection(door.getsockname(), 5):
        outcome = check(f"127.0.0.1:{door.getsockname()[1]}", timeout=QUICK)
    assert (outcome.passed, outcome.reason) == (False, "no answer within 200ms")


def test_an_http_check_asks_as_clb_does_and_ends_with_a_reset() -> None:
    seen: list[tuple[str, str, dict[str, str]]] = []
    ended = threading.Event()

    def behaviour(peer: Peer) -> None:
        asked = peer.request()
        seen.append((asked.method, asked.target, asked.headers))
        peer.send(behaviours.OK)
        try:
            peer.receive()
        except EndedError as error:
            if isinstance(error.__cause__, ConnectionResetError):
                ended.set()

    with Server(behaviour) as server:
        assert check(server.authority, CheckType.HTTP, http=HttpCheck(path="/up", host="shop.test")).passed
        assert ended.wait(30)
        assert left_behind(server.authority) == {}
        assert check(server.authority, CheckType.HTTP, http=HttpCheck(method="GET")).passed
    method, target, headers = seen[0]
    assert (method, target) == ("HEAD", "/up")
    assert (headers["host"], headers["user-agent"], headers["connection"]) == (
        "shop.test",
        "clb-healthcheck",
        "close",
    )
    assert (seen[1][0], seen[1][2]["host"]) == ("GET", server.authority)


@pytest.mark.parametrize(
    ("head", "expect", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\n", ("2xx",), ""),
        (b"HTTP/1.0 404 Not Found\r\n", ("2xx", "4xx"), ""),
        (b"HTTP/1.1 503\r\n", ("1xx", "2xx", "3xx", "4xx"), "answered 503"),
        (b"HTTP/1.1 204 No Content\r\n", ("1xx",), "answered 204"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ("2xx",), "the answer is no HTTP/1"),
        (b"HTTP/2 200\r\n", ("2xx",), "the answer is no HTTP/1"),
        (b"HTTP/1.1 2000 OK\r\n", ("2xx",), "the answer is no HTTP/1"),
        (b"\n", ("2xx",), "the answer is no HTTP/1"),
    ],
)
def test_what_an_answer_is_worth(head: bytes, expect: tuple[str, ...], reason: str) -> None:
    assert judged(head, HttpCheck(expect=expect)) == reason


def hangs_up(peer: Peer) -> None:
    peer.request()


def test_an_http_check_of_servers_that_go_wrong() -> None:
    with Server(hangs_up) as server:
        assert check(server.authority, CheckType.HTTP).reason == "closed without an answer"
    with Server(behaviours.stalls_before_answer) as server:
        assert check(server.authority, CheckType.HTTP, timeout=QUICK).reason == "no answer within 200ms"
    with Server(behaviours.resets_after_request) as server:
        assert check(server.authority, CheckType.HTTP).reason == "connection reset by peer"


@pytest.mark.parametrize(
    ("custom", "passed", "reason"),
    [
        (CustomCheck(send="PING\r\n", expect="PING"), True, ""),
        (CustomCheck(send="50494e47", expect="4e47", hex=True), True, ""),
        (CustomCheck(), True, ""),
        (CustomCheck(send="PING\r\n", expect="PONG"), False, "no answer within 200ms"),
    ],
)
def test_a_custom_check_over_tcp(custom: CustomCheck, passed: bool, reason: str) -> None:
    with Server(behaviours.echo) as server:
        outcome = check(server.authority, CheckType.CUSTOM, timeout=PATIENT if passed else QUICK, custom=custom)
        assert (outcome.passed, outcome.reason) == (passed, reason)
        assert left_behind(server.authority) == {}


@contextmanager
def echoing_datagrams() -> Iterator[str]:
    """Echoes datagrams, and is silent about empty ones."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        bind_fresh(sock, "127.0.0.1")
        sock.settimeout(0.05)
        stopping = threading.Event()

        def serve() -> None:
            while not stopping.is_set():
                try:
                    data, sender = sock.recvfrom(2048)
                except TimeoutError:
                    continue
                if data:
                    sock.sendto(data, sender)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{sock.getsockname()[1]}"
        finally:
            stopping.set()
            thread.join(10)


def test_silence_is_well_also_when_the_loop_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was to happen meanwhile then happens in one turn of the loop."""
    rules = Health(timeout=0.1, custom=CustomCheck())

    async def made(address: str) -> Outcome:
        checking = asyncio.create_task(probe(Check(address, CheckType.CUSTOM, rules, True), Icmp()))
        await asyncio.sleep(0.01)
        time.sleep(0.2)
        return await checking

    with echoing_datagrams() as address:
        assert asyncio.run(made(address)).passed


def test_a_custom_check_over_udp() -> None:
    with echoing_datagrams() as address:
        said = CustomCheck(send="status", expect="stat")
        assert check(address, CheckType.CUSTOM, udp=True, custom=said).passed
        said = CustomCheck(send="status", expect="other")
        assert check(address, CheckType.CUSTOM, udp=True, custom=said, timeout=QUICK).reason.startswith("no answer")
        # Nothing is expected, nothing comes, nobody says that the port is closed: well
        assert check(address, CheckType.CUSTOM, udp=True, timeout=QUICK).passed
    assert check(address, CheckType.CUSTOM, udp=True).reason == "port unreachable"


PINGING = """
import asyncio, json
from timewait.lab import enter
enter()
from timewait.balancer.config.model import CheckType, Health
from timewait.balancer.health.icmp import Icmp
from timewait.balancer.health.probes import Check, probe
import socket, sys
door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
door.bind(("127.0.0.1", 5353))
async def main():
    icmp = Icmp()
    icmp.open(socket.AF_INET), icmp.open(socket.AF_INET6)
    found = {}
    for name, address, udp, timeout in (
        ("v4", "127.0.0.1:80", False, 5.0), ("v6", "[::1]:80", False, 5.0), ("udp", "127.0.0.1:5353", True, 0.3),
        ("closed", "127.0.0.1:5354", True, 5.0), ("nowhere", "192.0.2.1:80", False, 5.0),
    ):
        outcome = await probe(Check(address, CheckType.PING, Health(timeout=timeout), udp), icmp)
        found[name] = [outcome.passed, outcome.reason]
    icmp.close()
    print(json.dumps(found))
asyncio.run(main())
"""


@pytest.mark.parametrize("user", labs.USERS)
def test_ping(user: str) -> None:
    found = json.loads(labs.python(labs.USERS[user] + PINGING))
    assert found == {
        "v4": [True, ""],
        "v6": [True, ""],
        "udp": [True, ""],
        "closed": [False, "port unreachable"],
        "nowhere": [False, "network is unreachable"],
    }


def test_checksum_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2
    assert checksum(b"\x01") == 0xFEFF


@pytest.mark.parametrize("number", [errno.EADDRNOTAVAIL, errno.EMFILE])
def test_want_of_something_here_is_no_verdict(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def short(address: str, *, hold_ack: bool = False) -> socket.socket:
        raise OSError(number, "short of it")

    monkeypatch.setattr(probes, "_connected", short)
    outcome = check("127.0.0.1:80")
    assert outcome.passed is None
    assert outcome.reason == f"the check could not be made: {errno.errorcode[number]}"


def test_who_may_not_ping_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> socket.socket:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("timewait.balancer.health.icmp.socket.socket", forbidden)
    with pytest.raises(BalancerError, match=r"sysctl -w net\.ipv4\.ping_group_range="):
        Icmp().open(socket.AF_INET)
