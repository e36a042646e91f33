"""Child processes that run one of our functions and never outlive the process that started them."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """One forked process; `stop` or `wait` reaps it, once."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None  # exit status as os.waitstatus_to_exitcode() gives it: -N when killed by N

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit status, or None when it still runs after `timeout` seconds (None: waits for ever)."""
        if self.status is None:
            handle = os.pidfd_open(self.pid)
            try:
                ended, _, _ = select.select([handle], [], [], timeout)
            finally:
                os.close(handle)
            if not ended:
                return None
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def stop(self, patience: float = 1.0) -> int:
        """SIGTERM, after `patience` seconds SIGKILL; its exit status."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.status is None:
                os.kill(self.pid, number)
                self.wait(patience if number == signal.SIGTERM else None)
        assert self.status is not None
        return self.status


def start(function: Callable[[], None], keep: Iterable[int] = ()) -> Child:
    """Runs `function` in a forked child, in the namespaces of the calling thread; `keep` are its file descriptors.

    The child ignores SIGINT (the terminal sends Ctrl-C to the whole group, and whoever started the child decides
    when it ends), has no other descriptor open but the standard three, and is killed when the thread that called us
    ends (PR_SET_PDEATHSIG, prctl(2)), also by SIGKILL.
    """
    parent = os.getpid()
    # A signal meant for the child waits until it has left our handlers behind: one of them would run in it otherwise.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        pid = _fork()
        if pid == 0:
            _become(function, parent, mask, {0, 1, 2, *keep})
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return Child(pid)


def _fork() -> int:
    with warnings.catch_warnings():
        # 3.12 warns of any fork beside threads. The threads here are NumPy's idle ones, which hold no lock of ours.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _become(function: Callable[[], None], parent: int, mask: Iterable[int], kept: set[int]) -> NoReturn:
    status = 1
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _close_all_but(kept)
        function()
        status = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode())  # sys.stderr may be a file whose descriptor is closed now
    finally:
        os._exit(status)  # never back into the parent's stack, its buffers or its atexit functions


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent, whose id is `parent`, ends; at once if it is gone already.

    Set after any change of credentials: commit_creds() in kernel/cred.c clears it (prctl(2)).
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def on_sigterm() -> int:
    """A descriptor that becomes readable when SIGTERM comes to this process, which it does not end then.

    For a child that has something to bring to its end first.
    """
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)
    signal.signal(signal.SIGTERM, lambda *_: None)
    return readable


def _close_all_but(kept: set[int]) -> None:
    for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
        if number not in kept:
            try:
                os.close(number)
            except OSError:  # the descriptor of the listing itself
                pass
