"""One slot's connection: plain fields, reused for all connections of the slot, so the hot loop makes nothing."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from timewait.stress.endpoints import Ask, Endpoint
    from timewait.stress.http import Answer
    from timewait.stress.tls import Channel

# States in the order of a connection's life. WAITING: request sent, no byte of the answer yet.
FREE, CONNECTING, SHAKING, SENDING, WAITING, READING, CLOSING, IDLE = range(8)

FOREVER = 1 << 60  # requests of a connection without limit, budget of a run without -n


class Connection:
    __slots__ = (
        "answer", "ask", "backoff", "began", "channel", "close_asked", "due", "endpoint", "established",
        "farewell_said", "first", "key", "left", "number", "out", "port", "reply", "served", "sock", "source",
        "state", "turn",
    )  # fmt: skip

    sock: socket.SocketType
    ask: Ask
    endpoint: Endpoint

    def __init__(self, number: int) -> None:
        self.number = number  # of the slot
        self.state = FREE
        self.began = 0.0  # when the present state's deadline began to count
        self.due = 0.0  # what the latency of the present request counts from
        self.first = 0.0  # first byte of the present answer, seconds after `due`
        self.left = 0  # requests this connection may still carry, the present one included
        self.served = 0  # answers completed on it
        self.turn = 0  # which of the endpoint's requests comes next
        self.port = 0  # source port when we chose it
        self.source = 0  # index of the source address
        self.backoff = 0.0  # seconds the slot waits before it tries to connect again
        self.established = False
        self.close_asked = False
        self.farewell_said = False  # our close_notify has gone out though we wait for the peer's FIN
        self.key = 0  # identifies the five-tuple while tuples are tracked, 0 otherwise
        self.out: memoryview | None = None  # what send() did not take
        self.answer: Answer | None = None
        self.reply = b""  # of a tcp:// target, as far as it has come
        self.channel: Channel | None = None
