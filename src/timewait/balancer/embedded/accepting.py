"""From a listening socket to a connection somebody can serve: limits, the PROXY header, the TLS handshake.

All workers wait at the same listening socket, so there is one accept queue whatever becomes of a worker; a second
socket with SO_REUSEPORT would have a queue of its own, and closing it would reset who waits there. EPOLLEXCLUSIVE
(epoll_ctl(2)) wakes one worker, not all.

When descriptors run out (EMFILE, ENFILE) the connection stays in the queue and would wake us for ever: the worker
stops accepting for a moment. It does so a little earlier, because each client needs a connection to a target too.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from socket import SocketType
from typing import Any

from timewait.balancer.config.model import ClientClose, RealIpMode
from timewait.balancer.embedded import closing, proxy_protocol
from timewait.balancer.embedded.loop import ONE_OF_MANY, PEER_CLOSED, READ_AND_WRITE
from timewait.balancer.embedded.sources import EXHAUSTED
from timewait.balancer.embedded.state import ListenerState

Endpoint = tuple[str, int]
Serve = Callable[[ListenerState, Any, Endpoint, Endpoint, bytes, int], None]
"""`serve(listener, sock, client, server, initial, connection_id)`"""

BATCH = 8  # accepted at one event; the rest is told again, perhaps to another worker
QUEUE_MOST = 1 << 20  # no accept queue is longer
PAUSE = 0.1  # seconds without accepting when descriptors have run out
ARRIVALS_MOST = 8192  # in their PROXY header or handshake, in one worker; a TLS one takes 50 KB
PEEK = proxy_protocol.LONGEST_V2 + 16


class Acceptor:
    """One listening socket in one worker."""

    def __init__(self, listener: ListenerState, sock: SocketType, serve: Serve) -> None:
        self.listener, self.sock, self.serve = listener, sock, serve
        self.loop = listener.worker.loop
        self.statistics = listener.statistics
        self._accept: Callable[[], tuple[int, Any]] = sock._accept  # type: ignore[attr-defined]  # accept4(), a number
        self._family, self._unix = sock.family, sock.family == socket.AF_UNIX
        self._here: Endpoint = ("", 0) if self._unix else sock.getsockname()[:2]
        config = listener.config
        self._tells_server = config.real_ip.mode in (RealIpMode.PROXY_V1, RealIpMode.PROXY_V2)
        self._trusted = [ip_network(text, strict=False) for text in config.real_ip.trusted]
        self._slow = config.real_ip.accept_proxy or listener.tls is not None
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._high = limit - max(16, limit // 8)
        self._batch = 1  # connections taken at one event
        self._paused = False

    def start(self) -> None:
        """Accepts from now on."""
        self.loop.watch(self.sock.fileno(), ONE_OF_MANY, self._arrived)

    def stop(self, *, last: bool) -> None:
        """Accepts no more, after those who wait in the queue.

        Their arrival may have woken this worker and none of the others, which would leave them there until the next
        one comes. `last`: nobody else will accept here any more, so that everyone in the queue is taken.
        """
        self.loop.forget(self.sock.fileno())
        self._paused = True  # forgotten already
        for _ in range(QUEUE_MOST if last else BATCH * BATCH):
            if not self._take():
                break
        self.sock.close()

    def _arrived(self, events: int) -> None:
        # One at first, more once more are waiting: an accept() that finds nobody costs as much as one that does.
        for _ in range(self._batch):
            if not self._take():
                self._batch = max(1, self._batch // 2)
                return
        self._batch = min(BATCH, self._batch * 2)

    def _take(self) -> bool:
        """Takes one connection from the queue; whether there may be more."""
        try:
            fd, address = self._accept()
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in EXHAUSTED:
                if not self.listener.worker.make_room():
                    self._pause(error)
                return False
            return error.errno in (errno.ECONNABORTED, errno.EPROTO, errno.EINTR)
        os.set_blocking(fd, False)
        sock = SocketType(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, 0, fileno=fd)
        if self._admit(sock):
            try:
                self._begin(sock, ("", 0) if self._unix else _plain(address))
            except Exception as error:  # a bug at one connection, which must not cost the listening socket
                self.drop(sock, error)
        # Room for two: it needs a connection to a target, too.
        if fd > self._high and not (self.listener.worker.make_room() and self.listener.worker.make_room()):
            self._pause(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
            return False
        return True

    def _admit(self, sock: SocketType) -> bool:
        limits = self.listener.limits
        over = limits.admit(self.loop.now) if limits is not None else ""
        if over:
            setattr(self.statistics, over, getattr(self.statistics, over) + 1)
            closing.reset(sock)
            return False
        self.statistics.accepted += 1
        self.statistics.active += 1
        return True

    def _begin(self, sock: SocketType, client: Endpoint) -> None:
        server = self._here
        if self._tells_server and not self._unix:
            try:
                server = _plain(sock.getsockname())
            except OSError:
                pass
        if self._slow:
            expects_header = self.listener.config.real_ip.accept_proxy and self._trusts(client[0])
            Arrival(self, sock, client, server, expects_header).start()
        else:
            self.serve(self.listener, sock, client, server, b"", self.listener.worker.new_id())

    def drop(self, sock: SocketType, error: Exception) -> None:
        """A bug where a connection was to be served: whoever has taken it ends it, else it is ended here."""
        self.loop.bug(sock.fileno(), error)
        if sock.fileno() >= 0:
            self.loop.closed(sock.fileno())
            closing.count(self.statistics.closes, closing.reset(sock))
            self.listener.release()

    def _trusts(self, client: str) -> bool:
        """Whoever comes by a unix socket is trusted: the file's rights decided who may."""
        return not client or any(ip_address(client) in network for network in self._trusted)

    def _pause(self, error: OSError) -> None:
        if self._paused:
            return
        self._paused = True
        self.listener.worker.tell_exhausted(self.listener.config.name, error.errno, "new connections wait")
        self.loop.forget(self.sock.fileno())
        self.loop.after(PAUSE, self._resume)

    def _resume(self) -> None:
        """Accepts again, once so many have left that there is room for others, and for what they need."""
        if self.sock.fileno() < 0:
            return
        try:
            lowest = os.dup(self.sock.fileno())  # the lowest that is free
            os.close(lowest)
            if lowest <= self._high:
                self.start()
                self._paused = False
        except OSError:
            pass
        if self._paused:
            self.loop.after(PAUSE, self._resume)


class Arrival:
    """A connection that still has to send its PROXY header or to finish its handshake, both within header_timeout."""

    __slots__ = ("acceptor", "client", "deadline", "expects_header", "listener", "loop", "server", "sock")

    def __init__(
        self, acceptor: Acceptor, sock: SocketType, client: Endpoint, server: Endpoint, expects_header: bool
    ) -> None:
        self.acceptor, self.sock, self.client, self.server = acceptor, sock, client, server
        self.listener, self.loop = acceptor.listener, acceptor.loop
        self.expects_header = expects_header
        self.deadline = self.loop.now + self.listener.config.client.header_timeout

    def start(self) -> None:
        try:
            self._start()
        except Exception:
            self.crashed()
            raise

    def _start(self) -> None:
        arrivals = self.listener.worker.arrivals
        arrivals[self] = None
        if len(arrivals) > ARRIVALS_MOST:
            next(iter(arrivals)).expired(self.loop.now)  # the oldest: whoever is slow on purpose goes first
        self.loop.guard(self)
        if self.listener.tls is not None and not self.expects_header and not self._wrap():
            return
        self.loop.watch(self.sock.fileno(), READ_AND_WRITE, self._ready)

    def expired(self, now: float) -> None:
        """header_timeout is over."""
        self._refuse("timeout", timed_out=True)

    def crashed(self) -> None:
        """A bug."""
        self._leave()
        if self.sock.fileno() >= 0:
            self.loop.closed(self.sock.fileno())
            closing.count(self.acceptor.statistics.closes, closing.reset(self.sock))
            self.listener.release()

    def _ready(self, events: int) -> None:
        if self.expects_header and not self._read_header(ended=bool(events & PEER_CLOSED)):
            return
        if self.listener.tls is None or self._shake_hands():
            self._leave()
            self.loop.forget(self.sock.fileno())
            worker = self.listener.worker
            try:
                self.acceptor.serve(self.listener, self.sock, self.client, self.server, b"", worker.new_id())
            except Exception as error:
                self.acceptor.drop(self.sock, error)

    def _read_header(self, ended: bool) -> bool:
        """Takes exactly the header off the stream: what follows may be a handshake.

        `ended`: the client's FIN is here, which looking at what is in front of it (MSG_PEEK) never shows.
        """
        try:
            data = self.sock.recv(PEEK, socket.MSG_PEEK)
            header = proxy_protocol.parse(data) if data else proxy_protocol.Malformed("the client left")
            if isinstance(header, proxy_protocol.Header):
                self.sock.recv(header.size)
        except BlockingIOError:
            return False
        except OSError:
            header = proxy_protocol.Malformed("the client left")
        if isinstance(header, proxy_protocol.Malformed):
            self._refuse("bad-proxy-header")
            return False
        if header is None:
            if ended:
                self._refuse("bad-proxy-header", over=True)
            return False
        self.client, self.server = header.client or self.client, header.server or self.server
        self.expects_header = False
        return self.listener.tls is None or self._wrap()

    def _wrap(self) -> bool:
        """Begins TLS; whether the client is still there.

        wrap_socket() asks getpeername(), and for a connection that was reset it raises, with the descriptor in the
        hands of an object nobody has. So it is asked before; a reset between the two takes the descriptor along.
        """
        assert isinstance(self.listener.tls, ssl.SSLContext)
        fd = self.sock.fileno()
        try:
            self.sock.getpeername()
            self.sock = self.listener.tls.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)  # type: ignore[arg-type]
        except OSError:
            self.loop.closed(fd)
            self.sock.close()
        else:
            return True
        self._leave()
        self.acceptor.statistics.tls_failed += 1
        closing.count(self.acceptor.statistics.closes, closing.PEER_RST)
        self.listener.release()
        return False

    def _shake_hands(self) -> bool:
        assert isinstance(self.sock, ssl.SSLSocket)
        try:
            self.sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except (OSError, ValueError):
            self._refuse("")
            return False
        self.acceptor.statistics.tls_handshakes += 1
        return True

    def _refuse(self, reason: str, timed_out: bool = False, over: bool = False) -> None:
        """`over`: the client sends no more, and nothing it could still hear would tell it more than the end."""
        statistics = self.acceptor.statistics
        self._leave()
        if self.listener.tls is not None and not self.expects_header:
            statistics.tls_failed += 1
        elif reason:
            statistics.refused[reason] = statistics.refused.get(reason, 0) + 1
        policy = self.listener.config.client.close
        plain = ClientClose.FIN if policy is ClientClose.PEER else policy  # it said nothing we could wait for
        closing.end_client(
            self.loop,
            self.sock,
            plain,
            statistics.closes,
            close_wait=0,
            linger=not (timed_out or over),  # for the alert to arrive
            timed_out=timed_out,
            done=self._closed,
        )

    def _closed(self, how: str) -> None:
        self.listener.release()

    def _leave(self) -> None:
        self.listener.worker.arrivals.pop(self, None)
        self.loop.unguard(self)


def _plain(address: Any) -> Endpoint:
    """An IPv4 client of a socket that takes both families is shown as IPv4."""
    host: str = address[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return host.partition("%")[0], address[1]
