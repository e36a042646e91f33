"""Programs started inside a host: their output kept in memory, their end noticed, none of them left behind."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence

from timewait.lab import children

# Where Debian keeps daemons and nft, which is not on an ordinary user's PATH.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_LOG_SHOWN = 2_000  # bytes of a program's output worth showing when it failed


class MissingProgramError(Exception):
    """A program that the lab needs is not installed."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(f"{program} is not installed: `sudo apt-get install {package}` (or your system's package)")
        self.program = program
        self.package = package  # Debian's


class ProgramError(Exception):
    """A program could not do what the lab asked of it; the text has its own words."""


def find(program: str, package: str) -> str:
    """The path of a program, also where daemons lie. Raises MissingProgramError."""
    path = shutil.which(program, path=_PATH)
    if path is None:
        raise MissingProgramError(program, package)
    return path


class Process:
    """A program in a host. It is killed when the thread that started it ends, also by SIGKILL (children.start)."""

    def __init__(self, name: str, child: children.Child, output: int = -1) -> None:
        self.name = name  # "nginx on balancer"
        self.pid = child.pid
        self._child = child
        self._output = output
        self._stopped = False

    @property
    def running(self) -> bool:
        return self._child.wait(0) is None

    def log(self) -> str:
        """The end of what it wrote to stdout and stderr so far."""
        if self._output < 0:
            return ""
        size = os.fstat(self._output).st_size
        return os.pread(self._output, _LOG_SHOWN, max(0, size - _LOG_SHOWN)).decode(errors="replace").strip()

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit status (-N: killed by signal N), or None when it still runs after `timeout` seconds."""
        return self._child.wait(timeout)

    def died(self) -> str | None:
        """`nginx on balancer was ended by SIGKILL`; None while it runs, and after `stop`."""
        status = self._child.wait(0)
        if status is None or self._stopped:
            return None
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        said = self.log().splitlines()
        return f"{self.name} {how}" + (f": {said[-1]}" if said and status > 0 else "")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL. Its log can still be read."""
        self._stopped = True
        self._child.stop()

    def close(self) -> None:
        self.stop()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1


def start(
    name: str,
    words: Sequence[str],
    *,
    keep: Iterable[int] = (),
    prepare: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Runs a program in the namespaces of the calling thread; `prepare` runs in the child before it.

    Call it from a thread that lives as long as the program shall: the kernel kills the program when that thread ends.
    """
    output = os.memfd_create(name, os.MFD_CLOEXEC)
    kept = [output, *keep]

    def become() -> None:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and exec would pass that on
            signal.signal(ignored, signal.SIG_DFL)
        for number in keep:
            os.set_inheritable(number, True)
        prepare()
        os.execve(words[0], list(words), {**os.environ, **(environment or {})})

    try:
        return Process(name, children.start(become, keep=kept), output)
    except BaseException:
        os.close(output)
        raise
