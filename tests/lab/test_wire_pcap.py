"""Capture files, and the memory that a wire tells through: whole also when something fails in the midst."""

from __future__ import annotations

import errno
import itertools
import os
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.wired import captured
from timewait.lab.children import start
from timewait.lab.wire import pcap
from timewait.lab.wire.board import Board
from timewait.lab.wire.pcap import Recorder


def test_what_is_recorded_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    file = pcap.create(path)
    recorder = Recorder(file)
    recorder.add(b"first frame", 1_700_000_000_123_456_789)
    recorder.add(memoryview(b"second"), 1_700_000_001_000_000_000, length=1500)
    assert captured(str(path)) == []
    recorder.flush()
    assert captured(str(path)) == [
        (1_700_000_000_123_456_789, b"first frame"),
        (1_700_000_001_000_000_000, b"second"),
    ]
    assert (recorder.frames, recorder.error) == (2, 0)
    os.close(file)


def test_much_is_written_before_anybody_asks(tmp_path: Path) -> None:
    file = pcap.create(tmp_path / "a.pcap")
    recorder = Recorder(file)
    for number in range(100):
        recorder.add(b"x" * 1500, number)
    assert len(captured(str(tmp_path / "a.pcap"))) > 40
    os.close(file)


def test_a_full_disk_is_an_error_of_the_recorder_and_no_exception() -> None:
    file = os.open("/dev/full", os.O_WRONLY)
    recorder = Recorder(file)
    recorder.add(b"frame", 0)
    recorder.flush()
    assert (recorder.error, recorder.frames) == (errno.ENOSPC, 0)
    recorder.add(b"frame", 0)
    recorder.flush()
    assert recorder.frames == 0
    os.close(file)


@pytest.mark.parametrize("room", range(100, 260, 7))
def test_where_the_room_ends_the_file_ends_with_a_whole_record(tmp_path: Path, room: int) -> None:
    path = tmp_path / "a.pcap"

    def record() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
        recorder = Recorder(pcap.create(path))
        for number in range(2):
            for frame in (b"a" * 30, b"b" * 3, b"c" * 50):
                recorder.add(frame, number)
            recorder.flush()
        assert recorder.error == errno.EFBIG
        assert recorder.frames == len(captured(str(path)))

    assert start(record).wait(20) == 0
    wanted = [b"a" * 30, b"b" * 3, b"c" * 50] * 2
    found = [frame for _, frame in captured(str(path))]
    assert found == wanted[: len(found)]
    assert path.stat().st_size <= room < path.stat().st_size + 66


def test_a_file_that_cannot_be_made_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pcap.create(tmp_path / "missing" / "a.pcap")
    with pytest.raises(OSError):
        pcap.create("/dev/full")


@given(st.lists(st.binary(max_size=50), max_size=20), st.lists(st.binary(max_size=64), max_size=5))
def test_the_board_gives_what_was_put_on_it(records: list[bytes], states: list[bytes]) -> None:
    board = Board(state=64, records=300)
    for state in states:
        board.show(state)
    for record in records:
        board.add(record)
    found = board.records()
    assert board.state() == (states[-1] if states else b"")
    assert found == records[: len(found)]
    assert len(found) + board.lost == len(records)
    assert board.lost == 0 or sum(len(one) + 2 for one in records[: len(found) + 1]) > 300


def test_a_state_is_never_read_half_written() -> None:
    board = Board(state=4096)

    def write() -> None:
        for number in itertools.count():
            board.show(bytes([number % 256]) * (1 + number % 4000))

    writer = start(write)
    seen: set[bytes] = set()
    reads, limit = 0, time.monotonic() + 60
    while reads < 30_000 or len(seen) < 20:
        assert time.monotonic() < limit, (reads, len(seen))
        state = board.state()
        assert len(set(state)) <= 1
        seen.add(state[:1])
        reads += 1
    assert writer.stop() < 0
