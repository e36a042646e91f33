"""The access log's end in a worker: whole lines, a full disk, a reader that has stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from timewait.balancer.embedded import access_log
from timewait.balancer.embedded.access_log import AccessLog, Record, open_log
from timewait.balancer.engine import BalancerError


def record(number: int, path: str = "/") -> Record:
    return Record(time=1.5, listener="web", client="10.0.0.1:5", connection=number, path=path)


def lines(data: bytes) -> list[int]:
    """Connections of the lines, each of which must be whole."""
    return [json.loads(line)["connection"] for line in data.splitlines()]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reads, writes = os.pipe2(os.O_NONBLOCK)
    yield reads, writes
    os.close(reads)
    os.close(writes)


def drained(descriptor: int) -> bytes:
    found = b""
    try:
        while data := os.read(descriptor, 1 << 16):
            found += data
    except BlockingIOError:
        pass
    return found


def test_lines_leave_out_what_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AccessLog(open_log(str(path)))
    log.write(record(7))
    assert path.read_bytes() == b""  # gathered
    log.flush()
    assert json.loads(path.read_text()) == {
        "time": 1.5,
        "listener": "web",
        "client": "10.0.0.1:5",
        "connection": 7,
        "path": "/",
    }


def test_much_at_once_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = AccessLog(open_log(str(path)))
    for number in range(2000):
        log.write(record(number))
    assert path.stat().st_size > 100_000
    log.flush()
    assert lines(path.read_bytes()) == list(range(2000))


def test_a_full_disk_loses_what_does_not_fit_and_counts_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(access_log, "WAITING_MOST", 1000)
    log = AccessLog(open_log("/dev/full"))
    for number in range(50):
        log.write(record(number))
        log.flush()
    assert 0 < log.lost < 50
    path = tmp_path / "log"  # there is room again
    os.dup2(open_log(str(path)), log._descriptor)
    log.flush()
    log.write(record(99))
    log.flush()
    found = lines(path.read_bytes())
    assert found == [*range(50 - log.lost), 99]


def test_a_reader_that_stopped_stops_nobody(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    """Lines longer than a pipe takes at once come whole in the end."""
    monkeypatch.setattr(access_log, "WAITING_MOST", 200_000)
    reads, writes = pipe
    log = AccessLog(writes)
    for number in range(100):
        log.write(record(number, "/" + "x" * 3000))
    log.flush()
    assert log.lost > 0
    found = drained(reads)
    for _ in range(20):
        log.flush()
        found += drained(reads)
    assert lines(found) == list(range(100 - log.lost))


def test_a_reader_that_left_costs_only_lines() -> None:
    reads, writes = os.pipe2(os.O_NONBLOCK)
    os.close(reads)
    log = AccessLog(writes)
    log.write(record(1))
    log.flush()
    log.write(record(2))
    log.flush()
    assert log.lost == 2
    os.close(writes)


def test_a_log_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BalancerError, match="No such file or directory"):
        open_log(str(tmp_path / "nowhere" / "log"))


def test_who_reads_the_log_finds_every_field_explained() -> None:
    page = (Path(__file__).parents[3] / "docs/balance-running.md").read_text()
    section = page.partition("\n## Access log\n")[2].partition("\n## ")[0]
    assert [field for field in Record.__struct_fields__ if f"`{field}`" not in section] == []


def test_its_end_loses_what_cannot_be_written() -> None:
    full = open_log("/dev/full")
    log = AccessLog(full)
    log.write(record(1))
    log.flush()
    before = (log.waiting, log.lost)
    log.end()
    assert (before, log.waiting, log.lost) == ((True, 0), False, 1)
    os.close(full)


def test_a_full_disk_is_told_once_and_its_end_too() -> None:
    said: list[str] = []
    full = os.open("/dev/full", os.O_WRONLY)
    log = AccessLog(full, said.append)
    for number in range(2):
        log.write(record(number))
        log.flush()
    assert len(said) == 1 and "cannot be written (No space left on device)" in said[0]
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, full)
    log.flush()
    assert said[1:] == ["access log: it can be written again"] and not log.lost
    os.close(null)
    os.close(full)
