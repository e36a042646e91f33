"""One direction of a relayed stream: reads until there is no more, and never more than the receiver takes."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timewait.balancer.embedded.relay import Relay

CHUNK = 1 << 16  # bytes; above 128 KiB every read would be an mmap() and munmap() of its own (mallopt(3))
TURNS = 16  # reads at one event; then others have their turn
NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
NOTHING = memoryview(b"")
ENDED, SOURCE, SINK = "ended", "source", "sink"  # how a direction is over: by FIN, or by whose failure


class Flow:
    """What comes from `source` goes to `sink`. Events are edge-triggered: what was not read is remembered here."""

    __slots__ = (
        "ended",
        "loop",
        "patience",
        "pending",
        "records",
        "recv",
        "relay",
        "send",
        "stopped",
        "total",
        "turning",
        "upward",
    )

    def __init__(self, relay: Relay, source: Any, sink: Any, patience: float, upward: bool) -> None:
        """`patience`: seconds the sink may take nothing at all; `upward`: from the client to the target."""
        self.relay, self.loop, self.patience, self.upward = relay, relay.loop, patience, upward
        self.recv, self.send = source.recv, sink.send
        # A TLS socket gives and takes a record at a time, so that a short read or write says nothing.
        self.records = type(source) is ssl.SSLSocket or type(sink) is ssl.SSLSocket
        self.pending = NOTHING  # was read and is not taken yet
        self.ended = False  # the source's FIN was read, and everything before it was taken
        self.stopped = False
        self.turning = False  # another turn is to come
        self.total = 0

    def send_first(self, data: bytes) -> None:
        """Goes before everything that is read."""
        if data:
            self.pending = memoryview(data)
            self.flush()

    def pump(self, ending: bool = True) -> None:
        """The source has something. `ending`: its end may be among it, so a short read is not the last one."""
        if self.pending or self.stopped:
            return
        recv, send, moved, over = self.recv, self.send, 0, ""
        for _ in range(TURNS):
            try:
                data = recv(CHUNK)
            except NOT_NOW:
                break
            except OSError:
                over = SOURCE
                break
            if not data:
                over = ENDED
                break
            try:
                sent = send(data)
            except NOT_NOW:
                sent = 0
            except OSError:
                over = SINK
                break
            moved += sent
            if sent < len(data):
                self.pending = memoryview(data)[sent:]
                self.relay.stuck(self)
                if not self.records or not self._push():
                    break
            elif len(data) < CHUNK and not ending and not self.records:
                break
        else:
            self._again()
        if moved:
            self.total += moved
            self.relay.moved(self, moved)
        if over:  # after counting: what ends here is told with all of it
            self._over(over)

    def _again(self) -> None:
        """Goes on after others had their turn; once, however often an event has asked for it meanwhile."""
        if not self.turning:
            self.turning = True
            self.loop.soon(self._turn)

    def _turn(self) -> None:
        self.turning = False
        self.pump()

    def _over(self, how: str) -> None:
        if how == ENDED:
            self.ended = True
            self.relay.ended(self)
        else:
            self.relay.lost(self, source=how == SOURCE)

    def flush(self) -> None:
        """The sink takes more."""
        if self._push() and not self.stopped:
            self.pump()

    def _push(self) -> bool:
        """Sends what is pending; whether that is all."""
        moved, over = 0, ""
        try:
            while self.pending:
                sent = self.send(self.pending)
                moved += sent
                self.pending = self.pending[sent:]
        except NOT_NOW:
            if moved:
                self.relay.stuck(self)
        except OSError:
            over, self.pending = SINK, NOTHING
        if moved:
            self.total += moved
            self.relay.moved(self, moved)
        if over:
            self._over(over)
            return False
        return not self.pending

    def crashed(self) -> None:
        """A bug."""
        self.relay.crashed()

    def stop(self) -> None:
        """The connection is over."""
        self.stopped, self.pending = True, NOTHING
