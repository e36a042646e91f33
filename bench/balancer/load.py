"""`timewait stress` as the load: it says exactly what failed, which wrk does not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from bench.balancer.place import BalancerPlace
from bench.place import PATIENCE, TIMEWAIT


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


def while_running(where: BalancerPlace, act: Callable[[Callable[[], bool]], None], *words: str) -> Any:
    """Does `act` while a load runs, which it can ask; the load's result."""
    process = begin(where, *words)
    act(lambda: process.poll() is None)
    return end(where, process, 120.0)
