"""Memory of all of timewait's processes together while they hold many connections."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import msgspec

from bench.figures import Figure, Result, Values
from bench.place import HOST, PORT, TIMEWAIT, Place, tree
from bench.settings import Settings

SOURCES = "127.0.0.1-127.0.0.4"
SIZES = {10_000: 100, 50_000: 300}  # connections -> MB asked
OBSERVED = 5.0  # seconds that the connections are held while memory is read
COMING = 60.0  # seconds until all must be open


class Memory(msgspec.Struct):
    """MB (10^6 bytes) of all processes together. `pss` counts a page shared by n processes 1/n each time, `rss` whole
    each time."""

    pss: float
    rss: float


def memory(settings: Settings) -> Result:
    sizes = {200: 100} if settings.quick else SIZES
    figures, details, notes = [], [], []
    for connections, limit in sizes.items():
        if (workers := _workers(settings, connections)) > len(settings.cores.usable):
            notes.append(
                f"{connections:,} connections on {workers} workers: each may open {settings.open_files:,} files."
            )
        held = {
            "kept, under load": [_measure(settings, connections, [f"http://{HOST}:{PORT}/"])],
            "tcp, idle": [_measure(settings, connections, [f"tcp://{HOST}:{PORT}"])],
        }
        for name, samples in held.items():
            pss = [one.pss for one in samples]
            figures.append(
                Figure(what=f"{connections:,} open connections, {name}: all processes", unit="MB", values=pss,
                       asked=f"<= {limit}", counts="max")
            )  # fmt: skip
            rss = [one.rss for one in samples]
            details.append(Values(name=f"{connections:,} {name}, PSS", unit="MB", values=pss))
            details.append(Values(name=f"{connections:,} {name}, RSS (shared pages n times)", unit="MB", values=rss))
    return Result(
        name="memory",
        title="Memory while holding connections",
        how=f"Sources {SOURCES}, one worker per core as by default; highest sum of PSS (/proc/PID/smaps_rollup) of "
        f"all processes in {OBSERVED:.0f} s after the last connection was open. One run each: memory varies little.",
        figures=figures,
        details=details,
        notes=notes,
    )


def _workers(settings: Settings, connections: int) -> int:
    """One per core, as by default, or more where each may open too few files (of nginx too)."""
    return max(len(settings.cores.usable), -(-_room(connections) // (settings.open_files - 200)))


def _room(connections: int) -> int:
    """nginx's worker_connections: with a sixteenth of them left it begins to end kept connections by itself
    (ngx_drain_connections, 1.22)."""
    return connections * 5 // 4 + 500


def _measure(settings: Settings, connections: int, target: list[str]) -> Memory:
    patient = ["--connect-timeout", "60s", "--timeout", "60s"]
    words = [TIMEWAIT, "stress", *target, "-c", str(connections), "-d", "600", "--source", SOURCES, *patient]
    words += ["--workers", str(_workers(settings, connections)), "--no-tui"]
    share = _room(connections) // _workers(settings, connections) + 1
    with Place(settings.cores, connections=share, workers=_workers(settings, connections)) as place:
        process = place.start(words, spread=True)
        try:
            limit = time.monotonic() + COMING
            while place.count().open < connections:
                if process.poll() is not None or time.monotonic() > limit:
                    found = place.count().open
                    raise RuntimeError(f"{found:,} of {connections:,} open: {place.words_of_client()}")
                time.sleep(0.1)
            until = time.monotonic() + (0.5 if settings.quick else OBSERVED)
            most = read(tree(process.pid))
            while time.monotonic() < until:
                time.sleep(0.25)
                now = read(tree(process.pid))
                most = Memory(max(most.pss, now.pss), max(most.rss, now.rss))
        finally:
            process.kill()  # the workers die with it
            process.wait()
    return most


def read(pids: list[int]) -> Memory:
    """Of these processes together, now."""
    found = Memory(0.0, 0.0)
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            found.pss += _kib(text, "Pss") * 1024 / 1e6
            found.rss += _kib(text, "Rss") * 1024 / 1e6
    return found


def _kib(text: str, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    if not match:
        raise RuntimeError(f"smaps_rollup without {name}")
    return int(match[1])
