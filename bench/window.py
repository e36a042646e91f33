"""One tool at work, looked at through a window of time, from outside and alike for all tools.

What a tool says about itself is not used: the rate is what nginx counted between two moments while the tool ran at
full pace, the CPU what the kernel booked on all of the tool's processes between the same two moments. Starting up and
ending cost none of the tools anything here.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import time
from collections.abc import Sequence

import msgspec

from bench.place import PATIENCE, Count, Place, cpu_seconds, tree

FIRST_ANSWERS = 100  # after so many a tool counts as started


class Sample(msgspec.Struct, frozen=True):
    """What happened in one window."""

    seconds: float
    connections: float  # a second, accepted by nginx
    requests: float  # a second, by nginx
    cpu: float  # share of a core used by all of the tool's processes
    cpu_children: float  # ... by all but its first process: timewait's workers
    cpu_nginx: float

    @property
    def cpu_per_connection(self) -> float:
        """Seconds."""
        return self.cpu / self.connections if self.connections else float("nan")

    @property
    def cpu_per_request(self) -> float:
        return self.cpu / self.requests if self.requests else float("nan")


class _Reading(msgspec.Struct, frozen=True):
    count: Count
    cpu: float
    cpu_children: float
    cpu_nginx: float


def look(place: Place, words: Sequence[str], *, warm: float, window: float, terminal: bool = False) -> Sample:
    """Runs `words` inside the place until the window has passed, then kills it. `terminal`: on a pseudo-terminal of
    100x40 that somebody reads. Raises RuntimeError with the tool's own words when it ends or stays silent."""
    with contextlib.ExitStack() as stack:
        screen = -1
        if terminal:
            screen, its_end = pty.openpty()
            stack.callback(os.close, screen)
            os.set_blocking(screen, False)
            process = place.start(words, screen=its_end)
            os.close(its_end)
        else:
            process = place.start(words)
        stack.callback(_end, process)
        _await_answers(place, process, words, screen)
        _pause(warm, screen)
        first = _reading(place, process)
        _pause(window, screen)
        limit = time.monotonic() + PATIENCE
        while place.count().requests <= first.count.requests and time.monotonic() < limit:
            _pause(0.05, screen)  # a short window on a busy machine: until there is something to look at
        second = _reading(place, process)
        if process.poll() is not None:
            raise RuntimeError(f"{words[0]} ended too early: {place.words_of_client()}")
    return _between(first, second)


def _await_answers(place: Place, process: subprocess.Popen[bytes], words: Sequence[str], screen: int) -> None:
    limit = time.monotonic() + PATIENCE
    while place.count().requests < FIRST_ANSWERS:
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"{' '.join(words)} got no answers: {place.words_of_client()}")
        _pause(0.05, screen)


def _pause(seconds: float, screen: int) -> None:
    """Sleeps, and reads what appears on the screen meanwhile."""
    until = time.monotonic() + seconds
    while (rest := until - time.monotonic()) > 0:
        if screen < 0:
            time.sleep(rest)
        elif select.select([screen], (), (), rest)[0]:
            try:
                os.read(screen, 65536)
            except OSError:  # EIO: nobody holds the other end any more
                time.sleep(rest)


def _reading(place: Place, process: subprocess.Popen[bytes]) -> _Reading:
    pids = tree(process.pid)
    count = place.count()
    return _Reading(count, cpu_seconds(pids), cpu_seconds(pids[1:]), place.nginx_cpu())


def _between(first: _Reading, second: _Reading) -> Sample:
    seconds = second.count.at - first.count.at
    return Sample(
        seconds=seconds,
        connections=(second.count.accepted - first.count.accepted) / seconds,
        requests=(second.count.requests - first.count.requests) / seconds,
        cpu=(second.cpu - first.cpu) / seconds,
        cpu_children=(second.cpu_children - first.cpu_children) / seconds,
        cpu_nginx=(second.cpu_nginx - first.cpu_nginx) / seconds,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    for pid in reversed(tree(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(PATIENCE)
