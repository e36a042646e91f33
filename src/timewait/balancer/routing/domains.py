"""Which of a listener's domains a host belongs to: exact, then `*.x`, then `x.*`, then regular expressions.

Among wildcards the longest one wins, among regular expressions the first in the file, as in nginx's server_name and
in CLB's documentation ("Configuring forwarding domain names"). What matches nothing belongs to `_default`.
"""

from __future__ import annotations

from collections.abc import Iterable

from timewait.balancer.routing.patterns import Pattern

DEFAULT = "_default"


class Domains:
    """The domains of one listener, as they are written in its rules."""

    def __init__(self, names: Iterable[str]) -> None:
        self._exact: dict[bytes, str] = {}
        self._after: list[tuple[bytes, str]] = []  # ".x.com" for "*.x.com"
        self._before: list[tuple[bytes, str]] = []  # "www." for "www.*"
        self._patterns: list[tuple[Pattern, str]] = []
        for name in dict.fromkeys(names):
            low = name.lower().encode()
            if name == DEFAULT:
                continue
            if name.startswith("~"):
                self._patterns.append((Pattern(name[1:].lstrip(), nocase=True), name))
            elif low.startswith(b"*."):
                self._after.append((low[1:], name))
            elif low.endswith(b".*"):
                self._before.append((low[:-1], name))
            else:
                self._exact[low] = name
        for wildcards in (self._after, self._before):
            wildcards.sort(key=lambda wildcard: -len(wildcard[0]))

    def of(self, host: bytes) -> str:
        """The domain for a host, which is in lower case and has no port."""
        host = host.removesuffix(b".")  # a fully qualified name may end with a dot
        found = self._exact.get(host)
        if found is not None:
            return found
        for suffix, name in self._after:
            if host.endswith(suffix) and len(host) > len(suffix):
                return name
        for prefix, name in self._before:
            if host.startswith(prefix) and len(host) > len(prefix):
                return name
        for pattern, name in self._patterns:
            if pattern.matches(host):
                return name
        return DEFAULT
