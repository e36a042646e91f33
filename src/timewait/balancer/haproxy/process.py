"""One HAProxy process: everything it needs in descriptors, nothing in files; it dies with us."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
import socket
from collections import deque

from timewait.balancer.config.model import Configuration
from timewait.balancer.embedded import privileges
from timewait.balancer.embedded.messages import Identity
from timewait.balancer.engine import BalancerError
from timewait.balancer.haproxy.commands import Commands

PACKAGE = "haproxy"
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_READY = 30.0  # seconds given to it to read its configuration
_KILLED = 2.0  # seconds between SIGTERM and SIGKILL
_FILES = 1 << 20  # descriptors at most: HAProxy makes a table of as many as it may have


def program() -> str:
    """HAProxy's path. Raises BalancerError."""
    path = shutil.which("haproxy", path=_PATH)
    if path is None:
        raise BalancerError(f"haproxy is not installed: `sudo apt-get install {PACKAGE}` (or your system's package)")
    return path


def memory(name: str, content: bytes) -> int:
    """A descriptor of a file that only exists in memory."""
    number = os.memfd_create(name, os.MFD_CLOEXEC)
    os.write(number, content)
    return number


class Process:
    """Started with `Process.start`; `commands` is its command line."""

    def __init__(self, process: asyncio.subprocess.Process, commands: Commands) -> None:
        self.commands = commands
        self.pid = process.pid
        self._process = process
        self._said: deque[str] = deque(maxlen=50)
        self._reading = asyncio.create_task(self._read())

    @staticmethod
    async def start(written: bytes, keep: list[int], door: socket.socket, configuration: Configuration) -> Process:
        """Starts it and waits until it serves. `door` is our end of its command line. Raises BalancerError."""
        parent = os.getpid()
        user = _user(configuration)
        config = memory("haproxy.cfg", written)
        try:
            process = await asyncio.create_subprocess_exec(
                program(), "-db", "-f", f"/proc/self/fd/{config}",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=[config, *keep],
                process_group=0,  # Ctrl-C is for us alone
                preexec_fn=lambda: _become(parent, user),
            )  # fmt: skip
        finally:
            os.close(config)
        found = Process(process, Commands(door))
        try:
            await found._serves()
        except BaseException:
            await found.kill()
            raise
        return found

    async def _serves(self) -> None:
        """Until its command line answers. Raises BalancerError where it ends, or takes too long."""
        answers = asyncio.ensure_future(self.commands.open())
        ends = asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait([answers, ends], timeout=_READY, return_when=asyncio.FIRST_COMPLETED)
            if answers.done() and answers.exception() is None:
                return
            if ends.done():
                await self._reading
        finally:
            answers.cancel()
            ends.cancel()
        raise BalancerError(f"HAProxy does not start: {self.reason()}")

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal, if it still runs."""
        if self.running:
            self._process.send_signal(number)

    async def ended(self) -> str:
        """Waits for its end: `HAProxy was ended by SIGKILL`."""
        status = await self._process.wait()
        if status < 0:
            return f"HAProxy was ended by {signal.Signals(-status).name}"
        return f"HAProxy ended with exit status {status}" + (f": {self.reason()}" if status else "")

    async def kill(self) -> None:
        """Ends it at once, and waits for it."""
        self.commands.close()
        self.tell(signal.SIGTERM)
        try:
            async with asyncio.timeout(_KILLED):
                await self._process.wait()
        except TimeoutError:
            self.tell(signal.SIGKILL)
            await self._process.wait()
        await self._reading

    def reason(self) -> str:
        """Its own words about what is wrong."""
        alerts = [found[1] for line in self._said if (found := _ALERT.match(line))]
        told = [alert for alert in alerts if not alert.startswith(_GENERAL)]
        return "; ".join((told or alerts or [*self._said][-1:] or ["it does not say why"])[:3]).rstrip(". ")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._said.append(line.decode(errors="replace").strip())


# [ALERT]    (12) : config : parsing [/proc/self/fd/7:12] : unknown keyword ...
_ALERT = re.compile(r"\[ALERT\]\s*\(\d+\) : (?:config : )?(?:parsing \[[^\]]*\] : )?(.*)")
_GENERAL = ("Error(s) found in configuration file", "Fatal errors found in configuration")


def _become(parent: int, user: Identity | None) -> None:
    """In the child, before it is HAProxy."""
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if user is not None:
        privileges.become(user)
    privileges.confine(parent, "haproxy")


def _user(configuration: Configuration) -> Identity | None:
    """Whom root becomes: nothing HAProxy does needs its rights. None for an ordinary user, and for root of a user
    namespace in which nobody else exists."""
    user = privileges.identity(configuration.user)
    if user is None or privileges.reachable(user):
        return user
    if configuration.user:
        raise BalancerError(f"user = {user.name!r} does not exist in this user namespace; leave it out")
    return None
