"""The worker processes together: started, merged second by second, stopped; nothing of a dead one is lost."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from timewait.plan import Plan
from timewait.run import Tick
from timewait.stress.endpoints import Endpoint
from timewait.stress.worker import HURRY, LENGTH, STOP, fork, read_exactly

HEAD_START = 0.02  # seconds between "all are ready" and the first packet
STRAGGLER = 0.5  # seconds a second's tick waits for the slowest worker before it goes out without it


@dataclass
class Member:
    """One worker as its parent sees it."""

    number: int
    pid: int
    pipe: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    ticks: int = 0
    ended: bool = False
    died: str = ""


class Crew:
    """Runs a plan on `plan.workers` processes. `drive` yields control to `on_tick` once a second."""

    def __init__(self, plan: Plan, endpoints: list[Endpoint], span: tuple[int, int], reserved: set[int]) -> None:
        self._decoder = msgspec.msgpack.Decoder(Tick)
        self.members: list[Member] = []
        for number in range(plan.workers):
            self.members.append(Member(number, *fork(plan, endpoints, span, reserved, number)))
        self._pending: dict[int, Tick] = {}  # second -> what has come of it
        self._first_seen: dict[int, float] = {}
        self.started_at = 0.0
        self._wanted: bytes | None = None  # a stop that was asked for before the start was given

    @property
    def pids(self) -> list[int]:
        return [member.pid for member in self.members if not member.ended]

    @property
    def deaths(self) -> list[str]:
        """A sentence for every worker that died before its work was done."""
        return [member.died for member in self.members if member.died]

    def begin(self) -> float:
        """Gives the signal to start; returns the start on the monotonic clock. Raises RuntimeError."""
        for member in self.members:
            try:
                read_exactly(member.pipe, 1)
            except (EOFError, OSError):
                raise RuntimeError(f"worker {member.number} could not start") from None
        start = time.monotonic() + HEAD_START
        for member in self.members:
            member.pipe.sendall(struct.pack("!d", start))
        self.started_at = start
        if self._wanted is not None:
            self._tell(self._wanted)
        return start

    def stop(self, *, hurry: bool = False) -> None:
        """Asks every worker to begin nothing new and end; `hurry` shortens the wait for answers in flight."""
        self._wanted = HURRY if hurry else STOP
        if self.started_at:
            self._tell(self._wanted)

    def _tell(self, word: bytes) -> None:
        for member in self.members:
            if not member.ended:
                with contextlib.suppress(OSError):
                    member.pipe.send(word)

    def drive(self, on_tick: Callable[[Tick], None]) -> None:
        """Merges ticks of all workers until the last has ended."""
        with selectors.DefaultSelector() as selector:
            for member in self.members:
                selector.register(member.pipe, selectors.EVENT_READ, member)
            while any(not member.ended for member in self.members):
                for key, _ in selector.select(0.1):
                    self._read(key.data)
                    if key.data.ended:
                        selector.unregister(key.data.pipe)
                self._emit(on_tick)
        self._emit(on_tick, everything=True)

    def kill(self) -> None:
        """Ends every worker at once; `drive` then returns with what they have sent so far."""
        for member in self.members:
            if not member.ended:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends what still runs, at once."""
        self.kill()
        for member in self.members:
            if not member.ended:
                self._reap(member)
            member.pipe.close()

    def _read(self, member: Member) -> None:
        try:
            data = member.pipe.recv(1 << 20)
        except OSError:
            data = b""
        if not data:
            self._reap(member)
            return
        buffer = member.buffer
        buffer += data
        while len(buffer) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(buffer)
            if len(buffer) < LENGTH.size + size:
                break
            self._merge(member, self._decoder.decode(bytes(buffer[LENGTH.size : LENGTH.size + size])))
            del buffer[: LENGTH.size + size]

    def _merge(self, member: Member, tick: Tick) -> None:
        second = member.ticks
        member.ticks += 1
        if second in self._pending:
            self._pending[second].add(tick, side_by_side=True)
        else:
            self._pending[second] = tick
            self._first_seen[second] = time.monotonic()

    def _emit(self, on_tick: Callable[[Tick], None], *, everything: bool = False) -> None:
        """Hands on every second that is complete, or has waited long enough for a straggler."""
        now = time.monotonic()
        for second in sorted(self._pending):
            missing = any(not member.ended and member.ticks <= second for member in self.members)
            if missing and not everything and now - self._first_seen[second] < STRAGGLER:
                return
            del self._first_seen[second]
            on_tick(self._pending.pop(second))

    def _reap(self, member: Member) -> None:
        member.ended = True
        _, status = os.waitpid(member.pid, 0)
        if status:
            code = os.waitstatus_to_exitcode(status)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
            member.died = f"worker {member.number} (pid {member.pid}) {how}; its last second is lost"
