"""A server on a free loopback port that does to every connection what one small function says.

    with Server(behaviours.truncates) as server:
        run(server.url)
    assert server.accepted == 1

Each connection has its own thread, so a behaviour is straight-line code: read a request, send something, wait, end.
What the behaviours do is in `behaviours.py`.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from kit.ports import bind_fresh

RST = struct.pack("ii", 1, 0)  # SO_LINGER{1, 0}: close() sends RST


class EndedError(Exception):
    """The other end is gone, or the server is being stopped: the connection's thread ends quietly."""


@dataclass(frozen=True)
class Request:
    """One HTTP request as it came in; names of headers in lower case."""

    method: str
    target: str
    version: str
    headers: dict[str, str]
    body: bytes

    @property
    def asks_close(self) -> bool:
        return "close" in self.headers.get("connection", "").lower() or self.version == "HTTP/1.0"


class Peer:
    """One accepted connection, as a behaviour sees it."""

    def __init__(self, sock: socket.socket, server: Server, number: int) -> None:
        self.sock = sock
        self.server = server
        self.number = number  # 0, 1, 2 ... in the order of accept()
        self.answered = 0  # requests read so far
        self._pending = b""

    def request(self) -> Request:
        """Reads one request, body included. Raises EndedError at the end of the stream."""
        while b"\r\n\r\n" not in self._pending:
            self._pending += self.receive()
        head, _, rest = self._pending.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, version = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(rest) < length:
            rest += self.receive()
        self._pending = rest[length:]
        self.answered += 1
        self.server.count_request()
        return Request(method, target, version, headers, rest[:length])

    def receive(self) -> bytes:
        """Whatever comes next. Raises EndedError at FIN or RST."""
        try:
            data = self.sock.recv(65536)
        except OSError as error:
            raise EndedError from error
        if not data:
            raise EndedError
        return data

    def send(self, data: bytes) -> None:
        try:
            self.sock.sendall(data)
        except OSError as error:
            raise EndedError from error

    def reset(self) -> None:
        """Ends the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
        self.sock.close()
        raise EndedError

    def wait(self, seconds: float) -> None:
        """Sleeps, unless the server is stopped meanwhile."""
        if self.server.stopping.wait(seconds):
            raise EndedError

    def stall(self) -> None:
        """Does nothing more for as long as the server runs."""
        self.server.stopping.wait()
        raise EndedError

    def read_to_end(self) -> None:
        """Waits until the other end has closed."""
        while True:
            self.receive()


Behaviour = Callable[[Peer], None]


class Server:
    """Accepts on a free port and runs `behaviour` on each connection; closes it when the behaviour returns.

    `behaviour` None: never accepts, so with `backlog` 1 the queue takes two connections and drops every other SYN.
    `listener`: a socket that listens already, for example inside a namespace (`Namespace.listen`).
    """

    def __init__(
        self,
        behaviour: Behaviour | None,
        *,
        host: str = "127.0.0.1",
        backlog: int = 1024,
        tls: ssl.SSLContext | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.stopping = threading.Event()
        self.accepted = 0
        self.requests = 0
        self.surprises: list[BaseException] = []  # errors of a behaviour that are not EndedError: bugs of the kit
        self._behaviour = behaviour
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = listener or listen(host, backlog=backlog)
        self.host, self.port = self._listener.getsockname()[:2]

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.authority}/"

    @property
    def tcp_url(self) -> str:
        return f"tcp://{self.authority}"

    def count_request(self) -> None:
        with self._lock:
            self.requests += 1

    def quiet(self, within: float) -> bool:
        """Waits until half a second brings no request, at most `within` seconds; whether that came."""
        limit = time.monotonic() + within
        while time.monotonic() < limit:
            before = self.requests
            time.sleep(0.5)
            if self.requests == before:
                return True
        return False

    def stop_listening(self) -> None:
        """From here on connections to the port are refused. For a server without a behaviour."""
        self._listener.close()

    def __enter__(self) -> Self:
        if self._behaviour is not None:
            self._listener.settimeout(0.05)
            self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stopping.set()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a server thread did not end"
        self._listener.close()
        if kind is None and self.surprises:
            raise self.surprises[0]

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except (TimeoutError, ConnectionAbortedError):
                continue
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            self._spawn(self._serve, sock, self.accepted - 1)

    def _serve(self, sock: socket.socket, number: int) -> None:
        with self._registered(sock):
            try:
                if self._tls:
                    sock = self._tls.wrap_socket(sock, server_side=True)
                assert self._behaviour is not None
                self._behaviour(Peer(sock, self, number))
                if isinstance(sock, ssl.SSLSocket):
                    sock.unwrap()
            except (EndedError, OSError):
                pass
            except BaseException as error:
                self.surprises.append(error)
            finally:
                sock.close()

    @contextlib.contextmanager
    def _registered(self, sock: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(sock)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(sock)


def listen(host: str = "127.0.0.1", port: int = 0, *, backlog: int = 1024) -> socket.socket:
    """A listening socket; port 0 takes one that no test has used yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if port:
        sock.bind((host, port))
    else:
        bind_fresh(sock, host)
    sock.listen(backlog)
    return sock
