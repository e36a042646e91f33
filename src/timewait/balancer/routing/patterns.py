"""Regular expressions of rules, matched by RE2 in time linear in the subject.

Whoever sends a request chooses the subject, and an engine that backtracks, as Python's and nginx's do, takes hours
for `^/(a+)+$` and the right path. RE2 knows no back-references and no looking around; `$` is the very end, not before
a line feed at the end: a path may have one (%0a).
"""

from __future__ import annotations

import re2

LONGEST = 1000  # characters of an expression; CLB takes 200
_HINTS = {  # RE2 names what it does not know by Perl's words
    **dict.fromkeys(
        ("invalid perl operator: (?=", "invalid perl operator: (?!", "invalid perl operator: (?<"),
        "it has a look ahead or behind, which cannot be matched in bounded time",
    ),
    "invalid escape sequence: \\": "it has an escape RE2 does not know (a back-reference, for one)",
    "pattern too large": "it is too large: write it with fewer or smaller repetitions",
}


def _options(nocase: bool) -> re2.Options:
    options = re2.Options()
    options.log_errors = False  # told by the exception, not on standard error
    options.encoding = re2.Options.Encoding.LATIN1  # a host or path is bytes
    options.case_sensitive = not nocase
    options.never_capture = True
    return options


class Pattern:
    """An expression that may match anywhere in a host or path, unless it is anchored. ValueError: what is wrong."""

    def __init__(self, text: str, *, nocase: bool = False) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise ValueError(f"a regular expression of {len(text)} characters is too long: {LONGEST} is the most")
        try:
            self._found = re2.compile(text.encode(), _options(nocase)).search
        except re2.error as error:
            raise ValueError(f"the regular expression {text!r} is wrong: {_said(error)}") from None

    def matches(self, subject: bytes) -> bool:
        """Whether it is found in `subject`."""
        return self._found(subject) is not None


def _said(error: re2.error) -> str:
    text = error.args[0]
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    return next((f"{hint} ({said})" for start, hint in _HINTS.items() if said.startswith(start)), said)
