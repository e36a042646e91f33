"""A client that says bytes and hears bytes, for tests of an HTTP server's every word."""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import NamedTuple, Self

PATIENCE = 30.0  # seconds


class Answer(NamedTuple):
    """One answer: headers by lower-case name, several of one name joined by a comma; body without framing."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes  # the head, and the body as it came
    trailers: bytes = b""


class Conversation:
    """One connection."""

    def __init__(self, address: tuple[str, int], *, receive_buffer: int = 0) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(address)
        self.held = bytearray()

    def say(self, data: bytes) -> Self:
        """Sends."""
        self.sock.sendall(data)
        return self

    def ask(self, data: bytes, method: str = "GET") -> Answer:
        """Sends, and reads one answer."""
        return self.say(data).answer(method)

    def answer(self, method: str = "GET") -> Answer:
        """Reads one answer; its body as RFC 9112, 6.3 says."""
        head = self.until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        status = int(first.split(" ")[1])
        headers: dict[str, str] = {}
        for name, _, value in (line.partition(": ") for line in lines):
            headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
        if method == "HEAD" or status < 200 or status in (204, 304):
            return Answer(status, headers, b"", head)
        if headers.get("transfer-encoding") == "chunked":
            return self._chunked(status, headers, head)
        if "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
            return Answer(status, headers, body, head + body)
        body = self.rest()
        return Answer(status, headers, body, head + body)

    def _chunked(self, status: int, headers: dict[str, str], head: bytes) -> Answer:
        raw, body = bytearray(head), bytearray()
        while True:
            line = self.until(b"\r\n")
            size = int(line, 16)
            if size == 0:
                trailers = b""
                while (field := self.until(b"\r\n")) != b"\r\n":
                    trailers += field
                raw += line + trailers + b"\r\n"
                return Answer(status, headers, bytes(body), bytes(raw), trailers)
            chunk = self.exactly(size + 2)
            body += chunk[:-2]
            raw += line + chunk

    def until(self, end: bytes) -> bytes:
        """Reads up to and with `end`."""
        while end not in self.held:
            self._more()
        return self._cut(self.held.index(end) + len(end))

    def exactly(self, size: int) -> bytes:
        """Reads so many bytes."""
        while len(self.held) < size:
            self._more()
        return self._cut(size)

    def _cut(self, size: int) -> bytes:
        found = bytes(self.held[:size])
        del self.held[:size]
        return found

    def rest(self) -> bytes:
        """Reads until the other side ends."""
        try:
            while True:
                self._more()
        except EOFError:
            return self._cut(len(self.held))

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {bytes(self.held)!r}")
        self.held += data

    def ends(self) -> bool:
        """Whether nothing more comes but the end (FIN)."""
        return self.rest() == b""

    def is_reset(self) -> bool:
        """Whether the end, after whatever comes before it, is a reset."""
        try:
            self.rest()
        except ConnectionResetError:
            return True
        return False

    def is_silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for so long."""
        self.sock.settimeout(seconds)
        try:
            self._more()
        except TimeoutError:
            return True
        except EOFError:
            pass
        finally:
            self.sock.settimeout(PATIENCE)
        return False

    def finish(self) -> Self:
        """Sends FIN, and goes on listening."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def reset(self) -> None:
        """Ends with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.sock.close()
