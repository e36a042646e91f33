"""What a client's connection holds, and the verbs its chapters use of one another.

A client is made of chapters: requests (requests.py), answers (answers.py), ends (ends.py); events come
in by client.py. This is the page they share. One exchange, a request and its answer, is under way at a time:
pipelined requests wait in the socket, so answers come in order and nobody can make us hold more than one.

What is held for a connection is bounded: one read of `READ` bytes that waits to be understood (`inbox`), one that
waits to be taken by the other side (`outbox`); while one waits, nothing more is read from where it came from.
"""

from __future__ import annotations

import socket
import ssl
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from timewait.balancer.embedded.loop import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from timewait.balancer.config.model import Then
    from timewait.balancer.embedded.access_log import Record
    from timewait.balancer.embedded.http.bodies import Body
    from timewait.balancer.embedded.http.heads import Ask, Reply
    from timewait.balancer.embedded.http.site import Site
    from timewait.balancer.embedded.http.upstream import Upstream
    from timewait.balancer.embedded.state import TargetState

# Phases in the order of a connection's life. IDLE: no byte of a request yet. HEAD: a part of one. WAITING: a simple
# request has been sent, and nothing of its answer is here. EXCHANGE: any other. FLUSHING: the client has yet to take
# the end of an answer.
IDLE, HEAD, WAITING, EXCHANGE, FLUSHING, TUNNEL, ENDED = range(7)

HEAD_READ = 16 << 10  # bytes asked for where a head is expected
READ = 64 << 10  # where a body flows; above 128 KiB malloc() would mmap for every recv()
TURNS = 16  # reads for one connection in a row, then others have their turn ...
HEAD_TURNS = 2  # ... where one read may hold hundreds of requests that we answer ourselves, or of interim answers
CHUNKED_TURNS = 1  # ... where one read may hold ten thousand chunks, which take 13 ms
LONGEST_REPLAY = 128 << 10  # bytes of a request kept for a retry

BLOCKED = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

Address = tuple[str, int]


class Core(ABC):
    """A client's connection."""

    __slots__ = (
        "again", "answer", "ask", "asks", "attempts", "awaits_continue", "body", "close_after", "connected",
        "connecting", "cookie", "deadline", "ends_by_close", "failures", "fd", "first", "half_closed", "inbox",
        "known", "loop", "number", "outbox", "own", "passed", "peer", "phase", "private", "processing", "readable",
        "reason", "record", "recv", "reply", "request", "requests", "reused", "send", "server", "site", "sock",
        "source", "started", "status", "tail", "target", "tls", "took", "tried", "trusted", "unread", "upstream",
        "watches_out",
    )  # fmt: skip

    def __init__(
        self, site: Site, sock: socket.SocketType, peer: Address, server: Address, initial: bytes, number: int
    ) -> None:
        self.site, self.loop = site, site.loop
        self.sock, self.fd = sock, sock.fileno()
        self.recv: Callable[[int], bytes] = sock.recv
        self.send: Callable[[bytes | memoryview], int] = sock.send
        self.tls = isinstance(sock, ssl.SSLSocket)
        self.peer, self.server = peer, server
        self.number = number  # of the connection, for the access log
        # What ip_hash and sessions by source see; whether its X-Forwarded-For is believed; how the head of a simple
        # request to a target ends.
        self.source, self.trusted, self.tail = site.peers.get(peer[0]) or site.peer(peer[0])
        self.asks = site.asks.known  # heads that were seen before
        self.phase = IDLE
        self.deadline = NEVER
        self.inbox = initial  # read, and not understood yet
        self.readable = self.tls  # there may be more in the socket (edge-triggered: nobody will say so again)
        self.half_closed = False  # the client's FIN is here, what came before it may be unread
        self.outbox: bytes | memoryview = b""  # what send() did not take
        self.watches_out = self.tls
        self.processing = False
        self.again = False  # later() was called
        self.requests = 0  # begun on this connection
        self.private: Upstream | None = None  # kept for this client alone: it began with its PROXY header
        self.upstream: Upstream | None = None
        self.begin_nothing()

    def begin_nothing(self) -> None:
        """The fields of one exchange, as they are between two."""
        self.ask: Ask | None = None
        self.known: dict[bytes, Reply] = {}  # heads of answers to such a request that were seen before
        self.target: TargetState | None = None
        self.request = b""  # as sent, for a retry; empty once that is no longer all of it
        self.body: Body | None = None  # of the request, as long as it is not over
        self.awaits_continue = False  # the client waits for 100 before it sends the body
        self.reply: Reply | None = None  # the head of the answer is here
        self.answer: Body | None = None  # the body of the answer, as long as it is not over
        self.own = False  # the answer is the balancer's own ...
        self.reason = ""  # ... and why
        self.status = 0
        self.close_after = False  # the connection ends with this answer
        self.ends_by_close = False  # and the answer with the connection
        self.unread = False  # the client may still be sending what nobody will read
        self.attempts = 0  # times that a target was asked
        self.failures = 0  # of these, what counts against `retries`
        self.tried: tuple[str, ...] = ()  # addresses that could not be reached
        self.cookie = b""  # whole lines for the answer, which tie the client to the target
        self.reused = False  # the connection to the target had carried a request before
        self.started = self.connected = self.first = 0.0  # the head was here; a target was asked; an answer was here
        self.connecting = 0.0  # seconds until the target's connection stood
        self.took = self.passed = 0  # bytes of the request's and of the answer's body
        self.record: Record | None = None  # for the access log, until it is known who closed

    def later(self) -> None:
        """Goes on after others had their turn. Asked twice it comes once: who sends faster than we take would have
        it come more and more often, and the others never."""
        if not self.again:
            self.again = True
            self.loop.soon(self._later)

    def _later(self) -> None:
        self.again = False
        self.process()
        self.go_on()

    # the verbs between chapters ---------------------------------------------------------------------------------

    @abstractmethod
    def expired(self, now: float) -> None:
        """The deadline has passed."""

    @abstractmethod
    def process(self) -> None:
        """Takes up requests as long as there are any and none is under way."""

    @abstractmethod
    def dispatch(self) -> None:
        """Sends the present request to a target that was not tried."""

    @abstractmethod
    def ask_target(self, target: TargetState) -> None:
        """Sends the present request to this target."""

    @abstractmethod
    def go_on(self) -> None:
        """Moves what can be moved, in both directions."""

    @abstractmethod
    def answered(self, reply: Reply, data: bytes, head: int) -> None:
        """A simple request was answered, wholly: `data`, of which `head` bytes are the head."""

    @abstractmethod
    def received(self, data: bytes, size: int) -> None:
        """The target sent something, or its FIN (nothing), when asked for `size` bytes."""

    @abstractmethod
    def pump_answer(self) -> None:
        """Moves the answer from the target to the client."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Sends to the client; what it does not take waits in `outbox`."""

    @abstractmethod
    def arm(self) -> None:
        """Sets the deadline for what is waited for now."""

    @abstractmethod
    def finish(self) -> None:
        """The answer is complete."""

    @abstractmethod
    def answer_self(self, status: int, reason: str, location: bytes = b"", fields: bytes = b"") -> None:
        """The balancer answers."""

    @abstractmethod
    def note(self) -> None:
        """Has the access log say what happened."""

    @abstractmethod
    def release(self, *, keep: bool = False, timed_out: bool = False, rst: bool = False) -> None:
        """Lets go of the target: its connection is kept for others, or ended."""

    @abstractmethod
    def target_failed(self, error: OSError | None, *, timed_out: bool = False, cut: Then | None = None) -> None:
        """The connection to the target failed: OSError, its end where none should be (None), a timeout, or it is cut
        by us."""

    @abstractmethod
    def client_ended(self) -> None:
        """The client's FIN is here, and everything before it was read."""

    @abstractmethod
    def vanished(self) -> None:
        """The client's connection is broken."""

    @abstractmethod
    def end(self, *, timed_out: bool = False) -> None:
        """Ends the client's connection as configured."""

    @abstractmethod
    def abort(self, *, timed_out: bool = False) -> None:
        """Ends both connections with a reset."""

    @abstractmethod
    def end_tunnel(self, *, rst: bool, timed_out: bool) -> None:
        """A tunnel is over: ends both connections."""

    @abstractmethod
    def crashed(self) -> None:
        """A bug was met, here or at the target's connection."""

    @abstractmethod
    def cut(self, then: Then) -> None:
        """The target is to be left at once."""
