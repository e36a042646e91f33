"""A deadline is the target's: what this machine itself was late for is not counted against it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import peers
from kit.labs import wait_until
from kit.namespace import Namespace, needs_namespaces
from kit.nginx import Nginx
from kit.run_timewait import SCRIPT


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_what_came_while_this_machine_stood_still_came_in_time() -> None:
    """Answers and FINs."""
    needs_namespaces()
    peers.needs("nginx")
    with Namespace() as namespace, Nginx(namespace=namespace) as nginx:
        words = [str(SCRIPT), "stress", nginx.url, "-d", "110s", "-c", "300", "--timeout", "3s",
                 "--close-timeout", "3s", "--workers", "1", "--close", "server", "--json"]  # fmt: skip
        with subprocess.Popen(
            namespace.command(words), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            wait_until(lambda: nginx.count(settled=False).requests > 300, "the load runs")
            (worker,) = children(process.pid)
            for turn in range(2):
                os.kill(worker, signal.SIGSTOP)
                time.sleep(3.5)  # longer than either deadline
                before = nginx.count(settled=False).requests
                os.kill(worker, signal.SIGCONT)
                wait_until(lambda: nginx.count(settled=False).requests > before + 1000, f"it runs again ({turn})")  # noqa: B023
            process.send_signal(signal.SIGINT)
            found = json.loads(process.communicate(timeout=60)[0])
    assert found["totals"]["failed"] == 0
    assert found["errors"] == []
    assert {finding["id"] for finding in found["findings"]} <= {"client-limited"}
