"""`--in HOST`: the rest of a command runs inside a host of a running lab."""

from __future__ import annotations

from timewait.cli.lab import refusals


def inside(host: str | None, name: str | None = None) -> None:
    """Moves this process there; nothing without a host. Call it first: threads must not have started yet.

    An empty word is no host: `--in "$HOST"` with nothing in it must not become this machine.
    """
    if host is None and name is None:
        return
    with refusals():
        from timewait.lab.joining import join
        from timewait.lab.registry import LabError, choose

        if host is None:
            raise LabError(f"--lab {name} needs --in HOST: which of its hosts")
        join(choose(name or ""), host)
