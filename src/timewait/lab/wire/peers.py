"""What a host with tcp_tw_recycle knows of its peers: one timestamp each. Every decision is `tcp.recycle`'s."""

from __future__ import annotations

from timewait.tcp import recycle
from timewait.tcp.kernels import Knobs, Rules
from timewait.tcp.profiles import INET_PEER
from timewait.tcp.recycle import NOTHING, Record

_MOST = 262_144  # of the stores without a limit of their own, so that memory has one


class Peers:
    """Records by address, or by pair of addresses, as the kernel keeps them; addresses are packed."""

    def __init__(self, rules: Rules, knobs: Knobs) -> None:
        self._rules, self._knobs = rules, knobs
        self._most = knobs.inet_peer_threshold if rules.record_store == INET_PEER else _MOST
        self._records: dict[tuple[int, int], tuple[Record, int]] = {}  # with the second of last use, oldest first
        self.written = 0

    def __len__(self) -> int:
        return len(self._records)

    def record(self, local: bytes, remote: bytes, now_s: int) -> Record:
        """What is known of a peer; NOTHING when nothing is, or no longer."""
        key = self._key(local, remote)
        known, used = self._records.pop(key, (NOTHING, now_s))
        if known == NOTHING or not recycle.is_kept(self._rules, self._knobs, now_s - used, self._population()):
            return NOTHING
        self._records[key] = known, now_s
        return known

    def remember(self, local: bytes, remote: bytes, ts: int, stamp: int, now_s: int) -> None:
        """A TIME_WAIT began: the last timestamp of its peer, and the second it came."""
        known = self.record(local, remote, now_s)
        if known == NOTHING and len(self._records) >= self._most:
            # inet_getpeer() at its threshold: cleanup_once(0) makes room by the one unused for longest.
            self._records.pop(next(iter(self._records)), None)
        self._records[self._key(local, remote)] = recycle.written(known, ts, stamp, now_s), now_s
        self.written += 1

    def _key(self, local: bytes, remote: bytes) -> tuple[int, int]:
        return recycle.key(self._rules, int.from_bytes(local, "big"), int.from_bytes(remote, "big"))

    def _population(self) -> int:
        """For tcp_metrics it is the length of one hash chain: as if no two peers shared one."""
        return len(self._records) if self._rules.record_store == INET_PEER else 1
