"""Which domain a host belongs to."""

from __future__ import annotations

import pytest

from timewait.balancer.routing.domains import Domains

NAMES = ["*.com", "_default", "~^www\\d+\\.", "*.x.com", "WWW.x.com", "www.*", "www.x.*", "~x", "~y"]


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        (b"www.x.com", "WWW.x.com"),
        (b"www.x.com.", "WWW.x.com"),
        (b"a.x.com", "*.x.com"),  # the longer wildcard
        (b"a.b.x.com", "*.x.com"),
        (b"x.com", "*.com"),
        (b".x.com", "*.com"),
        (b"com", "_default"),
        (b"www.x.org", "www.x.*"),
        (b"www.y.org", "www.*"),
        (b"www.", "_default"),
        (b"www.y.com", "*.com"),  # a leading wildcard goes before a trailing one
        (b"www1.z", "~^www\\d+\\."),
        (b"xy", "~x"),  # the first in the file
        (b"y", "~y"),
        (b"", "_default"),
        (b"[::1]", "_default"),
    ],
)
def test_exact_then_wildcards_then_expressions(host: bytes, domain: str) -> None:
    assert Domains(NAMES).of(host) == domain


def test_an_expression_knows_no_case() -> None:
    assert Domains(["~^WWW"]).of(b"www.x") == "~^WWW"
