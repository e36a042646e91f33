"""One worker process: builds the engine, runs the loop, sends a Tick a second up the pipe."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import struct
import sys
from random import Random

import msgspec

from timewait.plan import Plan
from timewait.stress.endpoints import Endpoint
from timewait.stress.engine import Engine
from timewait.stress.loop import run
from timewait.stress.meters import clock
from timewait.stress.opening import Opener

PR_SET_PDEATHSIG, PR_SET_TIMERSLACK = 1, 29  # prctl(2)
LENGTH = struct.Struct("!I")

STOP, HURRY = b"s", b"h"  # what the parent may say: end now and drain; end now and drain briefly
HURRY_SECONDS = 1.0
ENDING = (signal.SIGINT, signal.SIGTERM)


def main(
    plan: Plan, endpoints: list[Endpoint], span: tuple[int, int], reserved: set[int], worker: int, pipe: socket.socket
) -> None:
    """Runs in the forked child; never returns to the caller's stack except to exit."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)  # ns: due times are kept to microseconds, not to the default 50
    gc.disable()  # the loop makes no cycles; a collection would be a pause in the schedule

    opener = Opener(plan, span, reserved, worker, plan.workers, Random())
    pipe.sendall(b"r")  # ready
    (start_at,) = struct.unpack("!d", read_exactly(pipe, 8))
    engine = Engine(plan, endpoints, opener, worker, plan.workers, start_at)
    while (wait := start_at - clock()) > 0:
        signal.sigtimedwait([], wait)
    last = start_at

    def tick(now: float) -> None:
        nonlocal last
        engine.settle_all()
        record = engine.meters.tick(now - start_at, now - last, engine.held, engine.asked(now))
        record.open_most, engine.held_most = engine.held_most, engine.held
        last = now
        send(pipe, msgspec.msgpack.encode(record))

    def control() -> None:
        word = pipe.recv(1)
        engine.stop(clock(), HURRY_SECONDS if word == HURRY else engine.patience)
        if not word:
            os._exit(0)  # the parent is gone

    run(engine, pipe.fileno(), control, tick)
    engine.abandon()
    tick(clock())
    pipe.shutdown(socket.SHUT_WR)


def send(pipe: socket.socket, data: bytes) -> None:
    pipe.sendall(LENGTH.pack(len(data)) + data)


def read_exactly(pipe: socket.socket, size: int) -> bytes:
    """Raises EOFError when the other end has gone."""
    data = b""
    while len(data) < size:
        piece = pipe.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def fork(
    plan: Plan, endpoints: list[Endpoint], span: tuple[int, int], reserved: set[int], worker: int
) -> tuple[int, socket.socket]:
    """Starts worker number `worker`; returns its pid and our end of its pipe."""
    ours, theirs = socket.socketpair()
    sys.stdout.flush()
    sys.stderr.flush()
    # Ctrl-C reaches the whole process group and the parent decides what it means; held until the child ignores it.
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()
        return pid, ours
    code = 1
    try:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
        ours.close()
        main(plan, endpoints, span, reserved, worker, theirs)
        code = 0
    except BaseException as error:  # the child must end here, whatever happened, and say why
        if not isinstance(error, (EOFError, BrokenPipeError)):
            print(f"timewait: worker {worker} failed: {type(error).__name__}: {error}", file=sys.stderr)
            if os.environ.get("TIMEWAIT_DEBUG"):
                sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)
