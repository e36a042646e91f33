"""Paths as nginx compares them with its locations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timewait.balancer.http.target import normalised


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        (b"/", b"/"),
        (b"/a/b.c", b"/a/b.c"),
        (b"/a/", b"/a/"),
        (b"//", b"/"),
        (b"/a///b//", b"/a/b/"),
        (b"/.", b"/"),
        (b"/a/.", b"/a/"),
        (b"/a/./b", b"/a/b"),
        (b"/a/..", b"/"),
        (b"/a/../b", b"/b"),
        (b"/a/b/../../c", b"/c"),
        (b"/a//../b", b"/b"),  # slashes are merged first
        (b"/...", b"/..."),
        (b"/.a/..b", b"/.a/..b"),
        (b"/%61", b"/a"),
        (b"/a%20b", b"/a b"),
        (b"/%2e%2E/", None),
        (b"/a/%2e%2e/b", b"/b"),
        (b"/a%2f..%2fb", b"/b"),
        (b"/%2fa", b"/a"),
        (b"/%252e", b"/%2e"),  # decoded once
        (b"/a%3fb", b"/a?b"),
        (b"/a+b;c", b"/a+b;c"),
        (b"/%C3%A4", b"/\xc3\xa4"),
        (b"/%0a", b"/\n"),
        (b"/..", None),
        (b"/a/../..", None),
        (b"/../a", None),
        (b"/%", None),
        (b"/%4", None),
        (b"/%zz", None),
        (b"/a%00b", None),
    ],
)
def test_paths(path: bytes, plain: bytes | None) -> None:
    assert normalised(path) == plain


@given(st.text("/.a%2eEfF", max_size=12))
def test_nothing_of_what_is_resolved_remains(text: str) -> None:
    plain = normalised(b"/" + text.encode())
    if plain is not None:
        assert plain.startswith(b"/")
        assert b"//" not in plain
        assert not {b".", b".."} & set(plain.split(b"/"))
