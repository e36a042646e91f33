"""Rules of domain and path as HAProxy's ACLs, in the order in which routing/ decides. Pure.

HAProxy takes the first `use_backend` that holds, so the order of the lines is the precedence: a domain's exact paths,
the redirects to a slash, the firm prefixes, the regular expressions, the prefixes from the longest on; and a domain
that has no rule for a path ends with 404, before the next domain is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from timewait.balancer.config.model import Rule
from timewait.balancer.haproxy.words import quoted
from timewait.balancer.routing.domains import DEFAULT
from timewait.balancer.routing.paths import Kind, parsed

NOT_FOUND, SLASH = ":404", ":slash"  # backends that answer themselves

# What makes a path another one than it looks: a path without any of it is compared as it came.
_ODD = (
    "acl odd path -m sub // /./ /../ %",
    "acl odd path -m end /. /..",
    "http-request set-var(txn.target) pathq if odd",
    "http-request set-path %[path,url_dec] if { var(txn.target) -m found }",
    "http-request normalize-uri path-merge-slashes if { var(txn.target) -m found }",
    "http-request normalize-uri path-strip-dot if { var(txn.target) -m found }",
    "http-request normalize-uri path-strip-dotdot full if { var(txn.target) -m found }",
    "http-request set-var(txn.path) path",
    "http-request set-pathq %[var(txn.target)] if { var(txn.target) -m found }",
)
_HOST = "http-request set-var(txn.host) req.hdr(host),host_only,rtrim(.),lower"


def is_plain(rules: Sequence[Rule]) -> bool:
    """Whether everything goes to one pool, and nothing needs to be looked at."""
    return [(rule.domain, rule.path) for rule in rules] == [(DEFAULT, "/")]


def needs_path(rules: Sequence[Rule]) -> bool:
    """Whether any rule looks at the path."""
    return any(parsed(rule.path) != (Kind.PREFIX, "/") for rule in rules)


def preparation(rules: Sequence[Rule]) -> list[str]:
    """What is looked at, once for each request."""
    lines = list(_ODD) if needs_path(rules) else []
    return [*lines, *([_HOST] if any(rule.domain != DEFAULT for rule in rules) else [])]


def choices(rules: Sequence[Rule], backend: dict[str, str]) -> Iterator[str]:
    """`use_backend` lines; `backend` names the one of each pool."""
    domains: dict[str, list[Rule]] = {}
    for rule in rules:
        domains.setdefault(rule.domain, []).append(rule)
    for name in sorted((name for name in domains if name != DEFAULT), key=_order):
        host = f"{{ var(txn.host) {_domain(name)} }}"
        for where, condition in _paths(domains[name], backend):
            yield f"use_backend {where} if {host}{condition}"
        yield f"use_backend {NOT_FOUND} if {host}"
    for where, condition in _paths(domains.get(DEFAULT, []), backend):
        yield f"use_backend {where} if{condition}" if condition else f"default_backend {where}"
        if not condition:
            return
    yield f"default_backend {NOT_FOUND}"


def _order(name: str) -> tuple[int, int]:
    if name.startswith("~"):
        return 3, 0  # in the order of the file: sorted() is stable
    if name.startswith("*."):
        return 1, -len(name)
    return (2, -len(name)) if name.endswith(".*") else (0, 0)


def _domain(name: str) -> str:
    if name.startswith("~"):
        return f"-m reg -i -- {quoted(name[1:].lstrip())}"
    low = name.lower()
    if low.startswith("*."):
        return f"-m reg -- {quoted('.' + _literal(low[1:]) + '$')}"
    if low.endswith(".*"):
        return f"-m reg -- {quoted('^' + _literal(low[:-1]) + '.')}"
    return f"-m str -- {quoted(low)}"


def _literal(text: str) -> str:
    return text.replace(".", r"\.")


def _paths(rules: Sequence[Rule], backend: dict[str, str]) -> Iterator[tuple[str, str]]:
    """(backend, condition on the path), in order; the first of two equal rules counts."""
    kinds: dict[Kind, dict[str, str]] = {kind: {} for kind in Kind}
    patterns: list[tuple[Kind, str, str]] = []
    prefixes: dict[str, bool] = {}  # and whether it is firm; of the first rule with it
    for rule in rules:
        kind, text = parsed(rule.path)
        if kind in (Kind.REGEX, Kind.REGEX_NOCASE):
            patterns.append((kind, text, backend[rule.pool]))
        elif kind is Kind.EXACT or text not in prefixes:
            kinds[kind].setdefault(text, backend[rule.pool])
            if kind is not Kind.EXACT:
                prefixes[text] = kind is Kind.FIRM_PREFIX
    for text, where in kinds[Kind.EXACT].items():
        yield where, f" {{ var(txn.path) -m str -- {quoted(text)} }}"
    for text in {**prefixes, **kinds[Kind.EXACT]}:
        bare = text[:-1]
        if text.endswith("/") and bare and bare not in prefixes and bare not in kinds[Kind.EXACT]:
            yield SLASH, f" {{ var(txn.path) -m str -- {quoted(bare)} }}"
    longest = sorted(prefixes, key=len, reverse=True)
    if patterns:
        for text in (text for text in longest if prefixes[text]):
            # A longer prefix that is not firm leaves the decision to the regular expressions.
            soft = [other for other in longest if not prefixes[other] and other.startswith(text) and other != text]
            yield kinds[Kind.FIRM_PREFIX][text], _begins(text) + "".join(f" !{_begins(one).strip()}" for one in soft)
    for kind, text, where in patterns:
        case = " -i" if kind is Kind.REGEX_NOCASE else ""
        yield where, f" {{ var(txn.path) -m reg{case} -- {quoted(text)} }}"
    for text in longest:
        if patterns and prefixes[text]:
            continue  # decided above
        where = kinds[Kind.FIRM_PREFIX if prefixes[text] else Kind.PREFIX][text]
        yield where, "" if text == "/" else _begins(text)


def _begins(text: str) -> str:
    return f" {{ var(txn.path) -m beg -- {quoted(text)} }}"
