"""The access log: a line of JSON for each request, or for each connection at layer 4.

Workers append whole lines to one file (O_APPEND), gathered in memory and written a few times a second. A disk that is
full, or a reader of a pipe that has stopped reading, must not stop the balancer: what cannot be written waits, up to
a bound, and beyond it lines are lost and counted.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from timewait.balancer.engine import BalancerError

FLUSH = 0.25  # seconds a line may wait in memory
GATHER = 1 << 16  # bytes at which it is not waited for
WAITING_MOST = 1 << 20  # bytes kept while nothing can be written


class Record(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line. Fields that say nothing (the default) are left out."""

    time: float  # of the end, seconds since 1970
    listener: str
    client: str  # address and port, as believed (PROXY header, X-Forwarded-For of a trusted proxy)
    connection: int  # of the client: all requests with this number came on one connection
    request: int = 0  # which one on it, from 1; 0 at layer 4
    method: str = ""
    host: str = ""
    path: str = ""
    status: int = 0
    made_by: str = ""  # "balancer" or "target"
    reason: str = ""  # why the balancer made it, or refused the request
    target: str = ""
    retries: int = 0
    reused: bool = False  # the connection to the target had carried a request before
    bytes_in: int = 0  # of bodies or streams, from the client
    bytes_out: int = 0
    seconds: float = 0.0  # from the first byte of the request, or the connection's start, to the end
    connect_seconds: float = 0.0  # to connect to the target; 0 for a kept connection
    answer_seconds: float = 0.0  # until the target's first byte
    closed_by: str = ""  # of the client's connection, where it ended with this: a name of statistics.Closes


def open_log(path: str) -> int:
    """A descriptor to append to, for the workers to inherit; "-" is standard output. Raises BalancerError."""
    try:
        if path == "-":
            return _standard_output()
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise BalancerError(f"access_log {path!r} cannot be written: {error.strerror}") from None


def is_open_at(descriptor: int, path: str) -> bool:
    """Whether a log is still the file of that name: who rotates logs gives it another one."""
    if path == "-":
        return True
    ours = os.fstat(descriptor)
    try:
        there = Path(path).stat()
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


def endpoint(host: str, port: int) -> str:
    """A client as a record has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _standard_output() -> int:
    """Opened anew where that is possible: not to block must not become the state of everybody's standard output."""
    if not stat.S_ISREG(os.fstat(1).st_mode):
        try:
            return os.open("/proc/self/fd/1", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:
            pass  # a socket
    return os.dup(1)


class AccessLog:
    """One worker's end of the log."""

    def __init__(self, descriptor: int, say: Callable[[str], None] = lambda line: None) -> None:
        """`say` is told when it cannot be written, and when it can again."""
        self.lost = 0  # lines
        self._say, self._stuck = say, False
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._size = 0
        self._rest = b""  # of a line that was written in part
        self._encode = msgspec.json.Encoder().encode
        # write(2) to a pipe mixes with other writers' beyond PIPE_BUF bytes; to a file with O_APPEND it does not.
        self._at_once = GATHER if stat.S_ISREG(os.fstat(descriptor).st_mode) else select.PIPE_BUF

    def write(self, record: Record) -> None:
        """Takes a line; it is written soon."""
        line = self._encode(record) + b"\n"
        if self._size + len(line) > WAITING_MOST:
            self.lost += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._size >= GATHER:
            self.flush()

    @property
    def waiting(self) -> bool:
        """Whether there is something that could not be written yet."""
        return bool(self._rest or self._lines)

    def end(self) -> None:
        """Writes what it can; the rest is lost."""
        self.flush()
        self._give_up(self._rest)

    def flush(self) -> None:
        """Writes what it can."""
        while self._rest or self._lines:
            data = self._rest + self._take(self._at_once - len(self._rest))
            try:
                written = os.write(self._descriptor, data) if self._ready() else 0
            except OSError as error:
                written = 0
                self._told(error)
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.EINTR, errno.EIO):
                    self._give_up(data)  # EPIPE, EBADF, EFBIG: nobody will ever read it
                    return
            if written and self._stuck:
                self._stuck = False
                self._say("access log: it can be written again")
            self._size -= written
            self._rest = data[written:]
            if self._rest:
                return

    def _told(self, error: OSError) -> None:
        if self._stuck or error.errno in (errno.EAGAIN, errno.EINTR):
            return
        self._stuck = True
        self._say(
            f"access log: cannot be written ({error.strerror}); lines wait in memory, up to "
            f"{WAITING_MOST >> 20} MB in each worker, and are lost beyond it"
        )

    def _ready(self) -> bool:
        """A write that would wait is not tried; a file is always ready."""
        return self._at_once == GATHER or bool(select.select([], [self._descriptor], [], 0)[1])

    def _take(self, most: int) -> bytes:
        """Whole lines of together so many bytes, one at least unless something is left of another."""
        count, size = 0, 0
        for line in self._lines:
            if size + len(line) > most and (count or self._rest):
                break
            count, size = count + 1, size + len(line)
        data = b"".join(self._lines[:count])
        del self._lines[:count]
        return data

    def _give_up(self, data: bytes) -> None:
        self.lost += data.count(b"\n") + len(self._lines)
        self._lines, self._rest, self._size = [], b"", 0
