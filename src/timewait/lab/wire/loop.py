"""The process of a wire: frames in, the core's decision, frames out. The decisions are all in `core`.

One turn takes up to 64 frames from either end, so that a flood from one side cannot starve the other; the reader of
the counts sees them at most a millisecond late. It waits in select(2), not in epoll: the descriptors are three, and
its timeout is in microseconds, where that of epoll_wait(2) is in milliseconds, too coarse for delays.
"""

from __future__ import annotations

import gc
import select
import time

import msgspec

from timewait.lab.children import on_sigterm
from timewait.lab.wire import told
from timewait.lab.wire.board import Board
from timewait.lab.wire.core import Core, Frame, dice
from timewait.lab.wire.pcap import Recorder
from timewait.lab.wire.spec import WireSpec
from timewait.lab.wire.tap import Tap

ENDED, GONE = 0, 3  # exit statuses: SIGTERM; an interface is no more
_AT_ONCE = 64
_SHOWN_EVERY = 0.001  # seconds

_SENDING, _OVERRUNS, _TOO_LONG = range(3)


class Loop:
    """Runs until SIGTERM comes or an end of the wire goes away."""

    def __init__(self, spec: WireSpec, taps: tuple[Tap, Tap], board: Board, file: int) -> None:
        self._taps, self._board = taps, board
        self._recorder = Recorder(file) if file >= 0 else None
        self._core = Core(spec, dice(spec.seed), self._record if self._recorder else None)
        self._arrived = [0, 0]
        self._errors = [0, 0, 0]
        self._began = self._shown = time.monotonic()
        self._fresh = True  # the board shows the present state
        self._encoder = msgspec.msgpack.Encoder()

    def run(self) -> int:
        """The exit status."""
        gc.disable()  # nothing here makes cycles, and looking for them would stop the wire for milliseconds
        stop = on_sigterm()
        for tap in self._taps:
            tap.start()
        ends = [tap.fileno() for tap in self._taps]
        status = None
        while status is None:
            readable, _, _ = select.select([*ends, stop], [], [], self._patience())
            for side, end in enumerate(ends):
                if end in readable and not self._drain(side) and self._taps[side].failed():
                    status = GONE
            if stop in readable:
                status = ENDED
            self._advance()
        self._finish()
        return status

    def _patience(self) -> float | None:
        """Seconds until something is to be done though no frame comes; None: nothing is."""
        due = self._core.due()
        if not self._fresh:
            due = min(due, self._shown + _SHOWN_EVERY)
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _drain(self, side: int) -> int:
        """Takes what waits at one end; how many frames that were."""
        take, now, taken = self._core.take, time.monotonic, 0
        for frame, length in self._taps[side].frames(_AT_ONCE):
            taken += 1
            if len(frame) < length:
                self._errors[_TOO_LONG] += 1
            elif take(frame, side, now()):
                self._send(frame, 1 - side)
        self._arrived[side] += taken
        return taken

    def _send(self, frame: Frame, side: int) -> None:
        try:
            self._taps[side].send(frame)
        except OSError:
            self._errors[_SENDING] += 1

    def _advance(self) -> None:
        """What the time brings: frames whose delay is over, ends of TIME_WAITs; and the board."""
        now = time.monotonic()
        if self._core.due() <= now:
            for frame, side in self._core.ready(now):
                self._send(frame, 1 - side)
            self._core.expire(now)
        if self._recorder:
            self._recorder.flush()
        self._fresh = False
        if now - self._shown >= _SHOWN_EVERY:
            self._show(now)

    def _show(self, now: float) -> None:
        for tap in self._taps:
            self._errors[_OVERRUNS] += tap.lost()
        recorded, error = (self._recorder.frames, self._recorder.error) if self._recorder else (0, 0)
        state = told.counts(self._core, self._arrived, self._errors, recorded, error)
        self._board.show(self._encoder.encode(state))
        for drop in self._core.syns:
            full = self._board.lost > 0  # a flood of SYNs must not cost more than counting them
            self._board.add(b"" if full else self._encoder.encode(told.event(drop, self._began)))
        self._core.syns.clear()
        self._shown, self._fresh = now, True

    def _finish(self) -> None:
        """Frames still on their way are lost; what was recorded is not."""
        if self._recorder:
            self._recorder.flush()
        self._show(time.monotonic())

    def _record(self, frame: Frame) -> None:
        assert self._recorder is not None
        self._recorder.add(frame, time.time_ns())
