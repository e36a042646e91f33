"""`timewait stress` as the load: it says exactly what failed, which wrk does not."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any

from bench.balancer.place import BalancerPlace, until
from bench.place import PATIENCE, TIMEWAIT

UNDER_WAY = 100  # requests that were answered


def begin(where: BalancerPlace, *words: str) -> subprocess.Popen[bytes]:
    """Starts one from the client; `end` gives its result."""
    return where.start([TIMEWAIT, "stress", where.url, "--workers", "1", "--json", "--quiet", *words])


def end(where: BalancerPlace, process: subprocess.Popen[bytes], patience: float = PATIENCE) -> Any:
    """Waits for it; what it says with --json."""
    try:
        process.wait(patience)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    for line in where.whole_log().splitlines():
        if line.startswith("{"):
            return json.loads(line)
    raise RuntimeError(f"the load left no result: {where.words_of_client()}")


def stress(where: BalancerPlace, *words: str, patience: float = 60.0) -> Any:
    """Runs one to its end."""
    return end(where, begin(where, *words), patience)


def while_running(where: BalancerPlace, act: Callable[[], object], *words: str) -> Any:
    """Does `act` while a load runs, which ends with it; the load's result."""
    process = begin(where, "-d", "600", *words)
    try:
        until(lambda: where.requests() > UNDER_WAY or _gone(where, process), "the load is under way")
        act()
        _gone(where, process)
        process.send_signal(signal.SIGINT)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return end(where, process)


def _gone(where: BalancerPlace, process: subprocess.Popen[bytes]) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"the load ended too early: {where.words_of_client()}")
    return False
