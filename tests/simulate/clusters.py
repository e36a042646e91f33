"""A dask cluster of one worker as processes of their own, on a free port of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

DASK = Path(sys.executable).with_name("dask")


class Dask(NamedTuple):
    address: str
    scheduler: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]


@contextmanager
def dask(free_port: Callable[[], int]) -> Iterator[Dask]:
    """Up once its worker is there; gone afterwards."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    scheduler = _start("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-jupyter")
    worker = _start("worker", address, "--nthreads", "1", "--no-nanny", "--death-timeout", "60")
    try:
        _wait_for_worker(address)
        yield Dask(address, scheduler, worker)
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def _start(*words: str) -> subprocess.Popen[bytes]:
    """One of dask's programs; it finds the tests' modules."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [DASK, *words, "--no-dashboard"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _wait_for_worker(address: str) -> None:
    from distributed import Client

    deadline = time.monotonic() + 60
    while True:
        try:
            with Client(address, timeout="2s", set_as_default=False) as client:
                client.wait_for_workers(1, timeout=30)
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
