"""Code that runs in a process of its own, because it enters namespaces; as root also as an ordinary user."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

# After the imports, because the interpreter of a test run may lie where only root can read. A process that has
# changed its user is not dumpable, and its /proc files belong to root, unless it says otherwise (proc(5)).
BECOME_NOBODY = """
import ctypes, encodings.idna, os
import timewait.cli.commands, timewait.cli.lab.draw, timewait.lab.files, timewait.lab.furnish, timewait.lab.joining
import rich.console
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
assert ctypes.CDLL(None).prctl(4, 1, 0, 0, 0) == 0  # PR_SET_DUMPABLE
"""
USERS = {"as we are": "", "ordinary user": BECOME_NOBODY} if os.geteuid() == 0 else {"as we are": ""}

Inside = Callable[[str], str]

MAIN = "import sys, timewait.cli; sys.argv = ['timewait', *sys.argv[1:]]; timewait.cli.main()\n"
"""The whole command, for a process that has become an ordinary user."""


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}  # so that it may import the kit


def python(code: str, *words: str, timeout: float = 60) -> str:
    """Runs code in a fresh interpreter; what it prints. `words` are its sys.argv[1:]."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def processes_of_session(session: int) -> list[int]:
    """Processes, zombies left out, of the session that this process leads or led (setsid(2))."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(session) and fields[0] not in "ZX":
            found.append(int(folder.name))
    return found


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, f"not after {seconds} s: {what}"
        time.sleep(0.01)
