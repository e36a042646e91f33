"""What all workers of an engine must agree on, in memory they share: limits of a listener, and clients' targets.

The memory is a memfd that every worker inherits, so it outlives a worker and a reload. A byte range lock (fcntl(2),
F_OFD_SETLK's older sibling: it belongs to the process) keeps two workers apart, and the kernel gives it back when its
owner is killed. A lock costs two system calls, and only listeners with a limit and pools with sessions pay them.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from hashlib import blake2b

_COUNT = struct.Struct("q")
_BUCKET = struct.Struct("ddq")  # tokens, as of when, and how many slots were ever in use

LISTENERS = 1024  # with limits, in one engine
SLOTS = 512  # worker processes alive at once, those that only drain counted in
_ROW = _BUCKET.size + SLOTS * _COUNT.size

WAYS = 8  # entries of one bucket of the session table
BUCKETS = 1 << 15  # 262,144 clients, 8 MiB at most; pages are only used once written
_ENTRY = struct.Struct("16sd8s")  # blake2b of pool and source; until when; blake2b of the target's address
_ROOM = WAYS * _ENTRY.size

SIZE = LISTENERS * _ROW + BUCKETS * _ROOM


def create() -> int:
    """A descriptor of new shared memory, all zero; to be inherited by workers."""
    descriptor = os.memfd_create("timewait-balancer", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, SIZE)
    return descriptor


class Shared:
    """The shared memory as one process sees it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.memory = mmap.mmap(descriptor, SIZE)

    def lock(self, start: int, length: int) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, length, start)

    def unlock(self, start: int, length: int) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN, length, start)

    def take_slot(self, row: int, slot: int) -> None:
        """A worker begins with no connections of this listener; whoever had the slot before has ended."""
        self.lock(row * _ROW, _ROW)
        tokens, then, used = _BUCKET.unpack_from(self.memory, row * _ROW)
        _BUCKET.pack_into(self.memory, row * _ROW, tokens, then, max(used, slot + 1))
        _COUNT.pack_into(self.memory, row * _ROW + _BUCKET.size + slot * _COUNT.size, 0)
        self.unlock(row * _ROW, _ROW)

    def close(self) -> None:
        self.memory.close()
        os.close(self.descriptor)


class Limits:
    """max_conn and max_cps of one listener, held by all workers together."""

    def __init__(self, shared: Shared, row: int, slot: int, max_conn: int, max_cps: int) -> None:
        """`row` is the listener's, `slot` this worker's; -1 is no limit."""
        self._shared, self._start, self._slot = shared, row * _ROW, slot
        self._max_conn, self._max_cps = max_conn, max_cps

    def admit(self, now: float) -> str:
        """Counts a new connection in, or says which limit forbids it: "over_max_conn", "over_max_cps", or ""."""
        self._shared.lock(self._start, _ROW)
        try:
            if self._max_conn >= 0 and self._open() >= self._max_conn:
                return "over_max_conn"
            if self._max_cps >= 0 and not self._take_token(now):
                return "over_max_cps"
            self._add(1)
        finally:
            self._shared.unlock(self._start, _ROW)
        return ""

    def release(self) -> None:
        """A connection that was counted in has ended. Only this worker writes its slot, so no lock."""
        self._add(-1)

    def _open(self) -> int:
        used = _BUCKET.unpack_from(self._shared.memory, self._start)[2]
        return sum(struct.unpack_from(f"{used}q", self._shared.memory, self._start + _BUCKET.size))

    def _add(self, number: int) -> None:
        at = self._start + _BUCKET.size + self._slot * _COUNT.size
        _COUNT.pack_into(self._shared.memory, at, _COUNT.unpack_from(self._shared.memory, at)[0] + number)

    def _take_token(self, now: float) -> bool:
        """A token bucket that holds one second's worth, at least one."""
        tokens, then, used = _BUCKET.unpack_from(self._shared.memory, self._start)
        full = float(max(1, self._max_cps))
        tokens = full if not then else min(full, tokens + (now - then) * self._max_cps)
        granted = tokens >= 1
        _BUCKET.pack_into(self._shared.memory, self._start, tokens - granted, now, used)
        return bool(granted)


class Sessions:
    """Which target a source address was given, over all workers and reloads, in bounded memory.

    A bucket that is full gives up the entry that would end first: the client is scheduled anew, nothing worse.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def find(self, pool: str, source: bytes, ttl: float, now: float) -> bytes | None:
        """`tag(address)` of this source's target, good for another `ttl` seconds from now on; None: it has none."""
        key = _key(pool, source)
        start = _bucket_of(key)
        self._shared.lock(start, _ROOM)
        try:
            for at in range(start, start + _ROOM, _ENTRY.size):
                known, until, target = _ENTRY.unpack_from(self._shared.memory, at)
                if known == key:
                    if until <= now:
                        return None
                    _ENTRY.pack_into(self._shared.memory, at, key, now + ttl, target)
                    return bytes(target)
        finally:
            self._shared.unlock(start, _ROOM)
        return None

    def remember(self, pool: str, source: bytes, target: bytes, ttl: float, now: float) -> None:
        """From now on this source belongs to the target whose `tag` is given."""
        key = _key(pool, source)
        start = _bucket_of(key)
        self._shared.lock(start, _ROOM)
        try:
            chosen, earliest = start, float("inf")
            for at in range(start, start + _ROOM, _ENTRY.size):
                known, until, _ = _ENTRY.unpack_from(self._shared.memory, at)
                if known == key:
                    chosen = at
                    break
                if until < earliest:
                    chosen, earliest = at, until
            _ENTRY.pack_into(self._shared.memory, chosen, key, now + ttl, target)
        finally:
            self._shared.unlock(start, _ROOM)


def tag(address: str) -> bytes:
    """A target's address in eight bytes, the same in every process and after every reload."""
    return blake2b(address.encode(), digest_size=8).digest()


def _key(pool: str, source: bytes) -> bytes:
    return blake2b(source, digest_size=16, key=pool.encode()[:64]).digest()


def _bucket_of(key: bytes) -> int:
    return LISTENERS * _ROW + int.from_bytes(key[:4], "little") % BUCKETS * _ROOM
