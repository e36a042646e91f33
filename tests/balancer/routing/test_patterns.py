"""Expressions of rules: they find what Python's engine finds, and no subject makes them slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timewait.balancer.routing.patterns import Pattern

ATOMS = st.sampled_from(["a", "b", "\\.", ".", "[ab]", "[^a]", "[a-c]", "\\w", "\\d", "\\S", "[\\d.]", "^", "$", ""])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "??"])).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS, st.lists(st.text("abcdAB1. ", max_size=6), min_size=5, max_size=5), st.booleans())
@settings(max_examples=400, deadline=None)
def test_python_finds_the_same(expression: str, subjects: list[str], nocase: bool) -> None:
    pattern, other = Pattern(expression, nocase=nocase), re.compile(expression.encode(), re.I if nocase else 0)
    for subject in subjects:
        assert pattern.matches(subject.encode()) is bool(other.search(subject.encode())), subject


@pytest.mark.parametrize(
    ("expression", "subject", "matches"),
    [
        ("\\.(gif|jpe?g)$", b"/a.jpg", True),
        ("\\.(gif|jpe?g)$", b"/a.jpg\n", False),  # the very end
        ("^/api/v[0-9]+/", b"/api/v12/x", True),
        ("^/api/v[0-9]+/", b"/x/api/v12/x", False),
        ("(?i)ABC", b"xabcx", True),
        ("(?i:A)B", b"aB", True),
        ("(?i:A)B", b"ab", False),
        ("ä", "/ä".encode(), True),
        ("", b"", True),
        ("^$", b"", True),
        ("^$", b"x", False),
    ],
)
def test_matching(expression: str, subject: bytes, matches: bool) -> None:
    assert Pattern(expression).matches(subject) is matches


@pytest.mark.parametrize("expression", ["^/(a+)+$", "(a|a)*b", "(.*)*x$", "(a*)*(a*)*(a*)*b"])
def test_what_would_take_python_for_ever_takes_a_pass(expression: str) -> None:
    """With 8,000 bytes a backtracking engine would not come back within the test's time."""
    assert Pattern(expression).matches(b"/" + b"a" * 8000 + b"!") is False


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("(", r"is wrong: missing \)"),
        ("*", "no argument for repetition operator"),
        ("(?x)a", "invalid perl operator"),
        ("(a)\\1", "a back-reference, for one"),
        ("(?!x)", "has a look ahead or behind, which"),
        ("(?<=x)y", "has a look ahead or behind, which"),
        ("a{5000}", "invalid repetition size"),
        ("((a{100}){100}){100}", "invalid repetition size"),
        ("x" * 1001, "of 1001 characters is too long"),
    ],
)
def test_what_is_refused(expression: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Pattern(expression)
