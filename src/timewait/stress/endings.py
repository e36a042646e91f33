"""How a connection ends, well or not, and what its slot does next.

A connection that fails is the subject of this tool: it is counted by phase, errno and cause, never raised.
"""

from __future__ import annotations

import heapq
import socket

from timewait.plan import Closing
from timewait.run import Cause, Phase
from timewait.stress.closing import RESET, US, abort, shut
from timewait.stress.connection import (
    CLOSING,
    CONNECTING,
    FREE,
    IDLE,
    READING,
    SENDING,
    SHAKING,
    WAITING,
    Connection,
)
from timewait.stress.core import (
    BACKOFF_FIRST,
    BACKOFF_MOST,
    SLOW_SYN,
    Core,
)
from timewait.stress.meters import clock
from timewait.stress.opening import cause_of
from timewait.stress.tls import Channel


class Endings(Core):
    """Closing by plan, failing by cause, giving back."""

    def answered(self, c: Connection, now: float, *, peer_closed: bool, closes: bool) -> None:
        """The present request is done: the next one, rest, or the end of the connection."""
        c.served += 1
        if peer_closed or closes or c.left == 1 or c.state == SENDING:
            self.part(c, now, peer_closed=peer_closed, closes=closes)
        elif self.tcp and not self.plan.tcp_expect:
            if self.closing is Closing.KEEP:
                self.rest(c)  # nothing more to say: the connection is held
            else:
                self.part(c, now, peer_closed=False, closes=False)
        elif self.budget <= 0:
            self.part(c, now, peer_closed=False, closes=False)
        elif self.schedule is None or self.by_connection:
            self.budget -= 1
            c.left -= 1
            self.request(c, now, now)
        else:
            self.rest(c)

    def rest(self, c: Connection) -> None:
        c.state = IDLE
        self.idle[c] = None
        self.busy -= 1

    def idle_ended(self, c: Connection, now: float, *, eof: bool, fin: bool) -> None:
        """The peer ended an idle connection (or broke its silence, which ends it too)."""
        self.idle.pop(c, None)
        self.busy += 1
        if eof:
            self.meters.kept_ended += 1
        if eof and not fin:
            c.state, c.began = CLOSING, now  # close_notify: its FIN is on the way, and shall be the first
        else:
            self.closed(c, "peer" if fin else US)

    def part(self, c: Connection, now: float, *, peer_closed: bool, closes: bool) -> None:
        """Ends a connection after its last answer, the way the plan says."""
        closing = self.closing
        if closes and closing in (Closing.KEEP, Closing.SERVER) and not c.close_asked:
            self.meters.kept_ended += 1
        if closing is Closing.HALF and c.ask.last:
            if peer_closed:
                self.closed(c, US)
            else:
                c.state, c.began = CLOSING, now
        elif peer_closed:
            self.closed(c, "peer")
        elif c.close_asked or (closes and closing in (Closing.KEEP, Closing.SERVER)):
            c.state, c.began = CLOSING, now  # the peer's FIN is on its way
        elif self.tcp and closing is Closing.SERVER:
            c.state, c.began = CLOSING, now
        elif closing is Closing.RESET:
            abort(c.sock)
            self.meters.reset_by_us += 1
            self.closed(c, RESET)
        else:
            if c.channel is not None:
                # With the FIN in one segment: alone, close_notify makes many peers close before our FIN is there.
                self.farewell(c, c.channel, socket.MSG_MORE)
            self.closed(c, shut(c.sock))

    def farewell(self, c: Connection, channel: Channel, flags: int) -> None:
        try:
            c.sock.send(channel.farewell(), flags)
        except OSError:
            pass  # a full buffer or a reset: the FIN or RST that follows says the same

    def peer_closed(self, c: Connection) -> None:
        """The FIN we waited for."""
        self.closed(c, US if self.closing is Closing.HALF and c.ask.last else "peer")

    def closed(self, c: Connection, first: str) -> None:
        """The connection has ended well; `first` is who closed first."""
        self.book_end(first)
        self.drop(c)
        # A tcp:// connection may be over as soon as it stands: through the loop, or start() would call itself.
        self.next(c, 1e-6 if self.tcp else 0.0)

    def book_end(self, first: str) -> None:
        m = self.meters
        if first is US:
            m.closed_us += 1
        elif first is RESET:
            m.closed_reset += 1
        else:
            m.closed_peer += 1

    def drop(self, c: Connection) -> None:
        """Gives back the socket, its port and its place."""
        if self.tuples.active and c.key:
            self.tuples.ended(c.key, clock())
        self.by_fd.pop(c.sock.fileno(), None)
        c.sock.close()
        c.state = FREE
        c.channel = c.answer = c.out = None
        self.held -= 1
        if c.port:
            self.opener.release(c.source, c.port)

    def next(self, c: Connection, wait: float) -> None:
        """The slot is free: its next connection now, later, or when an arrival wants it."""
        if self.schedule is not None:
            self.busy -= 1
            self.free.append(c)
        elif self.budget <= 0:
            self.busy -= 1
        elif wait > 0.0:
            self.busy -= 1
            heapq.heappush(self.retries, (clock() + wait, c.number, c))
        else:
            self.budget -= 1
            self.start(c, clock())

    def failed(self, c: Connection, phase: Phase, code: str, cause: Cause, detail: str = "") -> None:
        self.meters.failed += 1
        self.meters.error(phase, code, cause, detail)

    def not_opened(self, c: Connection, phase: Phase, code: int) -> None:
        """socket() or bind() failed: there is no connection to drop."""
        self.failed(c, phase, *cause_of(code))
        self.back_off(c)

    def not_connected(self, c: Connection, code: int) -> None:
        if clock() - c.began >= SLOW_SYN:
            self.slow_syn(c, clock())
        self.failed(c, Phase.CONNECT, *cause_of(code))
        self.drop(c)
        self.back_off(c)

    def back_off(self, c: Connection) -> None:
        c.backoff = min(BACKOFF_MOST, c.backoff * 2 or BACKOFF_FIRST)
        self.next(c, c.backoff * (0.5 + self.random.random() / 2))

    def broken(self, c: Connection, error: OSError, phase: Phase | None = None) -> None:
        """A system call on an established connection failed."""
        name, cause = cause_of(error.errno or 0)
        if c.state == IDLE:
            self.idle.pop(c, None)
            self.busy += 1
            self.meters.kept_ended += 1
            self.closed(c, RESET)
            return
        if c.state == CLOSING:
            # A reset once the answer is complete harms nobody; it is booked as the end it was.
            self.closed(c, RESET)
            return
        if phase is None:
            phase = {SHAKING: Phase.TLS, SENDING: Phase.SEND, READING: Phase.BODY}.get(c.state, Phase.FIRST_BYTE)
        if cause is Cause.RESET and c.served and c.state == WAITING:
            cause = Cause.STALE
        self.fail(c, phase, name, cause)

    def cut_short(self, c: Connection) -> None:
        """A FIN before the answer was complete."""
        if c.state == SHAKING:
            self.fail(c, Phase.TLS, "", Cause.CLOSED)
        elif c.state == READING:
            self.fail(c, Phase.BODY, "", Cause.CLOSED)
        else:
            self.fail(c, Phase.FIRST_BYTE, "", Cause.STALE if c.served else Cause.CLOSED)

    def fail(self, c: Connection, phase: Phase, code: str, cause: Cause, detail: str = "") -> None:
        """The request in flight has failed, and the connection with it."""
        self.failed(c, phase, code, cause, detail)
        if c.established:
            if cause is Cause.RESET or code == "ECONNRESET":
                self.book_end(RESET)
            elif cause in (Cause.CLOSED, Cause.STALE):
                self.book_end("peer")
            else:
                self.book_end(shut(c.sock))
        self.drop(c)
        # Never straight into the next connection: a target that fails at once would recurse, and spin.
        self.next(c, 1e-6 if c.served or c.state == READING else BACKOFF_FIRST)

    def timed_out(self, c: Connection, now: float) -> None:
        """The deadline of the present state has passed."""
        state = c.state
        if state == CONNECTING:
            self.slow_syn(c, now)
            self.failed(c, Phase.CONNECT, "ETIMEDOUT", Cause.TIMEOUT)
            self.drop(c)
            self.next(c, BACKOFF_FIRST)
        elif state == CLOSING and c.channel is not None and not c.farewell_said:
            # Some servers send their FIN only after our close_notify. Not sooner: to a peer that has closed already
            # it would be data for a closed socket, answered by a RST, and its TIME_WAIT would be gone.
            c.farewell_said, c.began = True, now
            self.farewell(c, c.channel, 0)
        elif state == CLOSING:
            if c.close_asked:
                self.meters.close_ignored += 1
            if self.closing is Closing.HALF:
                self.closed(c, US)
            else:
                self.closed(c, shut(c.sock))
        else:
            phase = {SHAKING: Phase.TLS, SENDING: Phase.SEND, READING: Phase.BODY}.get(state, Phase.FIRST_BYTE)
            self.fail(c, phase, "", Cause.TIMEOUT)
