"""Worker processes as the supervisor sees them: started, talked to, and their end noticed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

import timewait
from timewait.balancer.embedded import messages
from timewait.balancer.engine import BalancerError
from timewait.balancer.statistics import Statistics

START = 30.0  # seconds a worker may take until it accepts
ANSWER = 2.0  # seconds it may take to answer a question; then it counts as 0
LAST_WORDS = 1.5  # seconds between being told to stop and SIGKILL
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Until a worker ignores them: a terminal and a service manager send these to every process of the group."""


class Member:
    """One worker process."""

    def __init__(self, number: int, slot: int, generation: int) -> None:
        self.number, self.slot, self.generation = number, slot, generation
        self.statistics = Statistics()
        self.retired = False  # told to accept nothing more
        self.ready = False
        self.end: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._early: list[bytes] = []
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._asked = 0
        self._frames = messages.Frames()
        self._decoder = msgspec.msgpack.Decoder(messages.FromWorker)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    async def start(self, begin: messages.Begin, inherited: Iterable[int], say: Callable[[str], None]) -> None:
        """Returns once it accepts. Raises BalancerError; it is gone then."""
        self._say = say
        self._accepts: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ours, theirs = socket.socketpair()
        try:
            self._process = _spawn(theirs.fileno(), inherited)
        except OSError as error:
            ours.close()
            raise BalancerError(f"a worker process could not be started: {error.strerror}") from None
        finally:
            theirs.close()
        try:
            self._reader, self._writer = await asyncio.open_connection(sock=ours)
            self._writer.write(messages.framed(begin) + b"".join(self._early))
            self.end = asyncio.create_task(self._listen())
            await asyncio.wait_for(self._accepts, START)
        except TimeoutError:
            await self.kill()
            raise BalancerError(f"a worker did not accept connections within {START:g} s") from None
        except BaseException:
            await self.kill()
            raise
        self.ready = True

    def tell(self, message: messages.ToWorker) -> None:
        """Sends a message; one to a worker that has ended is lost, one to a worker that begins comes after that."""
        if self._writer is None:
            self._early.append(messages.framed(message))
        elif not self._writer.is_closing():
            self._writer.write(messages.framed(message))

    async def ask(self, make: Callable[[int], messages.ToWorker], otherwise: Any) -> Any:
        """The answer to a question; `otherwise` if it has ended or does not answer in time."""
        if self._writer is not None and self._writer.is_closing():  # it has closed its end, and is being reaped
            return otherwise
        self._asked += 1
        number = self._asked
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        self.tell(make(number))
        try:
            return await asyncio.wait_for(answer, ANSWER)
        except TimeoutError:
            return otherwise
        finally:
            self._questions.pop(number, None)

    async def kill(self, patience: float = 0.0) -> None:
        """Tells it to stop, kills it after so many seconds, and reaps it."""
        if patience:
            self.tell(messages.Stop())
        if self.end is not None:
            await asyncio.wait([self.end], timeout=patience)
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        if self.end is not None:
            await self.end
        else:
            await self._reap()

    def how_it_ended(self) -> str:
        """`worker 3 (pid 812) was killed by SIGKILL`."""
        code = self._process.returncode
        name = f"worker {self.number} (pid {self.pid})"
        if code is not None and code < 0:
            return f"{name} was killed by {signal.Signals(-code).name}"
        return f"{name} ended with exit status {code}"

    async def _listen(self) -> None:
        """Takes what it says, until its end of the socket pair closes; then reaps it."""
        try:
            while data := await self._reader.read(1 << 18):
                for frame in self._frames.feed(data):
                    self._hear(self._decoder.decode(frame))
        except OSError:
            pass
        finally:
            if self._writer is not None:
                self._writer.close()
            for answer in self._questions.values():
                if not answer.done():
                    answer.set_exception(TimeoutError())
            await self._reap()
            if not self._accepts.done():
                self._accepts.set_exception(BalancerError(f"{self.how_it_ended()} before it accepted connections"))

    async def _reap(self) -> None:
        for _ in range(200):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(0.01)
        self._process.kill()
        while self._process.poll() is None:
            await asyncio.sleep(0.01)

    def _hear(self, message: messages.FromWorker) -> None:
        match message:
            case messages.Told():
                self.statistics = message.statistics
                self._answered(message.id, message.statistics)
            case messages.Answer():
                self._answered(message.id, message.number)
            case messages.Ready():
                if not self._accepts.done():
                    self._accepts.set_result(None)
            case messages.Broken():
                if not self._accepts.done():
                    self._accepts.set_exception(BalancerError(message.reason))
            case messages.Say():
                self._say(message.text)

    def _answered(self, number: int, value: Any) -> None:
        answer = self._questions.get(number)
        if answer is not None and not answer.done():
            answer.set_result(value)


def _spawn(channel: int, inherited: Iterable[int]) -> subprocess.Popen[bytes]:
    """Starts the process. Call it from the main thread: the kernel kills a worker when the thread that started it
    ends (PR_SET_PDEATHSIG)."""
    words = [sys.executable, "-P", "-m", "timewait.balancer.embedded.worker", str(channel), str(os.getpid())]
    # Where this package was found, for an interpreter that would not find it by itself.
    here = str(Path(timewait.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), here]))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            pass_fds=[channel, *inherited],
            env={**os.environ, "PYTHONPATH": path},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
