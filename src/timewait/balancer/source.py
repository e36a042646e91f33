"""Where the configuration comes from, so that it can be read again."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

from timewait.balancer.config.read import Reading, read
from timewait.balancer.engine import BalancerError

LONGEST = 16 << 20  # bytes: ten thousand pools of ten targets


def content(path: str) -> str:
    """A file's text, or that of standard input for `-`. Raises BalancerError."""
    name = name_of(path)
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else Path(path).open("rb") as file:
            found = file.read(LONGEST + 1)  # what has no end, as /dev/zero, is not read to it
        if len(found) > LONGEST:
            raise BalancerError(f"{name}: more than {LONGEST >> 20} MB, which no balancer's file has")
        return found.decode()
    except OSError as problem:
        raise BalancerError(f"{name}: cannot be read ({problem.strerror})") from None
    except UnicodeDecodeError as problem:
        raise BalancerError(f"{name}, line {found[: problem.start].count(10) + 1}: no text in UTF-8") from None


def name_of(path: str) -> str:
    """What a file is called in sentences about it."""
    return "stdin" if path == "-" else path


class Source:
    """A file by its path; `-` is standard input, which can be read only once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = name_of(path)

    def read(self) -> Reading:
        """The file as it is now, read and checked. Raises BalancerError."""
        if self.path == "-":
            raise BalancerError("the configuration came from standard input: there is no file to read again")
        return self.parsed(content(self.path), self.path)

    def parsed(self, text: str, name: str) -> Reading:
        """A text that is not in the file. Raises BalancerError."""
        return read(text, name)
