"""The loop of the embedded HTTP server: one raw epoll loop, one process, honest about who closes.

It closes first when the request asks for it (`Connection: close`, HTTP/1.0 without keep-alive) or is no HTTP;
otherwise it waits for the client's FIN, however long that takes. A request that is byte for byte one seen before is
answered without parsing it; anything else goes through httptools (llhttp).
"""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import time

import httptools

# Slots of the table the loop shares with `Server.counts`.
ACCEPTED, REQUESTS, CLOSED_US, CLOSED_PEER, RESETS, BAD = range(6)
SLOTS = 6

_READ = 16_384
_MOST_HEADER_BYTES = 65_536  # a header that never ends must not take the memory of the machine
_MOST_SEEN = 256  # requests remembered byte for byte
_LONGEST_SEEN = 4_096  # bytes of such a request
_AT_ONCE = 128  # connections accepted before the others get their turn
_PAUSE = 0.1  # seconds without accepting after EMFILE: the listener stays readable and would spin the loop
_LINGER = 2.0  # seconds given to a client to read our last answer; close() with unread data would send RST instead

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT


class Answers:
    """The four shapes of the one answer there is: with or without body, kept or closed."""

    def __init__(self, body: bytes, *, sized: bool = True) -> None:
        first = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
        head = first + b"Content-Length: %d\r\n" % len(body)
        self._kept = head + b"\r\n"
        self._kept_10 = head + b"Connection: keep-alive\r\n\r\n"  # HTTP/1.0 has to be told (RFC 9112, 9.3)
        self._closed = (head if sized else first) + b"Connection: close\r\n\r\n"
        self._body = body

    def to(self, method: bytes, version: str, *, keep: bool) -> bytes:
        head = self._closed if not keep else self._kept_10 if version == "1.0" else self._kept
        return head if method == b"HEAD" else head + self._body


class Conversation:
    """Parses what one client sends and collects what to answer; knows no socket. Kept only for unusual clients."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._parser = httptools.HttpRequestParser(self)
        self._expects = False
        self._header_bytes = 0  # since the last header was complete
        self.mid_request = False
        self.keep = True  # False: we close once everything in `out` is sent
        self.bad = False
        self.requests = 0
        self.out = b""  # not yet sent
        self.lingering_until = 0.0  # time.monotonic(); 0: not lingering

    def feed(self, data: bytes) -> None:
        """Takes bytes from the client; after `keep` has become False all further ones are ignored."""
        if not self.keep:
            return
        self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.keep = False  # we know no other protocol; what follows would not be HTTP
        except httptools.HttpParserError:
            if self.keep:
                self._refuse()
        if self._header_bytes > _MOST_HEADER_BYTES:
            self._refuse()

    def on_message_begin(self) -> None:
        self.mid_request, self._expects = True, False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self._expects = True

    def on_headers_complete(self) -> None:
        self._header_bytes = 0
        if self._expects:
            self.out += _CONTINUE

    def on_body(self, body: bytes) -> None:
        self._header_bytes = 0

    def on_message_complete(self) -> None:
        self.mid_request, self._header_bytes = False, 0
        method = self._parser.get_method()
        if method == b"CONNECT":
            self._refuse()
            return
        self.keep = self._parser.should_keep_alive() and not self._parser.should_upgrade()
        self.out += self._answers.to(method, self._parser.get_http_version(), keep=self.keep)
        self.requests += 1

    def _refuse(self) -> None:
        self.out += _BAD_REQUEST
        self.keep, self.bad = False, True


class Loop:
    """Serves `listener` until the process is killed. `counts` holds SLOTS numbers and is renewed every turn."""

    def __init__(self, listener: socket.socket, answers: Answers, counts: memoryview) -> None:
        listener.setblocking(False)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._listener = listener
        self._answers = answers
        self._seen: dict[bytes, tuple[bytes, bool]] = {}  # request -> answer, whether the connection is kept
        self._unusual: dict[int, Conversation] = {}  # by file descriptor: half a request, half an answer, lingering
        self._epoll = select.epoll()
        self._shared = counts
        self._counts = [0] * SLOTS
        self._accept_again = 0.0  # time.monotonic(); 0: the listener is being watched

    def run(self) -> None:
        self._epoll.register(self._listener.fileno(), _IN)
        listening = self._listener.fileno()
        while True:
            urgent = self._accept_again or self._unusual
            for fd, event in self._epoll.poll(_PAUSE if urgent else None, 1024):
                if fd == listening:
                    self._accept()
                elif event & _OUT:
                    self._flush(fd, self._unusual[fd])
                else:
                    self._read(fd)
            if urgent:
                self._look_at_clock(time.monotonic())
            for slot, count in enumerate(self._counts):
                self._shared[slot] = count

    def _accept(self) -> None:
        # socket.accept() less the making of a socket object, which costs as much as the system call
        accept = self._listener._accept  # type: ignore[attr-defined]
        for _ in range(_AT_ONCE):
            try:
                fd, _address = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    self._epoll.unregister(self._listener.fileno())
                    self._accept_again = time.monotonic() + _PAUSE
                    return
                continue  # ECONNABORTED and errors of the dead connection itself (accept(2))
            self._counts[ACCEPTED] += 1
            os.set_blocking(fd, False)
            self._epoll.register(fd, _IN)
            self._read(fd)  # the request is often there already

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _READ)
        except BlockingIOError:
            return
        except OSError:
            self._end(fd, RESETS)
            return
        talk = self._unusual.get(fd)
        if not data:
            self._end(fd, CLOSED_PEER if talk is None or not talk.lingering_until else None)
        elif talk is not None:
            if not talk.lingering_until:
                self._converse(fd, talk, data)
        elif (known := self._seen.get(data)) is None:
            self._converse(fd, Conversation(self._answers), data)
        else:
            answer, keep = known
            self._counts[REQUESTS] += 1
            self._send(fd, answer, keep)

    def _send(self, fd: int, answer: bytes, keep: bool) -> None:
        """The common case: the whole answer fits the socket's buffer."""
        try:
            sent = os.write(fd, answer)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._end(fd, RESETS)
            return
        if sent < len(answer):
            talk = Conversation(self._answers)
            talk.out, talk.keep = answer[sent:], keep
            self._wait_to_send(fd, talk)
        elif not keep:
            self._close(fd, None)

    def _converse(self, fd: int, talk: Conversation, data: bytes) -> None:
        fresh, before = fd not in self._unusual, talk.requests
        talk.feed(data)
        self._counts[REQUESTS] += talk.requests - before
        whole = talk.requests == 1 and not (talk.bad or talk.mid_request)
        if fresh and whole and len(data) < _LONGEST_SEEN and len(self._seen) < _MOST_SEEN:
            self._seen[data] = (talk.out, talk.keep)
        self._flush(fd, talk)

    def _flush(self, fd: int, talk: Conversation) -> None:
        """Sends what there is to send, then waits for what this conversation needs next."""
        try:
            while talk.out:
                talk.out = talk.out[os.write(fd, talk.out) :]
        except BlockingIOError:
            self._wait_to_send(fd, talk)
            return
        except OSError:
            self._end(fd, RESETS)
            return
        self._epoll.modify(fd, _IN)
        if talk.keep:
            if talk.mid_request:
                self._unusual[fd] = talk
            else:
                self._unusual.pop(fd, None)
        else:
            self._counts[BAD] += talk.bad
            self._close(fd, talk)

    def _wait_to_send(self, fd: int, talk: Conversation) -> None:
        self._unusual[fd] = talk
        self._epoll.modify(fd, _OUT)  # and read no more until it is sent: a client that only asks is held back

    def _close(self, fd: int, talk: Conversation | None) -> None:
        """Ends a connection that is answered, unless the client was faster or has sent more."""
        try:
            more = os.read(fd, _READ)
        except BlockingIOError:
            more = None
        except OSError:
            self._end(fd, RESETS)
            return
        if more == b"":
            self._end(fd, CLOSED_PEER)
        elif more or (talk and talk.bad):
            self._linger(fd, talk or Conversation(self._answers))
        else:
            self._end(fd, CLOSED_US)

    def _linger(self, fd: int, talk: Conversation) -> None:
        """Our FIN, while the client may still be sending: close() would answer that with RST and lose our answer."""
        connection = socket.socket(fileno=fd)
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # ENOTCONN: it was reset meanwhile
            self._end(connection.detach(), RESETS)
            return
        connection.detach()
        self._counts[CLOSED_US] += 1
        talk.lingering_until = time.monotonic() + _LINGER
        self._unusual[fd] = talk

    def _end(self, fd: int, slot: int | None) -> None:
        if slot is not None:
            self._counts[slot] += 1
        self._unusual.pop(fd, None)
        os.close(fd)

    def _look_at_clock(self, now: float) -> None:
        if self._accept_again and now >= self._accept_again:
            self._accept_again = 0.0
            self._epoll.register(self._listener.fileno(), _IN)
        over = [fd for fd, talk in self._unusual.items() if talk.lingering_until and now >= talk.lingering_until]
        for fd in over:
            self._end(fd, None)
