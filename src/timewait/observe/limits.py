"""Open files: the limit, raised as far as it goes, and how many a process has."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path


def raise_open_files() -> tuple[int, int]:
    """Raises the soft limit of open files to the hard one. Returns both (soft, hard) as they now are.

    Never raises: where the kernel refuses (a hard limit above fs.nr_open, getrlimit(2)) the soft limit stays.
    Child processes started afterwards inherit it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        wanted = hard if hard != resource.RLIM_INFINITY else _number(Path("/proc/sys/fs/nr_open"), soft)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            pass
    return open_file_limits()


def open_file_limits() -> tuple[int, int]:
    """(soft, hard) of this process; no limit is shown as fs.nr_open, which is the limit then."""
    most = _number(Path("/proc/sys/fs/nr_open"), 1 << 20)
    soft, hard = (most if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    return soft, hard


def open_files(pid: int) -> int | None:
    """How many files a process has open; None if it is gone or belongs to somebody else.

    Since Linux 6.2 the size of /proc/PID/fd is that number (proc_readfd_count()), before it is zero and the
    directory must be listed, which takes 20 ms at fifty thousand files.
    """
    where = f"/proc/{pid}/fd"
    try:
        listed = pid == os.getpid()  # listing our own opens one more
        return os.stat(where).st_size or len(os.listdir(where)) - listed  # noqa: PTH116, PTH208  strings are quicker
    except OSError:
        return None


def most_open_files(pids: Sequence[int]) -> int | None:
    """The largest number of open files among these processes; None if none of them can be asked."""
    return max((count for pid in pids if (count := open_files(pid)) is not None), default=None)


def _number(path: Path, otherwise: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return otherwise
