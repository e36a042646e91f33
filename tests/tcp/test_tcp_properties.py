"""What holds for every kernel and every input."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tcp.versions import ALL
from timewait.tcp import choice, clock, counters, endings, length, listener, recycle, reuse, rulebook, timewait
from timewait.tcp.action import Action
from timewait.tcp.endings import ENDINGS, Conditions, End
from timewait.tcp.kernels import KERNELS, Kernel, kernel
from timewait.tcp.listener import Listener
from timewait.tcp.profiles import WHEELS
from timewait.tcp.recycle import Record
from timewait.tcp.segment import Segment, after, in_window, older, s32, u32
from timewait.tcp.states import EVENTS, Event, State
from timewait.tcp.timewait import TCP_TIMEWAIT_LEN, Answer, TimeWait

U32 = 2**32
numbers = st.integers(0, U32 - 1)
near = st.one_of(numbers, st.integers(4_990, 5_010), st.integers(99_990, 100_010))
seconds = st.integers(1, 2**31)
kernels = st.sampled_from(KERNELS)
segments = st.builds(
    Segment,
    seq=near,
    ack=near,
    flags=st.integers(0, 31),
    length=st.integers(0, 3),
    has_ts=st.booleans(),
    tsval=near,
    tsecr=near,
)
time_waits = st.builds(
    TimeWait,
    rcv_nxt=near,
    snd_nxt=numbers,
    ts=near,
    stamp=st.one_of(st.just(0), seconds),
    fin_wait2=st.booleans(),
    entered_ms=seconds,
    last_ack_ms=seconds,
    loopback=st.booleans(),
    rcv_wnd=st.integers(0, 65_535),
    timeout_ms=st.integers(700, TCP_TIMEWAIT_LEN),
)


def _answer(row: Kernel, tw: TimeWait, segment: Segment, now: int, rfc1337: int = 0, recycle_on: int = 0) -> Answer:
    knobs = row.defaults._replace(tcp_rfc1337=rfc1337, tcp_tw_recycle=recycle_on)
    return timewait.answer(row.rules, knobs, tw, segment, now, now * 1000)


@given(kernels, time_waits, segments, seconds, st.integers(0, 1), st.integers(0, 1))
def test_every_segment_has_an_answer_on_every_kernel(
    row: Kernel, tw: TimeWait, segment: Segment, now: int, rfc1337: int, recycle_on: int
) -> None:
    found = _answer(row, tw, segment, now, rfc1337, recycle_on)
    action = Action(found.action)
    assert found.rule in rulebook.RULES
    assert action is not Action.COOKIE
    assert found.gone is (action in (Action.ACCEPT, Action.DROP, Action.RESET, Action.KILL))
    assert (found.isn != 0) is (action is Action.ACCEPT)
    assert not (found.gone and found.rearm_ms)
    # No TIME_WAIT outlives its rule: what starts again runs no longer than 60 s.
    assert 0 <= found.rearm_ms <= TCP_TIMEWAIT_LEN
    assert counters.names(found.counters) or not found.counters
    assert not (tw.fin_wait2 and action is Action.ACCEPT)
    assert found.tw.snd_nxt == tw.snd_nxt


@given(kernels, time_waits, segments, seconds, numbers, numbers)
def test_moving_all_numbers_round_the_circle_changes_nothing(
    row: Kernel, tw: TimeWait, segment: Segment, now: int, by_seq: int, by_ts: int
) -> None:
    """Sequence numbers and timestamps are places on a circle; a stored timestamp of 0 alone is special since el6."""
    moved_tw = tw._replace(rcv_nxt=u32(tw.rcv_nxt + by_seq), snd_nxt=u32(tw.snd_nxt + by_seq), ts=u32(tw.ts + by_ts))
    moved = segment._replace(
        seq=u32(segment.seq + by_seq), ack=u32(segment.ack + by_seq), tsval=u32(segment.tsval + by_ts)
    )
    if row.rules.zero_ts_passes and 0 in (tw.ts, moved_tw.ts):
        return
    one, other = _answer(row, tw, segment, now), _answer(row, moved_tw, moved, now)
    assert other._replace(isn=0, before=tw, segment=segment) == one._replace(isn=0)
    assert other.isn == (timewait.next_isn(moved_tw.snd_nxt) if one.isn else 0)


@given(numbers, numbers, numbers)
def test_comparisons_turn_with_the_circle(a: int, b: int, by: int) -> None:
    assert after(a, b) == after(u32(a + by), u32(b + by))
    assert older(a, b, 1) == older(u32(a + by), u32(b + by), 1)
    assert after(a, b) == (s32(b - a) < 0)
    if a != b:
        assert after(a, b) != after(b, a) or u32(a - b) == 2**31
    assert after(u32(a + 2**31), a)  # exactly half-way counts as after
    assert not older(u32(a + 2**31), a, 0)  # but not as older


@given(numbers, st.integers(0, 70_000), st.integers(0, 65_535), numbers)
def test_a_window_turns_with_the_circle(start: int, length_: int, wide: int, by: int) -> None:
    for seq in (start, u32(start - 1), u32(start + wide)):
        plain = in_window(seq, u32(seq + length_), start, u32(start + wide))
        turned = in_window(u32(seq + by), u32(seq + length_ + by), u32(start + by), u32(start + wide + by))
        assert plain == turned


@given(kernels, st.booleans(), numbers, numbers, seconds, seconds, st.booleans())
def test_every_syn_at_a_listener_has_an_answer(
    row: Kernel, has_ts: bool, tsval: int, ts: int, stamp: int, now: int, ipv6: bool
) -> None:
    knobs = row.defaults._replace(tcp_tw_recycle=1)
    found = listener.answer(row.rules, knobs, Listener(), Record(ts, stamp), has_ts, tsval, now, ipv6)
    drops = recycle.drops_syn(row.rules, knobs, Record(ts, stamp), has_ts, tsval, now, ipv6)
    assert (found.action == Action.DROP) is drops
    assert bool(found.counters & counters.PAWS_PASSIVE) is drops
    assert found.rule in rulebook.RULES
    if drops:
        assert 0 <= now - stamp < 60 or stamp > now  # a record from the future counts as fresh in 2.6.32


@given(numbers, st.lists(st.tuples(numbers, st.integers(0, 3)), min_size=1), st.integers(1, 2**31))
def test_the_record_never_moves_backwards_inside_its_window(
    ts: int, events: list[tuple[int, int]], start: int
) -> None:
    record, now = Record(ts, start), start
    for new_ts, later in events:
        now += later
        before = record
        record = recycle.written(before, new_ts, now, now)
        if now - before.stamp <= 60:
            assert s32(before.ts - record.ts) <= 0
        assert record.stamp >= before.stamp


@given(kernels, st.integers(1, 120_000), st.sampled_from([0, 1000]), st.integers(0, 1), st.booleans())
def test_no_time_wait_lasts_longer_than_its_rule(
    row: Kernel, rto_ms: int, stamp: int, recycle_on: int, ipv6: bool
) -> None:
    knobs = row.defaults._replace(tcp_tw_recycle=recycle_on)
    found = length.time_wait(row.rules, knobs, rto_ms, stamp, ipv6)
    assert 0 < found.low_ms <= found.high_ms
    assert found.nominal_ms in (TCP_TIMEWAIT_LEN, length.short(rto_ms, row.rules.hz))
    if row.rules.timer == WHEELS:
        slot = 128 if found.counter == counters.TW_KILLED else 7_500
        assert found.high_ms <= max(found.nominal_ms + 2 * slot, 0)
        assert found.high_ms <= TCP_TIMEWAIT_LEN  # eight slots of 7.5 s are all there is
    else:
        assert found.nominal_ms <= found.low_ms
        assert found.high_ms <= found.nominal_ms * 9 // 8 + 1
    assert found.counter == (counters.TW_KILLED if found.high_ms <= 4_100 else counters.TW)


@given(kernels, st.integers(1, 100_000), st.integers(1, 100_000))
def test_a_longer_timer_never_ends_earlier(row: Kernel, one: int, other: int) -> None:
    short, long = sorted((one, other))
    assert length.ends(row.rules, short).low_ms <= length.ends(row.rules, long).low_ms
    assert length.ends(row.rules, short).high_ms <= length.ends(row.rules, long).high_ms


@given(kernels, time_waits, st.integers(0, 2**31), st.integers(0, 2), st.booleans())
def test_whoever_may_take_over_now_may_later(
    row: Kernel, tw: TimeWait, age_ms: int, tw_reuse: int, bound: bool
) -> None:
    knobs = row.defaults._replace(tcp_tw_reuse=tw_reuse)
    tw = tw._replace(entered_ms=tw.stamp * 1000)
    now = tw.stamp * 1000 + min(age_ms, 59_000)
    found = reuse.reuse(row.rules, knobs, tw, now // 1000, now, bound)
    later = reuse.reuse(row.rules, knobs, tw, (now + 700) // 1000, now + 700, bound)
    assert later.reuses or not found.reuses
    assert found.reuses == (found.isn != 0) == (found.counters != 0)
    assert not found.reuses or tw.stamp != 0
    if bound:
        assert found.reuses is (tw.stamp != 0)


@given(
    kernels,
    st.integers(1, 60_000),
    st.integers(0, 40),
    st.integers(0, 2**31),  # further round the circle of 2^32 linear searches of old kernels meet ports twice
    st.sets(st.integers(0, 40)),
    st.booleans(),
)
def test_the_capacity_is_what_the_search_finds(
    row: Kernel, low: int, more: int, offset: int, reserved: set[int], own_range: bool
) -> None:
    """Brute force: connect() until there is no port left, each from another place."""
    high = low + more
    states = [choice.RESERVED if port in reserved else choice.FREE for port in range(more + 1)]
    kept = {low + port for port in reserved if port <= more}
    one_search = {
        choice.nth(row.rules, low, high, choice.start(row.rules, low, high, offset, 0), n)
        for n in range(choice.span(row.rules, low, high))
    }
    assert len(one_search) == choice.span(row.rules, low, high)
    assert all(low <= port <= high for port in one_search)
    if not kept:
        assert choice.capacity(row.rules, low, high) == len(one_search)
    hint, taken = offset, 0
    while True:
        begin = choice.start(row.rules, low, high, hint, 0, own_range)
        found = choice.choose(row.rules, low, high, begin, states, own_range)
        if found.errno:
            break
        taken += 1
        states[found.port - low] = choice.BUSY
        hint = u32(hint + choice.advance(row.rules, found.steps, 3, own_range)) % 2**31
    usable = more + 1 - (len(kept) if row.rules.knows_reserved_ports else 0)
    # With an odd range a search leaves one port out, and which one changes from search to search.
    left_out = more + 1 - choice.span(row.rules, low, high, own_range)
    assert usable - left_out <= taken <= usable


@given(kernels, st.integers(0, 2**31), st.integers(0, 2**31))
def test_a_clock_never_runs_backwards(row: Kernel, one: int, other: int) -> None:
    early, late = sorted((one, other))
    before = clock.tsval(row.rules, row.defaults, early, 12_345)
    assert s32(clock.tsval(row.rules, row.defaults, late, 12_345) - before) >= 0


@given(st.sampled_from(ALL), st.lists(st.integers(0, EVENTS - 1), max_size=8), st.integers(-1, 200))
def test_whatever_happens_an_end_stays_in_a_state(name: str, events: list[int], linger2: int) -> None:
    row, end = kernel(name), End()
    for event in events:
        change = endings.after(row.rules, row.defaults, end, event, Conditions(linger2_s=linger2))
        end = change.end
        assert end.state in list(State)
        assert end.state != State.TIME_WAIT or Event.RST not in events[:1]
        assert 0 <= change.time_wait_ms <= TCP_TIMEWAIT_LEN or change.full_ms


@given(st.sampled_from(ALL))
def test_who_answers_the_first_fin_never_holds_time_wait(name: str) -> None:
    row = kernel(name)
    for ending in ENDINGS:
        holds = endings.holders(endings.play(row.rules, row.defaults, ending))
        assert ("other" in holds) is ("both" in ending.name)
        if "RST" in {event.name for event in (*ending.closer, *ending.other)}:
            assert holds == ()
