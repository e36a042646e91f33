"""One cookie out of a Cookie field (RFC 6265, 4.2)."""

from __future__ import annotations


def lookup(cookie: bytes, name: bytes) -> bytes | None:
    """The value of the first cookie of that name, without quotes; `cookie` is RequestHead.cookie."""
    if name not in cookie:
        return None
    for pair in cookie.split(b";"):
        key, equals, value = pair.strip(b" \t").partition(b"=")
        if equals and key == name:
            return value.strip(b'"')
    return None
