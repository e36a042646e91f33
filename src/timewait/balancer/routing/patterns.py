"""Regular expressions of rules."""

from __future__ import annotations

import re


class Pattern:
    """An expression that may match anywhere in a host or path, unless it is anchored. ValueError: what is wrong."""

    def __init__(self, text: str, *, nocase: bool = False) -> None:
        try:
            self._compiled = re.compile(text.encode(), re.IGNORECASE if nocase else 0)
        except re.error as error:
            raise ValueError(f"the regular expression {text!r} is wrong: {error}") from None
        self.text = text

    def matches(self, subject: bytes) -> bool:
        """Whether it is found in `subject`."""
        return self._compiled.search(subject) is not None
