"""`--in HOST`: the rest of a command runs inside a host of a running lab."""

from __future__ import annotations

from timewait.cli.lab import refusals


def inside(host: str, name: str = "") -> None:
    """Moves this process there; nothing when `host` is empty. Call it first: threads must not have started yet."""
    if not host:
        return
    with refusals():
        from timewait.lab.joining import join
        from timewait.lab.registry import choose

        join(choose(name), host)
