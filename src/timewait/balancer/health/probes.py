"""One check of one target, as CLB makes it. A check leaves no TIME_WAIT anywhere and no connection to be accepted
that was not asked for: it ends with RST (SO_LINGER{1, 0}).

A TCP check is SYN, SYN-ACK, RST: with TCP_QUICKACK off the kernel holds the handshake's ACK back for up to 40 ms
(tcp_rcv_synsent_state_process(), net/ipv4/tcp_input.c: inet_csk_in_pingpong_mode()), and the reset comes first, so
that a target's accept() never returns for it. HAProxy's checks do the same.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from timewait.balancer.config.model import CheckType, CustomCheck, Health, HttpCheck
from timewait.balancer.config.units import duration_text
from timewait.balancer.health.icmp import Icmp

RST = struct.pack("ii", 1, 0)  # SO_LINGER{1, 0}: close() sends RST
USER_AGENT = "clb-healthcheck"
DATAGRAM = b"HEALTH CHECK"
MOST_READ = 16 << 10  # bytes of an answer looked at
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r?\n")
_OUR_OWN = frozenset(
    {errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}
)
"""What is missing at this end: it says nothing about the target."""


class Check(NamedTuple):
    """What to check."""

    address: str  # "10.0.1.11:8080"
    kind: CheckType
    rules: Health
    udp: bool = False


class Outcome(NamedTuple):
    """What a check found. `passed` None: nothing was learned, for a reason at this end."""

    passed: bool | None
    reason: str = ""
    seconds: float = 0.0  # it took


Probe = Callable[[Check, Icmp], Awaitable[Outcome]]


async def probe(check: Check, icmp: Icmp) -> Outcome:
    """Makes one check; ends within its timeout. Nothing is raised for what the network does."""
    begun = time.monotonic()
    try:
        reason = await _KINDS[check.kind](check, icmp)
    except TimeoutError:
        reason = f"no answer within {duration_text(check.rules.timeout)}"
    except OSError as problem:
        name = errno.errorcode.get(problem.errno or 0, "")
        if problem.errno in _OUR_OWN:
            return Outcome(None, f"the check could not be made: {name}", time.monotonic() - begun)
        reason = (os.strerror(problem.errno) if problem.errno else str(problem)).lower()
    return Outcome(not reason, reason, time.monotonic() - begun)


def endpoint(address: str) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """`[fd00::1]:80` -> (AF_INET6, ("fd00::1", 80))."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return (socket.AF_INET6 if ":" in host else socket.AF_INET), (host, int(port))


async def _tcp(check: Check, icmp: Icmp) -> str:
    async with asyncio.timeout(check.rules.timeout):
        with await _connected(check.address, hold_ack=True):
            return ""


async def _http(check: Check, icmp: Icmp) -> str:
    async with asyncio.timeout(check.rules.timeout):
        return await _asked(check)


async def _asked(check: Check) -> str:
    wanted = check.rules.http
    loop = asyncio.get_running_loop()
    with await _connected(check.address) as sock:
        await loop.sock_sendall(sock, request(wanted, check.address))
        head = b""
        while b"\n" not in head and len(head) < MOST_READ:
            data = await loop.sock_recv(sock, 4096)
            if not data:
                return "closed without an answer"
            head += data
    return judged(head, wanted)


def request(check: HttpCheck, address: str) -> bytes:
    """The request of an HTTP check (RFC 9112, 3)."""
    host = check.host or address
    return (
        f"{check.method} {check.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {USER_AGENT}\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    ).encode("latin-1", "replace")


def judged(head: bytes, check: HttpCheck) -> str:
    """Why the beginning of an answer is none that was expected; empty where it is."""
    found = _STATUS.match(head)
    if found is None:
        return "the answer is no HTTP/1"
    status = found[1].decode()
    if any(status == one or (one.endswith("xx") and status[0] == one[0]) for one in check.expect):
        return ""
    return f"answered {status}"


async def _custom(check: Check, icmp: Icmp) -> str:
    say, hear = spoken(check.rules.custom)
    if check.udp:
        return await _datagram(check.address, say, hear, check.rules.timeout)
    async with asyncio.timeout(check.rules.timeout):
        return await _talked(check.address, say, hear)


async def _talked(address: str, say: bytes, hear: bytes) -> str:
    loop = asyncio.get_running_loop()
    with await _connected(address) as sock:
        if say:
            await loop.sock_sendall(sock, say)
        heard = b""
        while hear not in heard:  # nothing expected is in everything
            data = await loop.sock_recv(sock, 4096)
            if not data or len(heard) > MOST_READ:
                return "answered something else" if heard else "closed without an answer"
            heard += data
    return ""


def spoken(check: CustomCheck) -> tuple[bytes, bytes]:
    """What is sent and what is expected, as bytes."""
    if check.hex:
        return bytes.fromhex(check.send), bytes.fromhex(check.expect)
    return check.send.encode(), check.expect.encode()


async def _ping(check: Check, icmp: Icmp) -> str:
    if not check.udp:
        return await _echoed(check, icmp)
    pinged, sent = await asyncio.gather(
        _echoed(check, icmp), _datagram(check.address, DATAGRAM, b"", check.rules.timeout)
    )
    return pinged or sent


async def _echoed(check: Check, icmp: Icmp) -> str:
    async with asyncio.timeout(check.rules.timeout):
        return await icmp.echo(*endpoint(check.address))


async def _datagram(address: str, say: bytes, hear: bytes, timeout: float) -> str:
    """Where nothing is expected, silence is well: only ICMP "port unreachable" is not (udp(7), ECONNREFUSED).

    So this has a timeout of its own and none around it: of two that end together, the outer one would be told.
    """
    family, where = endpoint(address)
    loop = asyncio.get_running_loop()
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
        try:
            await loop.sock_connect(sock, where)
            await loop.sock_sendall(sock, say)
            async with asyncio.timeout(timeout):
                while True:
                    if hear in await loop.sock_recv(sock, MOST_READ):
                        return ""
        except ConnectionRefusedError:
            return "port unreachable"
        except TimeoutError:
            if hear:
                raise
            return ""


async def _connected(address: str, *, hold_ack: bool = False) -> socket.socket:
    """A connection that closes with RST. `hold_ack`: without the handshake's last segment, see above."""
    family, where = endpoint(address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        if hold_ack:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock


_KINDS: dict[CheckType, Callable[[Check, Icmp], Awaitable[str]]] = {
    CheckType.TCP: _tcp,
    CheckType.HTTP: _http,
    CheckType.CUSTOM: _custom,
    CheckType.PING: _ping,
}
