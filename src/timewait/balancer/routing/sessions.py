"""What ties a client to a target: its address, or a cookie."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b

from timewait.balancer.http.cookies import lookup

CAPACITY = 65536


class SourceSessions:
    """Clients' addresses, each with its target until nothing came from it for `ttl` seconds.

    At most `capacity` clients are known; then the one that was quiet for longest is forgotten.
    """

    def __init__(self, ttl: float, capacity: int = CAPACITY) -> None:
        self._ttl = ttl
        self._capacity = capacity
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # oldest use first

    def __len__(self) -> int:
        return len(self._known)

    def find(self, source: bytes, now: float) -> str | None:
        """The client's target; asking is using it, so its time begins anew."""
        entry = self._known.get(source)
        if entry is None:
            return None
        if now >= entry[1]:
            del self._known[source]
            return None
        self.keep(source, entry[0], now)
        return entry[0]

    def keep(self, source: bytes, target: str, now: float) -> None:
        """From now on that is the client's target."""
        known = self._known
        known[source] = (target, now + self._ttl)
        known.move_to_end(source)
        while known and (len(known) > self._capacity or next(iter(known.values()))[1] <= now):
            known.popitem(last=False)

    def forget(self, target: str) -> None:
        """That target is gone for good."""
        for source in [source for source, entry in self._known.items() if entry[0] == target]:
            del self._known[source]


class CookieSessions:
    """A cookie that names a target without telling its address: a keyed hash, which only who has the key can make.

    All workers need the same `key`; with another key every client gets another cookie, nothing worse. The cookie
    lasts `ttl` seconds from when it was set.
    """

    def __init__(self, name: str, ttl: float, key: bytes, pool: str, targets: Iterable[str], secure: bool = False):
        self._name = name.encode()
        self._targets: dict[bytes, str] = {}
        self._fields: dict[str, bytes] = {}
        # Private, so that no cache hands one client's target to another (HAProxy: `cookie NAME insert nocache`).
        rest = b"; Path=/; Max-Age=%d; HttpOnly%b\r\nCache-Control: private\r\n" % (int(ttl), b"; Secure" * secure)
        for target in targets:
            value = blake2b(f"{pool}\0{target}".encode(), digest_size=12, key=key).hexdigest().encode()
            self._targets[value] = target
            self._fields[target] = b"Set-Cookie: %b=%b%b" % (self._name, value, rest)

    def find(self, cookie: bytes) -> str | None:
        """The target that RequestHead.cookie names; None for no, an unknown or a forged one."""
        value = lookup(cookie, self._name) if cookie else None
        return None if value is None else self._targets.get(value)

    def fields(self, target: str) -> bytes:
        """Whole lines for an answer that ties its client to `target`."""
        return self._fields[target]
