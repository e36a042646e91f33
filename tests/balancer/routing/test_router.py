"""Rules of a listener together."""

from __future__ import annotations

from timewait.balancer.config.model import Rule
from timewait.balancer.routing.router import Redirect, Route, Router

RULES = (
    Rule(pool="app"),
    Rule(pool="img", path="^~ /img/"),
    Rule(pool="api", domain="api.x.com", path="/v1/"),
    Rule(pool="any", domain="*.x.com", path="/"),
)


def pool(host: bytes, path: bytes) -> str | None:
    """Where it goes."""
    found = Router(RULES).find(host, path)
    return found.pool if isinstance(found, Route) else None


def test_domain_first_then_path() -> None:
    assert pool(b"api.x.com", b"/v1/users") == "api"
    assert pool(b"api.x.com", b"/") is None  # its domain has no such path; no other domain is asked
    assert pool(b"www.x.com", b"/v1/users") == "any"
    assert pool(b"other", b"/img/x") == "img"
    assert pool(b"", b"/") == "app"


def test_a_redirect_keeps_the_query_and_says_no_host() -> None:
    router = Router((*RULES, Rule(pool="app", path="/a b/")))
    assert router.find(b"", b"/img", b"?a=b&c") == Redirect(b"/img/?a=b&c")
    assert router.find(b"", b"/a b") == Redirect(b"/a%20b/")


def test_without_rules_nothing_is_found() -> None:
    assert Router(()).find(b"a", b"/") is None
