"""Records what a host's interface sends and gets to a capture file, as tcpdump would, in a process of its own."""

from __future__ import annotations

import errno
import os
import select
from pathlib import Path

from timewait.lab import children
from timewait.lab.children import on_sigterm
from timewait.lab.namespaces import Namespace
from timewait.lab.wire import pcap
from timewait.lab.wire.board import Board
from timewait.lab.wire.tap import Tap

_AT_ONCE = 256
_TOLD_EVERY = 0.05  # seconds
_PATIENCE = 20.0  # seconds for the end of the file to be written, on a disk or a machine that is busy
_LAST_TURNS = 16  # what waits in the ring when the end comes; without a limit a flood would keep us from ending


class Recorder:
    """Records until `stop`, or this process's end. Raises OSError when the file cannot be made, or the interface is
    not there.

    Checksums in the file are right, also those a host leaves to its card. Frames may be longer than the MTU: a host
    hands up to 64 KB to a veth in one, and the file has the beginning of those.
    """

    def __init__(self, namespace: Namespace, interface: str, path: str | Path) -> None:
        self.path = Path(path)
        self._board = Board(state=64, records=0)
        with namespace.entered():
            tap = Tap(interface, outgoing=True)
            try:
                file = pcap.create(path)
                try:
                    keep = [tap.fileno(), file]
                    self._child = children.start(lambda: _record(tap, file, self._board), keep)
                finally:
                    os.close(file)
            finally:
                tap.close()

    @property
    def frames(self) -> int:
        """Frames in the file, as of 50 ms ago."""
        return self._told()[0]

    @property
    def error(self) -> str:
        """Why the file is not complete, in a sentence; empty: it is."""
        _, lost, number = self._told()
        if number:
            why = f"{errno.errorcode.get(number, number)}, {os.strerror(number)}"
            return f"{self.path}: recording stopped after {self.frames} frames ({why})"
        return f"{self.path}: {lost} frames came too fast to be recorded" if lost else ""

    def stop(self) -> None:
        """Ends it, with everything that has come so far in the file."""
        self._child.stop(_PATIENCE)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _told(self) -> tuple[int, int, int]:
        frames, lost, number = map(int, (self._board.state() or b"0 0 0").split())
        return frames, lost, number


def _record(tap: Tap, file: int, board: Board) -> None:
    """The process: until SIGTERM, the end of the interface, or of the room on the disk."""
    stop = on_sigterm()
    tap.start()
    recorder = pcap.Recorder(file)
    lost, ending = 0, False
    while not ending:
        readable, _, _ = select.select([tap.fileno(), stop], [], [], _TOLD_EVERY)
        taken = _drain(tap, recorder)
        gone = tap.fileno() in readable and not taken and tap.failed()
        ending = gone or stop in readable or recorder.error != 0
        for _ in range(_LAST_TURNS if ending else 0):
            _drain(tap, recorder)
        recorder.flush()
        lost += tap.lost()
        board.show(b"%d %d %d" % (recorder.frames, lost, recorder.error))


def _drain(tap: Tap, recorder: pcap.Recorder) -> int:
    taken = 0
    for frame, length in tap.frames(_AT_ONCE):
        recorder.add(frame, tap.time_ns(), length)
        taken += 1
    return taken
