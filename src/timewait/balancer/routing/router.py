"""A listener's rules together: host and path in, rule or redirect out."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote_from_bytes

import msgspec

from timewait.balancer.config.model import Rule
from timewait.balancer.routing.domains import Domains
from timewait.balancer.routing.paths import Paths, Slash


class Route(msgspec.Struct, frozen=True):
    """Where a request goes."""

    pool: str
    rule: Rule


class Redirect(msgspec.Struct, frozen=True):
    """301: the path lacks the slash its rule ends with."""

    location: bytes  # the path with the slash, and the query; relative to the host


class Router:
    """The rules of one listener. ValueError: a path or an expression that is none."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._domains = Domains(rule.domain for rule in rules)
        by_domain: dict[str, list[tuple[str, Route]]] = {}
        for rule in rules:
            by_domain.setdefault(rule.domain, []).append((rule.path, Route(rule.pool, rule)))
        self._paths = {domain: Paths(paths) for domain, paths in by_domain.items()}

    def find(self, host: bytes, path: bytes, query: bytes = b"") -> Route | Redirect | None:
        """For RequestHead's `host`, `path` and `query`; None is 404.

        A domain that matches answers for all of its paths: what none of its rules knows is not looked for elsewhere.
        """
        paths = self._paths.get(self._domains.of(host))
        found = paths.find(path) if paths is not None else None
        if isinstance(found, Slash):
            return Redirect(quote_from_bytes(found.location, safe="/:@!$&'()*+,;=~-._").encode() + query)
        return found
