"""A dialogue on the running kernel: two namespaces, a link, a host under test, and a peer made of frames.

Each script is played in a process of its own, so in namespaces of its own; they vanish with it.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
from pyroute2 import DiagSocket

from timewait.lab import children
from timewait.lab.crafted import Crafted, stay_on_one_cpu
from timewait.lab.dialogue.play import Played, play
from timewait.lab.dialogue.script import LISTENER, SERVER_PORT, STATES, Call, Script
from timewait.lab.dialogue.stage import Sent, Shown
from timewait.lab.links import add_address, join, set_sysctl
from timewait.lab.namespaces import ForbiddenError, Namespace, enter
from timewait.tcp import counters
from timewait.tcp.kernels import running
from timewait.tcp.segment import Segment

_HOST, _PEER = {False: "10.77.0.2", True: "fd77::2"}, {False: "10.77.0.9", True: "fd77::9"}
_LINK = "eth0"
_ATTEMPTS = 8  # of a dialogue that differs on a machine too busy to keep its times
_PATIENCE = 100.0  # seconds until a dialogue is given up; an attempt at the longest of ours takes four
_KNOWN = frozenset(counters.NAMES.values())
_CLOSED, _LISTENS = 7, 10  # include/net/tcp_states.h; 1 .. 11 without these are STATES, in another order
_STATE_NUMBERS = dict(
    zip((1, 2, 3, 4, 5, 6, 8, 9, 11), (STATES[i] for i in (0, 1, 2, 3, 4, 5, 6, 7, 8)), strict=True)
)
_KEEPALIVE_TIMER, _TIME_WAIT_TIMER = 2, 3  # idiag_timer, inet_sk_diag_fill() and inet_twsk_diag_fill()


class PlayError(Exception):
    """A dialogue could not be played at all; the text says why."""


class KernelStage:
    """The running kernel. Made in a process that has entered its own namespaces, on one CPU; see `Stage`."""

    def __init__(self, script: Script) -> None:
        self._connects = script.connects
        self._sockets: dict[str, socket.socket] = {}
        self._stack = ExitStack()
        self._host = self._stack.enter_context(Namespace("host"))
        far = self._stack.enter_context(Namespace("far"))
        join(self._host, _LINK, far, _LINK)
        self._family = socket.AF_INET6 if script.ipv6 else socket.AF_INET
        self._address, self._peer_address = _HOST[script.ipv6], _PEER[script.ipv6]
        with self._host.entered():
            add_address(_LINK, f"{self._address}/{64 if script.ipv6 else 24}")
        self._peer = self._stack.enter_context(Crafted(far, _LINK, address=self._peer_address, target=self._address))

    def close(self) -> None:
        """Both hosts and what is between them."""
        for sock in self._sockets.values():
            sock.close()
        self._stack.close()

    def now(self) -> float:
        return time.monotonic()

    def send(self, segment: Segment, port: int) -> None:
        if self._connects:
            self._peer.send(segment, port=SERVER_PORT, to=port)
        else:
            self._peer.send(segment, port=port, to=SERVER_PORT)

    def sent(self) -> list[Sent]:
        seen = self._peer.settled()
        return [Sent(one.segment, one.other_port if self._connects else one.port) for one in seen]

    def set_knob(self, name: str, value: str) -> None:
        with self._host.entered():
            set_sysctl(f"net.ipv4.{name}", value.replace("-", " "))

    def wait(self, seconds: float) -> None:
        self._peer.stay(seconds)

    def counters(self) -> dict[str, int]:
        with self._host.entered():
            net = Path("/proc/thread-self/net")
            pairs = _pairs((net / "netstat").read_text()) | _pairs((net / "snmp").read_text())
        return {name: value for name, value in pairs.items() if name in _KNOWN}

    def state(self, port: int) -> Shown | None:
        ends = (port, SERVER_PORT) if self._connects else (SERVER_PORT, port)
        with self._host.entered(), DiagSocket() as diag:
            for found in diag.get_sock_stats(family=self._family, states=0xFFF, extensions=0):
                if (found["idiag_sport"], found["idiag_dport"]) == ends and found["idiag_state"] in _STATE_NUMBERS:
                    state = _STATE_NUMBERS[found["idiag_state"]]
                    timer = found["idiag_timer"]
                    ends_it = timer == _TIME_WAIT_TIMER or (timer == _KEEPALIVE_TIMER and state == "FIN_WAIT2")
                    return Shown(state, found["idiag_expires"] / 1000 if ends_it else None)
        return None

    def call(self, call: Call) -> str:
        try:
            return self._call(call)
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        except KeyError:  # closed before
            return "EBADF"

    def _call(self, call: Call) -> str:
        if call.verb in ("listen", "connect"):
            with self._host.entered():
                sock = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self._sockets[call.socket] = sock
        match call.verb:
            case "listen":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((self._address, SERVER_PORT))
                sock.listen(call.number)
            case "connect":
                if call.reuse:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if call.port:
                    sock.bind((self._address, call.port))
                number = sock.connect_ex((self._peer_address, SERVER_PORT))
                return "" if number == errno.EINPROGRESS else errno.errorcode[number]
            case "accept":
                accepted, _ = self._sockets[LISTENER].accept()
                accepted.setblocking(False)
                self._sockets[call.socket] = accepted
            case "send":
                self._sockets[call.socket].send(b"y" * call.number)
            case "recv":
                got = len(self._sockets[call.socket].recv(call.number or 1))
                return "" if got == call.number else f"{got} bytes"
            case "shutdown":
                self._sockets[call.socket].shutdown(socket.SHUT_WR)
            case "linger":
                value = (1).to_bytes(4, "little") + call.number.to_bytes(4, "little")
                self._sockets[call.socket].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)
            case "close":
                self._sockets.pop(call.socket).close()
        return ""


def _pairs(table: str) -> dict[str, int]:
    """The counters of /proc/net/netstat or /proc/net/snmp without the names of their tables."""
    lines = table.splitlines()
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        found |= dict(zip(names.split()[1:], map(int, values.split()[1:]), strict=False))
    return found


def nearest_profile() -> tuple[str, str]:
    """The profile that stands for the running kernel, and a sentence where that is not exactly its version."""
    release = os.uname().release
    row = running(release)
    if release == row.version:
        return row.name, ""
    return row.name, f"Linux {release} is judged by the rules of {row.version}, the nearest that were read"


def play_on_kernel(scripts: Iterable[Script], at_once: int = 2) -> Iterator[Played]:
    """Plays scripts on the running kernel, `at_once` side by side; results in the order of the scripts.

    A script need not name this kernel's profile; its steps for it are played. Raises ForbiddenError where this
    machine makes no namespaces, PlayError where a dialogue cannot be played.
    """
    kernel, _ = nearest_profile()
    waiting = list(enumerate(scripts))[::-1]
    running_now: list[tuple[Script, children.Child, int]] = []
    try:
        while waiting or running_now:
            while waiting and len(running_now) < at_once:
                number, script = waiting.pop()
                running_now.append((script, *_begin(script, kernel, number)))
            script, child, reading = running_now.pop(0)
            yield _result(script, child, reading)
    finally:
        for _, child, reading in running_now:
            child.stop(0.0)
            os.close(reading)


def _begin(script: Script, kernel: str, cpu: int) -> tuple[children.Child, int]:
    reading, writing = os.pipe()

    def work() -> None:
        data = _answer(script, kernel, cpu)
        while data:
            data = data[os.write(writing, data) :]

    child = children.start(work, keep=[writing])
    os.close(writing)
    return child, reading


class _Refused(msgspec.Struct, tag="refused"):
    reason: str
    setting: str
    remedy: str


class _Failed(msgspec.Struct, tag="failed"):
    text: str


class _Done(msgspec.Struct, tag="done"):
    played: Played


def _answer(script: Script, kernel: str, cpu: int) -> bytes:
    """In the child."""
    said: _Done | _Failed | _Refused
    try:
        enter()
        stay_on_one_cpu(cpu)
        said = _Done(_play(script, kernel))
    except ForbiddenError as error:
        said = _Refused(error.reason, error.setting, error.remedy)
    except Exception as error:  # what went wrong is told by the parent
        said = _Failed(f"{type(error).__name__}: {error}")
    return msgspec.json.encode(said)


def _play(script: Script, kernel: str) -> Played:
    for _ in range(_ATTEMPTS):
        stage = KernelStage(script)
        try:
            played = play(script, kernel, stage, os.uname().release)
        finally:
            stage.close()
        if not (played.differs and played.is_late):
            break
    return played


def _result(script: Script, child: children.Child, reading: int) -> Played:
    data, deadline = b"", time.monotonic() + _PATIENCE
    try:
        while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = os.read(reading, 65536)
            if not part:
                break
            data += part
        else:
            raise PlayError(f"{script.name}: given up after {_PATIENCE:.0f} s")
    finally:
        if child.wait(max(0.0, min(5.0, deadline - time.monotonic()))) is None:
            child.stop(0.0)
        os.close(reading)
    if not data:
        raise PlayError(f"{script.name}: its process ended with status {child.status} before it had a result")
    said = msgspec.json.decode(data, type=_Done | _Failed | _Refused)
    if isinstance(said, _Refused):
        raise ForbiddenError(said.reason, said.setting, said.remedy)
    if isinstance(said, _Failed):
        raise PlayError(f"{script.name}: {said.text}")
    return said.played
