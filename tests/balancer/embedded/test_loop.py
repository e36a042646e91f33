"""The embedded engine's event loop."""

from __future__ import annotations

import os
import socket

import pytest

from timewait.balancer.embedded.loop import IN, NEVER, PEER_CLOSED, READ, READ_AND_WRITE, SWEEP, Loop


@pytest.fixture
def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


def test_an_event_is_told_once_while_nothing_new_comes(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    loop = Loop()
    told: list[int] = []
    then = iter([lambda: theirs.sendall(b"b"), theirs.close, loop.stop])

    def tell(events: int) -> None:
        told.append(events)
        loop.after(0.05, next(then))  # until then nothing new comes

    loop.watch(ours.fileno(), READ, tell)
    theirs.send(b"a")
    loop.run()
    assert told[:2] == [IN, IN]
    assert told[-1] & PEER_CLOSED
    assert len(told) == 3
    loop.close()
    ours.close()


def test_timers_come_in_their_order_and_cancelled_ones_not_at_all() -> None:
    loop, order = Loop(), []
    loop.after(0.03, lambda: order.append("second"))
    loop.after(0.01, lambda: order.append("first"))
    loop.cancel(loop.after(0.02, lambda: order.append("never")))
    loop.after(0.04, loop.stop)
    loop.soon(lambda: order.append("soon"))
    loop.run()
    assert order == ["soon", "first", "second"]
    loop.close()


class Thing:
    def __init__(self, deadline: float, loop: Loop) -> None:
        self.deadline, self.loop, self.at = deadline, loop, 0.0

    def expired(self, now: float) -> None:
        assert now >= self.deadline
        self.at, self.deadline = now, NEVER


def test_deadlines_never_come_early_and_may_be_moved() -> None:
    loop = Loop()
    things = [Thing(loop.now + 0.1, loop) for _ in range(500)]
    moved, let_go = Thing(loop.now + 0.05, loop), Thing(loop.now + 0.05, loop)
    for thing in [*things, moved, let_go]:
        loop.guard(thing)
    moved.deadline = NEVER
    loop.unguard(let_go)
    loop.unguard(let_go)

    def look() -> None:
        loop.after(SWEEP, loop.stop if all(thing.at for thing in things) else look)

    look()
    loop.run()
    assert all(thing.at for thing in things)
    assert moved.at == let_go.at == 0
    loop.close()


def test_an_event_of_a_closed_descriptor_is_not_told_to_its_heir() -> None:
    """Two events in one turn; the handler of the first closes the other's descriptor and opens one of its number."""
    loop = Loop()
    heirs: list[int] = []
    pipes = [os.pipe() for _ in range(2)]
    opened: list[int] = []

    def close_the_other(own: int, other: int) -> None:
        loop.forget(own)
        loop.closed(other)
        os.close(other)
        read, write = os.pipe()
        opened.extend((read, write))
        assert read == other
        loop.watch(read, READ_AND_WRITE, heirs.append)
        loop.after(0.05, loop.stop)

    ends = [read for read, _ in pipes]
    for own, other in (ends, ends[::-1]):
        loop.watch(own, IN, lambda _, own=own, other=other: close_the_other(own, other))  # type: ignore[misc]
    for _, write in pipes:
        os.write(write, b"x")
    loop.run()
    assert heirs == []
    loop.close()
    for fd in [write for _, write in pipes] + opened:
        os.close(fd)
    for end in set(ends) - set(opened):
        os.close(end)


def test_a_descriptor_that_a_timer_closed_is_free_for_another() -> None:
    """Edge-triggered: an event that is held back once never comes again."""
    loop = Loop()
    told: list[int] = []
    first, second = os.pipe(), os.pipe()

    def tell(events: int) -> None:
        told.append(events)
        loop.after(0.05, loop.stop)

    loop.watch(first[0], READ, tell)

    def replace() -> None:
        loop.closed(first[0])
        os.dup2(second[0], first[0])
        loop.watch(first[0], READ, tell)
        os.write(second[1], b"x")

    loop.after(0.01, replace)
    loop.after(10, loop.stop)
    loop.run()
    assert told == [IN]
    loop.close()
    for fd in (*first, *second):
        os.close(fd)


def test_a_bug_in_a_handler_ends_nothing_but_what_it_is_told() -> None:
    told = []
    loop = Loop(on_error=lambda fd, error: told.append((fd, str(error))))
    read, write = os.pipe()

    def bug(events: int) -> None:
        loop.after(0, loop.stop)
        raise ValueError("a bug")

    loop.watch(read, READ, bug)
    os.write(write, b"x")
    loop.run()
    assert told == [(read, "a bug")]
    loop.close()
    os.close(read)
    os.close(write)


def test_a_bug_in_a_timer_or_at_a_deadline_ends_nothing_either() -> None:
    told: list[str] = []
    loop = Loop(on_error=lambda fd, error: told.append(f"{fd} {error}"))

    def bug() -> None:
        raise ValueError("a bug")

    class Buggy:
        deadline = 0.0

        def expired(self, now: float) -> None:
            raise ValueError("too late")

    loop.soon(bug)
    loop.after(0, bug)
    loop.guard(Buggy())
    loop.after(0.6, loop.stop)  # two sweeps
    loop.run()
    assert sorted(told) == ["-1 a bug", "-1 a bug", "-1 too late"]
    loop.close()


def test_without_anyone_to_tell_a_bug_is_raised() -> None:
    loop = Loop()
    read, write = os.pipe()

    def bug(events: int) -> None:
        raise ZeroDivisionError

    loop.watch(read, READ, bug)
    os.write(write, b"x")
    with pytest.raises(ZeroDivisionError):
        loop.run()
    loop.close()
    os.close(read)
    os.close(write)
