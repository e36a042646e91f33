"""nginx's `location`: what its documentation says, and what the real one does."""

from __future__ import annotations

import pytest

from timewait.balancer.routing.paths import Kind, Paths, Slash, parsed

# The example of nginx's documentation, letters as there.
DOCUMENTED = [
    ("= /", "A"),
    ("/", "B"),
    ("/documents/", "C"),
    ("^~ /images/", "D"),
    ("~* \\.(gif|jpg|jpeg)$", "E"),
]


@pytest.mark.parametrize(
    ("path", "letter"),
    [
        (b"/", "A"),
        (b"/index.html", "B"),
        (b"/documents/document.html", "C"),
        (b"/images/1.gif", "D"),
        (b"/documents/1.jpg", "E"),
    ],
)
def test_the_documentation_s_example(path: bytes, letter: str) -> None:
    assert Paths(DOCUMENTED).find(path) == letter


RULES = [
    ("~ ^/re/", "first"),
    ("~ ^/re/x", "second"),
    ("~* \\.PHP$", "php"),
    ("/re/", "never"),
    ("/abc/", "slash"),
    ("/abcd", "abcd"),
    ("= /exact", "exact"),
    ("=/only/", "only"),
    ("/both", "both"),
    ("/both/", "both/"),
    ("^~/firm/", "firm"),
    ("/firm/long/", "long"),
    ("/a b/", "blank"),
]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/re/x", "first"),
        (b"/re", Slash(b"/re/")),
        (b"/re/x.php", "first"),
        (b"/abc", Slash(b"/abc/")),
        (b"/abc/", "slash"),
        (b"/abc/x", "slash"),
        (b"/abc/x.php", "php"),
        (b"/abcx", None),
        (b"/abcde", "abcd"),
        (b"/ABC/", None),
        (b"/exact", "exact"),
        (b"/exact/", None),
        (b"/only/", "only"),
        (b"/only/x", None),
        (b"/only", Slash(b"/only/")),  # as nginx does, although `=` names one path
        (b"/both", "both"),
        (b"/both/x", "both/"),
        (b"/bothx", "both"),
        (b"/firm/x.php", "firm"),
        (b"/firm/long/x.php", "php"),  # the longest prefix is not the firm one
        (b"/firm/long/x", "long"),
        (b"/x.pHp", "php"),
        (b"/x.php\n", None),
        (b"/a b/", "blank"),
        (b"/", None),
    ],
)
def test_precedence(path: bytes, found: str | Slash | None) -> None:
    assert Paths(RULES).find(path) == found


def test_the_first_of_two_equal_rules_counts() -> None:
    assert Paths([("/", 1), ("/", 2), ("= /x", 3), ("= /x", 4)]).find(b"/x") == 3


@pytest.mark.parametrize(
    ("written", "kind", "text"),
    [
        ("= /a", Kind.EXACT, "/a"),
        ("^~ /a", Kind.FIRM_PREFIX, "/a"),
        ("~ a", Kind.REGEX, "a"),
        ("~* a", Kind.REGEX_NOCASE, "a"),
        ("~*a", Kind.REGEX_NOCASE, "a"),
        ("/~a", Kind.PREFIX, "/~a"),
    ],
)
def test_how_rules_are_written(written: str, kind: Kind, text: str) -> None:
    assert parsed(written) == (kind, text)


@pytest.mark.parametrize("written", ["", "a", "= a", "^~", "~", "~* ", "~ (", "@named"])
def test_what_is_no_rule(written: str) -> None:
    with pytest.raises(ValueError, match=r"slash|expression"):
        parsed(written)
