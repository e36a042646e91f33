"""Where the configuration comes from, so that it can be read again."""

from __future__ import annotations

from pathlib import Path

from timewait.balancer.config.read import Reading, read
from timewait.balancer.engine import BalancerError


class Source:
    """A file by its path; `-` is standard input, which can be read only once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = "stdin" if path == "-" else path

    def read(self) -> Reading:
        """The file as it is now, read and checked. Raises BalancerError."""
        if self.path == "-":
            raise BalancerError("the configuration came from standard input: there is no file to read again")
        try:
            text = Path(self.path).read_text()
        except OSError as problem:
            raise BalancerError(f"{self.path}: cannot be read ({problem.strerror})") from None
        except UnicodeDecodeError:
            raise BalancerError(f"{self.path}: no text in UTF-8") from None
        return self.parsed(text, self.path)

    def parsed(self, text: str, name: str) -> Reading:
        """A text that is not in the file. Raises BalancerError."""
        return read(text, name)
