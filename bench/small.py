"""The two figures that need no load: counting TIME_WAIT, and the help."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from bench.figures import Figure, Result, Values
from bench.place import TIMEWAIT, pinned
from bench.settings import Settings


def counting(settings: Settings) -> Result:
    """bench_sock_diag.py in its own namespace."""
    sockets = 2000 if settings.quick else 100_000
    rounds = max(7, settings.rounds) if not settings.quick else 2
    words = [
        sys.executable,
        "-P",
        str(Path(__file__).with_name("bench_sock_diag.py")),
        "--sockets",
        str(sockets),
        "--rounds",
        str(rounds),
    ]
    done = subprocess.run(pinned(words, settings.cores.client), capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"bench_sock_diag: {done.stderr}")
    found = json.loads(done.stdout)
    return Result(
        name="counting",
        title="Counting TIME_WAIT by destination",
        how=f"{sockets:,} sockets in TIME_WAIT toward one destination and a tenth as many toward another, which must "
        "not be counted; NETLINK_SOCK_DIAG filtered in the kernel; every count was exact.",
        figures=[
            Figure(what=f"counting {sockets:,} TIME_WAIT by destination", unit="ms", values=found["values_ms"],
                   asked="<= 100")
        ],
        details=[
            Values(name="count", unit="ms", values=found["values_ms"]),
            Values(name="whole snapshot of `stress`", unit="ms", values=found["snapshot_values_ms"]),
            Values(name="whole look of `watch`", unit="ms", values=found["watch_values_ms"]),
        ],
    )  # fmt: skip


def start(settings: Settings) -> Result:
    """`timewait --help`, beside a Python that does nothing."""
    rounds = 2 if settings.quick else 2 * settings.rounds + 1
    commands = {"timewait --help": [TIMEWAIT, "--help"], "python -c pass": [sys.executable, "-c", "pass"]}
    took: dict[str, list[float]] = {name: [] for name in commands}
    for words in commands.values():
        subprocess.run(words, check=True, capture_output=True)  # once into the page cache
    for _ in range(rounds):
        for name, words in commands.items():
            began = time.perf_counter()
            subprocess.run(pinned(words, settings.cores.client), check=True, capture_output=True)
            took[name].append(time.perf_counter() - began)
    return Result(
        name="help",
        title="Starting",
        how="From fork to exit, files in the page cache.",
        figures=[Figure(what="`timewait --help`", unit="s", values=took["timewait --help"], asked="<= 0.2")],
        details=[Values(name=name, unit="s", values=values) for name, values in took.items()],
    )
