"""A played dialogue as text: each line of the script, and beside it what came."""

from __future__ import annotations

from timewait.lab.dialogue.play import Line, Played

_WIDTH = 46  # of the script's line, so that most of what came stands beside it on a line of 110 columns


def transcript(played: Played) -> list[str]:
    """Its lines. The last one is marked where it differs, with what is wrong."""
    lines = []
    for line in played.lines:
        if not line.implied or line.differs:
            lines += _shown(line)
    return lines


def _shown(line: Line) -> list[str]:
    mark = "!!" if line.differs else "  "
    came, *more = line.came or ("",)
    first = f"{mark} {line.number or '':>3}  {line.text:<{_WIDTH}}  {came}".rstrip()
    blank = " " * (len(mark) + 6 + _WIDTH + 2)
    lines = [first, *(f"{blank}{other}" for other in more)]
    if line.differs:
        lines.append(f"        {line.differs}")
    return lines
