"""Servers on loopback that show which of them answered, and what they were sent."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self


class Web:
    """Answers `NAME\\n` and the head that came; keeps connections. `heads` has every head, with its client's port."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.heads: list[str] = []
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        data = b""
        with connection:
            try:
                while True:
                    while b"\r\n\r\n" not in data:
                        more = connection.recv(65536)
                        if not more:
                            return
                        data += more
                    head, _, data = data.partition(b"\r\n\r\n")
                    self.heads.append(head.decode("latin-1"))
                    body = self.name.encode() + b"\n" + head
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            except OSError:
                pass


class Asking:
    """A client with one connection, that reads answers by their Content-Length."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=10)
        self._data = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def ask(self, path: str = "/", *lines: str, method: str = "GET", host: str = "test") -> tuple[int, str, str]:
        """Status, head and body of the answer. Raises EOFError where the connection ends before it."""
        fields = "".join(f"{line}\r\n" for line in lines)
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode("latin-1"))
        while b"\r\n\r\n" not in self._data:
            self._more()
        head, _, self._data = self._data.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        length = next((int(x.split(":")[1]) for x in text.lower().split("\r\n") if x.startswith("content-length")), 0)
        while len(self._data) < length:
            self._more()
        body, self._data = self._data[:length], self._data[length:]
        return int(text.split()[1]), text, body.decode("latin-1")

    def closed(self) -> bool:
        """Whether the other end closes now."""
        return self.socket.recv(1) == b""

    def _more(self) -> None:
        more = self.socket.recv(65536)
        if not more:
            raise EOFError
        self._data += more
