"""Lines and text on a grid of characters; lines that meet become joints."""

from __future__ import annotations

_NORTH, _EAST, _SOUTH, _WEST = 1, 2, 4, 8
_ROUND = {
    _NORTH: "│",
    _SOUTH: "│",
    _NORTH | _SOUTH: "│",
    _EAST: "─",
    _WEST: "─",
    _EAST | _WEST: "─",
    _SOUTH | _EAST: "╭",
    _SOUTH | _WEST: "╮",
    _NORTH | _EAST: "╰",
    _NORTH | _WEST: "╯",
    _NORTH | _SOUTH | _EAST: "├",
    _NORTH | _SOUTH | _WEST: "┤",
    _EAST | _WEST | _SOUTH: "┬",
    _EAST | _WEST | _NORTH: "┴",
    _NORTH | _EAST | _SOUTH | _WEST: "┼",
}
_ASCII = {"│": "|", "─": "-"}


class Canvas:
    """Grows as it is drawn on. `x` counts columns from the left, `y` lines from the top."""

    def __init__(self) -> None:
        self._strokes: dict[tuple[int, int], int] = {}
        self._texts: dict[tuple[int, int], str] = {}

    def line(self, x: int, y: int, to_x: int, to_y: int) -> None:
        """A straight line between two cells, both included."""
        while (x, y) != (to_x, to_y):
            step_x, step_y = (to_x > x) - (to_x < x), (to_y > y) - (to_y < y)
            forth = {(1, 0): _EAST, (-1, 0): _WEST, (0, 1): _SOUTH, (0, -1): _NORTH}
            self._stroke(x, y, forth[step_x, step_y])
            x, y = x + step_x, y + step_y
            self._stroke(x, y, forth[-step_x, -step_y])

    def frame(self, left: int, top: int, right: int, bottom: int) -> None:
        for start, end in (
            ((left, top), (right, top)),
            ((left, bottom), (right, bottom)),
            ((left, top), (left, bottom)),
            ((right, top), (right, bottom)),
        ):
            self.line(*start, *end)

    def write(self, x: int, y: int, text: str) -> None:
        """Text hides the lines under it."""
        for place, sign in enumerate(text):
            self._texts[x + place, y] = sign

    def lines(self, *, ascii_only: bool) -> list[str]:
        cells = {place: _ROUND[directions] for place, directions in self._strokes.items()}
        if ascii_only:
            cells = {place: _ASCII.get(sign, "+") for place, sign in cells.items()}
        cells |= self._texts
        right = max((x for x, _ in cells), default=-1)
        bottom = max((y for _, y in cells), default=-1)
        return ["".join(cells.get((x, y), " ") for x in range(right + 1)).rstrip() for y in range(bottom + 1)]

    def _stroke(self, x: int, y: int, direction: int) -> None:
        self._strokes[x, y] = self._strokes.get((x, y), 0) | direction
