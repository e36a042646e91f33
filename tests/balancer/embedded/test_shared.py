"""What workers hold together: limits and sessions, in memory that several processes see."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from timewait.balancer.embedded import shared
from timewait.balancer.embedded.shared import Limits, Sessions, Shared, tag


@pytest.fixture
def memory() -> Iterator[Shared]:
    found = Shared(shared.create())
    for slot in range(3):
        found.take_slot(0, slot)
    yield found
    found.close()


def test_connections_of_all_workers_count(memory: Shared) -> None:
    one, two = (Limits(memory, 0, slot, max_conn=3, max_cps=-1) for slot in (0, 1))
    assert [one.admit(0), two.admit(0), one.admit(0), two.admit(0)] == ["", "", "", "over_max_conn"]
    one.release()
    assert [two.admit(0), one.admit(0)] == ["", "over_max_conn"]


def test_what_a_killed_worker_held_is_given_back(memory: Shared) -> None:
    one, two = (Limits(memory, 0, slot, max_conn=2, max_cps=-1) for slot in (0, 1))
    assert one.admit(0) == one.admit(0) == ""
    assert two.admit(0) == "over_max_conn"
    memory.take_slot(0, 0)
    assert two.admit(0) == ""


def test_listeners_do_not_share_a_row(memory: Shared) -> None:
    memory.take_slot(1, 0)
    one, other = (Limits(memory, row, 0, max_conn=1, max_cps=-1) for row in (0, 1))
    assert [one.admit(0), other.admit(0), one.admit(0)] == ["", "", "over_max_conn"]


def test_connections_a_second(memory: Shared) -> None:
    """A second's worth may come at once; then tokens come back at the rate."""
    one, two = (Limits(memory, 0, slot, max_conn=-1, max_cps=10) for slot in (0, 1))
    assert [(one, two)[n % 2].admit(100.0) for n in range(12)] == [""] * 10 + ["over_max_cps"] * 2
    assert [one.admit(100.25) for _ in range(3)] == ["", "", "over_max_cps"]
    assert [one.admit(200.0) for _ in range(11)] == [""] * 10 + ["over_max_cps"]  # no more than a second's worth


def test_a_worker_killed_with_the_lock_locks_nobody_out(memory: Shared) -> None:
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        memory.lock(0, 100)
        os.write(tell, b"x")
        os.kill(os.getpid(), 9)
    os.read(ready, 1)
    os.waitpid(pid, 0)
    assert Limits(memory, 0, 0, max_conn=1, max_cps=-1).admit(0) == ""
    os.close(ready)
    os.close(tell)


def test_a_source_keeps_its_target_until_it_is_away_too_long(memory: Shared) -> None:
    one, other = Sessions(memory), Sessions(memory)  # of two workers
    assert one.find("app", b"\x0a\0\0\1", 60, 0.0) is None
    one.remember("app", b"\x0a\0\0\1", tag("10.1.1.1:80"), 60, 0.0)
    assert other.find("app", b"\x0a\0\0\1", 60, 59.0) == tag("10.1.1.1:80")
    assert other.find("app", b"\x0a\0\0\1", 60, 118.0) == tag("10.1.1.1:80")  # as each visit counts
    assert other.find("app", b"\x0a\0\0\2", 60, 118.0) is None
    assert other.find("web", b"\x0a\0\0\1", 60, 118.0) is None
    assert one.find("app", b"\x0a\0\0\1", 60, 178.5) is None
    one.remember("app", b"\x0a\0\0\1", tag("10.1.1.2:80"), 60, 179.0)
    assert other.find("app", b"\x0a\0\0\1", 60, 180.0) == tag("10.1.1.2:80")


def test_a_full_table_forgets_who_would_end_first(memory: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "BUCKETS", 1)
    sessions = Sessions(memory)
    for number in range(shared.WAYS + 2):
        sessions.remember("app", bytes([number]), tag("a"), 60, float(number))
    kept = [sessions.find("app", bytes([number]), 60, 20.0) is not None for number in range(shared.WAYS + 2)]
    assert kept == [False] * 2 + [True] * shared.WAYS
