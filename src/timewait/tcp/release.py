"""Kernel releases as numbers that compare."""

from __future__ import annotations

import re

Release = tuple[int, int, int]


def parse_release(text: str) -> Release:
    """`uname -r` -> (major, minor, patch): "6.18.44-1-amd64" -> (6, 18, 44). (0, 0, 0) where nothing can be read."""
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?:\.([0-9]{1,6}))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else (0, 0, 0)
