"""The parts the engine is made of: the order of events, the search for a port, compiled decisions."""

from __future__ import annotations

import heapq
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulate import decisions
from timewait.histogram import indices
from timewait.simulate.engine import build, compiled, memory
from timewait.simulate.engine.compiled import can_keep, compiler
from timewait.simulate.engine.connection import latency_index
from timewait.simulate.engine.holder import ready_ms
from timewait.simulate.engine.ports import lowest, put, search, take, word_of
from timewait.simulate.engine.state import C_WHEN, NOBODY, SLOT, Fixed, State
from timewait.simulate.engine.wheel import happened, peek, schedule
from timewait.simulate.world import Clients, Scenario
from timewait.tcp import choice
from timewait.tcp.kernels import KERNELS, Kernel, knobs
from timewait.tcp.reuse import reuse
from timewait.tcp.timewait import TimeWait

pytestmark = pytest.mark.timeout(300)  # whichever test comes first compiles the engine
BY_NAME = {kernel.name: kernel for kernel in KERNELS}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 500, 10**6, 10**9, 70 * 10**9]), st.integers(0, 10**9)),
        min_size=1,
        max_size=300,
    ),
    st.sampled_from([6, 13, 24]),
)
def test_events_come_in_the_order_of_a_heap(delays: list[tuple[int, int]], width: int) -> None:
    scenario = Scenario(clients=Clients(count=1, sysctls={"ip_local_port_range": "20000-20009"}))
    f = build.fixed(scenario, 1)
    s = memory.plain(memory.state(f, [], build.sends(scenario), 1024))
    heap: list[tuple[int, int]] = []
    random.Random(1).shuffle(delays)
    now = 0
    for made, (scale, part) in enumerate(delays):
        when = now + scale * part // 10**9 + part % 3
        schedule(s, width, made, when)
        heapq.heappush(heap, (when, made))
        if made % 3 == 2:
            now = _next(s, f, width, heap)
    while heap:
        _next(s, f, width, heap)
    assert peek(s, f, width, 1 << 62) == NOBODY


def _next(s: State, f: Fixed, width: int, heap: list[tuple[int, int]]) -> int:
    when, made = heapq.heappop(heap)
    slot = peek(s, f, width, when)
    assert slot == made
    assert s.conns[slot * SLOT + C_WHEN] == when
    happened(s)
    return when


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(KERNELS), st.integers(1, 200), st.integers(0, 2**32 - 1), st.data())
def test_the_search_by_bits_finds_what_the_kernels_search_finds(
    kernel: Kernel, ports: int, hint: int, data: st.DataObject
) -> None:
    low, high = 20000, 19999 + ports
    states = data.draw(st.lists(st.sampled_from([choice.FREE, choice.BUSY]), min_size=ports, max_size=ports))
    words, odd = build.halves(kernel.rules, ports)
    bits = [0] * words
    for offset, state in enumerate(states):
        word, at = word_of(odd, offset)
        (put if state == choice.FREE else take)(bits, word, at)
    offset = choice.start(kernel.rules, low, high, hint, 12345)
    wanted = choice.choose(kernel.rules, low, high, offset, states)
    if ports > 1 or odd == 0:
        found = search(bits, 0, odd, ports, choice.nth(kernel.rules, low, high, offset, 0) - low)
        assert (found.offset + low if found.offset >= 0 else choice.NO_PORT) == wanted.port
        if found.offset >= 0:
            assert found.n + 1 == wanted.tried


@given(st.integers(1, 2**32 - 1))
def test_the_lowest_bit(word: int) -> None:
    assert word >> lowest(word) & 1 and word & ((1 << lowest(word)) - 1) == 0


@given(st.integers(0, 3_599_000_000_000))
def test_latencies_fall_where_the_histogram_puts_them(value: int) -> None:
    assert latency_index(value) == int(indices(np.array([value]))[0])


@pytest.mark.parametrize("name", ["2.6.32", "4.9", "4.19", "6.6", "6.14", "6.18"])
@given(st.integers(5_000_000, 5_100_000))
def test_a_port_is_ready_in_the_first_ms_in_which_reuse_allows_it(name: str, entered: int) -> None:
    kernel = BY_NAME[name]
    on = knobs(kernel, {"tcp_tw_reuse": 1})
    stamp = entered // 1000
    ready = ready_ms(kernel.rules, on, stamp, entered, entered + 60_000)
    tw = TimeWait(ts=5, stamp=stamp, entered_ms=entered)
    assert reuse(kernel.rules, on, tw, ready // 1000, ready).reuses
    assert not reuse(kernel.rules, on, tw, (ready - 1) // 1000, ready - 1).reuses
    assert ready_ms(kernel.rules, kernel.defaults, 0, entered, entered + 60_000) == entered + 60_000


@pytest.mark.parametrize("name", ["2.6.32", "el7", "4.9", "6.6", "6.18"])
def test_compiled_decisions_are_the_interpreted_ones(name: str) -> None:
    """A million random inputs in all: 100,000 for each of the two deciders and five kernels."""
    kernel = BY_NAME[name]
    wanted: dict[str, str | int] = {"tcp_tw_reuse": 1}
    if kernel.release < (4, 12, 0):
        wanted["tcp_tw_recycle"] = 1
    rules, on = kernel.rules, knobs(kernel, wanted)
    numbers = np.random.default_rng(5).integers(0, 2**32, (100_000, 12))
    for decide in (decisions.meet, decisions.hear):
        compiled = compiler([decide])[0]
        one, other = np.zeros(len(numbers), dtype=np.int64), [0] * len(numbers)
        compiled(rules, on, numbers, one)
        decide(rules, on, numbers.tolist(), other)
        assert one.tolist() == other
        assert len(set(other)) > 5


def test_where_machine_code_cannot_be_kept_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert not can_keep(tmp_path / "file" / "compiled")
    assert not can_keep(Path("/proc/none"))
    assert can_keep(tmp_path / "compiled")
    monkeypatch.setattr(compiled, "NEEDED", 1 << 62)  # a full disk
    assert not can_keep(tmp_path / "compiled")


def test_a_changed_rule_has_another_digest() -> None:
    from timewait.simulate.engine.compiled import digest

    def one(x: int) -> int:
        return x + 1

    def two(x: int) -> int:
        return x + 2

    assert digest([one], "1") != digest([two], "1")
    assert digest([one], "1") != digest([one], "2")
    assert digest([one], "1") == digest([one], "1")
