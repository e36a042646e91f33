"""The same bytes to three balancers: every difference is known and has a reason, and docs/ says so."""

from __future__ import annotations

import functools
from pathlib import Path

from balancer.differential.cases import CASES
from balancer.differential.compare import Result, compared
from balancer.differential.fronts import versions
from balancer.differential.page import MUTATED_CASES, groups, page
from balancer.differential.reasons import EXPLAINED, MUTATED
from balancer.http.through import through

PAGE = Path(__file__).parents[3] / "docs" / "http-differences.md"


@functools.cache
def results() -> tuple[Result, Result]:
    """Of all cases, and of all mutations; once for all tests."""
    return compared(CASES), compared(MUTATED_CASES)


def test_nothing_reaches_a_target_here_that_it_cannot_read() -> None:
    for result, names in zip(results(), (CASES, MUTATED_CASES), strict=True):
        assert result.strays["timewait"] == []
        for name in names:
            assert all(seen.method for seen in result.outcomes[name]["timewait"].seen), name


def test_a_running_balancer_lets_through_what_its_message_layer_does() -> None:
    """As many requests, with the same bodies, until one that closes, is unfinished, or is refused by a rule."""
    for result, cases in zip(results(), (CASES, MUTATED_CASES), strict=True):
        for name, data in cases.items():
            passed = through(data)
            seen = result.outcomes[name]["timewait"].seen
            through_layer = [
                (head.method.decode(), body.decode("latin-1"))
                for head, body in zip(passed.heads, passed.bodies, strict=True)
            ]
            count = len(seen)
            assert [(each.method, each.body) for each in seen] == through_layer[:count], name
            if count < len(through_layer):
                closed = count > 0 and not passed.heads[count - 1].keep_alive
                assert closed or passed.heads[count].is_connect or not passed.complete, name


def test_every_difference_has_a_reason_and_every_reason_a_difference() -> None:
    cases, mutated = results()
    assert set(EXPLAINED) <= set(CASES)
    assert {case for case in CASES if cases.differ(case)} == set(EXPLAINED)
    assert {said for said in groups(mutated) if len(set(said)) > 1} == set(MUTATED)


def test_the_page_says_what_they_did() -> None:
    assert PAGE.read_text() == page(*results(), versions()), "make docs-http writes it again"
