"""Allocators against a plain model: no port twice at once, none lost, the promised order."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.plan import PortPolicy
from timewait.stress.source_ports import allocator, parse_reserved, ports_of

OURS = [policy for policy in PortPolicy if policy is not PortPolicy.KERNEL]


@pytest.mark.parametrize("policy", OURS)
@given(size=st.integers(1, 30), steps=st.lists(st.booleans(), max_size=200), seed=st.integers())
def test_no_port_is_held_twice_and_none_is_lost(policy: PortPolicy, size: int, steps: list[bool], seed: int) -> None:
    ports = list(range(1000, 1000 + size))
    found = allocator(policy, ports, Random(seed))
    assert found is not None
    held: list[int] = []
    for take in steps:
        if take:
            port = found.take()
            if len(held) == size:
                assert port == 0
            else:
                assert port in ports
                assert port not in held
                held.append(port)
        elif held:
            found.give(held.pop(len(held) // 2))
    for port in held:
        found.give(port)
    assert sorted(found.take() for _ in ports) == ports


def test_oldest_gives_the_port_that_rested_longest() -> None:
    found = allocator(PortPolicy.OLDEST, [1, 2, 3], Random(0))
    assert found is not None
    assert [found.take(), found.take()] == [1, 2]
    found.give(2)
    found.give(1)
    assert [found.take(), found.take(), found.take()] == [3, 2, 1]


def test_sequential_goes_round() -> None:
    found = allocator(PortPolicy.SEQUENTIAL, [1, 2, 3], Random(0))
    assert found is not None
    seen = []
    for _ in range(5):
        port = found.take()
        seen.append(port)
        found.give(port)
    assert seen == [1, 2, 3, 1, 2]


def test_the_kernel_chooses() -> None:
    assert allocator(PortPolicy.KERNEL, [], Random(0)) is None


def test_reserved_ports() -> None:
    assert parse_reserved("8080,9148,10000-10002\n") == {8080, 9148, 10000, 10001, 10002}
    assert parse_reserved("\n") == set()


@given(st.integers(1, 300), st.integers(0, 300), st.sets(st.integers(1, 400)), st.integers(1, 5))
def test_workers_share_the_range(low: int, width: int, reserved: set[int], workers: int) -> None:
    parts = [ports_of(low, low + width, reserved, worker, workers) for worker in range(workers)]
    assert sorted(port for part in parts for port in part) == [
        port for port in range(low, low + width + 1) if port not in reserved
    ]
