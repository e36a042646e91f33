"""Where simulations run: in this process, in processes on all cores, or on a dask cluster.

A job is plain data and `play` is a function of it alone, so where it runs changes nothing about what comes out.
Jobs come back as they are done, in no order. Whoever stops early keeps what has come.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from distributed import Client

Job = TypeVar("Job")
Done = TypeVar("Done")
Stop = Callable[[], bool]  # asked now and then; True: no more is wanted


class Spread(Protocol):
    """A place to run jobs."""

    def __call__(self, play: Callable[[Job], Done], jobs: Sequence[Job], stop: Stop) -> Iterator[Done]: ...


class LostError(Exception):
    """The place where jobs run is gone; what came before is good. The text is one sentence."""


class UnreachableError(Exception):
    """There is no such place: one sentence."""


def alone(play: Callable[[Job], Done], jobs: Sequence[Job], stop: Stop) -> Iterator[Done]:
    """One after the other, here."""
    for job in jobs:
        if stop():
            return
        yield play(job)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


_PER_WORKER = 2  # jobs handed out ahead, so that nobody waits for the next
_LOOK = 0.1  # seconds between two looks whether it should stop
_PR_SET_PDEATHSIG = 1


class Processes:
    """Worker processes on this machine. A worker that dies (out of memory) ends the whole: LostError."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, play: Callable[[Job], Done], jobs: Sequence[Job], stop: Stop) -> Iterator[Done]:
        # Started afresh, not forked: whoever calls may have threads, and compiled code is read from its cache.
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(min(self.workers, max(1, len(jobs))), context, _prepare, (os.getpid(),))
        try:
            yield from _handed_out(pool, play, jobs, stop, _PER_WORKER * self.workers)
        except BrokenProcessPool:
            raise LostError("a worker process died (killed, or out of memory)") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            for child in multiprocessing.active_children():
                child.join(2.0)


def _prepare(parent: int) -> None:
    """In a worker: Ctrl-C is the parent's affair, and the parent's death is the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)


def _handed_out(
    pool: ProcessPoolExecutor, play: Callable[[Job], Done], jobs: Sequence[Job], stop: Stop, most: int
) -> Iterator[Done]:
    waiting = iter(jobs)
    running: set[Future[Done]] = set()
    while True:
        while len(running) < most and (job := next(waiting, None)) is not None:
            running.add(pool.submit(play, job))
        if not running:
            return
        ended, running = wait(running, _LOOK, FIRST_COMPLETED)
        for one in ended:
            yield one.result()
        if stop():
            return


_CONNECT = 10.0  # seconds to reach a scheduler, and to wait for a worker where there is none left


class Cluster:
    """Workers of a dask cluster; `address` as `tcp://10.0.0.5:8786`. They need timewait installed, of this version.

    Raises UnreachableError at once, LostError when the scheduler or the last worker goes in between.
    """

    def __init__(self, address: str, version: str) -> None:
        self.address, self.version = address, version

    def __call__(self, play: Callable[[Job], Done], jobs: Sequence[Job], stop: Stop) -> Iterator[Done]:
        client = self._connect()
        try:
            self._check(client)
            yield from self._collected(client, [client.submit(play, job, pure=False) for job in jobs], stop)
        finally:
            client.close(timeout=2)

    def _connect(self) -> Client:
        try:
            import logging

            from distributed import Client
        except ImportError:
            raise UnreachableError("--scheduler needs dask.distributed: pip install 'timewait[cluster]'") from None
        for name in ("distributed", "distributed.client", "distributed.core", "distributed.comm"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what happens is told here, in one sentence
        if not re.fullmatch(r"([a-z]+://)?[^/\s]+:[0-9]{1,5}", self.address):
            raise UnreachableError(f"--scheduler {self.address!r}: write its address, as tcp://10.0.0.5:8786")
        try:
            return Client(self.address, timeout=f"{_CONNECT:.0f}s", set_as_default=False)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise UnreachableError(f"--scheduler {self.address}: no dask scheduler answers there ({error})") from None

    def _check(self, client: Client) -> None:
        if not _workers(client):
            raise UnreachableError(f"--scheduler {self.address}: it has no workers; start some with `dask worker`")
        # The scheduler reads the jobs too.
        found: dict[str, Any] = {"its scheduler": _asked(client), **client.run(_version, on_error="return")}
        for place, version in found.items():
            if version != self.version:
                told = "it is not installed there" if isinstance(version, Exception) else f"it is {version}"
                raise UnreachableError(f"--scheduler {self.address}: {place} needs timewait {self.version}; {told}")

    def _collected(self, client: Client, futures: list[Any], stop: Stop) -> Iterator[Any]:
        waiting, last_seen = futures, time.monotonic()
        while waiting:
            ended = [one for one in waiting if one.done()]
            waiting = [one for one in waiting if not one.done()]
            for one in ended:
                if one.status == "cancelled":
                    raise LostError(f"the dask scheduler at {self.address} is gone")
                if one.status == "error":
                    raise LostError(f"the cluster failed a simulation: {_told(one.exception())}")
                yield one.result()
                one.release()
            if client.status != "running":
                raise LostError(f"the dask scheduler at {self.address} is gone")
            if stop():
                client.cancel(waiting)
                return
            if time.monotonic() - last_seen > _CONNECT / 4 and _workers(client):
                last_seen = time.monotonic()
            elif time.monotonic() - last_seen > _CONNECT:
                raise LostError(f"the dask cluster at {self.address} has had no worker for {_CONNECT:.0f} s")
            time.sleep(_LOOK / 2)


def _workers(client: Client) -> int:
    """How many there are; none where the scheduler does not say."""
    try:
        return len(client.scheduler_info(n_workers=-1)["workers"])
    except OSError:
        return 0


def _asked(client: Client) -> str | Exception:
    """The version at the scheduler, or what came instead."""
    try:
        return str(client.run_on_scheduler(_version))
    except Exception as error:  # whatever it is: it has no timewait, or a different one
        return error


def _version() -> str:
    from timewait import __version__

    return __version__


def _told(error: BaseException | None) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
