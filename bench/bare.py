"""The engine alone: no parent, no watching, no ticks, no view. `python bare.py PLAN` (a msgpack file)."""

from __future__ import annotations

import gc
import socket
import sys
from pathlib import Path
from random import Random

import msgspec

from timewait.plan import Plan
from timewait.stress import loop
from timewait.stress.endpoints import endpoints
from timewait.stress.engine import Engine
from timewait.stress.meters import clock
from timewait.stress.opening import Opener


def main(file: str) -> None:
    """Runs until it is killed."""
    plan = msgspec.msgpack.decode(Path(file).read_bytes(), type=Plan)
    target = plan.requests_list[0]
    found = endpoints(plan, {(target.host, target.port): [target.host]})
    gc.disable()  # as a worker does
    ours, _theirs = socket.socketpair()  # the loop wants a pipe to its parent; nothing ever comes
    opener = Opener(plan, (1024, 65535), set(), 0, 1, Random())
    engine = Engine(plan, found, opener, 0, 1, clock())
    loop.run(engine, ours.fileno(), lambda: None, lambda now: None)


if __name__ == "__main__":
    main(sys.argv[1])
