"""Whether what died of itself is started again: an accident is mended, a habit ends the engine."""

from __future__ import annotations

STILL = 10.0  # seconds it must have lived for its death to be an accident rather than a habit
MOST = 5  # deaths in a row of those that lived shorter, until the engine gives up
PAUSES = (0.0, 0.1, 0.5, 1.0, 2.0)  # seconds before each of them is replaced


class Accidents:
    """Counts the deaths of an engine's processes. Pure."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def pause(self, lived: float) -> float | None:
        """One died after so many seconds: how many to wait before another is started; None where that is no use."""
        self.in_a_row = self.in_a_row + 1 if lived < STILL else 0
        if self.in_a_row >= MOST:
            return None
        return PAUSES[min(self.in_a_row, len(PAUSES) - 1)]

    def habit(self) -> str:
        """Said of the last one, where pause() gave None."""
        return f"as {self.in_a_row - 1} before it within seconds of their start"
