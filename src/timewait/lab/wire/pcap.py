"""Capture files: the classic format, Ethernet, times in nanoseconds; tcpdump, tshark and Wireshark read it.

    file    magic 0xa1b23c4d, version 2.4, zone 0, accuracy 0, longest record, link type 1 (Ethernet)
    record  seconds, nanoseconds, bytes here, bytes there were; then the bytes

https://www.tcpdump.org/manpages/pcap-savefile.5.html (times since 1970, in the byte order of the file).
"""

from __future__ import annotations

import os
from pathlib import Path
from struct import Struct

from timewait.lab.frames import Bytes

_HEADER = Struct("<IHHiIII")
_RECORD = Struct("<IIII")
_SNAP = 262_144  # libpcap's own default
_FLUSH = 65_536  # bytes


def create(path: str | Path) -> int:
    """A new file, emptied if it exists; its descriptor. Raises OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    header = _HEADER.pack(0xA1B23C4D, 2, 4, 0, 0, _SNAP, 1)
    try:
        if os.write(file, header) != len(header):
            raise OSError(f"{path}: no room for the header of a capture file")
    except OSError:
        os.close(file)
        raise
    return file


class Recorder:
    """Writes frames to a file made by `create`. It never raises: where it fails, it stops and says so in `error`.

    The file ends with a whole record then, and at every `flush`.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._waiting: list[bytes] = []
        self._bytes = 0  # in `_waiting`
        self._end = _HEADER.size  # of the last whole record in the file
        self.frames = 0  # in the file, or waiting for `flush`
        self.error = 0  # errno of the write that failed

    def add(self, frame: Bytes, time_ns: int, length: int = 0) -> None:
        """One frame, seen at this moment of the wall clock; `length` where there was more than `frame` has."""
        if self.error:
            return
        seconds, rest = divmod(time_ns, 1_000_000_000)
        record = _RECORD.pack(seconds, rest, len(frame), length or len(frame)) + frame
        self._waiting.append(record)
        self._bytes += len(record)
        self.frames += 1
        if self._bytes >= _FLUSH:
            self.flush()

    def flush(self) -> None:
        """Writes what waits."""
        if not self._waiting:
            return
        records, self._waiting, self._bytes = self._waiting, [], 0
        text = memoryview(b"".join(records))
        written = 0
        try:
            while written < len(text):
                written += os.write(self._file, text[written:])
        except OSError as error:
            self.error = error.errno or -1
            self._cut(records, written)
        else:
            self._end += len(text)

    def _cut(self, records: list[bytes], written: int) -> None:
        """A half record at the end would make readers complain of the whole file."""
        for number, record in enumerate(records):
            if written < len(record):
                self.frames -= len(records) - number
                break
            written -= len(record)
            self._end += len(record)
        try:
            os.ftruncate(self._file, self._end)
        except OSError:  # no regular file: nothing to cut off
            pass
