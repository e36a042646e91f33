"""A process's own view of the file system: a mount namespace (mount_namespaces(7)), gone with the process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18  # linux/mount.h
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def place(needed: Iterable[Path] = ()) -> str:
    """A folder that exists everywhere and holds nothing a program needs to start, such as `needed`. Raises
    FileNotFoundError."""
    needed = list(needed)
    for name in ("/mnt", "/media", "/srv", "/tmp"):
        if Path(name).is_dir() and not any(path.is_relative_to(name) for path in needed):
            return name
    raise FileNotFoundError("there is no /mnt, /media, /srv or /tmp to lay a private folder over")


def private_folder(folder: str) -> None:
    """Gives this process mounts of its own, and among them an empty `folder` in memory. Raises OSError."""
    _do(_libc.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _do(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")
    _do(_libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, b"mode=755"), f"mount tmpfs on {folder}")


def hosts_file(lines: str) -> None:
    """Adds lines to /etc/hosts as this process and its children see it. Raises OSError."""
    hosts, folder = Path("/etc/hosts"), place()
    text = hosts.read_text()
    private_folder(folder)
    own = Path(folder, "hosts")
    own.write_text(f"{text.rstrip()}\n{lines}")
    _do(_libc.mount(bytes(own), bytes(hosts), None, _MS_BIND, None), "mount --bind /etc/hosts")
    _do(_libc.umount2(folder.encode(), _MNT_DETACH), f"umount {folder}")


def _do(failed: int, what: str) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
