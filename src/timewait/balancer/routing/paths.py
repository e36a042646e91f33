"""Which of a domain's rules a path belongs to: nginx's `location`, with its precedence and its redirect.

`= /x` is that path only; otherwise the longest prefix is found, and unless it is written `^~ /x`, the first regular
expression that matches (`~`, without case `~*`) goes before it (ngx_http_core_find_location). A prefix that ends with
a slash answers the same path without it by 301, before any regular expression is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from timewait.balancer.routing.patterns import Pattern

Value = TypeVar("Value")


class Kind(Enum):
    """How a rule's path is written."""

    EXACT = "="
    PREFIX = ""
    FIRM_PREFIX = "^~"  # no regular expression goes before it
    REGEX = "~"
    REGEX_NOCASE = "~*"


def parsed(path: str) -> tuple[Kind, str]:
    """`"^~ /img/"` -> (FIRM_PREFIX, "/img/"); the space may be left out. ValueError: what is wrong with it."""
    for kind in (Kind.EXACT, Kind.FIRM_PREFIX, Kind.REGEX_NOCASE, Kind.REGEX):
        if path.startswith(kind.value):
            rest = path[len(kind.value) :].lstrip()
            break
    else:
        kind, rest = Kind.PREFIX, path
    if kind in (Kind.REGEX, Kind.REGEX_NOCASE):
        if not rest:
            raise ValueError(f"{path!r} has no regular expression")
        Pattern(rest, nocase=kind is Kind.REGEX_NOCASE)
    elif not rest.startswith("/"):
        raise ValueError(f"{path!r} does not begin with a slash")
    return kind, rest


class Slash(NamedTuple):
    """The path is that of a rule without the slash at its end."""

    location: bytes


class Paths(Generic[Value]):
    """The rules of one domain, in the order of the file; the first of two equal ones counts."""

    def __init__(self, rules: Iterable[tuple[str, Value]]) -> None:
        self._exact: dict[bytes, Value] = {}
        self._prefix: dict[bytes, tuple[bool, Value]] = {}
        self._patterns: list[tuple[Pattern, Value]] = []
        self._slash: set[bytes] = set()
        for path, value in rules:
            kind, text = parsed(path)
            key = text.encode()
            if kind is Kind.EXACT:
                self._exact.setdefault(key, value)
            elif kind in (Kind.PREFIX, Kind.FIRM_PREFIX):
                self._prefix.setdefault(key, (kind is Kind.FIRM_PREFIX, value))
            else:
                self._patterns.append((Pattern(text, nocase=kind is Kind.REGEX_NOCASE), value))
            if kind in (Kind.EXACT, Kind.PREFIX, Kind.FIRM_PREFIX) and key.endswith(b"/") and key != b"/":
                self._slash.add(key[:-1])
        self._lengths = sorted({len(prefix) for prefix in self._prefix}, reverse=True)

    def find(self, path: bytes) -> Value | Slash | None:
        """The rule for a normalised path; None where there is none."""
        if path in self._exact:
            return self._exact[path]
        if path in self._slash and path not in self._prefix:
            return Slash(path + b"/")
        firm, value = self._longest(path)
        if firm:
            return value
        for pattern, other in self._patterns:
            if pattern.matches(path):
                return other
        return value

    def _longest(self, path: bytes) -> tuple[bool, Value | None]:
        for length in self._lengths:
            found = self._prefix.get(path[:length])
            if found is not None:
                return found
        return False, None
