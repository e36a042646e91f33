"""What is wrong with a file, and where in it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import NamedTuple

from timewait.balancer.engine import BalancerError
from timewait.toml_lines import Path, line_of


class Problem(NamedTuple):
    """One sentence, and the key it is about."""

    path: Path
    sentence: str


class ConfigError(BalancerError):
    """A file that cannot be run: its problems, one sentence each with file and line; all of them, one a line."""

    def __init__(self, sentences: Iterable[str]) -> None:
        self.sentences = tuple(sentences)
        super().__init__("\n".join(self.sentences))


def placed(problems: Iterable[Problem], lines: dict[Path, int], name: str) -> list[str]:
    """`clb.toml, line 12: ...`, in the order of the file, each once."""
    found = {}
    for problem in problems:
        line = line_of(lines, problem.path)
        found[f"{name}{f', line {line}' if line else ''}: {problem.sentence}"] = line or 0
    return sorted(found, key=lambda sentence: found[sentence])


def named(path: Path) -> str:
    """("listener", 0, "client", "keepalive") -> `listener.client.keepalive`."""
    return ".".join(part for part in path if isinstance(part, str))


def quoted(value: object) -> str:
    """A value as it stands in the file, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean wrr? `, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(known), 1, 0.6)
    return f"did you mean {near[0]}? " if near else ""
