"""Topology `nat` up and gone: the command as a user runs it, and the building alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable

from pyroute2 import IPRoute

from bench.figures import Figure, Result, Values
from bench.place import TIMEWAIT
from bench.settings import Settings
from timewait.lab import network, topologies

WITNESS = "witness"  # one end of a link whose other end is in the lab: the kernel takes it away with the lab
PATIENCE = 20.0


def lab(settings: Settings) -> Result:
    """Both ends of a lab's life, timed from outside."""
    rounds = 2 if settings.quick else max(11, settings.rounds)
    times: dict[str, list[float]] = {"up": [], "own": [], "gone": [], "killed": [], "built": [], "taken down": []}
    for _ in range(rounds):
        times["own"].append(_life(signal.SIGKILL, "timewait")[0])
        for end, name in ((signal.SIGTERM, "gone"), (signal.SIGKILL, "killed")):
            up, down = _life(end, "nginx")
            times["up"] += [up] if end is signal.SIGTERM else []
            times[name].append(down)
        built = time.perf_counter()
        with network.build(topologies.nat()):
            ready = time.perf_counter()
        times["built"].append(ready - built)
        times["taken down"].append(time.perf_counter() - ready)
    return Result(
        name="lab",
        title="A network up and gone",
        how="`timewait lab up nat` with nginx: three clients, a NAT gateway, a balancer, two servers. Up: from fork "
        "to the line that says so, programs answering. Gone: from the signal until the process has ended and the "
        "kernel has taken the namespaces back, seen at a link into one of them that vanishes with it.",
        figures=[
            Figure(what="topology nat up", unit="s", values=times["up"], asked="<= 1", counts="max"),
            Figure(what="... with timewait's own balancer", unit="s", values=times["own"], counts="max"),
            Figure(what="topology nat gone", unit="s", values=times["gone"], asked="<= 1", counts="max"),
        ],
        details=[
            Values(name="up, from fork to its last line", unit="s", values=times["up"]),
            Values(name="up with timewait's own balancer", unit="s", values=times["own"]),
            Values(name="gone after SIGTERM", unit="s", values=times["gone"]),
            Values(name="gone after SIGKILL", unit="s", values=times["killed"]),
            Values(name="built, without starting Python or programs", unit="s", values=times["built"]),
            Values(name="taken down, kernel's work in the background left out", unit="s", values=times["taken down"]),
        ],
    )


def _life(end: signal.Signals, balancer: str) -> tuple[float, float]:
    """Seconds until it was up, and from the signal until nothing was left."""
    began = time.perf_counter()
    with (
        subprocess.Popen(
            [TIMEWAIT, "lab", "up", "nat", "--balancer", balancer, "--json"], stdout=subprocess.PIPE, text=True
        ) as process,
        IPRoute() as netlink,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        up = time.perf_counter() - began
        if not line:
            raise RuntimeError("timewait lab up did not come up")
        place = json.loads(line)["hosts"]["client-1"]
        inside = os.open(f"/proc/{process.pid}/fd/{place['fd']}", os.O_RDONLY)
        netlink.link("add", ifname=WITNESS, kind="veth", peer={"ifname": WITNESS, "net_ns_fd": inside})
        os.close(inside)
        began = time.perf_counter()
        process.send_signal(end)
        process.wait()
        _until(lambda: not netlink.link_lookup(ifname=WITNESS))
        return up, time.perf_counter() - began


def _until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > limit:
            raise RuntimeError(f"namespaces are still there after {PATIENCE:.0f} s")
        time.sleep(0.001)
