"""An HTTP/1.1 server to aim at, in a process of its own, in the namespace of whoever starts it."""

from __future__ import annotations

import mmap
import socket

import msgspec

from timewait.lab import children, serving

BODY = b"hello\n"
_BACKLOG = 4096  # what net.core.somaxconn has been since Linux 5.4; the kernel lowers it where that is less


class Counts(msgspec.Struct, frozen=True):
    """What a server saw, since it began."""

    accepted: int
    requests: int  # answered with 200
    closed_us: int  # connections we sent the first FIN on
    closed_peer: int  # ... the client did
    resets: int
    bad: int  # answered with 400


class Server:
    """Listens at once, answers every request with 200 and `body`, and ends with this process or `stop`.

    Not `sized`: an answer after which it closes carries no Content-Length, so whoever asked has to wait for its FIN
    and cannot close before it. A balancer that knows the length may close as soon as it has the answer.

    It closes first when asked to (`Connection: close`, HTTP/1.0) and otherwise waits for the client's FIN. IPv4 and
    IPv6; port 0 takes a free one. Raises OSError when it cannot listen.
    """

    def __init__(self, address: str = "127.0.0.1", port: int = 0, body: bytes = BODY, *, sized: bool = True) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        answers = serving.Answers(body, sized=sized)
        shared = mmap.mmap(-1, 8 * serving.SLOTS)
        self._counts = memoryview(shared).cast("Q")
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # "::" leaves IPv4 to a server of its own, whose sockets then count as IPv4
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
            listener.bind((address, port))
            listener.listen(_BACKLOG)
            self.address, self.port = address, int(listener.getsockname()[1])
            self._child = children.start(
                lambda: serving.Loop(listener, answers, self._counts).run(), keep=[listener.fileno()]
            )

    @property
    def url(self) -> str:
        return f"http://{f'[{self.address}]' if ':' in self.address else self.address}:{self.port}/"

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def status(self) -> int | None:
        """Exit status of its process (-N: killed by signal N); None while it runs."""
        return self._child.wait(0)

    def counts(self) -> Counts:
        """As of the last turn of its loop; still there after `stop`."""
        return Counts(*self._counts)

    def stop(self) -> None:
        """Ends it; connections that are still open are closed by the kernel."""
        self._child.stop()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
