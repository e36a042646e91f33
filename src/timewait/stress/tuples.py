"""Which five-tuples this run has used within the last 60 s, so that a SYN that got no answer can be put down to a
reused tuple (the peer, a NAT or IPVS still holds the old connection) or to something else.

Tracking costs a getsockname() per connection where the kernel chooses ports, so there it begins with the first slow
connect; a tuple first seen before that is of unknown past.
"""

from __future__ import annotations

from timewait.tcp.ports import TIME_WAIT_SECONDS as MEMORY

MOST = 1_000_000


class Tuples:
    __slots__ = ("_last", "_since", "active")

    def __init__(self, *, active: bool) -> None:
        self.active = active
        self._since = float("-inf") if active else 0.0
        self._last: dict[int, float] = {}

    def begin(self, now: float) -> None:
        if not self.active:
            self.active, self._since = True, now

    def past(self, key: int, now: float) -> bool | None:
        """True: used within 60 s; False: not; None: not known."""
        last = self._last.get(key)
        if last is not None:
            return now - last < MEMORY
        return False if now - self._since >= MEMORY else None

    def ended(self, key: int, now: float) -> None:
        if len(self._last) < MOST or key in self._last:
            self._last[key] = now
