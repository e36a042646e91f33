"""One HAProxy's access log: it writes its lines to a pipe, and what they say goes to the file by our own writer.

So a full disk is waited for as in the embedded engine, and lines are the same whoever forwards. HAProxy never waits:
what finds the pipe full is dropped and counted by it (`show info`, DroppedLogs).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable
from contextlib import suppress

from timewait.balancer.config.model import Configuration
from timewait.balancer.embedded.access_log import FLUSH, AccessLog, is_open_at, open_log
from timewait.balancer.haproxy.log_lines import LONGEST, START, Lines

_PIPE = 1 << 20  # bytes: several thousand lines, where an ordinary user may have so much
_GATHER = 0.02  # seconds between two looks, unless there is much: waking for each line would cost more than the line


class Log:
    """`theirs` is for HAProxy to inherit; `begin` reads what it writes, `finish` once it has ended."""

    def __init__(self, configuration: Configuration, number: int, say: Callable[[str], None]) -> None:
        """Raises BalancerError where the file cannot be written."""
        self._path = configuration.access_log
        self._file = open_log(self._path)
        self._log = AccessLog(self._file, say)
        self._lines = Lines(configuration, number)
        self._ours, self.theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._ours, False)
        with suppress(OSError):  # pipe(7), pipe-user-pages-soft: the usual 64 kB do, too
            fcntl.fcntl(self._ours, fcntl.F_SETPIPE_SZ, _PIPE)
        self._at_once = fcntl.fcntl(self._ours, fcntl.F_GETPIPE_SZ) // 4
        self._rest = b""
        self._torn = 0
        self._dropped = 0
        self._loop = asyncio.get_running_loop()
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}

    @property
    def lost(self) -> int:
        """Lines that are not in the file, and will not be."""
        return self._log.lost + self._torn + self._dropped

    @property
    def is_fresh(self) -> bool:
        """Whether what is written to is still the file of that name."""
        return is_open_at(self._file, self._path)

    def dropped(self, count: int) -> None:
        """What HAProxy says that it could not write to us."""
        self._dropped = count

    def learn(self, configuration: Configuration) -> None:
        """HAProxy took over this one, without being replaced."""
        self._lines.learn(configuration)

    def begin(self) -> None:
        """HAProxy has its end."""
        self._close_theirs()
        self._watch()

    def finish(self) -> None:
        """It has ended, or never began: what it wrote is read to the end."""
        if self._ours < 0:
            return
        self._close_theirs()
        self._loop.remove_reader(self._ours)
        for timer in self._timers.values():
            timer.cancel()
        while data := self._read():
            self._take(data)
        self._torn += bool(self._rest)
        os.close(self._ours)
        self._ours = -1
        self._log.end()
        os.close(self._file)

    def _close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def _watch(self) -> None:
        if self._ours >= 0:
            self._loop.add_reader(self._ours, self._readable)

    def _readable(self) -> None:
        data = self._read()
        self._take(data)
        if len(data) < self._at_once:  # or HAProxy has closed its end, which finish() will be told
            self._loop.remove_reader(self._ours)
            self._later(_GATHER, self._watch)
        self._later(FLUSH, self._flush)

    def _read(self) -> bytes:
        try:
            return os.read(self._ours, self._at_once)
        except BlockingIOError:
            return b""

    def _flush(self) -> None:
        if self._ours < 0:
            return
        self._log.flush()
        if self._log.waiting:
            self._later(FLUSH, self._flush)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        known = self._timers.get(what)
        if known is None or known.when() <= self._loop.time():
            self._timers[what] = self._loop.call_later(seconds, what)

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST:
            self._rest = b""  # HAProxy writes none like that
            self._torn += 1
        for line in lines:
            self._write(line.decode("latin-1"))

    def _write(self, line: str) -> None:
        last = line.rfind(START)
        if last > 0:  # the pipe had room for a part of the line before
            self._torn += 1
            line = line[last:]
        try:
            record = self._lines.record(line)
        except (ValueError, LookupError):
            self._torn += 1
            return
        if record is not None:
            self._log.write(record)
