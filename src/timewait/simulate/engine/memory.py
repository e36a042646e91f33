"""The memory of a simulation: one long row of numbers with a place for everything, and four that grow."""

from __future__ import annotations

import contextlib
import mmap
from typing import Any

import numpy as np

from timewait.simulate.engine.ports import word_of
from timewait.simulate.engine.server import BASE_S
from timewait.simulate.engine.state import (
    B_SWEPT,
    BLOCKS,
    BOX,
    BY_KERNEL,
    C_LINK,
    END,
    G_BACK_AT,
    G_BACK_ROOM,
    G_FREE_SLOTS,
    G_IDLE,
    G_LINE_AT,
    G_REST_AT,
    G_REST_ROOM,
    G_SPARE,
    HEADS,
    LINE,
    LINES,
    MOST_LINES,
    NEVER,
    NOBODY,
    OLDEST,
    REST,
    RING,
    ROW,
    SLOT,
    THINK,
    Fixed,
    State,
)
from timewait.simulate.outcome import Array
from timewait.tcp.profiles import PERTURBED, Rules

MAP_NORESERVE = 0x4000  # <sys/mman.h>; the module `mmap` names it from Python 3.13 on
SLOTS = 1024  # room for connections, and for ports at rest, at the beginning; it grows


def numbers(count: int) -> Array:
    """That many zeros of 64 bits, beginning where two lines of cache do."""
    room = np.zeros(count + 16, dtype=np.int64)
    skip = -room.ctypes.data % 128 // 8
    return room[skip : skip + count]


def mapped(count: int, dense: int) -> Array:
    """That many zeros of which the first `dense` will all be touched, the others here and there.

    Memory is taken by the page, as it is touched: by large ones where all is used, by small ones elsewhere, since
    1,000 clients who each have all ports of an address use few of them.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    room = mmap.mmap(-1, 8 * max(1, count), flags=flags)
    edge = min(8 * dense // mmap.PAGESIZE * mmap.PAGESIZE, len(room))
    for advice, start, end in ((mmap.MADV_HUGEPAGE, 0, edge), (mmap.MADV_NOHUGEPAGE, edge, len(room))):
        if start < end:
            with contextlib.suppress(OSError):  # a kernel without large pages
                room.madvise(advice, start, end - start)
    return np.frombuffer(room, dtype=np.int64)


def sizes(parts: dict[str, Any]) -> dict[str, int]:
    """How many numbers each part takes; `parts`: the fields of Fixed but for the places."""
    addresses, ports, boxes = parts["addresses"], parts["ports"], parts["boxes"]
    pools = addresses if parts["independent"] else addresses * parts["destinations"]
    blocks = ports // parts["block"] if parts["choice"] == BLOCKS else 0
    pairs = boxes * parts["sources"] * parts["servers"]
    return {
        "times": parts["times"],
        "sends": parts["sends"],
        "clients": parts["clients"],
        "block_of": parts["clients"] if blocks else 0,
        "idle": parts["clients"] if parts["process"] == THINK else 0,
        "boxes": (boxes + 2) * BOX,
        "ring": (boxes + 2) * RING,
        "record_ts": boxes * addresses,
        "record_stamp": boxes * addresses,
        "bits": pools * parts["words"],
        "free": pools,
        "hint": max(pools, addresses),
        "queue": pools * ports if parts["choice"] == OLDEST else 0,
        "ends": 2 * pools if parts["choice"] == OLDEST else 0,
        "blocks": addresses * parts["block_words"] if blocks else 0,
        "used": addresses * blocks,
        "resting": addresses,
        "waits": -(-addresses * parts["destinations"] * ports // 32),
        "rows": addresses * parts["destinations"] * ports * ROW,
        "back_bits": pairs * parts["back_words"],
        "back_free": pairs,
        "back_hint": pairs,
        "back_rows": pairs * parts["back_ports"] * ROW,
    }


def places(parts: dict[str, Any]) -> dict[str, int]:
    """Where each part begins, at a line of cache."""
    found, at = {}, END
    for name, size in sizes(parts).items():
        at = -(-at // 8) * 8
        found[f"{name}_at"] = at
        at += size
    return found


def octets(parts: dict[str, Any]) -> dict[str, int]:
    """What each part takes."""
    return {name: 8 * size for name, size in sizes(parts).items()}


def state(f: Fixed, times: list[int], sends: list[int], slots: int) -> State:
    """As it stands at the beginning; `slots`: connections there is room for."""
    size = sizes(f._asdict())
    whole = f.back_rows_at + size["back_rows"]
    m = mapped(whole, f.rows_at if f.choice == BY_KERNEL else whole)

    def part(name: str) -> Array:
        at = getattr(f, f"{name}_at")
        return m[at : at + size[name]]

    m[HEADS:END] = NOBODY
    m[G_SPARE] = NOBODY
    m[LINES : LINES + MOST_LINES * LINE] = (NOBODY, NOBODY, NEVER, NEVER, NOBODY, 0) * MOST_LINES
    m[G_LINE_AT] = m[G_REST_AT] = m[G_BACK_AT] = NEVER
    m[G_REST_ROOM] = m[G_BACK_ROOM] = SLOTS
    part("times")[:], part("sends")[:] = times, sends
    if f.process == THINK:
        m[G_IDLE] = f.clients
        part("idle")[:] = np.arange(f.clients)
    part("boxes")[B_SWEPT::BOX] = BASE_S * 1000
    part("bits").reshape(-1, f.words)[:] = _all_free(f.words, f.odd_word, f.ports)
    part("free")[:] = f.ports
    if f.choice == BY_KERNEL:
        part("hint")[:] = _hints(f.client, f.seed, size["hint"])
    if f.choice == OLDEST:
        part("queue").reshape(-1, f.ports)[:] = np.random.default_rng(f.seed).permutation(f.ports)
        part("ends")[1::2] = f.ports
    if f.choice == BLOCKS:
        part("blocks").reshape(-1, f.block_words)[:] = _all_free(f.block_words, 0, f.ports // f.block)
    if f.servers:
        part("back_bits").reshape(-1, f.back_words)[:] = _all_free(f.back_words, f.back_odd, f.back_ports)
        part("back_free")[:] = f.back_ports
        part("back_hint")[:] = _hints(f.server, f.seed + 1, size["back_hint"])
    made = State(m, numbers(0), numbers(0), numbers(0), numbers(SLOTS * REST), numbers(SLOTS * REST))
    return with_slots(made, max(SLOTS, slots))


def with_slots(s: State, slots: int) -> State:
    """The same with room for that many connections at once."""
    had = len(s.conns) // SLOT
    conns, active, behind = numbers(slots * SLOT), numbers(slots), numbers(slots)
    conns[: len(s.conns)] = s.conns
    active[:had], behind[:had] = s.active, s.behind
    links = conns[C_LINK::SLOT]
    links[had:slots] = np.arange(had + 1, slots + 1)
    links[slots - 1] = s.m[G_SPARE]
    s.m[G_SPARE] = had
    s.m[G_FREE_SLOTS] += slots - had
    return s._replace(conns=conns, active=active, behind=behind)


def with_room(rest: Array, m: Array, first: int, room: int) -> Array:
    """A ring of ports at rest with twice the room. `first`, `room`: the registers of its head and of its room."""
    head, tail = m[first], m[first + 1]
    m[room] *= 2
    grown, at = numbers(2 * len(rest)), np.arange(head, tail)
    grown.reshape(-1, REST)[at % m[room]] = rest.reshape(-1, REST)[at % (m[room] // 2)]
    return grown


def plain(s: State) -> State:
    """Lists in place of arrays: for plain Python, whose numbers never overflow."""
    return State(*(part.tolist() for part in s))


def arrays(s: State) -> State:
    """Arrays in place of lists."""
    return State(*(np.array(part, dtype=np.int64) for part in s))


def record(f: Fixed) -> Any:
    """The same as a NumPy record, with the rules and knobs as records in it: compiled code then gets one pointer,
    where a tuple is handed over number by number, at every call."""
    dtype, values = _typed(f)
    return np.array(values, dtype=dtype)[()]


def _typed(value: Any) -> tuple[Any, Any]:
    if isinstance(value, bool):
        return np.bool_, value
    if isinstance(value, int):
        return np.int64, value
    if isinstance(value, float):
        return np.float64, value
    names, types, values = [], [], []
    for name, item in value._asdict().items():
        if isinstance(item, tuple) and not hasattr(item, "_fields"):
            continue  # a range of ports, which no decision looks at: it is handed over apart
        kind, made = _typed(item)
        names.append(name)
        types.append(kind)
        values.append(made)
    return np.dtype({"names": names, "formats": types}, align=True), tuple(values)


def _all_free(words: int, odd: int, ports: int) -> Array:
    """The bits of a pool of which every port is free."""
    bits = numbers(words)
    for offset in range(ports):
        word, at = word_of(odd, offset)
        bits[word + (at >> 5)] |= 1 << (at & 31)
    return bits


def _hints(rules: Rules, seed: int, count: int) -> Array | int:
    """Random where the kernel has a table of them (5.4.286, 5.15 and later); 0 at boot before."""
    if rules.port_search != PERTURBED:
        return 0
    return np.random.default_rng(seed).integers(0, 2**32, count)
