"""The admin socket in the file system: where it is, who has it, and that only its user may open it.

Who may change a balancer is decided by the file's mode, 0600, and by nothing else: there is no password to leak.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from timewait.abstract_sockets import CREDENTIALS
from timewait.balancer.engine import BalancerError

MOST_BYTES = 107  # sun_path of struct sockaddr_un has 108, the last of them 0 (unix(7))
_BACKLOG = 64
_PATIENCE = 2.0  # seconds


class Door:
    """The listening admin socket. `close` takes its file away, if it still is ours."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _fits(path)
        _make_way(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # On Linux the file gets the mode of the socket (unix_bind(), net/unix/af_unix.c), so there is no moment
            # at which others may connect.
            os.fchmod(self.socket.fileno(), 0o600)
            self.socket.bind(str(path))
            self.socket.listen(_BACKLOG)
            self._identity = _identity(path)
        except OSError as problem:
            self.socket.close()
            raise BalancerError(f"admin socket {path}: {problem.strerror}; [admin] socket names another") from None

    def close(self) -> None:
        self.socket.close()
        try:
            if _identity(self.path) == self._identity:
                self.path.unlink()
        except OSError:
            pass


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def place(wanted: str, file: str, environment: dict[str, str] | None = None) -> Path:
    """Where the admin socket goes: where the file says, else in this user's folder for such things, which is made.

    A file without a lasting name (standard input, a descriptor in /proc) gives the process' number.
    """
    if wanted:
        return Path(wanted)
    lasting = file != "-" and not file.startswith(("/proc/", "/dev/"))
    name = Path(file).stem if lasting else f"balance-{os.getpid()}"
    return folder(os.environ if environment is None else environment) / f"{name or 'balance'}.sock"


def folder(environment: dict[str, str] | os._Environ[str]) -> Path:
    """This user's folder for sockets, mode 0700. Raises BalancerError where it would be somebody else's."""
    choices = [Path(environment["XDG_RUNTIME_DIR"])] if environment.get("XDG_RUNTIME_DIR") else []
    if os.geteuid() == 0:
        choices.append(Path("/run"))
    for parent in choices:
        if os.access(parent, os.W_OK):
            return _own(parent / "timewait")
    return _own(Path(environment.get("TMPDIR") or "/tmp") / f"timewait-{os.geteuid()}")


def _own(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as problem:
        raise BalancerError(f"folder {path}: {problem.strerror}; [admin] socket names another place") from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise BalancerError(
            f"{path} is no folder that only this user may write to; remove it, or name a path in [admin] socket"
        )
    return path


def _fits(path: Path) -> None:
    length = len(os.fsencode(path))
    if length > MOST_BYTES:
        raise BalancerError(
            f"admin socket {path}: {length} bytes, the path of a unix socket may have {MOST_BYTES}; "
            "[admin] socket names a shorter one"
        )


def _make_way(path: Path) -> None:
    """Removes the file of a process that is gone. Raises BalancerError where it is anything else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as problem:
        raise BalancerError(f"admin socket {path}: {problem.strerror}") from None
    if not stat.S_ISSOCK(mode):
        raise BalancerError(
            f"admin socket {path}: there is a file of that name which is no socket; name another path"
        )
    who = holder(path)
    if who is not None:
        raise BalancerError(
            f"admin socket {path}: {who} answers there; stop it, or give this balancer another [admin] socket"
        )
    path.unlink(missing_ok=True)


def holder(path: Path) -> str | None:
    """Which process listens there, `process 4711 (timewait balance clb.toml)`; None: nobody any more."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_PATIENCE)
        try:
            asking.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except OSError as problem:  # EACCES, a full backlog: somebody is there
            return f"a process that cannot be asked ({problem.strerror or problem})"
        pid, _, _ = CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return f"process {pid}{_command(pid)}"


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    shown = " ".join(word.decode(errors="replace") for word in words if word)
    return f" ({shown if len(shown) <= 80 else shown[:77] + '...'})" if shown else ""
