"""On which line of a TOML file a key stands: tomllib does not say, and an error without its line is half an error."""

from __future__ import annotations

import re

Path = tuple[str | int, ...]  # ("nat", "ports"); ("hosts", 1, "name") in an array of tables

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)(?:\s*\.\s*(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+))*)\s*=""")
_PART = re.compile(r"""\s*("[^"]*"|'[^']*'|[A-Za-z0-9_-]+)\s*\.?""")


def lines_of(text: str) -> dict[Path, int]:
    """Every table and key of a TOML text that parses, and its line; keys inside inline tables are left out."""
    found: dict[Path, int] = {}
    table: Path = ()
    counts: dict[Path, int] = {}
    quoted = ""  # the quotes that a string over several lines waits for
    for number, line in enumerate(text.split("\n"), 1):
        if quoted:
            quoted = "" if quoted in line else quoted
            continue
        header = _HEADER.fullmatch(line)
        if header:
            *parents, last = _parts(header[2])
            table = (*_inside(parents, counts), last)
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
            table = _inside([last], counts, table[:-1])
            found.setdefault(table, number)
            continue
        key = _KEY.match(line)
        if key:
            found.setdefault((*table, *_parts(key[1])), number)
            quoted = _left_open(line[key.end() :])
    return found


def line_of(lines: dict[Path, int], path: Path) -> int | None:
    """The line of a path, or of what encloses it; None where the file does not mention it."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _inside(parts: list[str], counts: dict[Path, int], before: Path = ()) -> Path:
    """The path of a header: `[listener.client]` after two `[[listener]]` is ("listener", 1, "client")."""
    for part in parts:
        before = (*before, part)
        if before in counts:
            before = (*before, counts[before])
    return before


def _parts(text: str) -> list[str]:
    return [part.strip("\"'") for part in _PART.findall(text)]


def _left_open(value: str) -> str:
    """The quotes of a string that goes on over the next line."""
    for quotes in ('"""', "'''"):
        if value.strip().startswith(quotes) and value.count(quotes) == 1:
            return quotes
    return ""
