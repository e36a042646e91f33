"""What a target does, found out with one polite connection per question: no load, blocking sockets, bounded waits.

The questions: are timestamps negotiated, is a connection kept, and who ends it first when asked to close, in
HTTP/1.0, and when it lies idle. Whoever sends the first FIN holds TIME_WAIT for 60 s, so the answers decide which
rate a client can sustain.
"""

from __future__ import annotations

import errno
import socket
import ssl
import struct
import time
from enum import StrEnum

import msgspec

from timewait.plan import Plan, Request
from timewait.stress import tls
from timewait.stress.http import Answer, BadResponseError, request_bytes

# struct tcp_info, include/uapi/linux/tcp.h: tcpi_state, tcpi_options, tcpi_rtt (microseconds).
_STATE, _OPTIONS, _RTT = 0, 5, 68
_ESTABLISHED, _CLOSE, _CLOSE_WAIT = 1, 7, 8  # include/net/tcp_states.h
_TIMESTAMPS = 1  # TCPI_OPT_TIMESTAMPS


class How(StrEnum):
    """How a connection ended, or did not, while we only waited."""

    PEER = "peer"  # the peer's FIN
    RESET = "reset"  # the peer's RST
    OPEN = "open"  # neither, within the wait: the end is left to us


class Ending(msgspec.Struct, frozen=True):
    """What became of a connection that we left alone. `seconds`: until its end, or how long we waited."""

    how: How
    seconds: float
    announced: bool = False  # the answer itself said that the connection ends (RFC 9112 section 9.3)


class Behaviour(msgspec.Struct, kw_only=True):
    """What one address of the target did. None: not asked, or no answer to the question; `problems` says why."""

    address: str
    port: int
    reachable: bool = False
    error: str = ""  # why it could not be reached, one sentence
    errno: str = ""  # "ECONNREFUSED"; empty when no call failed
    connect: float | None = None  # seconds until established
    round_trip: float | None = None  # seconds, the kernel's smoothed RTT right after connecting
    timestamps: bool | None = None  # RFC 7323 timestamps negotiated
    tls: str = ""  # "TLSv1.3"
    status: int | None = None  # of the first answer
    lifetime: float | None = None  # seconds from connect() to the complete answer, one request on a new connection
    keep_alive: bool | None = None  # a second request on the same connection was answered
    on_close: Ending | None = None  # after a request with `Connection: close`
    on_http10: Ending | None = None  # after an HTTP/1.0 request without Connection header
    on_idle: Ending | None = None  # after its last answer, or after connecting to a tcp:// target
    problems: list[str] = []  # questions that found no answer, one sentence each


class ProbeError(Exception):
    """A question without an answer: one sentence, and the errno's name where a call failed."""

    def __init__(self, sentence: str, name: str = "") -> None:
        super().__init__(sentence)
        self.name = name


def probe(plan: Plan, request: Request, address: str, port: int, idle: float) -> Behaviour:
    """Asks one address all questions, one connection each, at most three.

    Waits at most the plan's connect_timeout per connection, its timeout per answer, its close_timeout for an end that
    was asked for, and `idle` seconds for one that was not. PlanError comes from a CA file that cannot be used.
    """
    found = Behaviour(address=address, port=port)
    asker = _Asker(plan, request, address, port)
    try:
        _ask_to_close(asker, found)
    except ProbeError as error:
        found.problems.append(str(error))
        if not found.reachable:
            found.error, found.errno, found.problems = str(error), error.name, []
            return found
    questions = [_keep_and_wait] if request.scheme == "tcp" else [_speak_http10, _keep_and_wait]
    for question in questions:
        try:
            question(asker, found, idle)
        except ProbeError as error:
            found.problems.append(str(error))
    return found


class _Asker:
    """Opens connections to one address and puts requests on them."""

    def __init__(self, plan: Plan, request: Request, address: str, port: int) -> None:
        self.plan, self.request = plan, request
        self._where = (address, port)
        self._tls = tls.context(plan.tls) if request.scheme == "https" else None

    def connect(self, found: Behaviour) -> socket.socket:
        """A new connection, TLS included; fills in what the handshakes show."""
        begin = time.monotonic()
        source = (self.plan.sources[0], 0) if self.plan.sources else None
        try:
            sock = socket.create_connection(self._where, self.plan.connect_timeout, source_address=source)
        except OSError as error:
            raise ProbeError(_connect_problem(error, self.plan.connect_timeout), _name(error)) from None
        if found.connect is None:
            found.connect = time.monotonic() - begin
            info = _tcp_info(sock)
            found.timestamps = bool(info[_OPTIONS] & _TIMESTAMPS)
            found.round_trip = struct.unpack_from("=I", info, _RTT)[0] / 1e6
        sock.settimeout(self.plan.timeout)
        if self._tls is None:
            found.reachable = True
            return sock
        try:
            secure = self._tls.wrap_socket(sock, server_hostname=self.plan.tls.sni or self.request.host)
        except ssl.SSLError as error:
            sock.close()
            raise ProbeError(f"the TLS handshake failed: {tls.why(error)[1]}") from None
        except OSError as error:
            sock.close()
            raise ProbeError(f"the TLS handshake failed: {_words(error, self.plan.timeout)}", _name(error)) from None
        found.reachable = True
        found.tls = secure.version() or ""
        return secure

    def exchange(self, sock: socket.socket, data: bytes) -> Answer:
        """Sends one request and reads its whole answer. Raises ProbeError."""
        answer = Answer(head=self.request.method == "HEAD")
        until = time.monotonic() + self.plan.timeout
        try:
            sock.sendall(data)
            while not answer.complete:
                sock.settimeout(max(0.001, until - time.monotonic()))
                piece = sock.recv(65536)
                if piece:
                    answer.feed(piece)
                elif not answer.eof():
                    raise ProbeError("the peer closed before its answer was complete")
        except BadResponseError as error:
            raise ProbeError(f"the answer is no correct HTTP: {error}") from None
        except OSError as error:
            raise ProbeError(f"no complete answer: {_words(error, self.plan.timeout)}", _name(error)) from None
        return answer


def _ask_to_close(asker: _Asker, found: Behaviour) -> None:
    """`Connection: close` on the only request; for tcp:// only whether a connection can be made."""
    begin = time.monotonic()
    with asker.connect(found) as sock:
        if asker.request.scheme == "tcp":
            found.lifetime = time.monotonic() - begin
            return
        answer = asker.exchange(sock, request_bytes(asker.plan, asker.request, last=True))
        found.status, found.lifetime = answer.status, time.monotonic() - begin
        found.on_close = _ending(sock, asker.plan.close_timeout, answer.closes)


def _speak_http10(asker: _Asker, found: Behaviour, idle: float) -> None:
    """HTTP/1.0 without a Connection header: the server should close (RFC 9112 section 9.3)."""
    request = request_bytes(asker.plan, asker.request, last=False).replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
    try:
        with asker.connect(found) as sock:
            answer = asker.exchange(sock, request)
            found.on_http10 = _ending(sock, asker.plan.close_timeout, answer.closes)
    except ProbeError as error:
        raise ProbeError(f"HTTP/1.0: {error}", error.name) from None


def _keep_and_wait(asker: _Asker, found: Behaviour, idle: float) -> None:
    """Two requests on one connection, then silence."""
    with asker.connect(found) as sock:
        if asker.request.scheme == "tcp":
            found.on_idle = _ending(sock, idle, False)
            return
        request = request_bytes(asker.plan, asker.request, last=False)
        answer = asker.exchange(sock, request)
        if answer.closes:
            found.keep_alive = False
            return
        try:
            answer = asker.exchange(sock, request)
        except ProbeError as error:
            # Kept-alive was promised, so this is worth a line of its own beside the plain no.
            found.keep_alive = False
            raise ProbeError(f"kept alive without `Connection: close`, but then: {error}", error.name) from None
        found.keep_alive = True
        if not answer.closes:
            found.on_idle = _ending(sock, idle, False)


def _ending(sock: socket.socket, wait: float, announced: bool) -> Ending:
    """Waits for the peer's FIN or RST, without sending anything.

    recv() alone will not do: under TLS it ends at close_notify, and the FIN behind it may never come. The state of
    the socket tells: CLOSE_WAIT once the peer's FIN is here, CLOSE after its RST.
    """
    begin = time.monotonic()
    readable = True
    while True:
        passed = time.monotonic() - begin
        state = _tcp_info(sock)[_STATE]
        if state in (_CLOSE_WAIT, _CLOSE):
            return Ending(How.PEER if state == _CLOSE_WAIT else How.RESET, passed, announced)
        if passed >= wait:
            return Ending(How.OPEN, passed, announced)
        if not readable:
            time.sleep(0.005)
            continue
        try:
            sock.settimeout(min(0.1, wait))
            readable = bool(sock.recv(65536))  # what comes after an answer is not ours to judge here
            if not readable and isinstance(sock, ssl.SSLSocket):
                sock.unwrap()  # some servers send FIN only after our close_notify (RFC 8446 section 6.1)
        except TimeoutError:
            pass
        except OSError:
            readable = False  # the state says what it was, next turn


def _tcp_info(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)


def _name(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "ETIMEDOUT"
    return errno.errorcode.get(error.errno or 0, "")


def _words(error: OSError, waited: float) -> str:
    if isinstance(error, TimeoutError):
        return f"nothing came for {waited:g} s"
    return (error.strerror or str(error)).lower()


_CONNECT_PROBLEMS = {
    "ECONNREFUSED": "refused: nothing listens on that port, or a firewall rejects with RST",
    "EHOSTUNREACH": "unreachable: no route to the host, or it does not answer ARP",
    "ENETUNREACH": "unreachable: this host has no route for that address family",
    "EADDRNOTAVAIL": "this host has no free source port toward it",
    "EADDRINUSE": "this host has no free source port toward it",
}


def _connect_problem(error: OSError, waited: float) -> str:
    name = _name(error)
    if name == "ETIMEDOUT":
        return (
            f"no answer to SYN for {waited:g} s: a firewall drops it, the host is down, or its accept queue is full"
        )
    return _CONNECT_PROBLEMS.get(name) or f"connect() failed: {(error.strerror or str(error)).lower()}"
