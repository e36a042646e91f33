"""The machine that measures: its facts, which core does what, the limit of open files."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from timewait import __version__


class Cores(msgspec.Struct, frozen=True):
    """Who runs where: nginx, the client under test, and this program (which mostly sleeps)."""

    target: int
    client: int
    driver: int
    usable: tuple[int, ...] = ()


def cores() -> Cores:
    """Different cores where there are enough; with one core all share it, and the table says so."""
    usable = sorted(os.sched_getaffinity(0))
    client = usable[-1]
    others = [core for core in usable if core not in _siblings(client)] or [core for core in usable if core != client]
    target = others[0] if others else client
    spare = [core for core in others if core not in _siblings(target)]
    return Cores(target, client, spare[0] if spare else target, tuple(usable))


def _siblings(core: int) -> set[int]:
    """The hardware threads of this thread's core, itself included: "1", "0-1" or "0,4"."""
    try:
        text = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list").read_text()
    except OSError:
        return {core}
    found: set[int] = set()
    for piece in text.strip().split(","):
        first, _, last = piece.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def raise_open_files(wanted: int) -> int:
    """Soft and hard limit up to `wanted` where our rights allow; returns the limit that holds. To be called before a
    user namespace is entered: there CAP_SYS_RESOURCE counts no more (setrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(hard, wanted)))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, wanted)), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def facts() -> dict[str, str]:
    """What the figures depend on, in words."""
    where = cores()
    same = " (one core for all: the figures are not comparable)" if where.client == where.target else ""
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable{_hypervisor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": os.uname().release,
        "pinned": f"client on core {where.client}, nginx on core {where.target}{same}",
        "congestion control": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
        "load before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
        "timewait": __version__,
        "python": platform.python_version(),
        "nginx": said(["nginx", "-v"], r"nginx/(\S+)"),
        "haproxy": said(["haproxy", "-v"], r"HAProxy version (\S+)"),
        "wrk": said(["wrk", "-v"], r"wrk \S*?/?([0-9]\S*)"),
        "ab": said(["ab", "-V"], r"Version (\S+)"),
        "h2load": said(["h2load", "--version"], r"nghttp2/(\S+)"),
        "hey": package("hey"),
        "siege": said(["siege", "-V"], r"SIEGE (\S+)"),
    }


def _processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _hypervisor() -> str:
    return ", a virtual machine" if " hypervisor" in Path("/proc/cpuinfo").read_text() else ""


def said(command: Sequence[str], pattern: str) -> str:
    """What a program says of its version; "not installed" without it."""
    try:
        # Some write to stderr, some end with an error code, all print it.
        done = subprocess.run([path(command[0]), *command[1:]], capture_output=True, text=True, timeout=10)
    except FileNotFoundError:
        return "not installed"
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else "unknown"


def package(name: str) -> str:
    """hey tells no version; the package does."""
    return said(["dpkg-query", "-W", "-f", "${Version}", name], r"(\S+)")


def path(program: str) -> str:
    """The program's path, also where Debian keeps daemons. Raises FileNotFoundError."""
    for folder in [*os.environ.get("PATH", os.defpath).split(os.pathsep), "/usr/sbin", "/sbin"]:
        found = Path(folder, program)
        if os.access(found, os.X_OK):
            return str(found)
    raise FileNotFoundError(program)
