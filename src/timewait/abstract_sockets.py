"""Programs of ours that run, found without a file: each answers on an abstract socket (unix(7)), gone with it.

A name is a prefix and what tells one from another. Whoever answers says who it is in JSON, to everybody; it is
believed only if its process and user are those the kernel names (SO_PEERCRED).
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from struct import Struct
from typing import TypeVar

import msgspec

CREDENTIALS = Struct("3i")  # struct ucred, linux/socket.h: pid, uid, gid
_LISTENING = "00010000"  # __SO_ACCEPTCON in the flags column of /proc/net/unix, linux/net.h
_PATIENCE = 10.0  # seconds for an answer, on a machine that may be busy

Answer = TypeVar("Answer", bound=msgspec.Struct)


def listening(prefix: str) -> list[str]:
    """The names with this prefix that somebody in this network namespace listens on, without the leading NUL."""
    names = set()
    for line in Path("/proc/net/unix").read_text().splitlines():
        words = line.split()
        if len(words) == 8 and words[3] == _LISTENING and words[7].startswith(f"@{prefix}"):
            names.add(words[7][1:])
    return sorted(names)


def ask(name: str, kind: type[Answer]) -> tuple[Answer, int] | None:
    """What answers there, and its process; None for one that ends in this moment, belongs to another user (root asks
    everybody), or is none of ours."""
    try:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(_PATIENCE)
            asking.connect(f"\0{name}")
            who = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
            pid, uid, _ = CREDENTIALS.unpack(who)
            if os.geteuid() not in (0, uid):
                return None
            return msgspec.json.decode(b"".join(iter(lambda: asking.recv(65536), b"")), type=kind), pid
    except (OSError, msgspec.DecodeError):
        return None
