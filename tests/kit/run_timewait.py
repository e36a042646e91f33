"""Runs the installed `timewait` as a user would: a process of its own, its output and exit code, nothing else."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.namespace import Namespace

SCRIPT = Path(sys.executable).with_name("timewait")
BAD_USAGE, MACHINE, TARGET, THRESHOLD, INTERRUPTED = 2, 3, 1, 4, 130  # the documented exit codes


@dataclass(frozen=True)
class Result:
    """What one run of `timewait` left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """The one object of --json."""
        return json.loads(self.stdout)

    @property
    def findings(self) -> list[str]:
        """The ids of the findings, in the order of the report."""
        return [finding["id"] for finding in self.json["findings"]]

    @property
    def totals(self) -> dict[str, float]:
        totals: dict[str, float] = self.json["totals"]
        return totals

    @property
    def closed_first(self) -> dict[str, int]:
        """Connections by who closed first: us, peer, reset."""
        return {who: self.json["closed_first"][who] for who in ("us", "peer", "reset")}

    def errors(self) -> dict[tuple[str, str, str], int]:
        """(phase, errno, cause) -> count."""
        return {(row["phase"], row["errno"], row["cause"]): row["count"] for row in self.json["errors"]}


def timewait(
    *words: str | Path,
    namespace: Namespace | None = None,
    open_files: int | None = None,
    hard_open_files: int | None = None,
    timeout: float = 100,
    input: str | None = None,
) -> Result:
    """`timewait WORDS`, inside `namespace` if one is given, with the limits of open files at `open_files` (soft) and
    `hard_open_files` (hard; the same unless given)."""
    with subprocess.Popen(
        _command(words, namespace),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_limiter(open_files, hard_open_files),
    ) as process:
        try:
            stdout, stderr = process.communicate(input or "", timeout=timeout)
        except BaseException:
            process.kill()
            raise
    return Result(process.returncode, stdout, stderr)


def stress(*words: str | Path, **settings: Any) -> Result:
    """`timewait stress WORDS --json`; unless the words say otherwise one worker, which waits long for a peer's FIN:
    a busy machine may keep the peer from sending it for a second, and no test here is about that."""
    workers = () if "--workers" in words else ("--workers", "1")
    patience = () if "--close-timeout" in words else ("--close-timeout", "20s")
    result = timewait("stress", *words, *workers, *patience, "--json", **settings)
    assert result.stdout.strip(), f"no JSON (exit code {result.exit_code}): {result.stderr}"
    return result


def close(closing: str) -> tuple[str, ...]:
    """The flags for an end of connections: none for `keep`."""
    return () if closing == "keep" else ("--close", closing)


def interrupted(
    *words: str | Path, send: signal.Signals, when: Callable[[], bool], namespace: Namespace | None = None
) -> Result:
    """`timewait WORDS`, sent this signal as soon as `when` holds (asked for 60 s at most)."""
    with subprocess.Popen(
        _command(words, namespace), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        limit = time.monotonic() + 60
        while not when() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        process.send_signal(send)
        try:
            stdout, stderr = process.communicate(timeout=50)
        except BaseException:
            process.kill()
            raise
    return Result(process.returncode, stdout, stderr)


def _command(words: Sequence[str | Path], namespace: Namespace | None) -> list[str]:
    command = [str(SCRIPT), *map(str, words)]
    return namespace.command(command) if namespace else command


def _limiter(soft: int | None, hard: int | None) -> Callable[[], None] | None:
    if soft is None:
        return None
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard or soft))
