"""How the balancer ends a connection: who speaks first decides where TIME_WAIT stands.

What the kernel does (net/ipv4/tcp.c, tcp_input.c), and what follows for us:

- close() of a socket with unread data sends RST, not FIN (`__tcp_close`, RFC 2525 section 2.17), and an RST may take
  away an answer that the client has not read yet. So where more may come, a FIN is sent by shutdown() and what comes
  is read and dropped until the other side has ended too (RFC 9112 section 9.6), for a bounded time.
- SO_LINGER with a time of 0 makes close() send RST, in FIN_WAIT2 too (`tcp_need_reset`): that is how `fin-rst` ends a
  connection without TIME_WAIT. It is done when SIOCOUTQ says that everything, our FIN included, was acknowledged;
  what was not acknowledged in time is left to a plain close(), because a reset would take it away.
- The other side's FIN turns a socket in FIN_WAIT2 into a TIME_WAIT at once (`tcp_time_wait`), whatever we do then.
- TCP_INFO of one byte is the state, for a third of a microsecond: CLOSE_WAIT means that the other side's FIN was
  here before ours, also when nobody has read it yet.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
from collections.abc import Callable
from functools import partial
from socket import SocketType

from timewait.balancer.config.model import ClientClose, UpstreamClose
from timewait.balancer.embedded.loop import READ_AND_WRITE, Loop, Timer
from timewait.balancer.statistics import Closes

RESET_NOW = struct.pack("ii", 1, 0)  # struct linger{l_onoff, l_linger}, socket(7)
LINGER_IDLE, LINGER = 5.0, 30.0  # seconds without and in all, as nginx's lingering_timeout and lingering_time
TARGET_WAIT = 1.0  # seconds a target gets to close first, where upstream.close is "peer"
DELIVERY, LOOK_AGAIN = 2.0, 0.02  # seconds a reset waits for what was sent before it, and between two looks
DROP_AT_ONCE = 1 << 16
DROPS = 16  # reads at one event, so that one sender cannot keep the loop

# include/net/tcp_states.h
ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE, CLOSE_WAIT, LAST_ACK, CLOSING = 1, 4, 5, 7, 8, 9, 11

BALANCER_FIN, BALANCER_RST, PEER_FIN, PEER_RST = "balancer_fin", "balancer_rst", "peer_fin", "peer_rst"
"""Names of the counters in `Closes`."""

Done = Callable[[str], object]


def state(sock: SocketType) -> int:
    """The kernel's state of a TCP socket; 0 for a unix socket, which has none."""
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except OSError:
        return 0


def first(sock: SocketType) -> str:
    """Who would be the first to close, were we to close now; for a socket on which nothing was shut down yet."""
    known = state(sock)
    if not known and _left(sock):
        return PEER_FIN
    return _FIRST.get(known, BALANCER_FIN)


def _left(sock: SocketType) -> bool:
    """Whether the other end of a unix socket has closed or shut down its side."""
    ask = select.poll()
    try:
        ask.register(sock.fileno(), select.POLLRDHUP)
        return bool(ask.poll(0))
    except (OSError, ValueError):
        return True


_FIRST = {CLOSE: PEER_RST, CLOSE_WAIT: PEER_FIN, LAST_ACK: PEER_FIN}


def shut(sock: SocketType) -> str:
    """Sends our FIN, behind a TLS close_notify if it is a TLS socket; who closed first."""
    how = first(sock)
    if type(sock) is ssl.SSLSocket:
        say_goodbye(sock)
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return PEER_RST  # ENOTCONN: a reset has been here
    return how


def say_goodbye(sock: ssl.SSLSocket) -> None:
    """Sends close_notify (RFC 8446 section 6.1), without which the client cannot tell an end from a cut."""
    try:
        sock.unwrap()
    except (OSError, ValueError):
        pass  # it waits for the client's own, which we do not; or the connection is gone


def unacknowledged(sock: SocketType) -> int:
    """Bytes sent but not acknowledged, a FIN counts as one (SIOCOUTQ, tcp(7))."""
    try:
        size: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    except OSError:
        return 0
    return size


def reset(sock: SocketType) -> str:
    """Ends it with RST: no TIME_WAIT on either side, and what was not delivered is lost."""
    how, unix = first(sock), sock.family == socket.AF_UNIX
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOW)
    except OSError:
        pass
    sock.close()
    gone = how == PEER_RST or (how == PEER_FIN and unix)  # which knows no reset: who left was first
    return how if gone else BALANCER_RST


def close(loop: Loop, sock: SocketType) -> None:
    """Closes a socket that the loop watches and on which nothing is left to be read, in TLS with its close_notify."""
    if type(sock) is ssl.SSLSocket:
        say_goodbye(sock)
    loop.closed(sock.fileno())
    try:
        sock.close()
    except OSError:
        pass  # ECONNRESET may be told here; the descriptor is closed all the same


def reset_once_delivered(
    loop: Loop, sock: SocketType, closes: Closes, *, done: Done | None = None, seconds: float = DELIVERY
) -> None:
    """Passes a reset on: a reset takes away what was sent and not acknowledged, so it waits for that a little."""
    if unacknowledged(sock) and seconds > 0:
        loop.hand_over(sock.fileno(), _ignore)
        again = partial(reset_once_delivered, loop, sock, closes, done=done, seconds=seconds - LOOK_AGAIN)
        loop.after(LOOK_AGAIN, again)
        return
    loop.closed(sock.fileno())
    how = reset(sock)
    count(closes, how)
    if done is not None:
        done(how)


def _ignore(events: int) -> None:
    pass


def count(closes: Closes, how: str, timed_out: bool = False) -> None:
    """Adds an end to the statistics."""
    setattr(closes, how, getattr(closes, how) + 1)
    if timed_out:
        closes.timeout += 1


def end_client(
    loop: Loop,
    sock: SocketType,
    policy: ClientClose,
    closes: Closes,
    *,
    close_wait: float,
    linger: bool = False,
    timed_out: bool = False,
    done: Done | None = None,
    how: str = "",
) -> None:
    """Ends a client's connection as configured. It takes over the socket, which the loop watches; counts in `closes`
    how it went, and calls `done` with that once the socket is closed, often before it returns.

    `linger`: the client may still be sending. `how`: what shut() said, where our FIN has gone out already. Where the
    end of an answer is told by the end of the connection (RFC 9112 section 6.3 rule 8), the policy must not be PEER:
    the client would wait for it.
    """
    ending = _Ending(loop, sock, closes, timed_out, done)
    if how:
        ending.finish(how)
    elif policy is ClientClose.FIN:
        if linger:
            ending.fin_and_linger()
        else:
            ending.fin()
    elif policy is ClientClose.FIN_RST:
        ending.fin_then_reset(max(close_wait, 1.0))
    else:
        if type(sock) is ssl.SSLSocket:
            say_goodbye(sock)
        ending.wait_for_peer(close_wait, ending.fin_and_linger)


def end_target(
    loop: Loop,
    sock: SocketType,
    policy: UpstreamClose,
    closes: Closes,
    *,
    timed_out: bool = False,
    done: Done | None = None,
    how: str = "",
) -> None:
    """Ends a connection to a target as configured, after a complete answer or because of a failure; as end_client.

    A target whose FIN is here already keeps the TIME_WAIT itself, so it gets our FIN, under RST too.
    """
    ending = _Ending(loop, sock, closes, timed_out, done)
    sent = bool(how)
    how = how or first(sock)
    if policy is UpstreamClose.RST and how == BALANCER_FIN:
        ending.reset()
    elif not sent and policy is UpstreamClose.PEER and how == BALANCER_FIN:
        ending.wait_for_peer(TARGET_WAIT, ending.reset)
    else:
        ending.finish(how)


class _Ending:
    """A connection that is being ended: alive until the socket is closed."""

    __slots__ = ("closes", "done", "how", "limit", "loop", "moved", "patience", "sock", "timed_out", "timer")

    def __init__(self, loop: Loop, sock: SocketType, closes: Closes, timed_out: bool, done: Done | None) -> None:
        self.loop, self.sock, self.closes, self.timed_out, self.done = loop, sock, closes, timed_out, done
        self.how = BALANCER_FIN
        self.timer: Timer | None = None
        self.moved = False  # something was read since the timer was set
        self.patience = 0.0  # seconds left beyond the timer that runs, for one who goes on sending

    def finish(self, how: str) -> None:
        """Closes the socket, with a reset where it was made to."""
        if self.timer is not None:
            self.loop.cancel(self.timer)
            self.timer = None
        self.loop.closed(self.sock.fileno())
        try:
            self.sock.close()
        except OSError:
            pass
        count(self.closes, how, self.timed_out)
        if self.done is not None:
            self.done(how)

    def crashed(self) -> None:
        """A bug."""
        if self.sock.fileno() >= 0:
            self.finish(self.how)

    def fin(self) -> None:
        """Nothing is expected any more: one close()."""
        how = first(self.sock)
        if type(self.sock) is ssl.SSLSocket:
            say_goodbye(self.sock)
        self.finish(how)

    def reset(self) -> None:
        try:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOW)
        except OSError:
            pass
        self.finish(BALANCER_RST)

    def fin_and_linger(self) -> None:
        """Our FIN, then reading until theirs."""
        self.how = shut(self.sock)
        if self.how != BALANCER_FIN:
            self.finish(self.how)
            return
        self.patience = LINGER - LINGER_IDLE
        self._wait(self._drop, LINGER_IDLE, lambda: self.finish(BALANCER_FIN))

    def wait_for_peer(self, seconds: float, otherwise: Callable[[], None]) -> None:
        """Reading until their FIN; what to do if it does not come."""
        self._wait(self._drop_and_follow, seconds, otherwise)

    def fin_then_reset(self, seconds: float) -> None:
        """Our FIN, then a reset as soon as everything was acknowledged; without, a close() after so many seconds.

        The kernel wakes whoever waits when our FIN is acknowledged (tcp_rcv_state_process(), "wake up lingering
        close"), and after a shutdown a socket is always writable: an edge-triggered event without polling.
        """
        self.how = shut(self.sock)
        if self.how != BALANCER_FIN:
            self.finish(self.how)
        elif not self._reset_if_acknowledged():
            self._wait(self._drop_and_look, seconds, lambda: self.finish(BALANCER_FIN))

    def _reset_if_acknowledged(self) -> bool:
        if unacknowledged(self.sock):
            return False
        if state(self.sock) == CLOSE:  # a TIME_WAIT, or reset, already
            self.finish(BALANCER_FIN)
        else:
            self.reset()
        return True

    def _wait(self, handler: Callable[[int], None], seconds: float, otherwise: Callable[[], None]) -> None:
        if self.timer is not None:
            self.loop.cancel(self.timer)
        self.limit, self.moved = otherwise, False
        self.timer = self.loop.after(seconds, self._too_late)
        self.loop.hand_over(self.sock.fileno(), handler)
        self.loop.change(self.sock.fileno(), READ_AND_WRITE)  # tells again what holds already

    def _too_late(self) -> None:
        self.timer = None
        if self.moved and self.patience > 0:
            self.patience -= LINGER_IDLE
            self.moved = False
            self.timer = self.loop.after(LINGER_IDLE, self._too_late)
        else:
            self.limit()

    def _drop(self, events: int) -> None:
        if self._read() is not None:
            self.finish(BALANCER_FIN)

    def _drop_and_follow(self, events: int) -> None:
        how = self._read()
        if how is not None:
            self.finish(how)

    def _drop_and_look(self, events: int) -> None:
        if self._read() is not None:
            self.finish(BALANCER_FIN)
        else:
            self._reset_if_acknowledged()

    def _read(self) -> str | None:
        """Drops what came; PEER_FIN or PEER_RST at the end of it."""
        try:
            for _ in range(DROPS):
                # The socket's own recv, also of a TLS socket: what comes is dropped, not understood.
                if not SocketType.recv(self.sock, DROP_AT_ONCE):
                    return PEER_FIN
                self.moved = True
        except BlockingIOError:
            return None
        except OSError:
            return PEER_RST
        self.loop.change(self.sock.fileno(), READ_AND_WRITE)  # there is more: told again at the next turn
        return None
