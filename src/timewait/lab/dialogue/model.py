"""A dialogue on the model: `timewait.tcp.host` with the rules of any kernel, on a clock that only waiting moves."""

from __future__ import annotations

import errno
from random import Random

from timewait.lab.dialogue.play import Played, play
from timewait.lab.dialogue.script import LISTENER, SERVER_PORT, Call, Script
from timewait.lab.dialogue.stage import Sent, Shown
from timewait.tcp.connection import Connection
from timewait.tcp.host import Host
from timewait.tcp.kernels import Kernel, kernel, knobs
from timewait.tcp.segment import Segment
from timewait.tcp.sockets import CallError
from timewait.tcp.states import State

_BOOTED = 1000.0  # seconds ago, so that no clock stands at 0
_SENDING = (State.ESTABLISHED, State.CLOSE_WAIT)


class ModelStage:
    """The rules of one kernel; see `Stage`. `seed` stands for all that kernels draw at random."""

    def __init__(self, script: Script, row: Kernel, seed: int = 1) -> None:
        self._connects = script.connects
        self._row = row
        self._settings: dict[str, str] = {}
        self._now = _BOOTED
        self._host = Host(self._row, self._row.defaults, Random(seed), self._now, ipv6=script.ipv6)
        self._sockets: dict[str, Connection] = {}

    def now(self) -> float:
        return self._now

    def send(self, segment: Segment, port: int) -> None:
        local, remote = self._ends(port)
        self._host.receive(local, remote, segment, self._now)

    def sent(self) -> list[Sent]:
        sent = self._host.sent()
        return [Sent(segment, remote if local == SERVER_PORT else local) for local, remote, segment in sent]

    def set_knob(self, name: str, value: str) -> None:
        self._settings[name] = value
        self._host.world.knobs = knobs(self._row, self._settings)

    def wait(self, seconds: float) -> None:
        self._now = round(self._now + seconds, 6)
        self._host.advance(self._now)

    def counters(self) -> dict[str, int]:
        return self._host.counted()

    def state(self, port: int) -> Shown | None:
        shown = self._host.shown(*self._ends(port))
        if shown is None:
            return None
        return Shown(State(shown.state).name, None if shown.left_ms is None else shown.left_ms / 1000)

    def _ends(self, port: int) -> tuple[int, int]:
        return (port, SERVER_PORT) if self._connects else (SERVER_PORT, port)

    def call(self, call: Call) -> str:
        try:
            return self._call(call)
        except CallError as error:
            return errno.errorcode[error.errno]
        except KeyError:  # closed before
            return "EBADF"

    def _call(self, call: Call) -> str:
        host = self._host
        match call.verb:
            case "listen":
                host.listen(SERVER_PORT, call.number)
            case "accept":
                self._sockets[call.socket] = host.accept(SERVER_PORT)
            case "connect":
                self._sockets[call.socket] = host.connect(SERVER_PORT, call.port, reuse=call.reuse)
            case "close" if call.socket == LISTENER:
                host.stop_listening(SERVER_PORT)
            case _:
                connection = self._sockets[call.socket]
                outcome = self._call_on(connection, call)
                host.settle(connection)
                return outcome
        return ""

    def _call_on(self, connection: Connection, call: Call) -> str:
        match call.verb:
            case "close":
                del self._sockets[call.socket]
                connection.close()
            case "linger":
                connection.linger = call.number
            case "shutdown":
                if connection.state not in _SENDING:
                    raise CallError(errno.ENOTCONN)
                connection.shutdown()
            case "send":
                _raise_error_of(connection)
                if connection.state not in _SENDING:
                    raise CallError(errno.EAGAIN if connection.state == State.SYN_SENT else errno.EPIPE)
                connection.send(call.number)
            case "recv":
                got = min(connection.unread, call.number or 1)
                if not got:
                    _raise_error_of(connection)
                    if not connection.got_fin and connection.state != State.CLOSE:
                        raise CallError(errno.EAGAIN)
                connection.unread -= got
                return "" if got == call.number else f"{got} bytes"
        return ""


def _raise_error_of(connection: Connection) -> None:
    """An error is told once."""
    number, connection.error = connection.error, 0
    if number:
        raise CallError(number)


def play_on_model(script: Script, name: str, row: Kernel | None = None) -> Played:
    """Plays the steps for one kernel, by its rules; or by those of `row`, to see whether the script can tell."""
    return play(script, name, ModelStage(script, row or kernel(name)))
