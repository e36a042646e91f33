"""Pieces of terminal layout: text that breaks only where it reads well, and small gauges. Colour never carries
meaning alone: with NO_COLOR the glyphs still tell the parts of a gauge apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

WIDEST = 100  # columns; longer lines are harder to read than they are impressive
LABEL = 12  # columns of the label in front of a row

GOOD, BAD, WARN, DIM, STRONG = "green", "red", "yellow", "dim", "bold"


class Flow:
    """Pieces on one line, ` · ` between them; a line ends between pieces, never inside one that fits a line."""

    def __init__(self, pieces: Iterable[Text | str], style: str = "") -> None:
        self.pieces = [Text(piece, style=style) if isinstance(piece, str) else piece for piece in pieces]

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        whole = sum(piece.cell_len for piece in self.pieces) + 3 * max(0, len(self.pieces) - 1)
        longest = max((piece.cell_len for piece in self.pieces), default=0)
        return Measurement(min(longest, options.max_width), min(whole, options.max_width))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        line = Text()
        for piece in self.pieces:
            if line.cell_len and line.cell_len + 3 + piece.cell_len > options.max_width:
                yield line
                line = Text()
            if line.cell_len:
                line.append(" · ", style=DIM)
            line.append_text(piece)
        if line.cell_len:
            # An address or URL has no place to break: better folded than cut.
            line.overflow = "fold"
            yield line


class Rows:
    """Labelled rows: the label beside its content, above it where the terminal is too narrow for both."""

    def __init__(self, label: int = LABEL) -> None:
        self.label = label
        self.rows: list[tuple[Text, RenderableType]] = []

    def add(self, label: str, content: RenderableType, style: str = DIM) -> None:
        self.rows.append((Text(label, style=style), content))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width < 3 * self.label:
            for label, content in self.rows:
                if label.plain:
                    yield label
                yield Padding(content, (0, 0, 0, 2))
            return
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=self.label, no_wrap=True)
        grid.add_column(overflow="fold", ratio=1)
        grid.expand = True
        for label, content in self.rows:
            grid.add_row(label, content)
        yield grid


class Trimmed:
    """Its content without blanks at the ends of lines: those fold badly when a terminal is made narrower later."""

    def __init__(self, content: RenderableType, widest: int = WIDEST) -> None:
        self.content, self.widest = content, widest

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        inner = options.update(width=min(self.widest, options.max_width), height=None)
        for line in console.render_lines(self.content, inner, pad=False):
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                yield from line[:-1]
                yield Segment(line[-1].text.rstrip(), line[-1].style, line[-1].control)
            yield Segment.line()


class StackedBar:
    """Parts of a whole as one bar, each with its own glyph and colour; what is there shows at least one cell."""

    def __init__(self, parts: Sequence[tuple[float, str, str]], whole: float, width: int = 40) -> None:
        self.parts, self.whole, self.width = parts, whole, width

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(10, options.max_width), min(self.width, options.max_width))

    def cells(self, width: int) -> list[int]:
        """How many cells each part takes; together at most `width`."""
        if self.whole <= 0 or width <= 0:
            return [0] * len(self.parts)
        wanted = [max(1, round(part / self.whole * width)) if part > 0 else 0 for part, _, _ in self.parts]
        while sum(wanted) > width:
            wanted[wanted.index(max(wanted))] -= 1
        return wanted

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = min(self.width, options.max_width)
        used = 0
        for cells, (_, glyph, colour) in zip(self.cells(width), self.parts, strict=True):
            yield Segment(glyph * cells, console.get_style(colour))
            used += cells
        yield Segment("·" * (width - used), console.get_style(DIM))
        yield Segment.line()


_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as blocks between zero and their highest; zero is the lowest block."""
    shown = values[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    if top <= 0:
        return _BLOCKS[0] * len(shown)
    return "".join(_BLOCKS[min(7, int(value / top * 7.999))] for value in shown)
