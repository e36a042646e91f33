"""Heads that were seen before: strict parsing is paid once for each distinct head, not once for each message.

Clients repeat themselves, targets too. What a head means is a pure function of its bytes (http/request.py,
http/response.py), so it is kept under those bytes, together with everything that follows from them alone: once it was
seen twice, for most heads with a cookie or a number of the request never are. The memory is bounded; who sends a new
head every time pays for parsing every time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from timewait.balancer.http.grammar import END, NO_BODY, Refusal
from timewait.balancer.http.request import RequestHead, request_head
from timewait.balancer.http.response import ResponseHead, response_head

if TYPE_CHECKING:
    from timewait.balancer.config.model import Limits
    from timewait.balancer.embedded.state import PoolState

MOST_HEADS = 1024  # of each kind; then all are forgotten and the memory fills anew
MOST_SEEN = 4096  # hashes of heads that were seen once; likewise
LONGEST_HEAD = 4096  # bytes; longer ones are not kept

Value = TypeVar("Value")

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))  # RFC 9110, 9.2.2


class Memory(Generic[Value]):
    """What puts heads into `known`: see above."""

    def __init__(self, known: dict[bytes, Value]) -> None:
        self._known = known
        self._seen: set[int] = set()  # hashes; a clash costs a place in `known`, no more
        self.last = b""  # read a moment ago, by who could not make use of it ...
        self.value: Value | None = None  # ... and what came of it

    def take(self, key: bytes, value: Value) -> None:
        """A head was read; an empty `key` is none."""
        if not key:
            return
        self.last, self.value = key, value
        trace = hash(key)  # which bytes keep: it was computed to look for them
        if trace in self._seen:
            if len(self._known) >= MOST_HEADS:
                self._known.clear()
            self._known[key] = value
        else:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            self._seen.add(trace)

    def clear(self) -> None:
        """What was made of heads no longer holds."""
        self._known.clear()
        self.last, self.value = b"", None


class Reply:
    """An answer's head and what follows from it."""

    __slots__ = ("head", "kept", "last", "status", "total")

    def __init__(self, head: ResponseHead) -> None:
        self.head = head
        self.status = head.status
        self.kept = head.forward + b"\r\n"  # to a client of HTTP/1.1 whose connection stays
        self.last = head.forward + b"Connection: close\r\n\r\n"  # ... or ends with this answer
        # Bytes of the whole answer, where that is known and the target's connection stays; else -1.
        whole = head.framing >= NO_BODY and head.keep_alive and not head.is_interim and not head.is_upgrade
        self.total = head.size + head.framing if whole else -1


class Answers:
    """Reads heads of answers to one kind of request: by method, whether an upgrade was asked, and for whom."""

    def __init__(self, method: bytes, upgrade: bool, http10: bool) -> None:
        self._method, self._upgrade, self._http10 = method, upgrade, http10
        self.known: dict[bytes, Reply] = {}
        self._memory = Memory(self.known)

    def read(self, buffer: bytes) -> Reply | Refusal | None:
        """The head at the front of `buffer`; None: more bytes are needed."""
        end = buffer.find(END, 0, LONGEST_HEAD)
        key = buffer[: end + 4] if end >= 0 else b""
        return self.known.get(key) or self.learn(key, buffer)

    def learn(self, key: bytes, buffer: bytes) -> Reply | Refusal | None:
        """The same for a head that is not among those known; `key` is all of it, empty where it is not to be kept."""
        if key and key == self._memory.last:
            return self._memory.value
        head = response_head(key or buffer, self._method, upgrade=self._upgrade, http10=self._http10)
        if not isinstance(head, ResponseHead):
            return head
        reply = Reply(head)
        self._memory.take(key, reply)
        return reply


class Ask:
    """A request's head and what follows from it for one listener."""

    __slots__ = ("answers", "forward", "head", "idempotent", "known", "last", "own", "pool", "simple", "size")

    def __init__(self, head: RequestHead, answers: Answers) -> None:
        self.head, self.answers = head, answers
        self.size = head.size
        self.forward = head.forward
        self.known = answers.known  # heads of answers to such a request
        self.idempotent = head.method in IDEMPOTENT
        self.pool: PoolState | None = None
        self.own: Own | None = None  # what the balancer answers itself
        self.last = not head.keep_alive
        self.simple = False  # nothing but to pass it on: no body, no cookie, no upgrade


class Own:
    """An answer of the balancer's own."""

    __slots__ = ("fields", "location", "reason", "status")

    def __init__(self, status: int, reason: str = "", location: bytes = b"", fields: bytes = b"") -> None:
        self.status, self.reason, self.location, self.fields = status, reason, location, fields


class Asks:
    """Reads a listener's requests. `complete(ask)` fills in what the listener's configuration makes of a new one."""

    def __init__(self, limits: Limits, complete: Callable[[Ask], None], answers: Kinds) -> None:
        self._limits, self._complete, self._answers = limits, complete, answers
        self.known: dict[bytes, Ask] = {}
        self._memory = Memory(self.known)

    def read(self, buffer: bytes) -> Ask | Refusal | None:
        """The head at the front of `buffer`; None: more bytes are needed."""
        end = buffer.find(END, 0, LONGEST_HEAD)
        key = buffer[: end + 4] if end >= 0 else b""
        return self.known.get(key) or self.learn(key, buffer)

    def learn(self, key: bytes, buffer: bytes) -> Ask | Refusal | None:
        """The same for a head that is not among those known; `key` is all of it, empty where it is not to be kept."""
        if key and key == self._memory.last:
            return self._memory.value
        head = request_head(key or buffer, self._limits)
        if not isinstance(head, RequestHead):
            return head
        ask = Ask(head, self._answers.to(head))
        self._complete(ask)
        self._memory.take(key, ask)
        return ask

    def forget(self) -> None:
        """Routing changed: what was made of heads no longer holds."""
        self._memory.clear()


class Kinds:
    """The Answers of a worker, one for each kind of request."""

    def __init__(self) -> None:
        self._usual = Answers(b"", upgrade=False, http10=False)
        self._kinds: dict[tuple[bytes, bool, bool], Answers] = {}

    def to(self, head: RequestHead) -> Answers:
        method = head.method if head.method in (b"HEAD", b"CONNECT") else b""
        if not method and head.upgrade is None and head.version[1]:
            return self._usual
        kind = method, head.upgrade is not None, head.version == (1, 0)
        if kind not in self._kinds:
            self._kinds[kind] = Answers(*kind)
        return self._kinds[kind]
