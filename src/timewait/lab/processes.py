"""Programs run inside a host: their output kept in memory, their end noticed, none of them left behind."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from timewait.lab import children

# Where Debian keeps daemons and nft, which is not on an ordinary user's PATH.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
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
    path = shutil.which(program, path=PATH)
    if path is None:
        raise MissingProgramError(program, package)
    return path


class Process:
    """A program in a host. It is killed when the thread that started it ends, also by SIGKILL (children.start)."""

    def __init__(self, name: str, child: children.Child, output: int) -> None:
        self.name = name  # "nginx on balancer"
        self.pid = child.pid
        self._child = child
        self._output = output  # a memfd; -1 once closed
        self._stopped = False

    @property
    def running(self) -> bool:
        return self._child.wait(0) is None

    def log(self) -> str:
        """The end of what it wrote to stdout and stderr so far."""
        return _end_of(self._output) if self._output >= 0 else ""

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit status (-N: killed by signal N), or None when it still runs after `timeout` seconds."""
        return self._child.wait(timeout)

    def died(self) -> str | None:
        """`nginx on balancer was ended by SIGKILL`; None while it runs, and after `stop`."""
        status = self._child.wait(0)
        return None if status is None or self._stopped else death(self.name, status, self.log())

    def stop(self) -> None:
        """SIGTERM, then SIGKILL. Its log can still be read."""
        self._stopped = True
        self._child.stop()

    def close(self) -> None:
        self.stop()
        if self._output >= 0:
            os.close(self._output)
            self._output = -1


def death(name: str, status: int, log: str = "") -> str:
    """How something ended, in a sentence, with its last word where it failed."""
    if status < 0:
        return f"{name} was ended by {signal.Signals(-status).name}"
    said = log.splitlines()
    return f"{name} ended with exit status {status}" + (f": {said[-1]}" if said and status else "")


class Done(NamedTuple):
    """A command that ran to its end."""

    status: int
    stdout: str
    stderr: str


def start(
    name: str,
    words: Sequence[str],
    *,
    keep: Iterable[int] = (),
    prepare: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] | None = None,
) -> Process:
    """Runs a program in the namespaces of the calling thread; `prepare` runs in the child before it, after the fork.

    Call it from a thread that lives as long as the program shall: the kernel kills the program when that thread ends.
    Raises ProgramError when there is no such program.
    """
    output = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        child = _spawn(words, (os.devnull, output, output), keep, prepare, environment or {})
    except BaseException:
        os.close(output)
        raise
    return Process(name, child, output)


def run(words: Sequence[str], *, input: str = "", timeout: float) -> Done:
    """Runs a command in the namespaces of the calling thread to its end. Raises ProgramError when there is none of
    that name, or when it takes longer than `timeout` seconds; it is ended then."""
    files = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("stdin", "stdout", "stderr")]
    try:
        os.pwrite(files[0], input.encode(), 0)
        child = _spawn(words, (files[0], files[1], files[2]))
        try:
            status = child.wait(timeout)
        finally:
            child.stop(0.2)  # it has ended, unless it took too long or we were interrupted
        if status is None:
            raise ProgramError(f"{' '.join(words)} takes longer than {timeout:g} s")
        return Done(status, _text(files[1]), _text(files[2]))
    finally:
        for file in files:
            os.close(file)


def _spawn(
    words: Sequence[str],
    standard: tuple[str | int, int, int],
    keep: Iterable[int] = (),
    prepare: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] | None = None,
) -> children.Child:
    path = shutil.which(words[0], path=PATH)
    if path is None:
        raise ProgramError(f"there is no program {words[0]!r}")
    numbers = [*keep, *(file for file in standard if isinstance(file, int))]

    def become() -> None:
        for number, file in enumerate(standard):
            os.dup2(os.open(file, os.O_RDONLY) if isinstance(file, str) else file, number)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and exec would pass that on
            signal.signal(ignored, signal.SIG_DFL)
        for number in keep:
            os.set_inheritable(number, True)
        prepare()
        os.execve(path, list(words), {**os.environ, **(environment or {})})

    return children.start(become, keep=numbers)


def _text(file: int) -> str:
    return os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace")


def _end_of(file: int) -> str:
    size = os.fstat(file).st_size
    return os.pread(file, _LOG_SHOWN, max(0, size - _LOG_SHOWN)).decode(errors="replace").strip()
