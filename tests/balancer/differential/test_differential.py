"""The same bytes to three balancers: every difference is known and has a reason, and docs/ says so."""

from __future__ import annotations

import functools
from pathlib import Path

from balancer.differential.answers import ANSWERS, answered
from balancer.differential.cases import CASES
from balancer.differential.compare import Result, compared
from balancer.differential.fronts import versions
from balancer.differential.page import MUTATED_CASES, groups, line, page
from balancer.differential.reasons import ANSWERS_EXPLAINED, EXPLAINED, MUTATED
from balancer.http.test_h1spec import PASS, REFUSE, UNFINISHED
from balancer.http.through import through

PAGE = Path(__file__).parents[3] / "docs" / "http-differences.md"


@functools.cache
def results() -> tuple[Result, Result]:
    """Of all cases, and of all mutations; once for all tests."""
    return compared(CASES), compared(MUTATED_CASES)


@functools.cache
def answers() -> dict[str, tuple[str, ...]]:
    """Of all that a target says."""
    return answered()


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


def test_no_answer_confuses_a_client_or_reaches_the_next_request() -> None:
    for name in ANSWERS:
        said = answers()[name][0]
        assert "bad" not in said.split(), name
        assert said.endswith(("cut", ", then 200 good")), name


def test_h1spec_passes() -> None:
    """A running balancer: waits for what is unfinished, answers what is right, refuses what is wrong."""
    unfinished = {f"unfinished {end}": UNFINISHED[:end] for end in range(1, len(UNFINISHED) + 1, 3)}
    right = {f"right {name}": stream for name, (stream, _) in PASS.items()}
    result = compared(unfinished | right | {f"wrong {name}": stream for name, stream in REFUSE.items()})
    for name, outcomes in result.outcomes.items():
        statuses, seen = outcomes["timewait"].statuses, outcomes["timewait"].seen
        if name in right:
            assert statuses == [200] and [each.body.encode() for each in seen] == [PASS[name.partition(" ")[2]][1]], (
                name
            )
        else:
            assert seen == [], name
            assert [status // 100 for status in statuses] in ([[]] if name in unfinished else [[4], [5]]), name


def test_the_page_says_what_this_balancer_does() -> None:
    text = PAGE.read_text()
    ours = [(name, results()[0].said(name)[0]) for name in CASES]
    ours += [(name, said[0]) for name, said in answers().items()]
    assert [cells for cells in ours if line(cells)[:-1] not in text] == []


def test_every_difference_has_a_reason_and_every_reason_a_difference() -> None:
    """Of the versions that the page is about; what others do may differ, and then only our column is held."""
    cases, mutated = results()
    text = PAGE.read_text()
    if page(cases, mutated, answers(), versions()).split("\n## ")[0] != text.split("\n## ")[0]:
        return
    assert {case for case in CASES if cases.differ(case)} == set(EXPLAINED)
    assert {said for said in groups(mutated) if len(set(said)) > 1} == set(MUTATED)
    assert {name for name, said in answers().items() if len(set(said)) > 1} == set(ANSWERS_EXPLAINED)
    assert text == page(cases, mutated, answers(), versions()), "make docs-http writes it again"
