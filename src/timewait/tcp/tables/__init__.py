"""The rules as tables for people: one per decision, a column for each group of kernels that decide alike.

Every cell is an answer of the functions of this room, asked when the table is made.
"""

from __future__ import annotations

from timewait.tcp.tables.ending import counted, ways_to_end
from timewait.tcp.tables.length import lengths, recycling
from timewait.tcp.tables.meeting import arrivals, fin_wait2, listeners
from timewait.tcp.tables.opening import clocks, resends, reuses, searches
from timewait.tcp.tables.overview import differences, in_words, overview
from timewait.tcp.tables.table import Table

__all__ = ["Table", "differences", "in_words", "overview", "tables"]


def tables() -> list[Table]:
    """All of them, in the order of docs/rules.md."""
    makers = (overview, arrivals, fin_wait2, listeners, recycling, lengths, reuses, searches, clocks, resends)
    return [make() for make in (*makers, ways_to_end, counted)]
